//! The backend: whatever comes goes back. One listening port a party, so that what an earlier party left behind in
//! the kernel (sockets in TIME_WAIT) does not stand in the way of the next.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

/// Listeners and connections. Their tokens start at `first`: listeners, then connections.
pub(crate) struct Backend {
    registry: Registry,
    first: usize,
    listeners: Vec<TcpListener>,
    streams: Vec<Option<TcpStream>>,
    free: Vec<usize>,
    /// Answers that could not be sent.
    pub(crate) errors: u64,
    scratch: Vec<u8>,
}

impl Backend {
    /// `congestion`: "-" leaves the system's.
    pub(crate) fn new(registry: Registry, first: usize, congestion: &str, ports: &[String]) -> Result<Self, String> {
        let mut listeners = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let port: u16 = port.parse().map_err(|_| format!("no port: {port}"))?;
            let mut listener =
                listen(port, congestion).map_err(|err| format!("the backend cannot listen on port {port}: {err}"))?;
            registry
                .register(&mut listener, Token(first + index), Interest::READABLE)
                .map_err(|err| format!("poll: {err}"))?;
            listeners.push(listener);
        }
        let scratch = vec![0; 64 * 1024];
        Ok(Self { registry, first, listeners, streams: Vec::new(), free: Vec::new(), errors: 0, scratch })
    }

    /// Something happened to the listener or connection of this token. `ending`: no more will come from it.
    pub(crate) fn turn(&mut self, token: usize, ending: bool) -> Result<(), String> {
        let index = token - self.first;
        match index.checked_sub(self.listeners.len()) {
            None => self.accept(index),
            Some(slot) => {
                self.echo(slot, ending);
                Ok(())
            }
        }
    }

    fn accept(&mut self, listener: usize) -> Result<(), String> {
        loop {
            let mut stream = match self.listeners[listener].accept() {
                Ok((stream, _)) => stream,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == ErrorKind::ConnectionAborted => continue,
                // Without a descriptor to spare, edge triggers would leave the rest waiting for ever.
                Err(err) => return Err(format!("the backend cannot accept: {err}")),
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.streams.push(None);
                self.streams.len() - 1
            });
            let token = Token(self.first + self.listeners.len() + slot);
            self.registry.register(&mut stream, token, Interest::READABLE).map_err(|err| format!("register: {err}"))?;
            self.streams[slot] = Some(stream);
        }
    }

    /// A short read means that nothing is left, unless the connection is `ending`: then the end is still to be read.
    fn echo(&mut self, slot: usize, ending: bool) {
        let scratch = self.scratch.as_mut_slice();
        let Some(Some(stream)) = self.streams.get_mut(slot) else {
            return;
        };
        let over = loop {
            match stream.read(scratch) {
                Ok(0) => break true,
                Ok(count) => {
                    // Nobody here sends more than fits into an empty send buffer before reading the answer.
                    if !matches!(stream.write(&scratch[..count]), Ok(written) if written == count) {
                        self.errors += 1;
                        break true;
                    }
                    if count < scratch.len() && !ending {
                        break false;
                    }
                }
                Err(err) if err.kind() == ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
        };
        if over {
            self.streams[slot] = None;
            self.free.push(slot);
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
