//! The five number types of a field: how each is stored, checked and converted.

use crate::table::{Field, Presence};

/// How a field is stored in a record and in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
}

impl Kind {
    /// NumPy's name of the type.
    #[must_use]
    pub const fn dtype(self) -> &'static str {
        match self {
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// Size of one value in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 | Self::F32 => 4,
            Self::U64 | Self::F64 => 8,
        }
    }
}

/// One column, of whichever type.
#[derive(Clone, Debug)]
pub enum Array {
    /// Unsigned 16-bit integers.
    U16(Vec<u16>),
    /// Unsigned 32-bit integers.
    U32(Vec<u32>),
    /// Unsigned 64-bit integers.
    U64(Vec<u64>),
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
}

/// Runs one expression for whichever type the column has.
macro_rules! each {
    ($array:expr, $values:ident => $do:expr) => {
        match $array {
            Array::U16($values) => $do,
            Array::U32($values) => $do,
            Array::U64($values) => $do,
            Array::F32($values) => $do,
            Array::F64($values) => $do,
        }
    };
}

impl Array {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        each!(self, values => values.len())
    }

    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends all values, little-endian.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        each!(self, values => values.iter().for_each(|value| value.put_le(out)));
    }
}

/// A number as a sender wrote it, before it becomes a value of some field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A non-negative integer of any width.
    Unsigned(u64),
    /// A negative integer, which no field can hold except a float.
    Negative(i64),
    /// A float of either width.
    Float(f64),
}

/// What is wrong with a value as a value of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Outside the field's range, or infinite.
    OutOfRange,
    /// NaN in a field that has to be measured.
    NanWhereRequired,
    /// Not a number of the field's sort.
    WrongType,
}

/// A type that fields can have.
pub trait Scalar: Copy {
    /// Its tag.
    const KIND: Kind;
    /// What an absent field holds: zero, or NaN for a 32-bit float (a measurement).
    const ABSENT: Self;

    /// Takes a little-endian value off the front of `bytes`, which must be long enough.
    fn take_le(bytes: &mut &[u8]) -> Self;
    /// Appends the value, little-endian.
    fn put_le(self, out: &mut Vec<u8>);
    /// Why this is not a legal value of `field`, if it is not.
    fn fault(self, field: &Field) -> Option<Fault>;
    /// Whether this is a legal value of `field`, found out without branching.
    fn is_legal(self, field: &Field) -> bool;
    /// The value of this type closest to `number`, unchecked against any range.
    ///
    /// # Errors
    /// [`Fault::OutOfRange`] for an integer that does not fit, [`Fault::WrongType`] for a float
    /// in place of an integer.
    fn convert(number: Number) -> Result<Self, Fault>;
    /// The value as a number.
    fn number(self) -> Number;
    /// A column of such values.
    fn array(values: Vec<Self>) -> Array;
    /// The values of a column, if it is of this type.
    fn values(array: Array) -> Option<Vec<Self>>;

    /// `number` as a legal value of `field`.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    fn checked(number: Number, field: &Field) -> Result<Self, Fault> {
        let value = Self::convert(number)?;
        value.fault(field).map_or(Ok(value), Err)
    }
}

macro_rules! scalar {
    ($type:ident, $kind:ident, $absent:expr, $legal:expr, $convert:expr, $number:expr) => {
        impl Scalar for $type {
            const KIND: Kind = Kind::$kind;
            const ABSENT: Self = $absent;

            #[inline]
            fn take_le(bytes: &mut &[u8]) -> Self {
                let (head, rest) = bytes.split_at(size_of::<Self>());
                *bytes = rest;
                let mut raw = [0; size_of::<Self>()];
                raw.copy_from_slice(head);
                Self::from_le_bytes(raw)
            }

            #[inline]
            fn put_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn fault(self, field: &Field) -> Option<Fault> {
                let nan = self.number().as_f64().is_nan();
                (!self.is_legal(field)).then_some(if nan {
                    Fault::NanWhereRequired
                } else {
                    Fault::OutOfRange
                })
            }

            #[inline]
            fn is_legal(self, field: &Field) -> bool {
                $legal(self, field)
            }

            #[inline]
            fn convert(number: Number) -> Result<Self, Fault> {
                $convert(number)
            }

            #[inline]
            fn number(self) -> Number {
                $number(self)
            }

            fn array(values: Vec<Self>) -> Array {
                Array::$kind(values)
            }

            fn values(array: Array) -> Option<Vec<Self>> {
                if let Array::$kind(values) = array { Some(values) } else { None }
            }
        }
    };
}

