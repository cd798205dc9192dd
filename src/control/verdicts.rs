//! What is known of backends, as bytes: health, what sets them aside, breakers, times to answer. One process tells it to
//! the next, so that a backend that is known to be down is down for the first request already.
//!
//! By pool and address, as live states are kept. Times are durations: the next process has a clock of its own.

use crate::base::time::Tick;
use crate::config::{Address, Backend, Config};
use crate::guard::{BreakerMemory, BreakerState};
use crate::probe::Health;
use crate::shared::backend::Memory;
use crate::shared::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// What is known of all backends.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdicts {
    /// Pool and address, as configured, to what is known.
    backends: HashMap<String, HashMap<String, Verdict>>,
}

/// What is known of one. Fields that are not known, or not there, are passed over.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Verdict {
    /// "up", "down", or nothing seen yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health: Option<String>,
    /// The last time set aside, and what is left of it, in milliseconds.
    #[serde(default)]
    aside: (u32, u64),
    /// The breaker: "open", "half_open" or "closed", its count, and the milliseconds left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    breaker: Option<(String, u32, u64)>,
    /// Nanoseconds to answer, and their age in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    estimate: Option<(f64, u64)>,
    /// Milliseconds since it began to take work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    /// Its id, where it has sessions: those of datagrams go to the next process, whether its file has that backend or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serves: Option<String>,
}

impl Verdicts {
    /// What is known now of those in `snapshot`.
    pub fn of(snapshot: &Snapshot, now: Tick) -> Verdicts {
        let backends = snapshot.pools.iter().map(|pool| {
            let known = pool.backends.iter().map(|backend| {
                let Memory { health, aside, breaker, estimate, since } = backend.state.memory(now);
                let health = match health {
                    Health::Starting => None,
                    Health::Up => Some("up".to_owned()),
                    Health::Down => Some("down".to_owned()),
                };
                let breaker = breaker.map(|memory| (word(memory.state).to_owned(), memory.count, memory.left));
                let serves = (backend.state.active.used() > 0).then(|| backend.id.to_string());
                (backend.address.to_string(), Verdict { health, aside, breaker, estimate, since, serves })
            });
            (pool.name.to_string(), known.collect())
        });
        Verdicts { backends: backends.collect() }
    }

    /// `config`, and in its pools those that have sessions and are not there any more. A plan that is made of this, and then
    /// adopts `config`, has them as leavers.
    pub fn with_leavers(&self, config: &Config) -> Config {
        let mut config = config.clone();
        for pool in &mut config.pools {
            let Some(known) = self.backends.get(&pool.name) else { continue };
            let present: HashSet<Address> = pool.backends.iter().map(|backend| backend.address.canonical()).collect();
            let serving = known.iter().filter_map(|(address, verdict)| {
                let address = Address::backend(address).ok()?;
                Some(Backend::new(verdict.serves.as_ref()?, address))
            });
            pool.backends.extend(serving.filter(|backend| !present.contains(&backend.address.canonical())));
        }
        config
    }

