//! Writes of the admin API on their way: judged one after the other, kept, put in force together, and answered when every
//! worker has seen that.
//!
//! Knows: the state of the configuration, and who waits for what. Must not touch: the plan; it is told what to adopt.
//! Nothing here waits: who is to be answered later is looked after at each turn of control.

use crate::base::ids::{SessionId, WorkerId};
use crate::base::time::Tick;
use crate::config::{Address, Config};
use crate::control::expiry::Expiry;
use crate::control::overlay::Overlay;
use crate::control::render;
use crate::control::writes::{Judged, Reply, State, World};
use crate::link::plain::PlainStream;
use crate::shared::admin::Answer;
use crate::shared::hub::Hub;
use crate::shared::mail::{Adopted, ENDS, WorkerMail, WorkerPost};
use crate::shared::order::{Change, Order};
use crate::shared::snapshot::Snapshot;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How long workers may take to see what was changed, before that is told in place of the answer.
const SEEN: Duration = Duration::from_secs(5);
/// How long the address of a new backend may take to be resolved, before there is an answer without it.
const NAMED: Duration = Duration::from_secs(2);
/// How many may wait when another one wants to wait until a backend is gone: those wait for longer than all others, and
/// whether their clients are still there is not known here.
const MOST: usize = 4096;
/// What is told when something cannot be kept.
const NOT_KEPT: &str = "state_file cannot be written";
/// What is told while another process is to take the place of this one.
const HALTED: &str = "an upgrade is under way, so nothing is changed just now; try again in a second";

/// Keeps what the API has changed, before it is answered.
pub type Keep = Box<dyn FnMut(Keeping<'_>) -> io::Result<()> + Send>;

/// What is to be done with what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping<'a> {
    /// It is this from now on: the bytes of an [`Overlay`].
    Bytes(&'a [u8]),
    /// Another process may keep it from now on. Anything else means that none has.
    Release,
    /// It is kept here from now on, as it is now: the bytes of an [`Overlay`].
    Take(&'a [u8]),
}

/// What the configuration in force is made of, and where what the admin API changes is kept.
pub struct Sources {
    state: State,
    keep: Keep,
    broken: Option<String>,
    waiting: bool,
    unkept: bool,
}

impl Sources {
    /// `file` alone; what the API changes is kept nowhere.
    pub fn new(file: Config) -> Sources {
        let (state, _) = State::new(file, Overlay::default());
        Sources { state, keep: Box::new(|_| Ok(())), broken: None, waiting: false, unkept: false }
    }

    /// The same with what the API has changed in an earlier life, kept from now on by `keep`. What of it has no place over
    /// the file is dropped, and told on the log.
    pub fn with(self, overlay: Overlay, keep: Keep) -> Sources {
        let (state, dropped) = State::new(Config::clone(&self.state.file), overlay);
        dropped.iter().for_each(|dropped| log::warn!("{dropped}"));
        Sources { state, keep, unkept: !dropped.is_empty(), ..self }
    }

    /// The same where what was kept could not be read: `/lb/config` tells that.
    pub fn broken(self, why: String) -> Sources {
        Sources { broken: Some(why), ..self }
    }

    /// The same while another process serves still: until [`ControlMail::Resume`](crate::shared::mail::ControlMail::Resume)
    /// nothing is changed, nobody's time is over, and nothing is kept.
    pub fn waiting(self, waiting: bool) -> Sources {
        Sources { waiting, ..self }
    }

    /// See [`Sources::waiting`].
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.state.config
    }
}

/// What a reload has put in force.
pub(super) struct Reloaded {
    pub(super) config: Config,
    /// What the API had changed and has no place any more, as lines.
    pub(super) dropped: Vec<String>,
    /// What was wished for and could not be done.
    pub(super) problem: Option<String>,
}

/// Whom to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct To {
    pub(super) worker: WorkerId,
    pub(super) session: SessionId,
}

/// Somebody who waits for an answer.
struct Wait {
    to: To,
    reply: Result<Reply, Answer>,
    /// What the configuration is then: its ETag.
    edition: u64,
    /// Which snapshot everybody must have seen; `None`: it is not there yet.
    generation: Option<u64>,
    /// What must be resolved first, for at most so long.
    name: Option<(Address, Tick)>,
    /// When patience ends.
    until: Tick,
    /// When waiting for a backend to be gone ends.
    gone_until: Tick,
}

