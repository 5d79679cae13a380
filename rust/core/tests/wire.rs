//! What is encoded comes back, what is damaged is refused, and nothing panics.
#![allow(missing_docs, clippy::cast_precision_loss)]

mod common;

use common::{bytes, header, healthy, message, record};
use proptest::collection::vec;
use proptest::prelude::*;
use tamiyo_core::decode::decode;
use tamiyo_core::encode::Encoding;
use tamiyo_core::envelope::{Header, MIN_SIGNAL_BYTES, open};
use tamiyo_core::msgpack::write;
use tamiyo_core::record::Record;
use tamiyo_core::refusal::{Reason, Refusal};
use tamiyo_core::scalar::Number;
use tamiyo_core::table::{FIELDS, RECORD_BYTES};

fn read(message: &[u8]) -> Result<Vec<Record>, Refusal> {
    let envelope = open(message)?;
    let mut records = Vec::new();
    decode(&envelope.header, envelope.body?, &mut records)?;
    Ok(records)
}

/// A message around a body of maps, each a list of keys and encoded values.
fn maps(topic: &str, rows: &[Vec<(&str, Vec<u8>)>]) -> Vec<u8> {
    let header = Header { topic, ..header(0, rows.len()) };
    let mut out = message(&header, &[], Encoding::Maps);
    out.pop();
    write::array(&mut out, rows.len());
    for row in rows {
        write::map(&mut out, row.len());
        for (key, value) in row {
            write::string(&mut out, key);
            out.extend_from_slice(value);
        }
    }
    out
}

fn float(value: f64) -> Vec<u8> {
    let mut out = Vec::new();
    write::number(&mut out, Number::Float(value));
    out
}

fn int(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write::unsigned(&mut out, value);
    out
}

fn required() -> Vec<(&'static str, Vec<u8>)> {
    let keys = ["layer_id", "epoch", "step", "timestamp", "active_seeds", "total_seeds"];
    keys.into_iter().map(|key| (key, int(7))).collect()
}

fn health(rows: &[Vec<(&str, Vec<u8>)>]) -> Result<Vec<Record>, Refusal> {
    read(&maps("telemetry.layer.health_signals", rows))
}

#[test]
fn the_record_is_small_and_its_fields_are_distinct() {
    const { assert!(RECORD_BYTES <= 96) };
    for (at, field) in FIELDS.iter().enumerate() {
        assert!(FIELDS[..at].iter().all(|earlier| earlier.name != field.name));
        assert!(field.low <= field.high);
    }
}

#[test]
fn every_truncation_is_refused() {
    let records = [healthy(1, 2), healthy(3, 4)];
    for encoding in Encoding::ALL {
        let message = message(&header(0, 2), &records, encoding);
        for end in 0..message.len() {
            assert!(read(&message[..end]).is_err(), "{encoding:?} cut at {end}");
        }
        assert_eq!(read(&[&message[..], &[0]].concat()).unwrap_err().reason, Reason::TrailingBytes);
    }
}

#[test]
fn numbers_out_of_range_name_field_and_index() {
    for field in FIELDS.iter().filter(|field| field.name != "flags") {
        let mut hostile = vec![float(f64::INFINITY), float(f64::NEG_INFINITY)];
        if field.kind.dtype().starts_with("uint") {
            hostile = vec![vec![0xff], vec![0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], int(u64::MAX)];
        }
        for value in hostile {
            let mut row = required();
            row.retain(|(key, _)| *key != field.name);
            row.push((field.name, value));
            let refusal = health(&[required(), row]).unwrap_err();
            assert_eq!(refusal.to_string(), format!("out of range: {}, 1", field.name));
        }
    }
    let mut row = required();
    row.push(("health_score", float(1.000_001)));
    assert_eq!(health(&[row]).unwrap_err().reason, Reason::OutOfRange);
    let mut row = required();
    row.push(("gradient_norm", float(1e308)));
    assert_eq!(health(&[row]).unwrap_err().reason, Reason::OutOfRange);
}

