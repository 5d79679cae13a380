//! Priorities in a sum tree: draws leaves in proportion to what they hold, and changes many at once.
//!
//! Schaul et al. 2016 (arXiv:1511.05952), appendix B.2.1, with eight children to a node instead of
//! two: one cache line a level, and a third of the levels. A node is always computed from its
//! children and never by adding a difference, so rounding does not build up: after any number of
//! changes the tree equals, bit for bit, one that was built from its leaves.

use std::fmt;

const FANOUT: usize = 8;

type Group = [f64; FANOUT];

/// A fixed number of leaves, each with a finite priority of at least 0, all 0 at the start.
#[derive(Clone, Debug)]
pub struct SumTree {
    capacity: usize,
    /// The leaves, then the sums of every group of the level before, to a level of one group.
    sums: Vec<Vec<Group>>,
    /// Smallest positive leaf below each node of `sums[1..]`; infinite where there is none.
    least: Vec<Vec<Group>>,
    /// Largest leaf below each node of `sums[1..]`.
    most: Vec<Vec<Group>>,
    /// Groups with changed nodes, kept to save allocating it again.
    changed: Vec<usize>,
}

/// Why a call was refused. Nothing was changed then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SumTreeError {
    /// A tree needs at least one leaf.
    Capacity,
    /// As many priorities as indices are needed.
    Length {
        /// Number of indices.
        indices: usize,
        /// Number of priorities.
        priorities: usize,
    },
    /// A leaf that does not exist.
    Index {
        /// The offending index.
        index: i64,
        /// Number of leaves.
        capacity: usize,
    },
    /// NaN, negative, infinite, or so large that a sum could overflow.
    Priority {
        /// The offending priority.
        value: f64,
    },
    /// A number outside [0, 1).
    Uniform {
        /// The offending number.
        value: f64,
    },
    /// Every leaf is 0: there is nothing to draw.
    Empty,
}

impl fmt::Display for SumTreeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity => write!(formatter, "capacity must be at least 1"),
            Self::Length { indices, priorities } => {
                write!(formatter, "{indices} indices, but {priorities} priorities")
            }
            Self::Index { index, capacity } => {
                write!(formatter, "index {index} is outside 0..{capacity}")
            }
            Self::Priority { value } => {
                write!(formatter, "a priority must be finite and at least 0, not {value}")
            }
            Self::Uniform { value } => {
                write!(formatter, "a uniform number must be in [0, 1), not {value}")
            }
            Self::Empty => write!(formatter, "nothing to sample: every priority is 0"),
        }
    }
}

impl std::error::Error for SumTreeError {}

impl SumTree {
    /// A tree with so many leaves.
    ///
    /// # Errors
    /// `Capacity`.
    pub fn new(capacity: usize) -> Result<Self, SumTreeError> {
        if capacity == 0 {
            return Err(SumTreeError::Capacity);
        }
        let mut sums = vec![vec![Group::default(); capacity.div_ceil(FANOUT)]];
        let (mut least, mut most) = (Vec::new(), Vec::new());
        while let Some(below) = sums.last().map(Vec::len).filter(|groups| *groups > 1) {
            let groups = below.div_ceil(FANOUT);
            sums.push(vec![Group::default(); groups]);
            least.push(vec![[f64::INFINITY; FANOUT]; groups]);
            most.push(vec![Group::default(); groups]);
        }
        Ok(Self { capacity, sums, least, most, changed: Vec::new() })
    }

