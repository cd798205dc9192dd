//! What is known of listeners, pools and backends from one snapshot to the next, by name: their numbers stay, whatever else
//! comes and goes.
//!
//! Sessions hold numbers ([`ListenerId`], [`PoolId`], [`BackendSlot`]) over many snapshots. So what leaves the configuration
//! stays here as long as anybody may hold its number, and what comes back by the same name gets its old one.

use crate::balance::{self, Picker, Place};
use crate::base::ids::{BackendSlot, ListenerId, PoolId};
use crate::base::time::Tick;
use crate::config::{self, Address, Config};
use crate::control::diff;
use crate::control::limits::Limited;
use crate::guard::{Budget, Cap, PerClient, Seldom};
use crate::shared::backend::{BackendState, Stay};
use crate::shared::choose::{Crowds, Turns};
use crate::shared::queue::Queue;
use crate::stats::Tallies;
use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Listeners, or pools, that are gone and of no use to anybody: beyond so many, the number of one is given to another.
const GONE: usize = 64;
/// How much longer than its header_timeout a listener that is gone may have clients that have asked for nothing yet.
const LATE: Duration = Duration::from_secs(1);

/// A listener, in the configuration or not.
pub(super) struct KnownListener {
    /// As it is in the configuration, or was; the places of pools in it mean nothing.
    pub(super) config: config::Listener,
    pub(super) pool: Option<PoolId>,
    pub(super) routes: Vec<PoolId>,
    /// When it left the configuration.
    pub(super) gone: Option<Tick>,
    pub(super) connections: Arc<Cap>,
    per_client: Option<Arc<PerClient>>,
    pub(super) rate: Limited,
    pub(super) warnings: Arc<Seldom>,
    pub(super) tallies: Arc<Tallies>,
}

impl KnownListener {
    /// Its max_per_client, if it has one.
    pub(super) fn per_client(&self) -> Option<Arc<PerClient>> {
        self.per_client.clone().filter(|_| self.config.max_per_client > 0)
    }

    /// Whether its sessions may still pick a backend of `pool`, though it is gone.
    fn may_pick(&self, pool: PoolId, now: Tick) -> bool {
        let young = |since: Tick| now < since.after(self.config.http.header_timeout + LATE);
        self.gone.is_some_and(young)
            && self.connections.used() > 0
            && (self.pool == Some(pool) || self.routes.contains(&pool))
    }
}

/// A pool, in the configuration or not.
pub(super) struct KnownPool {
    pub(super) name: Arc<str>,
    /// Its place in the configuration; or, when it has left that, what it was there, without its backends.
    pub(super) at: Result<usize, Box<config::Pool>>,
    pub(super) present: HashMap<Address, Present>,
    /// Those that leave, in the order they do.
    pub(super) leavers: Vec<Leaver>,
    pub(super) turns: Arc<Turns>,
    pub(super) crowds: Arc<Crowds>,
    pub(super) budget: Arc<Budget>,
    pub(super) tallies: Arc<Tallies>,
    pub(super) rate: Limited,
    pub(super) queue: OnceLock<Arc<Queue>>,
    /// Pickers, primaries and backups, and what they were built from: tables of hashes are work, and most changes leave
    /// them as they are.
    pickers: [Option<Built>; 2],
}

/// A backend of the configuration.
pub(super) struct Present {
    pub(super) state: Arc<BackendState>,
    /// Since when it takes no new sessions.
    draining: Option<Tick>,
}

/// A backend that has left the configuration.
pub(super) struct Leaver {
    pub(super) config: config::Backend,
    pub(super) state: Arc<BackendState>,
    since: Tick,
    /// The first generation without it: until that is seen by all, somebody may still pick it.
    generation: u64,
}

/// A picker and what it was built from.
struct Built {
    algorithm: balance::Algorithm,
    places: Vec<Place>,
    picker: Arc<Picker>,
}

impl KnownPool {
    fn new(name: &str, workers: usize) -> KnownPool {
        KnownPool {
            name: name.into(),
            at: Ok(0),
            present: HashMap::new(),
            leavers: Vec::new(),
            turns: Arc::default(),
            crowds: Arc::default(),
            budget: Arc::default(),
            tallies: Tallies::shared(workers),
            rate: Limited::new(workers),
            queue: OnceLock::new(),
            pickers: [None, None],
        }
    }

