//! A flood of a million layer ids costs a bounded amount of memory, and known layers stay served.
#![allow(missing_docs, clippy::cast_precision_loss)]

mod common;
#[path = "common/counting.rs"]
mod counting;

use common::{header, healthy, message};
use counting::{Counting, peak_of};
use tamiyo_core::encode::Encoding;
use tamiyo_core::ingest::{Ingest, IngestConfig};
use tamiyo_core::record::Record;

#[global_allocator]
static COUNTING: Counting = Counting;

const BOUND: usize = 512 << 20;
const BATCH: u32 = 500;

fn send(ingest: &Ingest, seq: &mut u64, records: &[Record]) -> usize {
    let message = message(&header(*seq, records.len()), records, Encoding::Packed);
    *seq += records.len() as u64;
    ingest.ingest([&message[..]])
}

/// One test, because the counters are the process's.
#[test]
fn a_flood_of_layers_is_bounded_and_hides_nobody() {
    let mut seq = 0;
    let peak = peak_of(|| {
        let ingest = Ingest::new(None, IngestConfig::default()).unwrap();
        ingest.declare(&[4_000_000_000]);
        let known: Vec<_> = (0..BATCH).map(|layer| healthy(layer, 0)).collect();
        send(&ingest, &mut seq, &known);
        for first in (1_000_000..2_000_000).step_by(BATCH as usize) {
            let flood: Vec<_> = (first..first + BATCH).map(|layer| healthy(layer, 0)).collect();
            send(&ingest, &mut seq, &flood);
        }
        assert_eq!(send(&ingest, &mut seq, &known), known.len());
        assert_eq!(send(&ingest, &mut seq, &[healthy(4_000_000_000, 0)]), 1);
        assert_eq!(ingest.layers().into_arrays()[0].len(), 65_500 + 1);
    });
    println!("a million layers once: {} MB", peak >> 20);
    assert!(peak < BOUND, "{peak} bytes");
}

/// Every window that can exist is full, and so is the buffer.
#[test]
#[ignore = "millions of signals"]
fn the_most_that_a_sender_can_fill_is_bounded() {
    let mut seq = 0;
    let peak = peak_of(|| {
        let ingest = Ingest::new(None, IngestConfig::default()).unwrap();
        for step in 0..210 {
            for first in (0..65_536).step_by(512) {
                let of = |layer| Record { timestamp: 1e9 - step as f64, ..healthy(layer, step) };
                let records: Vec<_> = (first..first + 512).map(of).collect();
                assert_eq!(send(&ingest, &mut seq, &records), 512);
            }
        }
    });
    println!("every window full, clocks running backwards: {} MB", peak >> 20);
    assert!(peak < BOUND, "{peak} bytes");
}
