//! One check under way: a socket, what is sent, what has come.

use crate::base::time::Tick;
use crate::probe::{Answer, Check, LONGEST};
use crate::shared::checks::CheckPlan;
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// How a check ended, in words for the log.
pub(super) type Ended = Result<(), String>;

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// See the module.
pub(super) struct One {
    socket: Socket,
    /// What is left to send.
    request: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    connected: bool,
    /// When it is too late.
    pub(super) due: Tick,
}

impl One {
    /// Begins a check of `address`; its socket is told of under `token`.
    ///
    /// # Errors
    /// What socket(2), connect(2) or epoll_ctl(2) say.
    pub(super) fn begin(
        plan: &CheckPlan,
        address: SocketAddr,
        due: Tick,
        registry: &Registry,
        token: Token,
    ) -> io::Result<One> {
        let CheckPlan { begins, check, .. } = plan;
        let mut socket = match check {
            Check::Tcp { .. } | Check::Http { .. } => Socket::Tcp(TcpStream::connect(address)?),
            Check::Udp { .. } => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => ([0; 4], 0).into(),
                    SocketAddr::V6(_) => ([0u16; 8], 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Socket::Udp(socket)
            }
        };
        let both = Interest::READABLE | Interest::WRITABLE;
        match &mut socket {
            Socket::Tcp(stream) => registry.register(stream, token, both)?,
            Socket::Udp(socket) => registry.register(socket, token, both)?,
        }
        let connected = matches!(socket, Socket::Udp(_));
        let mut request = check.request();
        if !connected {
            request.splice(0..0, begins.iter().copied());
        }
        Ok(One { socket, request, sent: 0, answer: Vec::new(), connected, due })
    }

    /// Goes on as far as it can; how it ended, if it has.
    pub(super) fn turn(&mut self, check: &Check) -> Option<Ended> {
        match self.go_on(check) {
            Ok(ended) => ended,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
            Err(error) => Some(Err(error.to_string())),
        }
    }

    /// How it ends when its time is over.
    pub(super) fn late(&self, check: &Check) -> Ended {
        match (&self.socket, check.is_answerless()) {
            // Nobody has refused the datagram, and no more than that was asked.
            (Socket::Udp(_), true) if self.sent == self.request.len() => Ok(()),
            _ if !self.connected => Err("it could not be connected to in time".into()),
            _ => Err("it did not answer in time".into()),
        }
    }

    fn go_on(&mut self, check: &Check) -> io::Result<Option<Ended>> {
        match &mut self.socket {
            Socket::Tcp(stream) => {
                if !self.connected {
                    if let Some(error) = stream.take_error()? {
                        return Err(error);
                    }
                    match stream.peer_addr() {
                        Ok(_) => self.connected = true,
                        Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(None),
                        Err(error) => return Err(error),
                    }
                }
                while self.sent < self.request.len() {
                    self.sent += stream.write(&self.request[self.sent..])?;
                }
                if check.is_answerless() {
                    return Ok(Some(Ok(())));
                }
                let mut part = [0; 4096];
                loop {
                    let (count, ended) = match stream.read(&mut part) {
                        Ok(count) => (count, count == 0),
                        Err(error) => return Err(error),
                    };
                    self.answer.extend_from_slice(&part[..count.min(LONGEST - self.answer.len())]);
                    match check.judge(&self.answer, ended) {
                        Answer::More => {}
                        Answer::Good => return Ok(Some(Ok(()))),
                        Answer::Bad(why) => return Ok(Some(Err(why))),
                    }
                }
            }
            Socket::Udp(socket) => {
                if self.sent < self.request.len() || self.request.is_empty() && self.sent == 0 {
                    socket.send(&self.request)?;
                    self.sent = self.request.len().max(1);
                }
                let mut datagram = vec![0; 65_535];
                let mut bad = None;
                loop {
                    match socket.recv(&mut datagram) {
                        // A late answer to an earlier question may come before ours.
                        Ok(count) => match check.judge(&datagram[..count], true) {
                            Answer::Good => return Ok(Some(Ok(()))),
                            Answer::Bad(why) => bad = Some(why),
                            Answer::More => {}
                        },
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(bad.map(Err))
            }
        }
    }
}

impl One {
    /// Closes it without leaving the peer a connection to wind up: a check is nobody's session.
    pub(super) fn close(self) {
        if let Socket::Tcp(stream) = self.socket {
            // Fails only when there is no connection left.
            let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}
