//! Sums over signals from which aggregates follow, and which signals can be taken out of again.

use crate::record::Record;
use crate::table::{
    FIELDS, MEASURED, MEASUREMENTS, NONFINITE_ACTIVATION, NONFINITE_GRADIENT, NONFINITE_WEIGHT,
    READY_FOR_TRANSITION,
};

/// A sum is made anew once it is this much smaller than a value that was taken out of it: the
/// rounding that such a value has left behind stays below a ten-millionth of the sum.
const LOSS: f64 = (1 << 20) as f64;

/// Times are centred anew once their mean is `sqrt(FAR)` deviations away from the origin, which
/// leaves the same precision.
const FAR: f64 = (1 << 24) as f64;

/// What aggregates need of one signal: a cache line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) timestamp: f64,
    pub(crate) measurements: [f32; MEASURED],
    error_count: u32,
    active_seeds: u16,
    total_seeds: u16,
    pub(crate) flags: u32,
    /// Whether nothing was left unmeasured.
    pub(crate) complete: bool,
}

impl From<&Record> for Sample {
    #[inline]
    fn from(record: &Record) -> Self {
        Self {
            timestamp: record.timestamp,
            measurements: record.measurements(),
            error_count: record.error_count,
            active_seeds: record.active_seeds,
            total_seeds: record.total_seeds,
            flags: record.flags,
            complete: !has_nan(&record.measurements()),
        }
    }
}

/// Whether any value is NaN: then its magnitude, as bits, is above that of an infinity, and the
/// difference has its highest bit set. Unlike comparing floats, this is done four at a time.
#[inline]
fn has_nan(values: &[f32; MEASURED]) -> bool {
    let magnitude = |value: &f32| value.to_bits() & (u32::MAX >> 1);
    let above = |value| f32::INFINITY.to_bits().wrapping_sub(magnitude(value));
    values.iter().fold(0, |any, value| any | above(value)) > u32::MAX >> 1
}

impl Sample {
    /// The measurements, with zero where there is none.
    #[inline]
    fn values(&self) -> [f32; MEASURED] {
        if self.complete {
            return self.measurements;
        }
        self.measurements.map(|value| if value.is_nan() { 0.0 } else { value })
    }
}

/// Sums of whole numbers, which are exact.
///
/// Laid out so that what every signal changes comes first.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Counts {
    pub(crate) signals: u32,
    /// Signals that measured everything.
    pub(crate) complete: u32,
    pub(crate) errors: u64,
    pub(crate) active_seeds: u64,
    pub(crate) total_seeds: u64,
    /// For each measurement, how many of the other signals have it.
    measured: [u32; MEASURED],
    pub(crate) ready: u32,
    pub(crate) nonfinite: [u32; 3],
}

impl Counts {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "otherwise a sample goes through memory")]
    pub(crate) fn add(&mut self, sample: &Sample) {
        self.count(sample, 1);
        self.errors += u64::from(sample.error_count);
        self.active_seeds += u64::from(sample.active_seeds);
        self.total_seeds += u64::from(sample.total_seeds);
    }

    /// Takes out a signal that was added before.
    #[inline]
    pub(crate) fn remove(&mut self, sample: &Sample) {
        self.count(sample, 1_u32.wrapping_neg());
        self.errors -= u64::from(sample.error_count);
        self.active_seeds -= u64::from(sample.active_seeds);
        self.total_seeds -= u64::from(sample.total_seeds);
    }

    /// Counts a signal once, or, with the `one` that wraps around, once less.
    #[inline]
    fn count(&mut self, sample: &Sample, one: u32) {
        self.signals = self.signals.wrapping_add(one);
        self.complete = self.complete.wrapping_add(if sample.complete { one } else { 0 });
        if !sample.complete || sample.flags != 0 {
            self.count_exceptions(*sample, one);
        }
    }

    #[cold]
    #[allow(clippy::needless_pass_by_value, reason = "a reference would keep it out of registers")]
    fn count_exceptions(&mut self, sample: Sample, one: u32) {
        let add = |count: &mut u32, when: bool| {
            *count = count.wrapping_add(if when { one } else { 0 });
        };
        for (count, value) in self.measured.iter_mut().zip(sample.measurements) {
            add(count, !sample.complete && !value.is_nan());
        }
        add(&mut self.ready, sample.flags & READY_FOR_TRANSITION != 0);
        let flags = [NONFINITE_ACTIVATION, NONFINITE_GRADIENT, NONFINITE_WEIGHT];
        for (count, flag) in self.nonfinite.iter_mut().zip(flags) {
            add(count, sample.flags & flag != 0);
        }
    }

    /// How many signals have this measurement.
    #[inline]
    pub(crate) const fn of(&self, measurement: usize) -> u32 {
        self.complete + self.measured[measurement]
    }
}

/// Sums of measurements, and of health over time.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Moments {
    pub(crate) sums: [f64; MEASURED],
    pub(crate) health: Regression,
}

impl Moments {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "otherwise a sample goes through memory")]
    pub(crate) fn add(&mut self, sample: &Sample) {
        for (sum, value) in self.sums.iter_mut().zip(sample.values()) {
            *sum += f64::from(value);
        }
        self.health.add(sample.timestamp, sample.measurements[0]);
    }

    /// Takes out a signal that was added before. Returns whether the sums are still precise;
    /// otherwise they have to be made anew from the signals that remain.
    #[inline]
    #[must_use]
    pub(crate) fn remove(&mut self, sample: &Sample, removed: &mut Removed) -> bool {
        let values = sample.values();
        for (removed, value) in removed.values.iter_mut().zip(values) {
            *removed = if value > *removed { value } else { *removed };
        }
        let mut lost = false;
        for at in 0..MEASURED {
            self.sums[at] -= f64::from(values[at]);
            lost |= f64::from(removed.values[at]) > LOSS * (self.sums[at] + SMALL[at]);
        }
        let precise =
            self.health.remove(sample.timestamp, sample.measurements[0], &mut removed.time_square);
        precise && !lost
    }
}

