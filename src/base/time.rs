//! Time as the workers count it: whole milliseconds since the process started.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment: milliseconds since [`Clock::start`]. The tick of every deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// A moment that never comes.
    pub const NEVER: Tick = Tick(u64::MAX);

    /// The first tick that is at least `wait` after this one: a deadline may come late, never early.
    pub fn after(self, wait: Duration) -> Tick {
        let whole = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let rest = u64::from(!wait.subsec_nanos().is_multiple_of(1_000_000));
        // One more, since this tick may be nearly over already.
        Tick(self.0.saturating_add(whole).saturating_add(rest).saturating_add(1))
    }

    /// How long from `earlier` to this one; zero when it lies before.
    pub fn since(self, earlier: Tick) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The one clock of a process. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// A clock that started so long ago, or now where that lies before all time: for one who goes on from what began earlier.
    pub fn started(ago: Duration) -> Clock {
        let now = Instant::now();
        Clock { start: now.checked_sub(ago).unwrap_or(now) }
    }

    /// The tick it is.
    pub fn now(&self) -> Tick {
        Tick(self.start.elapsed().as_millis() as u64)
    }
}

/// Nanoseconds since this was first asked for: to measure with, where a tick is too coarse. Reads the clock.
#[inline]
pub fn nanos() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_comes_late_never_early() {
        let cases = [
            ("nothing still waits for the next tick", Duration::ZERO, 11),
            ("whole milliseconds", Duration::from_millis(5), 16),
            ("a part is rounded up", Duration::from_micros(1), 12),
            ("beyond the end of time is never", Duration::MAX, u64::MAX),
        ];
        for (why, wait, expected) in cases {
            assert_eq!(Tick(10).after(wait), Tick(expected), "{why}");
        }
    }
}
