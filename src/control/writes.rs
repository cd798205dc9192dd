//! What an order of the admin API comes to: a new state of the configuration, or why there is none. Pure.
//!
//! Knows: configurations, the overlay. Must not touch: the plan, the clock, whoever waits for the answer.
//! Read [`State::judge`] first.

use crate::base::ids::ListenerId;
use crate::config::{Address, Backend, Config, Pool};
use crate::control::overlay::{Dropped, Entry, Origin, Overlay};
use crate::shared::admin::Answer;
use crate::shared::order::{Added, Change, Order, Registered, Which};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The configuration in force, and what it is made of.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The file, or what stands for it.
    pub(super) file: Arc<Config>,
    /// What the API has changed.
    pub(super) overlay: Arc<Overlay>,
    /// Both together.
    pub(super) config: Arc<Config>,
    /// Counts the changes: what ETag tells.
    pub(super) edition: u64,
}

/// What an order comes to.
#[derive(Debug)]
pub(super) struct Judged {
    /// What it changes; `None`: nothing.
    pub(super) next: Option<Next>,
    /// What is answered then.
    pub(super) reply: Reply,
    /// A registration that begins, or goes on: its pool, its id, for how long.
    pub(super) renewed: Option<(String, String, Duration)>,
}

/// A change of one backend, for [`State::put`].
#[derive(Debug)]
pub(super) struct Next {
    pool: String,
    id: String,
    /// What the overlay says of it then.
    entry: Option<Entry>,
    /// What it is then.
    backend: Option<Backend>,
}

/// What is answered when an order is done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    /// The backend, as it is then.
    Backend {
        /// 200, or 201 for a new one.
        status: u16,
        /// Its pool.
        pool: String,
        /// Its id.
        id: String,
    },
    /// That a backend is gone, or is on its way out.
    Removed {
        /// Its pool.
        pool: String,
        /// Its id.
        id: String,
        /// How long to wait until it is gone.
        wait: Option<Duration>,
    },
    /// This.
    Told(Value),
}

/// What judging needs to know besides the configuration.
pub(super) struct World<'a> {
    /// Which of our own listeners takes what a pool sends to an address.
    pub(super) own: &'a dyn Fn(usize, &Address) -> Option<SocketAddr>,
    /// Where a listener is in the configuration.
    pub(super) listener: &'a dyn Fn(ListenerId) -> Option<usize>,
    /// Whether a backend that is in the configuration no more is still on its way out.
    pub(super) leaving: &'a dyn Fn(&Config, &str, &str) -> bool,
}

impl State {
    /// `file` with `overlay`, and what of that has no place over it.
    pub(super) fn new(file: Config, mut overlay: Overlay) -> (State, Vec<Dropped>) {
        let (config, dropped) = overlay.over(&file);
        overlay.forget(&dropped, &file);
        let state = State { file: Arc::new(file), overlay: Arc::new(overlay), config: Arc::new(config), edition: 1 };
        (state, dropped)
    }

    /// The state once the file is `file`.
    pub(super) fn reloaded(&self, file: Config, discard: bool) -> (State, Vec<Dropped>) {
        let overlay = if discard { Overlay::default() } else { Overlay::clone(&self.overlay) };
        let (state, dropped) = State::new(file, overlay);
        // Read again and found to be the same, it is no other configuration.
        let same = state.file == self.file && state.overlay == self.overlay;
        (State { edition: self.edition + u64::from(!same), ..state }, dropped)
    }

    /// What `order` comes to.
    ///
    /// # Errors
    /// The answer, when it is refused.
    pub(super) fn judge(&self, order: &Order, world: &World<'_>) -> Result<Judged, Answer> {
        self.is_base_of(order)?;
        let judged = match &order.change {
            Change::Add { pool, id, added } => self.add(pool.as_deref(), id, added, order, world),
            Change::Remove { which, wait } => self.remove(which, *wait, world),
            Change::Enable(which) => {
                self.field(which, world, |overlay, file, pool| overlay.enable(file, pool, &which.id))
            }
            Change::Disable(which) => {
                self.field(which, world, |overlay, file, pool| overlay.disable(file, pool, &which.id))
            }
            Change::Drain(which) => {
                self.field(which, world, |overlay, file, pool| overlay.drain(file, pool, &which.id))
            }
            Change::Weight(which, weight) => {
                self.field(which, world, |overlay, file, pool| overlay.set_weight(file, pool, &which.id, *weight))
            }
            Change::Register { pool, id, registered } => self.register(pool, id, registered, world),
            Change::Deregister { pool, id } => self.deregister(pool, id),
            Change::Reload { .. } => Err(Answer::problem(500, "this cannot be done here; please report it")),
        }?;
        Ok(if order.dry_run { self.told(judged) } else { judged })
    }

