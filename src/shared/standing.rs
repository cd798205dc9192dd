//! How a backend stands, as the admin API tells it.

use crate::base::time::Tick;
use crate::guard::BreakerState;
use crate::probe::Health;
use crate::shared::snapshot::{Backend, Pool};

/// The state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes new work.
    Up,
    /// Its checks have not spoken yet. It takes new work.
    Starting,
    /// Its checks say so, or it failed just now, or it has no address.
    Down,
    /// It was told to take no new work.
    Disabled,
    /// What is open there goes on, and nothing begins: it was told so, or it has left the configuration.
    Draining,
}

impl Standing {
    /// As it is told.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Up => "up",
            Standing::Starting => "starting",
            Standing::Down => "down",
            Standing::Disabled => "disabled",
            Standing::Draining => "draining",
        }
    }
}

impl Backend {
    /// How it stands `now`. The one place that says so.
    pub fn standing(&self, now: Tick) -> Standing {
        if self.disabled {
            Standing::Disabled
        } else if self.draining {
            Standing::Draining
        } else if !self.is_well(now) {
            Standing::Down
        } else if self.checked && self.state.health() == Health::Starting {
            Standing::Starting
        } else {
            Standing::Up
        }
    }

    /// Whether it can be reached, as far as is known: also of one that takes no work.
    pub fn is_well(&self, now: Tick) -> bool {
        !self.addresses.is_empty() && !self.state.is_aside(now) && self.state.health() != Health::Down
    }
}

impl Pool {
    /// Whether new work may come to this backend of the pool, as picking sees it: behind an open breaker it may not, nor
    /// where checks say that it is down, unless so few are up that this is not heeded. One that is full is available.
    pub fn is_available(&self, backend: &Backend, now: Tick) -> bool {
        let takes_work = backend.weight > 0 && !backend.disabled && !backend.draining && !backend.addresses.is_empty();
        let is_up = self.panics || backend.state.health() != Health::Down;
        let is_shut = self.breaker.is_some() && backend.state.breaker.state(now) == BreakerState::Open;
        takes_work && is_up && !is_shut && !backend.state.is_aside(now)
    }

    /// How many of its backends new work may come to.
    pub fn available(&self, now: Tick) -> usize {
        self.backends.iter().filter(|backend| self.is_available(backend, now)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Algorithm;
    use crate::base::ids::BackendSlot;
    use crate::guard::{BreakerRules, Outcome};
    use crate::shared::backend::{BackendState, Lease};
    use std::time::Duration;

    const RULES: BreakerRules = BreakerRules { failures: 1, successes: 1, timeout: Duration::from_millis(99) };

    /// A pool of one backend of which this is known: whether it is disabled, whether it has an address, its weight, and
    /// what checks say if there are any.
    fn pool(disabled: bool, there: bool, weight: u16, health: Option<Health>) -> Pool {
        let backend = Backend {
            id: "b".into(),
            address: "b:1".into(),
            weight,
            disabled,
            draining: false,
            checked: health.is_some(),
            addresses: "127.0.0.1:1".parse().ok().filter(|_| there).into_iter().collect(),
            state: BackendState::new(BackendSlot(0), 1, 0, 1),
        };
        backend.state.set_health(health.unwrap_or(Health::Starting));
        Pool::over(Algorithm::RoundRobin, vec![backend])
    }

    #[test]
    fn a_backend_stands_as_what_is_known_of_it_says() {
        use Health::{Down, Starting, Up};
        // Disabled, has an address, weight, failed just now, what checks say; its state, and whether it is available.
        let rows = [
            ("all is well", false, true, 1, false, Some(Up), "up", true),
            ("it is not checked", false, true, 1, false, None, "up", true),
            ("its check has not spoken: it is tried", false, true, 1, false, Some(Starting), "starting", true),
            ("nor that of one that failed a client", false, true, 1, true, Some(Starting), "down", false),
            ("its check says so", false, true, 1, false, Some(Down), "down", false),
            ("it failed a client", false, true, 1, true, Some(Up), "down", false),
            ("it failed a client and is not checked", false, true, 1, true, None, "down", false),
            ("its name does not resolve", false, false, 1, false, Some(Starting), "down", false),
            ("disabled", true, true, 1, false, None, "disabled", false),
            ("disabled, whatever else", true, false, 1, true, Some(Down), "disabled", false),
            ("weight 0 is up, and takes nothing new", false, true, 0, false, Some(Up), "up", false),
        ];
        for (why, disabled, there, weight, failed, health, state, available) in rows {
            let mut pool = pool(disabled, there, weight, health);
            if failed {
                pool.backends[0].state.failed(Tick(10));
            }
            let word = pool.backends[0].standing(Tick(11)).word();
            assert_eq!((word, pool.available(Tick(11))), (state, usize::from(available)), "{why}");
            pool.backends[0].draining = true;
            let word = pool.backends[0].standing(Tick(11)).word();
            let draining = if disabled { "disabled" } else { "draining" };
            assert_eq!((word, pool.available(Tick(11))), (draining, 0), "{why}");
        }
    }

    #[test]
    fn an_open_breaker_bars_the_way_until_its_time_is_over() {
        // Whether the pool has breakers, when that of the backend opens, whether a trial is under way; at 50.
        let rows = [
            ("closed", true, None, false, 1),
            ("open", true, Some(0), false, 0),
            ("its time is over: the next one tries", true, Some(-100), false, 1),
            ("somebody tries just now", true, Some(-100), true, 1),
            ("it was open when breakers were taken out of the file", false, Some(0), false, 1),
        ];
        for (why, breaks, opened, tries, available) in rows {
            let mut pool = pool(false, true, 1, None);
            pool.breaker = breaks.then_some(RULES);
            let at = |after: i64| Tick((1_000 + after) as u64);
            let state = &pool.backends[0].state;
            if let Some(opened) = opened {
                Lease::take(state, Some(RULES), at(opened)).unwrap().report(Outcome::Failure, at(opened));
            }
            let trial = tries.then(|| Lease::take(state, Some(RULES), at(50)).unwrap());
            assert_eq!(pool.available(at(50)), available, "{why}");
            drop(trial);
        }
    }

    #[test]
    fn one_that_is_full_is_available_and_so_is_each_in_a_panic() {
        let full = pool(false, true, 1, Some(Health::Up));
        let lease = Lease::take(&full.backends[0].state, None, Tick(1)).unwrap();
        assert!(full.backends[0].state.active.is_full());
        assert_eq!(full.available(Tick(1)), 1, "whoever comes waits in line");
        drop(lease);
        // Disabled, has an address, weight, failed just now, whether its breaker is open.
        let rows = [
            ("what checks say is not heeded", false, true, 1, false, false, 1),
            ("but what is known from clients is", false, true, 1, true, false, 0),
            ("and a breaker", false, true, 1, false, true, 0),
            ("disabled is disabled", true, true, 1, false, false, 0),
            ("nobody can reach it", false, false, 1, false, false, 0),
            ("weight 0 is no matter of health", false, true, 0, false, false, 0),
        ];
        for (why, disabled, there, weight, failed, open, available) in rows {
            let mut pool = pool(disabled, there, weight, Some(Health::Down));
            (pool.panics, pool.breaker) = (true, Some(RULES));
            let state = &pool.backends[0].state;
            if failed {
                state.failed(Tick(1));
            }
            if open {
                Lease::take(state, Some(RULES), Tick(1)).unwrap().report(Outcome::Failure, Tick(1));
            }
            assert_eq!(pool.available(Tick(2)), available, "{why}");
        }
    }
}