    /// Tells the live states of those in `snapshot`, which nobody works by yet; returns of how many something was known.
    /// What is built from them is to be built anew.
    pub fn recall(&self, snapshot: &Snapshot, now: Tick) -> usize {
        let mut known = 0;
        for pool in &snapshot.pools {
            let Some(backends) = self.backends.get(&*pool.name) else { continue };
            for backend in &pool.backends {
                let Some(verdict) = backends.get(&*backend.address) else { continue };
                known += 1;
                backend.state.recall(&verdict.memory(), backend.checked && !backend.disabled, now);
            }
        }
        known
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only a map with keys that are no text could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are not of this kind.
    pub fn from_bytes(bytes: &[u8]) -> Result<Verdicts, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

impl Verdict {
    fn memory(&self) -> Memory {
        let health = match self.health.as_deref() {
            Some("up") => Health::Up,
            Some("down") => Health::Down,
            _ => Health::Starting,
        };
        let breaker = self.breaker.as_ref().and_then(|(state, count, left)| {
            let states = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];
            let state = states.into_iter().find(|known| word(*known) == state)?;
            Some(BreakerMemory { state, count: *count, left: *left })
        });
        // What is no number, or endless, is no time.
        let estimate = self.estimate.filter(|(held, _)| held.is_finite());
        Memory { health, aside: self.aside, breaker, estimate, since: self.since }
    }
}

fn word(state: BreakerState) -> &'static str {
    match state {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half_open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::control::Plan;
    use crate::guard::{BreakerRules, Outcome};
    use std::sync::Arc;
    use std::time::Duration;

    fn snapshot(backends: &str) -> Arc<Snapshot> {
        let file = format!(
            "listener = [{{ name = 'l', bind = '127.0.0.1:0', protocol = 'tcp', pool = 'p' }}]\n\
             pool = [{{ name = 'p', backend = [{backends}] }}, {{ name = 'unchecked', health_check = {{ kind = 'none' }}, \
             backend = [{{ address = '127.0.0.1:1' }}] }}]"
        );
        Plan::new(config::parse(&file, "test").unwrap(), 1).build()
    }

    #[test]
    fn who_has_sessions_and_is_not_there_any_more_leaves() {
        let old = snapshot(OLD);
        let [stays, serves, idle] = &old.pools[0].backends[..] else { panic!("three") };
        stays.state.active.reserve();
        serves.state.active.reserve();
        let bytes = Verdicts::of(&old, Tick(9)).to_bytes();
        let known = Verdicts::from_bytes(&bytes).unwrap();
        let file = "listener = [{ name = 'l', bind = '127.0.0.1:0', protocol = 'tcp', pool = 'p' }]\n\
                    pool = [{ name = 'p', backend = [{ id = 'other', address = '127.0.0.1:1' }] }]";
        let config = config::parse(file, "test").unwrap();
        let mut plan = Plan::new(known.with_leavers(&config), 1);
        plan.adopt(config.clone());
        let new = plan.build();
        let told: Vec<_> = new.pools[0].backends.iter().map(|backend| (&*backend.id, backend.draining)).collect();
        assert_eq!(told, [("other", false), (&*serves.id, true)], "and not {}", idle.id);
        assert_eq!(plan.config(), &config, "it is in no configuration");
        assert!(plan.settle(new.generation), "with its last session it is gone");
        assert_eq!(plan.build().pools[0].backends.len(), 1);
    }

    const OLD: &str = "{ address = '127.0.0.1:1' }, { address = '127.0.0.1:2' }, { address = '127.0.0.1:3' }";

    #[test]
    fn what_is_known_reaches_the_same_backends_of_another_process() {
        let (old, then) = (snapshot(OLD), Tick(500_000));
        let [down, failing, gone] = &old.pools[0].backends[..] else { panic!("three") };
        for backend in [down, gone, &old.pools[1].backends[0]] {
            backend.state.set_health(Health::Down);
        }
        failing.state.set_health(Health::Up);
        failing.state.failed(Tick(then.0 - 400));
        let rules = BreakerRules { failures: 1, successes: 1, timeout: Duration::from_millis(4_999) };
        let pass = failing.state.breaker.enter(Tick(then.0 - 1_000)).unwrap();
        let _ = failing.state.breaker.report(pass, Outcome::Failure, rules, Tick(then.0 - 1_000));
        failing.state.estimate.sample(5e6, then.0);
        let bytes = Verdicts::of(&old, then).to_bytes();

        // Under other ids, in another order, one gone, one new.
        let ids = "{ id = 'x', address = '127.0.0.1:4' }, { id = 'y', address = '127.0.0.1:2' }, { id = 'z', address = '127.0.0.1:1' }";
        let (new, now) = (snapshot(ids), Tick(7));
        assert_eq!(Verdicts::from_bytes(&bytes).unwrap().recall(&new, now), 3, "two of the pool, one of the other");
        let [fresh, failing, down] = &new.pools[0].backends[..] else { panic!("three") };
        assert_eq!(fresh.state.health(), Health::Starting);
        assert_eq!(down.state.health(), Health::Down);
        assert_eq!(failing.state.health(), Health::Up);
        let aside = [599, 600].map(|later| failing.state.is_aside(Tick(now.0 + later)));
        assert_eq!(aside, [true, false], "set aside for the rest of its second");
        let open = [3_999, 4_000].map(|later| failing.state.breaker.admits(Tick(now.0 + later)));
        assert_eq!(open, [false, true], "open for the time that is left");
        assert_eq!(failing.state.failed(Tick(now.0 + 700)), Some(2_000), "the next time is twice as long");
        assert!((failing.state.estimate.expected(0, now.0) - 5e6).abs() < 10.0);
        assert_eq!(new.pools[1].backends[0].state.health(), Health::Starting, "no check would bring it up again");
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let bytes = br#"{"backends":{"p":{"127.0.0.1:1":{"health":"dozing","colour":"red","breaker":["ajar",1,2]},"127.0.0.1:2":{"health":"down"}}},"more":1}"#;
        let new = snapshot(OLD);
        assert_eq!(Verdicts::from_bytes(bytes).unwrap().recall(&new, Tick(1)), 2);
        let health: Vec<_> = new.pools[0].backends.iter().map(|backend| backend.state.health()).collect();
        assert_eq!(health, [Health::Starting, Health::Down, Health::Starting]);
        assert!(Verdicts::from_bytes(b"[1]").is_err());
    }
}