    /// A picker of `places`: the last one, if that was built from the same.
    pub(super) fn picker(&mut self, tier: usize, algorithm: balance::Algorithm, places: Vec<Place>) -> Arc<Picker> {
        if let Some(built) = &self.pickers[tier]
            && built.algorithm == algorithm
            && built.places == places
        {
            return built.picker.clone();
        }
        let picker = Arc::new(Picker::build(algorithm, &places));
        self.pickers[tier] = Some(Built { algorithm, places, picker: picker.clone() });
        picker
    }

    /// Backends that nobody may pick any more, and that nobody is connected to, are gone; those that have drained for long
    /// enough are cut. True when there is something new to tell.
    fn settle(
        &mut self,
        drain_timeout: Duration,
        (now, seen): (Tick, u64),
        retired: &mut Vec<Arc<BackendState>>,
    ) -> bool {
        let before = self.leavers.len();
        self.leavers.retain(|leaver| {
            let gone = leaver.generation <= seen && leaver.state.active.used() == 0;
            if gone {
                retired.push(leaver.state.clone());
            }
            !gone
        });
        let mut new = self.leavers.len() < before;
        let left = self.leavers.iter().map(|leaver| (&leaver.state, leaver.since));
        let drain = self.present.values().filter_map(|present| Some((&present.state, present.draining?)));
        for (state, since) in left.chain(drain) {
            if !drain_timeout.is_zero() && now >= since.after(drain_timeout) && !state.is_cut() {
                state.set_stay(Stay::Cut);
                new = true;
            }
        }
        new
    }
}

/// Everything that is known.
pub(super) struct Known {
    workers: usize,
    /// By [`ListenerId`].
    pub(super) listeners: Vec<KnownListener>,
    /// By [`PoolId`].
    pub(super) pools: Vec<KnownPool>,
    /// By place in the configuration.
    pub(super) listener_ids: Vec<ListenerId>,
    pub(super) pool_ids: Vec<PoolId>,
    slots: Slots,
    /// States of backends that are gone, until nobody has them any more. They are freed here, and so never by a worker.
    retired: Vec<Arc<BackendState>>,
    /// Some backend may have to be looked after.
    drains: bool,
    /// Those that have begun to leave, until somebody asks.
    left: Vec<BackendSlot>,
}

/// Numbers of backends. One that was given back is not given out again before all others were.
#[derive(Default)]
struct Slots {
    next: u32,
    taken: HashSet<u32>,
}

impl Slots {
    fn take(&mut self) -> BackendSlot {
        loop {
            let slot = self.next;
            self.next = self.next.wrapping_add(1);
            if self.taken.insert(slot) {
                return BackendSlot(slot);
            }
        }
    }

    fn give_back(&mut self, slot: BackendSlot) {
        self.taken.remove(&slot.0);
    }
}

impl Known {
    /// Nothing is known, in a process of so many workers.
    pub(super) fn new(workers: usize) -> Known {
        Known {
            workers,
            listeners: Vec::new(),
            pools: Vec::new(),
            listener_ids: Vec::new(),
            pool_ids: Vec::new(),
            slots: Slots::default(),
            retired: Vec::new(),
            drains: false,
            left: Vec::new(),
        }
    }

    /// From now on `new` is the configuration, in place of `old`; `generation` is the first snapshot that will be of it.
    pub(super) fn adopt(&mut self, old: &mut Config, new: &Config, now: Tick, generation: u64) {
        self.adopt_pools(old, new, now, generation);
        self.adopt_listeners(new, now);
        self.drains = self
            .pools
            .iter()
            .any(|pool| !pool.leavers.is_empty() || pool.present.values().any(|present| present.draining.is_some()));
    }

