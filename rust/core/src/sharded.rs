//! State per slot (a key, a layer), spread over locks so that producers rarely meet.
//!
//! Locks are only ever taken by threads that do not hold the GIL.

use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// Locks, whether or not a thread has panicked while it held the lock: every state that is kept
/// behind one is valid between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One `T` per slot, created when the slot is first visited.
#[derive(Debug, Default)]
pub(crate) struct Sharded<T> {
    shards: [Mutex<Vec<T>>; SHARDS],
}

impl<T: Default> Sharded<T> {
    /// Visits the state of every slot in `slots`, together with its position there.
    ///
    /// Positions with the same slot are visited in order. Each lock is taken once at most.
    pub(crate) fn visit(&self, slots: &[u32], mut visit: impl FnMut(usize, &mut T)) {
        let mut starts = [0_usize; SHARDS + 1];
        for slot in slots {
            starts[*slot as usize % SHARDS + 1] += 1;
        }
        for shard in 0..SHARDS {
            starts[shard + 1] += starts[shard];
        }
        let mut next = starts;
        let mut order = vec![0; slots.len()];
        for (position, slot) in slots.iter().enumerate() {
            let place = &mut next[*slot as usize % SHARDS];
            order[*place] = position;
            *place += 1;
        }
        for (shard, range) in self.shards.iter().zip(starts.windows(2)) {
            let positions = &order[range[0]..range[1]];
            if positions.is_empty() {
                continue;
            }
            let mut states = lock(shard);
            for &position in positions {
                let at = slots[position] as usize / SHARDS;
                if at >= states.len() {
                    states.resize_with(at + 1, T::default);
                }
                visit(position, &mut states[at]);
            }
        }
    }

    /// Visits every state that exists, one lock at a time.
    pub(crate) fn each(&self, mut visit: impl FnMut(&T)) {
        for shard in &self.shards {
            lock(shard).iter().for_each(&mut visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_slot_sees_its_positions_in_order(slots in proptest::collection::vec(0..100_u32, 0..300)) {
            let sharded = Sharded::<Vec<usize>>::default();
            sharded.visit(&slots, |position, seen| seen.push(position));
            for slot in 0..100 {
                let expected: Vec<_> = (0..slots.len()).filter(|at| slots[*at] == slot).collect();
                sharded.visit(&[slot], |_, seen| assert_eq!(*seen, expected));
            }
        }
    }
}
