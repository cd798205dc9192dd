//! Links without sockets: what a kernel does behind a stream is played from a seed, in simulated time.
//!
//! Knows: how a TCP socket of Linux behaves under edge-triggered epoll (tcp(7), epoll(7), net/ipv4/tcp.c). Must not
//! touch: sockets, threads, the clock. Only tests use it; they hold the far end of every [`Socket`].
//! Read [`Socket::recv`], [`Socket::readiness`] and [`Socket::flow`] first.
//!
//! What is faithful: an error is told to one call and then forgotten, bytes that came before a reset stay readable, a
//! read stops at the urgent mark, an edge comes with arrivals and with room that a write had missed, and an event
//! carries what holds when it is taken, not when it was raised.

use crate::base::ids::LinkId;
use crate::base::time::Tick;
use crate::link::{Net, Ready, Stream};
use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;

/// What a scripted panic says.
pub const PANIC: &str = "a scripted panic";

/// Chance from a seed (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    /// A number from `first` to `last`, both included.
    pub fn from_to(&mut self, first: usize, last: usize) -> usize {
        first + self.below(last - first + 1)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, of_hundred: usize) -> bool {
        self.below(100) < of_hundred
    }

    /// One of `all`.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// What is on its way to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes, at least one.
    Bytes(VecDeque<u8>),
    /// An urgent byte. It is no part of the stream, but reads stop at its place.
    Urgent,
    /// The end.
    Fin,
    /// The connection breaks, with this errno.
    Reset(i32),
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The far end has not answered yet.
    Connecting,
    /// Established.
    Open,
    /// Refused, or broken.
    Dead,
}

/// What the far end knows of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It ended in good order, and all that was sent has come.
    Fin,
    /// It was reset.
    Reset,
}

/// What happened to a socket, for checks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Bytes that came into its receive queue.
    pub arrived: u64,
    /// Bytes that `recv` gave.
    pub taken: u64,
    /// `recv` told of the end with 0 after a FIN.
    pub end_taken: bool,
    /// Bytes that `send` took.
    pub sent: u64,
    /// Calls of `recv` and `send`.
    pub calls: u64,
    /// Calls of `recv` that found nothing, and of `send` that found no room.
    pub empty: u64,
    /// See `empty`.
    pub full: u64,
    /// Events that told of it, and everything that they told.
    pub events: u64,
    /// See `events`.
    pub told: Ready,
    /// `failure` told of an error.
    pub failed: bool,
    /// The last `recv` or `send` that moved a byte.
    pub moved_at: Tick,
    /// It broke.
    pub died_at: Option<Tick>,
    /// It was closed.
    pub closed_at: Option<Tick>,
}

/// One TCP socket as its kernel sees it, and the wire to its far end.
#[derive(Debug)]
pub struct Socket {
    state: State,
    link: Option<LinkId>,
    /// Something happened that epoll will tell of.
    edge: bool,
    /// On its way to us, in order.
    wire: VecDeque<Piece>,
    /// Bytes that may be on their way at once.
    wire_room: usize,
    /// The receive queue, and how much it holds at most.
    queue: VecDeque<u8>,
    window: usize,
    /// Where in the queue the urgent byte was, as long as no read has passed it.
    mark: Option<usize>,
    fin: bool,
    /// An error that no call was told of yet.
    error: Option<i32>,
    /// Sent and not acknowledged, and how much that may be.
    out: VecDeque<u8>,
    room: usize,
    /// A write came short, so that room that appears is worth an edge (`SOCK_NOSPACE`).
    nospace: bool,
    shut: bool,
    fin_acknowledged: bool,
    cut: bool,
    told_reset: bool,
    /// The far end has ended its side.
    far_shut: bool,
    /// The far end has closed, and answers whatever comes by a reset.
    far_gone: bool,
    far_has_reset: bool,
    panic_at: Option<u64>,
    record: Record,
}