/// See the module.
pub(super) struct Desk {
    /// What is in force.
    state: State,
    /// The same after what was ordered since.
    trial: State,
    waits: Vec<Wait>,
    expiry: Expiry,
    keep: Keep,
    broken: Option<String>,
    /// What is kept is not what is in force.
    unkept: bool,
    /// Since when another process is to take the place of this one: nothing is changed here.
    halted: Option<Tick>,
    /// The edition that is in force, for whoever is told of it by others.
    edition: Arc<AtomicU64>,
}

impl Desk {
    /// A desk over `sources`, which are the configuration of the number `edition`. Those that registered in an earlier life have their whole time from `now` on.
    pub(super) fn new(sources: Sources, edition: u64, now: Tick) -> Desk {
        let Sources { state, keep, broken, waiting, unkept } = sources;
        let state = State { edition, ..state };
        let mut expiry = Expiry::default();
        for (pool, id, ttl) in state.overlay.registrations() {
            expiry.renew((pool.to_owned(), id.to_owned()), ttl, now);
        }
        let edition = Arc::new(AtomicU64::new(state.edition));
        let halted = waiting.then_some(now);
        Desk { trial: state.clone(), state, waits: Vec::new(), expiry, keep, broken, unkept, halted, edition }
    }

    /// What is in force.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Why what was kept could not be read at the start.
    pub(super) fn problem(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Where the edition in force can be read.
    pub(super) fn edition(&self) -> Arc<AtomicU64> {
        self.edition.clone()
    }

    /// Takes an order. True when it changes something. `resolves` says whether a name is known already.
    pub(super) fn take(
        &mut self,
        to: To,
        order: &Order,
        world: &World<'_>,
        resolves: impl Fn(&Address) -> bool,
        now: Tick,
    ) -> bool {
        let (until, gone_until) = (now.after(SEEN), now.after(order.wait()));
        let wait = |reply, edition| Wait { to, reply, edition, generation: None, name: None, until, gone_until };
        let judged = match self.waits.len() < MOST || order.wait().is_zero() {
            true if self.halted.is_some() => match self.trial.judge(order, world) {
                // A registration that goes on as it is changes nothing, and a service counts on it to be heard.
                Ok(renewal @ Judged { next: None, renewed: Some(_), .. }) => Ok(renewal),
                _ => Err(Answer::problem(503, HALTED).with("Retry-After", "1")),
            },
            true => self.trial.judge(order, world),
            false => Err(Answer::problem(503, "too many wait already; leave out wait, and look at /lb/backends")),
        };
        match judged {
            Ok(Judged { next, reply, renewed }) => {
                if let Some((pool, id, ttl)) = renewed {
                    // The time since a halt is given back to all at its end.
                    self.expiry.renew((pool, id), ttl, self.halted.unwrap_or(now));
                }
                let changes = next.is_some();
                if let Some(next) = next {
                    self.trial.put(next);
                }
                let mut wait = wait(Ok(reply), self.trial.edition);
                if let (true, Some(address)) = (changes, address_of(&order.change))
                    && !resolves(address)
                {
                    wait.until = wait.until.max(now.after(NAMED + SEEN));
                    wait.name = Some((address.clone(), now.after(NAMED)));
                }
                self.waits.push(wait);
                changes
            }
            Err(answer) => {
                self.waits.push(wait(Err(answer), self.trial.edition));
                false
            }
        }
    }

    /// Whether a reload that is ordered may go on; one that may not is refused by [`Desk::take`]: it was based on another
    /// configuration, or nothing is to change just now.
    pub(super) fn may(&self, order: &Order) -> bool {
        self.halted.is_none() && self.trial.is_base_of(order).is_ok()
    }

    /// From now on nothing is changed: what the API has changed goes to another process.
    /// Registrations can be renewed, and none is over.
    pub(super) fn halt(&mut self, now: Tick) -> Vec<u8> {
        self.halted.get_or_insert(now);
        if let Err(error) = (self.keep)(Keeping::Release) {
            log::error!("what the admin API changes cannot be given away: {error}");
        }
        self.state.overlay.to_bytes()
    }

    /// Goes on after [`Desk::halt`], or begins: nobody's time has run since. What is kept is kept here from now on, also where
    /// that is another place than before.
    pub(super) fn resume(&mut self, now: Tick) {
        if let Some(since) = self.halted.take() {
            self.expiry.later(now.since(since));
        }
        if let Err(error) = (self.keep)(Keeping::Take(&self.state.overlay.to_bytes())) {
            log::error!(
                "{NOT_KEPT}: {error}; what the admin API has changed is in force, and kept with its next change"
            );
        }
    }

    /// The start is over: what is in force is kept, if that is something else; and whoever has registered has all of its
    /// time from now on, since another process may have heard it last.
    pub(super) fn started(&mut self, now: Tick) {
        for (pool, id, ttl) in self.state.overlay.registrations() {
            self.expiry.renew((pool.to_owned(), id.to_owned()), ttl, now);
        }
        if std::mem::take(&mut self.unkept) {
            self.keep_again();
        }
    }

    /// Keeps what is in force once more.
    pub(super) fn keep_again(&mut self) {
        if let Err(error) = (self.keep)(Keeping::Bytes(&self.state.overlay.to_bytes())) {
            log::error!("{NOT_KEPT}: {error}; it holds something else than what is in force, until the next change");
        }
    }

    /// Keeps what [`Desk::reload`] of `file` leaves of what the API has changed if that is let go, before anything else is done.
    ///
    /// # Errors
    /// It cannot be kept: why. Nothing is changed then.
    pub(super) fn discard(&mut self, file: Config) -> Result<(), String> {
        let (next, _) = self.state.reloaded(file, true);
        if next.overlay == self.state.overlay {
            return Ok(());
        }
        let kept = (self.keep)(Keeping::Bytes(&next.overlay.to_bytes()));
        kept.map_err(|error| format!("{NOT_KEPT}, so nothing is changed: {error}; mend that and try again"))
    }

    /// Takes out registrations that are over. True when there were any.
    pub(super) fn expire(&mut self, now: Tick) -> bool {
        if self.halted.is_some() {
            return false;
        }
        let over = self.trial.expire(self.expiry.take(now));
        for (pool, id) in &over {
            log::info!("pool {pool}: backend {id} has not renewed its registration in time and drains");
        }
        !over.is_empty()
    }

    /// The configuration once the file is `file`, with `discard` without what the API has changed; and what of that has no
    /// place over it, as lines. Changes nothing.
    pub(super) fn reloaded(&self, file: &Config, discard: bool) -> (Config, Vec<String>) {
        let (next, dropped) = self.trial.reloaded(file.clone(), discard);
        (Config::clone(&next.config), dropped.iter().map(ToString::to_string).collect())
    }

    /// The same, and it is in force from now on: sockets have moved already, so that nothing can be refused here any more.
    /// Where what is let go by `discard` cannot be taken out of what is kept, it stays.
    pub(super) fn reload(&mut self, file: &Config, discard: bool, now: Tick) -> Reloaded {
        // What was ordered before counts; whoever is to be told that it cannot be kept has been.
        let _ = self.commit(now);
        let (mut next, mut dropped) = self.state.reloaded(file.clone(), discard);
        let mut problem = None;
        if next.overlay != self.state.overlay
            && let Err(error) = (self.keep)(Keeping::Bytes(&next.overlay.to_bytes()))
        {
            log::error!(
                "{NOT_KEPT}: {error}; what of it has no place over the file is dropped again at the next start"
            );
            if discard {
                (next, dropped) = self.state.reloaded(file.clone(), false);
                problem = Some(format!(
                    "{NOT_KEPT}: {error}; the file is in force, but what the API has changed stays; mend that and try again"
                ));
            }
        }
        self.trial = next;
        self.settle();
        let dropped = dropped.iter().map(ToString::to_string).collect();
        Reloaded { config: Config::clone(&self.state.config), dropped, problem }
    }

    /// Keeps what was ordered since the last time. The configuration that is to be put in force now, if there is one.
    ///
    /// # Errors
    /// It cannot be kept, so it is not changed either: why. Everybody who ordered something is told.
    pub(super) fn commit(&mut self, now: Tick) -> Result<Option<Config>, String> {
        if self.trial.edition == self.state.edition {
            return Ok(None);
        }
        if self.trial.overlay != self.state.overlay
            && let Err(error) = (self.keep)(Keeping::Bytes(&self.trial.overlay.to_bytes()))
        {
            log::error!("what the admin API changes cannot be kept, so it is not changed: {error}");
            let detail =
                format!("state_file cannot be written, so nothing is changed: {error}; mend that and try again");
            for wait in self.waits.iter_mut().filter(|wait| wait.generation.is_none() && wait.reply.is_ok()) {
                wait.reply = Err(Answer::problem(500, &detail));
                wait.edition = self.state.edition;
            }
            self.trial = self.state.clone();
            for (pool, id, ttl) in self.state.overlay.registrations() {
                // What was over and cannot be taken out is looked at again.
                let name = (pool.to_owned(), id.to_owned());
                if !self.expiry.knows(&name) {
                    self.expiry.renew(name, ttl, now);
                }
            }
            return Err(detail);
        }
        self.settle();
        Ok(Some(Config::clone(&self.state.config)))
    }

    /// What was tried is what is in force.
    fn settle(&mut self) {
        self.state = self.trial.clone();
        self.edition.store(self.state.edition, Relaxed);
        let overlay = &self.state.overlay;
        self.expiry.retain(|(pool, id)| overlay.registered(pool, id).is_some());
    }

    /// A name has been resolved, or does not resolve.
    pub(super) fn resolved(&mut self, host: &str, port: u16) {
        for wait in &mut self.waits {
            let is_it = |address: &Address| matches!(address, Address::Name { host: own, port: at } if own == host && *at == port);
            wait.name.take_if(|(address, _)| is_it(address));
        }
    }

    /// All that was taken is in force with the snapshot of that generation.
    pub(super) fn published(&mut self, generation: u64, now: Tick) {
        for wait in self.waits.iter_mut().filter(|wait| wait.name.is_none() && wait.generation.is_none()) {
            wait.generation = Some(generation);
            // Not from when it was ordered: a slow disk is no slow worker.
            wait.until = now.after(SEEN);
        }
    }

    /// When there is something to do even if nothing happens.
    pub(super) fn next(&self) -> Option<Tick> {
        let waits = self.waits.iter().map(|wait| match (&wait.name, &wait.reply) {
            (Some((_, until)), _) => *until,
            (None, Ok(Reply::Removed { wait: Some(_), .. })) => wait.gone_until,
            // It waits for workers to come round, or for room in the box of one.
            _ => Tick(0),
        });
        waits.chain(self.expiry.next().filter(|_| self.halted.is_none())).min()
    }

    /// Answers all whose time has come.
    pub(super) fn answer(&mut self, hub: &Hub, posts: &[WorkerPost<PlainStream>], now: Tick) {
        if self.waits.is_empty() {
            return;
        }
        let (current, config) = (hub.current(), &*self.state.config);
        self.waits.retain_mut(|wait| {
            if wait.name.take_if(|(_, until)| now >= *until).is_some() {
                wait.generation = Some(current.generation);
            }
            let Some(answer) = wait.due(hub, &current, config, now) else { return true };
            let Some(post) = posts.get(usize::from(wait.to.worker.0)) else { return false };
            let answer = answer.about(wait.edition);
            // A worker whose box is full is tried again, for as long as its session can be waiting.
            post.offer(WorkerMail::Answer { session: wait.to.session, answer }).is_err()
                && now < wait.until.max(wait.gone_until)
        });
    }
}

impl Wait {
    /// The answer, if its time has come.
    fn due(&self, hub: &Hub, current: &Snapshot, config: &Config, now: Tick) -> Option<Answer> {
        let reply = match &self.reply {
            Ok(reply) => reply,
            Err(answer) => return Some(answer.clone()),
        };
        let generation = self.generation?;
        if !hub.all_seen(generation) {
            let detail = "the change is made, but not every worker has come round to it yet; look at /lb/backends";
            return (now >= self.until).then(|| Answer::problem(504, detail));
        }
        match reply {
            Reply::Told(value) => Some(render::json(200, value)),
            Reply::Backend { status, pool, id } => Some(render::backend(*status, current, pool, id, now)),
            Reply::Removed { pool, id, wait } => {
                let leaving = render::leaving(current, config, pool, id);
                let (status, state) = match (&leaving, wait) {
                    (None, _) => (200, "removed"),
                    (Some(_), None) => (200, "draining"),
                    (Some(_), Some(_)) if now >= self.gone_until => (202, "draining"),
                    (Some(_), Some(_)) => return None,
                };
                let left = leaving.map_or(0, |backend| backend.state.active.used());
                let told = json!({ "id": id, "pool": pool, "state": state, "active_connections": left });
                Some(render::json(status, &told))
            }
        }
    }
}

/// The answer to a reload that came to `adopted`.
pub(super) fn reload_answer(dry_run: bool, edition: &AtomicU64, adopted: Adopted) -> Answer {
    match adopted {
        Ok(changes) => {
            let mut told = json!(changes);
            told["dry_run"] = json!(dry_run);
            render::json(200, &told).about(edition.load(Relaxed))
        }
        Err(errors) => {
            let errors = errors.join("; ");
            match () {
                () if errors.starts_with(NOT_KEPT) => Answer::problem(500, &errors),
                () if errors.starts_with(ENDS) => Answer::problem(503, &errors).with("Retry-After", "1"),
                () => Answer::problem(400, &format!("nothing is changed: {errors}")),
            }
        }
    }
}

/// Where the backend is that `change` is about, if it brings an address with it.
fn address_of(change: &Change) -> Option<&Address> {
    match change {
        Change::Add { added, .. } => Some(&added.address),
        Change::Register { registered, .. } => Some(&registered.address),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
