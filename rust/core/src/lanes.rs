//! The buffer: two bounded lanes of kept signals, urgent ones apart, the oldest overwritten.
//!
//! Producers push into lock-free rings and never wait. The rings are lock-free because a Python
//! thread must never wait on a lock while it holds the GIL, not because that is faster than a mutex
//! (it is not). Readers move what is in the rings into windows that only they own, behind a lock
//! that no producer takes, trim each window to its lane's capacity, and read there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use crossbeam_queue::ArrayQueue;

use crate::accounting::Tallies;
use crate::columns::Columns;
use crate::record::Record;
use crate::sharded::lock;

/// One in so many places of the buffer belongs to the priority lane.
const PRIORITY_SHARE: usize = 5;

/// Fewest places that make two lanes.
pub const MIN_CAPACITY: usize = 2;

/// A kept signal, which remembers whose it is.
#[derive(Clone, Copy, Debug)]
struct Held {
    record: Record,
    producer: u32,
    /// Position among all signals that were kept, the order between lanes and within a tie.
    arrival: u64,
}

/// A lane's ring, which producers write, and its capacity.
type Ring = ArrayQueue<Held>;

/// What readers own: the signals of a lane, oldest first.
#[derive(Debug, Default)]
struct Windows {
    urgent: VecDeque<Held>,
    normal: VecDeque<Held>,
}

/// Both lanes.
#[derive(Debug)]
pub struct Lanes {
    urgent: Ring,
    normal: Ring,
    windows: Mutex<Windows>,
    arrivals: AtomicU64,
}

impl Lanes {
    /// Lanes for `capacity` signals together, at least [`MIN_CAPACITY`].
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(MIN_CAPACITY);
        let urgent = (capacity / PRIORITY_SHARE).max(1);
        Self {
            urgent: Ring::new(urgent),
            normal: Ring::new(capacity - urgent),
            windows: Mutex::default(),
            arrivals: AtomicU64::new(0),
        }
    }

    /// Adds `count` signals of a producer, each with whether it is urgent. What they displace is
    /// counted as overwritten. Never waits.
    pub fn push<'a>(
        &self,
        producer: u32,
        count: usize,
        signals: impl Iterator<Item = (&'a Record, bool)>,
        tallies: &Tallies,
    ) {
        let first = self.arrivals.fetch_add(count as u64, Relaxed);
        // Who lost how many in a row; nearly always one producer for the whole batch.
        let mut displaced = (producer, 0);
        for (arrival, (record, urgent)) in (first..).zip(signals) {
            let lane = if urgent { &self.urgent } else { &self.normal };
            let Some(old) = lane.force_push(Held { record: *record, producer, arrival }) else {
                continue;
            };
            if old.producer != displaced.0 {
                tallies.overwritten(displaced.0, displaced.1);
                displaced = (old.producer, 0);
            }
            displaced.1 += 1;
        }
        tallies.overwritten(displaced.0, displaced.1);
    }

    /// Brings the windows up to date, so that no more than the capacity is held.
    pub fn collect(&self, tallies: &Tallies) {
        drop(self.collected(tallies));
    }

    fn collected(&self, tallies: &Tallies) -> MutexGuard<'_, Windows> {
        let mut windows = lock(&self.windows);
        move_into(&mut windows.urgent, &self.urgent, tallies);
        move_into(&mut windows.normal, &self.normal, tallies);
        windows
    }

    /// The newest `count` signals of both lanes in time order, without removing them. Urgent ones
    /// come first when there are more than `count`.
    pub fn recent(&self, count: usize, tallies: &Tallies) -> Columns {
        let windows = self.collected(tallies);
        newest(&windows, count, |_| true)
    }

    /// The newest `count` signals of one layer, likewise.
    pub fn for_layer(&self, layer: u32, count: usize, tallies: &Tallies) -> Columns {
        let windows = self.collected(tallies);
        newest(&windows, count, |record| record.layer_id == layer)
    }

    /// Removes up to `count` signals, urgent ones first, then oldest first, and appends them to
    /// `columns`.
    pub fn drain(&self, count: usize, columns: &mut Columns, tallies: &Tallies) {
        let mut windows = self.collected(tallies);
        let urgent = count.min(windows.urgent.len());
        let normal = (count - urgent).min(windows.normal.len());
        columns.reserve(urgent + normal);
        let windows = &mut *windows;
        for (lane, count) in [(&mut windows.urgent, urgent), (&mut windows.normal, normal)] {
            let (front, back) = lane.as_slices();
            let split = count.min(front.len());
            for part in [&front[..split], &back[..count - split]] {
                columns.extend(part, |held| &held.record);
                by_producer(part, |producer, count| tallies.drained(producer, count));
            }
            lane.drain(..count);
        }
    }
}

/// Moves what is in a ring into its window. Takes no more than the ring holds, so that producers
/// cannot keep a reader here.
fn move_into(window: &mut VecDeque<Held>, ring: &Ring, tallies: &Tallies) {
    for _ in 0..ring.capacity() {
        let Some(held) = ring.pop() else { break };
        window.push_back(held);
    }
    let surplus = window.len().saturating_sub(ring.capacity());
    for held in window.drain(..surplus) {
        tallies.overwritten(held.producer, 1);
    }
}

/// Counts neighbours of one producer together.
fn by_producer(held: &[Held], mut count: impl FnMut(u32, u64)) {
    for run in held.chunk_by(|one, other| one.producer == other.producer) {
        count(run[0].producer, run.len() as u64);
    }
}

fn newest(windows: &Windows, count: usize, wanted: impl Fn(&Record) -> bool) -> Columns {
    let wanted = |held: &&Held| wanted(&held.record);
    let mut chosen: Vec<&Held> = windows.urgent.iter().rev().filter(wanted).take(count).collect();
    let room = count - chosen.len();
    chosen.extend(windows.normal.iter().rev().filter(wanted).take(room));
    chosen.sort_unstable_by(|one, other| {
        let by_time = one.record.timestamp.total_cmp(&other.record.timestamp);
        by_time.then(one.arrival.cmp(&other.arrival))
    });
    let mut columns = Columns::with_capacity(chosen.len());
    columns.extend(&chosen, |held| &held.record);
    columns
}