impl Socket {
    /// A socket in `state` with room for so many bytes: received and not read, and sent and not acknowledged.
    pub fn new(state: State, window: usize, room: usize) -> Socket {
        Socket {
            state,
            link: None,
            edge: false,
            wire: VecDeque::new(),
            wire_room: window.max(2),
            queue: VecDeque::new(),
            window: window.max(1),
            mark: None,
            fin: false,
            error: None,
            out: VecDeque::new(),
            room: room.max(1),
            nospace: false,
            shut: false,
            fin_acknowledged: false,
            cut: false,
            told_reset: false,
            far_shut: false,
            far_gone: false,
            far_has_reset: false,
            panic_at: None,
            record: Record::default(),
        }
    }

    /// Panics in the `call`-th call of `recv` or `send`, counted from 1.
    pub fn panic_at(&mut self, call: u64) {
        self.panic_at = Some(call);
    }

    /// True when it has panicked.
    pub fn has_panicked(&self) -> bool {
        self.panic_at.is_some_and(|call| self.record.calls >= call)
    }

    /// Gives it twice the room, as kernels do for a connection that lives.
    pub fn widen(&mut self) {
        self.window *= 2;
        self.room *= 2;
        self.wire_room *= 2;
    }

    /// What happened so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// How far the connection is.
    pub fn state(&self) -> State {
        self.state
    }

    /// The link it is watched as.
    pub fn link(&self) -> Option<LinkId> {
        self.link
    }

    /// Bytes that wait to be read.
    pub fn unread(&self) -> usize {
        self.queue.len()
    }

    /// True when it has an end to tell that `recv` did not tell yet, and nothing before it.
    pub fn at_end(&self) -> bool {
        self.fin && self.queue.is_empty() && !self.record.end_taken
    }

    /// True when the far end's FIN has come.
    pub fn fin(&self) -> bool {
        self.fin
    }

