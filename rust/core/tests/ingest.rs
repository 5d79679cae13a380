//! The whole path: the books balance, readers see what they should, bounds hold.
#![allow(missing_docs, clippy::cast_possible_truncation, clippy::cast_precision_loss)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{bytes, header, healthy, message, record, rows};
use proptest::collection::vec;
use proptest::prelude::*;
use tamiyo_core::accounting::{Account, MAX_PRODUCERS};
use tamiyo_core::encode::Encoding;
use tamiyo_core::envelope::Header;
use tamiyo_core::filter::FilterConfig;
use tamiyo_core::ingest::{Ingest, IngestConfig};
use tamiyo_core::record::Record;
use tamiyo_core::refusal::Reason;

/// A collector that keeps every signal, in lanes of `capacity`.
fn collector(capacity: usize) -> Ingest {
    let filter = FilterConfig { keep_every: 1, max_keys: 50, ..FilterConfig::default() };
    let config = IngestConfig { capacity, filter, window: 10, ..IngestConfig::default() };
    Ingest::new(None, config).unwrap()
}

fn send(ingest: &Ingest, seq: u64, records: &[Record]) -> usize {
    let message = message(&header(seq, records.len()), records, Encoding::Packed);
    ingest.ingest([&message[..]])
}

fn balanced(account: &Account) -> bool {
    let refused: u64 = account.refused.iter().sum();
    account.sent
        == account.held
            + account.drained
            + refused
            + account.thinned
            + account.overwritten
            + account.lost
}

fn total(ingest: &Ingest) -> Account {
    let mut total = Account::default();
    for (_, account) in ingest.accounts() {
        assert!(balanced(&account), "{account:?}");
        total.add(&account);
    }
    total
}

fn urgent(step: u64) -> Record {
    Record { health_score: 0.1, ..healthy(1, step) }
}

fn steps(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.step).collect()
}