/// The largest values that were taken out of sums, whose rounding is still in them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Removed {
    values: [f32; MEASURED],
    time_square: f64,
}

/// What is negligible in the sum of each measurement. Where the range is bounded everything is:
/// the error is far below the resolution of float32, and what is near zero may be so because values
/// have either sign.
const SMALL: [f64; MEASURED] = {
    let mut small = [0.0; MEASURED];
    let mut at = 0;
    while at < MEASURED {
        if FIELDS[MEASUREMENTS[at] as usize].high <= 1.0 {
            small[at] = f64::INFINITY;
        }
        at += 1;
    }
    small
};

/// Sums for the least squares of health over time, taken from the time of the first signal on so
/// that timestamps since 1970 cost no precision.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Regression {
    origin: f64,
    count: u32,
    times: f64,
    healths: f64,
    time_squares: f64,
    health_squares: f64,
    products: f64,
}

impl Regression {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "otherwise a sample goes through memory")]
    fn add(&mut self, timestamp: f64, health: f32) {
        if health.is_nan() {
            return;
        }
        if self.count == 0 {
            self.origin = timestamp;
        }
        let (time, health) = (timestamp - self.origin, f64::from(health));
        self.count += 1;
        self.times += time;
        self.healths += health;
        self.time_squares += time * time;
        self.health_squares += health * health;
        self.products += time * health;
    }

    #[inline]
    fn remove(&mut self, timestamp: f64, health: f32, removed: &mut f64) -> bool {
        if health.is_nan() {
            return true;
        }
        let (time, health) = (timestamp - self.origin, f64::from(health));
        self.count -= 1;
        self.times -= time;
        self.healths -= health;
        self.time_squares -= time * time;
        self.health_squares -= health * health;
        self.products -= time * health;
        *removed = if time * time > *removed { time * time } else { *removed };
        let count = f64::from(self.count);
        let centred = count * self.time_squares - self.times * self.times;
        count * (self.time_squares + *removed) <= FAR * centred
    }

    /// The moments about the means.
    #[inline]
    fn centred(&self) -> Centred {
        let count = f64::from(self.count);
        if self.count == 0 {
            return Centred::default();
        }
        let (time, health) = (self.times / count, self.healths / count);
        Centred {
            count,
            origin: self.origin,
            time,
            health,
            time_squares: self.time_squares - self.times * time,
            health_squares: self.health_squares - self.healths * health,
            products: self.products - self.times * health,
        }
    }
}

/// Means, and sums of squares and products about them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Centred {
    count: f64,
    origin: f64,
    time: f64,
    health: f64,
    time_squares: f64,
    health_squares: f64,
    products: f64,
}

impl Centred {
    /// Those of two sets together (Chan, Golub and `LeVeque`, COMPSTAT 1982).
    #[inline]
    pub(crate) fn of(older: &Regression, newer: &Regression) -> Self {
        let (older, newer) = (older.centred(), newer.centred());
        if newer.count == 0.0 {
            return older;
        }
        if older.count == 0.0 {
            return newer;
        }
        let count = older.count + newer.count;
        let time = (newer.origin - older.origin) + (newer.time - older.time);
        let health = newer.health - older.health;
        let weight = older.count * newer.count / count;
        Self {
            count,
            time_squares: older.time_squares + newer.time_squares + weight * time * time,
            health_squares: older.health_squares + newer.health_squares + weight * health * health,
            products: older.products + newer.products + weight * time * health,
            ..older
        }
    }

    /// Change of health per second; NaN without two measurements at different times.
    #[inline]
    pub(crate) fn slope(&self) -> f64 {
        if self.time_squares > 0.0 { self.products / self.time_squares } else { f64::NAN }
    }

    /// NaN without two measurements.
    #[inline]
    pub(crate) fn stability(&self) -> f64 {
        if self.count < 2.0 {
            return f64::NAN;
        }
        (1.0 - 2.0 * (self.health_squares.max(0.0) / self.count).sqrt()).clamp(0.0, 1.0)
    }
}

/// The earliest and the latest time of some signals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) earliest: f64,
    pub(crate) latest: f64,
}

impl Default for Extent {
    /// That of no signal.
    fn default() -> Self {
        Self { earliest: f64::INFINITY, latest: f64::NEG_INFINITY }
    }
}

impl Extent {
    /// Widens the extent to one more time, which is never NaN.
    #[inline]
    pub(crate) fn include(&mut self, timestamp: f64) {
        if timestamp < self.earliest {
            self.earliest = timestamp;
        }
        if timestamp > self.latest {
            self.latest = timestamp;
        }
    }

    /// The extent of both together.
    #[inline]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            earliest: if other.earliest < self.earliest { other.earliest } else { self.earliest },
            latest: if other.latest > self.latest { other.latest } else { self.latest },
        }
    }

    /// Seconds between the two.
    #[inline]
    pub(crate) fn span(self) -> f64 {
        self.latest - self.earliest
    }
}
