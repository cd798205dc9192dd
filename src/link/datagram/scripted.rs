//! Datagrams without sockets: what a kernel does behind one is played from a seed.
//!
//! Knows: how a UDP socket of Linux behaves under edge-triggered epoll (udp(7), net/ipv4/udp.c). Must not touch: sockets,
//! threads, the clock. Only tests use it; they hold the far end of every [`End`].
//!
//! What is faithful: an error is told to one call and then forgotten, and what that call was to send has not gone out; an
//! edge comes with each arrival and with nothing else; datagrams that came before an error stay readable; a batch stops at
//! its first error, which is told to the next call.

use crate::base::ids::FlowId;
use crate::link::datagram::{Batch, Departure, Net, Received, SLOT, Slots, Socket};
use crate::link::scripted::Dice;
use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::rc::Rc;

/// How unkind the kernel is, in cases of a hundred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whims {
    /// A send finds no room.
    pub would_block: usize,
    /// A call is interrupted by a signal.
    pub interrupted: usize,
    /// A batch is taken only in part.
    pub short: usize,
    /// A socket cannot be watched.
    pub unwatched: usize,
    /// A socket cannot be opened: out of descriptors.
    pub unopened: usize,
}

/// Something that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Who sent it.
    pub from: SocketAddr,
    /// Where to.
    pub to: Option<IpAddr>,
    /// All of it.
    pub bytes: Vec<u8>,
    /// How long each datagram of a train is; 0 for a single one.
    pub segment: usize,
}

/// Something that went out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Where to; on a connected socket, its peer.
    pub to: SocketAddr,
    /// The address it was to leave from.
    pub source: Option<IpAddr>,
    /// One by one.
    pub datagrams: Vec<Vec<u8>>,
}

/// A socket, as the kernel has it.
#[derive(Debug, Default)]
pub struct End {
    /// To whom it is connected.
    pub peer: Option<SocketAddr>,
    /// What it has received and not given.
    pub incoming: VecDeque<Incoming>,
    /// An errno that the next call is told.
    pub pending: Option<i32>,
    /// Datagrams that did not arrive, on a socket that is connected to nobody.
    pub failures: VecDeque<(SocketAddr, i32)>,
    /// What it has sent.
    pub sent: Vec<Sent>,
    /// Calls that received, and calls that sent.
    pub calls: (usize, usize),
    /// The longest datagram that its way takes; longer ones are told `EMSGSIZE`.
    pub longest: usize,
    /// The errno that a train is told, if its way takes none.
    pub no_trains: Option<i32>,
    /// The next receive panics.
    pub panic: bool,
    /// It was closed.
    pub closed: bool,
    /// How many have it: two while it is passed on.
    holders: usize,
    flow: Option<FlowId>,
    listening: bool,
    edge: bool,
}

/// Who has news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A listening socket, by its number.
    Listening(usize),
    /// The socket of a flow.
    Flow(FlowId),
}

/// All sockets of a script.
pub struct Ends {
    all: Vec<End>,
    /// How unkind the kernel is.
    pub whims: Whims,
    /// The errno that opening a socket to an address ends with, if it does.
    pub unreachable: Vec<(SocketAddr, i32)>,
    /// Chance.
    pub dice: Dice,
    /// The time, in nanoseconds.
    pub nanos: u64,
}

impl Ends {
    /// How many there were so far.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// True when there was none so far.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.all.iter().filter(|end| !end.closed).count()
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is no such one.
    pub fn get(&mut self, number: usize) -> &mut End {
        &mut self.all[number]
    }

    /// The socket that was opened last.
    pub fn last(&mut self) -> &mut End {
        let last = self.all.len() - 1;
        &mut self.all[last]
    }

    /// Something comes in.
    pub fn arrive(&mut self, number: usize, what: Incoming) {
        let end = &mut self.all[number];
        end.incoming.push_back(what);
        end.edge = true;
    }

