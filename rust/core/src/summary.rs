//! The aggregates of one layer: what the graph is built from, and the table that describes it.

use std::sync::LazyLock;

use crate::moments::{Centred, Counts, Moments, Sample};
use crate::record::Record;
use crate::scalar::{Array, Scalar};
use crate::table::{
    FIELDS, Field, MAX_F32, MAX_TIMESTAMP, MAX_U32, MEASURED, MEASUREMENTS, NONFINITE_ACTIVATION,
    NONFINITE_GRADIENT, NONFINITE_WEIGHT, Ordinal, Presence,
};

/// Writes the summary and its table from one list.
macro_rules! summary_table {
    ($($name:ident: $type:ident, $unit:literal, $low:expr, $high:expr, $presence:ident, $doc:literal;)*) => {
        /// The aggregates of one layer.
        #[derive(Clone, Copy, Debug)]
        pub struct Summary {
            $(#[doc = $doc] pub $name: $type,)*
            /// Mean of each measurement.
            pub mean: [f32; MEASURED],
            /// Latest measured value of each measurement.
            pub last: [f32; MEASURED],
        }

        fn single_fields() -> Vec<Field> {
            vec![$(Field {
                name: stringify!($name),
                kind: <$type as Scalar>::KIND,
                unit: $unit,
                low: $low,
                high: $high,
                presence: Presence::$presence,
                doc: $doc,
            },)*]
        }

        /// Summaries in columns, in the order of [`LAYER_FIELDS`].
        #[derive(Debug, Default)]
        pub struct SummaryColumns {
            $($name: Vec<$type>,)*
            measured: [[Vec<f32>; 2]; MEASURED],
        }

        impl SummaryColumns {
            /// Empty columns with room for `rows` summaries.
            #[must_use]
            pub fn with_capacity(rows: usize) -> Self {
                let room = |_| [Vec::with_capacity(rows), Vec::with_capacity(rows)];
                Self {
                    $($name: Vec::with_capacity(rows),)*
                    measured: std::array::from_fn(room),
                }
            }

            /// Appends summaries, one column after the other.
            pub fn extend(&mut self, summaries: &[Summary]) {
                $(self.$name.extend(summaries.iter().map(|summary| summary.$name));)*
                for (at, [mean, last]) in self.measured.iter_mut().enumerate() {
                    mean.extend(summaries.iter().map(|summary| summary.mean[at]));
                    last.extend(summaries.iter().map(|summary| summary.last[at]));
                }
            }

            /// The columns.
            #[must_use]
            pub fn into_arrays(self) -> Vec<Array> {
                let mut arrays = vec![$(Scalar::array(self.$name),)*];
                arrays.extend(self.measured.into_iter().flatten().map(Array::F32));
                arrays
            }
        }
    };
}

summary_table! {
    layer_id: u32, "id", 0.0, MAX_U32, Required, "Dense id of the layer.";
    count: u32, "signals", 1.0, MAX_U32, Required, "Signals in the window.";
    step: u64, "step", 0.0, FIELDS[Ordinal::step as usize].high, Required, "Optimiser step of the latest signal.";
    timestamp: f64, "s", 0.0, MAX_TIMESTAMP, Required, "Time of the latest signal, producer's clock.";
    span_seconds: f32, "s", 0.0, MAX_F32, Required, "Time between the earliest and the latest signal of the window.";
    health_trend: f32, "1/s", -MAX_F32, MAX_F32, NotMeasured, "Least-squares slope of the health score.";
    stability: f32, "1", 0.0, 1.0, NotMeasured, "1 - 2 standard deviations of the health score, at least 0.";
    activation_variance_start: f32, "1", 0.0, MAX_F32, NotMeasured, "Mean of the layer's first 10 measured activation variances.";
    measured_share: f32, "1", 0.0, 1.0, Required, "Share of the measurements that were taken.";
    error_rate: f32, "errors/signal", 0.0, MAX_F32, Required, "Mean error count.";
    ready_share: f32, "1", 0.0, 1.0, Required, "Share of signals that are ready for transition.";
    active_seeds_mean: f32, "seeds", 0.0, MAX_F32, Required, "Mean number of active seeds.";
    total_seeds_mean: f32, "seeds", 0.0, MAX_F32, Required, "Mean number of seeds.";
    nonfinite_activation: u32, "signals", 0.0, MAX_U32, Required, "Signals with a non-finite activation.";
    nonfinite_gradient: u32, "signals", 0.0, MAX_U32, Required, "Signals with a non-finite gradient.";
    nonfinite_weight: u32, "signals", 0.0, MAX_U32, Required, "Signals with a non-finite weight.";
    nonfinite_last: u32, "bits", 0.0, FIELDS[Ordinal::flags as usize].high, Required, "The non-finite flags of the latest signal.";
}

/// The table of per-layer aggregates, in the order of [`SummaryColumns`].
pub static LAYER_FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let mut fields = single_fields();
    for measurement in MEASUREMENTS {
        let field = FIELDS[measurement as usize];
        for (suffix, doc) in [("mean", "Mean of the"), ("last", "Latest")] {
            fields.push(Field {
                name: format!("{}_{suffix}", field.name).leak(),
                doc: format!("{doc} measured `{}` in the window.", field.name).leak(),
                ..field
            });
        }
    }
    fields
});

