//! Which layers and seeds are known, and how many there may be.
//!
//! Senders choose ids, so the number of keys is bounded. A batch is admitted whole or not at all:
//! all of its new keys are counted before the first of them is added.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock};

use crate::refusal::Reason;

/// Seeds of one declared layer that are admitted whatever the bound, the layer itself included.
pub const SEEDS_PER_DECLARED_LAYER: u32 = 16;

/// Layers below this id have their slot in a plain table; ids are dense, so that is nearly all.
const DENSE_LAYERS: usize = 65_536;

const NONE: u32 = u32::MAX;

/// A layer and a seed in it.
pub type Key = (u32, u32);

/// A dense slot for every known key.
#[derive(Debug)]
pub struct Keys {
    bound: usize,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Slots of seed 0 of the layers with small ids.
    dense: Vec<u32>,
    sparse: HashMap<Key, u32>,
    /// Declared layers, each with the number of its keys that are admitted beside the bound.
    declared: HashMap<u32, u32>,
    slots: u32,
    /// Keys that count against the bound.
    charged: usize,
}

impl Keys {
    /// A table that admits `bound` keys, beside those of declared layers.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self { bound, table: RwLock::default() }
    }

    /// Admits these layers whatever the bound.
    pub fn declare(&self, layers: &[u32]) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            table.declared.entry(*layer).or_insert(0);
        }
    }

    /// The slots of `keys`, which are added where they are new.
    ///
    /// # Errors
    /// [`Reason::TooManyKeys`] if they do not all fit; then none is added.
    pub fn admit(&self, keys: impl Iterator<Item = Key> + Clone) -> Result<Vec<u32>, Reason> {
        let (slots, all_known) = self.find(keys.clone());
        if all_known {
            return Ok(slots);
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let new: HashSet<Key> = keys.clone().filter(|key| table.slot(*key) == NONE).collect();
        let charged = table.charge(&new);
        if table.charged + charged > self.bound {
            return Err(Reason::TooManyKeys);
        }
        Ok(keys.map(|key| table.slot_or_add(key)).collect())
    }

    /// The slots of `keys`, and whether all are known.
    fn find(&self, keys: impl Iterator<Item = Key>) -> (Vec<u32>, bool) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut all_known = true;
        let slots = keys.map(|key| {
            let slot = table.slot(key);
            all_known &= slot != NONE;
            slot
        });
        (slots.collect(), all_known)
    }

    /// Number of known keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).slots as usize
    }

    /// Whether no key is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slots of all known keys, in ascending order of layers and seeds.
    #[must_use]
    pub fn slots_by_layer(&self) -> Vec<u32> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let dense = (0..).zip(&table.dense).filter(|(_, slot)| **slot != NONE);
        let dense = dense.map(|(layer, slot)| ((layer, 0), *slot));
        let mut keys: Vec<(Key, u32)> =
            dense.chain(table.sparse.iter().map(|(key, slot)| (*key, *slot))).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, slot)| slot).collect()
    }
}

impl Table {
    #[inline]
    fn slot(&self, key: Key) -> u32 {
        let slot = match key {
            (layer, 0) if (layer as usize) < DENSE_LAYERS => self.dense.get(layer as usize),
            _ => self.sparse.get(&key),
        };
        slot.copied().unwrap_or(NONE)
    }

    /// How many of these new keys would count against the bound.
    fn charge(&self, new: &HashSet<Key>) -> usize {
        let mut free = HashMap::new();
        let charged = |key: &&Key| {
            let Some(used) = self.declared.get(&key.0) else { return true };
            let used = free.entry(key.0).or_insert(*used);
            *used += 1;
            *used > SEEDS_PER_DECLARED_LAYER
        };
        new.iter().filter(charged).count()
    }

    fn slot_or_add(&mut self, key: Key) -> u32 {
        let known = self.slot(key);
        if known != NONE {
            return known;
        }
        match self.declared.get_mut(&key.0) {
            Some(free) if *free < SEEDS_PER_DECLARED_LAYER => *free += 1,
            _ => self.charged += 1,
        }
        let slot = self.slots;
        self.slots += 1;
        match key {
            (layer, 0) if (layer as usize) < DENSE_LAYERS => {
                let at = layer as usize;
                if at >= self.dense.len() {
                    // Doubles, but never past the table's end, whatever id comes after which.
                    let places = (at + 1).next_power_of_two().min(DENSE_LAYERS);
                    self.dense.reserve_exact(places - self.dense.len());
                    self.dense.resize(places, NONE);
                }
                self.dense[at] = slot;
            }
            _ => {
                self.sparse.insert(key, slot);
            }
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn admit(keys: &Keys, batch: &[Key]) -> Result<Vec<u32>, Reason> {
        keys.admit(batch.iter().copied())
    }

    #[test]
    fn a_batch_with_too_many_new_keys_adds_none() {
        let keys = Keys::new(3);
        assert_eq!(admit(&keys, &[(1, 0), (2, 0), (1, 0)]), Ok(vec![0, 1, 0]));
        assert_eq!(admit(&keys, &[(3, 0), (4, 0)]), Err(Reason::TooManyKeys));
        assert_eq!(admit(&keys, &[(4, 0), (2, 0)]), Ok(vec![2, 1]));
        assert_eq!(admit(&keys, &[(3, 0)]), Err(Reason::TooManyKeys));
    }

    #[test]
    fn declared_layers_are_admitted_but_not_endlessly_many_of_their_seeds() {
        let keys = Keys::new(1);
        keys.declare(&[7, 4_000_000_000]);
        keys.declare(&[7]);
        assert!(admit(&keys, &[(0, 0)]).is_ok());
        assert!(admit(&keys, &[(4_000_000_000, 0), (7, 0)]).is_ok());
        for seed in 1..SEEDS_PER_DECLARED_LAYER {
            assert!(admit(&keys, &[(7, seed)]).is_ok());
        }
        assert_eq!(admit(&keys, &[(7, 99)]), Err(Reason::TooManyKeys));
        let more: Vec<_> =
            (0..=SEEDS_PER_DECLARED_LAYER).map(|seed| (4_000_000_000, seed)).collect();
        assert_eq!(admit(&keys, &more), Err(Reason::TooManyKeys));
        assert!(admit(&keys, &more[1..16]).is_ok());
    }

    proptest! {
        #[test]
        fn slots_are_dense_stable_and_distinct(
            batches in proptest::collection::vec(
                proptest::collection::vec((prop_oneof![0..20_u32, 65_530..65_540_u32], 0..3_u32), 0..20),
                0..20,
            )
        ) {
            let keys = Keys::new(1000);
            let mut known = HashMap::new();
            for batch in batches {
                let slots = admit(&keys, &batch).expect("within the bound");
                for (key, slot) in batch.into_iter().zip(slots) {
                    let next = u32::try_from(known.len()).expect("few keys");
                    prop_assert_eq!(*known.entry(key).or_insert(next), slot);
                }
            }
            let mut by_layer: Vec<_> = known.into_iter().collect();
            by_layer.sort_unstable();
            let slots: Vec<_> = by_layer.into_iter().map(|(_, slot)| slot).collect();
            prop_assert_eq!(keys.slots_by_layer(), slots);
        }
    }
}