    /// Whether `order` may be based on this configuration.
    ///
    /// # Errors
    /// 412, when it says that it was based on another one.
    pub(super) fn is_base_of(&self, order: &Order) -> Result<(), Answer> {
        if let Some(tags) = &order.only_if
            && !tags.name(self.edition)
        {
            let detail = format!(
                "the configuration is not the one of If-Match any more; read it again, and send its ETag, \"{}\" as I write this",
                self.edition
            );
            return Err(Answer { generation: Some(self.edition), ..Answer::problem(412, &detail) });
        }
        Ok(())
    }

    /// What would change, in place of changing it.
    fn told(&self, judged: Judged) -> Judged {
        let (pool, id) = match &judged.reply {
            Reply::Backend { pool, id, .. } | Reply::Removed { pool, id, .. } => (pool, id),
            Reply::Told(_) => return judged,
        };
        let known = self.config.pools.iter().find(|known| known.name == *pool);
        let before = known.and_then(|known| known.backends.iter().find(|backend| backend.id == *id)).map(backend_json);
        let after = judged.next.as_ref().map_or(before.clone(), |next| next.backend.as_ref().map(backend_json));
        let told = json!({
            "dry_run": true, "pool": pool, "id": id, "changes": before != after, "before": before, "after": after,
        });
        Judged { next: None, reply: Reply::Told(told), renewed: None }
    }

    fn add(
        &self,
        pool: Option<&str>,
        id: &str,
        added: &Added,
        order: &Order,
        world: &World<'_>,
    ) -> Result<Judged, Answer> {
        let at = match pool {
            Some(name) => self.pool(name, 400)?,
            None if self.config.pools.len() == 1 => 0,
            None => {
                let listener = (world.listener)(order.listener).and_then(|at| self.config.listeners.get(at));
                listener.and_then(|listener| listener.pool).ok_or_else(|| {
                    let names = self.pool_names();
                    Answer::problem(400, &format!("pool: is missing; write one of {names}"))
                })?
            }
        };
        let pool = &self.config.pools[at];
        if pool.backends.iter().any(|backend| backend.id == id) {
            let detail = format!(
                "id: pool {:?} has a backend {id:?} already; choose another id, or remove that one first",
                pool.name
            );
            return Err(Answer::problem(409, &detail));
        }
        self.free(at, id, &added.address, world)?;
        let reply = Reply::Backend { status: 201, pool: pool.name.clone(), id: id.to_owned() };
        let next = self.after(&pool.name, id, |overlay, file| overlay.add(file, &pool.name, id, added));
        Ok(Judged { next, reply, renewed: None })
    }

    fn remove(&self, which: &Which, wait: Option<Duration>, world: &World<'_>) -> Result<Judged, Answer> {
        let at = match self.find(which) {
            Ok(at) => at,
            // It was told to go already, and is on its way.
            Err(refused) => {
                let pool = self.leaving(which, world).filter(|_| refused.status == 404).ok_or(refused)?;
                let reply = Reply::Removed { pool: pool.to_owned(), id: which.id.clone(), wait };
                return Ok(Judged { next: None, reply, renewed: None });
            }
        };
        let pool = &self.config.pools[at].name;
        let reply = Reply::Removed { pool: pool.clone(), id: which.id.clone(), wait };
        let next = self.after(pool, &which.id, |overlay, file| overlay.remove(file, pool, &which.id));
        Ok(Judged { next, reply, renewed: None })
    }

