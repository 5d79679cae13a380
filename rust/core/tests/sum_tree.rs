//! The sum tree against a naive one that adds up a list.
#![allow(missing_docs, clippy::cast_precision_loss, clippy::cast_possible_wrap)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![allow(clippy::float_cmp, reason = "what is compared is equal bit for bit, or it is a mistake")]

use proptest::collection::vec;
use proptest::prelude::*;
use tamiyo_core::sum_tree::{SumTree, SumTreeError};

fn built_from(leaves: &[f64]) -> SumTree {
    let mut tree = SumTree::new(leaves.len()).expect("not empty");
    let indices: Vec<i64> = (0..leaves.len() as i64).collect();
    tree.set(&indices, leaves).expect("valid");
    tree
}

/// Which leaf lies at `mass` on a line on which they lie one after the other.
fn naive_find(leaves: &[f64], mass: f64) -> usize {
    let mut end = 0.0;
    for (leaf, priority) in leaves.iter().enumerate() {
        end += priority;
        if mass < end {
            return leaf;
        }
    }
    leaves.iter().rposition(|priority| *priority > 0.0).expect("not empty")
}

fn assert_equal(tree: &SumTree, leaves: &[f64]) {
    let fresh = built_from(leaves);
    assert_eq!(tree.leaves(), leaves);
    assert_eq!(tree.total().to_bits(), fresh.total().to_bits());
    let total: f64 = leaves.iter().sum();
    assert!((tree.total() - total).abs() <= 1e-12 * total);
    let positive = leaves.iter().copied().filter(|leaf| *leaf > 0.0);
    assert_eq!(tree.least_positive(), positive.fold(f64::INFINITY, f64::min));
    assert_eq!(tree.largest(), leaves.iter().copied().fold(0.0, f64::max));
}

/// Small whole numbers, of which every sum is exact, or magnitudes of any kind.
fn priority(exact: bool) -> BoxedStrategy<f64> {
    if exact {
        (0..20_u32).prop_map(f64::from).boxed()
    } else {
        prop_oneof![2 => Just(0.0), 3 => 0.0..1.0, 1 => (-300..=300).prop_map(|e| 10_f64.powi(e))]
            .boxed()
    }
}

type Changes = Vec<Vec<(usize, f64)>>;

fn changes(exact: bool) -> impl Strategy<Value = (usize, Changes)> {
    let capacity = prop_oneof![1..20_usize, 60..70_usize, 500..600_usize];
    capacity.prop_flat_map(move |capacity| {
        (Just(capacity), vec(vec((0..capacity, priority(exact)), 0..40), 0..20))
    })
}

fn applied(capacity: usize, changes: &Changes) -> (SumTree, Vec<f64>) {
    let mut tree = SumTree::new(capacity).expect("not empty");
    let mut leaves = vec![0.0; capacity];
    for batch in changes {
        let (indices, priorities): (Vec<_>, Vec<_>) = batch.iter().copied().unzip();
        let indices: Vec<i64> = indices.into_iter().map(|index| index as i64).collect();
        tree.set(&indices, &priorities).expect("valid");
        for (index, priority) in batch {
            leaves[*index] = *priority;
        }
    }
    (tree, leaves)
}

