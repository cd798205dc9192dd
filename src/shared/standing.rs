//! How a backend stands, as the admin API tells it.

use crate::base::time::Tick;
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

    /// Whether new work may come to it.
    pub fn is_available(&self, now: Tick) -> bool {
        self.weight > 0 && matches!(self.standing(now), Standing::Up | Standing::Starting)
    }
}

impl Pool {
    /// How many of its backends new work may come to.
    pub fn available(&self, now: Tick) -> usize {
        self.backends.iter().filter(|backend| backend.is_available(now)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::BackendSlot;
    use crate::shared::backend::BackendState;

    #[test]
    fn a_backend_stands_as_what_is_known_of_it_says() {
        use Health::{Down, Starting, Up};
        let there = "127.0.0.1:1".parse().ok();
        // Disabled, its address, its weight, whether it failed just now, what checks say if there are any.
        let rows = [
            ("all is well", false, there, 1, false, Some(Up), "up", true),
            ("it is not checked", false, there, 1, false, None, "up", true),
            ("its check has not spoken: it is tried", false, there, 1, false, Some(Starting), "starting", true),
            ("nor that of one that failed a client", false, there, 1, true, Some(Starting), "down", false),
            ("its check says so", false, there, 1, false, Some(Down), "down", false),
            ("it failed a client", false, there, 1, true, Some(Up), "down", false),
            ("it failed a client and is not checked", false, there, 1, true, None, "down", false),
            ("its name does not resolve", false, None, 1, false, Some(Starting), "down", false),
            ("disabled", true, there, 1, false, None, "disabled", false),
            ("disabled, whatever else", true, None, 1, true, Some(Down), "disabled", false),
            ("weight 0 is up, and takes nothing new", false, there, 0, false, Some(Up), "up", false),
        ];
        for (why, disabled, address, weight, failed, health, state, available) in rows {
            let mut backend = Backend {
                id: "b".into(),
                address: "b:1".into(),
                weight,
                disabled,
                draining: false,
                checked: health.is_some(),
                addresses: address.into_iter().collect(),
                state: BackendState::new(BackendSlot(0), 0, 0, 1),
            };
            if failed {
                backend.state.failed(Tick(10));
            }
            backend.state.set_health(health.unwrap_or(Starting));
            assert_eq!(
                (backend.standing(Tick(11)).word(), backend.is_available(Tick(11))),
                (state, available),
                "{why}"
            );
            backend.draining = true;
            let state = if disabled { "disabled" } else { "draining" };
            assert_eq!((backend.standing(Tick(11)).word(), backend.is_available(Tick(11))), (state, false), "{why}");
        }
    }
}
