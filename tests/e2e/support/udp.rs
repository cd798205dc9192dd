//! Datagrams: backends that run inside the test, and a client's side with a bound on every wait.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::ports::{Refusing, free_port};
use super::{PATIENCE, note, wait_until};

/// The most that UDP carries over IPv4: 65,535 bytes of packet without the two headers.
pub const LARGEST: usize = 65_507;

/// What we ask the kernel to hold for a socket, so that a burst waits there while a busy machine does other things.
const ROOM: usize = 4 << 20;

/// A datagram as a backend saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub from: SocketAddr,
    pub bytes: Vec<u8>,
}

/// A backend that remembers what came, in order, and may answer it. Its socket is closed when it goes out of scope.
pub struct UdpBackend {
    pub addr: SocketAddr,
    socket: Arc<UdpSocket>,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl UdpBackend {
    /// On a free port of 127.0.0.1; `answer` makes the reply to a datagram, if there is one.
    pub fn new(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), answer).expect("a free port")
    }

    /// The same at this address.
    ///
    /// # Errors
    /// What the kernel says when the address cannot be bound.
    pub fn at(addr: SocketAddr, answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> std::io::Result<Self> {
        let socket = Arc::new(UdpSocket::bind(addr)?);
        let _ = SockRef::from(&*socket).set_recv_buffer_size(ROOM);
        let addr = socket.local_addr()?;
        let (seen, count) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let stopping = Arc::new(AtomicBool::new(false));
        let reader = {
            let (socket, seen, count, stopping) = (socket.clone(), seen.clone(), count.clone(), stopping.clone());
            std::thread::spawn(move || {
                let mut buf = vec![0; 65_536];
                while !stopping.load(Ordering::SeqCst) {
                    // an error is the end that `drop` makes, or an interruption
                    let Ok((n, from)) = socket.recv_from(&mut buf) else { continue };
                    let bytes = &buf[..n];
                    seen.lock().expect("never poisoned").push(Seen { from, bytes: bytes.to_vec() });
                    count.fetch_add(1, Ordering::SeqCst);
                    if let Some(reply) = answer(bytes) {
                        let _ = socket.send_to(&reply, from);
                    }
                }
            })
        };
        Ok(UdpBackend { addr, socket, seen, count, stopping, reader: Some(reader) })
    }

    /// Sends back what comes.
    pub fn echo() -> Self {
        Self::new(|bytes| Some(bytes.to_vec()))
    }

    /// Sends back what comes, its name before it.
    pub fn named(name: char) -> Self {
        Self::new(named(name))
    }

    /// Answers nothing by itself.
    pub fn silent() -> Self {
        Self::new(|_| None)
    }

    /// How many datagrams have come.
    pub fn received(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// All that has come, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("never poisoned").clone()
    }

    /// Waits until `n` datagrams have come in all, and returns the last one.
    pub fn wait_for(&self, n: usize) -> Seen {
        wait_until("the backend has what was sent", || self.received() >= n);
        self.seen().swap_remove(n - 1)
    }

    /// From how many addresses datagrams came: how many sessions it has had, as long as no port was used twice.
    pub fn peers(&self) -> BTreeSet<SocketAddr> {
        self.seen.lock().expect("never poisoned").iter().map(|seen| seen.from).collect()
    }

    /// The same of those whose datagrams are as `wanted` says.
    pub fn peers_with(&self, wanted: impl Fn(&[u8]) -> bool) -> BTreeSet<SocketAddr> {
        let seen = self.seen.lock().expect("never poisoned");
        seen.iter().filter(|seen| wanted(&seen.bytes)).map(|seen| seen.from).collect()
    }

    /// Sends a datagram from this backend's address.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) {
        self.socket.send_to(bytes, to).unwrap_or_else(|e| panic!("the backend sends to {to}: {e}"));
    }
}

impl Drop for UdpBackend {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // says that it is not connected, and wakes the reader all the same
        let _ = SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// Answers with its name and what was asked.
pub fn named(name: char) -> impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static {
    move |bytes| Some([name.to_string().as_bytes(), bytes].concat())
}

/// A named backend that can be killed and come back at its address: then, and only then, the kernel answers a
/// datagram with ICMP "port unreachable".
pub struct Mortal {
    pub addr: SocketAddr,
    name: char,
    alive: Option<UdpBackend>,
    /// Keeps the port ours while we are dead: the other protocol's socket of the same number.
    _place: Refusing,
}

impl Mortal {
    pub fn new(name: char) -> Self {
        for _ in 0..20 {
            let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
            let place = Refusing::at(addr);
            if let Ok(backend) = UdpBackend::at(addr, named(name)) {
                return Mortal { addr, name, alive: Some(backend), _place: place };
            }
        }
        panic!("none of twenty ports is free");
    }

    pub fn kill(&mut self) {
        assert!(self.alive.take().is_some(), "{} is dead already", self.name);
    }

