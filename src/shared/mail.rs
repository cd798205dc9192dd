//! Mail: what threads tell each other. Every box is bounded.

use crate::base::ids::{BackendSlot, ListenerId, SessionId, SocketId, WorkerId};
use crate::config::{Config, Transport};
use crate::guard::{Cap, Permit};
use crate::shared::admin::{Answer, Question};
use crate::shared::changes::Changes;
use crate::shared::handing::Handing;
use crate::shared::order::{Order, Tags};
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError, bounded};
use mio::Waker;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Arrivals and orders a worker may have waiting; beyond it an arrival stays with the worker that has it.
const WORKER_BOX: usize = 1024;
/// How long an order waits for room.
const ORDER: Duration = Duration::from_secs(1);
/// What control may have waiting.
const CONTROL_BOX: usize = 1024;

/// A client that was accepted and has no session yet. It may change workers once.
#[derive(Debug)]
pub struct Arrival<S> {
    /// Its connection.
    pub stream: S,
    /// Where it comes from; an IPv4 client of an IPv6 socket is told as IPv4.
    pub client: SocketAddr,
    /// Where it arrived.
    pub listener: ListenerId,
    /// Its places under max_connections, of the process and of the listener.
    pub permits: (Permit, Permit),
}

/// A listening socket for one worker, of a listener by its number: in a configuration first, then in the snapshot.
#[derive(Debug)]
pub struct Opened<L> {
    /// Which address it is.
    pub id: SocketId,
    /// Which one of those at its address it is.
    pub slot: u32,
    /// Whose clients come in by it.
    pub listener: L,
    /// What kind of socket it is.
    pub transport: Transport,
    /// Bound, listening where there is such a thing, and non-blocking.
    pub socket: OwnedFd,
    /// UDP: flows at this address, in all workers. Whoever has a socket of the address has this.
    pub flows: Arc<Cap>,
}

/// What is different about listening sockets of one worker. In this order.
#[derive(Debug)]
pub struct Listen<L> {
    /// New ones.
    pub open: Vec<Opened<L>>,
    /// Those that are of another listener from now on, or of one again.
    pub rename: Vec<(SocketId, L)>,
    /// Nobody comes in by these any more: who waits is taken in, and they are closed; those for datagrams stay for the flows
    /// that live.
    pub close: Vec<SocketId>,
    /// Those for datagrams that nobody has a flow at any more.
    pub drop: Vec<SocketId>,
    /// Dropped when all this is done.
    pub done: Arc<()>,
}

impl<L> Default for Listen<L> {
    fn default() -> Self {
        let (open, rename, close, drop, done) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Arc::default());
        Listen { open, rename, close, drop, done }
    }
}

impl<L> Listen<L> {
    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.rename.is_empty() && self.close.is_empty() && self.drop.is_empty()
    }

    /// The same with other numbers of listeners.
    pub fn with<M>(self, number: impl Fn(L) -> M) -> Listen<M> {
        let opened = |Opened { id, slot, listener, transport, socket, flows }| {
            let listener = number(listener);
            Opened { id, slot, listener, transport, socket, flows }
        };
        let open = self.open.into_iter().map(opened).collect();
        let rename = self.rename.into_iter().map(|(id, listener)| (id, number(listener))).collect();
        Listen { open, rename, close: self.close, drop: self.drop, done: self.done }
    }
}

/// What a new configuration comes to for sockets: all that it binds is bound.
#[derive(Debug, Default)]
pub struct Moves {
    /// For each worker; listeners by their place in the configuration.
    pub orders: Vec<Listen<usize>>,
    /// Everything that is listened on from now on.
    pub bound: Vec<(Transport, SocketAddr)>,
    /// What the sockets there are cannot be changed to.
    pub at_restart: Vec<String>,
}

/// Mail to a worker.
#[derive(Debug)]
pub enum WorkerMail<S> {
    /// A client from a worker with more to do.
    Arrival(Arrival<S>),
    /// What control says to a question of one of its sessions, which may be gone meanwhile.
    Answer {
        /// Whose question it was.
        session: SessionId,
        /// What is said.
        answer: Answer,
    },
    /// Other listening sockets.
    Listen(Listen<ListenerId>),
    /// Close the idle connections to these backends, which leave.
    Forget(Arc<[BackendSlot]>),
    /// Take what waits to be accepted, close the listening sockets, and end with the last session.
    Drain,
    /// End at once: cut every session.
    Cut,
    /// One process takes the place of another.
    Hand(Handing),
}

