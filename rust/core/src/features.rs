//! Per-layer aggregates: what the graph is built from.
//!
//! They are taken over a layer's last signals in order of arrival, thinned or not, because means
//! over the kept ones alone would be biased towards what is unusual. NaN is left out of every mean.

use std::sync::LazyLock;

use crate::record::{
    Columns, FIELDS, Field, MAX_F32, MAX_TIMESTAMP, MAX_U32, NONFINITE_ACTIVATION,
    NONFINITE_GRADIENT, NONFINITE_WEIGHT, Ordinal, Presence, READY_FOR_TRANSITION, Record,
};
use crate::scalar::{Array, Kind, Scalar};

const MEASURED: usize = {
    let mut count = 0;
    let mut at = 0;
    while at < FIELDS.len() {
        if matches!(FIELDS[at].presence, Presence::NotMeasured) {
            count += 1;
        }
        at += 1;
    }
    count
};

/// The fields that may be NaN, in wire order.
pub const MEASUREMENTS: [Ordinal; MEASURED] = {
    let mut measurements = [Ordinal::health_score; MEASURED];
    let mut count = 0;
    let mut at = 0;
    while at < FIELDS.len() {
        if matches!(FIELDS[at].presence, Presence::NotMeasured) {
            measurements[count] = Ordinal::ALL[at];
            count += 1;
        }
        at += 1;
    }
    measurements
};

/// Measured activation variances that make up the start of a layer.
const START: u32 = 10;

/// The flags that say that something was not finite.
const NONFINITE: u32 = NONFINITE_ACTIVATION | NONFINITE_GRADIENT | NONFINITE_WEIGHT;

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

        fn single_columns(summaries: &[Summary]) -> Vec<Array> {
            vec![$(Scalar::array(summaries.iter().map(|summary| summary.$name).collect()),)*]
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

/// The table of per-layer aggregates, in the order of [`summary_columns`].
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

/// The columns of [`LAYER_FIELDS`], one row per summary.
#[must_use]
pub fn summary_columns(summaries: &[Summary]) -> Vec<Array> {
    let mut columns = single_columns(summaries);
    for at in 0..MEASURED {
        columns.push(Array::F32(summaries.iter().map(|summary| summary.mean[at]).collect()));
        columns.push(Array::F32(summaries.iter().map(|summary| summary.last[at]).collect()));
    }
    columns
}

/// Aggregates of signals by layer, in ascending order of layers.
#[must_use]
pub fn window_features(columns: &Columns, window: usize) -> Vec<Summary> {
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by_key(|row| columns.layer_id[*row]);
    let layers = order.chunk_by(|one, other| columns.layer_id[*one] == columns.layer_id[*other]);
    layers
        .filter_map(|rows| {
            let mut layer = LayerWindow::default();
            for row in &rows[rows.len().saturating_sub(window)..] {
                layer.push(&columns.row(*row), window);
            }
            layer.summary()
        })
        .collect()
}

/// What the aggregates need of one signal.
#[derive(Clone, Copy, Debug)]
struct Sample {
    timestamp: f64,
    measurements: [f32; MEASURED],
    error_count: u32,
    active_seeds: u16,
    total_seeds: u16,
    flags: u32,
}

impl From<&Record> for Sample {
    fn from(record: &Record) -> Self {
        Self {
            timestamp: record.timestamp,
            measurements: MEASUREMENTS.map(|ordinal| record.get(ordinal).as_f32()),
            error_count: record.error_count,
            active_seeds: record.active_seeds,
            total_seeds: record.total_seeds,
            flags: record.flags,
        }
    }
}

/// The last signals of one layer.
#[derive(Debug, Default)]
pub struct LayerWindow {
    layer_id: u32,
    step: u64,
    samples: Vec<Sample>,
    /// Where the oldest sample is once the window is full.
    oldest: usize,
    start_sum: f64,
    start_count: u32,
}

impl LayerWindow {
    /// Adds a signal of this layer; forgets the oldest of more than `window`.
    pub fn push(&mut self, record: &Record, window: usize) {
        self.layer_id = record.layer_id;
        self.step = record.step;
        if self.start_count < START && !record.activation_variance.is_nan() {
            self.start_sum += f64::from(record.activation_variance);
            self.start_count += 1;
        }
        let sample = Sample::from(record);
        if self.samples.len() < window {
            if self.samples.len() == self.samples.capacity() {
                // Doubling, but never past the window: there may be very many layers.
                let more = self.samples.len().max(4).min(window - self.samples.len());
                self.samples.reserve_exact(more);
            }
            self.samples.push(sample);
        } else {
            self.samples[self.oldest] = sample;
            self.oldest = (self.oldest + 1) % window;
        }
    }

    /// The aggregates, if there has been a signal.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "counts are far below 2^52, and features are float32"
    )]
    pub fn summary(&self) -> Option<Summary> {
        let (older, newer) = (&self.samples[self.oldest..], &self.samples[..self.oldest]);
        let latest = newer.last().or(older.last())?;
        let mut sums = Sums::new(latest.timestamp);
        older.iter().chain(newer).for_each(|sample| sums.add(sample));
        let count = self.samples.len() as f64;
        let measured: u32 = sums.measured.iter().sum();
        let share = |sum: u64| (sum as f64 / count) as f32;
        let mut mean = [f32::NAN; MEASURED];
        for (mean, (sum, measured)) in mean.iter_mut().zip(sums.sum.iter().zip(sums.measured)) {
            *mean = (sum / f64::from(measured)) as f32;
        }
        Some(Summary {
            layer_id: self.layer_id,
            count: self.samples.len() as u32,
            step: self.step,
            timestamp: latest.timestamp,
            span_seconds: (sums.latest - sums.earliest) as f32,
            health_trend: sums.health.slope() as f32,
            stability: sums.health.stability() as f32,
            activation_variance_start: (self.start_sum / f64::from(self.start_count)) as f32,
            measured_share: (f64::from(measured) / (count * MEASURED as f64)) as f32,
            error_rate: share(sums.errors),
            ready_share: share(sums.ready.into()),
            active_seeds_mean: share(sums.active_seeds),
            total_seeds_mean: share(sums.total_seeds),
            nonfinite_activation: sums.nonfinite[0],
            nonfinite_gradient: sums.nonfinite[1],
            nonfinite_weight: sums.nonfinite[2],
            nonfinite_last: latest.flags & NONFINITE,
            mean,
            last: sums.last,
        })
    }
}

