//! A worker without its poll: sessions, their links, the queue of those who are ready, and their timers.

use crate::base::blocks::Pool as Blocks;
use crate::base::ids::{BackendSlot, LinkId, SessionId};
use crate::base::slab::Slab;
use crate::base::time::Tick;
use crate::base::wheel::Wheel;
use crate::guard::{ClientPermit, Permit};
use crate::link::{Link, Net, Owner, Ready};
use crate::relay::SCRATCH;
use crate::session::http::Spare;
use crate::session::{self, Books, Close, Context, LOOK, Outcome, Phase, Waiting, Who};
use crate::shared::admin::Answer;
use crate::shared::hub::Member;
use crate::shared::mail::{Arrival, ControlMail};
use crate::stats::{Cell, Stats};
use crate::upstream::Idle;
use crossbeam_channel::Sender;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Bytes a worker may hold for slow readers.
pub const MEMORY: usize = 256 << 20;

/// Something that is ready to go on. One queue for all, so that nobody is overtaken for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A session with a link that is ready, or that stopped early.
    Session(SessionId),
    /// A listening socket, by its place in the worker.
    Door(usize),
}

struct Session {
    who: Who,
    /// `None` only while a step runs, so that a panic takes nothing down with it but what the step had.
    phase: Option<Phase>,
    /// When to step it if nothing happens before.
    due: Tick,
    /// Where its one entry in the wheel that counts is; earlier than `due` when that has moved on.
    wheel_at: Tick,
    queued: bool,
    _permits: (Permit, Permit),
    /// Its place among the sessions of its client.
    client: Option<ClientPermit>,
}

/// See the module.
pub struct Core<N: Net> {
    /// Where links come from.
    pub net: N,
    /// What the worker works by.
    pub member: Member,
    /// Where questions for control go; `None`: there is nobody to answer them.
    pub control: Option<Sender<ControlMail>>,
    links: Slab<LinkId, Link<N::Stream>>,
    sessions: Slab<SessionId, Session>,
    queue: VecDeque<Task>,
    wheel: Wheel<SessionId>,
    fired: Vec<(Tick, SessionId)>,
    spare: Spare,
    path: String,
    idle: Idle,
    blocks: Blocks,
    out: Vec<u8>,
    scratch: Box<[u8]>,
    waiting: Waiting,
    /// When those who wait look for themselves.
    look_at: Tick,
    random: fastrand::Rng,
    stats: Arc<Stats>,
    released: bool,
    draining: bool,
    /// Sessions of this worker that live elsewhere: those of datagrams.
    beside: usize,
}

impl<N: Net> Core<N> {
    /// A worker that counts in its cell of `stats` and holds at most about `memory` bytes for slow readers.
    pub fn new(net: N, member: Member, stats: Arc<Stats>, now: Tick, memory: usize) -> Self {
        let mut blocks = Blocks::new(memory);
        blocks.supply(net.pipes());
        let seed = member.worker().0;
        Core {
            net,
            member,
            control: None,
            links: Slab::new(),
            sessions: Slab::new(),
            queue: VecDeque::new(),
            wheel: Wheel::new(now),
            fired: Vec::new(),
            spare: Spare::default(),
            path: String::new(),
            idle: Idle::default(),
            blocks,
            out: Vec::with_capacity(SCRATCH),
            scratch: vec![0; SCRATCH].into(),
            waiting: Waiting::new(usize::from(seed)),
            look_at: now,
            random: fastrand::Rng::with_seed(u64::from(seed)),
            stats,
            released: false,
            draining: false,
            beside: 0,
        }
    }

    /// The counters of this worker.
    pub fn count(&self) -> &Cell {
        self.stats.cell(usize::from(self.member.worker().0))
    }

    /// Sessions that live.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Links that are open.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Blocks held for slow readers, those that their pipes count for included.
    pub fn blocks(&self) -> usize {
        self.blocks.out()
    }

