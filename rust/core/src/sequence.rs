//! Which part of a producer's sequence has been seen, and how much of it is lost.

/// Gaps that are remembered, so that late batches can fill them. What lies in older ones stays
/// lost.
const MAX_GAPS: usize = 64;

/// The sequence of one incarnation, from its first signal on, which has index 0.
#[derive(Debug, Default)]
pub struct Sequence {
    end: u64,
    lost: u64,
    /// Half-open ranges that have not been seen, ascending.
    gaps: Vec<(u64, u64)>,
}

impl Sequence {
    /// Signals that are known to have been sent.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.end
    }

    /// Signals that were sent but never seen.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Marks `n` signals from index `seq` on as seen; returns how many of them are new.
    pub fn claim(&mut self, seq: u64, n: u64) -> u64 {
        let end = seq + n;
        let mut fresh = self.fill(seq, end);
        if end > self.end {
            if seq > self.end {
                self.gaps.push((self.end, seq));
                self.lost += seq - self.end;
            }
            fresh += end - seq.max(self.end);
            self.end = end;
        }
        if self.gaps.len() > MAX_GAPS {
            self.gaps.drain(..self.gaps.len() - MAX_GAPS);
        }
        fresh
    }

    fn fill(&mut self, seq: u64, end: u64) -> u64 {
        let overlap = |&(from, to): &(u64, u64)| to.min(end).saturating_sub(from.max(seq));
        let filled = self.gaps.iter().map(overlap).sum();
        if filled > 0 {
            let remains = |&(from, to): &(u64, u64)| [(from, to.min(seq)), (from.max(end), to)];
            self.gaps = self
                .gaps
                .iter()
                .flat_map(|gap| if overlap(gap) == 0 { vec![*gap] } else { remains(gap).to_vec() })
                .filter(|(from, to)| from < to)
                .collect();
            self.lost -= filled;
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_late_batch_fills_the_middle_of_a_gap() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.claim(10, 5), 5);
        assert_eq!((sequence.sent(), sequence.lost()), (15, 10));
        assert_eq!(sequence.claim(4, 2), 2);
        assert_eq!(sequence.claim(4, 2), 0);
        assert_eq!((sequence.sent(), sequence.lost()), (15, 8));
        assert_eq!(sequence.claim(0, 20), 8 + 5);
        assert_eq!((sequence.sent(), sequence.lost()), (20, 0));
    }

    #[test]
    fn forgotten_gaps_stay_lost() {
        let mut sequence = Sequence::default();
        for batch in 0..1000 {
            sequence.claim(2 * batch + 1, 1);
        }
        assert_eq!((sequence.sent(), sequence.lost()), (2000, 1000));
        assert_eq!(sequence.claim(0, 2000), MAX_GAPS as u64);
        assert_eq!(sequence.lost(), 1000 - MAX_GAPS as u64);
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_indices(
            batches in proptest::collection::vec((0..60_u64, 0..8_u64), 0..50)
        ) {
            let mut sequence = Sequence::default();
            let mut seen = BTreeSet::new();
            let mut sent = 0;
            for (seq, n) in batches {
                let fresh = (seq..seq + n).filter(|index| seen.insert(*index)).count() as u64;
                sent = sent.max(seq + n);
                prop_assert_eq!(sequence.claim(seq, n), fresh);
                prop_assert_eq!(sequence.sent(), sent);
                prop_assert_eq!(sequence.lost(), sent - seen.len() as u64);
            }
        }
    }
}
