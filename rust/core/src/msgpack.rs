//! The part of msgpack that envelopes use: a bounded reader, and the few writers to match it.
//!
//! Hand-written because it has to refuse what general readers let through (extension types,
//! lengths that the bytes at hand cannot hold, deep nesting) and never allocates.
//! Format: <https://github.com/msgpack/msgpack/blob/master/spec.md>.

use crate::msgpack::pattern::Pattern;
use crate::refusal::Reason;
use crate::scalar::Number;

pub mod pattern;
pub mod write;

/// Deepest nesting of a message, the envelope itself included.
pub const MAX_DEPTH: usize = 8;

/// A value without parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// An integer or a float.
    Number(Number),
    /// A boolean.
    Bool(bool),
    /// Nothing.
    Nil,
}

/// A cursor over the bytes that have not been read yet.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

type Read<T> = Result<T, Reason>;

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[inline]
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Fails unless everything has been read.
    ///
    /// # Errors
    /// [`Reason::TrailingBytes`].
    pub const fn finish(&self) -> Read<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Reason::TrailingBytes) }
    }

    /// Reads the pattern if that is what comes next.
    #[inline]
    pub fn take_if(&mut self, pattern: &Pattern) -> bool {
        let rest = pattern.strip(self.rest);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads a 32-bit float if that is what comes next.
    #[inline]
    pub fn take_f32(&mut self) -> Option<f32> {
        let (head, rest) = self.rest.split_first_chunk::<5>()?;
        let [0xca, a, b, c, d] = *head else { return None };
        self.rest = rest;
        Some(f32::from_be_bytes([a, b, c, d]))
    }

    /// Reads the head of a map: its number of entries, which the bytes at hand can hold.
    ///
    /// # Errors
    /// Not a map, or one that claims more than there is.
    #[inline]
    pub fn map(&mut self) -> Read<usize> {
        let entries = match self.byte()? {
            marker @ 0x80..=0x8f => usize::from(marker & 0x0f),
            0xde => self.length::<2>()?,
            0xdf => self.length::<4>()?,
            marker => return Err(unexpected(marker)),
        };
        // Every entry takes two bytes at least. Lengths fit in 32 bits, so this cannot overflow.
        if entries > self.rest.len() / 2 { Err(Reason::Truncated) } else { Ok(entries) }
    }

    /// Reads the head of an array: its number of items, which the bytes at hand can hold.
    ///
    /// # Errors
    /// Not an array, or one that claims more than there is.
    #[inline]
    pub fn array(&mut self) -> Read<usize> {
        let items = match self.byte()? {
            marker @ 0x90..=0x9f => usize::from(marker & 0x0f),
            0xdc => self.length::<2>()?,
            0xdd => self.length::<4>()?,
            marker => return Err(unexpected(marker)),
        };
        if items > self.rest.len() { Err(Reason::Truncated) } else { Ok(items) }
    }

    /// Reads a string as bytes.
    ///
    /// # Errors
    /// Not a string, or one that claims more than there is.
    #[inline]
    pub fn string(&mut self) -> Read<&'a [u8]> {
        let length = match self.byte()? {
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9 => self.length::<1>()?,
            0xda => self.length::<2>()?,
            0xdb => self.length::<4>()?,
            marker => return Err(unexpected(marker)),
        };
        self.take(length)
    }

    /// Reads binary data.
    ///
    /// # Errors
    /// Not binary, or it claims more than there is.
    #[inline]
    pub fn binary(&mut self) -> Read<&'a [u8]> {
        let length = match self.byte()? {
            0xc4 => self.length::<1>()?,
            0xc5 => self.length::<2>()?,
            0xc6 => self.length::<4>()?,
            marker => return Err(unexpected(marker)),
        };
        self.take(length)
    }

    /// Reads everything that is left, whatever it is.
    pub const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Reads a number, a boolean or nil.
    ///
    /// # Errors
    /// Anything else, or the end.
    #[inline]
    pub fn value(&mut self) -> Read<Value> {
        let number = match self.byte()? {
            marker @ 0x00..=0x7f => Number::Unsigned(marker.into()),
            marker @ 0xe0..=0xff => signed(i8::from_be_bytes([marker]).into()),
            0xca => Number::Float(f32::from_be_bytes(self.bytes()?).into()),
            0xcb => Number::Float(f64::from_be_bytes(self.bytes()?)),
            0xcc => Number::Unsigned(u8::from_be_bytes(self.bytes()?).into()),
            0xcd => Number::Unsigned(u16::from_be_bytes(self.bytes()?).into()),
            0xce => Number::Unsigned(u32::from_be_bytes(self.bytes()?).into()),
            0xcf => Number::Unsigned(u64::from_be_bytes(self.bytes()?)),
            0xd0 => signed(i8::from_be_bytes(self.bytes()?).into()),
            0xd1 => signed(i16::from_be_bytes(self.bytes()?).into()),
            0xd2 => signed(i32::from_be_bytes(self.bytes()?).into()),
            0xd3 => signed(i64::from_be_bytes(self.bytes()?)),
            0xc0 => return Ok(Value::Nil),
            0xc2 => return Ok(Value::Bool(false)),
            0xc3 => return Ok(Value::Bool(true)),
            marker => return Err(unexpected(marker)),
        };
        Ok(Value::Number(number))
    }

    /// Skips one value that nests at most `depth` deep.
    ///
    /// # Errors
    /// [`Reason::TooDeep`], an extension type, or the end.
    pub fn skip(&mut self, depth: usize) -> Read<()> {
        match self.rest.first() {
            Some(0x80..=0x8f | 0xde | 0xdf) => {
                let items = 2 * self.map()?;
                self.skip_items(items, depth)
            }
            Some(0x90..=0x9f | 0xdc | 0xdd) => {
                let items = self.array()?;
                self.skip_items(items, depth)
            }
            Some(0xa0..=0xbf | 0xd9..=0xdb) => self.string().map(drop),
            Some(0xc4..=0xc6) => self.binary().map(drop),
            _ => self.value().map(drop),
        }
    }

    fn skip_items(&mut self, items: usize, depth: usize) -> Read<()> {
        let inner = depth.checked_sub(1).ok_or(Reason::TooDeep)?;
        (0..items).try_for_each(|_| self.skip(inner))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Reason::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    fn bytes<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Reason::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    fn byte(&mut self) -> Read<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    #[inline]
    fn length<const N: usize>(&mut self) -> Read<usize> {
        let raw = self.bytes::<N>()?;
        Ok(raw.into_iter().fold(0, |length, byte| length << 8 | usize::from(byte)))
    }
}

