//! The only writer of the snapshot: takes mail, builds, publishes, and keeps what was until nobody works by it.
//!
//! Knows: the configuration and everybody's mailboxes. Must not touch: sockets of clients or backends.

mod answers;
mod checks;
mod limits;
mod loops;
mod plan;
mod render;

pub use plan::Plan;

use crate::base::time::{Clock, Tick};
use crate::control::answers::{Answers, Due};
use crate::link::plain::PlainStream;
use crate::shared::checks::Target;
use crate::shared::hub::Hub;
use crate::shared::mail::{ControlMail, WorkerPost};
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
        Control { plan, hub, posts, clock, mailbox, check, old: VecDeque::new(), reported: None, answers }
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        (self.check)(self.plan.targets(&self.hub.current()));
        loop {
            let wait = if self.old.is_empty() { LOOK } else { SOON };
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
            self.watch();
        }
    }

    /// What it changes; `None` to stop.
    fn take(&mut self, mail: ControlMail) -> Option<Change> {
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
            ControlMail::Stop => None,
        }
    }

    fn publish(&mut self, change: Change) {
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
