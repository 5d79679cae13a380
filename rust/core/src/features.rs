//! Per-layer aggregates of signals at hand, in one pass.
//!
//! They are taken over a layer's last signals in order of arrival, thinned or not, because means
//! over the kept ones alone would be biased towards what is unusual. NaN is left out of every mean.

use std::collections::BTreeMap;

use crate::moments::{Counts, Extent, Moments, Sample};
use crate::record::Record;
use crate::summary::{Latest, Start, Summary, summarise};

/// Layers below this id are looked up in a plain table; ids are dense, so that is nearly all.
const DENSE_LAYERS: usize = 65_536;

const NONE: usize = usize::MAX;

/// Aggregates of each layer's last `window` signals in their order, in ascending order of layers.
#[must_use]
pub fn window_features(records: &[Record], window: usize) -> Vec<Summary> {
    let mut ranks = Ranks::default();
    let mut layers: Vec<Layer> = Vec::new();
    // From the latest on, so that one pass shows which are the last ones.
    for (at, record) in records.iter().enumerate().rev() {
        let rank = ranks.of(record.layer_id, layers.len());
        if rank == layers.len() {
            layers.push(Layer::default());
        }
        let layer = &mut layers[rank];
        if (layer.counts.signals as usize) < window {
            layer.add_older(record, at);
        }
    }
    let starts = starts(records, &layers, &mut ranks);
    ranks.by_layer().map(|rank| layers[rank].summary(&starts[rank])).collect()
}

/// The start of each layer's window.
fn starts(records: &[Record], layers: &[Layer], ranks: &mut Ranks) -> Vec<Start> {
    let mut starts = vec![Start::default(); layers.len()];
    let mut open = layers.len();
    for (at, record) in records.iter().enumerate() {
        let rank = ranks.of(record.layer_id, layers.len());
        let start = &mut starts[rank];
        if at < layers[rank].first || start.is_known() {
            continue;
        }
        start.add(record.activation_variance);
        open -= usize::from(start.is_known());
        if open == 0 {
            break;
        }
    }
    starts
}

/// The sums of one layer. What every signal changes comes first, in three cache lines.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Layer {
    moments: Moments,
    extent: Extent,
    /// Index of the earliest signal so far.
    first: usize,
    counts: Counts,
    latest: Latest,
}

impl Layer {
    /// Adds the signal at this index, which is older than all before.
    #[inline]
    fn add_older(&mut self, record: &Record, at: usize) {
        let sample = Sample::from(record);
        // Once one signal has measured everything, older ones have nothing to add.
        if self.counts.complete == 0 {
            self.latest.precede(record, self.counts.signals == 0);
        }
        self.counts.add(&sample);
        self.moments.add(&sample);
        self.extent.include(record.timestamp);
        self.first = at;
    }

    fn summary(&self, start: &Start) -> Summary {
        let newer = Moments::default();
        let moments = [&self.moments, &newer];
        summarise(&self.latest, &self.counts, moments, self.extent.span(), start)
    }
}

/// Rank of each layer, in the order of their first occurrence.
#[derive(Default)]
struct Ranks {
    dense: Vec<usize>,
    sparse: BTreeMap<u32, usize>,
}

impl Ranks {
    /// The rank of a layer, which is `next` if it is new.
    #[inline]
    fn of(&mut self, layer: u32, next: usize) -> usize {
        match self.dense.get(layer as usize) {
            Some(rank) if *rank != NONE => *rank,
            _ => self.of_rare(layer, next),
        }
    }

    #[cold]
    fn of_rare(&mut self, layer: u32, next: usize) -> usize {
        let at = layer as usize;
        if at >= DENSE_LAYERS {
            return *self.sparse.entry(layer).or_insert(next);
        }
        if at >= self.dense.len() {
            self.dense.resize((at + 1).next_power_of_two(), NONE);
        }
        self.dense[at] = next;
        next
    }

    /// All ranks, in ascending order of layers.
    fn by_layer(&self) -> impl Iterator<Item = usize> {
        let dense = self.dense.iter().copied().filter(|rank| *rank != NONE);
        dense.chain(self.sparse.values().copied())
    }
}