#[test]
fn nan_is_for_measurements_only() {
    let mut row = required();
    row.push(("health_score", float(f64::NAN)));
    row.push(("saturation", vec![0xc0]));
    let records = health(&[row.clone()]).unwrap();
    assert!(records[0].health_score.is_nan() && records[0].saturation.is_nan());
    row[3].1 = float(f64::NAN);
    assert_eq!(health(&[row]).unwrap_err().to_string(), "NaN where required: timestamp, 0");
}

#[test]
fn keys_may_be_unknown_but_not_twice_missing_or_of_another_type() {
    let mut row = required();
    row.push(("from_the_future", vec![0x91, 0x81, 0xa1, b'x', 0xc0]));
    assert_eq!(health(&[row.clone(), row.clone()]).unwrap()[1].layer_id, 7);
    row.push(("from_the_future", vec![0xc0]));
    assert_eq!(health(&[row.clone()]).unwrap_err().reason, Reason::DuplicateKey);
    row.pop();
    row.push(("step", int(7)));
    assert_eq!(health(&[row.clone()]).unwrap_err().to_string(), "duplicate key: step, 0");
    row.pop();
    row.push(("nested", [vec![0x91; 9], vec![0xc0]].concat()));
    assert_eq!(health(&[row.clone()]).unwrap_err().reason, Reason::TooDeep);
    row.pop();
    row.push(("timer", vec![0xd6, 0xff, 0, 0, 0, 0]));
    assert_eq!(health(&[row.clone()]).unwrap_err().reason, Reason::ExtensionType);
    row.pop();
    row.push(("health_score", vec![0xa1, b'1']));
    assert_eq!(health(&[row.clone()]).unwrap_err().to_string(), "wrong type: health_score, 0");
    row.pop();
    row.remove(2);
    assert_eq!(health(&[row]).unwrap_err().to_string(), "missing field: step, 0");
}

#[test]
fn a_map_may_not_have_endlessly_many_unknown_keys() {
    let names: Vec<_> = (0..17).map(|at| format!("key{at}")).collect();
    let mut row = required();
    row.extend(names.iter().map(|name| (name.as_str(), int(0))));
    assert_eq!(health(&[row.clone()]).unwrap_err().reason, Reason::TooLarge);
    row.pop();
    assert!(health(&[row]).is_ok());
}

#[test]
fn flags_are_booleans_in_maps() {
    let mut row = required();
    row.push(("nonfinite_gradient", vec![0xc3]));
    row.push(("is_ready_for_transition", vec![0xc3]));
    row.push(("nonfinite_weight", vec![0xc2]));
    assert_eq!(health(&[row.clone()]).unwrap()[0].flags, 5);
    row.push(("flags", int(8)));
    assert_eq!(health(&[row.clone()]).unwrap()[0].flags, 13);
    row.pop();
    row.push(("nonfinite_activation", int(1)));
    assert_eq!(health(&[row]).unwrap_err().reason, Reason::WrongType);
}

#[test]
fn the_other_topics_become_signals() {
    let event =
        |recovered| vec![("timestamp", float(5.5)), ("recovered", recovered), ("layer_id", int(4))];
    let events = [event(vec![0xc3]), event(vec![0xc2])];
    let records = read(&maps("telemetry.error_recovery.events", &events)).unwrap();
    let scores: Vec<_> = records.iter().map(|at| (at.health_score, at.error_count)).collect();
    assert_eq!(scores, [(0.8, 0), (0.2, 1)]);
    assert_eq!((records[1].layer_id, records[1].timestamp), (4, 5.5));

    let kernel = vec![
        ("layer_id", int(4)),
        ("timestamp", float(5.5)),
        ("latency_ms", float(5.0)),
        ("executions", int(100)),
        ("errors", int(10)),
        ("cache_hit_rate", float(0.5)),
    ];
    let topic = "telemetry.execution.kernel_performance";
    let record = read(&maps(topic, std::slice::from_ref(&kernel))).unwrap()[0];
    assert!((record.health_score - 0.5).abs() < 1e-6);
    assert_eq!(
        (record.error_count, record.execution_latency, record.cache_hit_rate),
        (10, 5.0, 0.5)
    );
    assert!(read(&maps(topic, &[kernel[..5].to_vec()])).unwrap()[0].health_score.is_nan());

    let rates = vec![("layer_id", int(4)), ("timestamp", int(5)), ("cache_hit_rate", float(0.25))];
    let record = read(&maps("telemetry.cache.hit_rates", &[rates])).unwrap()[0];
    assert!(record.health_score.is_nan());
    assert!((record.cache_hit_rate - 0.25).abs() < f32::EPSILON);

    assert_eq!(read(&maps("telemetry.other", &[])).unwrap_err().reason, Reason::UnknownTopic);
}

