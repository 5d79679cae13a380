//! How urgent a signal is, and so which lane it takes.

use crate::record::Record;

/// Above this a signal takes the priority lane.
pub const URGENT: f64 = 0.7;

/// `0.5 + 0.3·[health < 0.5] + 0.4·min(errors/5, 1) + 0.2·[ready] + 0.3·[anomalous]`, at most 1.
#[must_use]
pub fn priority(record: &Record, anomalous: bool) -> f64 {
    let weight = |weight: f64, when: bool| if when { weight } else { 0.0 };
    let score = 0.5
        + weight(0.3, record.health_score < 0.5)
        + 0.4 * (f64::from(record.error_count) / 5.0).min(1.0)
        + weight(0.2, record.is_ready())
        + weight(0.3, anomalous);
    score.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::READY_FOR_TRANSITION;

    fn urgent(health: f32, errors: u32, ready: bool, anomalous: bool) -> bool {
        let mut record = Record::ABSENT;
        record.health_score = health;
        record.error_count = errors;
        record.flags = if ready { READY_FOR_TRANSITION } else { 0 };
        let priority = priority(&record, anomalous);
        assert!((0.5..=1.0).contains(&priority));
        priority > URGENT
    }

    #[test]
    fn the_lane_follows_the_reasons() {
        assert!(!urgent(0.9, 0, false, false));
        assert!(urgent(0.49, 0, false, false));
        assert!(!urgent(0.5, 0, false, false));
        assert!(!urgent(0.9, 2, false, false));
        assert!(urgent(0.9, 3, false, false));
        assert!(!urgent(0.9, 0, true, false), "0.7 is not above 0.7");
        assert!(urgent(0.9, 1, true, false));
        assert!(urgent(0.9, 0, false, true));
        assert!(urgent(0.1, u32::MAX, true, true));
        assert!(!urgent(f32::NAN, 0, false, false), "not measured is not unhealthy");
    }
}
