//! Links without sockets: what a kernel does behind a stream is played from a seed, in simulated time.
//!
//! Knows: how a TCP socket of Linux behaves under edge-triggered epoll (tcp(7), epoll(7), net/ipv4/tcp.c). Must not
//! touch: sockets, threads, the clock. Only tests use it; they hold the far end of every [`Socket`].
//! Read [`Socket`] first, then [`Sockets::events`].
//!
//! What is faithful: an error is told to one call and then forgotten, bytes that came before a reset stay readable, a
//! read stops at the urgent mark, an edge comes with arrivals and with room that a write had missed, and an event
//! carries what holds when it is taken, not when it was raised. A pipe counts pieces, not bytes, and a splice does not pass
//! the urgent mark. `tests/simulator/kernel.rs` holds it against a kernel.

mod dice;
mod pipe;
mod socket;

use crate::base::ids::LinkId;
use crate::base::pipes::{Pipe, Supply};
use crate::base::time::Tick;
use crate::link::{Net, Ready, Stream};
use std::cell::{RefCell, RefMut};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;

pub use dice::Dice;
use pipe::Slots;
pub use pipe::{PAGE, Pipes};
pub use socket::{End, PANIC, Piece, Record, Socket, State};

/// How unkind the kernel is, in cases of a hundred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whims {
    /// A write takes less than there is room for, down to one byte.
    pub short_writes: usize,
    /// Something comes in on some socket while a call runs.
    pub meanwhile: usize,
    /// A call is interrupted by a signal.
    pub interrupted: usize,
    /// A stream cannot be watched.
    pub unwatched: usize,
    /// What pipes are like.
    pub pipes: Pipes,
}

/// What becomes of a connect: a socket, or an errno at once.
pub type Answer = Result<Socket, i32>;

/// A connect that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Dialled {
    /// Where to.
    pub address: SocketAddr,
    /// The number of its socket, if there is one.
    pub socket: Option<usize>,
    /// The socket that was used last before: one of the same session, since a session first looks at what it has.
    pub after: usize,
}

/// All sockets of a simulation.
pub struct Sockets {
    all: Vec<Socket>,
    /// The time.
    pub now: Tick,
    /// How unkind the kernel is.
    pub whims: Whims,
    dice: Dice,
    answer: Box<dyn FnMut(SocketAddr) -> Answer>,
    /// Connects since this was last emptied.
    pub dialled: Vec<Dialled>,
    /// The socket that was used last. A session that has used none yet is to be told of by whoever steps it.
    pub last_used: usize,
}

impl Sockets {
    /// How many there were so far.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// True when there was none so far.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is no such one.
    pub fn get(&mut self, number: usize) -> &mut Socket {
        &mut self.all[number]
    }

    fn add(&mut self, mut socket: Socket) -> usize {
        socket.record.moved_at = self.now;
        self.all.push(socket);
        self.all.len() - 1
    }

    /// What epoll_wait(2) would give: at most `most` of those that have news, in any order.
    pub fn events(&mut self, most: usize) -> Vec<(LinkId, Ready)> {
        let mut ready: Vec<usize> = (0..self.all.len()).filter(|at| self.has_news(*at)).collect();
        let mut events = Vec::new();
        while !ready.is_empty() && events.len() < most {
            let at = ready.swap_remove(self.dice.below(ready.len()));
            let socket = &mut self.all[at];
            socket.edge = false;
            let told = socket.tell();
            if let Some(link) = socket.link
                && told != Ready::default()
            {
                events.push((link, told));
            }
        }
        events
    }

    fn has_news(&self, at: usize) -> bool {
        let socket = &self.all[at];
        socket.edge && socket.link.is_some() && socket.record.closed_at.is_none()
    }

    /// True when epoll_wait(2) would give something.
    pub fn have_news(&self) -> bool {
        (0..self.all.len()).any(|at| self.has_news(at))
    }

    fn meanwhile(&mut self) {
        if self.whims.meanwhile > 0 && self.dice.percent(self.whims.meanwhile) {
            let (at, most) = (self.dice.below(self.all.len()), self.dice.from_to(1, 64));
            self.all[at].flow(most, self.now);
        }
    }

    fn interrupted(&mut self) -> io::Result<()> {
        match self.whims.interrupted > 0 && self.dice.percent(self.whims.interrupted) {
            true => Err(ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }
}

/// The network of a simulation. Clones are the same network.
#[derive(Clone)]
pub struct ScriptedNet(Rc<RefCell<Sockets>>);

impl ScriptedNet {
    /// A network in which `answer` says what becomes of each connect.
    pub fn new(seed: u64, whims: Whims, now: Tick, answer: impl FnMut(SocketAddr) -> Answer + 'static) -> ScriptedNet {
        ScriptedNet(Rc::new(RefCell::new(Sockets {
            all: Vec::new(),
            now,
            whims,
            dice: Dice::new(seed),
            answer: Box::new(answer),
            dialled: Vec::new(),
            last_used: 0,
        })))
    }

    /// Its sockets. Not to be held while a stream is used.
    pub fn sockets(&self) -> RefMut<'_, Sockets> {
        self.0.borrow_mut()
    }

    /// A stream over `socket`, as accept(2) gives one, and the number of the socket.
    pub fn accepted(&self, socket: Socket) -> (ScriptedStream, usize) {
        let number = self.sockets().add(socket);
        (ScriptedStream { net: self.clone(), number }, number)
    }
}

impl Net for ScriptedNet {
    type Stream = ScriptedStream;