#[inline]
fn signed(value: i64) -> Number {
    u64::try_from(value).map_or(Number::Negative(value), Number::Unsigned)
}

#[cold]
const fn unexpected(marker: u8) -> Reason {
    match marker {
        0xc7..=0xc9 | 0xd4..=0xd8 => Reason::ExtensionType,
        _ => Reason::WrongType,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn claims_are_checked_against_the_bytes_at_hand() {
        for bytes in [
            &[0xdf, 0xff, 0xff, 0xff, 0xff][..],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xdb, 0xff, 0xff, 0xff, 0xff],
            &[0xc6, 0xff, 0xff, 0xff, 0xff],
            &[0x81],
            &[],
        ] {
            assert_eq!(Reader::new(bytes).skip(MAX_DEPTH), Err(Reason::Truncated), "{bytes:x?}");
        }
        assert_eq!(Reader::new(&[0x82, 0, 0, 0]).map(), Err(Reason::Truncated));
        assert_eq!(Reader::new(&[0x92, 0]).array(), Err(Reason::Truncated));
    }

    #[test]
    fn nesting_and_extensions_are_refused() {
        assert_eq!(Reader::new(&[0x91; 1000]).skip(MAX_DEPTH), Err(Reason::TooDeep));
        for marker in [0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8] {
            let bytes = [0x91, marker, 1, 1, 1];
            assert_eq!(Reader::new(&bytes).skip(MAX_DEPTH), Err(Reason::ExtensionType));
        }
        assert_eq!(Reader::new(&[0xc1]).skip(MAX_DEPTH), Err(Reason::WrongType));
    }

    proptest! {
        #[test]
        fn numbers_come_back(value in any::<u64>(), shift in 0..64u32, float in any::<f64>()) {
            let mut out = Vec::new();
            write::number(&mut out, Number::Unsigned(value >> shift));
            write::number(&mut out, Number::Float(float));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.value(), Ok(Value::Number(Number::Unsigned(value >> shift))));
            prop_assert_eq!(reader.value(), Ok(Value::Number(Number::Float(float))));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn negative_numbers_are_read_in_every_width(value in any::<i8>()) {
            let wide = i64::from(value);
            for bytes in [
                [&[0xd0][..], &value.to_be_bytes()].concat(),
                [&[0xd1][..], &i16::from(value).to_be_bytes()].concat(),
                [&[0xd2][..], &i32::from(value).to_be_bytes()].concat(),
                [&[0xd3][..], &wide.to_be_bytes()].concat(),
            ] {
                prop_assert_eq!(Reader::new(&bytes).value(), Ok(Value::Number(signed(wide))));
            }
        }

        #[test]
        fn strings_and_binary_come_back(length in 0..70_000usize) {
            let text = "x".repeat(length);
            let mut out = Vec::new();
            write::string(&mut out, &text);
            write::binary(&mut out, length);
            out.extend_from_slice(text.as_bytes());
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.string(), Ok(text.as_bytes()));
            prop_assert_eq!(reader.binary(), Ok(text.as_bytes()));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn arbitrary_bytes_are_skipped_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            if reader.skip(MAX_DEPTH).is_ok() {
                prop_assert!(reader.rest().len() < bytes.len());
            }
        }
    }
}
