//! The only writer of the snapshot: takes mail, builds, publishes, and keeps what was until nobody works by it.
//!
//! Knows: the configuration and everybody's mailboxes. Must not touch: sockets of clients or backends.

mod answers;
mod checks;
mod desk;
mod expiry;
mod inforce;
mod loops;
mod overlay;
mod plan;
mod render;
mod writes;

pub use desk::{Keep, Sources};
pub use overlay::{Dropped, Overlay, Why};
pub use plan::Plan;

use crate::base::time::{Clock, Tick};
use crate::control::answers::{About, Answers, Due};
use crate::control::desk::{Desk, To};
use crate::control::writes::World;
use crate::link::plain::PlainStream;
use crate::shared::checks::Target;
use crate::shared::hub::Hub;
use crate::shared::mail::{ControlMail, WorkerPost};
use crate::shared::order::Order;
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

/// Takes the list of all that is to be checked from now on.
pub type CheckOrders = Box<dyn Fn(Vec<Target>) + Send>;

/// What mail does to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Nothing,
    /// Who is up.
    Health,
    /// Who is there, or where.
    Backends,
}

/// The control thread.
pub struct Control {
    plan: Plan,
    hub: Arc<Hub>,
    posts: Vec<WorkerPost<PlainStream>>,
    clock: Clock,
    mailbox: Receiver<ControlMail>,
    /// Orders what is to be checked.
    check: CheckOrders,
    /// What was in force, with the generation that must be seen by all before it is freed.
    old: VecDeque<(u64, Arc<Snapshot>)>,
    /// The turn of a worker that was reported as stalled.
    reported: Option<Tick>,
    /// What the admin API changes, and who waits for that.
    desk: Desk,
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
        check: CheckOrders,
    ) -> Control {
        let answers = Answers::start(hub.clone(), posts.clone(), clock);
        let answers = answers.inspect_err(|error| log::error!("the admin API cannot answer: {error}")).ok();
        let desk = Desk::new(Sources::new(plan.config().clone()), clock.now());
        Control { plan, hub, posts, clock, mailbox, check, old: VecDeque::new(), reported: None, desk, answers }
    }

    /// The same where the configuration of the plan is made of `sources`.
    pub fn over(self, sources: Sources) -> Control {
        let desk = Desk::new(sources, self.clock.now());
        Control { desk, ..self }
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        (self.check)(self.plan.targets(&self.hub.current()));
        loop {
            let wait = if self.old.is_empty() { LOOK } else { SOON };
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
            self.answer();
            self.watch();
        }
    }

    /// What it changes; `None` to stop.
    fn take(&mut self, mail: ControlMail) -> Option<Change> {
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
            ControlMail::Stop => None,
        }
    }

    /// A write of the admin API.
    fn order(&mut self, to: To, order: &Order) -> Change {
        let (plan, hub, config) = (&self.plan, &self.hub, self.desk.state().config.clone());
        let world = World {
            own: &|pool, address| plan.own_listener(pool, address),
            leaving: &|pool, id| render::leaving(&hub.current(), &config, pool, id).is_some(),
        };
        match self.desk.take(to, order, &world, |address| plan.resolves(address), self.clock.now()) {
            true => Change::Backends,
            false => Change::Nothing,
        }
    }

    /// Answers those whose change is seen by all.
    fn answer(&mut self) {
        self.desk.published(self.hub.current().generation);
        self.desk.answer(&self.hub, &self.posts, self.clock.now());
    }

    fn publish(&mut self, change: Change) {
        if let Some(config) = self.desk.commit(self.clock.now()) {
            self.plan.adopt(config);
            self.plan.number(self.desk.state().edition);
        }
        let next = self.plan.build();
        if change == Change::Backends {
            (self.check)(self.plan.targets(&next));
        }
        let generation = next.generation;
        let last = self.hub.publish(next);
        self.old.push_back((generation, last));
        for post in &self.posts {
            post.wake();
        }
    }

    fn free(&mut self) {
        while self.old.front().is_some_and(|(generation, _)| self.hub.all_seen(*generation)) {
            self.old.pop_front();
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
