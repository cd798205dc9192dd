//! The backend: over TCP whatever comes goes back, over HTTP `site.rs` answers, in bulk `bulk.rs` sends without end. One
//! listening port of each a party, so that what an earlier party left behind in the kernel (sockets in TIME_WAIT) does
//! not stand in the way of the next.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

use crate::bulk::{Bytes, Pouring};
use crate::site::{Served, Serving, Site};

/// Before the port of a listener that speaks HTTP.
pub(crate) const HTTP: &str = "http:";
/// Before the port of a listener whose connections are sent bytes without end.
pub(crate) const BULK: &str = "bulk:";

/// What the connections of a listener are for.
#[derive(Clone, Copy, PartialEq)]
enum Calling {
    Echo,
    Http,
    Bulk,
}

struct Listener {
    socket: TcpListener,
    calling: Calling,
}

enum Job {
    Echo,
    Serve(Serving),
    Pour(Pouring),
}

struct Connection {
    stream: TcpStream,
    job: Job,
}

/// Listeners and connections. Their tokens start at `first`: listeners, then connections.
pub(crate) struct Backend {
    registry: Registry,
    first: usize,
    listeners: Vec<Listener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Connections to be served again without an event.
    more: Vec<usize>,
    site: Site,
    bytes: Bytes,
    /// Echoes that could not be sent, and questions that were wrong.
    pub(crate) errors: u64,
    scratch: Vec<u8>,
}

impl Backend {
    /// `congestion`: "-" leaves the system's. `ports`: a number each, behind [`HTTP`] or [`BULK`] where it is for that.
    pub(crate) fn new(registry: Registry, first: usize, congestion: &str, ports: &[String]) -> Result<Self, String> {
        let mut listeners = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let (calling, port) = match (port.strip_prefix(HTTP), port.strip_prefix(BULK)) {
                (Some(port), _) => (Calling::Http, port),
                (_, Some(port)) => (Calling::Bulk, port),
                _ => (Calling::Echo, port.as_str()),
            };
            let port: u16 = port.parse().map_err(|_| format!("no port: {port}"))?;
            let mut socket =
                listen(port, congestion).map_err(|err| format!("the backend cannot listen on port {port}: {err}"))?;
            registry
                .register(&mut socket, Token(first + index), Interest::READABLE)
                .map_err(|err| format!("poll: {err}"))?;
            listeners.push(Listener { socket, calling });
        }
        let scratch = vec![0; 64 * 1024];
        let (site, bytes) = (Site::new(), Bytes::new());
        let (connections, free, more) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { registry, first, listeners, connections, free, more, site, bytes, errors: 0, scratch })
    }

    /// How many connections there are.
    pub(crate) fn open(&self) -> usize {
        self.connections.len() - self.free.len()
    }

    /// Somebody is to be served without an event.
    pub(crate) fn has_more(&self) -> bool {
        !self.more.is_empty()
    }

    /// Serves those. (One that is gone meanwhile, or another in its place, does not mind.)
    pub(crate) fn go_on(&mut self) {
        for slot in std::mem::take(&mut self.more) {
            self.serve(slot, false);
        }
    }

    /// Something happened to the listener or connection of this token. `ending`: no more will come from it.
    pub(crate) fn turn(&mut self, token: usize, ending: bool) -> Result<(), String> {
        let index = token - self.first;
        match index.checked_sub(self.listeners.len()) {
            None => self.accept(index),
            Some(slot) => {
                self.serve(slot, ending);
                Ok(())
            }
        }
    }

    fn accept(&mut self, listener: usize) -> Result<(), String> {
        loop {
            let mut stream = match self.listeners[listener].socket.accept() {
                Ok((stream, _)) => stream,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == ErrorKind::ConnectionAborted => continue,
                // Without a descriptor to spare, edge triggers would leave the rest waiting for ever.
                Err(err) => return Err(format!("the backend cannot accept: {err}")),
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let token = Token(self.first + self.listeners.len() + slot);
            let (job, interest) = match self.listeners[listener].calling {
                Calling::Echo => (Job::Echo, Interest::READABLE),
                // A long answer waits for room; an echo never does.
                Calling::Http => (Job::Serve(Serving::default()), Interest::READABLE | Interest::WRITABLE),
                Calling::Bulk => (Job::Pour(Pouring::default()), Interest::READABLE | Interest::WRITABLE),
            };
            self.registry.register(&mut stream, token, interest).map_err(|err| format!("register: {err}"))?;
            self.connections[slot] = Some(Connection { stream, job });
        }
    }

    fn serve(&mut self, slot: usize, ending: bool) {
        let Some(Some(Connection { stream, job })) = self.connections.get_mut(slot) else {
            return;
        };
        let served = match job {
            Job::Echo => echo(stream, &mut self.scratch, ending),
            Job::Serve(serving) => serving.turn(stream, &self.site, &mut self.scratch, ending),
            Job::Pour(pouring) => pouring.turn(stream, &self.bytes, ending),
        };
        match served {
            Served::On => return,
            Served::More => return self.more.push(slot),
            Served::Over => {}
            Served::Wrong(why) => {
                if self.errors == 0 {
                    eprintln!("\n{why}");
                }
                self.errors += 1;
            }
        }
        self.connections[slot] = None;
        self.free.push(slot);
    }
}

/// A short read means that nothing is left, unless the connection is `ending`: then the end is still to be read.
fn echo(stream: &mut TcpStream, scratch: &mut [u8], ending: bool) -> Served {
    loop {
        match stream.read(scratch) {
            Ok(0) => return Served::Over,
            Ok(count) => {
                // Nobody here sends more than fits into an empty send buffer before reading the answer.
                if !matches!(stream.write(&scratch[..count]), Ok(written) if written == count) {
                    return Served::Wrong("the backend could not send".to_owned());
                }
                if count < scratch.len() && !ending {
                    return Served::On;
                }
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Served::On,
            Err(_) => return Served::Over,
        }
    }
}

fn listen(port: u16, congestion: &str) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if congestion != "-" {
        socket.set_tcp_congestion(congestion.as_bytes())?; // accepted connections inherit it
    }
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(65_535)?;
    Ok(TcpListener::from_std(socket.into()))
}
