//! State per slot (a key, a layer), spread over locks so that producers rarely meet.
//!
//! Locks are only ever taken by threads that do not hold the GIL.

use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// Neighbouring slots that share a lock, so that reading all in order takes few of them.
const NEIGHBOURS: usize = 4;

/// The shard of a slot, and its place there.
#[inline]
const fn place(slot: u32) -> (usize, usize) {
    let (group, member) = (slot as usize / NEIGHBOURS, slot as usize % NEIGHBOURS);
    (group % SHARDS, group / SHARDS * NEIGHBOURS + member)
}

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
            starts[place(*slot).0 + 1] += 1;
        }
        for shard in 0..SHARDS {
            starts[shard + 1] += starts[shard];
        }
        let mut next = starts;
        let mut order = vec![0; slots.len()];
        for (position, slot) in slots.iter().enumerate() {
            let next = &mut next[place(*slot).0];
            order[*next] = position;
            *next += 1;
        }
        let mut visit_shard = |shard: usize, states: &mut Vec<T>| {
            for &position in &order[starts[shard]..starts[shard + 1]] {
                let (_, at) = place(slots[position]);
                if at >= states.len() {
                    states.resize_with(at + 1, T::default);
                }
                visit(position, &mut states[at]);
            }
        };
        let mut busy = Vec::new();
        for shard in (0..SHARDS).filter(|shard| starts[*shard] < starts[*shard + 1]) {
            match self.shards[shard].try_lock() {
                Ok(mut states) => visit_shard(shard, &mut states),
                Err(_) => busy.push(shard),
            }
        }
        // What another producer was at is waited for last, when it has probably moved on.
        for shard in busy {
            visit_shard(shard, &mut lock(&self.shards[shard]));
        }
    }

    /// Visits the states of `slots` that exist, in that order and one lock at a time.
    pub(crate) fn read(&self, slots: &[u32], mut visit: impl FnMut(&T)) {
        for neighbours in slots.chunk_by(|one, other| place(*one).0 == place(*other).0) {
            let states = lock(&self.shards[place(neighbours[0]).0]);
            let states = neighbours.iter().filter_map(|slot| states.get(place(*slot).1));
            states.for_each(&mut visit);
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
                sharded.read(&[slot], |seen| assert_eq!(*seen, expected));
            }
        }
    }
}