#[inline]
fn integer<T: TryFrom<u64>>(number: Number) -> Result<T, Fault> {
    match number {
        Number::Unsigned(value) => T::try_from(value).map_err(|_| Fault::OutOfRange),
        Number::Negative(_) => Err(Fault::OutOfRange),
        Number::Float(_) => Err(Fault::WrongType),
    }
}

impl Number {
    /// The nearest float64.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "the nearest float is what is asked for")]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Unsigned(value) => value as f64,
            Self::Negative(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// The nearest float32; beyond its range that is an infinity.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the nearest float is what is asked for")]
    pub fn as_f32(self) -> f32 {
        self.as_f64() as f32
    }
}

/// Whether `value` is at most the largest legal one; the smallest of an integer field is 0.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the bounds of an integer field are whole numbers below 2^53"
)]
const fn whole(value: u64, field: &Field) -> bool {
    value <= field.high as u64
}

/// Whether `value` is in the range of `field`, or NaN where that is allowed.
#[inline]
fn within<T: PartialOrd + Copy>(value: T, low: T, high: T, field: &Field) -> bool {
    match field.presence {
        // Two comparisons that are false for NaN.
        Presence::NotMeasured => !((value < low) | (value > high)),
        Presence::Required | Presence::Zero => (value >= low) & (value <= high),
    }
}

/// The bounds of float32 fields are float32.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "nothing is lost")]
fn within_f32(value: f32, field: &Field) -> bool {
    within(value, field.low as f32, field.high as f32, field)
}

scalar!(u16, U16, 0, |value: u16, field| whole(value.into(), field), integer, |value: u16| {
    Number::Unsigned(value.into())
});
scalar!(u32, U32, 0, |value: u32, field| whole(value.into(), field), integer, |value: u32| {
    Number::Unsigned(value.into())
});
scalar!(u64, U64, 0, whole, integer, Number::Unsigned);
scalar!(f32, F32, f32::NAN, within_f32, |number: Number| Ok(number.as_f32()), |value: f32| {
    Number::Float(value.into())
});
scalar!(
    f64,
    F64,
    0.0,
    |value: f64, field: &Field| within(value, field.low, field.high, field),
    |number: Number| Ok(number.as_f64()),
    Number::Float
);

/// The bits of a number, as the low bits of 64.
pub(crate) trait Bits: Scalar {
    /// Those of the value of an absent field.
    const ABSENT_BITS: u64;

    /// Whether these are the bits of a value of this type.
    fn fits(bits: u64) -> bool;
    /// The value with these bits; those that do not fit are cut off.
    fn from_bits(bits: u64) -> Self;
}

macro_rules! integer_bits {
    ($($type:ident)*) => {$(
        impl Bits for $type {
            const ABSENT_BITS: u64 = Self::ABSENT as u64;

            #[inline]
            fn fits(bits: u64) -> bool {
                Self::try_from(bits).is_ok()
            }

            #[inline]
            #[allow(clippy::cast_possible_truncation, reason = "that is what is asked for")]
            fn from_bits(bits: u64) -> Self {
                bits as Self
            }
        }
    )*};
}

macro_rules! float_bits {
    ($($type:ident $bits:ident)*) => {$(
        impl Bits for $type {
            const ABSENT_BITS: u64 = Self::ABSENT.to_bits() as u64;

            #[inline]
            fn fits(bits: u64) -> bool {
                $bits::fits(bits)
            }

            #[inline]
            fn from_bits(bits: u64) -> Self {
                Self::from_bits(<$bits as Bits>::from_bits(bits))
            }
        }
    )*};
}

integer_bits!(u16 u32 u64);
float_bits!(f32 u32 f64 u64);
