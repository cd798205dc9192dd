//! A thread that answers what the admin API is asked, so that control itself never renders: with thousands of backends
//! that takes milliseconds, and a snapshot would wait for them.
//!
//! Knows: the hub and the mailboxes. Must not touch: the plan; what changes anything is for control itself.

use crate::base::ids::{SessionId, WorkerId};
use crate::base::time::Clock;
use crate::config::Config;
use crate::control::overlay::Overlay;
use crate::control::render;
use crate::link::plain::PlainStream;
use crate::shared::admin::{Answer, Question};
use crate::shared::hub::Hub;
use crate::shared::mail::{WorkerMail, WorkerPost};
use crate::shared::order::Tags;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Questions that may wait.
const BOX: usize = 1024;

/// A question, and whom to answer.
pub(super) struct Due {
    pub(super) worker: WorkerId,
    pub(super) session: SessionId,
    pub(super) question: Question,
    /// What its client knows already.
    pub(super) unless: Option<Tags>,
    pub(super) about: About,
}

/// What the configuration in force is made of.
#[derive(Clone)]
pub(super) struct About {
    pub(super) config: Arc<Config>,
    pub(super) overlay: Arc<Overlay>,
    pub(super) edition: u64,
    /// Why what was kept could not be read at the start.
    pub(super) problem: Option<String>,
}

/// The thread; it ends when this is dropped.
pub(super) struct Answers {
    sender: Option<Sender<Due>>,
    posts: Vec<WorkerPost<PlainStream>>,
    thread: Option<JoinHandle<()>>,
}

impl Answers {
    /// Starts it.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(hub: Arc<Hub>, posts: Vec<WorkerPost<PlainStream>>, clock: Clock) -> io::Result<Answers> {
        let (sender, questions) = bounded(BOX);
        let to = posts.clone();
        let thread = thread::Builder::new().name("admin".into()).spawn(move || run(&hub, &to, clock, &questions))?;
        Ok(Answers { sender: Some(sender), posts, thread: Some(thread) })
    }

    /// Has `due` answered, or refused at once when too many wait.
    pub(super) fn ask(&self, due: Due) {
        let Some(sender) = &self.sender else { return };
        if let Err(TrySendError::Full(due) | TrySendError::Disconnected(due)) = sender.try_send(due) {
            refuse(&self.posts, &due);
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Says that nobody can answer now. Never waits: a worker whose box is full is left to its own patience.
pub(super) fn refuse(posts: &[WorkerPost<PlainStream>], due: &Due) {
    let answer =
        Answer::problem(503, "too much is asked here just now; try again in a second").with("Retry-After", "1");
    if let Some(post) = posts.get(usize::from(due.worker.0)) {
        let _ = post.offer(WorkerMail::Answer { session: due.session, answer });
    }
}

fn run(hub: &Hub, posts: &[WorkerPost<PlainStream>], clock: Clock, questions: &Receiver<Due>) {
    for first in questions {
        // What many ask at once is rendered once, and held once: an answer may be long, and its readers slow.
        let batch: Vec<Due> = std::iter::once(first).chain(questions.try_iter().take(BOX)).collect();
        let (snapshot, now, departs) = (hub.current(), clock.now(), hub.departs());
        let mut said: Vec<(Question, u64, Answer)> = Vec::new();
        for Due { worker, session, question, unless, about } in batch {
            let edition = about.edition;
            let answer = match said.iter().find(|(asked, of, _)| *asked == question && *of == edition) {
                Some((_, _, answer)) => answer.clone(),
                None => {
                    let answer = render::answer(&question, &snapshot, &about, now, departs);
                    said.push((question, edition, answer.clone()));
                    answer
                }
            };
            let answer = match (answer.generation, unless) {
                (Some(generation), Some(tags)) if tags.name_weakly(generation) => Answer::unchanged(generation),
                _ => answer,
            };
            let post = posts.get(usize::from(worker.0));
            if !post.is_some_and(|post| post.order(WorkerMail::Answer { session, answer })) {
                log::warn!("worker {} takes no answers of the admin API", worker.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Key;
    use crate::shared::snapshot::Snapshot;
    use mio::{Poll, Token, Waker};

    fn due(question: Question, session: u32) -> Due {
        let file =
            "pool = [{ name = 'p' }]\nlistener = [{ name = 'l', bind = '127.0.0.1:0', protocol = 'tcp', pool = 'p' }]";
        let config = Arc::new(crate::config::parse(file, "test").unwrap());
        let about = About { config, overlay: Arc::default(), edition: 7, problem: None };
        Due { worker: WorkerId(0), session: SessionId::new(session, 1), question, unless: None, about }
    }

    /// The statuses that a worker is told, by session.
    fn told(mailbox: &Receiver<WorkerMail<PlainStream>>) -> Vec<(u32, Answer)> {
        let answer = |mail| match mail {
            WorkerMail::Answer { session, answer } => (session.index(), answer),
            other => panic!("{other:?}"),
        };
        mailbox.try_iter().map(answer).collect()
    }

    #[test]
    fn beyond_what_may_wait_questions_are_refused_at_once() {
        let poll = Poll::new().unwrap();
        let (post, mailbox) = WorkerPost::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (sender, _nobody_looks) = bounded(1);
        let answers = Answers { sender: Some(sender), posts: vec![post], thread: None };
        answers.ask(due(Question::Health, 1));
        assert!(mailbox.is_empty(), "it waits");
        answers.ask(due(Question::Health, 2));
        let told = told(&mailbox);
        let [(2, answer)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((answer.status, &answer.fields[..]), (503, &[("Retry-After", "1")][..]));
    }

    #[test]
    fn what_is_asked_at_once_is_rendered_once() {
        let poll = Poll::new().unwrap();
        let (post, mailbox) = WorkerPost::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let snapshot = Snapshot {
            generation: 3,
            edition: 7,
            admin: Arc::default(),
            listeners: Vec::new(),
            pools: Vec::new(),
            cuts: 0,
        };
        let hub = Hub::new(Arc::new(snapshot), 1);
        let (sender, questions) = bounded(BOX);
        for session in 0..4 {
            let question = if session == 2 { Question::Stats } else { Question::Backends { pool: None } };
            assert!(sender.send(due(question, session)).is_ok());
        }
        drop(sender);
        run(&hub, &[post], Clock::start(), &questions);
        let told = told(&mailbox);
        assert_eq!(told.iter().map(|(session, _)| *session).collect::<Vec<_>>(), [0, 1, 2, 3], "in order");
        assert!(Arc::ptr_eq(&told[0].1.body, &told[3].1.body));
        assert_ne!(told[0].1.body, told[2].1.body);
        assert_eq!(told[0].1.generation, Some(7));
    }
}
