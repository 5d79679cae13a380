//! The table that describes a health signal, field by field, in wire order.
//!
//! It is the only description of a signal in the project: records, columns, all three decoders and
//! the encoder are generated from it or driven by it, Python reads it through the binding, and the
//! documentation is checked against it.

use crate::scalar::{Kind, Scalar};

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

/// Hands the rows of the table to the macro `$then`: those before the measurements, the
/// measurements, which are the fields that may be NaN, and those after.
macro_rules! signal_table {
    ($then:ident) => {
        $then! {
            {
                layer_id: u32, "id", 0.0, MAX_U32, Required, "Dense id of the layer, from the topology.";
                seed_id: u32, "id", 0.0, MAX_U32, Zero, "Id of the seed in the layer; 0 is the layer itself.";
                chunk_id: u32, "id", 0.0, MAX_U32, Zero, "Id of the part of the layer that was read.";
                epoch: u32, "epoch", 0.0, MAX_U32, Required, "Training epoch.";
                step: u64, "step", 0.0, MAX_STEP, Required, "Optimiser step.";
                timestamp: f64, "s", 0.0, MAX_TIMESTAMP, Required, "Seconds since the Unix epoch, producer's clock.";
            }
            {
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
            }
            {
                error_count: u32, "errors", 0.0, MAX_U32, Zero, "Errors since the last signal.";
                active_seeds: u16, "seeds", 0.0, MAX_U16, Required, "Seeds of the layer that are active.";
                total_seeds: u16, "seeds", 0.0, MAX_U16, Required, "Seeds of the layer.";
                flags: u32, "bits", 0.0, ALL_FLAGS, Zero, "1 ready for transition; 2, 4, 8 non-finite activation, gradient, weight.";
            }
        }
    };
}
pub(crate) use signal_table;

macro_rules! write_table {
    ({ $($before:tt)* } { $($measured:tt)* } { $($after:tt)* }) => {
        write_rows! { $($before)* $($measured)* $($after)* }
        write_measured! { $($measured)* }
    };
}

macro_rules! write_rows {
    ($($name:ident: $type:ident, $unit:literal, $low:expr, $high:expr, $presence:ident, $doc:literal;)*) => {
        /// Position of each field in [`FIELDS`].
        #[allow(missing_docs, non_camel_case_types, reason = "named after the fields")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Ordinal { $($name,)* }

        impl Ordinal {
            /// Every field, in wire order.
            pub const ALL: [Self; FIELDS.len()] = [$(Self::$name,)*];
        }

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
    };
}

macro_rules! write_measured {
    ($($name:ident: f32, $unit:literal, $low:expr, $high:expr, NotMeasured, $doc:literal;)*) => {
        /// The fields that may be NaN, in wire order. All are float32.
        pub const MEASUREMENTS: [Ordinal; [$(Ordinal::$name,)*].len()] = [$(Ordinal::$name,)*];
    };
}

signal_table!(write_table);

/// Number of fields that may be NaN.
pub const MEASURED: usize = MEASUREMENTS.len();