    /// An error is there to be told.
    pub fn fail(&mut self, number: usize, errno: i32) {
        let end = &mut self.all[number];
        end.pending = Some(errno);
        end.edge = true;
    }

    /// A datagram of a socket that is connected to nobody did not arrive.
    pub fn fail_to(&mut self, number: usize, to: SocketAddr, errno: i32) {
        self.all[number].failures.push_back((to, errno));
        self.fail(number, errno);
    }

    /// What epoll_wait(2) would give, in any order.
    pub fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for (number, end) in self.all.iter_mut().enumerate() {
            if !std::mem::take(&mut end.edge) || end.closed {
                continue;
            }
            match end.flow {
                Some(flow) => news.push(News::Flow(flow)),
                None if end.listening => news.push(News::Listening(number)),
                None => {}
            }
        }
        for at in (1..news.len()).rev() {
            news.swap(at, self.dice.below(at + 1));
        }
        news
    }

    fn chance(&mut self, of_hundred: usize) -> bool {
        of_hundred > 0 && self.dice.percent(of_hundred)
    }
}

/// The network of a script. Clones are the same network.
#[derive(Clone)]
pub struct ScriptedDatagrams(Rc<RefCell<Ends>>);

impl ScriptedDatagrams {
    /// A network.
    pub fn new(seed: u64, whims: Whims) -> ScriptedDatagrams {
        let ends = Ends { all: Vec::new(), whims, unreachable: Vec::new(), dice: Dice::new(seed), nanos: 0 };
        ScriptedDatagrams(Rc::new(RefCell::new(ends)))
    }

    /// Its sockets. Not to be held while one is used.
    pub fn ends(&self) -> RefMut<'_, Ends> {
        self.0.borrow_mut()
    }

    /// A listening socket; its number counts from 0 with the others.
    pub fn listening(&self) -> ScriptedSocket {
        self.add(End { listening: true, longest: 65_507, ..End::default() })
    }

    fn add(&self, end: End) -> ScriptedSocket {
        let mut ends = self.ends();
        ends.all.push(End { holders: 1, ..end });
        ScriptedSocket { net: self.clone(), number: ends.len() - 1 }
    }
}

impl Net for ScriptedDatagrams {
    type Socket = ScriptedSocket;

    fn open(&mut self, like: SocketAddr, connected: bool) -> io::Result<ScriptedSocket> {
        {
            let mut ends = self.ends();
            let unopened = ends.whims.unopened;
            if ends.chance(unopened) {
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
            if let Some((_, errno)) = ends.unreachable.iter().find(|(address, _)| *address == like) {
                return Err(io::Error::from_raw_os_error(*errno));
            }
        }
        Ok(self.add(End { peer: connected.then_some(like), longest: 65_507, ..End::default() }))
    }

    fn watch(&mut self, socket: &mut ScriptedSocket, flow: FlowId) -> io::Result<()> {
        let mut ends = self.ends();
        let unwatched = ends.whims.unwatched;
        if ends.chance(unwatched) {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        let end = ends.get(socket.number);
        end.flow = Some(flow);
        end.edge |= !end.incoming.is_empty() || end.pending.is_some();
        Ok(())
    }

    type Passed = ScriptedSocket;

    fn pass(&self, socket: &ScriptedSocket) -> io::Result<ScriptedSocket> {
        self.ends().get(socket.number).holders += 1;
        Ok(ScriptedSocket { net: self.clone(), number: socket.number })
    }

    fn receive(&mut self, passed: ScriptedSocket, _connected: bool) -> ScriptedSocket {
        passed
    }

    fn unwatch(&mut self, _: &mut ScriptedSocket) {}

    fn nanos(&self) -> u64 {
        self.ends().nanos
    }
}

/// Our side of a scripted socket. Dropping it closes it.
pub struct ScriptedSocket {
    net: ScriptedDatagrams,
    number: usize,
}

impl ScriptedSocket {
    /// What every call meets first.
    fn enter(&self) -> io::Result<RefMut<'_, Ends>> {
        let mut ends = self.net.ends();
        let interrupted = ends.whims.interrupted;
        if ends.chance(interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        match ends.get(self.number).pending.take() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(ends),
        }
    }
}

impl Socket for ScriptedSocket {
    fn recv(&mut self, into: &mut Slots, first: usize, most: usize) -> io::Result<usize> {
        self.net.ends().get(self.number).calls.0 += 1;
        let mut ends = self.enter()?;
        let end = ends.get(self.number);
        assert!(!std::mem::take(&mut end.panic), "a script panics");
        let names = end.peer.is_none();
        let mut filled = 0;
        while filled < most
            && let Some(Incoming { from, to, bytes, segment }) = end.incoming.pop_front()
        {
            let told = Received { from: names.then_some(from), to, segment, ..Received::default() };
            into.put(first + filled, &bytes, told);
            filled += 1;
        }
        if filled == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(filled) }
    }

    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let mut ends = self.enter()?;
        let would_block = ends.whims.would_block;
        if ends.chance(would_block) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let end = ends.get(self.number);
        end.calls.1 += 1;
        if datagram.len() > end.longest {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let Some(to) = end.peer else { return Err(io::Error::from_raw_os_error(libc::EDESTADDRREQ)) };
        end.sent.push(Sent { to, source: None, datagrams: vec![datagram.to_vec()] });
        Ok(())
    }