proptest! {
    #[test]
    fn after_any_changes_it_is_the_tree_of_its_leaves((capacity, changes) in changes(false)) {
        let (tree, leaves) = applied(capacity, &changes);
        assert_equal(&tree, &leaves);
        let all: Vec<i64> = (0..capacity as i64).collect();
        prop_assert_eq!(tree.get(&all).expect("in range"), leaves);
    }

    #[test]
    fn draws_are_those_of_the_list(
        (capacity, changes) in changes(true),
        uniforms in vec((0..1024_u32).prop_map(|n| f64::from(n) / 1024.0), 1..64),
    ) {
        let (tree, leaves) = applied(capacity, &changes);
        let total: f64 = leaves.iter().sum();
        let drawn = tree.sample(&uniforms);
        if total == 0.0 {
            prop_assert_eq!(drawn, Err(SumTreeError::Empty));
            return Ok(());
        }
        let (drawn, priorities) = drawn.expect("not empty");
        let share = total / uniforms.len() as f64;
        for (stratum, uniform) in uniforms.iter().enumerate() {
            let expected = naive_find(&leaves, (stratum as f64 + uniform) * share);
            prop_assert_eq!(drawn[stratum], expected as i64);
            prop_assert_eq!(priorities[stratum], leaves[expected]);
        }
    }

    #[test]
    fn a_leaf_of_priority_zero_is_never_drawn(
        (capacity, changes) in changes(false),
        uniforms in vec(prop_oneof![Just(0.0), Just(1.0_f64.next_down()), 0.0..1.0], 1..64),
    ) {
        let (tree, _) = applied(capacity, &changes);
        if let Ok((_, priorities)) = tree.sample(&uniforms) {
            prop_assert!(priorities.iter().all(|priority| *priority > 0.0));
        } else {
            prop_assert_eq!(tree.total(), 0.0);
        }
    }

    #[test]
    fn what_is_refused_changes_nothing(
        (capacity, changes) in changes(false),
        bad in prop_oneof![
            Just(f64::NAN), Just(-1.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::MAX)
        ],
        beyond in prop_oneof![Just(-1_i64), Just(i64::MAX), Just(600_i64)],
    ) {
        let (mut tree, leaves) = applied(capacity, &changes);
        let refused = tree.set(&[0, 0], &[1.0, bad]).expect_err("a bad priority");
        let is_priority = matches!(refused, SumTreeError::Priority { .. });
        prop_assert!(is_priority);
        let refused = tree.set(&[0, beyond], &[1.0, 1.0]);
        prop_assert_eq!(refused, Err(SumTreeError::Index { index: beyond, capacity }));
        prop_assert!(tree.set(&[0], &[]).is_err());
        prop_assert!(tree.get(&[beyond]).is_err());
        prop_assert!(tree.sample(&[1.0]).is_err());
        prop_assert!(tree.sample(&[f64::NAN]).is_err());
        assert_equal(&tree, &leaves);
    }
}

/// A linear congruential generator (Knuth's MMIX): the same numbers everywhere.
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 11) as f64 / (1_u64 << 53) as f64
}

#[test]
fn the_root_is_the_sum_of_the_leaves_after_a_million_updates() {
    let (capacity, mut state) = (50_000, 1);
    let mut tree = SumTree::new(capacity).expect("not empty");
    for _ in 0..=1_000_000 / 64 {
        let indices: Vec<i64> =
            (0..64).map(|_| (random(&mut state) * capacity as f64) as i64).collect();
        // Over six decades, so that differences added up would have lost something by now.
        let priorities: Vec<f64> =
            (0..64).map(|_| 10_f64.powf(6.0 * random(&mut state) - 3.0)).collect();
        tree.set(&indices, &priorities).expect("valid");
    }
    let leaves = tree.leaves().to_vec();
    assert_equal(&tree, &leaves);
}

#[test]
fn draws_follow_the_priorities() {
    // χ² of 100 leaves, 99 degrees of freedom: above 148.2 in one of a thousand cases.
    let (mut state, count) = (7, 400_000);
    let leaves: Vec<f64> = (0..100).map(|leaf| f64::from(leaf % 10)).collect();
    let tree = built_from(&leaves);
    let mut drawn_times = [0_u32; 100];
    for _ in 0..count {
        // One at a time: strata would only make the counts more even.
        let (drawn, _) = tree.sample(&[random(&mut state)]).expect("not empty");
        drawn_times[drawn[0] as usize] += 1;
    }
    let mut chi_square = 0.0;
    for (leaf, times) in leaves.iter().zip(drawn_times) {
        let expected = f64::from(count) * leaf / tree.total();
        if *leaf == 0.0 {
            assert_eq!(times, 0);
        } else {
            chi_square += (f64::from(times) - expected).powi(2) / expected;
        }
    }
    assert!(chi_square < 148.2, "{chi_square}");
}

#[test]
fn every_share_of_the_total_gives_one_draw() {
    let tree = built_from(&[1.0; 64]);
    let (drawn, _) = tree.sample(&[0.5; 64]).expect("not empty");
    assert_eq!(drawn, (0..64).collect::<Vec<i64>>());
    assert_eq!(tree.sample(&[]), Ok((vec![], vec![])));
}

#[test]
fn a_tree_without_leaves_is_refused() {
    assert_eq!(SumTree::new(0).expect_err("no leaves"), SumTreeError::Capacity);
}