    /// The pool of a backend that was told to go already, and is on its way.
    fn leaving(&self, which: &Which, world: &World<'_>) -> Option<&str> {
        let names = self.config.pools.iter().map(|pool| &*pool.name);
        let mut meant = names.filter(|name| which.pool.as_deref().is_none_or(|pool| pool == *name));
        meant.find(|name| (world.leaving)(&self.config, name, &which.id))
    }

    fn field(
        &self,
        which: &Which,
        world: &World<'_>,
        change: impl FnOnce(&mut Overlay, &Config, &str),
    ) -> Result<Judged, Answer> {
        let at = self.find(which).map_err(|refused| match self.leaving(which, world) {
            Some(pool) if refused.status == 404 => {
                let detail = format!(
                    "backend {:?} of pool {pool:?} is being removed, and drains; add it again to bring it back",
                    which.id
                );
                Answer::problem(404, &detail)
            }
            _ => refused,
        })?;
        let pool = &self.config.pools[at].name;
        let reply = Reply::Backend { status: 200, pool: pool.clone(), id: which.id.clone() };
        let next = self.after(pool, &which.id, |overlay, file| change(overlay, file, pool));
        Ok(Judged { next, reply, renewed: None })
    }

    fn register(&self, pool: &str, id: &str, told: &Registered, world: &World<'_>) -> Result<Judged, Answer> {
        let at = self.pool(pool, 404)?;
        let renewed = Some((pool.to_owned(), id.to_owned(), told.ttl));
        let known = self.overlay.registered(pool, id);
        let status = if known.is_some() { 200 } else { 201 };
        let reply = Reply::Backend { status, pool: pool.to_owned(), id: id.to_owned() };
        if known.as_ref() == Some(told) {
            return Ok(Judged { next: None, reply, renewed });
        }
        if known.is_none() {
            let whose = match self.overlay.origin(pool, id) {
                Origin::Added => Some("an operator has added"),
                _ => self.in_file(pool, id).then_some("the configuration file has"),
            };
            if let Some(whose) = whose {
                let detail = format!("id: {whose} a backend {id:?} in pool {pool:?}; register under another id");
                return Err(Answer::problem(409, &detail));
            }
        }
        self.free(at, id, &told.address, world)?;
        let next = self.after(pool, id, |overlay, file| overlay.register(file, pool, id, told));
        Ok(Judged { next, reply, renewed })
    }

    fn deregister(&self, pool: &str, id: &str) -> Result<Judged, Answer> {
        self.pool(pool, 404)?;
        if self.overlay.registered(pool, id).is_none() {
            let which = Which { id: id.to_owned(), pool: Some(pool.to_owned()) };
            self.find(&which)?;
            let detail = format!(
                "backend {id:?} of pool {pool:?} has not registered itself; use DELETE /lb/backends/ID/remove for it"
            );
            return Err(Answer::problem(409, &detail));
        }
        let reply = Reply::Removed { pool: pool.to_owned(), id: id.to_owned(), wait: None };
        let next = self.after(pool, id, |overlay, file| overlay.remove(file, pool, id));
        Ok(Judged { next, reply, renewed: None })
    }

    /// Takes out those of `over`, each a pool and an id, that have registered: all at once, however many they are. Which.
    pub(super) fn expire(&mut self, mut over: Vec<(String, String)>) -> Vec<(String, String)> {
        over.retain(|(pool, id)| self.overlay.registered(pool, id).is_some());
        if !over.is_empty() {
            Arc::make_mut(&mut self.overlay).remove_all(&self.file, &over);
            self.config = Arc::new(self.overlay.over(&self.file).0);
            self.edition += 1;
        }
        over
    }

    /// What `change` comes to, which is about one backend; `None` when all is the same.
    fn after(&self, pool: &str, id: &str, change: impl FnOnce(&mut Overlay, &Config)) -> Option<Next> {
        let mut overlay = self.overlay.only(pool, id);
        change(&mut overlay, &self.file);
        let entry = overlay.entry(pool, id).cloned();
        if entry.as_ref() == self.overlay.entry(pool, id) {
            return None;
        }
        let in_file = self.file.pools.iter().find(|known| known.name == pool);
        let backend = in_file.and_then(|known| overlay.backend(known, id));
        Some(Next { pool: pool.to_owned(), id: id.to_owned(), entry, backend })
    }

