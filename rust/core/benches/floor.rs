//! Every stage of ingest as a share of the floor: copying the same records in memory.
//!
//! Floor and stage alternate in one process, in CPU time of this thread, and the fastest of many
//! rounds of each counts, which other programs disturbed least. Prints one line of JSON per stage.

mod shared;

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use shared::{BATCH, messages, records};
use tamiyo_core::accounting::Tallies;
use tamiyo_core::columns::Columns;
use tamiyo_core::decode::decode;
use tamiyo_core::encode::Encoding;
use tamiyo_core::envelope::open;
use tamiyo_core::features::window_features;
use tamiyo_core::filter::{Filter, FilterConfig};
use tamiyo_core::ingest::{Ingest, IngestConfig};
use tamiyo_core::lanes::Lanes;
use tamiyo_core::record::Record;
use tamiyo_core::table::RECORD_BYTES;

const SIGNALS: usize = 50_000;
const LAYERS: usize = 50;
const MANY_LAYERS: usize = 1000;
const ROUNDS: usize = 60;
/// Signals that are pushed before as many are drained, where the lanes are measured alone.
const LANE_BATCH: usize = 64;

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Seconds of CPU that `work` takes. What it returns is freed by the caller, outside the time.
fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let started = cpu_time();
    let result = black_box(work());
    (cpu_time().saturating_sub(started).as_secs_f64(), result)
}

/// The floor: the packed records, copied batch by batch into one block. A block of one message, like
/// every buffer of the stages, is used again and again and stays in the cache.
struct Floor {
    from: Vec<Vec<u8>>,
    to: Vec<u8>,
}

impl Floor {
    fn new(records: &[Record], batch: usize) -> Self {
        let packed = |batch: &[Record]| {
            let mut bytes = Vec::with_capacity(batch.len() * RECORD_BYTES);
            for record in batch {
                record.write_to(&mut bytes);
            }
            bytes
        };
        let from = records.chunks(batch).map(packed).collect();
        Self { from, to: vec![0; batch * RECORD_BYTES] }
    }

    fn copy(&mut self) -> f64 {
        let (from, to) = (black_box(&self.from), black_box(&mut self.to));
        seconds(|| {
            for message in from {
                to[..message.len()].copy_from_slice(message);
                black_box(&mut *to);
            }
        })
        .0
    }
}

/// Fastest of many rounds, each on a state made afresh outside the time.
fn stage<S, T>(
    name: &str,
    floor: &mut Floor,
    mut fresh: impl FnMut() -> S,
    mut work: impl FnMut(S) -> T,
) {
    let (mut best, mut best_floor) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        // The second copy finds its records in the cache.
        best_floor = best_floor.min(floor.copy()).min(floor.copy());
        let state = fresh();
        best = best.min(seconds(|| work(state)).0);
    }
    report(name, SIGNALS, best, best_floor);
}

#[allow(clippy::cast_precision_loss)]
fn report(name: &str, signals: usize, seconds: f64, floor: f64) {
    let rate = signals as f64 / seconds;
    println!(
        r#"{{"stage": "{name}", "signals_per_second": {rate:.0}, "share_of_floor": {:.4}}}"#,
        floor / seconds
    );
}

fn decode_stage(floor: &mut Floor, name: &str, records: &[Record], encoding: Encoding) {
    let sent = messages("bench", records, encoding);
    let mut decoded = Vec::new();
    let work = |()| {
        for message in &sent {
            let envelope = open(message).expect("well formed");
            let body = envelope.body.expect("well formed");
            decode(&envelope.header, body, &mut decoded).expect("legal");
            black_box(&mut decoded);
        }
    };
    stage(name, floor, || (), work);
}

fn filter_stage(floor: &mut Floor, records: &[Record]) {
    let fresh = || {
        let filter = Filter::new(FilterConfig::default()).expect("valid");
        filter.judge(records).expect("few keys");
        filter
    };
    stage("filter", floor, fresh, |filter| {
        for batch in records.chunks(BATCH) {
            black_box(filter.judge(batch).expect("few keys"));
        }
        filter
    });
}

