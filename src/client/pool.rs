//! A pool: its backends, what is known of them, and the pick.

use crate::balance::Key;
use crate::base::ids::BackendSlot;
use crate::base::time::{Clock, Tick};
use crate::client::backend::{Backend, BackendStatus, BreakerState, Health};
use crate::client::builder::{PoolBuilder, Rules};
use crate::client::check::Ended;
use crate::client::context::Context;
use crate::client::keeper::{Job, Keeper};
use crate::client::lease::Lease;
use crate::client::members::{Members, Seat};
use crate::client::{Error, PickError};
use crate::guard::{self, PerClient};
use crate::probe::{self, Change, Outcome, Verdict};
use crate::shared::backend::BackendState;
use crate::shared::choose::{Choice, Crowds, For, NoBackend, Turns};
use arc_swap::ArcSwap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How soon a check that could not be made for a reason of our own is made again, in milliseconds.
const AGAIN: u64 = 250;

/// A set of backends, one of which is picked for each call. Cheap to clone; clones are the same pool. Its threads, if it
/// needs any, end with the last clone.
///
/// ```
/// use l4lb::client::{Algorithm, Backend, Context, Pool};
/// use std::net::SocketAddr;
///
/// let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
/// let pool = Pool::builder("api")
///     .algorithm(Algorithm::WeightedRoundRobin)
///     .backend(Backend::new("a", at(8001)).weight(2))
///     .backend(Backend::new("b", at(8002)))
///     .build()?;
///
/// let mut calls = Vec::new();
/// for _ in 0..6 {
///     let lease = pool.pick(&Context::new())?;
///     calls.push(lease.backend().id().to_owned());
///     // … connect to lease.address(), ask, and say how it went:
///     lease.success();
/// }
/// assert_eq!(calls, ["a", "b", "a", "a", "b", "a"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) inner: Arc<Inner>,
}

/// What [`Pool::register`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Registration {
    /// The backend is new.
    Added,
    /// It was there as it is; its time begins anew.
    Renewed,
    /// It was there with other settings.
    Changed,
    /// It was there at other addresses; what was known of it does not hold any more.
    Moved,
}

/// A pool, whoever holds it.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) name: Arc<str>,
    rules: Rules,
    clock: Clock,
    /// What picks read.
    current: ArcSwap<Members>,
    turns: Turns,
    crowds: Arc<Crowds>,
    clients: Option<Arc<PerClient>>,
    /// What is written; `current` is made of it.
    table: Mutex<Table>,
    keeper: Arc<Keeper>,
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    next: u32,
}

#[derive(Debug)]
struct Entry {
    backend: Backend,
    state: Arc<BackendState>,
    /// When it leaves.
    expires: Option<Tick>,
    /// It comes from a running l4lb.
    fed: bool,
    /// Where it is checked.
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    verdict: Verdict,
    due: Tick,
    began: Tick,
    runs: bool,
}

impl Entry {
    fn seat(&self) -> Seat {
        Seat { backend: self.backend.clone(), state: self.state.clone() }
    }
}

impl Pool {
    /// Begins a pool of this name.
    pub fn builder(name: impl Into<Arc<str>>) -> PoolBuilder {
        PoolBuilder::new(name.into())
    }