    fn adopt_pools(&mut self, old: &mut Config, new: &Config, now: Tick, generation: u64) {
        let by_name: HashMap<Arc<str>, usize> =
            self.pools.iter().enumerate().map(|(id, pool)| (pool.name.clone(), id)).collect();
        let mut left: HashSet<PoolId> = self.pool_ids.iter().copied().collect();
        let mut ids = Vec::with_capacity(new.pools.len());
        for (at, pool) in new.pools.iter().enumerate() {
            let id = match by_name.get(&*pool.name) {
                Some(id) => *id,
                None => self.place_for(KnownPool::new(&pool.name, self.workers)),
            };
            let was = self.pools[id].at.as_ref().ok().and_then(|at| old.pools.get_mut(*at));
            let was = was.filter(|was| *was.name == *pool.name).map(|was| mem::take(&mut was.backends));
            self.adopt_backends(id, was.unwrap_or_default(), pool, now, generation);
            self.pools[id].at = Ok(at);
            if let Some(queue) = self.pools[id].queue.get() {
                queue.set_limit(pool.queue);
            }
            left.remove(&PoolId(id as u32));
            ids.push(PoolId(id as u32));
        }
        for id in left {
            let Ok(at) = self.pools[id.0 as usize].at else { continue };
            let last = diff::bare(&old.pools[at]);
            let was = mem::take(&mut old.pools[at].backends);
            self.adopt_backends(id.0 as usize, was, &last, now, generation);
            self.pools[id.0 as usize].at = Err(Box::new(last));
        }
        self.pool_ids = ids;
    }

    /// A number for a pool that there was not.
    fn place_for(&mut self, pool: KnownPool) -> usize {
        let used = self.listeners.iter().filter(|known| known.gone.is_none() || known.connections.used() > 0);
        let used: HashSet<PoolId> = used.flat_map(|known| known.pool.iter().chain(&known.routes)).copied().collect();
        let unused = |(id, pool): (usize, &KnownPool)| {
            let empty = pool.at.is_err() && pool.leavers.is_empty() && pool.tallies.sum().active() == 0;
            empty && !used.contains(&PoolId(id as u32))
        };
        if self.pools.len() > self.pool_ids.len() + GONE
            && let Some(id) = self.pools.iter().enumerate().position(unused)
        {
            self.pools[id] = pool;
            return id;
        }
        self.pools.push(pool);
        self.pools.len() - 1
    }

    fn adopt_backends(&mut self, id: usize, was: Vec<config::Backend>, new: &config::Pool, now: Tick, generation: u64) {
        let pool = &mut self.pools[id];
        let stays: HashSet<Address> = new.backends.iter().map(|backend| backend.address.canonical()).collect();
        let mut leavers: HashMap<Address, Leaver> = HashMap::new();
        for leaver in pool.leavers.drain(..) {
            leavers.insert(leaver.config.address.canonical(), leaver);
        }
        for config in was {
            let address = config.address.canonical();
            if !stays.contains(&address)
                && let Some(Present { state, draining }) = pool.present.remove(&address)
            {
                if !state.is_cut() {
                    state.set_stay(Stay::Leaves);
                }
                self.left.push(state.slot);
                leavers.insert(address, Leaver { config, state, since: draining.unwrap_or(now), generation });
            }
        }
        for backend in &new.backends {
            let address = backend.address.canonical();
            let (slots, workers) = (&mut self.slots, self.workers);
            let present = pool.present.entry(address.clone()).or_insert_with(|| {
                let state = leavers.remove(&address).map(|back| back.state);
                let state = state.unwrap_or_else(|| {
                    let state = BackendState::new(slots.take(), backend.max_connections, new.keepalive, workers);
                    if generation > 1 {
                        state.starts(now);
                    }
                    state
                });
                Present { state, draining: None }
            });
            present.state.active.set_limit(backend.max_connections);
            present.state.idle.set_limit(new.keepalive);
            present.draining = backend.draining.then(|| present.draining.unwrap_or(now));
            match (present.draining, present.state.is_cut()) {
                (None, _) => present.state.set_stay(Stay::Stays),
                (Some(since), true) if since < now => {}
                (Some(_), _) => present.state.set_stay(Stay::Leaves),
            }
        }
        pool.leavers = leavers.into_values().collect();
        pool.leavers.sort_by(|a, b| (a.since, &a.config.id).cmp(&(b.since, &b.config.id)));
    }