#[test]
fn another_version_is_named_whatever_else_is_odd() {
    let mut good = message(&header(0, 1), &[healthy(0, 0)], Encoding::Packed);
    let at = good.windows(2).position(|pair| pair == [0xa1, b'v']).unwrap() + 2;
    good[at] = 2;
    assert_eq!(read(&good).unwrap_err().reason, Reason::UnknownVersion);
    let odd = [&[0x82, 0xa3][..], b"seq", &[0xc3, 0xa1, b'v', 2]].concat();
    assert_eq!(read(&odd).unwrap_err().reason, Reason::UnknownVersion);
    let not_a_number = [0x81, 0xa1, b'v', 0xa1, b'1'];
    assert_eq!(read(&not_a_number).unwrap_err().reason, Reason::WrongType);
}

#[test]
fn a_header_cannot_claim_more_signals_than_the_message_holds() {
    for claimed in [1 << 40, 5] {
        let message = message(&header(0, claimed), &[], Encoding::Packed);
        assert!(message.len() < 5 * MIN_SIGNAL_BYTES);
        assert_eq!(open(&message).unwrap_err().reason, Reason::LengthMismatch);
    }
}

#[test]
fn a_header_that_says_something_twice_is_not_believed() {
    let mut message = message(&header(0, 1), &[healthy(0, 0)], Encoding::Packed);
    message[0] += 1;
    for key in ["seq", "unknown"] {
        let mut twice = message.clone();
        for _ in 0..2 {
            write::string(&mut twice, key);
            twice.extend(int(0));
        }
        twice[0] += u8::from(key == "unknown");
        assert_eq!(open(&twice).unwrap_err().reason, Reason::DuplicateKey);
    }
}

/// A map of a health signal with numbers of various widths, sometimes odd, rarely illegal.
fn alike() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let whole = || prop_oneof![4 => 0..128_u64, 2 => 0..70_000_u64, 1 => 0..1_u64 << 33];
    let share = prop_oneof![
        40 => (0.0..=1.0_f64).prop_map(float),
        10 => (0.0..=1.0_f32).prop_map(|value| float(value.into())),
        4 => Just(float(f64::NAN)),
        4 => Just(vec![0xc0]),
        2 => Just(int(1)),
        1 => Just(float(2.0)),
        1 => Just(vec![0xd0, 0xff]),
    ];
    let odd = prop_oneof![
        20 => Just(None),
        1 => Just(Some(("nonfinite_weight", vec![0xc3]))),
        1 => Just(Some(("flags", int(5)))),
        1 => Just(Some(("extra", vec![0x91, 0xc0]))),
        1 => Just(Some(("step", int(3)))),
    ];
    (0..200_u64, whole(), 0..3_u64, share, odd, prop_oneof![9 => Just(false), 1 => Just(true)])
        .prop_map(|(layer, step, seeds, score, odd, reversed)| {
            let mut row = vec![
                ("layer_id", int(layer)),
                ("epoch", int(step / 2)),
                ("step", int(step)),
                ("timestamp", float(1.7e9 + 0.1 * f64::from(u32::try_from(step % 100).unwrap()))),
                ("health_score", score),
                ("active_seeds", int(seeds)),
                ("total_seeds", int(3)),
            ];
            row.extend(odd);
            if reversed {
                row.reverse();
            }
            row
        })
}

