//! The aggregates of every layer over its last signals, thinned or not, kept up to date as signals
//! arrive: what a snapshot costs depends on the number of layers and on nothing else.

use std::sync::Mutex;

use crate::keys::Keys;
use crate::record::Record;
use crate::refusal::Reason;
use crate::sharded::{Sharded, lock};
use crate::sliding::SlidingWindow;
use crate::summary::{Summary, SummaryColumns};

/// Summaries that are turned into columns at once, while they are in the first-level cache.
const BLOCK: usize = 32;

/// A window per layer, bounded in number like the keys of the filter.
#[derive(Debug)]
pub struct Layers {
    window: usize,
    keys: Keys,
    windows: Sharded<SlidingWindow>,
    /// The slots in ascending order of layers, of as many layers as there were last time.
    order: Mutex<Vec<u32>>,
}

impl Layers {
    /// Windows of the last `window` signals each.
    #[must_use]
    pub fn new(window: usize, max_layers: usize) -> Self {
        let keys = Keys::new(max_layers);
        Self { window, keys, windows: Sharded::default(), order: Mutex::default() }
    }

    /// Admits these layers whatever the bound.
    pub fn declare(&self, layers: &[u32]) {
        self.keys.declare(layers);
    }

    /// Adds a batch in order.
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`]; then nothing was added.
    pub fn push(&self, records: &[Record]) -> Result<(), Reason> {
        let slots = self.keys.admit(records.iter().map(|record| (record.layer_id, 0)))?;
        self.windows.visit(&slots, |position, layer| layer.push(&records[position], self.window));
        Ok(())
    }

    /// The aggregates of every layer that has sent, in ascending order of layers.
    pub fn for_each(&self, mut visit: impl FnMut(Summary)) {
        let mut order = lock(&self.order);
        if order.len() != self.keys.len() {
            *order = self.keys.slots_by_layer();
        }
        self.windows.read(&order, |layer| layer.summary().into_iter().for_each(&mut visit));
    }

    /// The same in columns.
    #[must_use]
    pub fn snapshot(&self) -> SummaryColumns {
        let mut columns = SummaryColumns::with_capacity(self.keys.len());
        let mut block = Vec::with_capacity(BLOCK);
        self.for_each(|summary| {
            block.push(summary);
            if block.len() == BLOCK {
                columns.extend(&block);
                block.clear();
            }
        });
        columns.extend(&block);
        columns
    }
}
