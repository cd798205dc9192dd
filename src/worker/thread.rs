//! The loop around a [`Core`]: the poll, the listening sockets and the mailbox.

use crate::base::ids::{FlowId, LinkId, ListenerId, SocketId, WorkerId};
use crate::base::time::{Clock, Tick};
use crate::config::Transport;
use crate::guard::Cap;
use crate::link::datagram::plain::{MioDatagrams, MioSocket};
use crate::link::plain::{MioNet, PlainStream, close_dropped, readiness};
use crate::session::udp::{self, Flows, Front};
use crate::shared::hub::{Hub, Member};
use crate::shared::mail::{Arrival, ControlMail, Listen, Opened, WorkerMail, WorkerPost};
use crate::stats::Stats;
use crate::worker::core::{Core, MEMORY, Task};
use crate::worker::door::{Door, Stop};
use crossbeam_channel::{Receiver, Sender};
use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events taken at once.
const EVENTS: usize = 1024;
/// The token of the waker. Doors have the odd ones behind it, listening sockets for datagrams the even ones. All lie below
/// 2^32, where no link is, and no flow.
pub(super) const WAKER: usize = 0;

/// The token of the door at that place.
pub(super) fn door_token(at: usize) -> Token {
    Token(2 * at + 1)
}

/// The token of the listening socket for datagrams at that place.
pub(super) fn front_token(at: usize) -> Token {
    Token(2 * at + 2)
}

/// A timer is late when it is due for so many milliseconds.
const LATE: u64 = 100;
/// How often a worker that has drained looks whether the others have begun to, in milliseconds.
const LEAVE_STEP: u64 = 10;

/// What every worker of a process is given.
#[derive(Clone)]
pub struct Common {
    /// The snapshot and who has seen it.
    pub hub: Arc<Hub>,
    /// All cells.
    pub stats: Arc<Stats>,
    /// The clock.
    pub clock: Clock,
    /// The process's max_connections.
    pub connections: Arc<Cap>,
    /// Where questions for control go.
    pub control: Sender<ControlMail>,
    /// How long to poll before blocking.
    pub spin: Duration,
    /// Pipes that one worker may have open at once, for bulk.
    pub pipes: usize,
}

/// A worker before its thread runs.
pub struct Worker {
    id: WorkerId,
    common: Common,
    poll: Poll,
    /// Its listening sockets.
    sockets: Vec<Opened<ListenerId>>,
    /// None of them is served by before the worker is told to, since another process still does.
    shut: bool,
    mailbox: Receiver<WorkerMail<PlainStream>>,
    post: WorkerPost<PlainStream>,
}

/// Listening sockets for datagrams whose worker has ended. To be kept until the others have ended, too: the kernel spreads
/// clients over all sockets of an address, and would send those of a flow elsewhere when one closes.
pub struct Held {
    _fronts: Vec<Front<MioSocket>>,
}

impl Worker {
    /// A worker with its listening sockets. With `shut` none of them is served by before the worker is told to, since another
    /// process still does.
    ///
    /// # Errors
    /// What epoll_create1(2) and eventfd(2) say: mostly that descriptors have run out.
    pub fn new(id: WorkerId, common: Common, sockets: Vec<Opened<ListenerId>>, shut: bool) -> io::Result<Worker> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), Token(WAKER))?;
        let (post, mailbox) = WorkerPost::new(waker);
        Ok(Worker { id, common, poll, sockets, shut, mailbox, post })
    }

    /// Where its mail is put in.
    pub fn post(&self) -> WorkerPost<PlainStream> {
        self.post.clone()
    }

    /// Runs until it is told to end. `posts` are those of all workers, in order.
    ///
    /// # Errors
    /// When the poll itself fails, or a listening socket cannot be watched: no worker can go on without.
    pub fn run(self, posts: Vec<WorkerPost<PlainStream>>) -> io::Result<Held> {
        let Worker { id, common, poll, sockets, shut, mailbox, post: _ } = self;
        let net = MioNet { registry: poll.registry().try_clone()?, pipes: common.pipes };
        let member = Member::new(common.hub.clone(), id);
        let now = common.clock.now();
        let mut core = Core::new(net, member, common.stats.clone(), now, MEMORY);
        core.control = Some(common.control.clone());
        let flows = Flows::new(MioDatagrams { registry: poll.registry().try_clone()? }, Vec::new(), now);
        let doors = Vec::new();
        let mut this =
            Loop { common, poll, doors, shut, mailbox, posts, core, flows, draining: false, cut: false, late: false };
        for opened in sockets {
            this.open(opened)?;
        }
        this.run()
    }
}

