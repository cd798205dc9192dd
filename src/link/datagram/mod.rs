//! A socket that sends and receives datagrams, many in one call, as they are: none cut, none joined, none taken apart.
//!
//! Knows: slots to receive into, batches to send, trains (runs of datagrams of one size that the kernel takes or gives as
//! one, udp(7)). Must not touch: sessions, pools, timers, what a datagram means.
//! Read [`Socket`] first; `plain` is the kernel's, `scripted` plays it for tests.

pub mod plain;
pub mod scripted;

use crate::base::ids::FlowId;
use crate::base::time;
use crate::sys::udp::Headers;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

pub use crate::sys::udp::{Departure, MOST_BYTES, MOST_SEGMENTS, Part, Received};

/// What a slot holds, in bytes: the longest datagram, and the longest train.
pub const SLOT: usize = 65_536;
/// From one slot to the next: a cache line more, so that short datagrams do not all fall into the same set of the cache.
const STRIDE: usize = SLOT + 64;

/// What is needed of a socket. Nothing here blocks.
pub trait Socket {
    /// Receives into at most `most` slots from `first` on, and returns how many were filled. Fewer than asked for means
    /// that no more were there, or that the socket has an error to tell to the next call, whichever that is.
    ///
    /// # Errors
    /// As recvmmsg(2): `WouldBlock` when there is nothing.
    fn recv(&mut self, into: &mut Slots, first: usize, most: usize) -> io::Result<usize>;
    /// Sends one datagram to whom the socket is connected.
    ///
    /// # Errors
    /// As send(2): the datagram has not gone out. An error that was pending, an ICMP answer to an earlier datagram, is
    /// told to the next call and then forgotten.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;
    /// Sends those messages of `batch`, and returns how many were taken, at least one.
    ///
    /// # Errors
    /// As sendmmsg(2): that of the first message, which has not gone out. `EINVAL`, `EIO` or `EMSGSIZE` for a train may
    /// mean that there is no way for trains there.
    fn send_batch(&mut self, bytes: &Slots, batch: &mut Batch, which: Range<usize>) -> io::Result<usize>;
    /// Of a socket that is connected to nobody: to whom a datagram was sent that did not arrive, and the errno that says
    /// why. To be asked until there is none, when another call was told an error.
    fn take_failure(&mut self) -> Option<(SocketAddr, i32)>;
}

/// Where sockets towards backends come from, and who tells of their readiness.
pub trait Net {
    /// Its sockets.
    type Socket: Socket;
    /// A socket that is connected to `to`, or, without it, one that sends to anybody of the family of `like`.
    ///
    /// # Errors
    /// What socket(2) and connect(2) say: see [`crate::link::is_local`] for whose fault it is.
    fn open(&mut self, like: SocketAddr, connected: bool) -> io::Result<Self::Socket>;
    /// Tells of what comes in on `socket`, and of its errors, from now on, under the name of `flow`.
    ///
    /// # Errors
    /// What epoll_ctl(2) says: out of memory or watches.
    fn watch(&mut self, socket: &mut Self::Socket, flow: FlowId) -> io::Result<()>;
    /// The time in nanoseconds, from any beginning; what it passed in is this network. Reads the clock.
    fn nanos(&self) -> u64 {
        time::nanos()
    }
    /// A socket on its way to another process.
    type Passed;
    /// The same socket once more, for another process.
    ///
    /// # Errors
    /// What dup(2) says: out of descriptors.
    fn pass(&self, socket: &Self::Socket) -> io::Result<Self::Passed>;
    /// A socket that came from another process; whether it is connected.
    fn receive(&mut self, passed: Self::Passed, connected: bool) -> Self::Socket;
    /// Tells of `socket` no more. Closing it is not enough for one that another process has, too: epoll(7) watches what the
    /// descriptor stands for, and that stays.
    fn unwatch(&mut self, socket: &mut Self::Socket);
}

