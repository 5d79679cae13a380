//! Bytes in, columns out: the parts of the core, composed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use crate::accounting::{Account, Accounting, ByReason, Producer};
use crate::columns::Columns;
use crate::decode::decode;
use crate::envelope::{Envelope, Header, open};
use crate::filter::{Filter, FilterConfig};
use crate::lanes::{Lanes, MIN_CAPACITY};
use crate::layers::Layers;
use crate::priority::{URGENT, priority};
use crate::record::Record;
use crate::refusal::{Reason, Refusal};
use crate::sharded::lock;
use crate::sliding::MAX_WINDOW;
use crate::summary::SummaryColumns;

/// Refused messages that are kept for debugging.
const SAMPLES: usize = 64;

/// Bytes that are kept of each.
const SAMPLE_BYTES: usize = 256;

/// Bounds of a collector.
#[derive(Clone, Copy, Debug)]
pub struct IngestConfig {
    /// Signals that are held at most, in both lanes together.
    pub capacity: usize,
    /// Signals per layer that aggregates are taken over, at most 65,535.
    pub window: usize,
    /// Longest message.
    pub max_message_bytes: usize,
    /// The filter's settings.
    pub filter: FilterConfig,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            capacity: 50_000,
            window: 100,
            max_message_bytes: 4 << 20,
            filter: FilterConfig::default(),
        }
    }
}

/// A collector for the signals of one run. Any number of threads may use it at a time.
#[derive(Debug)]
pub struct Ingest {
    run: OnceLock<String>,
    max_message_bytes: usize,
    accounting: Accounting,
    filter: Filter,
    layers: Layers,
    lanes: Lanes,
    samples: Mutex<VecDeque<(String, Vec<u8>)>>,
    scratch: Mutex<Vec<Vec<Record>>>,
}

