//! The aggregates of one layer over its last signals, in constant time per signal.
//!
//! The window slides over laps of a ring. The sums over its older part, what is left of the lap
//! before, only ever lose signals; those over its newer part, the lap that is being written, only
//! gain some. At the end of a lap the newer sums become the older ones, so that what rounding
//! leaves behind never lasts longer than a lap; where it would show before that, the older sums
//! are made anew from what is left of the lap.

use std::mem;

use crate::moments::{Counts, Extent, Moments, Removed, Sample};
use crate::record::Record;
use crate::summary::{Latest, Start, Summary, summarise};

/// The last signals of one layer, and the sums over them.
#[derive(Debug, Default)]
pub(crate) struct SlidingWindow {
    latest: Latest,
    start: Start,
    counts: Counts,
    older: Part,
    newer: Part,
    /// Since the older sums were made.
    removed: Removed,
    samples: Vec<Sample>,
    /// Where the next sample goes; from there on lie the older ones.
    at: usize,
    /// For every place of the lap before where the earliest and the latest from there on lie, unless
    /// its times were in order.
    tails: Vec<(u16, u16)>,
}

/// Most signals of a window.
pub(crate) const MAX_WINDOW: usize = u16::MAX as usize;

/// One part of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    moments: Moments,
    extent: Extent,
    out_of_order: bool,
}

impl SlidingWindow {
    /// Adds a signal; forgets the oldest of more than `window`.
    #[inline]
    pub(crate) fn push(&mut self, record: &Record, window: usize) {
        let sample = Sample::from(record);
        self.latest.replace(record, &sample);
        self.start.add(record.activation_variance);
        self.counts.add(&sample);
        self.newer.add(&sample);
        if self.samples.len() < window {
            self.grow(window);
            self.samples.push(sample);
        } else {
            let oldest = mem::replace(&mut self.samples[self.at], sample);
            self.forget(&oldest);
        }
        self.at += 1;
        if self.at == window {
            self.turn();
        }
    }

    #[inline]
    fn forget(&mut self, oldest: &Sample) {
        self.counts.remove(oldest);
        let left = &self.samples[self.at + 1..];
        if !self.older.moments.remove(oldest, &mut self.removed) {
            self.removed = Removed::default();
            self.older.moments = Moments::default();
            for sample in left {
                self.older.moments.add(sample);
            }
        }
        self.older.extent = match (left, self.tails.get(self.at + 1)) {
            ([], _) => Extent::default(),
            (_, Some((earliest, latest))) => Extent {
                earliest: self.samples[usize::from(*earliest)].timestamp,
                latest: self.samples[usize::from(*latest)].timestamp,
            },
            ([first, ..], None) => {
                Extent { earliest: first.timestamp, latest: self.older.extent.latest }
            }
        };
    }

    /// Doubles, but never past the window: there may be very many layers.
    #[inline]
    fn grow(&mut self, window: usize) {
        let length = self.samples.len();
        if length == self.samples.capacity() {
            self.samples.reserve_exact(length.max(4).min(window - length));
        }
    }

    /// Starts the next lap.
    #[cold]
    fn turn(&mut self) {
        self.at = 0;
        self.older = mem::take(&mut self.newer);
        self.removed = Removed::default();
        self.tails.clear();
        if self.older.out_of_order {
            self.tails.extend(tails(&self.samples));
            self.tails.reverse();
        }
    }

    /// The aggregates, if there has been a signal.
    #[inline]
    pub(crate) fn summary(&self) -> Option<Summary> {
        if self.counts.signals == 0 {
            return None;
        }
        let (older, newer) = (&self.older, &self.newer);
        let span = older.extent.and(newer.extent).span();
        let moments = [&older.moments, &newer.moments];
        Some(summarise(&self.latest, &self.counts, moments, span, &self.start))
    }
}

/// Where the earliest and the latest of the samples lie from the last place on, from the last but
/// one, and so on.
fn tails(samples: &[Sample]) -> impl Iterator<Item = (u16, u16)> {
    let time = |at: u16| samples[usize::from(at)].timestamp;
    let places = (0..u16::MAX).take(samples.len()).rev();
    places.scan(None, move |tail, at| {
        let (earliest, latest) = tail.unwrap_or((at, at));
        *tail = Some((
            if time(at) < time(earliest) { at } else { earliest },
            if time(at) > time(latest) { at } else { latest },
        ));
        *tail
    })
}

impl Part {
    #[inline]
    fn add(&mut self, sample: &Sample) {
        self.moments.add(sample);
        self.out_of_order |= sample.timestamp < self.extent.latest;
        self.extent.include(sample.timestamp);
    }
}
