//! One health signal of one layer: the fixed record, and the table that describes it.
//!
//! The table at the end of this file is the only description of a signal in the project: records,
//! columns, all three decoders and the encoder are generated from it or driven by it, Python reads
//! it through the binding, and the documentation is checked against it.

use crate::scalar::{Array, Fault, Kind, Number, Scalar};

/// What a sender may leave out, and what its absence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The field must be there.
    Required,
    /// An absent field is zero.
    Zero,
    /// An absent field is NaN: not measured.
    NotMeasured,
}

impl Presence {
    /// Name of the presence in the field table that Python sees.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Zero => "zero",
            Self::NotMeasured => "not_measured",
        }
    }
}

/// One row of a field table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name on the wire, of the column, and of the Python attribute.
    pub name: &'static str,
    /// Storage type.
    pub kind: Kind,
    /// Unit, or what the number counts.
    pub unit: &'static str,
    /// Smallest legal value.
    pub low: f64,
    /// Largest legal value.
    pub high: f64,
    /// Whether it may be left out.
    pub presence: Presence,
    /// One sentence on what it means.
    pub doc: &'static str,
}

/// The layer's seed asks to move to its next stage.
pub const READY_FOR_TRANSITION: u32 = 1;
/// An activation was NaN or infinite.
pub const NONFINITE_ACTIVATION: u32 = 2;
/// A gradient was NaN or infinite.
pub const NONFINITE_GRADIENT: u32 = 4;
/// A weight was NaN or infinite.
pub const NONFINITE_WEIGHT: u32 = 8;

/// The flags by the names under which the maps encoding carries them, as booleans.
pub const FLAGS: [(&str, u32); 4] = [
    ("is_ready_for_transition", READY_FOR_TRANSITION),
    ("nonfinite_activation", NONFINITE_ACTIVATION),
    ("nonfinite_gradient", NONFINITE_GRADIENT),
    ("nonfinite_weight", NONFINITE_WEIGHT),
];

/// Largest id, epoch or count.
pub const MAX_U32: f64 = 4_294_967_295.0;
/// Largest seed count.
const MAX_U16: f64 = 65_535.0;
/// Largest optimiser step: what a float64, and so JSON, still holds exactly.
const MAX_STEP: f64 = 9_007_199_254_740_991.0;
/// The year 10,000. Milliseconds instead of seconds are beyond it.
pub const MAX_TIMESTAMP: f64 = 253_402_300_800.0;
/// Largest finite float32.
pub const MAX_F32: f64 = f32::MAX as f64;
/// Every flag that exists.
const ALL_FLAGS: f64 = 15.0;

