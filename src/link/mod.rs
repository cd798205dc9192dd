//! A socket as a byte stream, with the readiness that the poll told of it.
//!
//! Knows: how a stream tells that it is empty, full, over or broken, and when one may ask it again. Must not touch:
//! routes, pools, timers, what the bytes mean.
//! Read [`Link::recv`] first: it holds the rule that lets us leave out every call that would say "nothing there".

pub mod datagram;
mod pipe;
pub mod plain;
pub mod scripted;

#[cfg(test)]
mod tests;

use crate::base::ids::{BackendSlot, LinkId, SessionId};
use crate::base::pipes::{Pipe, Supply};
use crate::base::time;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;

/// What a link needs of a socket. Nothing here blocks.
pub trait Stream {
    /// As recv(2): bytes read, 0 at the end, or an error; `WouldBlock` when there is nothing yet. A stream over a socket
    /// says `WouldBlock` only when the socket has: the poll tells of nothing that is left unread.
    fn recv(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// True when [`Stream::recv`] has something to give that the socket no longer knows of: bytes that were taken from it
    /// already, or the end they told of. No event will tell of those.
    #[inline]
    fn holds_input(&self) -> bool {
        false
    }
    /// As writev(2): bytes taken, maybe fewer than given; `WouldBlock` when none. What is taken needs no further call to
    /// get out: whoever has nothing left to send never calls again. What is not taken comes again, unchanged, at the
    /// front of the next call; so a stream may have turned it into something else already and keep that.
    fn send(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize>;
    /// True when its bytes are those of a socket, so that they can go by [`Stream::splice_in`] and
    /// [`Stream::splice_out`]. One that encrypts cannot.
    #[inline]
    fn splices(&self) -> bool {
        false
    }
    /// As splice(2) into `pipe`: at most so many bytes; `WouldBlock` when there is nothing yet, or no place in the pipe.
    /// 0 is the end, or what stands before urgent data: a pipe cannot pass its place.
    ///
    /// # Errors
    /// What a read would tell; and `EINVAL` where that cannot be done at all.
    fn splice_in(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let _ = (pipe, most);
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
    /// As splice(2) out of `pipe`, as much as it holds; `WouldBlock` when none is taken. Fewer mean nothing: only that
    /// says that the socket is full.
    ///
    /// # Errors
    /// What a write would tell.
    fn splice_out(&mut self, pipe: &mut Pipe) -> io::Result<usize> {
        let _ = pipe;
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
    /// True when the peer has ended its side and nothing of what it sent is left to read. Takes nothing away.
    fn is_over(&mut self) -> bool {
        false
    }
    /// Sends the end after what was sent (shutdown(2), `SHUT_WR`).
    fn shutdown(&mut self);
    /// Bytes that were sent and that the peer has not acknowledged.
    fn unsent(&self) -> usize;
    /// From now on, closing cuts: the peer sees a reset, and what was not sent is dropped.
    fn set_cut(&mut self);
    /// Send small writes at once from now on (`TCP_NODELAY`).
    fn set_nodelay(&mut self);
    /// Its own address (getsockname(2)).
    fn local_address(&self) -> Option<SocketAddr>;
    /// Why a connect failed (`SO_ERROR`); `None` when it did not.
    fn failure(&mut self) -> Option<io::Error>;
}

/// Where streams come from, and who tells of their readiness: the network, or a script.
pub trait Net {
    /// Its streams.
    type Stream: Stream;
    /// Begins to connect. The stream is usable once it is told to be writable. `speaks_first` promises that it is written
    /// to, or closed, as soon as it is: what is sent then may stand for the last packet of the handshake.
    ///
    /// # Errors
    /// What could be said at once: see [`is_local`] for whose fault it is.
    fn dial(&mut self, to: SocketAddr, speaks_first: bool) -> io::Result<Self::Stream>;
    /// Tells of the readiness of `stream` from now on, under the name of `link`.
    ///
    /// # Errors
    /// What epoll_ctl(2) says: out of memory or watches.
    fn watch(&mut self, stream: &mut Self::Stream, link: LinkId) -> io::Result<()>;
    /// Where pipes for its streams come from.
    fn pipes(&self) -> Supply {
        Supply::none()
    }
    /// The time in nanoseconds, from any beginning; what it passed in is this network. Reads the clock.
    fn nanos(&self) -> u64 {
        time::nanos()
    }
}

/// True for a failed connect that says nothing about the backend: our own shortage of descriptors, ports or memory,
/// or a kernel that forbids us to try.
pub fn is_local(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRNOTAVAIL
                | libc::EAGAIN
                | libc::EACCES
                | libc::EPERM
                | libc::EAFNOSUPPORT
        )
    )
}

/// True for an error that means that descriptors have run out: some will come back when others leave.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Latched readiness: what the poll has told and nobody has used up yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready(u8);

impl Ready {
    /// Something to read.
    pub const IN: Ready = Ready(1);
    /// Room to write.
    pub const OUT: Ready = Ready(2);
    /// The peer has ended its side (or both are over: HUP).
    pub const RDHUP: Ready = Ready(4);
    /// An error waits.
    pub const ERR: Ready = Ready(8);
    /// Urgent data is or was there: a short read may have stopped at its mark.
    pub const PRI: Ready = Ready(16);

    /// Both.
    pub const fn with(self, other: Ready) -> Ready {
        Ready(self.0 | other.0)
    }

    /// Adds `other` when `yes`.
    pub fn with_if(self, yes: bool, other: Ready) -> Ready {
        if yes { self.with(other) } else { self }
    }

    /// True when any of `other` is held.
    pub const fn any(self, other: Ready) -> bool {
        self.0 & other.0 != 0
    }

    fn clear(&mut self, other: Ready) {
        self.0 &= !other.0;
    }
}

/// Which end of a session a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards the client.
    Client,
    /// Towards the backend.
    Backend,
}

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing now; the poll will tell.
    Empty,
    /// The peer ended its side in good order; nothing more will come.
    End,
    /// The stream broke; nothing more will come, and nothing can be delivered.
    Broken,
}