fn lanes_stage(floor: &mut Floor, records: &[Record]) {
    let (tallies, mut drained) = (Tallies::default(), Columns::default());
    stage(
        "lanes",
        floor,
        || Lanes::new(IngestConfig::default().capacity),
        |lanes| {
            for batch in records.chunks(LANE_BATCH) {
                let signals = batch.iter().enumerate().map(|(at, record)| (record, at % 10 == 0));
                lanes.push(0, batch.len(), signals, &tallies);
                drained.clear();
                lanes.drain(LANE_BATCH, &mut drained, &tallies);
                black_box(&mut drained);
            }
            lanes
        },
    );
}

/// Aggregates are taken of records at hand, all at once, and so are these copied all at once: neither
/// they nor their copy stay in the cache.
fn features_stage() {
    let records = records(SIGNALS, MANY_LAYERS);
    let mut floor = Floor::new(&records, SIGNALS);
    stage("features", &mut floor, || (), |()| window_features(&records, 100));
}

fn collector() -> Ingest {
    Ingest::new(Some("bench".into()), IngestConfig::default()).expect("valid")
}

/// From bytes to lanes, streaming features and drained columns.
fn whole_stage(floor: &mut Floor, name: &str, layers: usize, encoding: Encoding) {
    let records = records(2 * SIGNALS, layers);
    let sent = messages("bench", &records, encoding);
    let (before, measured) = sent.split_at(sent.len() / 2);
    let fresh = || {
        let ingest = collector();
        ingest.ingest(before.iter().map(Vec::as_slice));
        black_box(ingest.drain(SIGNALS));
        ingest
    };
    stage(name, floor, fresh, |ingest| {
        for message in measured {
            ingest.ingest([message.as_slice()]);
            black_box(ingest.drain(BATCH));
        }
        ingest
    });
}

/// Wall-clock signals per second of `producers` threads that share a collector.
fn threads_rate(producers: usize, records: &[Record]) -> f64 {
    let names: Vec<_> = (0..producers).map(|at| at.to_string()).collect();
    let sent: Vec<_> = names.iter().map(|name| messages(name, records, Encoding::Packed)).collect();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let ingest = collector();
        let started = Instant::now();
        thread::scope(|scope| {
            for messages in &sent {
                scope.spawn(|| ingest.ingest(messages.iter().map(Vec::as_slice)));
            }
        });
        best = best.min(started.elapsed().as_secs_f64());
    }
    #[allow(clippy::cast_precision_loss)]
    let signals = (producers * records.len()) as f64;
    signals / best
}

fn snapshot_seconds(layers: usize) -> f64 {
    let ingest = collector();
    let records = records(100 * layers, layers);
    for message in messages("bench", &records, Encoding::Packed) {
        ingest.ingest([message.as_slice()]);
    }
    let run = |_| seconds(|| ingest.layers()).0;
    (0..50 * ROUNDS).map(run).fold(f64::INFINITY, f64::min)
}

fn main() {
    let few = records(SIGNALS, LAYERS);
    let mut floor = Floor::new(&few, BATCH);
    let floor = &mut floor;
    let best = (0..ROUNDS).map(|_| floor.copy()).fold(f64::INFINITY, f64::min);
    report("memcpy", SIGNALS, best, best);
    decode_stage(floor, "packed", &few, Encoding::Packed);
    decode_stage(floor, "columns", &few, Encoding::Columns);
    decode_stage(floor, "maps", &few, Encoding::Maps);
    filter_stage(floor, &few);
    lanes_stage(floor, &few);
    features_stage();
    whole_stage(floor, "whole_packed", LAYERS, Encoding::Packed);
    whole_stage(floor, "whole_columns", LAYERS, Encoding::Columns);
    whole_stage(floor, "whole_maps", LAYERS, Encoding::Maps);
    whole_stage(floor, "whole_packed_1000_layers", MANY_LAYERS, Encoding::Packed);
    let many = records(10 * SIGNALS, LAYERS);
    let (one, two) = (threads_rate(1, &many), threads_rate(2, &many));
    println!(r#"{{"stage": "threads", "one": {one:.0}, "two": {two:.0}}}"#);
    let seconds = snapshot_seconds(MANY_LAYERS);
    println!(r#"{{"stage": "snapshot_1000", "seconds": {seconds:.9}}}"#);
}