    pub(super) fn start(
        name: Arc<str>,
        rules: Rules,
        backends: Vec<Backend>,
        keeper: Arc<Keeper>,
    ) -> Result<Pool, Error> {
        let members = Members::build(name.clone(), Vec::new(), rules.algorithm, 0.0);
        let inner = Arc::new(Inner {
            name,
            clock: Clock::start(),
            current: ArcSwap::from_pointee(members),
            turns: Turns::default(),
            crowds: Arc::default(),
            clients: (rules.max_per_client > 0).then(|| PerClient::new(rules.max_per_client)),
            table: Mutex::default(),
            keeper,
            rules,
        });
        let mut needs_thread = inner.rules.check.is_some();
        let mut table = inner.lock();
        for backend in backends {
            if table.entries.iter().any(|entry| entry.backend.id == backend.id) {
                return Err(Error::DuplicateId(backend.id.to_string()));
            }
            needs_thread |= backend.ttl.is_some();
            let entry = inner.entry(&mut table, backend, false, false);
            table.entries.push(entry);
        }
        inner.publish(&table);
        drop(table);
        if needs_thread {
            inner.keeper.watch(&inner)?;
        }
        Ok(Pool { inner })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Picks a backend that is up, not full and not excluded. Takes no lock, and waits for nothing.
    ///
    /// # Errors
    /// There is none just now.
    pub fn pick(&self, context: &Context) -> Result<Lease, PickError> {
        let Inner { rules, clock, turns, crowds, .. } = &*self.inner;
        let permit = match (&self.inner.clients, context.client) {
            (Some(clients), Some(ip)) => Some(clients.take(ip).ok_or(PickError::ClientFull)?),
            _ => None,
        };
        if let Some(limit) = rules.limit.as_ref().filter(|_| context.excluded.is_empty()) {
            limit.take(context)?;
        }
        let members = self.inner.current.load_full();
        let excluded = context.excluded.iter().filter_map(|id| members.of(id));
        let tried: Vec<BackendSlot> = excluded.map(|seat| seat.state.slot).collect();
        let mut random = fastrand::Rng::new();
        let key = context.hashed().unwrap_or_else(|| Key(random.u64(..)));
        let choice = Choice {
            members: &members.seats,
            primaries: &members.primaries,
            backups: &members.backups,
            turns,
            crowds,
            hash_balance: rules.hash_balance,
            breaker: rules.breaker,
            slow_start: rules.slow_start,
            panics: members.panics,
        };
        let picked = choice.pick(clock.now(), For { key, tried: &tried, random: &mut random });
        let picked = picked.map_err(|why| match why {
            NoBackend::NoneThere => PickError::NoneAvailable,
            NoBackend::AllTried => PickError::AllExcluded,
            NoBackend::AllFull => PickError::AllFull,
        })?;
        Ok(Lease::new(picked.lease, members, picked.place, *clock, permit))
    }

    /// Adds a backend, or says of one that is there that it still is, where it is now and what it can do.
    ///
    /// ```
    /// use l4lb::client::{Backend, Context, PickError, Pool, Registration};
    /// use std::{net::SocketAddr, time::Duration};
    ///
    /// let pool = Pool::builder("api").build()?;
    /// assert_eq!(pool.pick(&Context::new()).unwrap_err(), PickError::NoneAvailable);
    ///
    /// let backend = Backend::new("a", SocketAddr::from(([127, 0, 0, 1], 8001))).ttl(Duration::from_secs(10));
    /// assert_eq!(pool.register(backend.clone())?, Registration::Added);
    /// assert_eq!(pool.register(backend)?, Registration::Renewed);
    /// assert!(pool.pick(&Context::new()).is_ok());
    ///
    /// assert!(pool.deregister("a"));
    /// # Ok::<(), l4lb::client::Error>(())
    /// ```
    ///
    /// # Errors
    /// The backend cannot be, or no thread is to be had that looks after its time.
    pub fn register(&self, backend: Backend) -> Result<Registration, Error> {
        let backend = backend.validated()?;
        if backend.ttl.is_some() {
            self.inner.keeper.watch(&self.inner)?;
        }
        let mut table = self.inner.lock();
        let done = self.inner.put(&mut table, backend, false);
        if done != Registration::Renewed {
            self.inner.publish(&table);
        }
        drop(table);
        self.inner.keeper.look();
        Ok(done)
    }

    /// Says that a backend still is there: its ttl begins anew.
    ///
    /// # Errors
    /// [`Error::NoBackend`]: it has left meanwhile, or never was there.
    pub fn renew(&self, id: &str) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let mut table = self.inner.lock();
        let entry = table.entries.iter_mut().find(|entry| &*entry.backend.id == id);
        let entry = entry.ok_or_else(|| Error::NoBackend(id.to_owned()))?;
        entry.expires = entry.backend.ttl.map(|ttl| now.after(ttl));
        Ok(())
    }

    /// Takes a backend out: it is not picked any more, and leases on it go on. False when it was not there.
    pub fn deregister(&self, id: &str) -> bool {
        let mut table = self.inner.lock();
        let before = table.entries.len();
        table.entries.retain(|entry| &*entry.backend.id != id);
        let was_there = table.entries.len() < before;
        if was_there {
            self.inner.publish(&table);
        }
        was_there
    }

    /// How its backends stand.
    pub fn backends(&self) -> Vec<BackendStatus> {
        let now = self.inner.clock.now();
        let members = self.inner.current.load();
        let status = |Seat { backend, state }: &Seat| BackendStatus {
            id: backend.id.to_string(),
            address: backend.address(),
            weight: backend.weight,
            disabled: backend.disabled,
            backup: backend.backup,
            health: match state.health() {
                probe::Health::Starting => Health::Starting,
                probe::Health::Up => Health::Up,
                probe::Health::Down => Health::Down,
            },
            set_aside: state.is_aside(now),
            breaker: self.inner.rules.breaker.map(|_| match state.breaker.state(now) {
                guard::BreakerState::Closed => BreakerState::Closed,
                guard::BreakerState::Open => BreakerState::Open,
                guard::BreakerState::HalfOpen => BreakerState::HalfOpen,
            }),
            in_flight: state.active.used(),
            latency: state.estimate.memory(now.0).map(|(nanos, _)| Duration::from_nanos(nanos as u64)),
        };
        members.seats.iter().map(status).collect()
    }
}