/// What one splice into a pipe gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// So many bytes, at least one. Fewer than asked for say nothing about what is left.
    Bytes(usize),
    /// Nothing now; the poll will tell.
    Empty,
    /// The pipe takes no more until it is drained; there may be something to read.
    Full,
    /// Only a read can tell what is next, and if there is anything: [`Link::recv`].
    Unclear,
}

/// What one write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// So many bytes were taken. Fewer than given means full: the poll will tell.
    Taken(usize),
    /// The stream broke. What the peer had sent before may still be read.
    Broken,
}

/// A stream in its worker: with the readiness latched for it, and its owner.
pub struct Link<S> {
    stream: S,
    ready: Ready,
    /// `recv` has told of the end.
    ended: bool,
    /// An error was seen. The kernel tells it once, to whichever call comes first; we remember.
    broken: bool,
    nodelay: Nodelay,
    /// Whose it is.
    pub owner: Owner,
}

/// Who is woken when a link is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A session: one of its two sides.
    Session(SessionId),
    /// Nobody: an idle connection to this backend.
    Idle(BackendSlot),
}

/// Nagle's algorithm holds a small segment back only while an earlier small one is unacknowledged, so the first write
/// never waits, and a connection that writes once saves the system call.
#[derive(PartialEq)]
enum Nodelay {
    Set,
    AtNextWrite,
    AfterFirstWrite,
}

impl<S: Stream> Link<S> {
    /// An accepted stream: writable as it is, and with the options of its listener.
    pub fn accepted(stream: S, session: SessionId) -> Self {
        Link {
            stream,
            ready: Ready::OUT,
            ended: false,
            broken: false,
            nodelay: Nodelay::Set,
            owner: Owner::Session(session),
        }
    }