    /// True when we have ended our side.
    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Bytes sent and not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.out.len()
    }

    /// True when a write would take something, and no edge is owed for it.
    pub fn has_room(&self) -> bool {
        self.state == State::Open && !self.shut && !self.nospace && self.is_writable()
    }

    /// True when something is on its way that could come in.
    pub fn is_flowing(&self) -> bool {
        let open = self.state == State::Open;
        open && match self.wire.front() {
            Some(Piece::Bytes(_)) => self.queue.len() < self.window || self.record.closed_at.is_some(),
            Some(_) => true,
            None => self.owes_reset(),
        }
    }

    fn owes_reset(&self) -> bool {
        self.far_gone && !self.far_has_reset && !self.out.is_empty() && self.state == State::Open
    }

    // As a kernel: room is told of once a third of the buffer is free.
    fn is_writable(&self) -> bool {
        (self.room - self.out.len().min(self.room)) * 3 >= self.room
    }

    /// What poll(2) would say now, as mio tells it.
    pub fn readiness(&self) -> Ready {
        if self.state == State::Connecting {
            return Ready::default();
        }
        let dead = self.state == State::Dead;
        let both_over = dead || self.fin && self.shut;
        let over = dead || self.fin;
        let readable = over || !self.queue.is_empty();
        Ready::default()
            .with_if(readable || self.mark.is_some(), Ready::IN)
            .with_if(dead || self.shut || self.is_writable(), Ready::OUT)
            .with_if(both_over || readable && over, Ready::RDHUP)
            .with_if(self.error.is_some(), Ready::ERR)
            .with_if(self.mark.is_some(), Ready::PRI)
    }

    /// Somebody was told what [`Socket::readiness`] says now.
    pub fn tell(&mut self) -> Ready {
        let told = self.readiness();
        // Polling a full socket asks to be told of room.
        self.nospace |= self.state == State::Open && !told.any(Ready::OUT);
        self.record.events += 1;
        self.record.told = self.record.told.with(told);
        told
    }

    fn call(&mut self) {
        self.record.calls += 1;
        assert!(self.panic_at != Some(self.record.calls), "{PANIC}");
    }

    fn recv(&mut self, into: &mut [u8], now: Tick) -> io::Result<usize> {
        self.call();
        if self.mark == Some(0) {
            // The urgent byte itself is passed over.
            self.mark = None;
        }
        let n = into.len().min(self.mark.unwrap_or(usize::MAX)).min(self.queue.len());
        if n > 0 {
            copy_out(&mut self.queue, &mut into[..n]);
            self.mark = self.mark.map(|mark| mark - n);
            self.record.taken += n as u64;
            self.record.moved_at = now;
            return Ok(n);
        }
        if self.fin {
            self.record.end_taken = true;
            return Ok(0);
        }
        match self.error.take() {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None if self.state == State::Dead => Ok(0),
            None => {
                self.record.empty += 1;
                Err(ErrorKind::WouldBlock.into())
            }
        }
    }

    fn send(&mut self, bytes: &[IoSlice<'_>], most: usize, now: Tick) -> io::Result<usize> {
        self.call();
        if self.state == State::Connecting {
            self.record.full += 1;
            return Err(ErrorKind::WouldBlock.into());
        }
        if let Some(error) = self.error.take() {
            return Err(io::Error::from_raw_os_error(error));
        }
        if self.shut || self.state == State::Dead {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let total: usize = bytes.iter().map(|slice| slice.len()).sum();
        let n = total.min(self.room.saturating_sub(self.out.len())).min(most);
        self.nospace |= n < total;
        if n == 0 && total > 0 {
            self.record.full += 1;
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut left = n;
        for slice in bytes {
            let part = left.min(slice.len());
            self.out.extend(&slice[..part]);
            left -= part;
        }
        self.record.sent += n as u64;
        self.record.moved_at = now;
        Ok(n)
    }

    fn shutdown(&mut self) {
        if self.state == State::Open && !self.shut {
            self.shut = true;
            // Whoever polls is woken, for nothing.
            self.edge = true;
        }
    }

    fn unsent(&self) -> usize {
        // The end counts as a byte until it is acknowledged. A reset leaves the number as it was.
        self.out.len() + usize::from(self.shut && !self.fin_acknowledged)
    }

    fn failure(&mut self) -> Option<io::Error> {
        let error = self.error.take()?;
        self.record.failed = true;
        Some(io::Error::from_raw_os_error(error))
    }

    fn close(&mut self, now: Tick) {
        self.record.closed_at = Some(now);
        let is_over = self.fin && self.shut && self.out.is_empty();
        if self.state != State::Open || !self.queue.is_empty() || self.cut && !is_over {
            // Bytes that nobody has read make a plain close a reset, too.
            self.told_reset |= self.state != State::Dead;
            self.out.clear();
            self.wire.clear();
        } else {
            self.shut = true;
        }
    }

    fn die(&mut self, error: i32, now: Tick) {
        if self.state == State::Dead || self.fin && self.fin_acknowledged {
            return;
        }
        // As tcp_reset() has it.
        self.error = Some(if self.fin && !self.shut { libc::EPIPE } else { error });
        self.state = State::Dead;
        self.record.died_at = Some(now);
        self.edge = true;
    }

    /// The connect ends: well, or with an errno.
    pub fn connect(&mut self, error: Option<i32>, now: Tick) {
        if self.state == State::Connecting {
            match error {
                None => {
                    self.state = State::Open;
                    self.record.moved_at = now;
                }
                Some(error) => self.die(error, now),
            }
            self.edge = true;
        }
    }

    /// The far end sends: as many of `bytes` as may be on their way. Returns how many.
    pub fn far_send(&mut self, bytes: &[u8]) -> usize {
        let on_its_way: usize =
            self.wire.iter().map(|piece| if let Piece::Bytes(b) = piece { b.len() } else { 0 }).sum();
        let n = bytes.len().min(self.wire_room.saturating_sub(on_its_way));
        match self.wire.back_mut() {
            Some(Piece::Bytes(last)) => last.extend(&bytes[..n]),
            _ if n > 0 => self.wire.push_back(Piece::Bytes(bytes[..n].iter().copied().collect())),
            _ => {}
        }
        n
    }

    /// The far end sends an urgent byte.
    pub fn far_urgent(&mut self) {
        self.wire.push_back(Piece::Urgent);
    }

    /// The far end ends its side.
    pub fn far_shutdown(&mut self) {
        if !self.far_shut {
            self.far_shut = true;
            self.wire.push_back(Piece::Fin);
        }
    }

    /// The far end breaks: of what it had sent, up to `most` bytes that still fit come before the reset.
    pub fn far_reset(&mut self, most: usize, error: i32) {
        let mut left = most.min(self.window.saturating_sub(self.queue.len()));
        let mut kept = VecDeque::new();
        while let Some(mut piece) = self.wire.pop_front() {
            let whole = match &mut piece {
                Piece::Bytes(bytes) => {
                    let whole = bytes.len() <= left;
                    bytes.truncate(left);
                    left -= bytes.len();
                    if bytes.is_empty() {
                        break;
                    }
                    whole
                }
                _ => true,
            };
            kept.push_back(piece);
            if !whole {
                break;
            }
        }
        kept.push_back(Piece::Reset(error));
        self.wire = kept;
        self.far_gone = true;
        self.far_has_reset = true;
    }

    /// The far end closes, without having read what is on its way to it: that is answered by a reset.
    pub fn far_close(&mut self) {
        self.far_shutdown();
        self.far_gone = true;
    }

    /// Lets what is on its way come in: one piece, or `most` bytes of it. True when that changed anything.
    pub fn flow(&mut self, most: usize, now: Tick) -> bool {
        if self.owes_reset() {
            self.far_has_reset = true;
            self.wire.push_back(Piece::Reset(libc::ECONNRESET));
        }
        if !self.is_flowing() {
            return false;
        }
        let closed = self.record.closed_at.is_some();
        if let Some(Piece::Bytes(bytes)) = self.wire.front_mut() {
            if closed {
                // Nobody is there to read them.
                self.told_reset = true;
                self.out.clear();
                self.wire.clear();
                return true;
            }
            let n = bytes.len().min(most.max(1)).min(self.window - self.queue.len());
            self.queue.extend(bytes.drain(..n));
            if bytes.is_empty() {
                self.wire.pop_front();
            }
            self.record.arrived += n as u64;
            self.edge = true;
            return true;
        }
        match self.wire.pop_front() {
            Some(Piece::Urgent) => self.mark = Some(self.queue.len()),
            Some(Piece::Fin) => self.fin = true,
            Some(Piece::Reset(error)) => self.die(error, now),
            _ => return false,
        }
        self.edge = true;
        true
    }

    /// The far end takes up to `most` bytes, which acknowledges them.
    pub fn far_read(&mut self, most: usize) -> Vec<u8> {
        if self.far_gone || self.state != State::Open {
            return Vec::new();
        }
        let mut bytes = vec![0; most.min(self.out.len())];
        copy_out(&mut self.out, &mut bytes);
        if self.nospace && self.is_writable() && !bytes.is_empty() {
            self.nospace = false;
            self.edge = true;
        }
        bytes
    }

    /// What the far end knows of ours, once it has read everything before it.
    pub fn far_end(&mut self) -> Option<End> {
        if self.told_reset {
            return Some(End::Reset);
        }
        if self.state != State::Open || !self.shut || !self.out.is_empty() {
            return None;
        }
        if !self.fin_acknowledged {
            self.fin_acknowledged = true;
            self.edge = true;
        }
        Some(End::Fin)
    }
}

fn copy_out(from: &mut VecDeque<u8>, into: &mut [u8]) {
    let (first, second) = from.as_slices();
    let split = into.len().min(first.len());
    into[..split].copy_from_slice(&first[..split]);
    let rest = into.len() - split;
    into[split..].copy_from_slice(&second[..rest]);
    from.drain(..into.len());
}

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
    last_used: usize,
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

    fn dial(&mut self, to: SocketAddr) -> io::Result<ScriptedStream> {
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
