//! Writers of the values that envelopes consist of, each in its shortest form.
//!
//! Lengths are those of arrays in memory. Beyond 32 bits msgpack cannot express them; such a
//! message would be a thousand times too large to be accepted, so the writers saturate there.

use crate::scalar::Number;

/// Head of a map of `entries`.
pub fn map(out: &mut Vec<u8>, entries: usize) {
    match u8::try_from(entries) {
        Ok(short @ ..=0x0f) => out.push(0x80 | short),
        _ => wide_head(out, entries, None, 0xde, 0xdf),
    }
}

/// Head of an array of `items`.
pub fn array(out: &mut Vec<u8>, items: usize) {
    match u8::try_from(items) {
        Ok(short @ ..=0x0f) => out.push(0x90 | short),
        _ => wide_head(out, items, None, 0xdc, 0xdd),
    }
}

/// A string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(short @ ..=0x1f) => out.push(0xa0 | short),
        _ => wide_head(out, text.len(), Some(0xd9), 0xda, 0xdb),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Head of `length` bytes of binary data, which the caller appends.
pub fn binary(out: &mut Vec<u8>, length: usize) {
    wide_head(out, length, Some(0xc4), 0xc5, 0xc6);
}

/// A boolean.
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// An unsigned integer.
pub fn unsigned(out: &mut Vec<u8>, value: u64) {
    if let Ok(small) = u8::try_from(value) {
        if small >= 0x80 {
            out.push(0xcc);
        }
        out.push(small);
    } else if let Ok(short) = u16::try_from(value) {
        out.push(0xcd);
        out.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(value) {
        out.push(0xce);
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// A number; a float that float32 holds exactly is written as one.
pub fn number(out: &mut Vec<u8>, number: Number) {
    match number {
        Number::Unsigned(value) => unsigned(out, value),
        Number::Negative(value) => {
            out.push(0xd3);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Number::Float(value) if f64::from(number.as_f32()).to_bits() == value.to_bits() => {
            out.push(0xca);
            out.extend_from_slice(&number.as_f32().to_be_bytes());
        }
        Number::Float(value) => {
            out.push(0xcb);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// A length in one, two or four bytes behind the marker for that width.
fn wide_head(out: &mut Vec<u8>, length: usize, one: Option<u8>, two: u8, four: u8) {
    if let (Ok(length), Some(one)) = (u8::try_from(length), one) {
        out.extend_from_slice(&[one, length]);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(two);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(four);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}
