//! The only writer of the snapshot: takes mail, builds, publishes, and keeps what was until nobody works by it.
//!
//! Knows: the configuration and everybody's mailboxes. Must not touch: sockets of clients or backends.

mod loops;
mod plan;

pub use plan::Plan;

use crate::base::time::{Clock, Tick};
use crate::link::plain::PlainStream;
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

/// The control thread.
pub struct Control {
    plan: Plan,
    hub: Arc<Hub>,
    posts: Vec<WorkerPost<PlainStream>>,
    clock: Clock,
    mailbox: Receiver<ControlMail>,
    /// What was in force, with the generation that must be seen by all before it is freed.
    old: VecDeque<(u64, Arc<Snapshot>)>,
    /// The turn of a worker that was reported as stalled.
    reported: Option<Tick>,
}

impl Control {
    /// Control over the workers behind `posts`, which work by the first snapshot of `plan`.
    pub fn new(
        plan: Plan,
        hub: Arc<Hub>,
        posts: Vec<WorkerPost<PlainStream>>,
        clock: Clock,
        mailbox: Receiver<ControlMail>,
    ) -> Control {
        Control { plan, hub, posts, clock, mailbox, old: VecDeque::new(), reported: None }
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        loop {
            let wait = if self.old.is_empty() { LOOK } else { SOON };
            match self.mailbox.recv_timeout(wait) {
                Ok(mail) => {
                    let mut changed = self.take(mail);
                    // What has piled up becomes one snapshot.
                    while let (Some(before), Ok(mail)) = (changed, self.mailbox.try_recv()) {
                        changed = self.take(mail).map(|now| now || before);
                    }
                    match changed {
                        None => return,
                        Some(true) => self.publish(),
                        Some(false) => {}
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.free();
            self.watch();
        }
    }

    /// True when the plan has changed; `None` to stop.
    fn take(&mut self, mail: ControlMail) -> Option<bool> {
        match mail {
            ControlMail::Resolved { host, port, addresses } => Some(self.plan.resolved(host, port, addresses)),
            ControlMail::Stop => None,
        }
    }

    fn publish(&mut self) {
        let next = self.plan.build();
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