impl Inner {
    /// Nothing that could leave it half done panics while it is held.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, table: &Table) {
        let seats = table.entries.iter().map(Entry::seat).collect();
        let Rules { algorithm, panic_threshold, .. } = self.rules;
        self.current.store(Arc::new(Members::build(self.name.clone(), seats, algorithm, panic_threshold)));
    }

    /// A backend nothing is known of. `joins`: it comes to a pool that serves already, so it starts slowly.
    fn entry(&self, table: &mut Table, backend: Backend, fed: bool, joins: bool) -> Entry {
        let now = self.clock.now();
        let state = BackendState::new(BackendSlot(table.next), backend.max_connections, 0, 1);
        table.next += 1;
        if joins {
            state.starts(now);
        }
        let watch = self.rules.check.as_ref().map(|check| {
            let verdict = Verdict::new(check.rules());
            state.set_health(verdict.health());
            Watch { verdict, due: now, began: now, runs: false }
        });
        Entry { expires: backend.ttl.map(|ttl| now.after(ttl)), backend, state, fed, watch }
    }

    /// Adds a backend, or changes the one of that id.
    fn put(&self, table: &mut Table, backend: Backend, fed: bool) -> Registration {
        let now = self.clock.now();
        let Some(at) = table.entries.iter().position(|entry| entry.backend.id == backend.id) else {
            let entry = self.entry(table, backend, fed, true);
            table.entries.push(entry);
            return Registration::Added;
        };
        if !table.entries[at].backend.is_where(&backend) {
            table.entries[at] = self.entry(table, backend, fed, true);
            return Registration::Moved;
        }
        let entry = &mut table.entries[at];
        let same = entry.backend.is_as(&backend);
        entry.expires = backend.ttl.map(|ttl| now.after(ttl));
        entry.state.active.set_limit(backend.max_connections);
        (entry.backend, entry.fed) = (backend, fed);
        if same { Registration::Renewed } else { Registration::Changed }
    }

    /// From now on these are the backends that come from a running l4lb. One of the same id that the program itself has
    /// registered stays as that one says.
    pub(super) fn feed(self: &Arc<Self>, backends: Vec<Backend>) {
        let mut table = self.lock();
        let before = table.entries.len();
        table.entries.retain(|entry| !entry.fed || backends.iter().any(|backend| backend.id == entry.backend.id));
        let mut changed = table.entries.len() < before;
        for backend in backends {
            if !table.entries.iter().any(|entry| !entry.fed && entry.backend.id == backend.id) {
                changed |= self.put(&mut table, backend, true) != Registration::Renewed;
            }
        }
        if changed {
            self.publish(&table);
        }
        drop(table);
        self.keeper.look();
    }

    /// Lets those go whose time is over, and gives out what is due to be checked. How long until the next such thing.
    pub(super) fn tend(self: &Arc<Self>, jobs: &mut Vec<Job>) -> Option<Duration> {
        let now = self.clock.now();
        let mut table = self.lock();
        let before = table.entries.len();
        table.entries.retain(|entry| {
            let stays = entry.expires.is_none_or(|at| at > now);
            if !stays {
                log::warn!("pool {}: backend {} was not renewed in time", self.name, entry.backend.id);
            }
            stays
        });
        if table.entries.len() < before {
            self.publish(&table);
        }
        let mut next = None;
        let mut soon = |at: Tick| next = Some(next.map_or(at, |known: Tick| known.min(at)));
        for entry in &mut table.entries {
            entry.expires.into_iter().for_each(&mut soon);
            let (Some(watch), Some(how)) = (&mut entry.watch, &self.rules.check) else { continue };
            if watch.runs {
                continue;
            }
            if watch.due > now {
                soon(watch.due);
                continue;
            }
            (watch.runs, watch.began) = (true, now);
            jobs.push(Job { pool: Arc::downgrade(self), seat: entry.seat(), how: how.clone() });
        }
        next.map(|at| at.since(now))
    }

    /// Takes note of a check.
    pub(super) fn checked(&self, slot: BackendSlot, (outcome, why): Ended) {
        let Some(rules) = self.rules.check.as_ref().map(|check| check.rules()) else { return };
        let now = self.clock.now();
        let mut table = self.lock();
        let entry = table.entries.iter_mut().find(|entry| entry.state.slot == slot);
        // It may have left, or moved, meanwhile.
        let Some(Entry { backend, state, watch: Some(watch), .. }) = entry else { return };
        watch.runs = false;
        let was_starting = watch.verdict.health() == probe::Health::Starting;
        let change = watch.verdict.note(outcome, rules);
        watch.due = match outcome {
            Outcome::Void => Tick(now.0 + AGAIN),
            _ => watch.verdict.next(watch.began, rules, fastrand::f64()).max(Tick(now.0 + 1)),
        };
        state.set_health(watch.verdict.health());
        if outcome == Outcome::Good {
            state.answered();
        }
        let (pool, id) = (&self.name, &backend.id);
        match change {
            Some(Change::Up) if was_starting => log::debug!("pool {pool}: backend {id} is up"),
            Some(Change::Up) => {
                state.starts(now);
                log::info!("pool {pool}: backend {id} is up again");
            }
            Some(Change::Down) => log::warn!("pool {pool}: backend {id} is down: {}", why.unwrap_or_default()),
            None => {}
        }
        if change.is_some() {
            self.publish(&table);
        }
    }
}
