//! Datagrams over sockets of the kernel, watched by mio.

use crate::base::ids::FlowId;
use crate::link::datagram::{Batch, Net, Slots, Socket};
use crate::sys::udp::{Headers, receive_trains, report_destination, report_errors};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

/// Sockets towards backends, as one worker opens them.
pub struct MioDatagrams {
    /// Where sockets are registered.
    pub registry: Registry,
}

/// A socket of the kernel.
pub struct MioSocket {
    socket: UdpSocket,
    /// Whoever sends to it is to be told: it is not connected.
    names: bool,
    /// For asking to whom a datagram did not arrive.
    errors: Option<Box<Headers>>,
}

impl MioSocket {
    /// A socket that is bound and listens for clients; it is made to take trains, and to tell where datagrams were sent to
    /// when it is bound to a wildcard.
    ///
    /// # Errors
    /// What getsockname(2) and setsockopt(2) say.
    pub fn listening(socket: UdpSocket) -> io::Result<MioSocket> {
        let address = socket.local_addr()?;
        if address.ip().is_unspecified() {
            report_destination(socket.as_fd(), address.is_ipv6())?;
        }
        // A kernel that knows no trains gives datagrams one by one.
        let _ = receive_trains(socket.as_fd());
        Ok(MioSocket { socket, names: true, errors: None })
    }

    /// The same socket once more, for somebody else.
    ///
    /// # Errors
    /// What dup(2) says: out of descriptors.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// The socket.
    pub fn inner(&mut self) -> &mut UdpSocket {
        &mut self.socket
    }
}

impl Socket for MioSocket {
    fn recv(&mut self, into: &mut Slots, first: usize, most: usize) -> io::Result<usize> {
        into.recv(self.socket.as_fd(), first, most, self.names)
    }

    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send(datagram).map(|_| ())
    }

    fn send_batch(&mut self, bytes: &Slots, batch: &mut Batch, which: Range<usize>) -> io::Result<usize> {
        batch.send(self.socket.as_fd(), bytes, which)
    }

    fn take_failure(&mut self) -> Option<(SocketAddr, i32)> {
        self.errors.as_mut()?.take_error(self.socket.as_fd())
    }
}

impl Net for MioDatagrams {
    type Socket = MioSocket;

    fn open(&mut self, like: SocketAddr, connected: bool) -> io::Result<MioSocket> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = socket2::Socket::new(Domain::for_address(like), kind, Some(Protocol::UDP))?;
        // A kernel that knows no trains gives datagrams one by one.
        let _ = receive_trains(socket.as_fd());
        if connected {
            socket.connect(&like.into())?;
        } else {
            // Bound now: it must have a port before anybody can be told of what comes to it.
            let any: SocketAddr = match like {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            socket.bind(&any.into())?;
            report_errors(socket.as_fd(), like.is_ipv6())?;
        }
        let errors = (!connected).then(|| Box::new(Headers::new(1, 1)));
        Ok(MioSocket { socket: UdpSocket::from_std(socket.into()), names: !connected, errors })
    }

    fn watch(&mut self, socket: &mut MioSocket, flow: FlowId) -> io::Result<()> {
        // For reading alone: a datagram socket would tell of room to write after every send.
        self.registry.register(&mut socket.socket, Token(flow.token()), Interest::READABLE)
    }

    type Passed = OwnedFd;

    fn pass(&self, socket: &MioSocket) -> io::Result<OwnedFd> {
        socket.try_clone()
    }

    fn receive(&mut self, passed: OwnedFd, connected: bool) -> MioSocket {
        let errors = (!connected).then(|| Box::new(Headers::new(1, 1)));
        MioSocket { socket: UdpSocket::from_std(passed.into()), names: !connected, errors }
    }

    fn unwatch(&mut self, socket: &mut MioSocket) {
        // One that was never watched needs nothing.
        let _ = self.registry.deregister(&mut socket.socket);
    }
}