/// Mail to control.
#[derive(Debug)]
pub enum ControlMail {
    /// What a name resolves to now; empty when it does not.
    Resolved {
        /// The name.
        host: String,
        /// Its port.
        port: u16,
        /// In the resolver's order.
        addresses: Vec<SocketAddr>,
    },
    /// The health of some backend has changed; its state says how.
    Health,
    /// A question to the admin API.
    Ask {
        /// Whom to answer.
        worker: WorkerId,
        /// Which of its sessions.
        session: SessionId,
        /// What is asked.
        question: Question,
        /// What its client knows already.
        unless: Option<Tags>,
    },
    /// A write of the admin API.
    Order {
        /// Whom to answer.
        worker: WorkerId,
        /// Which of its sessions.
        session: SessionId,
        /// What is to change.
        order: Box<Order>,
    },
    /// Read the configuration again.
    Reload(Reload),
    /// It was read, and what it needs is at hand: put it in force.
    Adopt(Box<Adopt>),
    /// Another process is to take the place of this one: from now on nothing changes the configuration.
    Halt {
        /// Told what the admin API has changed, as bytes of an overlay.
        tell: Sender<Vec<u8>>,
    },
    /// It does not: go on. Or: this one has taken the place of another, and may begin.
    Resume,
    /// The start is over, and nobody else changes the configuration or what is kept of it.
    Started,
    /// What the admin API has changed is to go with a reload of this: keep no more of it than that leaves.
    Discard {
        /// What the file says.
        config: Box<Config>,
        /// Told why that cannot be, in which case nothing is changed.
        tell: Sender<Result<(), String>>,
    },
    /// It is not reloaded: keep all of it.
    DiscardNot,
    /// Nothing more will be asked: end.
    Stop,
}

/// The name of a machine, and a port there.
pub type HostPort = (String, u16);

/// What names resolve to.
pub type Resolved = Vec<(HostPort, Vec<SocketAddr>)>;

/// A wish for the configuration to be read again.
#[derive(Debug, Default)]
pub struct Reload {
    /// Only tell what would change.
    pub dry_run: bool,
    /// Drop what the admin API has changed.
    pub discard: bool,
    /// Whom to answer.
    pub reply: Reply,
}

/// A configuration that was read and found to be right.
#[derive(Debug)]
pub struct Adopt {
    /// What the file says.
    pub config: Config,
    /// What the names of its backends resolve to, as far as that is known.
    pub resolved: Resolved,
    /// What is different about listening sockets.
    pub moves: Moves,
    /// Who wished for it.
    pub reload: Reload,
}

/// What is told of a reload by a process that ends.
pub const ENDS: &str = "this process ends, and takes nothing new; if another one has taken its place, ask that one";

/// What a change of the configuration comes to: what is different, or everything that is wrong, a line each.
pub type Adopted = Result<Changes, Vec<String>>;

/// Who is told what a change came to: once every worker goes by it, or nothing has changed. By default nobody.
#[derive(Default)]
pub struct Reply(Option<Box<dyn FnOnce(Adopted) + Send>>);

impl Reply {
    /// Tells `whom`, on the thread that knows it first; it must not wait for anything.
    pub fn to(whom: impl FnOnce(Adopted) + Send + 'static) -> Reply {
        Reply(Some(Box::new(whom)))
    }

    /// Tells it.
    pub fn tell(self, adopted: Adopted) {
        if let Some(whom) = self.0 {
            whom(adopted);
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reply" } else { "Reply(nobody)" })
    }
}

/// Where mail for a worker is put in.
#[derive(Debug)]
pub struct WorkerPost<S> {
    sender: Sender<WorkerMail<S>>,
    waker: Arc<Waker>,
}

impl<S> Clone for WorkerPost<S> {
    fn clone(&self) -> Self {
        WorkerPost { sender: self.sender.clone(), waker: self.waker.clone() }
    }
}

impl<S> WorkerPost<S> {
    /// A box and its post; `waker` wakes the worker that empties it.
    pub fn new(waker: Waker) -> (WorkerPost<S>, Receiver<WorkerMail<S>>) {
        let (sender, receiver) = bounded(WORKER_BOX);
        (WorkerPost { sender, waker: Arc::new(waker) }, receiver)
    }

    /// Puts mail in, or gives it back when the box is full or the worker has left. Never waits.
    pub fn offer(&self, mail: WorkerMail<S>) -> Result<(), WorkerMail<S>> {
        match self.sender.try_send(mail) {
            Ok(()) => {
                self.wake();
                Ok(())
            }
            Err(TrySendError::Full(mail) | TrySendError::Disconnected(mail)) => Err(mail),
        }
    }

    /// Puts mail in, waiting for a bounded time while the box is full. For threads that may wait: not for workers. False
    /// when the worker makes no room; one that has left gets nothing, and needs nothing.
    pub fn order(&self, mail: WorkerMail<S>) -> bool {
        // Woken before as well, or a sleeping worker with a full box would never make room.
        self.wake();
        match self.sender.send_timeout(mail, ORDER) {
            Ok(()) => {
                self.wake();
                true
            }
            Err(SendTimeoutError::Timeout(_)) => false,
            Err(SendTimeoutError::Disconnected(_)) => true,
        }
    }

    /// What wakes the worker.
    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    /// Makes the worker take a turn, so that it sees a new snapshot.
    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("a worker cannot be woken: {error}");
        }
    }
}

/// Where mail for control is put in, and where control takes it out.
pub fn control_box() -> (Sender<ControlMail>, Receiver<ControlMail>) {
    bounded(CONTROL_BOX)
}

/// An IPv4 address that came through an IPv6 socket, told as IPv4 (RFC 4291, section 2.5.5.2).
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// True for an error of accept(2) that is about one connection, which is gone: the next one may be well (accept(2), "Error
/// handling").
pub fn is_of_one(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::EOPNOTSUPP
                | libc::ETIMEDOUT
        )
    )
}
