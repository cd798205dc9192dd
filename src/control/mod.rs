//! The only writer of the snapshot: takes mail, builds, publishes, and keeps what was until nobody works by it.
//!
//! Knows: the configuration and everybody's mailboxes. Must not touch: sockets of clients or backends.

mod answers;
mod checks;
mod diff;
mod known;
mod loops;
mod plan;
mod render;

pub use plan::Plan;

use crate::base::ids::ListenerId;
use crate::base::time::{Clock, Tick};
use crate::config::{Config, Global};
use crate::control::answers::{Answers, Due};
use crate::link::plain::PlainStream;
use crate::shared::changes::Changes;
use crate::shared::checks::Target;
use crate::shared::hub::Hub;
use crate::shared::mail::{Adopt, ControlMail, HostPort, Listen, Moves, Reload, Reply, WorkerMail, WorkerPost};
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

/// A change that is on its way to the workers.
struct Pending {
    /// The first generation that has it.
    generation: u64,
    /// Shared by all orders that are a part of it.
    orders: Arc<()>,
    reply: Reply,
    changes: Changes,
    /// It is told on the log, too.
    told: bool,
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
        Control { plan, hub, posts, clock, mailbox, orders, old, listen, pending, reported: None, answers }
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
            match self.mailbox.recv_timeout(wait) {
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
            self.free();
            self.settle();
            self.watch();
        }
    }

    /// What it changes; `None` to stop.
    fn take(&mut self, mail: ControlMail) -> Option<Change> {
        self.plan.at(self.clock.now());
        match mail {
            ControlMail::Resolved { host, port, addresses } => match self.plan.resolved(host, port, addresses) {
                true => Some(Change::Backends),
                false => Some(Change::Nothing),
            },
            ControlMail::Health => Some(Change::Health),
            ControlMail::Ask { worker, session, question } => {
                let due = Due { worker, session, question };
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
            ControlMail::Stop => None,
        }
    }

    /// The file was read again.
    fn reload(&mut self, adopt: Adopt) -> Change {
        let Adopt { config, resolved, moves, reload } = adopt;
        if reload.dry_run {
            let mut changes = self.plan.compare(&config);
            changes.at_restart.extend(moves.at_restart);
            reload.reply.tell(Ok(changes));
            return Change::Nothing;
        }
        for ((host, port), addresses) in resolved {
            self.plan.resolved(host, port, addresses);
        }
        self.adopt(config, Some(moves), reload.reply);
        Change::Backends
    }

    /// Puts `config` in force with the next snapshot, and tells `reply` when all workers go by that: for every change of the
    /// configuration while it runs. With `moves`, which are those of a file, the log is told, too.
    fn adopt(&mut self, config: Config, moves: Option<Moves>, reply: Reply) {
        let names = self.plan.names();
        let mut changes = self.plan.adopt(config);
        let (generation, orders, told) = (self.plan.next_generation(), Arc::new(()), moves.is_some());
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
        self.pending.push(Pending { generation, orders, reply, changes, told });
    }

    fn publish(&mut self, change: Change) {
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
        for Pending { reply, changes, told, .. } in self.pending.extract_if(.., is_done) {
            if told {
                log::info!("reloaded: {changes}");
            }
            reply.tell(Ok(changes));
        }
    }

    /// Looks after backends that leave.
    fn settle(&mut self) {
        if !self.plan.drains() {
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