    /// A stream that is being connected: it waits to be told that it is writable.
    pub fn dialled(stream: S, session: SessionId) -> Self {
        Link {
            stream,
            ready: Ready::default(),
            ended: false,
            broken: false,
            nodelay: Nodelay::AfterFirstWrite,
            owner: Owner::Session(session),
        }
    }

    /// Adds what the poll has told.
    #[inline]
    pub fn latch(&mut self, ready: Ready) {
        self.ready = self.ready.with(ready);
    }

    /// The readiness held.
    pub fn ready(&self) -> Ready {
        self.ready
    }

    /// True when a read may give something: bytes, the end or an error.
    #[inline]
    pub fn readable(&self) -> bool {
        let told = Ready::IN.with(Ready::RDHUP).with(Ready::ERR);
        !self.ended && (self.broken || self.ready.any(told) || self.stream.holds_input())
    }

    /// True when a write may take something.
    #[inline]
    pub fn writable(&self) -> bool {
        self.ready.any(Ready::OUT) && !self.broken
    }

    /// True when the other side has said nothing that was not asked for, neither a byte nor an end nor an error, so that
    /// the link can rest between two exchanges, or serve the next. A stream may have to look at what came to know that.
    pub fn is_quiet(&mut self) -> bool {
        !self.broken && !self.ended && !self.readable()
    }

    /// True once an error was seen on it, by whichever call.
    pub fn broken(&self) -> bool {
        self.broken
    }

    /// True once [`Link::recv`] has told of the end.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The stream itself, to register or unregister it.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Reads once, as much as `into` holds.
    ///
    /// With edge-triggered events a short read means that all is read, and the call that would say so is left out, unless
    /// an end, an error or urgent data is latched: a FIN that came with the data gives no second edge, and a read stops
    /// short at the urgent mark with data behind it (tcp(7)).
    pub fn recv(&mut self, into: &mut [u8]) -> Read {
        if self.ended {
            return if self.broken { Read::Broken } else { Read::End };
        }
        loop {
            return match self.stream.recv(into) {
                Ok(0) => {
                    self.ended = true;
                    // An error that another call has taken away leaves a plain 0 behind. It is no clean end.
                    self.broken |= self.ready.any(Ready::ERR);
                    if self.broken { Read::Broken } else { Read::End }
                }
                Ok(n) => {
                    if n < into.len() && !self.ready.any(Ready::RDHUP.with(Ready::ERR).with(Ready::PRI)) && !self.broken
                    {
                        self.ready.clear(Ready::IN);
                    }
                    Read::Bytes(n)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready.clear(Ready::IN.with(Ready::PRI));
                    if self.broken {
                        // A broken stream tells of no more edges.
                        self.ended = true;
                        return Read::Broken;
                    }
                    // Level bits that promised something which is not there: the next edge will tell again.
                    self.ready.clear(Ready::RDHUP);
                    Read::Empty
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.ended = true;
                    self.broken = true;
                    Read::Broken
                }
            };
        }
    }

    /// True while its bytes can go into a pipe. Not past urgent data, since a splice stops at its place for good; and
    /// what is left before an error is for reads.
    pub fn can_fill(&self) -> bool {
        self.stream.splices()
            && !self.ended
            && !self.broken
            && !self.ready.any(Ready::PRI.with(Ready::ERR))
            && !self.stream.holds_input()
    }

    /// True when bytes can come to it out of a pipe.
    pub fn can_drain(&self) -> bool {
        self.stream.splices()
    }