    /// Takes note of how many sessions of datagrams the worker has, so that the load it tells of is the whole.
    pub fn note_beside(&mut self, flows: usize) {
        if self.beside != flows {
            // A place under max_connections may have come back.
            self.released |= flows < self.beside;
            self.beside = flows;
            self.tell_sessions();
        }
    }

    fn tell_sessions(&mut self) {
        self.member.tell_sessions(self.load());
    }

    /// Sessions of all kinds.
    pub fn load(&self) -> usize {
        self.sessions.len() + self.beside
    }

    /// Pipes that are open.
    pub fn pipes(&self) -> usize {
        self.blocks.pipes()
    }

    /// True, once, when a session has ended since this was last asked: there may be room for another.
    pub fn take_released(&mut self) -> bool {
        std::mem::take(&mut self.released)
    }

    /// True when the worker holds so much for slow readers that it takes nobody new.
    pub fn is_full(&self) -> bool {
        self.blocks.over() > 0
    }

    /// Latches what the poll told of a link, and queues its session.
    #[inline]
    pub fn latch(&mut self, id_of: LinkId, ready: Ready) {
        // A link that has gone since is nobody's business any more.
        let Some(link) = self.links.get_mut(id_of) else { return };
        link.latch(ready);
        let id = match link.owner {
            Owner::Session(id) => id,
            Owner::Idle(backend) => {
                // The backend has closed it, or sends what nobody asked for (RFC 9112, section 9.2). That there is room to
                // write is no news.
                if !link.is_quiet() {
                    self.idle.forget(backend, id_of);
                    self.links.remove(id_of);
                }
                return;
            }
        };
        if let Some(session) = self.sessions.get_mut(id)
            && !session.queued
        {
            session.queued = true;
            self.queue.push_back(Task::Session(id));
        }
    }

    /// Puts a task at the tail of the queue.
    pub fn enqueue(&mut self, task: Task) {
        self.queue.push_back(task);
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.queue.len()
    }

    /// The task at the head.
    pub fn next_task(&mut self) -> Option<Task> {
        self.queue.pop_front()
    }

    /// When the next timer may be due.
    pub fn next_due(&self) -> Option<Tick> {
        let look = (!self.waiting.is_empty()).then_some(self.look_at);
        let pipes = self.blocks.pipes_due();
        self.wheel.next().into_iter().chain(self.idle.next_due()).chain(pipes).chain(look).min()
    }

    /// Takes a client on, and queues it; `None` when it had to be closed.
    pub fn admit(&mut self, arrival: Arrival<N::Stream>) -> Option<SessionId> {
        let Arrival { stream, client: address, listener, permits } = arrival;
        self.count().accepted.add(1);
        let plan = self.member.snapshot().listener(listener)?;
        let idle_timeout = plan.idle_timeout;
        let links = &mut self.links;
        let mut client = None;
        let id = self.sessions.insert_with(|id| {
            let link = links.insert(Link::accepted(stream, id));
            client = Some(link);
            let who = Who { id, client: link, address, destination: None, listener, idle_timeout };
            let phase = Some(Phase::Arrived);
            Session {
                who,
                phase,
                due: Tick::NEVER,
                wheel_at: Tick::NEVER,
                queued: true,
                _permits: permits,
                client: None,
            }
        });
        let link = client?;
        let watched = match self.links.get_mut(link) {
            Some(client) => self.net.watch(client.stream_mut(), link),
            None => Ok(()),
        };
        if let Err(error) = watched {
            log::warn!("client {address}: cannot be watched, closed: {error}");
            self.end(id, Close::Clean);
            return None;
        }
        // Its turn comes behind the next look at the poll, which tells whether it has said something already.
        self.queue.push_back(Task::Session(id));
        self.tell_sessions();
        Some(id)
    }

