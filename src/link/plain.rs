//! Links over TCP sockets, watched by mio.

use crate::base::ids::LinkId;
use crate::base::pipes::{Pipe, Supply};
use crate::link::{Net, Ready, Stream, pipe as kernel};
use crate::sys;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Once, for both ways, edge-triggered; priority so that urgent data is noticed.
const WATCHED: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// The network as one worker sees it.
pub struct MioNet {
    /// Where streams are registered.
    pub registry: Registry,
    /// Pipes that may be open at once.
    pub pipes: usize,
}

impl Net for MioNet {
    type Stream = PlainStream;

    fn dial(&mut self, to: SocketAddr, speaks_first: bool) -> io::Result<PlainStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
        if speaks_first {
            // The handshake's last packet leaves with the first bytes (tcp(7), TCP_QUICKACK): one packet less on the way,
            // and the backend wakes up once. A backend that is to speak first must not wait for it.
            socket.set_tcp_quickack(false)?;
        }
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into()).into()),
        }
    }

    fn watch(&mut self, stream: &mut PlainStream, link: LinkId) -> io::Result<()> {
        self.registry.register(&mut **stream, Token(link.token()), WATCHED)
    }

    fn pipes(&self) -> Supply {
        kernel::supply(self.pipes)
    }
}

/// A connection of TCP. Dropped, it stays open until [`close_dropped`] closes it together with others.
#[derive(Debug)]
pub struct PlainStream(
    /// `None` only while it is dropped.
    Option<TcpStream>,
);

thread_local! {
    /// What was dropped on this thread and is still open.
    static DROPPED: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// Closes what was dropped on this thread since it was last called. A worker calls it once a turn: of connections that end
/// in one turn many descriptors follow each other, and those are closed by one call (close_range(2)).
pub fn close_dropped() {
    DROPPED.with_borrow_mut(sys::close_all);
}

impl From<TcpStream> for PlainStream {
    fn from(stream: TcpStream) -> PlainStream {
        PlainStream(Some(stream))
    }
}

impl Deref for PlainStream {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        match &self.0 {
            Some(stream) => stream,
            None => unreachable!("it is dropped"),
        }
    }
}

impl DerefMut for PlainStream {
    fn deref_mut(&mut self) -> &mut TcpStream {
        match &mut self.0 {
            Some(stream) => stream,
            None => unreachable!("it is dropped"),
        }
    }
}

impl Drop for PlainStream {
    fn drop(&mut self) {
        let Some(stream) = self.0.take() else { return };
        let fd = OwnedFd::from(std::net::TcpStream::from(stream));
        // A thread that is ending has no list any more: then it is closed at once.
        let _ = DROPPED.try_with(|dropped| dropped.borrow_mut().push(fd));
    }
}

impl Stream for PlainStream {
    fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.read(into)
    }

    fn send(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match bytes {
            [one] => self.write(one),
            many => self.write_vectored(many),
        }
    }

    #[inline]
    fn splices(&self) -> bool {
        true
    }

    fn splice_in(&mut self, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        kernel::fill(pipe, &**self, most)
    }

    fn splice_out(&mut self, pipe: &mut Pipe) -> io::Result<usize> {
        kernel::drain(pipe, &**self)
    }

    fn is_over(&mut self) -> bool {
        matches!(self.peek(&mut [0]), Ok(0))
    }

    fn shutdown(&mut self) {
        // Fails only when the peer has reset it, which the next event tells.
        let _ = TcpStream::shutdown(self, Shutdown::Write);
    }

    fn unsent(&self) -> usize {
        sys::unsent(self.as_fd()).unwrap_or(0)
    }

    fn set_cut(&mut self) {
        // Fails only when there is no connection left to cut.
        let _ = SockRef::from(&**self).set_linger(Some(Duration::ZERO));
    }

    fn set_nodelay(&mut self) {
        // Fails only when there is no connection left.
        let _ = TcpStream::set_nodelay(self, true);
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.local_addr().ok()
    }

    fn failure(&mut self) -> Option<io::Error> {
        match self.take_error() {
            Ok(failure) => failure,
            Err(error) => Some(error),
        }
    }
}

/// What an event tells of a link.
pub fn readiness(event: &Event) -> Ready {
    Ready::default()
        .with_if(event.is_readable(), Ready::IN)
        .with_if(event.is_writable(), Ready::OUT)
        .with_if(event.is_read_closed(), Ready::RDHUP)
        .with_if(event.is_error(), Ready::ERR)
        .with_if(event.is_priority(), Ready::PRI)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_speaks_first_ends_the_handshake_with_its_words() {
        let poll = mio::Poll::new().unwrap();
        let mut net = MioNet { registry: poll.registry().try_clone().unwrap(), pipes: 0 };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let to = listener.local_addr().unwrap();
        // Over loopback a handshake is over when connect(2) returns, but for a last packet that is kept back. The kernel
        // keeps it for 200 ms at the most: a machine that stops for longer gets another try.
        let kept_back = (0..10).any(|_| {
            let mut stream = net.dial(to, true).unwrap();
            let kept_back = listener.accept().is_err();
            stream.send(&[IoSlice::new(b"x")]).unwrap();
            kept_back && listener.accept().is_ok()
        });
        assert!(kept_back, "the handshake did not wait for the first bytes");
        let silent = net.dial(to, false).unwrap();
        while let Ok((_, from)) = listener.accept() {
            if Some(from) == silent.local_address() {
                return;
            }
        }
        panic!("a backend that is to speak first waits");
    }
}
