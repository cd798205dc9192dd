//! The clients: connections that say something and wait for the answer (`talk.rs`), over and over or once.
//!
//! Lean on purpose, since they share a thread with the backend and must not be the limit: no clock per unit, no
//! second read once the answer is whole, no waiting for writability where a new connection already takes the bytes.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::role::Reading;
use crate::talk::{Heard, Hearing, Room, Talk};

/// Connections being opened at once in `Manner::Hold`.
const OPENING: usize = 128;

/// What a connection does once its answer came.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    RoundTrip,
    Connect,
    Hold,
}

#[derive(Default)]
struct Slot {
    stream: Option<TcpStream>,
    sent: bool,
    hearing: Hearing,
    settled: bool,
}

/// The clients of one order. Their tokens are the numbers of the slots.
pub(crate) struct Client {
    registry: Registry,
    manner: Manner,
    talk: Talk,
    room: Room,
    target: SocketAddr,
    /// Asked for on the client's own sockets; elsewhere the system's is in force.
    congestion: Option<String>,
    slots: Vec<Slot>,
    /// `Manner::Hold`: the next slot to open.
    next: usize,
    /// Slots whose connection failed: opened again after a pause, so that a dead target is no busy loop.
    broken: Vec<usize>,
    units: u64,
    errors: u64,
    settled: usize,
    last_error: Option<String>,
}

impl Client {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            manner: Manner::RoundTrip,
            talk: Talk::Echo,
            room: Room::new(),
            target: SocketAddr::from(([127, 0, 0, 1], 0)),
            congestion: None,
            slots: Vec::new(),
            next: 0,
            broken: Vec::new(),
            units: 0,
            errors: 0,
            settled: 0,
            last_error: None,
        }
    }

    /// Where it stands; what it does not know is left to fill in.
    pub(crate) fn reading(&self) -> Reading {
        Reading { units: self.units, errors: self.errors, settled: self.settled, ..Reading::default() }
    }

    /// Some connections failed and are to be opened again, after a pause.
    pub(crate) fn wants_pause(&self) -> bool {
        !self.broken.is_empty()
    }

    /// Opens again what failed.
    pub(crate) fn reopen(&mut self) {
        for slot in std::mem::take(&mut self.broken) {
            self.open(slot);
        }
    }

    /// Orders: `rr|connect|hold TALK ADDRESS COUNT [CONGESTION]`, `read`, `stop`. TALK: see [`Talk::of`].
    pub(crate) fn obey(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let (manner, rest) = match words[..] {
            ["read"] => return Ok(()),
            ["stop"] => {
                if let Some(why) = self.last_error.take() {
                    eprintln!("\nclient to {}: {} failed, the last one: {why}", self.target, self.errors);
                }
                self.slots.clear();
                self.broken.clear();
                self.errors = 0;
                self.settled = 0;
                return Ok(());
            }
            ["rr", ref rest @ ..] => (Manner::RoundTrip, rest),
            ["connect", ref rest @ ..] => (Manner::Connect, rest),
            ["hold", ref rest @ ..] => (Manner::Hold, rest),
            _ => return Err(format!("no such order: {line}")),
        };
        let [talk, target, count, congestion @ ..] = rest else {
            return Err(format!("order too short: {line}"));
        };
        self.manner = manner;
        self.talk = Talk::of(talk, manner == Manner::Connect)?;
        self.target = target.parse().map_err(|_| format!("no address: {target}"))?;
        self.congestion = congestion.first().map(|name| (*name).to_owned());
        let count: usize = count.parse().map_err(|_| format!("no count: {count}"))?;
        self.slots = (0..count).map(|_| Slot::default()).collect();
        self.next = if manner == Manner::Hold { count.min(OPENING) } else { count };
        for slot in 0..self.next {
            self.open(slot);
        }
        Ok(())
    }

    fn open(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.stream = None;
        slot.sent = false;
        slot.hearing.again();
        match TcpStream::connect(self.target) {
            Ok(mut stream) => {
                let interest = Interest::READABLE | Interest::WRITABLE;
                if let Err(err) = self.registry.register(&mut stream, Token(index), interest) {
                    return self.fail(index, &format!("register: {err}"));
                }
                if let Some(name) = &self.congestion
                    && let Err(err) = socket2::SockRef::from(&stream).set_tcp_congestion(name.as_bytes())
                {
                    return self.fail(index, &format!("congestion control {name}: {err}"));
                }
                slot.stream = Some(stream);
                self.send(index);
            }
            Err(err) => self.fail(index, &format!("connect: {err}")),
        }
    }

    fn send(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(stream) = &mut slot.stream else {
            return;
        };
        let request = self.talk.request();
        match stream.write(request) {
            Ok(count) if count == request.len() => slot.sent = true,
            // So little fits into an empty send buffer, always.
            Ok(count) => self.fail(index, &format!("send: only {count} bytes taken")),
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            Err(err) => self.fail(index, &format!("send: {err}")),
        }
    }

    /// Something happened to a connection. `ending`: no more will come from it.
    pub(crate) fn turn(&mut self, index: usize, readable: bool, ending: bool) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if !slot.sent {
            self.send(index);
            return;
        }
        let Some(stream) = &mut slot.stream else {
            return;
        };
        if !readable {
            return;
        }
        match self.talk.hear(stream, &mut slot.hearing, &mut self.room, ending) {
            Ok(Heard::Whole) => self.unit_done(index),
            Ok(Heard::Bytes(count)) => {
                self.units += count;
                self.settled += usize::from(count > 0 && !std::mem::replace(&mut slot.settled, true));
            }
            Ok(Heard::Part) => {}
            Err(why) => self.fail(index, &why),
        }
    }

    fn unit_done(&mut self, index: usize) {
        self.units += 1;
        let slot = &mut self.slots[index];
        if !slot.settled {
            slot.settled = true;
            self.settled += 1;
        }
        match self.manner {
            Manner::RoundTrip => {
                slot.hearing.again();
                slot.sent = false;
                self.send(index);
            }
            Manner::Connect => {
                slot.stream = None; // closes
                self.open(index);
            }
            Manner::Hold => {
                if self.next < self.slots.len() {
                    self.next += 1;
                    self.open(self.next - 1);
                }
            }
        }
    }

    fn fail(&mut self, index: usize, why: &str) {
        self.errors += 1;
        self.last_error = Some(why.to_owned());
        self.slots[index].stream = None;
        self.broken.push(index);
    }
}
