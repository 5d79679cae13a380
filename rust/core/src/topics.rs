//! What a map means on each telemetry topic: its keys, and how it becomes a health signal.

use crate::record::Record;
use crate::refusal::{Reason, Refusal};
use crate::scalar::Kind;
use crate::table::{FIELDS, FLAGS, Field, MAX_U32, Ordinal, Presence};

/// The topic of full health signals, the only one that also travels packed and in columns.
pub const HEALTH_SIGNALS: &str = "telemetry.layer.health_signals";

/// Where the value of a key goes.
#[derive(Clone, Copy, Debug)]
pub enum Slot {
    /// Into a field of the record.
    Field(Ordinal),
    /// A boolean that sets bits of the record's flags.
    Flag(u32),
    /// A number beside the record, which the conversion needs.
    Number(&'static Field),
    /// A boolean beside the record, as 1 or 0.
    Truth,
}

/// A key that maps of a topic can have.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name on the wire.
    pub name: &'static str,
    /// Where its value goes.
    pub slot: Slot,
    /// Whether it must be there.
    pub required: bool,
}

/// How maps of one topic are read.
#[derive(Debug)]
pub struct Schema {
    /// The keys that are read; others are skipped.
    pub keys: &'static [Key],
    /// Completes the record from what was read and the value beside it.
    pub complete: fn(&mut Record, beside: f64),
}

impl Schema {
    /// A refusal because of the value of the key at this index.
    #[cold]
    #[must_use]
    pub fn refuse(&self, key: usize, reason: Reason) -> Refusal {
        Refusal::from(reason).in_field(self.keys[key].name)
    }
}

/// The schema of a topic, if signals travel on it.
#[must_use]
pub fn schema(topic: &str) -> Option<&'static Schema> {
    match topic {
        HEALTH_SIGNALS => Some(&HEALTH),
        "telemetry.error_recovery.events" => Some(&ERROR_RECOVERY),
        "telemetry.execution.kernel_performance" => Some(&KERNEL_PERFORMANCE),
        "telemetry.cache.hit_rates" => Some(&CACHE_HIT_RATES),
        _ => None,
    }
}

static HEALTH: Schema = Schema { keys: &HEALTH_KEYS, complete: |_, _| () };

static HEALTH_KEYS: [Key; FIELDS.len() + FLAGS.len()] = {
    let mut keys = [field(Ordinal::layer_id, true); FIELDS.len() + FLAGS.len()];
    let mut at = 0;
    while at < FIELDS.len() {
        let required = matches!(FIELDS[at].presence, Presence::Required);
        keys[at] = field(Ordinal::ALL[at], required);
        at += 1;
    }
    while at < keys.len() {
        let (name, bit) = FLAGS[at - FIELDS.len()];
        keys[at] = Key { name, slot: Slot::Flag(bit), required: false };
        at += 1;
    }
    keys
};

static ERROR_RECOVERY: Schema = Schema {
    keys: &[
        field(Ordinal::layer_id, true),
        field(Ordinal::seed_id, false),
        field(Ordinal::epoch, false),
        field(Ordinal::step, false),
        field(Ordinal::timestamp, true),
        Key { name: "recovered", slot: Slot::Truth, required: true },
    ],
    complete: |record, recovered| {
        let failed = recovered == 0.0;
        record.health_score = if failed { 0.2 } else { 0.8 };
        record.error_count = failed.into();
    },
};

static KERNEL_PERFORMANCE: Schema = Schema {
    keys: &[
        field(Ordinal::layer_id, true),
        field(Ordinal::seed_id, false),
        field(Ordinal::epoch, false),
        field(Ordinal::step, false),
        field(Ordinal::timestamp, true),
        Key { name: "latency_ms", slot: Slot::Field(Ordinal::execution_latency), required: true },
        Key { name: "executions", slot: Slot::Number(&EXECUTIONS), required: true },
        Key { name: "errors", slot: Slot::Field(Ordinal::error_count), required: true },
        field(Ordinal::cache_hit_rate, false),
    ],
    complete: |record, executions| record.health_score = kernel_health(record, executions),
};

static CACHE_HIT_RATES: Schema = Schema {
    keys: &[
        field(Ordinal::layer_id, true),
        field(Ordinal::seed_id, false),
        field(Ordinal::epoch, false),
        field(Ordinal::step, false),
        field(Ordinal::timestamp, true),
        field(Ordinal::cache_hit_rate, true),
    ],
    complete: |_, _| (),
};

static EXECUTIONS: Field = Field {
    name: "executions",
    kind: Kind::U32,
    unit: "executions",
    low: 0.0,
    high: MAX_U32,
    presence: Presence::Required,
    doc: "Kernel executions since the last report.",
};

const fn field(ordinal: Ordinal, required: bool) -> Key {
    Key { name: FIELDS[ordinal as usize].name, slot: Slot::Field(ordinal), required }
}

/// `0.4·(1 - min(latency/10 ms, 1)) + 0.4·(1 - min(5·errors/executions, 1)) + 0.2·hit rate`.
///
/// NaN where the latency or the hit rate was not measured. Errors without an execution are as bad
/// as can be; neither errors nor executions is no error.
#[allow(clippy::cast_possible_truncation, reason = "health is stored as float32")]
fn kernel_health(record: &Record, executions: f64) -> f32 {
    let unit_or_nan = |value: f64| if value > 1.0 { 1.0 } else { value };
    let latency = unit_or_nan(f64::from(record.execution_latency) / 10.0);
    let errors = match f64::from(record.error_count) {
        0.0 => 0.0,
        errors => unit_or_nan(5.0 * errors / executions),
    };
    (0.4 * (1.0 - latency) + 0.4 * (1.0 - errors) + 0.2 * f64::from(record.cache_hit_rate)) as f32
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the expected numbers are exact")]
mod tests {
    use super::*;

    fn kernel(latency: f32, executions: f64, errors: u32, hit_rate: f32) -> f32 {
        let mut record = Record::ABSENT;
        record.execution_latency = latency;
        record.error_count = errors;
        record.cache_hit_rate = hit_rate;
        kernel_health(&record, executions)
    }

    #[test]
    fn kernel_health_follows_the_formula() {
        assert_eq!(kernel(0.0, 100.0, 0, 1.0), 1.0);
        assert_eq!(kernel(5.0, 100.0, 10, 0.5), 0.5);
        assert_eq!(kernel(20.0, 100.0, 100, 0.0), 0.0);
        assert_eq!(kernel(0.0, 0.0, 0, 1.0), 1.0);
        assert_eq!(kernel(0.0, 0.0, 3, 1.0), 0.6);
    }

    #[test]
    fn kernel_health_is_not_invented() {
        assert!(kernel(f32::NAN, 100.0, 0, 1.0).is_nan());
        assert!(kernel(1.0, 100.0, 0, f32::NAN).is_nan());
    }

    #[test]
    fn every_key_is_listed_once() {
        for schema in [&HEALTH, &ERROR_RECOVERY, &KERNEL_PERFORMANCE, &CACHE_HIT_RATES] {
            for (at, key) in schema.keys.iter().enumerate() {
                assert!(schema.keys[..at].iter().all(|earlier| earlier.name != key.name));
            }
            assert!(schema.keys.len() <= 64, "what was seen is kept in 64 bits");
        }
    }
}