/// Everything that one pass over a window adds up.
struct Sums {
    sum: [f64; MEASURED],
    measured: [u32; MEASURED],
    last: [f32; MEASURED],
    health: Regression,
    earliest: f64,
    latest: f64,
    errors: u64,
    ready: u32,
    active_seeds: u64,
    total_seeds: u64,
    nonfinite: [u32; 3],
}

impl Sums {
    fn new(origin: f64) -> Self {
        Self {
            sum: [0.0; MEASURED],
            measured: [0; MEASURED],
            last: [f32::NAN; MEASURED],
            health: Regression { origin, ..Regression::default() },
            earliest: origin,
            latest: origin,
            errors: 0,
            ready: 0,
            active_seeds: 0,
            total_seeds: 0,
            nonfinite: [0; 3],
        }
    }

    fn add(&mut self, sample: &Sample) {
        for (at, value) in sample.measurements.into_iter().enumerate() {
            if !value.is_nan() {
                self.sum[at] += f64::from(value);
                self.measured[at] += 1;
                self.last[at] = value;
            }
        }
        self.health.add(sample.timestamp, sample.measurements[0]);
        self.earliest = self.earliest.min(sample.timestamp);
        self.latest = self.latest.max(sample.timestamp);
        self.errors += u64::from(sample.error_count);
        self.ready += u32::from(sample.flags & READY_FOR_TRANSITION != 0);
        self.active_seeds += u64::from(sample.active_seeds);
        self.total_seeds += u64::from(sample.total_seeds);
        let flags = [NONFINITE_ACTIVATION, NONFINITE_GRADIENT, NONFINITE_WEIGHT];
        for (count, flag) in self.nonfinite.iter_mut().zip(flags) {
            *count += u32::from(sample.flags & flag != 0);
        }
    }
}

/// Least squares of health over time in one pass, by Welford's update of the centred moments
/// (Technometrics 4(3), 1962), so that large timestamps cost no precision.
#[derive(Debug, Default)]
struct Regression {
    origin: f64,
    count: f64,
    mean_time: f64,
    mean_health: f64,
    time_squares: f64,
    health_squares: f64,
    products: f64,
}

impl Regression {
    fn add(&mut self, timestamp: f64, health: f32) {
        if health.is_nan() {
            return;
        }
        self.count += 1.0;
        let time = timestamp - self.origin - self.mean_time;
        self.mean_time += time / self.count;
        let health = f64::from(health) - self.mean_health;
        self.mean_health += health / self.count;
        let remaining = health - health / self.count;
        self.time_squares += time * (time - time / self.count);
        self.health_squares += health * remaining;
        self.products += time * remaining;
    }

    /// NaN without two measurements at different times.
    fn slope(&self) -> f64 {
        if self.time_squares > 0.0 { self.products / self.time_squares } else { f64::NAN }
    }

    /// NaN without two measurements.
    fn stability(&self) -> f64 {
        if self.count < 2.0 {
            return f64::NAN;
        }
        (1.0 - 2.0 * (self.health_squares / self.count).sqrt()).clamp(0.0, 1.0)
    }
}

/// What the table calls for has to be what health is.
const _: () = assert!(matches!(MEASUREMENTS[0], Ordinal::health_score));
const _: () = assert!(matches!(FIELDS[Ordinal::health_score as usize].kind, Kind::F32));