    pub fn come_back(&mut self) {
        let back = UdpBackend::at(self.addr, named(self.name));
        self.alive = Some(back.unwrap_or_else(|e| panic!("{} cannot come back at {}: {e}", self.name, self.addr)));
    }

    /// How many datagrams have come since it was started last; none while it is dead.
    pub fn received(&self) -> usize {
        self.alive.as_ref().map_or(0, UdpBackend::received)
    }
}

/// A client's socket, connected to `to`, from a free port of the loopback address of its family.
pub fn dial(to: SocketAddr) -> UdpSocket {
    let from = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
    dial_from(from, to)
}

/// The same from this address.
pub fn dial_from(from: IpAddr, to: SocketAddr) -> UdpSocket {
    let socket = bound(from);
    socket.connect(to).unwrap_or_else(|e| panic!("connecting to {to}: {e}"));
    socket
}

/// A socket of this address that is connected to nobody, with a bound on every wait.
pub fn bound(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap_or_else(|e| panic!("a socket of {ip}: {e}"));
    let _ = SockRef::from(&socket).set_recv_buffer_size(ROOM);
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    socket
}

/// What the tests do with a connected datagram socket.
pub trait Datagrams {
    /// The next datagram, if one comes within `span`.
    fn take_within(&self, span: Duration) -> Option<Vec<u8>>;

    /// Sends a datagram.
    fn say(&self, bytes: &[u8]);

    /// The next datagram, which must come.
    fn take(&self) -> Vec<u8> {
        self.take_within(PATIENCE).expect("no datagram came in time")
    }

    /// Sends a datagram; the next one that comes.
    fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        self.say(bytes);
        self.take()
    }

    /// The first letter of the answer: the name of a backend that tells it.
    fn who(&self) -> char {
        let answer = self.ask(b"?");
        assert_eq!(answer.get(1..), Some(&b"?"[..]), "no answer to this question");
        answer[0].into()
    }

    /// Sends a datagram that must come back as it is.
    fn echo(&self, bytes: &[u8]) {
        let back = self.ask(bytes);
        assert!(back == bytes, "{} bytes went, and {} came back, or others", bytes.len(), back.len());
    }

    /// Whether nothing comes for as long as `span`.
    fn is_silent_for(&self, span: Duration) -> bool {
        self.take_within(span).is_none()
    }
}

impl Datagrams for UdpSocket {
    fn take_within(&self, span: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + span;
        let mut buf = vec![0; 65_536];
        loop {
            // at least a look, and never "for ever", which is what zero would mean
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.set_read_timeout(Some(left)).expect("not zero");
            match self.recv(&mut buf) {
                Ok(n) => {
                    buf.truncate(n);
                    return Some(buf);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(e) => panic!("waiting for a datagram: {e}"),
            }
        }
    }

    fn say(&self, bytes: &[u8]) {
        let sent = self.send(bytes).unwrap_or_else(|e| panic!("sending {} bytes: {e}", bytes.len()));
        assert_eq!(sent, bytes.len());
    }
}

/// A client that numbers its questions, so that an answer which comes late is not taken for that to another one.
pub struct Counting {
    pub socket: UdpSocket,
    next: u32,
}

impl Counting {
    pub fn new(to: SocketAddr) -> Self {
        Counting { socket: dial(to), next: 0 }
    }

    /// Asks once; who answered that within `span`.
    pub fn who_within(&mut self, span: Duration) -> Option<char> {
        self.next += 1;
        let question = self.next.to_be_bytes();
        self.socket.say(&question);
        let until = Instant::now() + span;
        loop {
            let answer = self.socket.take_within(until.saturating_duration_since(Instant::now()))?;
            if answer.get(1..) == Some(&question[..]) {
                return Some(answer[0].into());
            }
        }
    }
}

/// Somebody who already has a UDP port, with or without SO_REUSEPORT.
pub fn occupied(reuse_port: bool) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket.set_reuse_port(reuse_port).expect("Linux has it");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let addr = socket.local_addr().expect("bound").as_socket().expect("an IP address");
    (socket, addr)
}

/// Whether this machine has IPv6 on its loopback; a note when it has not.
pub fn has_ipv6() -> bool {
    let has = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        note("no IPv6 here: UDP over it is not shown");
    }
    has
}

#[test]
fn a_mortal_backend_is_unreachable_while_dead_and_back_at_its_address() {
    let mut mortal = Mortal::new('m');
    let client = dial(mortal.addr);
    assert_eq!(client.who(), 'm');
    mortal.kill();
    client.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    // The kernel sends a thousand messages of ICMP a second and drops the rest; the other tests cause some, too.
    wait_until("it is refused", || {
        client.say(b"?");
        client.recv(&mut [0; 16]).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    mortal.come_back();
    assert_eq!(client.who(), 'm');
}