#[test]
fn the_books_balance_under_four_producers_and_a_reader() {
    const BATCHES: u64 = 300;
    const SIGNALS: usize = 50;
    let filter = FilterConfig { keep_every: 3, ..FilterConfig::default() };
    let config = IngestConfig { capacity: 500, filter, ..IngestConfig::default() };
    let ingest = Ingest::new(Some("run".into()), config).unwrap();
    let names = ["a", "b", "c", "d"];
    let done = AtomicBool::new(false);
    let mut drained = 0;
    thread::scope(|scope| {
        let producers: Vec<_> = names
            .into_iter()
            .map(|producer| {
                scope.spawn({
                    let ingest = &ingest;
                    move || {
                        for batch in (0..BATCHES).filter(|batch| batch % 10 != 3) {
                            let mut records: Vec<_> = (0..SIGNALS as u64)
                                .map(|at| {
                                    let step = batch * SIGNALS as u64 + at;
                                    if at % 7 == 0 {
                                        urgent(step)
                                    } else {
                                        healthy(at as u32, step)
                                    }
                                })
                                .collect();
                            if batch % 10 == 7 {
                                records[SIGNALS / 2].saturation = 2.0;
                            }
                            let header =
                                Header { producer, ..header(batch * SIGNALS as u64, SIGNALS) };
                            let message = message(&header, &records, Encoding::Packed);
                            ingest.ingest([&message[..]]);
                            ingest.ingest([&message[..]]);
                        }
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut drained = 0;
            while !done.load(Ordering::Acquire) {
                drained += ingest.drain(100).len();
                total(&ingest);
                assert!(ingest.recent(20).len() <= 20);
            }
            drained
        });
        for producer in producers {
            producer.join().unwrap();
        }
        done.store(true, Ordering::Release);
        drained = reader.join().unwrap();
    });
    let total = total(&ingest);
    let sent = names.len() as u64 * BATCHES * SIGNALS as u64;
    assert_eq!(total.sent, sent);
    assert_eq!(total.drained, drained as u64);
    assert_eq!(total.refused[Reason::OutOfRange as usize], sent / 10);
    assert_eq!(total.lost, sent / 10);
    assert_eq!(total.duplicated, sent - sent / 10);
    assert!(total.overwritten > 0 && total.thinned > 0);
    assert_eq!(total.held, ingest.recent(10_000).len() as u64);
    assert_eq!(ingest.drain(10_000).len() as u64, total.held);
}

#[test]
fn normal_traffic_never_hides_urgent_signals() {
    let ingest = collector(50);
    send(&ingest, 0, &[urgent(1), urgent(2)]);
    let flood: Vec<_> = (3..1000).map(|step| healthy(2, step)).collect();
    send(&ingest, 2, &flood);
    assert_eq!(steps(&rows(&ingest.recent(4))), [1, 2, 998, 999]);
    assert_eq!(steps(&rows(&ingest.recent(1))), [2]);
    assert_eq!(steps(&rows(&ingest.for_layer(1, 9))), [1, 2]);
    assert_eq!(steps(&rows(&ingest.for_layer(2, 2))), [998, 999]);
    assert_eq!(total(&ingest).held, 42);
    assert_eq!(steps(&rows(&ingest.drain(3))), [1, 2, 960]);
    assert_eq!(total(&ingest).held, 39);
}

#[test]
fn one_run_is_collected() {
    let ingest = collector(50);
    let broken = [Record { saturation: 2.0, ..healthy(0, 0) }];
    let foreign = Header { run: "other", ..header(0, 1) };
    ingest.ingest([&message(&foreign, &broken, Encoding::Packed)[..]]);
    assert_eq!(ingest.run(), None);
    send(&ingest, 1, &[healthy(0, 0)]);
    assert_eq!(ingest.run(), Some("run"));
    let before = total(&ingest);
    let foreign = message(&foreign, &[healthy(0, 0)], Encoding::Packed);
    assert_eq!(ingest.ingest([&foreign[..]]), 0);
    assert_eq!(total(&ingest), before);
    assert_eq!(ingest.unreadable()[Reason::ForeignRun as usize], 1);
    assert_eq!(ingest.refusals().last().unwrap().0, "foreign run: run");
}

#[test]
fn keys_and_producers_are_bounded() {
    let ingest = collector(1000);
    ingest.declare(&[5_000_000]);
    let many: Vec<_> = (0..51).map(|layer| healthy(layer, 0)).collect();
    assert_eq!(send(&ingest, 0, &many), 0);
    assert_eq!(send(&ingest, 51, &many[..50]), 50);
    assert_eq!(send(&ingest, 101, &many[50..]), 0);
    assert_eq!(send(&ingest, 102, &[healthy(5_000_000, 0)]), 1);
    assert_eq!(total(&ingest).refused[Reason::TooManyKeys as usize], 52);
    assert_eq!(ingest.layers().into_arrays()[0].len(), 51);
    for incarnation in 2..10 + MAX_PRODUCERS as u64 {
        let header = Header { incarnation, ..header(0, 1) };
        ingest.ingest([&message(&header, &[healthy(0, 0)], Encoding::Packed)[..]]);
    }
    assert_eq!(ingest.accounts().len(), MAX_PRODUCERS);
    assert_eq!(ingest.unreadable()[Reason::TooManyProducers as usize], 9);
    assert!(ingest.refusals().len() <= 64);
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let ingest = collector(50);
    let half = [healthy(0, 0), Record { timestamp: f64::NAN, ..healthy(1, 0) }];
    assert_eq!(send(&ingest, 0, &half), 0);
    assert!(ingest.layers().into_arrays()[0].is_empty() && ingest.recent(9).is_empty());
    assert_eq!(ingest.refusals()[0].0, "NaN where required: timestamp, 1");
    assert_eq!(send(&ingest, 1, &[healthy(0, 0), healthy(0, 1)]), 0);
    let total = total(&ingest);
    assert_eq!((total.sent, total.duplicated), (3, 1));
    assert_eq!(total.refused[Reason::Overlap as usize], 1);
    assert_eq!(send(&ingest, 0, &half), 0);
    assert_eq!(ingest.refusals().len(), 2, "what was seen before is not refused once more");
}

#[derive(Clone, Debug)]
enum Act {
    Send(Vec<Record>),
    Skip(u64),
    Repeat,
    Drain(usize),
    Look,
}

fn act() -> impl Strategy<Value = Act> {
    let near = || {
        (record(), 0..8_u32, 0..100_u32).prop_map(|(record, layer_id, time)| Record {
            layer_id,
            seed_id: 0,
            timestamp: time.into(),
            error_count: 0,
            flags: 0,
            ..record
        })
    };
    prop_oneof![
        6 => vec(near(), 0..12).prop_map(Act::Send),
        2 => vec(near(), 0..150).prop_map(Act::Send),
        1 => (0..5_u64).prop_map(Act::Skip),
        1 => Just(Act::Repeat),
        1 => (0..12_usize).prop_map(Act::Drain),
        3 => Just(Act::Look),
    ]
}

/// What is held, by the letter: two lists of (arrival, record), each cut to its capacity.
#[derive(Default)]
struct Model {
    urgent: Vec<(usize, Record)>,
    normal: Vec<(usize, Record)>,
    arrivals: usize,
}

impl Model {
    fn push(&mut self, record: Record, urgent: bool) {
        let (lane, capacity) = if urgent { (&mut self.urgent, 4) } else { (&mut self.normal, 16) };
        lane.push((self.arrivals, record));
        self.arrivals += 1;
        if lane.len() > capacity {
            lane.remove(0);
        }
    }

    fn newest(&self, count: usize, wanted: impl Fn(&Record) -> bool) -> Vec<Record> {
        let of = |lane: &[(usize, Record)], count| -> Vec<(usize, Record)> {
            lane.iter().rev().filter(|(_, record)| wanted(record)).take(count).copied().collect()
        };
        let mut chosen = of(&self.urgent, count);
        chosen.extend(of(&self.normal, count - chosen.len()));
        chosen.sort_by_key(|(arrival, _)| *arrival);
        chosen.sort_by(|one, other| one.1.timestamp.total_cmp(&other.1.timestamp));
        chosen.into_iter().map(|(_, record)| record).collect()
    }
}

/// Compares what readers see.
fn look(ingest: &Ingest, model: &Model, count: usize) -> Result<(), TestCaseError> {
    let recent = rows(&ingest.recent(count));
    prop_assert_eq!(bytes(&recent), bytes(&model.newest(count, |_| true)));
    let layer = rows(&ingest.for_layer(3, count));
    prop_assert_eq!(bytes(&layer), bytes(&model.newest(count, |record| record.layer_id == 3)));
    prop_assert_eq!(total(ingest).held as usize, model.urgent.len() + model.normal.len());
    Ok(())
}

proptest! {
    #[test]
    fn readers_see_what_the_model_holds(acts in vec(act(), 0..25), count in 0..25_usize) {
        // Without anomalies, urgent is what is not healthy.
        let filter = FilterConfig { keep_every: 1, anomaly_threshold: 1e9, ..FilterConfig::default() };
        let config = IngestConfig { capacity: 20, filter, ..IngestConfig::default() };
        let ingest = Ingest::new(None, config).unwrap();
        let mut model = Model::default();
        let (mut seq, mut last) = (0, Vec::new());
        for act in acts {
            match act {
                Act::Send(records) => {
                    prop_assert_eq!(send(&ingest, seq, &records), records.len());
                    for record in &records {
                        model.push(*record, record.health_score < 0.5);
                    }
                    seq += records.len() as u64;
                    last = records;
                }
                Act::Skip(lost) => seq += lost,
                Act::Repeat => {
                    let start = seq.saturating_sub(last.len() as u64);
                    let before = total(&ingest);
                    if before.sent == seq {
                        prop_assert_eq!(send(&ingest, start, &last), 0);
                        prop_assert_eq!(total(&ingest).held, before.held);
                    }
                }
                Act::Drain(count) => {
                    let urgent = count.min(model.urgent.len());
                    let normal = (count - urgent).min(model.normal.len());
                    let expected = model.urgent.drain(..urgent).chain(model.normal.drain(..normal));
                    let expected: Vec<_> = expected.map(|(_, record)| record).collect();
                    prop_assert_eq!(bytes(&rows(&ingest.drain(count))), bytes(&expected));
                }
                // Between two looks, producers alone bound what is held.
                Act::Look => look(&ingest, &model, count)?,
            }
        }
        look(&ingest, &model, count)?;
    }

    #[test]
    fn the_books_balance_whatever_arrives(
        messages in vec((vec(any::<u8>(), 0..80), 0..40_u64, 0..5_usize, any::<proptest::sample::Index>(), any::<u8>()), 0..30)
    ) {
        let ingest = collector(8);
        for (noise, seq, n, at, byte) in messages {
            let mut message = message(&header(seq, n), &vec![healthy(0, seq); n], Encoding::Columns);
            let at = at.index(message.len());
            message[at] = byte;
            ingest.ingest([&noise[..], &message[..]]);
            total(&ingest);
        }
    }
}