    /// Makes a change, in place: nothing is built anew, so that many can be made one after the other.
    pub(super) fn put(&mut self, Next { pool, id, entry, backend }: Next) {
        self.edition += 1;
        let overlay = Arc::make_mut(&mut self.overlay);
        overlay.set(&pool, &id, entry);
        let file = self.file.pools.iter().find(|known| known.name == pool);
        let known = Arc::make_mut(&mut self.config).pools.iter_mut().find(|known| known.name == pool);
        let (Some(file), Some(known)) = (file, known) else { return };
        if let Some(at) = known.backends.iter().position(|backend| backend.id == id) {
            known.backends.remove(at);
        }
        if let Some(backend) = backend {
            let at = overlay.place(file, &id, &known.backends);
            known.backends.insert(at, backend);
        }
    }

    fn in_file(&self, pool: &str, id: &str) -> bool {
        let pool = self.file.pools.iter().find(|known| known.name == pool);
        pool.is_some_and(|pool| pool.backends.iter().any(|backend| backend.id == id))
    }

    fn pool_names(&self) -> String {
        let names: Vec<String> = self.config.pools.iter().map(|pool| format!("{:?}", pool.name)).collect();
        names.join(", ")
    }

    /// The pool of that name, or `status`.
    fn pool(&self, name: &str, status: u16) -> Result<usize, Answer> {
        self.config.pools.iter().position(|pool| pool.name == name).ok_or_else(|| {
            Answer::problem(status, &format!("pool: there is no pool {name:?}; write one of {}", self.pool_names()))
        })
    }

    /// The pool of a backend that is there.
    fn find(&self, which: &Which) -> Result<usize, Answer> {
        let named = which.pool.as_deref().map(|name| self.pool(name, 404)).transpose()?;
        let has = |pool: &Pool| pool.backends.iter().any(|backend| backend.id == which.id);
        let all = self.config.pools.iter().enumerate();
        let meant = all.filter(|(at, pool)| named.is_none_or(|named| named == *at) && has(pool));
        let meant: Vec<usize> = meant.map(|(at, _)| at).collect();
        match meant[..] {
            [one] => Ok(one),
            [] => {
                let place = which.pool.as_ref().map_or("any pool".to_owned(), |pool| format!("pool {pool:?}"));
                let detail =
                    format!("there is no backend {:?} in {place}; GET /lb/backends lists all of them", which.id);
                Err(Answer::problem(404, &detail))
            }
            _ => {
                let names: Vec<String> = meant.iter().map(|at| format!("{:?}", self.config.pools[*at].name)).collect();
                let detail = format!(
                    "there is a backend {:?} in each of the pools {}; say which with ?pool=NAME",
                    which.id,
                    names.join(", ")
                );
                Err(Answer::problem(409, &detail))
            }
        }
    }

    /// Whether `address` may be that of the backend `id` of the pool at `at`.
    fn free(&self, at: usize, id: &str, address: &Address, world: &World<'_>) -> Result<(), Answer> {
        let pool = &self.config.pools[at];
        if let Some(bound) = (world.own)(at, address) {
            let detail = format!(
                "host, port: {address} is where l4lb itself listens ({bound}), so requests would come back for ever; \
                 write the port of a server"
            );
            return Err(Answer::problem(400, &detail));
        }
        let canonical = address.canonical();
        let mut others = pool.backends.iter().filter(|backend| backend.id != id);
        match others.find(|backend| backend.address.canonical() == canonical) {
            None => Ok(()),
            Some(other) => {
                let detail = format!(
                    "host, port: {address} is backend {:?} of pool {:?} already; use another address, or remove that one \
                     first",
                    other.id, pool.name
                );
                Err(Answer::problem(409, &detail))
            }
        }
    }
}

/// A backend as it is configured.
pub(super) fn backend_json(backend: &Backend) -> Value {
    let Backend { id, address, weight, max_connections, backup, disabled, draining, leaving: _, check } = backend;
    let mut told = json!({
        "id": id, "address": address.to_string(), "weight": weight, "max_connections": max_connections,
        "backup": backup, "disabled": disabled, "draining": draining,
    });
    if let Some(check) = check {
        told["health_check_url"] = json!(check.to_string());
    }
    told
}

#[cfg(test)]
mod tests;
