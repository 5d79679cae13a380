//! Records and messages for the tests.
#![allow(dead_code, reason = "every test crate uses its own part of this")]

use proptest::prelude::*;
use tamiyo_core::columns::Columns;
use tamiyo_core::encode::{Encoding, encode};
use tamiyo_core::envelope::Header;
use tamiyo_core::record::Record;
use tamiyo_core::scalar::{Kind, Number};
use tamiyo_core::table::{FIELDS, Ordinal, Presence};
use tamiyo_core::topics::HEALTH_SIGNALS;

/// A legal record: every field anywhere in its range, measurements also missing.
pub fn record() -> impl Strategy<Value = Record> {
    proptest::collection::vec(any::<(u64, f64, bool)>(), FIELDS.len()).prop_map(|draws| {
        let mut record = Record::ABSENT;
        for ((ordinal, field), (bits, unit, missing)) in
            Ordinal::ALL.into_iter().zip(FIELDS).zip(draws)
        {
            let number = match field.kind {
                Kind::U16 | Kind::U32 | Kind::U64 => {
                    let high = Number::Float(field.high).as_f64();
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    let span = high as u64;
                    Number::Unsigned(bits % (span + 1))
                }
                Kind::F32 | Kind::F64 => {
                    let share = (unit.to_bits() >> 11) as f64 / (1_u64 << 53) as f64;
                    Number::Float(field.low + share * (field.high - field.low))
                }
            };
            if !(missing && field.presence == Presence::NotMeasured) {
                record.set(ordinal, number).expect("in range");
            }
        }
        record
    })
}

/// A plain healthy record of this layer.
pub fn healthy(layer_id: u32, step: u64) -> Record {
    let timestamp = 1.7e9 + step as f64;
    Record { layer_id, step, timestamp, health_score: 0.9, ..Record::ABSENT }
}

/// The header of the batch at `seq`.
pub fn header(seq: u64, n: usize) -> Header<'static> {
    Header { run: "run", producer: "host", incarnation: 1, seq, n, topic: HEALTH_SIGNALS }
}

/// A message of records.
pub fn message(header: &Header<'_>, records: &[Record], encoding: Encoding) -> Vec<u8> {
    encode(header, &Columns::from_iter(records), encoding)
}

/// The packed bytes of records, in which NaN equals NaN.
pub fn bytes(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        record.write_to(&mut out);
    }
    out
}

/// The records of columns.
pub fn rows(columns: &Columns) -> Vec<Record> {
    (0..columns.len()).map(|row| columns.row(row)).collect()
}