/// Writes the record, the columns and the table from one list.
macro_rules! signal_table {
    ($($name:ident: $type:ident, $unit:literal, $low:expr, $high:expr, $presence:ident, $doc:literal;)*) => {
        /// One health signal of one layer, decoded and checked.
        #[derive(Clone, Copy, Debug)]
        pub struct Record {
            $(#[doc = $doc] pub $name: $type,)*
        }

        /// Position of each field in [`FIELDS`].
        #[allow(missing_docs, non_camel_case_types, reason = "named after the fields")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Ordinal { $($name,)* }

        /// The field table of a health signal, in wire order.
        pub const FIELDS: [Field; [$(Ordinal::$name,)*].len()] = [$(Field {
            name: stringify!($name),
            kind: <$type as Scalar>::KIND,
            unit: $unit,
            low: $low,
            high: $high,
            presence: Presence::$presence,
            doc: $doc,
        },)*];

        /// Size of one packed record: the fields in wire order, little-endian, no padding.
        pub const RECORD_BYTES: usize = 0 $(+ size_of::<$type>())*;

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

            /// Whether every field is legal. Tests all fields without branching between them.
            #[inline]
            #[must_use]
            pub fn is_legal(&self) -> bool {
                true $(& self.$name.fault(&FIELDS[Ordinal::$name as usize]).is_none())*
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

        /// Sets one field of every record from its column of little-endian values.
        ///
        /// `column` holds exactly one value per record.
        pub fn fill(records: &mut [Record], field: Ordinal, column: &[u8]) {
            match field {
                $(Ordinal::$name => {
                    let values = column.chunks_exact(size_of::<$type>());
                    for (record, mut value) in records.iter_mut().zip(values) {
                        record.$name = <$type>::take_le(&mut value);
                    }
                })*
            }
        }

        impl Ordinal {
            /// Every field, in wire order.
            pub const ALL: [Self; FIELDS.len()] = [$(Self::$name,)*];
        }

        /// Records in columns: one vector per field, all of one length.
        #[derive(Clone, Debug, Default)]
        pub struct Columns {
            $(#[doc = $doc] pub $name: Vec<$type>,)*
        }

        impl Columns {
            /// Empty columns with room for `rows` records.
            #[must_use]
            pub fn with_capacity(rows: usize) -> Self {
                Self { $($name: Vec::with_capacity(rows),)* }
            }

            /// Appends one record.
            #[inline]
            pub fn push(&mut self, record: &Record) {
                $(self.$name.push(record.$name);)*
            }

            /// The record in one row.
            ///
            /// # Panics
            /// There is no such row.
            #[must_use]
            pub fn row(&self, row: usize) -> Record {
                Record { $($name: self.$name[row],)* }
            }

            /// Columns from arrays in wire order; where there is none, the value of an absent field.
            ///
            /// # Errors
            /// The arrays differ in length, or one is not of its field's type.
            pub fn from_arrays(arrays: [Option<Array>; FIELDS.len()]) -> Result<Self, ColumnsError> {
                let rows = arrays.iter().flatten().next().map_or(0, Array::len);
                let [$($name,)*] = arrays;
                Ok(Self { $($name: column(&FIELDS[Ordinal::$name as usize], $name, rows)?,)* })
            }

            /// The columns in wire order.
            #[must_use]
            pub fn into_arrays(self) -> [Array; FIELDS.len()] {
                [$(<$type as Scalar>::array(self.$name),)*]
            }
        }
    };
}

signal_table! {
    layer_id: u32, "id", 0.0, MAX_U32, Required, "Dense id of the layer, from the topology.";
    seed_id: u32, "id", 0.0, MAX_U32, Zero, "Id of the seed in the layer; 0 is the layer itself.";
    chunk_id: u32, "id", 0.0, MAX_U32, Zero, "Id of the part of the layer that was read.";
    epoch: u32, "epoch", 0.0, MAX_U32, Required, "Training epoch.";
    step: u64, "step", 0.0, MAX_STEP, Required, "Optimiser step.";
    timestamp: f64, "s", 0.0, MAX_TIMESTAMP, Required, "Seconds since the Unix epoch, producer's clock.";
    health_score: f32, "1", 0.0, 1.0, NotMeasured, "Health of the layer: 0 is failing, 1 is healthy.";
    activation_variance: f32, "1", 0.0, MAX_F32, NotMeasured, "Variance of the layer's activations.";
    dead_neuron_ratio: f32, "1", 0.0, 1.0, NotMeasured, "Share of units that never activate.";
    avg_correlation: f32, "1", -1.0, 1.0, NotMeasured, "Mean pairwise correlation of units.";
    gradient_norm: f32, "1", 0.0, MAX_F32, NotMeasured, "L2 norm of the gradient over the layer's parameters.";
    weight_norm: f32, "1", 0.0, MAX_F32, NotMeasured, "L2 norm of the layer's parameters.";
    update_ratio: f32, "1", 0.0, MAX_F32, NotMeasured, "Norm of the last update over the norm of the weights.";
    saturation: f32, "1", 0.0, 1.0, NotMeasured, "Share of saturated units.";
    execution_latency: f32, "ms", 0.0, MAX_F32, NotMeasured, "Forward pass of the layer.";
    cache_hit_rate: f32, "1", 0.0, 1.0, NotMeasured, "Share of kernel look-ups that hit the cache.";
    error_count: u32, "errors", 0.0, MAX_U32, Zero, "Errors since the last signal.";
    active_seeds: u16, "seeds", 0.0, MAX_U16, Required, "Seeds of the layer that are active.";
    total_seeds: u16, "seeds", 0.0, MAX_U16, Required, "Seeds of the layer.";
    flags: u32, "bits", 0.0, ALL_FLAGS, Zero, "1 ready for transition; 2, 4, 8 non-finite activation, gradient, weight.";
}

/// Why arrays do not make columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnsError {
    /// A column of another length than the first.
    Length {
        /// Name of the column.
        field: &'static str,
        /// Its length.
        rows: usize,
        /// The length of the first.
        expected: usize,
    },
    /// A column of another type than the field table says.
    Type {
        /// Name of the column.
        field: &'static str,
        /// The type that the table says.
        expected: Kind,
    },
}

fn column<T: Scalar>(
    field: &Field,
    array: Option<Array>,
    rows: usize,
) -> Result<Vec<T>, ColumnsError> {
    let Some(array) = array else { return Ok(vec![T::ABSENT; rows]) };
    if array.len() != rows {
        let (field, expected) = (field.name, rows);
        return Err(ColumnsError::Length { field, rows: array.len(), expected });
    }
    T::values(array).ok_or(ColumnsError::Type { field: field.name, expected: field.kind })
}

impl Record {
    /// Whether the layer's seed asks to move to its next stage.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.flags & READY_FOR_TRANSITION != 0
    }
}

impl Columns {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layer_id.len()
    }

    /// Whether there are no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layer_id.is_empty()
    }
}

impl<'a> FromIterator<&'a Record> for Columns {
    fn from_iter<I: IntoIterator<Item = &'a Record>>(records: I) -> Self {
        let records = records.into_iter();
        let mut columns = Self::with_capacity(records.size_hint().0);
        for record in records {
            columns.push(record);
        }
        columns
    }
}
