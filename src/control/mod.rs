//! The only writer of the snapshot: takes mail, builds, publishes, and keeps what was until nobody works by it.
//!
//! Knows: the configuration and everybody's mailboxes. Must not touch: sockets of clients or backends.

mod answers;
mod checks;
mod desk;
mod diff;
mod expiry;
mod inforce;
mod known;
mod limits;
mod loops;
mod overlay;
mod plan;
mod render;
mod verdicts;
mod writes;

pub use desk::{Keep, Keeping, Sources};
pub use overlay::{Dropped, Overlay, Why};
pub use plan::Plan;
pub use verdicts::Verdicts;

use crate::base::ids::ListenerId;
use crate::base::time::{Clock, Tick};
use crate::config::{Config, Global};
use crate::control::answers::{About, Answers, Due};
use crate::control::desk::{Desk, Reloaded, To};
use crate::control::writes::World;
use crate::link::plain::PlainStream;
use crate::shared::changes::Changes;
use crate::shared::checks::Target;
use crate::shared::hub::Hub;
use crate::shared::mail::{Adopt, ControlMail, HostPort, Listen, Moves, Reload, Reply, WorkerMail, WorkerPost};
use crate::shared::order::{self, Order};
use crate::shared::snapshot::Snapshot;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How often control looks after the workers.
const LOOK: Duration = Duration::from_millis(500);
/// How often it looks whether a snapshot is seen by all, while one is not.
const SOON: Duration = Duration::from_millis(1);
/// A worker that has been in one turn for this long is stalled, in milliseconds.
const STALL: u64 = 1_000;

/// Backends that an idle connection may be left to, told to a worker at once.
const FORGET: usize = 1_024;
/// How often control looks whether those that leave are gone.
const DRAINS: Duration = Duration::from_millis(50);

/// What others do for control. None of it waits for anything.
pub struct Orders {
    /// From now on these are checked, and no others.
    pub check: Box<dyn Fn(Vec<Target>) + Send>,
    /// Reads the configuration again, and mails what comes of it.
    pub reload: Box<dyn Fn(Reload) + Send>,
    /// From now on these names are resolved, and no others.
    pub names: Box<dyn Fn(Vec<HostPort>) + Send>,
    /// What is said of the whole process holds from now on, as far as it can while it runs.
    pub global: Box<dyn Fn(&Global) + Send>,
}

/// What mail does to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Nothing,
    /// Who is up.
    Health,
    /// Who is there, or where.
    Backends,
}

/// A reload that is on its way to the workers.
struct Pending {
    /// The first generation that has it.
    generation: u64,
    /// Shared by all orders that are a part of it.
    orders: Arc<()>,
    reply: Reply,
    changes: Changes,
}

/// The control thread.
pub struct Control {
    plan: Plan,
    hub: Arc<Hub>,
    posts: Vec<WorkerPost<PlainStream>>,
    clock: Clock,
    mailbox: Receiver<ControlMail>,
    orders: Orders,
    /// What was in force, with the generation that must be seen by all before it is freed.
    old: VecDeque<(u64, Arc<Snapshot>)>,
    /// For each worker, other listening sockets, to be told behind the next snapshot.
    listen: Vec<Vec<Listen<ListenerId>>>,
    /// Who is to be told of what, when all workers go by a generation.
    pending: Vec<Pending>,
    /// The turn of a worker that was reported as stalled.
    reported: Option<Tick>,
    /// What the admin API changes, and who waits for that.
    desk: Desk,
    /// Another process serves still, and who is not used here may be by what comes from there.
    waiting: bool,
    /// Renders what is asked; `None` where its thread could not be started.
    answers: Option<Answers>,
}

impl Control {
    /// Control over the workers behind `posts`, which work by the first snapshot of `plan`.
    pub fn new(
        plan: Plan,
        hub: Arc<Hub>,
        posts: Vec<WorkerPost<PlainStream>>,
        clock: Clock,
        mailbox: Receiver<ControlMail>,
        orders: Orders,
    ) -> Control {
        let answers = Answers::start(hub.clone(), posts.clone(), clock);
        let answers = answers.inspect_err(|error| log::error!("the admin API cannot answer: {error}")).ok();
        let (old, listen, pending) = (VecDeque::new(), Vec::new(), Vec::new());
        let desk = Desk::new(Sources::new(plan.config().clone()), plan.edition(), clock.now());
        let (reported, waiting) = (None, false);
        Control { plan, hub, posts, clock, mailbox, orders, old, listen, pending, reported, desk, waiting, answers }
    }

