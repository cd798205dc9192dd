//! How long a backend takes to answer: a peak-EWMA, which jumps to what is slower at once and forgets it with time
//! (Finagle's "peak EWMA"; the decay with time is what lets a backend come back that was slow once).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// After so long a sample counts for 1/e, in milliseconds.
const TAU: f64 = 10_000.0;
/// What is expected of one that nothing is known of, in nanoseconds, once somebody tries it: others do better to wait for
/// what comes of that.
const UNKNOWN: f64 = 100e6;
/// The least that is expected, in nanoseconds: clocks tell no less.
const LEAST: f64 = 1_000.0;
/// Failures make of a penalty at most this many.
const WORST: f64 = 20.0;

/// An estimate and when it was made, in one word, so that any thread may write it.
#[derive(Debug, Default)]
pub struct Estimate {
    /// High 32 bits: nanoseconds as `f32`; low: the millisecond it was made, wrapping. 0: nothing is known.
    word: AtomicU64,
}

impl Estimate {
    /// Takes note of a time to the first byte, in nanoseconds. Two threads at once: one of them is lost, which costs little.
    /// `now` is in milliseconds.
    pub fn sample(&self, nanoseconds: f64, now: u64) {
        let sample = nanoseconds.max(LEAST);
        let old = self.at(now);
        let new = match old {
            Some((held, _)) if sample >= held => sample,
            // Below: as far towards the sample as the time since the last one goes, and at least a little.
            Some((held, age)) => {
                let keep = (-(age.max(1.0)) / TAU).exp();
                sample + (held - sample) * keep
            }
            None => sample,
        };
        self.word.store(u64::from((new as f32).to_bits()) << 32 | (now & 0xffff_ffff), Relaxed);
    }

    /// Takes note of a failure: never as fast as an answer. It counts as half as much again as what was expected, at least
    /// `penalty` nanoseconds, and at most [`WORST`] of them: without an end, where all servers fail now and then, those that
    /// failed last would be left idle for a minute and crowd the others.
    pub fn failure(&self, penalty: f64, now: u64) {
        let held = self.at(now).map_or(0.0, |(held, _)| held);
        self.sample(held.max(penalty).max((held * 1.5).min(penalty * WORST)), now);
    }

    /// What is expected now, in nanoseconds: it falls with the time since the last sample. One that nothing is known of is
    /// tried before all others, by one at a time, as `active` tells: however fast those are, it has its chance, and however
    /// slow it is, few find out.
    pub fn expected(&self, active: u32, now: u64) -> f64 {
        match self.at(now) {
            Some((held, age)) => (held * (-age / TAU).exp()).max(LEAST),
            None if active == 0 => 0.0,
            None => UNKNOWN,
        }
    }

    /// True when nothing was ever heard.
    pub fn is_unknown(&self) -> bool {
        self.word.load(Relaxed) == 0
    }

    /// What is held, in nanoseconds, and how old that is, in milliseconds: for another process, whose clock is another one.
    pub fn memory(&self, now: u64) -> Option<(f64, u64)> {
        self.at(now).map(|(held, age)| (held, age as u64))
    }

    /// Goes on from what another process knew.
    pub fn recall(&self, (held, age): (f64, u64), now: u64) {
        let made = (now as u32).wrapping_sub(age.min(u64::from(u32::MAX / 2)) as u32);
        self.word.store(u64::from((held.max(LEAST) as f32).to_bits()) << 32 | u64::from(made), Relaxed);
    }

    fn at(&self, now: u64) -> Option<(f64, f64)> {
        let word = self.word.load(Relaxed);
        if word == 0 {
            return None;
        }
        let held = f64::from(f32::from_bits((word >> 32) as u32));
        // A sample of another thread may be from a moment later.
        let age = (now as u32).wrapping_sub(word as u32) as i32;
        Some((held, f64::from(age.max(0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_expects_the_same() {
        let (old, new) = (Estimate::default(), Estimate::default());
        assert_eq!(old.memory(5), None);
        old.sample(80_000_000.0, 100_000);
        // The other's clock has only just begun.
        new.recall(old.memory(104_000).unwrap(), 3);
        for later in [0, 1_000, 20_000] {
            let (old, new) = (old.expected(0, 104_000 + later), new.expected(0, 3 + later));
            assert!((old - new).abs() < 1.0, "{old} and {new} after {later} ms");
        }
    }
}
