//! A circuit breaker: after so many failures in a row nobody is sent to a backend for a while, then one at a time tries it.
//!
//! Closed: everybody passes, failures in a row are counted. Open: nobody passes until the time is over. Half open: one
//! trial at a time; enough good ones close it, a bad one opens it again. (Nygard, "Release It!", 2007.)

use crate::base::time::Tick;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// When a breaker moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// Good trials in a row that close it; at least 1.
    pub successes: u32,
    /// How long it stays open.
    pub timeout: Duration,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everybody passes.
    Closed,
    /// Nobody passes.
    Open,
    /// One at a time passes.
    HalfOpen,
}

/// What is known of a breaker, in a form that another process understands, whose clock is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerMemory {
    /// Where it stands.
    pub state: BreakerState,
    /// Closed: failures in a row. Half open: good trials in a row.
    pub count: u32,
    /// Open: for how many more milliseconds.
    pub left: u64,
}

/// How it went for one who passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend did its work.
    Success,
    /// It did not.
    Failure,
    /// Nothing was learnt: the client left, or we had a shortage.
    Nothing,
}

/// Leave to pass a breaker; whoever has it tells the outcome, or no other trial is let through.
#[derive(Debug)]
#[must_use = "a trial that nobody reports bars the way for all others"]
pub struct Pass {
    trial: bool,
}

impl Pass {
    /// True for one who tries a backend behind a half open breaker: nobody else is let through before it reports.
    pub fn is_trial(&self) -> bool {
        self.trial
    }
}

/// The breaker of one backend. One word, moved by compare-and-swap, so that any thread may ask and report.
#[derive(Debug, Default)]
pub struct Breaker {
    word: AtomicU64,
}

/// The word: state in the high 2 bits, then a trial bit, 21 bits of count, 40 bits of time.
#[derive(Clone, Copy)]
struct Word {
    state: BreakerState,
    trial: bool,
    count: u32,
    until: u64,
}

const COUNT: u64 = (1 << 21) - 1;
const TIME: u64 = (1 << 40) - 1;

impl Word {
    fn of(word: u64) -> Word {
        let state = match word >> 62 {
            0 => BreakerState::Closed,
            1 => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        };
        Word { state, trial: word >> 61 & 1 == 1, count: (word >> 40 & COUNT) as u32, until: word & TIME }
    }

    fn pack(self) -> u64 {
        let state = match self.state {
            BreakerState::Closed => 0,
            BreakerState::Open => 1,
            BreakerState::HalfOpen => 2,
        };
        state << 62 | u64::from(self.trial) << 61 | (u64::from(self.count).min(COUNT)) << 40 | self.until.min(TIME)
    }
}

const CLOSED: Word = Word { state: BreakerState::Closed, trial: false, count: 0, until: 0 };

impl Breaker {
    /// Where it stands. An open one whose time is over is told as half open: the next one may try.
    pub fn state(&self, now: Tick) -> BreakerState {
        let word = Word::of(self.word.load(Relaxed));
        match word.state {
            BreakerState::Open if now.0 >= word.until => BreakerState::HalfOpen,
            state => state,
        }
    }

    /// True when [`Breaker::enter`] would let somebody pass now.
    #[inline]
    pub fn admits(&self, now: Tick) -> bool {
        let word = self.word.load(Relaxed);
        // Closed, the common case: no bit of a state is set.
        if word >> 62 == 0 {
            return true;
        }
        let word = Word::of(word);
        match word.state {
            BreakerState::Closed => true,
            BreakerState::Open => now.0 >= word.until,
            BreakerState::HalfOpen => !word.trial,
        }
    }

    /// Leave to pass, or none.
    #[inline]
    pub fn enter(&self, now: Tick) -> Option<Pass> {
        let seen = self.word.load(Relaxed);
        let word = Word::of(seen);
        let trial = match word.state {
            BreakerState::Closed => return Some(Pass { trial: false }),
            BreakerState::Open if now.0 >= word.until => {
                Word { state: BreakerState::HalfOpen, trial: true, count: 0, until: 0 }
            }
            BreakerState::HalfOpen if !word.trial => Word { trial: true, ..word },
            _ => return None,
        };
        // Of several who come at once, one tries.
        self.word.compare_exchange(seen, trial.pack(), Relaxed, Relaxed).ok()?;
        Some(Pass { trial: true })
    }

    /// Takes note of how it went; the new state when that has changed.
    pub fn report(&self, pass: Pass, outcome: Outcome, rules: BreakerRules, now: Tick) -> Option<BreakerState> {
        let seen = self.word.load(Relaxed);
        if seen == 0 && outcome != Outcome::Failure {
            return None;
        }
        let mut seen = seen;
        loop {
            let old = Word::of(seen);
            let new = self.next(old, pass.trial, outcome, rules, now)?;
            match self.word.compare_exchange(seen, new.pack(), Relaxed, Relaxed) {
                Ok(_) => return (new.state != old.state).then_some(new.state),
                Err(now_there) => seen = now_there,
            }
        }
    }

    /// The same of one who has no pass any more, and was no trial: while it is closed, that counts.
    pub fn tell(&self, outcome: Outcome, rules: BreakerRules, now: Tick) -> Option<BreakerState> {
        self.report(Pass { trial: false }, outcome, rules, now)
    }

    /// What another process needs to go on from here; `None` while nothing has failed.
    pub fn memory(&self, now: Tick) -> Option<BreakerMemory> {
        let Word { state, count, until, .. } = Word::of(self.word.load(Relaxed));
        let left = if state == BreakerState::Open { until.saturating_sub(now.0) } else { 0 };
        (state != BreakerState::Closed || count > 0).then_some(BreakerMemory { state, count, left })
    }