pub(super) struct Loop {
    pub(super) common: Common,
    pub(super) poll: Poll,
    pub(super) doors: Vec<Option<Door>>,
    pub(super) shut: bool,
    mailbox: Receiver<WorkerMail<PlainStream>>,
    posts: Vec<WorkerPost<PlainStream>>,
    pub(super) core: Core<MioNet>,
    pub(super) flows: Flows<MioDatagrams>,
    draining: bool,
    cut: bool,
    late: bool,
}

impl Loop {
    fn run(mut self) -> io::Result<Held> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.is_over() {
            self.core.member.rest();
            self.wait(&mut events)?;
            let now = self.common.clock.now();
            self.core.member.beat(now);
            self.refresh(now);
            let mut mail = false;
            for event in &events {
                let token = event.token().0;
                if let Some(link) = LinkId::from_token(token) {
                    self.core.latch(link, readiness(event));
                } else if let Some(flow) = FlowId::from_token(token) {
                    self.flows.latch(flow);
                } else if token == WAKER {
                    mail = true;
                } else if token % 2 == 1 {
                    self.core.enqueue(Task::Door(token / 2));
                } else {
                    self.flows.latch_front(token / 2 - 1);
                }
            }
            if mail {
                self.read_mail(now);
            }
            // Who is queued from here on waits for the next turn, behind a look at the poll.
            for _ in 0..self.core.ready() {
                match self.core.next_task() {
                    Some(Task::Session(id)) => self.core.step(id, now),
                    Some(Task::Door(at)) => self.accept(at, now),
                    None => break,
                }
            }
            if self.flows.ready() > 0 {
                self.turn_flows(now);
            }
            if !self.comes_late(now) {
                self.core.expire(now);
                self.flows.expire(flows_cx(&self.core, &self.common, now));
            }
            self.core.note_beside(self.flows.len());
            self.core.shed();
            close_dropped();
            self.reopen(now);
        }
        Ok(Held { _fronts: self.flows.into_fronts() })
    }

    /// Takes what is in force.
    fn refresh(&mut self, now: Tick) {
        let cuts = self.core.member.snapshot().cuts;
        if self.core.member.refresh() && self.core.member.snapshot().cuts != cuts {
            self.core.wake_all();
            let cut = self.flows.end_cut(flows_cx(&self.core, &self.common, now));
            self.core.count().cut.add(cut as u64);
        }
    }

    /// Whether timers are due for so long that we must have been stopped: once, so that what has come meanwhile is looked at
    /// before anybody is told that it came too late.
    fn comes_late(&mut self, now: Tick) -> bool {
        let due = self.core.next_due().into_iter().chain(self.flows.next_due()).min();
        self.late = !self.late && due.is_some_and(|due| now.0 > due.0.saturating_add(LATE));
        self.late
    }

    fn turn_flows(&mut self, now: Tick) {
        self.flows.turn(flows_cx(&self.core, &self.common, now));
    }

    fn is_over(&self) -> bool {
        let drained = self.draining && self.core.load() == 0 && self.mailbox.is_empty();
        self.cut || drained && self.common.hub.all_leaving()
    }

    /// Waits for events: not at all while somebody is ready, else until the next timer; spinning first, if so configured.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        if self.late || self.core.ready() + self.flows.ready() > 0 {
            return self.poll_for(events, Some(Duration::ZERO));
        }
        if !self.common.spin.is_zero() {
            let until = Instant::now() + self.common.spin;
            loop {
                self.poll_for(events, Some(Duration::ZERO))?;
                if !events.is_empty() {
                    return Ok(());
                }
                if Instant::now() >= until {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        let now = self.common.clock.now();
        let paused = self.doors.iter().flatten().filter_map(|door| door.paused);
        let leave = self.draining.then_some(Tick(now.0 + LEAVE_STEP));
        let due = paused.chain(self.core.next_due()).chain(self.flows.next_due()).chain(leave).min();
        self.poll_for(events, due.map(|due| due.since(now)))
    }

    fn poll_for(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn accept(&mut self, at: usize, now: Tick) {
        let Some(Some(door)) = self.doors.get_mut(at) else { return };
        let (core, posts) = (&mut self.core, &self.posts);
        let full = core.is_full();
        let stop = door.accept(&self.common.connections, full, now, |arrival| place(core, posts, arrival));
        if stop == Stop::Budget {
            self.core.enqueue(Task::Door(at));
        }
    }

    /// Opens paused doors again, when somebody has left or their time has come.
    fn reopen(&mut self, now: Tick) {
        let released = self.core.take_released();
        for at in 0..self.doors.len() {
            if let Some(door) = &mut self.doors[at]
                && let Some(until) = door.paused
                && (released || now >= until)
            {
                door.paused = None;
                self.core.enqueue(Task::Door(at));
            }
        }
    }

    fn read_mail(&mut self, now: Tick) {
        // Bounded by the box: what comes meanwhile has its own wake-up.
        for _ in 0..self.mailbox.len() {
            match self.mailbox.try_recv() {
                Ok(WorkerMail::Arrival(arrival)) => take(&mut self.core, arrival),
                Ok(WorkerMail::Answer { session, answer }) => self.core.answer(session, answer),
                Ok(WorkerMail::Listen(listen)) => self.listen(listen, now),
                Ok(WorkerMail::Forget(backends)) => self.core.forget(&backends),
                Ok(WorkerMail::Drain) => self.drain(now),
                Ok(WorkerMail::Hand(order)) => self.hand(order, now),
                Ok(WorkerMail::Cut) => {
                    self.core.cut_all();
                    let flows = self.flows.cut_all(flows_cx(&self.core, &self.common, now));
                    self.core.count().cut.add(flows as u64);
                    self.cut = true;
                }
                Err(_) => break,
            }
        }
    }

    /// Other listening sockets.
    fn listen(&mut self, listen: Listen<ListenerId>, now: Tick) {
        if self.draining {
            return;
        }
        // They may be of listeners that only the newest snapshot has.
        self.refresh(now);
        let Listen { open, rename, close, drop, done: _done } = listen;
        let leave = !rename.is_empty() || !close.is_empty();
        for opened in open {
            let id = opened.id;
            if let Err(error) = self.open(opened) {
                log::error!("a listening socket cannot be watched, one worker does without ({id:?}): {error}");
            }
        }
        for (id, listener) in rename {
            self.flows.rename_front(id, listener);
            let Some(plan) = self.core.member.snapshot().listener(listener) else { continue };
            for door in self.doors.iter_mut().flatten().filter(|door| door.id == id) {
                door.rename(listener, plan);
            }
        }
        for id in close {
            self.close(id, now);
        }
        for id in drop {
            self.flows.drop_front(id, flows_cx(&self.core, &self.common, now));
        }
        if leave {
            self.core.wake_gone();
        }
    }

    fn open(&mut self, opened: Opened<ListenerId>) -> io::Result<()> {
        let Opened { id, slot, listener, transport, socket, flows } = opened;
        match transport {
            Transport::Tcp => {
                let Some(plan) = self.core.member.snapshot().listener(listener) else { return Ok(()) };
                let socket = TcpListener::from_std(socket.into());
                let mut door = Door::new(id, listener, plan, socket, flows);
                let at = free_place(&mut self.doors);
                if !self.shut {
                    self.poll.registry().register(&mut door.socket, door_token(at), Interest::READABLE)?;
                }
                self.doors[at] = Some(door);
            }
            Transport::Udp => {
                let socket = MioSocket::listening(UdpSocket::from_std(socket.into()))?;
                let at = self.flows.place_for_front();
                let mut front = Front::of((id, slot), listener, socket, flows);
                if !self.shut {
                    self.poll.registry().register(front.socket.inner(), front_token(at), Interest::READABLE)?;
                    front.watched = true;
                }
                self.flows.add_front(at, front);
            }
        }
        Ok(())
    }

    /// Takes in who waits at a socket, then closes it: closing first would reset those. One for datagrams stays for the
    /// flows that live.
    fn close(&mut self, id: SocketId, now: Tick) {
        let fronts = self.flows.places_of(id);
        if !fronts.is_empty() {
            fronts.into_iter().for_each(|at| self.flows.latch_front(at));
            self.turn_flows(now);
            self.flows.shut_front(id);
            return;
        }
        for at in 0..self.doors.len() {
            if let Some(mut door) = self.doors[at].take_if(|door| door.id == id) {
                self.empty(&mut door, now);
                let _ = self.poll.registry().deregister(&mut door.socket);
            }
        }
    }

    /// Takes in everybody who waits at a door.
    fn empty(&mut self, door: &mut Door, now: Tick) {
        let core = &mut self.core;
        while door.accept(&self.common.connections, false, now, |arrival| take(core, arrival)) == Stop::Budget {}
    }

    /// Takes everybody who waits in the kernel's queues, then closes them: closing first would reset those.
    fn drain(&mut self, now: Tick) {
        self.draining = true;
        self.core.member.leave();
        for mut door in std::mem::take(&mut self.doors).into_iter().flatten() {
            self.empty(&mut door, now);
            // Somebody else may have the socket, too, and then closing ours does not end the watch.
            let _ = self.poll.registry().deregister(&mut door.socket);
        }
        // The same for datagrams: who sent before we were told to end still gets a session.
        self.flows.latch_all();
        self.turn_flows(now);
        self.core.drain();
        self.flows.drain(now);
    }
}

/// What a turn of the flows works with.
pub(super) fn flows_cx<'a>(core: &'a Core<MioNet>, common: &'a Common, now: Tick) -> udp::Context<'a> {
    let (snapshot, worker) = (core.member.snapshot(), core.member.worker());
    udp::Context { now, snapshot, process: &common.connections, count: core.count(), worker }
}

/// A place for another, at the end if there is no other.
fn free_place<T>(places: &mut Vec<Option<T>>) -> usize {
    places.iter().position(Option::is_none).unwrap_or_else(|| {
        places.push(None);
        places.len() - 1
    })
}

/// Gives a client to this worker, or to one that has clearly less to do.
fn place(core: &mut Core<MioNet>, posts: &[WorkerPost<PlainStream>], arrival: Arrival<PlainStream>) {
    let better = core.member.better_worker(core.load()).and_then(|id| posts.get(usize::from(id.0)));
    let Some(post) = better else { return take(core, arrival) };
    match post.offer(WorkerMail::Arrival(arrival)) {
        Ok(()) => core.count().moved.add(1),
        Err(WorkerMail::Arrival(arrival)) => take(core, arrival),
        Err(_) => {}
    }
}

fn take(core: &mut Core<MioNet>, arrival: Arrival<PlainStream>) {
    // Whoever could not be taken on was closed, and it was said why.
    let _ = core.admit(arrival);
}
