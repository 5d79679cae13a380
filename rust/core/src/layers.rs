//! The last signals of every layer, thinned or not.

use crate::features::{LayerWindow, Summary};
use crate::keys::Keys;
use crate::record::Record;
use crate::refusal::Reason;
use crate::sharded::Sharded;

/// A window per layer, bounded in number like the keys of the filter.
#[derive(Debug)]
pub struct Layers {
    window: usize,
    keys: Keys,
    windows: Sharded<LayerWindow>,
}

impl Layers {
    /// Windows of the last `window` signals each.
    #[must_use]
    pub fn new(window: usize, max_layers: usize) -> Self {
        Self { window, keys: Keys::new(max_layers), windows: Sharded::default() }
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
        let keys: Vec<_> = records.iter().map(|record| (record.layer_id, 0)).collect();
        let slots = self.keys.admit(&keys)?;
        self.windows.visit(&slots, |position, layer| layer.push(&records[position], self.window));
        Ok(())
    }

    /// The aggregates of every layer that has sent, in ascending order of layers.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary> {
        let mut summaries = Vec::new();
        self.windows.each(|layer| summaries.extend(layer.summary()));
        summaries.sort_unstable_by_key(|summary| summary.layer_id);
        summaries
    }
}