    /// The same where the configuration of the plan is made of `sources`.
    pub fn over(self, sources: Sources) -> Control {
        let waiting = sources.is_waiting();
        let desk = Desk::new(sources, self.plan.edition(), self.clock.now());
        Control { desk, waiting, ..self }
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        (self.orders.check)(self.plan.targets(&self.hub.current()));
        loop {
            let wait = match (self.old.is_empty() && self.pending.is_empty(), self.plan.drains()) {
                (false, _) => SOON,
                (true, true) => DRAINS,
                (true, false) => LOOK,
            };
            let due = self.desk.next().map(|due| due.since(self.clock.now()).max(SOON));
            match self.mailbox.recv_timeout(wait.min(due.unwrap_or(LOOK))) {
                Ok(mail) => {
                    let mut changed = self.take(mail);
                    // What has piled up becomes one snapshot.
                    while let (Some(before), Ok(mail)) = (changed, self.mailbox.try_recv()) {
                        changed = self.take(mail).map(|now| now.max(before));
                    }
                    match changed {
                        None => return,
                        Some(Change::Nothing) => {}
                        Some(change) => self.publish(change),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.desk.expire(self.clock.now()) {
                self.publish(Change::Backends);
            }
            self.free();
            self.settle();
            self.answer();
            self.watch();
        }
    }

    /// What it changes; `None` to stop.
    fn take(&mut self, mail: ControlMail) -> Option<Change> {
        self.plan.at(self.clock.now());
        match mail {
            ControlMail::Resolved { host, port, addresses } => {
                self.desk.resolved(&host, port);
                match self.plan.resolved(host, port, addresses) {
                    true => Some(Change::Backends),
                    false => Some(Change::Nothing),
                }
            }
            ControlMail::Health => Some(Change::Health),
            ControlMail::Order { worker, session, order } => Some(self.order(To { worker, session }, &order)),
            ControlMail::Ask { worker, session, question, unless } => {
                let state = self.desk.state();
                let (config, overlay, edition) = (state.config.clone(), state.overlay.clone(), state.edition);
                let about = About { config, overlay, edition, problem: self.desk.problem().map(str::to_owned) };
                let due = Due { worker, session, question, unless, about };
                match &self.answers {
                    Some(answers) => answers.ask(due),
                    None => answers::refuse(&self.posts, &due),
                }
                Some(Change::Nothing)
            }
            ControlMail::Reload(reload) => {
                (self.orders.reload)(reload);
                Some(Change::Nothing)
            }
            ControlMail::Adopt(adopt) => Some(self.reload(*adopt)),
            ControlMail::Halt { tell } => {
                // What was ordered before is answered as made, so it must not be left behind.
                self.publish(Change::Backends);
                let _ = tell.send(self.desk.halt(self.clock.now()));
                Some(Change::Nothing)
            }
            ControlMail::Resume => {
                self.waiting = false;
                self.desk.resume(self.clock.now());
                Some(Change::Nothing)
            }
            ControlMail::Started => {
                self.desk.started(self.clock.now());
                Some(Change::Nothing)
            }
            ControlMail::Discard { mut config, tell } => {
                // What was ordered before is kept first.
                self.publish(Change::Backends);
                self.plan.keep(&mut config);
                let _ = tell.send(self.desk.discard(*config));
                Some(Change::Nothing)
            }
            ControlMail::DiscardNot => {
                self.desk.keep_again();
                Some(Change::Nothing)
            }
            ControlMail::Stop => None,
        }
    }

    /// A write of the admin API.
    fn order(&mut self, to: To, order: &Order) -> Change {
        if let order::Change::Reload { discard } = order.change
            && self.desk.may(order)
        {
            let (dry_run, post) = (order.dry_run, self.posts.get(usize::from(to.worker.0)).cloned());
            let edition = self.desk.edition();
            let reply = Reply::to(move |adopted| {
                let (session, answer) = (to.session, desk::reload_answer(dry_run, &edition, adopted));
                // A worker without room, or none: the session tells its client that there was no answer.
                let _ = post.map(|post| post.offer(WorkerMail::Answer { session, answer }));
            });
            (self.orders.reload)(Reload { dry_run, discard, reply });
            return Change::Nothing;
        }
        let (plan, hub) = (&self.plan, &self.hub);
        let world = World {
            own: &|pool, address| plan.own_listener(pool, address),
            listener: &|id| plan.listener_ids().iter().position(|known| *known == id),
            leaving: &|config, pool, id| render::leaving(&hub.current(), config, pool, id).is_some(),
        };
        match self.desk.take(to, order, &world, |address| plan.resolves(address), self.clock.now()) {
            true => Change::Backends,
            false => Change::Nothing,
        }
    }

    /// The file was read again.
    fn reload(&mut self, adopt: Adopt) -> Change {
        let Adopt { mut config, resolved, mut moves, reload } = adopt;
        let Reload { dry_run, discard, reply } = reload;
        moves.at_restart.splice(..0, self.plan.keep(&mut config));
        if dry_run {
            let (config, dropped) = self.desk.reloaded(&config, discard);
            let mut changes = Changes { dropped, ..self.plan.compare(&config) };
            changes.at_restart.extend(moves.at_restart);
            reply.tell(Ok(changes));
            return Change::Nothing;
        }
        for ((host, port), addresses) in resolved {
            self.plan.resolved(host, port, addresses);
        }
        let Reloaded { config, dropped, problem } = self.desk.reload(&config, discard, self.clock.now());
        let (changes, orders) = self.adopt(config, Some(moves));
        // Whoever read the file had its names resolved alone.
        (self.orders.names)(self.plan.names());
        let (generation, changes) = (self.plan.next_generation(), Changes { dropped, ..changes });
        let reply = match problem {
            None => reply,
            Some(problem) => {
                reply.tell(Err(vec![problem]));
                Reply::default()
            }
        };
        self.pending.push(Pending { generation, orders, reply, changes });
        Change::Backends
    }

    /// Puts `config` in force with the next snapshot: for every change of the configuration while it runs. What has changed,
    /// and what all orders to the workers share that are a part of it.
    fn adopt(&mut self, config: Config, moves: Option<Moves>) -> (Changes, Arc<()>) {
        let names = self.plan.names();
        let (mut changes, orders) = (self.plan.adopt(config), Arc::new(()));
        self.plan.number(self.desk.state().edition);
        if let Some(moves) = moves {
            changes.at_restart.extend(moves.at_restart);
            self.plan.binds(moves.bound);
            let ids = self.plan.listener_ids();
            let number = |listen: Listen<usize>| Listen { done: orders.clone(), ..listen.with(|at| ids[at]) };
            self.listen.push(moves.orders.into_iter().map(number).collect());
        }
        if self.plan.names() != names {
            (self.orders.names)(self.plan.names());
        }
        (self.orders.global)(&self.plan.config().global);
        (changes, orders)
    }

    /// Answers those whose change is seen by all.
    fn answer(&mut self) {
        self.desk.published(self.hub.current().generation, self.clock.now());
        self.desk.answer(&self.hub, &self.posts, self.clock.now());
    }

    fn publish(&mut self, change: Change) {
        if let Ok(Some(config)) = self.desk.commit(self.clock.now()) {
            let (changes, _) = self.adopt(config, None);
            log::info!("the admin API: {changes}");
        }
        let next = self.plan.build();
        if change == Change::Backends {
            (self.orders.check)(self.plan.targets(&next));
        }
        let generation = next.generation;
        let last = self.hub.publish(next);
        self.old.push_back((generation, last));
        for post in &self.posts {
            post.wake();
        }
        for orders in std::mem::take(&mut self.listen) {
            for (post, listen) in self.posts.iter().zip(orders).filter(|(_, listen)| !listen.is_empty()) {
                if !post.order(WorkerMail::Listen(listen)) {
                    log::error!("a worker takes no orders; its listening sockets are as they were");
                }
            }
        }
        for slots in self.plan.take_left().chunks(FORGET).map(Arc::<[_]>::from) {
            for post in &self.posts {
                // A worker that has no room keeps them until they are idle for too long.
                let _ = post.offer(WorkerMail::Forget(slots.clone()));
            }
        }
    }

    fn free(&mut self) {
        while self.old.front().is_some_and(|(generation, _)| self.hub.all_seen(*generation)) {
            self.old.pop_front();
        }
        let is_done =
            |pending: &mut Pending| self.hub.all_seen(pending.generation) && Arc::strong_count(&pending.orders) == 1;
        for Pending { reply, changes, .. } in self.pending.extract_if(.., is_done) {
            log::info!("reloaded: {changes}");
            reply.tell(Ok(changes));
        }
    }

    /// Looks after backends that leave.
    fn settle(&mut self) {
        if !self.plan.drains() || self.waiting {
            return;
        }
        self.plan.at(self.clock.now());
        let generation = self.hub.current().generation;
        let seen = if self.hub.all_seen(generation) { generation } else { 0 };
        if self.plan.settle(seen) {
            self.publish(Change::Backends);
        }
    }

    fn watch(&mut self) {
        let limit = Tick(self.clock.now().0.saturating_sub(STALL));
        for (worker, since) in self.hub.stalled(limit) {
            if self.reported != Some(since) {
                self.reported = Some(since);
                log::error!("worker {} has not come round for over a second; its clients wait", worker.0);
            }
        }
    }
}