    /// Steps one session.
    pub fn step(&mut self, id: SessionId, now: Tick) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.queued = false;
        let Some(phase) = session.phase.take() else { return };
        self.run(id, now, |who, cx| session::step(phase, who, cx));
    }

    fn run(&mut self, id: SessionId, now: Tick, step: impl FnOnce(&mut Who, &mut Context<'_, N>) -> Outcome) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let mut who = session.who;
        let snapshot = self.member.snapshot();
        let mut cx = Context {
            now,
            // Whose listener has left the configuration is asked to leave, too.
            draining: self.draining || snapshot.listener(who.listener).is_none_or(|listener| listener.gone),
            net: &mut self.net,
            links: &mut self.links,
            spare: &mut self.spare,
            path: &mut self.path,
            idle: &mut self.idle,
            blocks: &mut self.blocks,
            out: &mut self.out,
            scratch: &mut self.scratch,
            permit: &mut session.client,
            waiting: &mut self.waiting,
            random: &mut self.random,
            snapshot,
            count: self.stats.cell(usize::from(self.member.worker().0)),
            worker: self.member.worker(),
            control: self.control.as_ref(),
        };
        // The phase was moved into the step: a panic drops it, and with it its lease and blocks.
        let (phase, due, again) = match catch_unwind(AssertUnwindSafe(|| step(&mut who, &mut cx))) {
            Ok(Outcome::Wait(phase, due)) => (phase, due, false),
            Ok(Outcome::Again(phase, due)) => (phase, due, true),
            Ok(Outcome::Done(close)) => return self.end(id, close),
            Err(_) => return self.bury(id),
        };
        session.who = who;
        session.phase = Some(phase);
        session.due = due;
        // Later than its entry: the entry finds out when it fires. Only what is earlier needs one of its own.
        if due < session.wheel_at {
            session.wheel_at = due;
            self.wheel.insert(due, id);
        }
        if again && !session.queued {
            session.queued = true;
            self.queue.push_back(Task::Session(id));
        }
    }

    /// Gives a session what control has answered it. One that has gone meanwhile needs nothing.
    pub fn answer(&mut self, id: SessionId, answer: Answer) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if session.phase.as_mut().is_some_and(|phase| phase.answer(answer)) && !session.queued {
            session.queued = true;
            self.queue.push_back(Task::Session(id));
        }
    }

    /// Runs the timers that are due.
    pub fn expire(&mut self, now: Tick) {
        let mut fired = std::mem::take(&mut self.fired);
        self.idle.expire(now, &mut self.links);
        self.blocks.tidy(now);
        self.wheel.advance(now, &mut fired);
        for (at, id) in fired.drain(..) {
            let Some(session) = self.sessions.get_mut(id) else { continue };
            // An entry that was overtaken by an earlier one counts no more.
            if at != session.wheel_at {
                continue;
            }
            if session.due > now {
                session.wheel_at = session.due;
                self.wheel.insert(session.due, id);
            } else {
                session.wheel_at = Tick::NEVER;
                self.step(id, now);
            }
        }
        self.fired = fired;
        if !self.waiting.is_empty() {
            self.serve_lines(now);
        }
    }

    /// Steps those whose turn it is in the lines before full pools, as long as there are places.
    fn serve_lines(&mut self, now: Tick) {
        self.look_at = now.after(LOOK);
        let mut last = None;
        while let Some(pool) = self.waiting.pool_after(last) {
            last = Some(pool);
            while let Some((number, id)) = self.waiting.head(pool) {
                if self.waits_with(id, number) {
                    self.step(id, now);
                    if self.waits_with(id, number) {
                        break;
                    }
                }
                // Whoever went on has left already; whoever ended otherwise is taken out here.
                self.waiting.leave(pool, number);
            }
        }
    }

    fn waits_with(&self, id: SessionId, number: u64) -> bool {
        let phase = self.sessions.get(id).and_then(|session| session.phase.as_ref());
        phase.is_some_and(|phase| phase.waits_with(number))
    }

    fn end(&mut self, id: SessionId, close: Close) {
        let Some(session) = self.sessions.remove(id) else { return };
        // One that ended by itself has left no phase.
        if let Some(phase) = &session.phase {
            phase.abandon(&session.who, Books { snapshot: self.member.snapshot(), worker: self.member.worker() });
        }
        if let Some(mut client) = self.links.remove(session.who.client)
            && close == Close::Cut
        {
            client.set_cut();
        }
        self.released = true;
        self.tell_sessions();
    }

    /// A step of ours has panicked: resets whatever links the session had. The worker goes on.
    fn bury(&mut self, id: SessionId) {
        self.count().panics.add(1);
        log::error!("a session ended in a panic; this is a bug, please report it with the lines above");
        self.cut_links(|session| session == id);
        self.end(id, Close::Cut);
    }

    fn cut_links(&mut self, whose: impl Fn(SessionId) -> bool) {
        let links: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| match link.owner {
                Owner::Session(id) => whose(id),
                Owner::Idle(_) => false,
            })
            .map(|(id, _)| id)
            .collect();
        for id in links {
            if let Some(mut link) = self.links.remove(id) {
                link.set_cut();
            }
        }
    }

    /// From now on sessions end as soon as they can: every one is stepped, so that those who wait for a next request leave.
    pub fn drain(&mut self) {
        self.draining = true;
        self.idle.clear(&mut self.links);
        self.wake_all();
    }

    /// Closes the idle connections to `backends`, which leave.
    pub fn forget(&mut self, backends: &[BackendSlot]) {
        for backend in backends {
            self.idle.drop_all(*backend, &mut self.links);
        }
    }

    /// Steps every session in the next turn: something has changed that no event tells them of.
    pub fn wake_all(&mut self) {
        let sessions: Vec<SessionId> = self.sessions.iter().map(|(id, _)| id).collect();
        self.wake(sessions);
    }

    fn wake(&mut self, sessions: Vec<SessionId>) {
        for id in sessions {
            if let Some(session) = self.sessions.get_mut(id)
                && !session.queued
            {
                session.queued = true;
                self.queue.push_back(Task::Session(id));
            }
        }
    }

    /// Steps the sessions of listeners that have left the configuration: those that wait for a next request leave.
    pub fn wake_gone(&mut self) {
        let snapshot = self.member.snapshot();
        let is_gone = |who: &Who| snapshot.listener(who.listener).is_none_or(|listener| listener.gone);
        let gone = self.sessions.iter().filter(|(_, session)| is_gone(&session.who));
        let gone: Vec<SessionId> = gone.map(|(id, _)| id).collect();
        self.wake(gone);
    }

    /// Ends one session by a reset of both sides.
    fn cut(&mut self, id: SessionId) {
        self.cut_links(|session| session == id);
        self.end(id, Close::Cut);
    }

    /// Ends every session by a reset of both sides.
    pub fn cut_all(&mut self) {
        self.cut_links(|_| true);
        self.count().cut.add(self.sessions.len() as u64);
        let sessions: Vec<SessionId> = self.sessions.iter().map(|(id, _)| id).collect();
        for id in sessions {
            self.end(id, Close::Cut);
        }
    }

    /// While the worker holds clearly more than its memory cap: cuts the session that has been silent for longest among
    /// those that hold blocks.
    pub fn shed(&mut self) {
        while self.blocks.over() > self.blocks.cap() / 8 {
            let holds = |session: &Session| session.phase.as_ref().is_some_and(Phase::holds_blocks);
            let holders = self.sessions.iter().filter(|(_, session)| holds(session));
            // The earlier its deadline, the longer it has been silent.
            let Some((id, _)) = holders.min_by_key(|(_, session)| session.due) else { return };
            self.count().shed.add(1);
            self.cut(id);
        }
    }
}
