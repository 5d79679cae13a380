//! Which signals are worth keeping one by one; the rest is thinned to every tenth.
//!
//! A signal passes when it reports errors, when its seed is ready for a transition, or when its
//! health is anomalous against the values before it. Of all others of its key (layer, seed) the
//! first passes, and then exactly every tenth.

use crate::keys::Keys;
use crate::record::Record;
use crate::refusal::Reason;
use crate::sharded::Sharded;

/// Smallest deviation that a value is measured against: after a constant history every change
/// above rounding noise is anomalous.
const DEVIATION_FLOOR: f64 = 1e-6;

/// When a signal is anomalous, and how many of the others are kept.
#[derive(Clone, Copy, Debug)]
pub struct FilterConfig {
    /// Standard deviations from the mean beyond which a health score is anomalous.
    pub anomaly_threshold: f64,
    /// Number of previous values that mean and deviation are taken over.
    pub history: usize,
    /// Fewest previous values that anything is judged against.
    pub minimum_history: usize,
    /// One in how many ordinary signals is kept.
    pub keep_every: u64,
    /// Bound on the number of keys.
    pub max_keys: usize,
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            anomaly_threshold: 2.0,
            history: 100,
            minimum_history: 10,
            keep_every: 10,
            max_keys: 65_536,
        }
    }
}

impl FilterConfig {
    /// Says what is wrong with the settings, if anything is.
    ///
    /// # Errors
    /// The name of the setting and what it must be.
    pub fn validate(&self) -> Result<(), &'static str> {
        if !(self.anomaly_threshold > 0.0 && self.anomaly_threshold.is_finite()) {
            return Err("anomaly_threshold must be positive and finite");
        }
        if self.minimum_history == 0 || self.history < self.minimum_history {
            return Err("minimum_history must be at least 1 and at most history");
        }
        if self.keep_every == 0 {
            return Err("keep_every must be at least 1");
        }
        if self.max_keys == 0 {
            return Err("max_keys must be at least 1");
        }
        Ok(())
    }
}

/// What the filter thinks of a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the signal is kept.
    pub keep: bool,
    /// Whether its health is anomalous.
    pub anomalous: bool,
}

/// The filter with the state of every key.
#[derive(Debug)]
pub struct Filter {
    config: FilterConfig,
    keys: Keys,
    baselines: Sharded<Baseline>,
}

impl Filter {
    /// A filter without any history.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn new(config: FilterConfig) -> Result<Self, &'static str> {
        config.validate()?;
        Ok(Self { config, keys: Keys::new(config.max_keys), baselines: Sharded::default() })
    }

    /// Admits these layers whatever the bound on keys.
    pub fn declare(&self, layers: &[u32]) {
        self.keys.declare(layers);
    }

    /// Judges a batch in order. Each record enters its key's history once, whatever the verdict.
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`]; then no record has been judged.
    pub fn judge(&self, records: &[Record]) -> Result<Vec<Verdict>, Reason> {
        let keys = records.iter().map(|record| (record.layer_id, record.seed_id));
        let slots = self.keys.admit(keys)?;
        let mut verdicts = vec![Verdict::default(); records.len()];
        self.baselines.visit(&slots, |position, baseline| {
            verdicts[position] = baseline.judge(&records[position], &self.config);
        });
        Ok(verdicts)
    }
}

/// The previous health scores of one key, and how far it is in thinning.
#[derive(Debug, Default)]
struct Baseline {
    values: Vec<f32>,
    /// Where the next value goes once the history is full.
    next: usize,
    sum: f64,
    sum_of_squares: f64,
    /// Ordinary signals that are thinned before one is kept.
    to_thin: u64,
}

impl Baseline {
    fn judge(&mut self, record: &Record, config: &FilterConfig) -> Verdict {
        let anomalous = self.is_anomalous(record.health_score, config);
        let keep = record.error_count > 0 || record.is_ready() || anomalous || {
            let first_of_lap = self.to_thin == 0;
            self.to_thin = if first_of_lap { config.keep_every } else { self.to_thin } - 1;
            first_of_lap
        };
        if !record.health_score.is_nan() {
            self.remember(record.health_score, config.history);
        }
        Verdict { keep, anomalous }
    }

    #[allow(clippy::cast_precision_loss, reason = "a history is short")]
    fn is_anomalous(&self, health: f32, config: &FilterConfig) -> bool {
        if self.values.len() < config.minimum_history {
            return false;
        }
        let count = self.values.len() as f64;
        let mean = self.sum / count;
        let variance = (self.sum_of_squares / count - mean * mean).max(0.0);
        // False for NaN: what was not measured is not anomalous.
        (f64::from(health) - mean).abs()
            > config.anomaly_threshold * variance.sqrt().max(DEVIATION_FLOOR)
    }

    fn remember(&mut self, health: f32, history: usize) {
        if self.values.len() < history {
            self.values.push(health);
        } else {
            let forgotten = f64::from(std::mem::replace(&mut self.values[self.next], health));
            self.sum -= forgotten;
            self.sum_of_squares -= forgotten * forgotten;
            self.next += 1;
        }
        let health = f64::from(health);
        self.sum += health;
        self.sum_of_squares += health * health;
        if self.next == history {
            self.next = 0;
            // Once a lap, so that what rounding left in the running sums does not add up.
            self.sum = self.values.iter().copied().map(f64::from).sum();
            self.sum_of_squares = self.values.iter().map(|value| f64::from(*value).powi(2)).sum();
        }
    }
}
