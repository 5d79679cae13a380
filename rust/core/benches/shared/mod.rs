//! Signals to measure with: 1,000 a message, mostly healthy, everything measured.
#![allow(dead_code, reason = "every benchmark uses its own part of this")]

use tamiyo_core::columns::Columns;
use tamiyo_core::encode::{Encoding, encode};
use tamiyo_core::envelope::Header;
use tamiyo_core::record::Record;
use tamiyo_core::topics::HEALTH_SIGNALS;

/// Signals in a message.
pub const BATCH: usize = 1000;

/// `count` records that go round `layers` layers, in the order in which a producer sends them.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
pub fn records(count: usize, layers: usize) -> Vec<Record> {
    let mut noise = Noise(1);
    (0..count)
        .map(|at| Record {
            layer_id: (at % layers) as u32,
            step: (at / layers) as u64,
            timestamp: 1.7e9 + at as f64 * 1e-5,
            health_score: noise.next(),
            activation_variance: noise.next(),
            dead_neuron_ratio: noise.next(),
            avg_correlation: noise.next(),
            gradient_norm: noise.next(),
            weight_norm: noise.next(),
            update_ratio: noise.next(),
            saturation: noise.next(),
            execution_latency: noise.next(),
            cache_hit_rate: noise.next(),
            active_seeds: 1,
            total_seeds: 2,
            ..Record::ABSENT
        })
        .collect()
}

/// The messages of one producer that carry `records`, [`BATCH`] each.
#[must_use]
pub fn messages(producer: &str, records: &[Record], encoding: Encoding) -> Vec<Vec<u8>> {
    let message = |(at, batch): (usize, &[Record])| {
        let seq = (at * BATCH) as u64;
        let n = batch.len();
        let header =
            Header { run: "bench", producer, incarnation: 1, seq, n, topic: HEALTH_SIGNALS };
        encode(&header, &Columns::from_iter(batch), encoding)
    };
    records.chunks(BATCH).enumerate().map(message).collect()
}

/// Numbers between 0.4 and 0.9 that look random (Marsaglia's xorshift, JSS 8(14), 2003).
struct Noise(u64);

impl Noise {
    #[allow(clippy::cast_precision_loss)]
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        0.4 + 0.5 * (self.0 >> 40) as f32 / (1 << 24) as f32
    }
}
