//! Ports for programs that cannot choose one themselves and tell.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Socket, Type};

/// Where the search begins; the range the kernel hands out by itself starts above, so that nothing which binds
/// port 0 or connects can take a port between our look and its use.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port of 127.0.0.1 that is free now, for TCP and for UDP. Whoever uses it must try another when it is taken nevertheless.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() as u16).wrapping_mul(61);
    for _ in 0..COUNT {
        let port = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let place = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(place).is_ok() && UdpSocket::bind(place).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// An address that refuses connections for as long as this lives: bound, but not listening.
pub struct Refusing {
    socket: Socket,
    pub addr: SocketAddr,
}

impl Refusing {
    pub fn new() -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"))
    }

    pub fn at(addr: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        // Connections of an earlier run may still be in TIME_WAIT at that port.
        socket.set_reuse_address(true).expect("every system has it");
        socket.bind(&addr.into()).unwrap_or_else(|e| panic!("{addr} cannot be bound: {e}"));
        let addr = socket.local_addr().expect("bound").as_socket().expect("an IP address");
        Refusing { socket, addr }
    }

    /// From now on connections are accepted.
    pub fn listen(self) -> TcpListener {
        self.socket.listen(1024).expect("the socket can listen");
        self.socket.into()
    }
}

/// An address where connecting neither succeeds nor fails: a listening socket whose queue is full.
pub struct Blackhole {
    pub addr: SocketAddr,
    listener: Socket,
    queue: Vec<Socket>,
}

impl Blackhole {
    pub fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        listener.listen(0).expect("the socket can listen");
        let bound = listener.local_addr().expect("bound");
        let addr = bound.as_socket().expect("an IP address");
        let mut queue = Vec::new();
        // The kernel drops a SYN when the queue is full; from the first that stays unanswered on, all do.
        for _ in 0..16 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let answered = filler.connect_timeout(&bound, std::time::Duration::from_millis(300)).is_ok();
            queue.push(filler);
            if !answered {
                return Blackhole { addr, listener, queue };
            }
        }
        panic!("a queue of length 0 took {} connections", queue.len());
    }

    /// From now on connections are accepted. Those that filled the queue are closed.
    pub fn listen(self) -> TcpListener {
        drop(self.queue);
        self.listener.listen(1024).expect("the socket can listen");
        self.listener.into()
    }
}