    fn dial(&mut self, to: SocketAddr, _speaks_first: bool) -> io::Result<ScriptedStream> {
        let mut sockets = self.0.borrow_mut();
        let answer = (sockets.answer)(to);
        let after = sockets.last_used;
        let (socket, result) = match answer {
            Ok(socket) => {
                let number = sockets.add(socket);
                (Some(number), Ok(ScriptedStream { net: self.clone(), number }))
            }
            Err(error) => (None, Err(io::Error::from_raw_os_error(error))),
        };
        sockets.dialled.push(Dialled { address: to, socket, after });
        result
    }

    fn nanos(&self) -> u64 {
        self.0.borrow().now.0 * 1_000_000
    }

    fn watch(&mut self, stream: &mut ScriptedStream, link: LinkId) -> io::Result<()> {
        let mut sockets = stream.used();
        let unwatched = sockets.whims.unwatched;
        if unwatched > 0 && sockets.dice.percent(unwatched) {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let socket = sockets.get(stream.number);
        socket.link = Some(link);
        socket.edge |= socket.readiness() != Ready::default();
        Ok(())
    }

    fn pipes(&self) -> Supply {
        let net = self.clone();
        let Pipes { slots, from, below, most, .. } = net.sockets().whims.pipes;
        let open = move || {
            let mut sockets = net.sockets();
            let fails = sockets.whims.pipes.fails;
            match fails > 0 && sockets.dice.percent(fails) {
                true => Err(io::Error::from_raw_os_error(libc::EMFILE)),
                false => Ok(Pipe::new(Slots::new(slots), slots * PAGE)),
            }
        };
        Supply { open: Box::new(open), most, from, below }
    }
}

/// One end of a scripted connection: ours. Dropping it closes it.
pub struct ScriptedStream {
    net: ScriptedNet,
    number: usize,
}

impl ScriptedStream {
    fn used(&self) -> RefMut<'_, Sockets> {
        let mut sockets = self.net.sockets();
        sockets.last_used = self.number;
        sockets
    }
}

impl Stream for ScriptedStream {
    fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut sockets = self.used();
        sockets.interrupted()?;
        sockets.meanwhile();
        let now = sockets.now;
        let result = sockets.get(self.number).recv(into, now);
        sockets.meanwhile();
        result
    }

    fn send(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut sockets = self.used();
        sockets.interrupted()?;
        sockets.meanwhile();
        let (now, short) = (sockets.now, sockets.whims.short_writes);
        let most = match short > 0 && sockets.dice.percent(short) {
            true => sockets.dice.from_to(1, 16),
            false => usize::MAX,
        };
        let result = sockets.get(self.number).send(bytes, most, now);
        sockets.meanwhile();
        result
    }

    fn splices(&self) -> bool {
        true
    }

    fn splice_in(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let slots: &mut Slots = pipe.ends().expect("a pipe of this net");
        let mut sockets = self.used();
        sockets.interrupted()?;
        sockets.meanwhile();
        let (now, piece) = (sockets.now, sockets.whims.pipes.piece);
        // Segments as they came in: some are whole, some are not.
        let size = if piece == 0 { PAGE } else { sockets.dice.from_to(1, piece) };
        let result = sockets.get(self.number).splice_in(slots, most, size, now);
        sockets.meanwhile();
        result
    }

    fn splice_out(&mut self, pipe: &mut Pipe) -> io::Result<usize> {
        let held = pipe.len();
        let slots: &mut Slots = pipe.ends().expect("a pipe of this net");
        assert_eq!(held, slots.len(), "what is in a pipe is counted wrongly");
        let mut sockets = self.used();
        sockets.interrupted()?;
        sockets.meanwhile();
        let (now, short) = (sockets.now, sockets.whims.short_writes);
        let most = match short > 0 && sockets.dice.percent(short) {
            true => sockets.dice.from_to(1, held.div_ceil(2)),
            false => usize::MAX,
        };
        let result = sockets.get(self.number).splice_out(slots, most, now);
        sockets.meanwhile();
        result
    }

    fn shutdown(&mut self) {
        self.used().get(self.number).shutdown();
    }

    fn unsent(&self) -> usize {
        self.used().get(self.number).unsent()
    }

    fn set_cut(&mut self) {
        self.used().get(self.number).cut = true;
    }

    fn set_nodelay(&mut self) {}

    fn local_address(&self) -> Option<SocketAddr> {
        None
    }

    fn failure(&mut self) -> Option<io::Error> {
        self.used().get(self.number).failure()
    }
}

impl Drop for ScriptedStream {
    fn drop(&mut self) {
        let mut sockets = self.used();
        let now = sockets.now;
        sockets.get(self.number).close(now);
    }
}