/// The flags that say that something was not finite.
const NONFINITE: u32 = NONFINITE_ACTIVATION | NONFINITE_GRADIENT | NONFINITE_WEIGHT;

/// Measured activation variances that make up the start of a layer.
const START: usize = 10;

/// The start of a layer, which later signals are compared with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Start {
    sum: f64,
    count: usize,
}

impl Start {
    /// Whether later signals are none of it.
    #[inline]
    pub(crate) const fn is_known(&self) -> bool {
        self.count == START
    }

    #[inline]
    pub(crate) fn add(&mut self, activation_variance: f32) {
        if !self.is_known() && !activation_variance.is_nan() {
            self.sum += f64::from(activation_variance);
            self.count += 1;
        }
    }
}

/// What the latest signal of a layer said, and for each measurement the latest that was one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latest {
    pub(crate) layer_id: u32,
    flags: u32,
    step: u64,
    timestamp: f64,
    measurements: [f32; MEASURED],
}

impl Latest {
    /// Adds a signal that is older than all before, if there have been any.
    pub(crate) fn precede(&mut self, record: &Record, is_first: bool) {
        if is_first {
            let measurements = [f32::NAN; MEASURED];
            let Record { layer_id, flags, step, timestamp, .. } = *record;
            *self = Self { layer_id, flags, step, timestamp, measurements };
        }
        for (latest, value) in self.measurements.iter_mut().zip(record.measurements()) {
            *latest = if latest.is_nan() { value } else { *latest };
        }
    }

    /// Adds a signal that is newer than all before.
    #[inline]
    pub(crate) fn replace(&mut self, record: &Record, sample: &Sample) {
        self.layer_id = record.layer_id;
        self.flags = record.flags;
        self.step = record.step;
        self.timestamp = record.timestamp;
        if sample.complete {
            self.measurements = sample.measurements;
            return;
        }
        for (latest, value) in self.measurements.iter_mut().zip(sample.measurements) {
            *latest = if value.is_nan() { *latest } else { value };
        }
    }
}

/// The aggregates that follow from the sums over a window, of which the moments come in two parts,
/// the older signals and the newer ones.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "counts are far below 2^52, and features are float32"
)]
pub(crate) fn summarise(
    latest: &Latest,
    counts: &Counts,
    [older, newer]: [&Moments; 2],
    span: f64,
    start: &Start,
) -> Summary {
    let health = Centred::of(&older.health, &newer.health);
    let signals = f64::from(counts.signals);
    let share = |sum: u64| (sum as f64 / signals) as f32;
    let (mut mean, mut last) = ([f32::NAN; MEASURED], [f32::NAN; MEASURED]);
    let mut measured = 0;
    for at in 0..MEASURED {
        let count = counts.of(at);
        measured += u64::from(count);
        let sum = older.sums[at] + newer.sums[at];
        // What was measured before the window is not in it.
        (mean[at], last[at]) = match count {
            0 => (f32::NAN, f32::NAN),
            _ => ((sum / f64::from(count)) as f32, latest.measurements[at]),
        };
    }
    Summary {
        layer_id: latest.layer_id,
        count: counts.signals,
        step: latest.step,
        timestamp: latest.timestamp,
        span_seconds: span as f32,
        health_trend: health.slope() as f32,
        stability: health.stability() as f32,
        activation_variance_start: (start.sum / start.count as f64) as f32,
        measured_share: share(measured) / MEASURED as f32,
        error_rate: share(counts.errors),
        ready_share: share(counts.ready.into()),
        active_seeds_mean: share(counts.active_seeds),
        total_seeds_mean: share(counts.total_seeds),
        nonfinite_activation: counts.nonfinite[0],
        nonfinite_gradient: counts.nonfinite[1],
        nonfinite_weight: counts.nonfinite[2],
        nonfinite_last: latest.flags & NONFINITE,
        mean,
        last,
    }
}
