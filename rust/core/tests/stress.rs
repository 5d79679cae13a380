//! A hundred million signals from two producers and a reader, and every one of them accounted for.
//!
//! Takes half a minute in a release build, so `make proof` runs it: `cargo test --release --test
//! stress -- --ignored`.
#![allow(missing_docs, clippy::cast_precision_loss)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{header, healthy, message};
use tamiyo_core::accounting::Account;
use tamiyo_core::encode::Encoding;
use tamiyo_core::envelope::Header;
use tamiyo_core::ingest::{Ingest, IngestConfig};
use tamiyo_core::record::Record;
use tamiyo_core::refusal::Reason;

const SIGNALS: u64 = 1000;
/// Messages of each producer, lost ones included.
const MESSAGES: u64 = 55_000;
/// Where the sequences start: far enough that every number is written in eight bytes.
const START: u64 = 1 << 40;

/// A message whose sequence number can be set without encoding it again.
struct Numbered {
    bytes: Vec<u8>,
    at: usize,
}

impl Numbered {
    fn new(producer: &str, records: &[Record], encoding: Encoding) -> Self {
        let header = Header { producer, ..header(START, records.len()) };
        let bytes = message(&header, records, encoding);
        let key = [&[0xa3][..], b"seq", &[0xcf]].concat();
        let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len();
        Self { bytes, at }
    }

    fn at(&mut self, seq: u64) -> &[u8] {
        self.bytes[self.at..self.at + 8].copy_from_slice(&seq.to_be_bytes());
        &self.bytes
    }
}

fn records() -> Vec<Record> {
    let of = |at: u64| {
        let layer = u32::try_from(at % 50).unwrap();
        let health_score = if at.is_multiple_of(9) { 0.1 } else { 0.9 };
        Record { health_score, saturation: 0.5, ..healthy(layer, at) }
    };
    (0..SIGNALS).map(of).collect()
}

/// Sends what a bad day brings: lost messages, late ones, repeated ones and broken ones.
fn produce(ingest: &Ingest, producer: &str) -> Account {
    let mut broken = records();
    broken[500].saturation = 2.0;
    let mut legal: Vec<_> = [Encoding::Packed, Encoding::Packed, Encoding::Columns]
        .map(|encoding| Numbered::new(producer, &records(), encoding))
        .into();
    let mut broken = Numbered::new(producer, &broken, Encoding::Packed);
    let mut expected = Account { lost: START, ..Account::default() };
    let mut late = None;
    for at in 0..MESSAGES {
        let seq = START + at * SIGNALS;
        expected.sent += SIGNALS;
        match at % 97 {
            13 => expected.lost += SIGNALS,
            29 => late = Some(seq),
            41 => {
                ingest.ingest([broken.at(seq)]);
                expected.refused[Reason::OutOfRange as usize] += SIGNALS;
            }
            _ => {
                let message = legal[usize::try_from(at % 3).unwrap()].at(seq);
                assert_eq!(ingest.ingest([message]) as u64, SIGNALS);
                if at % 50 == 7 {
                    assert_eq!(ingest.ingest([message]), 0);
                    expected.duplicated += SIGNALS;
                }
            }
        }
        if at % 97 == 35
            && let Some(seq) = late.take()
        {
            assert_eq!(ingest.ingest([legal[0].at(seq)]) as u64, SIGNALS);
        }
    }
    // The last one may still be on its way.
    expected.lost += late.map_or(0, |_| SIGNALS);
    expected.sent += START;
    expected
}

fn balanced(account: &Account) -> bool {
    let refused: u64 = account.refused.iter().sum();
    let left = account.drained + account.thinned + account.overwritten + account.lost;
    account.sent == account.held + refused + left
}

#[test]
#[ignore = "a hundred million signals"]
fn every_signal_is_accounted_for() {
    let ingest = Ingest::new(Some("run".into()), IngestConfig::default()).unwrap();
    let done = AtomicBool::new(false);
    let (expected, drained) = thread::scope(|scope| {
        let producers = ["a", "b"].map(|name| {
            let ingest = &ingest;
            (name, scope.spawn(move || produce(ingest, name)))
        });
        let reader = scope.spawn(|| {
            let mut drained = 0;
            while !done.load(Ordering::Acquire) {
                drained += ingest.drain(5000).len() as u64;
                assert!(ingest.accounts().iter().all(|(_, account)| balanced(account)));
                assert!(ingest.layers().into_arrays()[0].len() <= 50);
            }
            drained
        });
        let expected = producers.map(|(name, producer)| (name, producer.join().unwrap()));
        done.store(true, Ordering::Release);
        (expected, reader.join().unwrap())
    });
    let accounts = ingest.accounts();
    let mut total = Account::default();
    for (name, expected) in expected {
        let named = |(found, _): &&(String, Account)| found.starts_with(name);
        let (_, account) = accounts.iter().find(named).unwrap();
        assert!(balanced(account), "{account:?}");
        assert_eq!(
            (account.sent, account.lost, account.duplicated, account.refused),
            (expected.sent, expected.lost, expected.duplicated, expected.refused),
        );
        total.add(account);
    }
    assert!(total.sent - 2 * START >= 100_000_000);
    assert_eq!(total.drained, drained);
    assert!(total.thinned > 0 && total.overwritten > 0);
    assert_eq!(ingest.drain(usize::MAX >> 1).len() as u64, total.held);
}
