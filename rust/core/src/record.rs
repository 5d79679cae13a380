//! One health signal of one layer: the fixed record.

use crate::scalar::{Bits, Fault, Number, Scalar};
use crate::table::{
    FIELDS, MEASURED, MEASUREMENTS, Ordinal, READY_FOR_TRANSITION, RECORD_BYTES, signal_table,
};

macro_rules! write_record {
    ({ $($before:tt)* } { $($measured:tt)* } { $($after:tt)* }) => {
        write_fields! { $($before)* $($measured)* $($after)* }
        write_measurements! { $($measured)* }
    };
}

macro_rules! write_fields {
    ($($name:ident: $type:ident, $unit:literal, $low:expr, $high:expr, $presence:ident, $doc:literal;)*) => {
        /// One health signal of one layer, decoded and checked.
        ///
        /// Laid out like the packed record, so that reading one is a copy.
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub struct Record {
            $(#[doc = $doc] pub $name: $type,)*
        }

        /// The bits of a record in which every field has the value of an absent one.
        pub(crate) const ABSENT_BITS: [u64; FIELDS.len()] = [$(<$type as Bits>::ABSENT_BITS,)*];

        impl Record {
            /// A record in which every field has the value of an absent one.
            pub const ABSENT: Self = Self { $($name: <$type as Scalar>::ABSENT,)* };

            /// Reads a packed record, which is not checked yet.
            #[inline]
            #[must_use]
            pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Self {
                let mut rest = bytes.as_slice();
                Self { $($name: <$type>::take_le(&mut rest),)* }
            }

            /// Appends the packed record.
            pub fn write_to(&self, out: &mut Vec<u8>) {
                $(self.$name.put_le(out);)*
            }

            /// A record from the bits of its fields in wire order, if all are legal.
            #[inline]
            pub(crate) fn from_bits(bits: &[u64; FIELDS.len()]) -> Option<Self> {
                let fits = true $(& <$type as Bits>::fits(bits[Ordinal::$name as usize]))*;
                let record =
                    Self { $($name: <$type as Bits>::from_bits(bits[Ordinal::$name as usize]),)* };
                (fits & record.is_legal()).then_some(record)
            }

            /// Whether every field that is no measurement is legal.
            #[inline]
            fn is_framed(&self) -> bool {
                true $(& (is_measurement(Ordinal::$name)
                    || self.$name.is_legal(&FIELDS[Ordinal::$name as usize])))*
            }

            /// The first field that is not legal, and what is wrong with it.
            #[cold]
            #[must_use]
            pub fn first_fault(&self) -> Option<(&'static str, Fault)> {
                $(if let Some(fault) = self.$name.fault(&FIELDS[Ordinal::$name as usize]) {
                    return Some((stringify!($name), fault));
                })*
                None
            }

            /// Sets one field from a decoded number, if the number fits and is legal.
            ///
            /// # Errors
            /// What is wrong with the number, as a value of this field.
            #[inline]
            pub fn set(&mut self, field: Ordinal, number: Number) -> Result<(), Fault> {
                match field {
                    $(Ordinal::$name => {
                        self.$name = <$type>::checked(number, &FIELDS[Ordinal::$name as usize])?;
                    })*
                }
                Ok(())
            }

            /// One field as a number.
            #[must_use]
            pub fn get(&self, field: Ordinal) -> Number {
                match field { $(Ordinal::$name => self.$name.number(),)* }
            }
        }
    };
}

macro_rules! write_measurements {
    ($($name:ident: $type:ident, $unit:literal, $low:expr, $high:expr, $presence:ident, $doc:literal;)*) => {
        impl Record {
            /// The measurements, in the order of [`MEASUREMENTS`].
            #[inline]
            #[must_use]
            pub const fn measurements(&self) -> [f32; MEASURED] {
                [$(self.$name,)*]
            }

            /// Sets all measurements, which are not checked.
            #[inline]
            pub const fn set_measurements(&mut self, values: [f32; MEASURED]) {
                [$(self.$name,)*] = values;
            }
        }
    };
}

signal_table!(write_record);

const fn is_measurement(field: Ordinal) -> bool {
    let at = field as usize;
    at >= MEASUREMENTS[0] as usize && at <= MEASUREMENTS[MEASURED - 1] as usize
}

/// Smallest and largest legal value of each measurement.
#[allow(clippy::cast_possible_truncation, reason = "the bounds of float32 fields are float32")]
pub(crate) const BOUNDS: [(f32, f32); MEASURED] = {
    let mut bounds = [(0.0, 0.0); MEASURED];
    let mut at = 0;
    while at < MEASURED {
        let field = &FIELDS[MEASUREMENTS[at] as usize];
        bounds[at] = (field.low as f32, field.high as f32);
        at += 1;
    }
    bounds
};

impl Record {
    /// Whether every field is legal. Tests all fields without branching between them.
    #[inline]
    #[must_use]
    pub fn is_legal(&self) -> bool {
        let mut outside = false;
        // False for NaN, which is legal here: not measured.
        for (value, (low, high)) in self.measurements().into_iter().zip(BOUNDS) {
            outside |= (value < low) | (value > high);
        }
        !outside & self.is_framed()
    }

    /// Whether the layer's seed asks to move to its next stage.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.flags & READY_FOR_TRANSITION != 0
    }
}
