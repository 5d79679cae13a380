//! Aggregates against two-pass formulas.
#![allow(missing_docs, clippy::cast_precision_loss, clippy::cast_possible_truncation)]

mod common;

use common::{healthy, record};
use proptest::collection::vec;
use proptest::prelude::*;
use tamiyo_core::features::window_features;
use tamiyo_core::summary::{LAYER_FIELDS, Summary, SummaryColumns};
use tamiyo_core::table::{FIELDS, MEASUREMENTS, READY_FOR_TRANSITION};

use tamiyo_core::layers::Layers;
use tamiyo_core::record::Record;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn close(actual: f32, expected: f64, scale: f64) -> bool {
    close_to(actual, expected, scale, 1e-6)
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

/// A record of layer 0 with measurements of all magnitudes, and the seconds since the one before.
fn wild() -> impl Strategy<Value = (Record, f64)> {
    let magnitude = || {
        prop_oneof![
            6 => (-30.0..30.0_f64).prop_map(|exponent| 10.0_f64.powf(exponent) as f32),
            4 => Just(1.0_f32),
            2 => Just(0.0),
            2 => Just(f32::NAN),
            1 => Just(f32::MAX),
        ]
    };
    let share = prop_oneof![6 => 0.0..=1.0_f32, 3 => Just(0.5), 1 => Just(f32::NAN)];
    let seconds = prop_oneof![
        4 => 0.0..1e-3_f64,
        4 => Just(0.01),
        2 => Just(0.0),
        1 => -1.0..0.0_f64,
        1 => -1e9..1e9_f64,
        1 => 0.0..1e6_f64,
    ];
    (share, magnitude(), magnitude(), -1.0..=1.0_f32, 0..16_u32, seconds).prop_map(
        |(health_score, gradient_norm, activation_variance, avg_correlation, flags, seconds)| {
            let measured = Record {
                health_score,
                gradient_norm,
                activation_variance,
                avg_correlation,
                ..healthy(0, 0)
            };
            (Record { flags, error_count: flags, ..measured }, seconds)
        },
    )
}

/// Relative to 1e-5; of a slope, relative to what the noise of the data allows it to be.
fn same(streamed: &Summary, at_once: &Summary, records: &[Record]) {
    for at in 0..MEASUREMENTS.len() {
        let scale = f64::from(at_once.mean[at]).abs();
        assert!(
            close_to(
                streamed.mean[at],
                at_once.mean[at].into(),
                scale,
                if is_bounded(at) { 1e-6 } else { 0.0 }
            ),
            "{at}: {} {}",
            streamed.mean[at],
            at_once.mean[at]
        );
        assert_eq!(streamed.last[at].to_bits(), at_once.last[at].to_bits());
    }
    let health: Vec<_> = records.iter().filter(|record| !record.health_score.is_nan()).collect();
    let times: Vec<_> =
        health.iter().map(|record| record.timestamp - records[0].timestamp).collect();
    let middle = mean(&times);
    let deviation =
        (times.iter().map(|time| (time - middle).powi(2)).sum::<f64>() / times.len() as f64).sqrt();
    let (one, other) = (f64::from(streamed.health_trend), f64::from(at_once.health_trend));
    assert_eq!(one.is_nan(), other.is_nan(), "{one} {other}");
    assert!(
        one.is_nan() || (one - other).abs() <= 1e-5 * other.abs() + 1e-6 / deviation,
        "{one} {other}"
    );
    assert!(close(streamed.stability, at_once.stability.into(), 1.0));
    assert!(close(
        streamed.span_seconds,
        at_once.span_seconds.into(),
        f64::from(at_once.span_seconds)
    ));
    assert!(close(streamed.measured_share, at_once.measured_share.into(), 1.0));
    let whole = |of: &Summary| {
        (
            of.count,
            of.nonfinite_activation,
            of.nonfinite_gradient,
            of.nonfinite_weight,
            of.nonfinite_last,
            of.step,
        )
    };
    assert_eq!(whole(streamed), whole(at_once));
    let shares =
        |of: &Summary| [of.error_rate, of.ready_share, of.active_seeds_mean].map(f32::to_bits);
    assert_eq!(shares(streamed), shares(at_once));
}

fn is_bounded(measurement: usize) -> bool {
    FIELDS[MEASUREMENTS[measurement] as usize].high <= 1.0
}

fn close_to(actual: f32, expected: f64, scale: f64, absolute: f64) -> bool {
    let actual = f64::from(actual);
    (actual.is_nan() && expected.is_nan()) || (actual - expected).abs() <= 1e-5 * scale + absolute
}

fn summaries(layers: &Layers) -> Vec<Summary> {
    let mut summaries = Vec::new();
    layers.for_each(|summary| summaries.push(summary));
    summaries
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
        let streamed = summaries(&streamed);
        let at_once = window_features(&records, window);
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

    /// Outliers that leave the window, runs of one value or of NaN, clocks that stand still, jump and
    /// run backwards: after every signal the streamed aggregates are those of one pass.
    #[test]
    fn streaming_agrees_with_one_pass_at_any_moment(signals in vec(wild(), 1..150), window in 1..40_usize) {
        let layers = Layers::new(window, 10);
        let mut time = 1.7e9;
        let mut sent = Vec::new();
        for (record, seconds) in signals {
            time = f64::clamp(time + seconds, 0.0, 2e11);
            sent.push(Record { timestamp: time, ..record });
            layers.push(&sent[sent.len() - 1..]).unwrap();
            let last = &sent[sent.len().saturating_sub(window)..];
            let (streamed, at_once) = (summaries(&layers)[0], window_features(last, window)[0]);
            same(&streamed, &at_once, last);
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
        let trend = window_features(&records, 100)[0].health_trend;
        prop_assert!((f64::from(trend) - expected).abs() <= 1e-5 * expected.abs() + 1e-9, "{trend} {expected}");
    }
}

#[test]
fn what_cannot_be_known_is_nan() {
    let unmeasured = Record { health_score: f32::NAN, ..healthy(5, 0) };
    let summary = window_features(&[unmeasured], 10)[0];
    assert!(summary.mean.iter().chain(&summary.last).all(|value| value.is_nan()));
    assert!(summary.health_trend.is_nan() && summary.stability.is_nan());
    assert!(summary.activation_variance_start.is_nan());
    let at_once = [healthy(5, 0), Record { health_score: 0.1, ..healthy(5, 0) }];
    let summary = window_features(&at_once, 10)[0];
    assert!(summary.health_trend.is_nan() && !summary.stability.is_nan());
    assert!(window_features(&[], 10).is_empty());
}

#[test]
fn every_column_has_its_row_in_the_table() {
    let summaries = window_features(&[healthy(5, 0)], 10);
    let mut columns = SummaryColumns::default();
    columns.extend(&summaries);
    let columns = columns.into_arrays();
    assert_eq!(columns.len(), LAYER_FIELDS.len());
    for (at, field) in LAYER_FIELDS.iter().enumerate() {
        assert!(LAYER_FIELDS[..at].iter().all(|earlier| earlier.name != field.name));
        assert_eq!(columns[at].len(), 1);
    }
}
