//! The backend of the UDP scenarios: whatever comes goes back to where it came from, a train as a train. One socket a
//! party, as in `backend.rs`.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use crate::batch::{Batch, prepare};
use crate::datagram::SIZE;

/// Before the port of a backend that speaks UDP.
pub(crate) const UDP: &str = "udp:";

/// The sockets. Their tokens start at `first`.
pub(crate) struct Echo {
    first: usize,
    sockets: Vec<UdpSocket>,
    /// Clients send trains.
    trains: bool,
    batch: Batch,
    /// Datagrams that could not be sent, and those that are not as any client sent them.
    pub(crate) errors: u64,
}

impl Echo {
    /// `ports`: numbers.
    pub(crate) fn new(registry: &Registry, first: usize, ports: &[String]) -> Result<Self, String> {
        let mut sockets = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let number: u16 = port.parse().map_err(|_| format!("no port: {port}"))?;
            let open = || -> std::io::Result<UdpSocket> {
                let mut socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], number)))?;
                prepare(&socket.as_fd(), false)?;
                registry.register(&mut socket, Token(first + index), Interest::READABLE)?;
                Ok(socket)
            };
            sockets.push(open().map_err(|err| format!("the backend cannot take UDP port {port}: {err}"))?);
        }
        Ok(Self { first, sockets, trains: false, batch: Batch::new(), errors: 0 })
    }

    /// Takes and sends trains from now on, or single datagrams.
    pub(crate) fn set_trains(&mut self, trains: bool) -> Result<(), String> {
        for socket in &self.sockets {
            prepare(&socket.as_fd(), trains).map_err(|err| format!("UDP backend: {err}"))?;
        }
        self.trains = trains;
        Ok(())
    }

    /// Something came to the socket of this token.
    pub(crate) fn turn(&mut self, token: usize) {
        while let Some(socket) = self.sockets.get(token - self.first) {
            match answer(socket, &mut self.batch, self.trains) {
                Ok(true) => return,
                Ok(false) => {}
                Err(why) => {
                    if self.errors == 0 {
                        eprintln!("\nthe UDP backend: {why}");
                    }
                    self.errors += 1;
                    return; // what waits is not lost: the next datagram brings an event
                }
            }
        }
    }
}

/// Takes some of what waits and sends it back: true when nothing waits any more.
fn answer(socket: &UdpSocket, batch: &mut Batch, trains: bool) -> Result<bool, String> {
    let received = if trains { batch.receive_train(socket) } else { batch.receive(socket) };
    let emptied = received.map_err(|err| format!("receive: {err}"))?;
    if let Some(wrong) = batch.datagrams().find(|datagram| datagram.len() != SIZE) {
        return Err(format!("a datagram of {} bytes came; {SIZE} were sent", wrong.len()));
    }
    let sent = match batch.train() {
        None => Ok(()),
        Some((to, bytes)) if trains => socket.send_to(bytes, SocketAddr::from((to.ip(), to.port()))).map(|_| ()),
        Some(_) => batch.send_back(socket).map_err(Into::into),
    };
    sent.map(|()| emptied).map_err(|err| format!("send: {err}"))
}
