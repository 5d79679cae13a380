//! The buffer: two bounded lanes of kept signals, urgent ones apart, the oldest overwritten.
//!
//! Producers push into lock-free rings and never wait. The rings are lock-free because a Python
//! thread must never wait on a lock while it holds the GIL, not because that is faster than a mutex
//! (it is not). What goes through a ring is a chunk of a batch, because a place in a ring costs as
//! much as copying several signals. Readers move the chunks into windows that only they own, behind
//! a lock that no producer takes, trim each window to its lane's capacity, and read there.

use std::collections::VecDeque;
use std::mem::replace;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
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

/// Most signals of a chunk.
const CHUNK: usize = 64;

/// A kept signal.
#[derive(Clone, Copy, Debug)]
struct Held {
    record: Record,
    /// Position among all signals that were kept, the order between lanes and within a tie.
    arrival: u64,
}

/// Signals of one batch, oldest first.
#[derive(Debug)]
struct Chunk {
    producer: u32,
    held: Vec<Held>,
    /// So many of the oldest have left.
    left: usize,
}

impl Chunk {
    fn held(&self) -> &[Held] {
        &self.held[self.left..]
    }
}

/// The half of a lane that producers write.
#[derive(Debug)]
struct Ring {
    chunks: ArrayQueue<Chunk>,
    /// Signals in `chunks`, and for a moment those of a chunk on its way there.
    signals: AtomicUsize,
    /// Signals that the lane holds.
    capacity: usize,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self { chunks: ArrayQueue::new(capacity), signals: AtomicUsize::new(0), capacity }
    }

    /// Adds a chunk, and counts the oldest as overwritten while the lane is full without them.
    fn push(&self, producer: u32, held: Vec<Held>, tallies: &Tallies) {
        self.signals.fetch_add(held.len(), Relaxed);
        let lose = |chunk: &Chunk| {
            self.signals.fetch_sub(chunk.held.len(), Relaxed);
            tallies.overwritten(chunk.producer, chunk.held.len() as u64);
        };
        if let Some(oldest) = self.chunks.force_push(Chunk { producer, held, left: 0 }) {
            lose(&oldest);
        }
        // A chunk on its way is counted, but may not be there to be taken.
        while self.signals.load(Relaxed) >= self.capacity + CHUNK
            && let Some(oldest) = self.chunks.pop()
        {
            lose(&oldest);
        }
    }

    /// Takes the oldest chunk.
    fn pop(&self) -> Option<Chunk> {
        self.chunks.pop().inspect(|chunk| {
            self.signals.fetch_sub(chunk.held.len(), Relaxed);
        })
    }
}

/// The half of a lane that readers own.
#[derive(Debug, Default)]
struct Window {
    chunks: VecDeque<Chunk>,
    signals: usize,
}

impl Window {
    /// Moves in what is in a ring. Takes no more than the ring holds, so that producers cannot keep
    /// a reader here.
    fn collect(&mut self, ring: &Ring, tallies: &Tallies) {
        for _ in 0..ring.chunks.capacity() {
            let Some(chunk) = ring.pop() else { break };
            self.signals += chunk.held.len();
            self.chunks.push_back(chunk);
        }
        self.remove(self.signals.saturating_sub(ring.capacity), |producer, held| {
            tallies.overwritten(producer, held.len() as u64);
        });
    }

    /// Removes the `count` oldest signals, or all, and hands over those of each chunk.
    fn remove(&mut self, count: usize, mut each: impl FnMut(u32, &[Held])) {
        let mut count = count.min(self.signals);
        self.signals -= count;
        while count > 0 {
            let Some(chunk) = self.chunks.front_mut() else { break };
            let held = &chunk.held()[..count.min(chunk.held().len())];
            each(chunk.producer, held);
            count -= held.len();
            chunk.left += held.len();
            if chunk.held().is_empty() {
                self.chunks.pop_front();
            }
        }
    }

    fn newest_first(&self) -> impl Iterator<Item = &Held> {
        self.chunks.iter().rev().flat_map(|chunk| chunk.held().iter().rev())
    }
}

/// What readers own.
#[derive(Debug, Default)]
struct Windows {
    urgent: Window,
    normal: Window,
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
        let (mut urgent, mut normal) = (Vec::new(), Vec::with_capacity(count.min(CHUNK)));
        for (at, (record, is_urgent)) in signals.enumerate() {
            let (ring, held) =
                if is_urgent { (&self.urgent, &mut urgent) } else { (&self.normal, &mut normal) };
            held.push(Held { record: *record, arrival: first + at as u64 });
            if held.len() == CHUNK {
                let next = Vec::with_capacity(CHUNK.min(count - at - 1));
                ring.push(producer, replace(held, next), tallies);
            }
        }
        for (ring, held) in [(&self.urgent, urgent), (&self.normal, normal)] {
            if !held.is_empty() {
                ring.push(producer, held, tallies);
            }
        }
    }

    /// Brings the windows up to date, so that no more than the capacity is held.
    pub fn collect(&self, tallies: &Tallies) {
        drop(self.collected(tallies));
    }

    fn collected(&self, tallies: &Tallies) -> MutexGuard<'_, Windows> {
        let mut windows = lock(&self.windows);
        windows.urgent.collect(&self.urgent, tallies);
        windows.normal.collect(&self.normal, tallies);
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
        let urgent = count.min(windows.urgent.signals);
        let normal = (count - urgent).min(windows.normal.signals);
        columns.reserve(urgent + normal);
        let mut append = |producer, held: &[Held]| {
            columns.extend(held, |held| &held.record);
            tallies.drained(producer, held.len() as u64);
        };
        windows.urgent.remove(urgent, &mut append);
        windows.normal.remove(normal, &mut append);
    }
}

fn newest(windows: &Windows, count: usize, wanted: impl Fn(&Record) -> bool) -> Columns {
    let wanted = |held: &&Held| wanted(&held.record);
    let mut chosen: Vec<&Held> = windows.urgent.newest_first().filter(wanted).take(count).collect();
    let room = count - chosen.len();
    chosen.extend(windows.normal.newest_first().filter(wanted).take(room));
    chosen.sort_unstable_by(|one, other| {
        let by_time = one.record.timestamp.total_cmp(&other.record.timestamp);
        by_time.then(one.arrival.cmp(&other.arrival))
    });
    let mut columns = Columns::with_capacity(chosen.len());
    columns.extend(&chosen, |held| &held.record);
    columns
}