    /// Number of leaves.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sum of the leaves, the root.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.sums.last().map_or(0.0, |top| sum(&top[0]))
    }

    /// Smallest leaf above 0; infinite where there is none.
    #[must_use]
    pub fn least_positive(&self) -> f64 {
        self.least.last().map_or_else(|| least_positive(&self.sums[0][0]), |top| least(&top[0]))
    }

    /// Largest leaf.
    #[must_use]
    pub fn largest(&self) -> f64 {
        most(self.most.last().map_or_else(|| &self.sums[0][0], |top| &top[0]))
    }

    /// Every priority, by index.
    #[must_use]
    pub fn leaves(&self) -> &[f64] {
        &self.sums[0].as_flattened()[..self.capacity]
    }

    /// The priorities of these leaves.
    ///
    /// # Errors
    /// `Index`.
    pub fn get(&self, indices: &[i64]) -> Result<Vec<f64>, SumTreeError> {
        let leaves = self.leaves();
        indices.iter().map(|index| Ok(leaves[self.leaf(*index)?])).collect()
    }

    /// Changes these leaves, in O(k log n); of an index that comes twice the last one counts.
    ///
    /// # Errors
    /// `Length`, `Index` or `Priority`.
    pub fn set(&mut self, indices: &[i64], priorities: &[f64]) -> Result<(), SumTreeError> {
        if indices.len() != priorities.len() {
            let (indices, priorities) = (indices.len(), priorities.len());
            return Err(SumTreeError::Length { indices, priorities });
        }
        let limit = self.limit();
        if let Some(value) = priorities.iter().find(|value| !(0.0..=limit).contains(*value)) {
            return Err(SumTreeError::Priority { value: *value });
        }
        self.changed.clear();
        for index in indices {
            let leaf = self.leaf(*index)?;
            self.changed.push(leaf);
        }
        for (leaf, priority) in self.changed.iter_mut().zip(priorities) {
            self.sums[0][*leaf / FANOUT][*leaf % FANOUT] = *priority;
            *leaf /= FANOUT;
        }
        self.refresh();
        Ok(())
    }

    /// Draws a leaf for every uniform number, stratified: of k numbers the i-th draws from the i-th
    /// of k equal shares of the total. A leaf of priority 0 is never drawn.
    ///
    /// Returns the leaves and their priorities.
    ///
    /// # Errors
    /// `Uniform`, or `Empty` unless nothing is asked for.
    pub fn sample(&self, uniforms: &[f64]) -> Result<(Vec<i64>, Vec<f64>), SumTreeError> {
        if let Some(value) = uniforms.iter().find(|value| !(0.0..1.0).contains(*value)) {
            return Err(SumTreeError::Uniform { value: *value });
        }
        let total = self.total();
        if total <= 0.0 && !uniforms.is_empty() {
            return Err(SumTreeError::Empty);
        }
        let share = total / float(uniforms.len());
        let mut masses: Vec<f64> = uniforms
            .iter()
            .enumerate()
            .map(|(stratum, uniform)| (float(stratum) + uniform) * share)
            .collect();
        let mut nodes = vec![0; masses.len()];
        // Level by level: what one draw waits for from memory, the others do not.
        for level in self.sums.iter().rev() {
            for (node, mass) in nodes.iter_mut().zip(&mut masses) {
                let (child, rest) = descend(&level[*node], *mass);
                *node = *node * FANOUT + child;
                *mass = rest;
            }
        }
        let leaves = self.leaves();
        let priorities = nodes.iter().map(|leaf| leaves[*leaf]).collect();
        Ok((nodes.into_iter().map(index).collect(), priorities))
    }

    fn leaf(&self, index: i64) -> Result<usize, SumTreeError> {
        usize::try_from(index)
            .ok()
            .filter(|leaf| *leaf < self.capacity)
            .ok_or(SumTreeError::Index { index, capacity: self.capacity })
    }

    /// Largest priority of which as many as there are leaves still have a finite sum.
    fn limit(&self) -> f64 {
        f64::MAX / (2.0 * float(self.capacity))
    }

    /// Recomputes everything above the groups of leaves in `changed`.
    fn refresh(&mut self) {
        // Groups with the same parent next to each other: it is then computed once for all of them.
        self.changed.sort_unstable();
        for level in 1..self.sums.len() {
            self.changed.dedup();
            let (below, above) = self.sums.split_at_mut(level);
            let (least_below, least_above) = self.least.split_at_mut(level - 1);
            let (most_below, most_above) = self.most.split_at_mut(level - 1);
            for group in &mut self.changed {
                let (parent, child) = (*group / FANOUT, *group % FANOUT);
                let children = &below[level - 1][*group];
                above[0][parent][child] = sum(children);
                least_above[0][parent][child] = match least_below.last() {
                    Some(nodes) => least(&nodes[*group]),
                    None => least_positive(children),
                };
                most_above[0][parent][child] =
                    most(most_below.last().map_or(children, |nodes| &nodes[*group]));
                *group = parent;
            }
        }
    }
}

/// In pairs, so that the additions do not wait for each other.
fn sum(group: &Group) -> f64 {
    let pairs =
        [group[0] + group[4], group[1] + group[5], group[2] + group[6], group[3] + group[7]];
    (pairs[0] + pairs[2]) + (pairs[1] + pairs[3])
}

fn least(group: &Group) -> f64 {
    group.iter().fold(f64::INFINITY, |least, value| if *value < least { *value } else { least })
}

fn most(group: &Group) -> f64 {
    group.iter().fold(0.0, |most, value| if *value > most { *value } else { most })
}

fn least_positive(group: &Group) -> f64 {
    least(&group.map(|value| if value > 0.0 { value } else { f64::INFINITY }))
}

/// The child in whose part of the line from 0 to the sum of all `mass` lies, and how far into it.
fn descend(children: &Group, mass: f64) -> (usize, f64) {
    let mut ends = *children;
    for child in 1..FANOUT {
        ends[child] += ends[child - 1];
    }
    let mut child = ends.iter().filter(|end| **end <= mass).count();
    if child == FANOUT {
        // Rounding put it at the end of the line or beyond: the last child that is not empty.
        child = children.iter().rposition(|value| *value > 0.0).unwrap_or(0);
    }
    (child, if child == 0 { mass } else { mass - ends[child - 1] })
}

#[allow(clippy::cast_possible_wrap, reason = "no vector has 2^63 elements")]
const fn index(leaf: usize) -> i64 {
    leaf as i64
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
const fn float(count: usize) -> f64 {
    count as f64
}
