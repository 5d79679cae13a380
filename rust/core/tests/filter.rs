//! The filter against a naive one that keeps everything and recomputes everything.
#![allow(missing_docs, clippy::cast_precision_loss)]

mod common;

use std::collections::HashMap;

use common::healthy;
use proptest::collection::vec;
use proptest::prelude::*;
use tamiyo_core::filter::{Filter, FilterConfig};
use tamiyo_core::record::Record;

/// Verdicts by the letter of the rules; `None` where rounding decides.
fn naive(records: &[Record], config: &FilterConfig) -> Vec<Option<(bool, bool)>> {
    let mut histories: HashMap<(u32, u32), Vec<f64>> = HashMap::new();
    let mut ordinary: HashMap<(u32, u32), u64> = HashMap::new();
    let mut undecided = std::collections::HashSet::new();
    let mut verdicts = Vec::new();
    for record in records {
        let key = (record.layer_id, record.seed_id);
        let history = histories.entry(key).or_default();
        let previous = &history[history.len().saturating_sub(config.history)..];
        let health = f64::from(record.health_score);
        let mut anomalous = false;
        if !health.is_nan() && previous.len() >= config.minimum_history {
            let mean = previous.iter().sum::<f64>() / previous.len() as f64;
            let squares: f64 = previous.iter().map(|value| (value - mean).powi(2)).sum();
            let deviation = (squares / previous.len() as f64).sqrt().max(1e-6);
            let z = (health - mean).abs() / deviation;
            anomalous = z > config.anomaly_threshold;
            if (z - config.anomaly_threshold).abs() < 1e-3 {
                undecided.insert(key);
            }
        }
        let always = record.error_count > 0 || record.is_ready() || anomalous;
        let keep = always || {
            let count = ordinary.entry(key).or_default();
            *count += 1;
            (*count - 1).is_multiple_of(config.keep_every)
        };
        if !health.is_nan() {
            history.push(health);
        }
        verdicts.push((!undecided.contains(&key)).then_some((keep, anomalous)));
    }
    verdicts
}

fn signal() -> impl Strategy<Value = Record> {
    let health = prop_oneof![
        4 => Just(0.5_f32),
        4 => 0.45..0.55_f32,
        1 => 0.0..=1.0_f32,
        1 => Just(f32::NAN),
    ];
    let errors = prop_oneof![9 => Just(0), 1 => 1..10_u32];
    let flags = prop_oneof![9 => Just(0), 1 => 0..16_u32];
    (0..3_u32, 0..2_u32, health, errors, flags).prop_map(
        |(layer_id, seed_id, health_score, error_count, flags)| Record {
            seed_id,
            health_score,
            error_count,
            flags,
            ..healthy(layer_id, 0)
        },
    )
}

proptest! {
    #[test]
    fn agrees_with_the_naive_filter(
        batches in vec(vec(signal(), 0..120), 0..10),
        history in 1..30_usize,
        keep_every in 1..12_u64,
        anomaly_threshold in 0.5..4.0_f64,
    ) {
        let minimum_history = history.min(10);
        let config = FilterConfig {
            anomaly_threshold, history, minimum_history, keep_every, ..FilterConfig::default()
        };
        let expected = naive(&batches.concat(), &config);
        let filter = Filter::new(config).unwrap();
        let verdicts = batches.iter().flat_map(|batch| filter.judge(batch).unwrap());
        for (verdict, expected) in verdicts.zip(expected) {
            if let Some(expected) = expected {
                prop_assert_eq!((verdict.keep, verdict.anomalous), expected);
            }
        }
    }

    #[test]
    fn of_ordinary_signals_exactly_every_tenth_passes(count in 1..2000_usize) {
        let filter = Filter::new(FilterConfig::default()).unwrap();
        let verdicts = filter.judge(&vec![healthy(3, 0); count]).unwrap();
        for (position, verdict) in verdicts.into_iter().enumerate() {
            prop_assert_eq!(verdict.keep, position % 10 == 0);
        }
    }

    #[test]
    fn rounding_noise_after_a_constant_history_is_not_anomalous(constant in 0.1..0.99_f32) {
        let filter = Filter::new(FilterConfig::default()).unwrap();
        let steady = Record { health_score: constant, ..healthy(0, 0) };
        filter.judge(&vec![steady; 150]).unwrap();
        let next = Record { health_score: f32::from_bits(constant.to_bits() + 1), ..steady };
        prop_assert!(!filter.judge(&[next]).unwrap()[0].anomalous);
    }

    #[test]
    fn any_change_after_a_constant_history_is_anomalous(constant in 0.0..0.99_f32, change in 1e-5..0.01_f32) {
        let filter = Filter::new(FilterConfig::default()).unwrap();
        let steady = Record { health_score: constant, ..healthy(0, 0) };
        filter.judge(&vec![steady; 500]).unwrap();
        let changed = Record { health_score: constant + change, ..steady };
        prop_assert!(filter.judge(&[changed]).unwrap()[0].anomalous);
        prop_assert!(!filter.judge(&[steady]).unwrap()[0].anomalous);
    }
}

#[test]
fn running_sums_do_not_drift() {
    let filter = Filter::new(FilterConfig::default()).unwrap();
    for step in 0..200_000_u64 {
        let health_score = if step % 2 == 0 { 1.0 } else { 1e-6 };
        filter.judge(&[Record { health_score, ..healthy(0, step) }]).unwrap();
    }
    let steady = Record { health_score: 0.3, ..healthy(0, 0) };
    filter.judge(&[steady; 100]).unwrap();
    assert!(!filter.judge(&[steady]).unwrap()[0].anomalous);
    let changed = Record { health_score: 0.300_01, ..steady };
    assert!(filter.judge(&[changed]).unwrap()[0].anomalous);
}

#[test]
fn senseless_settings_are_refused() {
    let good = FilterConfig::default();
    for bad in [
        FilterConfig { anomaly_threshold: f64::NAN, ..good },
        FilterConfig { anomaly_threshold: 0.0, ..good },
        FilterConfig { minimum_history: 0, ..good },
        FilterConfig { minimum_history: 101, ..good },
        FilterConfig { keep_every: 0, ..good },
        FilterConfig { max_keys: 0, ..good },
    ] {
        assert!(Filter::new(bad).is_err());
    }
}