    fn send_batch(&mut self, bytes: &Slots, batch: &mut Batch, which: Range<usize>) -> io::Result<usize> {
        let mut ends = self.enter()?;
        ends.get(self.number).calls.1 += 1;
        let (would_block, short) = (ends.whims.would_block, ends.whims.short);
        let mut taken = 0;
        for message in &batch.messages()[which] {
            let outcome = match ends.chance(would_block) {
                true => Err(ErrorKind::WouldBlock.into()),
                false => send_one(ends.get(self.number), bytes, batch, message),
            };
            match outcome {
                Ok(()) => taken += 1,
                Err(error) if taken == 0 => return Err(error),
                Err(_) => break,
            }
            if ends.chance(short) {
                break;
            }
        }
        Ok(taken)
    }

    fn take_failure(&mut self) -> Option<(SocketAddr, i32)> {
        self.net.ends().get(self.number).failures.pop_front()
    }
}

fn send_one(end: &mut End, bytes: &Slots, batch: &Batch, message: &Departure) -> io::Result<()> {
    let all: Vec<u8> = batch.parts_of(message).iter().flat_map(|part| bytes.part(*part)).copied().collect();
    let segment = if message.segment == 0 { all.len().max(1) } else { message.segment };
    let errno = |errno| Err(io::Error::from_raw_os_error(errno));
    if message.segment != 0 {
        // What udp_send_skb() asks of a train.
        if let Some(no) = end.no_trains {
            return errno(no);
        }
        if all.len() > 65_507 || all.len().div_ceil(segment) > 64 {
            return errno(libc::EINVAL);
        }
    } else if all.len() > end.longest {
        return errno(libc::EMSGSIZE);
    }
    if segment > end.longest && message.segment != 0 {
        return errno(libc::EMSGSIZE);
    }
    let datagrams = if all.is_empty() { vec![all] } else { all.chunks(segment).map(<[u8]>::to_vec).collect() };
    let Some(to) = message.to.or(end.peer) else { return errno(libc::EDESTADDRREQ) };
    end.sent.push(Sent { to, source: message.source, datagrams });
    Ok(())
}

impl Drop for ScriptedSocket {
    fn drop(&mut self) {
        let mut ends = self.net.ends();
        let end = ends.get(self.number);
        end.holders -= 1;
        end.closed = end.holders == 0;
    }
}

const _: () = assert!(SLOT > 65_507, "a slot holds the longest datagram");