proptest! {
    #[test]
    fn three_encodings_decode_to_the_same_records(records in vec(record(), 0..140), seq in 0..1_u64 << 50) {
        let expected = bytes(&records);
        for encoding in Encoding::ALL {
            let header = header(seq, records.len());
            let message = message(&header, &records, encoding);
            let envelope = open(&message).unwrap();
            prop_assert_eq!(envelope.header, header);
            prop_assert_eq!(&bytes(&read(&message).unwrap()), &expected, "{:?}", encoding);
        }
    }

    /// Rows are turned in blocks, what is left in vectors of four, and the last of them padded.
    #[test]
    fn a_fault_is_found_in_whichever_row_and_encoding(
        mut records in vec(record(), 1..140),
        at in any::<proptest::sample::Index>(),
        fault in 0..5_usize,
    ) {
        let at = at.index(records.len());
        let field = match fault {
            0 => { records[at].health_score = 1.5; "health_score" }
            1 => { records[at].cache_hit_rate = f32::INFINITY; "cache_hit_rate" }
            2 => { records[at].timestamp = f64::NAN; "timestamp" }
            3 => { records[at].step = 1 << 60; "step" }
            _ => { records[at].flags = 16; "flags" }
        };
        for encoding in [Encoding::Packed, Encoding::Columns] {
            let refusal = read(&message(&header(0, records.len()), &records, encoding)).unwrap_err();
            prop_assert_eq!((refusal.field, refusal.index), (Some(field), Some(at)), "{:?}", encoding);
        }
    }

    #[test]
    fn keys_come_in_any_order(records in vec(record(), 1..4), order in Just([0, 1, 2, 3, 4, 5, 6, 7, 8]).prop_shuffle()) {
        let message = message(&header(3, records.len()), &records, Encoding::Maps);
        let body = open(&message).unwrap().body.unwrap().to_vec();
        let text = |text| { let mut out = Vec::new(); write::string(&mut out, text); out };
        let entries = [
            ("v", int(1)), ("run", text("run")), ("producer", text("host")),
            ("incarnation", int(1)), ("seq", int(3)), ("n", int(records.len() as u64)),
            ("topic", text("telemetry.layer.health_signals")), ("body", body),
            ("compression", vec![0xc0]),
        ];
        let mut shuffled = vec![0x89];
        for at in order {
            write::string(&mut shuffled, entries[at].0);
            shuffled.extend_from_slice(&entries[at].1);
        }
        prop_assert_eq!(open(&shuffled).unwrap().header, header(3, records.len()));
        prop_assert_eq!(bytes(&read(&shuffled).unwrap()), bytes(&records));
    }

    #[test]
    fn every_decoded_record_is_legal_whatever_was_damaged(
        records in vec(record(), 1..4),
        encoding in proptest::sample::select(&Encoding::ALL[..]),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut message = message(&header(0, records.len()), &records, encoding);
        for (at, byte) in damage {
            let at = at.index(message.len());
            message[at] = byte;
        }
        for record in read(&message).into_iter().flatten() {
            prop_assert!(record.is_legal());
            prop_assert!(record.first_fault().is_none());
        }
    }

    /// Maps that look alike are read by their template, alone they are read key by key.
    #[test]
    fn maps_in_a_batch_read_as_each_does_alone(rows in vec(alike(), 1..40)) {
        let alone: Vec<_> = rows.iter().map(|row| health(std::slice::from_ref(row))).collect();
        let expected: Result<Vec<_>, _> = alone.into_iter().enumerate().map(|(at, row)| {
            row.map(|records| records[0]).map_err(|refusal| Refusal { index: Some(at), ..refusal })
        }).collect();
        match (health(&rows), expected) {
            (Ok(batch), Ok(expected)) => prop_assert_eq!(bytes(&batch), bytes(&expected)),
            (batch, expected) => prop_assert_eq!(batch.err(), expected.err()),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), topic in 0..3_usize) {
        let _ = read(&bytes);
        let topic = ["telemetry.layer.health_signals", "telemetry.cache.hit_rates", ""][topic];
        let _ = decode(&Header { topic, ..header(0, 2) }, &bytes, &mut Vec::new());
    }
}