    /// Reads once into `pipe`, at most so many bytes. To be called while [`Link::can_fill`].
    ///
    /// `WouldBlock` means that the socket is empty only if the pipe was: a pipe counts pieces, and few bytes can fill it.
    /// Short counts say nothing, for the same reason. The end of a stream is left for a read to tell, since data behind an
    /// urgent mark looks the same from here.
    pub fn splice_in(&mut self, pipe: &mut Pipe, most: usize) -> Fill {
        loop {
            return match self.stream.splice_in(pipe, most) {
                Ok(0) => Fill::Unclear,
                Ok(n) => {
                    pipe.filled(n);
                    Fill::Bytes(n)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && !pipe.is_empty() => Fill::Full,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready.clear(Ready::IN.with(Ready::RDHUP));
                    Fill::Empty
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    // What a pipe cannot do is no news of the stream. Anything else was its error, which is told but once.
                    self.broken |= !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOMEM | libc::ENOSYS));
                    Fill::Unclear
                }
            };
        }
    }

    /// Writes what `pipe` holds, as much as the stream takes.
    ///
    /// Unlike a write, a splice may stop short of a socket that has room (at a signal, or between two pieces), and nobody
    /// would tell of that room again. So it goes on until it is told that there is none.
    pub fn splice_out(&mut self, pipe: &mut Pipe) -> Write {
        self.before_write();
        let mut taken = 0;
        while !pipe.is_empty() {
            match self.stream.splice_out(pipe) {
                Ok(n) if n > 0 => {
                    pipe.drained(n);
                    taken += n;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready.clear(Ready::OUT);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => {
                    self.broken = true;
                    return Write::Broken;
                }
            }
        }
        Write::Taken(taken)
    }

    fn before_write(&mut self) {
        match self.nodelay {
            Nodelay::Set => {}
            Nodelay::AfterFirstWrite => self.nodelay = Nodelay::AtNextWrite,
            Nodelay::AtNextWrite => {
                self.stream.set_nodelay();
                self.nodelay = Nodelay::Set;
            }
        }
    }

    /// Writes once, as much as the stream takes.
    pub fn send(&mut self, bytes: &[IoSlice<'_>]) -> Write {
        self.before_write();
        let total: usize = bytes.iter().map(|slice| slice.len()).sum();
        loop {
            return match self.stream.send(bytes) {
                Ok(n) => {
                    if n < total {
                        self.ready.clear(Ready::OUT);
                    }
                    Write::Taken(n)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready.clear(Ready::OUT);
                    Write::Taken(0)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.broken = true;
                    Write::Broken
                }
            };
        }
    }

    /// True when the peer is known to be gone for good. For a link that nobody reads or writes just now: one that was
    /// read to its end, or one whose other side is not there yet.
    pub fn notice_break(&mut self) -> bool {
        self.broken |= self.ready.any(Ready::ERR);
        self.broken
    }

    /// True when the peer has ended its side, with what it sent maybe still to be read.
    pub fn peer_ended(&self) -> bool {
        self.ended || self.ready.any(Ready::RDHUP)
    }

    /// True when the peer has ended its side and left nothing to read: nobody is there any more to be served.
    pub fn peer_left(&mut self) -> bool {
        self.ready.any(Ready::RDHUP) && self.stream.is_over()
    }

    /// Treats the link as broken, since bytes for it were lost.
    pub fn give_up(&mut self) {
        self.broken = true;
    }

    /// Sends the end after what was sent.
    pub fn shutdown(&mut self) {
        self.stream.shutdown();
    }

    /// Its own address.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_address()
    }

    /// Bytes sent and not acknowledged.
    pub fn unsent(&self) -> usize {
        self.stream.unsent()
    }

    /// From now on closing cuts.
    pub fn set_cut(&mut self) {
        self.stream.set_cut();
    }

    /// How a connect ended, as far as it has: `None` while it goes on.
    pub fn connected(&mut self) -> Option<io::Result<()>> {
        if self.ready.any(Ready::ERR.with(Ready::RDHUP)) {
            // A backend that accepts and closes at once is connected all the same: `failure` knows.
            match self.stream.failure() {
                Some(error) => return Some(Err(error)),
                None if self.ready.any(Ready::ERR) => self.broken = true,
                None => {}
            }
            return Some(Ok(()));
        }
        self.ready.any(Ready::OUT).then_some(Ok(()))
    }
}
