//! Links over TCP sockets, watched by mio.

use crate::base::ids::LinkId;
use crate::link::{Net, Ready, Stream};
use crate::sys;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::SockRef;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

/// Once, for both ways, edge-triggered; priority so that urgent data is noticed.
const WATCHED: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// The network as one worker sees it.
pub struct MioNet {
    /// Where streams are registered.
    pub registry: Registry,
}

impl Net for MioNet {
    type Stream = TcpStream;

    fn dial(&mut self, to: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(to)
    }

    fn watch(&mut self, stream: &mut TcpStream, link: LinkId) -> io::Result<()> {
        self.registry.register(stream, Token(link.token()), WATCHED)
    }
}

impl Stream for TcpStream {
    fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.read(into)
    }

    fn send(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        match bytes {
            [one] => self.write(one),
            many => self.write_vectored(many),
        }
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
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
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