    /// Goes on from what another process knew. For one that nobody has asked yet.
    pub fn recall(&self, memory: BreakerMemory, now: Tick) {
        let BreakerMemory { state, count, left } = memory;
        let until = if state == BreakerState::Open { now.0.saturating_add(left) } else { 0 };
        self.word.store(Word { state, trial: false, count, until }.pack(), Relaxed);
    }

    /// What follows; `None` when nothing does.
    fn next(&self, old: Word, trial: bool, outcome: Outcome, rules: BreakerRules, now: Tick) -> Option<Word> {
        let opened = Word { state: BreakerState::Open, trial: false, count: 0, until: now.after(rules.timeout).0 };
        match (old.state, trial, outcome) {
            (BreakerState::Closed, _, Outcome::Success) => (old.count > 0).then_some(CLOSED),
            (BreakerState::Closed, _, Outcome::Failure) => {
                let count = old.count + 1;
                Some(if count >= rules.failures { opened } else { Word { count, ..old } })
            }
            (BreakerState::HalfOpen, true, Outcome::Success) => {
                let count = old.count + 1;
                Some(if count >= rules.successes { CLOSED } else { Word { count, trial: false, ..old } })
            }
            (BreakerState::HalfOpen, true, Outcome::Failure) => Some(opened),
            (BreakerState::HalfOpen, true, Outcome::Nothing) => Some(Word { trial: false, ..old }),
            // One who passed before it opened tells of the past.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: BreakerRules = BreakerRules { failures: 3, successes: 2, timeout: Duration::from_millis(99) };

    #[test]
    fn another_process_goes_on_from_where_it_stood() {
        use BreakerState::{Closed, HalfOpen, Open};
        let open = BreakerMemory { state: Open, count: 0, left: 60 };
        let rows = [
            ("closed: its failures in a row count", BreakerMemory { state: Closed, count: 2, left: 0 }, 0, Open),
            ("open: for as long as is left", open, 59, Open),
            ("open: and no longer", open, 60, HalfOpen),
            ("half open", BreakerMemory { state: HalfOpen, count: 1, left: 0 }, 0, HalfOpen),
        ];
        for (why, memory, after, expected) in rows {
            let breaker = Breaker::default();
            breaker.recall(memory, Tick(1_000));
            assert_eq!(breaker.memory(Tick(1_000)), Some(memory), "{why}");
            if memory.state == Closed {
                one(&breaker, 1_000, Outcome::Failure);
            }
            assert_eq!(breaker.state(Tick(1_000 + after)), expected, "{why}");
        }
        let half = Breaker::default();
        half.recall(BreakerMemory { state: HalfOpen, count: 1, left: 0 }, Tick(9));
        assert_eq!(one(&half, 9, Outcome::Success), Some(Closed), "one good trial was missing, and may be made");
        assert_eq!(Breaker::default().memory(Tick(5)), None);
    }

    /// One who passes at `now`, if let through, and how it goes.
    fn one(breaker: &Breaker, now: u64, outcome: Outcome) -> Option<BreakerState> {
        let pass = breaker.enter(Tick(now));
        pass.map(|pass| {
            breaker.report(pass, outcome, RULES, Tick(now));
            breaker.state(Tick(now))
        })
    }

    #[test]
    fn a_breaker_walks_its_states() {
        use BreakerState::{Closed, HalfOpen, Open};
        use Outcome::{Failure, Nothing, Success};
        let rows = [
            ("a failure", 0, Failure, Some(Closed)),
            ("another", 0, Failure, Some(Closed)),
            ("a success forgets them", 0, Success, Some(Closed)),
            ("so three more are needed", 0, Failure, Some(Closed)),
            ("two", 0, Failure, Some(Closed)),
            ("what says nothing is none", 0, Nothing, Some(Closed)),
            ("three", 0, Failure, Some(Open)),
            ("nobody passes", 50, Success, None),
            ("nor at the last moment", 99, Success, None),
            ("the time is over: a trial, and it is good", 100, Success, Some(HalfOpen)),
            ("a trial that says nothing is tried again", 100, Nothing, Some(HalfOpen)),
            ("a bad one opens it again", 100, Failure, Some(Open)),
            ("for the whole time", 199, Success, None),
            ("one good trial", 200, Success, Some(HalfOpen)),
            ("two close it", 200, Success, Some(Closed)),
            ("with nothing left of the past", 200, Failure, Some(Closed)),
        ];
        let breaker = Breaker::default();
        for (why, now, outcome, expected) in rows {
            assert_eq!(one(&breaker, now, outcome), expected, "{why}");
        }
    }

    #[test]
    fn one_trial_at_a_time() {
        let breaker = Breaker::default();
        let before = breaker.enter(Tick(0)).unwrap();
        for _ in 0..3 {
            one(&breaker, 0, Outcome::Failure);
        }
        let trial = breaker.enter(Tick(100)).unwrap();
        assert!(!breaker.admits(Tick(100)) && breaker.enter(Tick(100)).is_none(), "a second one waits");
        assert_eq!(breaker.report(before, Outcome::Failure, RULES, Tick(100)), None, "it tells of the past");
        assert!(breaker.enter(Tick(100)).is_none(), "and frees no trial");
        assert_eq!(breaker.report(trial, Outcome::Success, RULES, Tick(100)), None);
        assert!(breaker.admits(Tick(100)));
    }

    #[test]
    fn of_many_threads_one_tries() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            one(&breaker, 0, Outcome::Failure);
        }
        let passed = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| breaker.enter(Tick(500)).is_some())).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|passed| *passed).count()
        });
        assert_eq!(passed, 1);
    }
}