impl Ingest {
    /// A collector for `run`, or for the run of the first message that is accepted.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn new(run: Option<String>, config: IngestConfig) -> Result<Self, &'static str> {
        if config.capacity < MIN_CAPACITY {
            return Err("capacity must be at least 2: there are two lanes");
        }
        if !(1..=MAX_WINDOW).contains(&config.window) {
            return Err("window must be from 1 to 65,535");
        }
        Ok(Self {
            run: run.map(OnceLock::from).unwrap_or_default(),
            max_message_bytes: config.max_message_bytes,
            accounting: Accounting::default(),
            filter: Filter::new(config.filter)?,
            layers: Layers::new(config.window, config.filter.max_keys),
            lanes: Lanes::new(config.capacity),
            samples: Mutex::default(),
            scratch: Mutex::default(),
        })
    }

    /// The run whose signals are accepted, once there is one.
    #[must_use]
    pub fn run(&self) -> Option<&str> {
        self.run.get().map(String::as_str)
    }

    /// Binds to `run` unless bound already; returns whether `run` is the one accepted.
    pub fn adopt(&self, run: &str) -> bool {
        self.run.get_or_init(|| run.to_owned()) == run
    }

    /// Admits these layers whatever the bound on keys.
    pub fn declare(&self, layers: &[u32]) {
        // The windows first: a layer that the filter admits must find room there.
        self.layers.declare(layers);
        self.filter.declare(layers);
    }

    /// Takes messages; returns how many signals were accepted, kept or thinned.
    pub fn ingest<'a>(&self, messages: impl IntoIterator<Item = &'a [u8]>) -> usize {
        // Memory that is used again and again stays in the cache. There is as much of it as there
        // have been threads here at a time.
        let mut records = lock(&self.scratch).pop().unwrap_or_default();
        let mut take = |message| {
            self.take(message, &mut records).unwrap_or_else(|refusal| {
                self.sample(refusal, message);
                0
            })
        };
        let accepted = messages.into_iter().map(&mut take).sum();
        lock(&self.scratch).push(records);
        accepted
    }

    fn take(&self, message: &[u8], records: &mut Vec<Record>) -> Result<usize, Refusal> {
        let identified = self.identify(message, records);
        let (producer, header, decoded) = identified.inspect_err(|refusal| {
            self.accounting.unreadable(refusal.reason);
        })?;
        let mut ledger = lock(&producer.ledger);
        let fresh = ledger.claim(header.seq, header.n as u64);
        if fresh == 0 && header.n > 0 {
            return Ok(0);
        }
        let judged = decoded.and_then(|()| {
            if fresh < header.n as u64 {
                return Err(Reason::Overlap.into());
            }
            let verdicts = self.filter.judge(records)?;
            self.layers.push(records)?;
            Ok(verdicts)
        });
        let verdicts = judged.inspect_err(|refusal| {
            ledger.refuse(refusal.reason, fresh);
        })?;
        let kept = verdicts.iter().filter(|verdict| verdict.keep).count();
        ledger.accept(kept as u64, fresh - kept as u64);
        let judged = records.iter().zip(verdicts).filter(|(_, verdict)| verdict.keep);
        let signals =
            judged.map(|(record, verdict)| (record, priority(record, verdict.anomalous) > URGENT));
        self.lanes.push(producer.slot, kept, signals, &self.accounting.tallies);
        Ok(records.len())
    }

    /// Finds out whose message this is, and decodes it. What fails here belongs to nobody: to
    /// believe the sequence numbers of another run would upset the books of this one.
    fn identify<'a>(
        &self,
        message: &'a [u8],
        records: &mut Vec<Record>,
    ) -> Result<Identified<'a>, Refusal> {
        if message.len() > self.max_message_bytes {
            return Err(Reason::TooLarge.into());
        }
        let Envelope { header, body } = open(message)?;
        let foreign = Refusal::from(Reason::ForeignRun).in_field("run");
        if self.run().is_some_and(|run| run != header.run) {
            return Err(foreign);
        }
        let decoded = body.and_then(|body| decode(&header, body, records));
        if decoded.is_ok() && !self.adopt(header.run) {
            return Err(foreign);
        }
        let producer = self.accounting.producer(header.producer, header.incarnation)?;
        Ok((producer, header, decoded))
    }

    fn sample(&self, refusal: Refusal, message: &[u8]) {
        let start = &message[..message.len().min(SAMPLE_BYTES)];
        let mut samples = lock(&self.samples);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((refusal.to_string(), start.to_vec()));
    }

    /// The newest `count` signals of both lanes in time order, without removing them. Urgent ones
    /// come first when there are more than `count`.
    #[must_use]
    pub fn recent(&self, count: usize) -> Columns {
        self.lanes.recent(count, &self.accounting.tallies)
    }

    /// The newest `count` signals of one layer, likewise.
    #[must_use]
    pub fn for_layer(&self, layer: u32, count: usize) -> Columns {
        self.lanes.for_layer(layer, count, &self.accounting.tallies)
    }

    /// Removes and returns up to `count` signals, urgent ones first, then oldest first.
    #[must_use]
    pub fn drain(&self, count: usize) -> Columns {
        let mut columns = Columns::default();
        self.lanes.drain(count, &mut columns, &self.accounting.tallies);
        columns
    }

    /// Per-layer aggregates over the window of every valid signal.
    #[must_use]
    pub fn layers(&self) -> SummaryColumns {
        self.layers.snapshot()
    }

    /// Where the signals of each producer went.
    #[must_use]
    pub fn accounts(&self) -> Vec<(String, Account)> {
        self.lanes.collect(&self.accounting.tallies);
        self.accounting.accounts()
    }

    /// Messages that belong to no producer of this run, by reason.
    #[must_use]
    pub fn unreadable(&self) -> ByReason {
        self.accounting.unreadable_by_reason()
    }

    /// The latest refused messages: the reason and their first bytes.
    #[must_use]
    pub fn refusals(&self) -> Vec<(String, Vec<u8>)> {
        lock(&self.samples).iter().cloned().collect()
    }
}

/// A message of this run: from whom, what it says of itself, and whether it could be decoded.
type Identified<'a> = (Arc<Producer>, Header<'a>, Result<(), Refusal>);
