//! Aggregates against two-pass formulas.
#![allow(missing_docs, clippy::cast_precision_loss, clippy::cast_possible_truncation)]

mod common;

use common::{healthy, record};
use proptest::collection::vec;
use proptest::prelude::*;
use tamiyo_core::features::{
    LAYER_FIELDS, MEASUREMENTS, Summary, summary_columns, window_features,
};
use tamiyo_core::layers::Layers;
use tamiyo_core::record::{Columns, READY_FOR_TRANSITION, Record};

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn close(actual: f32, expected: f64, scale: f64) -> bool {
    let actual = f64::from(actual);
    (actual.is_nan() && expected.is_nan()) || (actual - expected).abs() <= 1e-5 * scale + 1e-6
}

fn slope(times: &[f64], values: &[f64]) -> f64 {
    let (middle, level) = (mean(times), mean(values));
    let products: f64 = times.iter().zip(values).map(|(t, v)| (t - middle) * (v - level)).sum();
    products / times.iter().map(|t| (t - middle).powi(2)).sum::<f64>()
}

fn agrees(summary: &Summary, records: &[Record], start: &[Record]) {
    let last = records.last().unwrap();
    assert_eq!(summary.count as usize, records.len());
    assert_eq!(
        (summary.step, summary.nonfinite_last),
        (last.step, last.flags & !READY_FOR_TRANSITION)
    );
    assert!(summary.timestamp.total_cmp(&last.timestamp).is_eq());
    let mut all_measured = 0;
    for (at, ordinal) in MEASUREMENTS.into_iter().enumerate() {
        let values = records.iter().map(|record| record.get(ordinal).as_f64());
        let measured: Vec<_> = values.filter(|value| !value.is_nan()).collect();
        all_measured += measured.len();
        let expected = mean(&measured);
        assert!(close(summary.mean[at], expected, expected.abs()));
        let latest = measured.last().copied().unwrap_or(f64::NAN);
        assert!(close(summary.last[at], latest, latest.abs()));
    }
    let cells = (records.len() * MEASUREMENTS.len()) as f64;
    assert!(close(summary.measured_share, all_measured as f64 / cells, 1.0));
    let errors: Vec<_> = records.iter().map(|record| f64::from(record.error_count)).collect();
    assert!(close(summary.error_rate, mean(&errors), mean(&errors)));
    let variances = start.iter().map(|record| f64::from(record.activation_variance));
    let first: Vec<_> = variances.filter(|value| !value.is_nan()).take(10).collect();
    assert!(close(summary.activation_variance_start, mean(&first), mean(&first).abs()));
    let health: Vec<_> = records.iter().filter(|record| !record.health_score.is_nan()).collect();
    let scores: Vec<_> = health.iter().map(|record| f64::from(record.health_score)).collect();
    if scores.len() < 2 {
        assert!(summary.stability.is_nan() && summary.health_trend.is_nan());
    } else {
        let level = mean(&scores);
        let squares: Vec<_> = scores.iter().map(|score| (score - level).powi(2)).collect();
        let expected = (1.0 - 2.0 * mean(&squares).sqrt()).clamp(0.0, 1.0);
        assert!(close(summary.stability, expected, 1.0));
    }
}

proptest! {
    #[test]
    fn summaries_agree_with_two_passes(
        records in vec((0..4_u32, record()), 0..120),
        window in 1..20_usize,
    ) {
        let records: Vec<_> = records.into_iter().map(|(layer_id, record)| Record { layer_id, ..record }).collect();
        let streamed = Layers::new(window, 100);
        records.chunks(7).for_each(|batch| streamed.push(batch).unwrap());
        let streamed = streamed.summaries();
        let at_once = window_features(&Columns::from_iter(&records), window);
        prop_assert_eq!(streamed.len(), at_once.len());
        prop_assert!(streamed.is_sorted_by_key(|summary| summary.layer_id));
        for (streamed, at_once) in streamed.iter().zip(&at_once) {
            let of_layer = |record: &&Record| record.layer_id == streamed.layer_id;
            let all: Vec<_> = records.iter().filter(of_layer).copied().collect();
            let last = &all[all.len().saturating_sub(window)..];
            agrees(streamed, last, &all);
            agrees(at_once, last, last);
        }
    }

    #[test]
    fn trends_survive_epoch_timestamps(
        slope_wanted in -1e-3..1e-3_f64,
        period in prop_oneof![1e-5..1e-3_f64, 1e-3..10.0_f64],
        noise in vec(-0.01..0.01_f32, 100),
    ) {
        let records: Vec<_> = noise.iter().enumerate().map(|(at, noise)| {
            let time = at as f64 * period;
            let health_score = (0.5 + (slope_wanted * (time - 50.0 * period)) as f32 + noise).clamp(0.0, 1.0);
            Record { timestamp: 1.7e9 + time, health_score, ..healthy(0, at as u64) }
        }).collect();
        // The reference has the same rounded timestamps, but small ones.
        let times: Vec<_> = records.iter().map(|record| record.timestamp - 1.7e9).collect();
        let values: Vec<_> = records.iter().map(|record| f64::from(record.health_score)).collect();
        let expected = slope(&times, &values);
        let trend = window_features(&Columns::from_iter(&records), 100)[0].health_trend;
        prop_assert!((f64::from(trend) - expected).abs() <= 1e-5 * expected.abs() + 1e-9, "{trend} {expected}");
    }
}

#[test]
fn what_cannot_be_known_is_nan() {
    let unmeasured = Record { health_score: f32::NAN, ..healthy(5, 0) };
    let summary = window_features(&Columns::from_iter(&[unmeasured]), 10)[0];
    assert!(summary.mean.iter().chain(&summary.last).all(|value| value.is_nan()));
    assert!(summary.health_trend.is_nan() && summary.stability.is_nan());
    assert!(summary.activation_variance_start.is_nan());
    let at_once = [healthy(5, 0), Record { health_score: 0.1, ..healthy(5, 0) }];
    let summary = window_features(&Columns::from_iter(&at_once), 10)[0];
    assert!(summary.health_trend.is_nan() && !summary.stability.is_nan());
    assert!(window_features(&Columns::default(), 10).is_empty());
}

#[test]
fn every_column_has_its_row_in_the_table() {
    let summaries = window_features(&Columns::from_iter(&[healthy(5, 0)]), 10);
    let columns = summary_columns(&summaries);
    assert_eq!(columns.len(), LAYER_FIELDS.len());
    for (at, field) in LAYER_FIELDS.iter().enumerate() {
        assert!(LAYER_FIELDS[..at].iter().all(|earlier| earlier.name != field.name));
        assert_eq!(columns[at].len(), 1);
    }
}
