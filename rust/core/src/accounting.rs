//! Where every signal went, per producer and exactly.
//!
//! `sent = held + drained + refused + thinned + overwritten + lost` at any moment, whatever else
//! runs: what arrives is booked under the producer's lock in one piece, and what leaves the lanes
//! afterwards is taken out of the kept signals to give those still held.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::refusal::{Reason, Refusal};
use crate::sequence::Sequence;
use crate::sharded::lock;

/// Incarnations of producers that one collector tells apart.
pub const MAX_PRODUCERS: usize = 4096;

const REASONS: usize = Reason::ALL.len();

/// Counts by reason, indexed by the reason's discriminant.
pub type ByReason = [u64; REASONS];

/// Signals that left the lanes, per producer. Written without locks.
#[derive(Debug)]
pub struct Tallies {
    overwritten: Box<[AtomicU64]>,
    drained: Box<[AtomicU64]>,
}

impl Default for Tallies {
    fn default() -> Self {
        let zeros = || (0..MAX_PRODUCERS).map(|_| AtomicU64::new(0)).collect();
        Self { overwritten: zeros(), drained: zeros() }
    }
}

impl Tallies {
    /// Counts signals that newer ones displaced.
    #[inline]
    pub fn overwritten(&self, producer: u32, count: u64) {
        // Released after the signals were booked as kept, so that a reader who sees them leave has
        // seen them arrive.
        self.overwritten[producer as usize].fetch_add(count, Ordering::AcqRel);
    }

    /// Counts signals that a reader removed.
    #[inline]
    pub fn drained(&self, producer: u32, count: u64) {
        self.drained[producer as usize].fetch_add(count, Ordering::AcqRel);
    }
}

/// What has arrived from one incarnation of a producer.
#[derive(Debug, Default)]
pub struct Ledger {
    sequence: Sequence,
    refused: ByReason,
    thinned: u64,
    kept: u64,
    duplicated: u64,
}

impl Ledger {
    /// Books `n` signals from index `seq` on as seen, and those seen before as duplicated.
    ///
    /// Returns how many are new. The caller books what becomes of them.
    pub fn claim(&mut self, seq: u64, n: u64) -> u64 {
        let fresh = self.sequence.claim(seq, n);
        self.duplicated += n - fresh;
        fresh
    }

    /// Books new signals as refused.
    pub fn refuse(&mut self, reason: Reason, fresh: u64) {
        self.refused[reason as usize] += fresh;
    }

    /// Books new signals as accepted. Must happen before the first of them can leave a lane.
    pub fn accept(&mut self, kept: u64, thinned: u64) {
        self.kept += kept;
        self.thinned += thinned;
    }
}

/// One incarnation of a producer.
#[derive(Debug)]
pub struct Producer {
    /// Its index in the tallies.
    pub slot: u32,
    /// What has arrived from it.
    pub ledger: Mutex<Ledger>,
    incarnation: u64,
    name: String,
}

/// Where the signals of one producer went, or those of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Known to have been sent.
    pub sent: u64,
    /// In the lanes.
    pub held: u64,
    /// Removed by a reader.
    pub drained: u64,
    /// Refused, by reason.
    pub refused: ByReason,
    /// Accepted, but not worth keeping one by one.
    pub thinned: u64,
    /// Displaced by newer ones before anybody removed them.
    pub overwritten: u64,
    /// Sent, but never seen.
    pub lost: u64,
    /// Seen once more. Outside the sum.
    pub duplicated: u64,
}

impl Account {
    /// Adds another account to this one.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.held += other.held;
        self.drained += other.drained;
        self.thinned += other.thinned;
        self.overwritten += other.overwritten;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        for (sum, count) in self.refused.iter_mut().zip(other.refused) {
            *sum += count;
        }
    }
}

/// All books of a collector.
#[derive(Debug, Default)]
pub struct Accounting {
    /// What left the lanes.
    pub tallies: Tallies,
    producers: RwLock<Producers>,
    unreadable: Mutex<ByReason>,
}

#[derive(Debug, Default)]
struct Producers {
    by_name: HashMap<String, HashMap<u64, Arc<Producer>>>,
    in_order: Vec<Arc<Producer>>,
}

impl Producers {
    fn find(&self, name: &str, incarnation: u64) -> Option<Arc<Producer>> {
        self.by_name.get(name)?.get(&incarnation).map(Arc::clone)
    }
}

impl Accounting {
    /// The books of a producer, opened if it is new.
    ///
    /// # Errors
    /// [`Reason::TooManyProducers`].
    pub fn producer(&self, name: &str, incarnation: u64) -> Result<Arc<Producer>, Refusal> {
        let known = self.producers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = known.find(name, incarnation) {
            return Ok(producer);
        }
        drop(known);
        let mut producers = self.producers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = producers.find(name, incarnation) {
            return Ok(producer);
        }
        let too_many = Refusal::from(Reason::TooManyProducers).in_field("producer");
        let slot = producers.in_order.len();
        if slot == MAX_PRODUCERS {
            return Err(too_many);
        }
        let producer = Arc::new(Producer {
            slot: u32::try_from(slot).map_err(|_| too_many)?,
            ledger: Mutex::default(),
            incarnation,
            name: name.to_owned(),
        });
        producers.in_order.push(Arc::clone(&producer));
        let incarnations = producers.by_name.entry(name.to_owned()).or_default();
        incarnations.insert(incarnation, Arc::clone(&producer));
        Ok(producer)
    }

    /// Counts a message that belongs to no producer of this run.
    pub fn unreadable(&self, reason: Reason) {
        lock(&self.unreadable)[reason as usize] += 1;
    }

    /// Messages that belong to no producer of this run, by reason.
    #[must_use]
    pub fn unreadable_by_reason(&self) -> ByReason {
        *lock(&self.unreadable)
    }

    /// One account per producer, named `name/incarnation`, in the order of their first messages.
    #[must_use]
    pub fn accounts(&self) -> Vec<(String, Account)> {
        let producers = self.producers.read().unwrap_or_else(PoisonError::into_inner);
        let named = |producer: &Arc<Producer>| {
            (format!("{}/{}", producer.name, producer.incarnation), self.account(producer))
        };
        producers.in_order.iter().map(named).collect()
    }

    fn account(&self, producer: &Producer) -> Account {
        // Before the ledger: what has left by now had been booked as kept even earlier.
        let slot = producer.slot as usize;
        let drained = self.tallies.drained[slot].load(Ordering::Acquire);
        let overwritten = self.tallies.overwritten[slot].load(Ordering::Acquire);
        let ledger = lock(&producer.ledger);
        Account {
            sent: ledger.sequence.sent(),
            held: ledger.kept - drained - overwritten,
            drained,
            refused: ledger.refused,
            thinned: ledger.thinned,
            overwritten,
            lost: ledger.sequence.lost(),
            duplicated: ledger.duplicated,
        }
    }
}