/// True for an error of a train that its datagrams may not have when they are sent one by one: a way without checksums
/// in hardware, through a tunnel, or with packets that are shorter than they are.
pub fn forbids_trains(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE))
}

/// Where datagrams are received: slots of [`SLOT`] bytes, whose memory the system gives only where it is touched.
pub struct Slots {
    bytes: Box<[u8]>,
    told: Box<[Received]>,
    headers: Headers,
}

impl Slots {
    /// So many slots.
    pub fn new(slots: usize) -> Slots {
        Slots {
            bytes: vec![0; slots * STRIDE].into(),
            told: vec![Received::default(); slots].into(),
            headers: Headers::new(slots, slots),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.told.len()
    }

    /// What is known of what lies in a slot.
    #[inline]
    pub fn told(&self, slot: usize) -> &Received {
        &self.told[slot]
    }

    /// Where a slot begins.
    #[inline]
    pub fn start(&self, slot: usize) -> usize {
        slot * STRIDE
    }

    /// The bytes of a part.
    #[inline]
    pub fn part(&self, part: Part) -> &[u8] {
        &self.bytes[part.start..][..part.len]
    }

    /// Receives from `socket`, as [`Socket::recv`] does.
    fn recv(&mut self, socket: BorrowedFd<'_>, first: usize, most: usize, names: bool) -> io::Result<usize> {
        let bytes = &mut self.bytes[first * STRIDE..];
        self.headers.recv(socket, bytes, (STRIDE, SLOT), names, &mut self.told[first..][..most])
    }

    /// Puts in what a script has received.
    fn put(&mut self, slot: usize, bytes: &[u8], mut told: Received) {
        let len = bytes.len().min(SLOT);
        self.bytes[slot * STRIDE..][..len].copy_from_slice(&bytes[..len]);
        told.truncated |= len < bytes.len();
        told.len = len;
        self.told[slot] = told;
    }
}

/// Datagrams to send in one call.
pub struct Batch {
    parts: Vec<Part>,
    messages: Vec<Departure>,
    headers: Headers,
    /// The most parts.
    most: usize,
}

impl Batch {
    /// Room for so many parts, in as many messages.
    pub fn new(parts: usize) -> Batch {
        Batch {
            parts: Vec::with_capacity(parts),
            messages: Vec::with_capacity(parts),
            headers: Headers::new(parts, parts),
            most: parts,
        }
    }

    /// True when nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many parts still find room.
    pub fn room(&self) -> usize {
        self.most - self.parts.len()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.messages.clear();
    }

    /// What is to be sent.
    pub fn messages(&self) -> &[Departure] {
        &self.messages
    }

    /// The parts of a message.
    pub fn parts_of(&self, message: &Departure) -> &[Part] {
        &self.parts[message.first..][..message.parts]
    }

    /// Adds a message of `parts`.
    ///
    /// # Panics
    /// When there is no room.
    pub fn push(&mut self, parts: &[Part], segment: usize, to: Option<SocketAddr>, source: Option<std::net::IpAddr>) {
        assert!(parts.len() <= self.room(), "a batch is flushed before it is full");
        let first = self.parts.len();
        self.parts.extend_from_slice(parts);
        self.messages.push(Departure { to, source, segment, first, parts: parts.len() });
    }

    /// Makes a datagram of `part` the last of the train that the last message is; `segment` is the size of its datagrams.
    ///
    /// # Panics
    /// When there is no room, or no message.
    pub fn lengthen(&mut self, part: Part, segment: usize) {
        assert!(self.room() > 0, "a batch is flushed before it is full");
        self.parts.push(part);
        if let Some(last) = self.messages.last_mut() {
            last.segment = segment;
            last.parts += 1;
        }
    }

    /// Sends by `socket`, as [`Socket::send_batch`] does.
    fn send(&mut self, socket: BorrowedFd<'_>, bytes: &Slots, which: Range<usize>) -> io::Result<usize> {
        self.headers.send(socket, &bytes.bytes, &self.parts, &self.messages[which])
    }
}