    fn adopt_listeners(&mut self, new: &Config, now: Tick) {
        // One that speaks something else is another one: its clients go by the old one.
        let key = |listener: &config::Listener| (listener.name.clone(), listener.protocol as u8);
        let by_name: HashMap<_, usize> =
            self.listeners.iter().enumerate().map(|(id, known)| (key(&known.config), id)).collect();
        let mut ids = Vec::with_capacity(new.listeners.len());
        for known in &mut self.listeners {
            known.gone.get_or_insert(now);
        }
        for listener in &new.listeners {
            let pool_id = |at: usize| self.pool_ids[at];
            let (pool, routes) = (listener.pool.map(pool_id), listener.routes.iter().map(|route| pool_id(route.pool)));
            let routes = routes.collect();
            let id = match by_name.get(&key(listener)) {
                Some(id) => {
                    let known = &mut self.listeners[*id];
                    known.connections.set_limit(listener.max_connections);
                    match &known.per_client {
                        Some(clients) => clients.set_max(listener.max_per_client),
                        None => known.per_client = per_client(listener),
                    }
                    (known.config, known.pool, known.routes, known.gone) = (listener.clone(), pool, routes, None);
                    *id
                }
                None => {
                    let known = KnownListener {
                        config: listener.clone(),
                        pool,
                        routes,
                        gone: None,
                        connections: Cap::new(listener.max_connections),
                        per_client: per_client(listener),
                        rate: Limited::new(self.workers),
                        warnings: Arc::default(),
                        tallies: Tallies::shared(self.workers),
                    };
                    // Nobody is there, and its doors have closed long ago.
                    let unused = |known: &KnownListener| {
                        known.gone.is_some_and(|since| since < now) && known.connections.used() == 0
                    };
                    let many = self.listeners.len() > self.listener_ids.len() + GONE;
                    match self.listeners.iter().position(|known| many && unused(known)) {
                        Some(id) => {
                            self.listeners[id] = known;
                            id
                        }
                        None => {
                            self.listeners.push(known);
                            self.listeners.len() - 1
                        }
                    }
                }
            };
            ids.push(ListenerId(id as u16));
        }
        self.listener_ids = ids;
    }

    /// Looks after those that leave: who is gone, who has had its time, whose state nobody has any more. `seen` is the
    /// generation that all workers go by. True when there is something new to publish.
    pub(super) fn settle(&mut self, config: &Config, now: Tick, seen: u64) -> bool {
        let slots = &mut self.slots;
        self.retired.retain(|state| {
            let used = Arc::strong_count(state) > 1 || state.idle.used() > 0;
            if !used {
                slots.give_back(state.slot);
            }
            used
        });
        if !self.drains {
            return false;
        }
        let (mut new, mut drains) = (false, false);
        for (id, pool) in self.pools.iter_mut().enumerate() {
            let (timeout, gone) = match &pool.at {
                Ok(at) => (config.pools[*at].drain_timeout, false),
                Err(last) => (last.drain_timeout, true),
            };
            // Until then it serves those who came by a listener that went with it.
            let id = PoolId(id as u32);
            let waited_for = || pool.queue.get().is_some_and(|queue| queue.is_waited_in());
            let needed = gone && (waited_for() || self.listeners.iter().any(|known| known.may_pick(id, now)));
            let seen = if needed { 0 } else { seen };
            new |= pool.settle(timeout, (now, seen), &mut self.retired);
            drains |= !pool.leavers.is_empty() || pool.present.values().any(|present| present.draining.is_some());
        }
        self.drains = drains;
        new
    }

    /// True while some backend is looked after by [`Known::settle`].
    pub(super) fn drains(&self) -> bool {
        self.drains || !self.retired.is_empty()
    }

    /// Those that have begun to leave since this was last asked.
    pub(super) fn take_left(&mut self) -> Vec<BackendSlot> {
        mem::take(&mut self.left)
    }

    /// Backends that leave.
    pub(super) fn leaving(&self) -> impl Iterator<Item = &Leaver> {
        self.pools.iter().flat_map(|pool| &pool.leavers)
    }

    #[cfg(test)]
    pub(super) fn slots_taken(&self) -> usize {
        self.slots.taken.len()
    }
}

fn per_client(listener: &config::Listener) -> Option<Arc<PerClient>> {
    (listener.max_per_client > 0).then(|| PerClient::new(listener.max_per_client))
}
