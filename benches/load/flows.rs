//! The clients of the UDP scenarios: flows, each with a socket of its own. In rounds, a flow sends one datagram or a
//! burst and waits until all of it is back; paced, datagrams go out at a rate, whatever comes back.
//!
//! Datagrams get lost, so nothing here waits for one for ever: a flow that has heard nothing for a while begins anew.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};

use crate::batch::{Batch, prepare};
use crate::datagram::{self, Heard, SIZE, Track};
use crate::role::Reading;

/// Datagrams of a burst.
const BURST: usize = 16;
/// A flow that heard nothing from one sweep to the next begins a new round.
const SWEEP: Duration = Duration::from_millis(100);
/// How far a paced load that fell behind catches up at once; more would be a burst of its own.
const BEHIND: Duration = Duration::from_millis(5);

/// What flows do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// One datagram, and its answer.
    Once,
    /// A burst in one send, the kernel cutting it up (UDP_SEGMENT).
    Train,
    /// A burst of single datagrams.
    Apart,
    /// So many datagrams a second over all flows.
    Paced(f64),
}

struct Flow {
    socket: UdpSocket,
    track: Track,
    /// Nothing was heard since the last sweep.
    quiet: bool,
    settled: bool,
}

/// The flows of one order. Their tokens start at `first`.
pub(crate) struct Flows {
    registry: Registry,
    first: usize,
    manner: Manner,
    flows: Vec<Flow>,
    batch: Batch,
    burst: Vec<u8>,
    /// Nothing more is to be sent.
    paused: bool,
    /// The number of the next datagram.
    number: u64,
    /// From this number on it is counted what came back.
    mark: u64,
    answered: u64,
    units: u64,
    errors: u64,
    settled: usize,
    last_error: Option<String>,
    swept: Instant,
    /// `Manner::Paced`: datagrams are due since then, apart from those sent.
    pace_since: Instant,
    pace_sent: u64,
}

impl Flows {
    pub(crate) fn new(registry: Registry, first: usize) -> Self {
        Self {
            registry,
            first,
            manner: Manner::Once,
            flows: Vec::new(),
            batch: Batch::new(),
            burst: vec![0; BURST * SIZE],
            paused: true,
            number: 0,
            mark: 0,
            answered: 0,
            units: 0,
            errors: 0,
            settled: 0,
            last_error: None,
            swept: Instant::now(),
            pace_since: Instant::now(),
            pace_sent: 0,
        }
    }

    /// Adds where the flows stand.
    pub(crate) fn add_to(&self, reading: &mut Reading) {
        reading.units += self.units;
        reading.errors += self.errors;
        reading.settled += self.settled;
        reading.sent = self.number - self.mark;
        reading.lost = reading.sent.saturating_sub(self.answered);
    }

    /// Orders: `udp once|train|apart|RATE ADDRESS COUNT`; `mark`: count losses from here on; `pause`: send nothing more,
    /// so that what is under way can come home; `stop`.
    pub(crate) fn obey(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let (manner, target, count) = match words[..] {
            ["mark"] => {
                (self.mark, self.answered) = (self.number, 0);
                return Ok(());
            }
            ["pause"] => {
                self.paused = true;
                return Ok(());
            }
            ["stop"] => {
                self.stop();
                return Ok(());
            }
            ["udp", manner, target, count] => (manner, target, count),
            _ => return Err(format!("no such order: {line}")),
        };
        self.manner = match manner {
            "once" => Manner::Once,
            "train" => Manner::Train,
            "apart" => Manner::Apart,
            rate => Manner::Paced(rate.parse().map_err(|_| format!("no rate: {rate}"))?),
        };
        let target: SocketAddr = target.parse().map_err(|_| format!("no address: {target}"))?;
        let count: usize = count.parse().map_err(|_| format!("no count: {count}"))?;
        self.stop();
        for index in 0..count {
            let socket = self.open(target, index).map_err(|err| format!("a UDP client: {err}"))?;
            self.flows.push(Flow { socket, track: Track::default(), quiet: false, settled: false });
        }
        self.paused = false;
        self.swept = Instant::now();
        (self.pace_since, self.pace_sent) = (self.swept, 0);
        if !matches!(self.manner, Manner::Paced(_)) {
            (0..count).for_each(|index| self.round(index));
        }
        Ok(())
    }

    /// Clients send trains, and the backend should.
    pub(crate) fn are_trains(&self) -> bool {
        self.manner == Manner::Train
    }

    /// For how long the poll may sleep.
    pub(crate) fn patience(&self) -> Option<Duration> {
        match self.manner {
            _ if self.paused => None,
            Manner::Paced(_) => Some(Duration::from_millis(1)),
            _ => Some(SWEEP / 2),
        }
    }

    /// Does what is due by the clock.
    pub(crate) fn tick(&mut self) {
        if self.paused {
            return;
        }
        let now = Instant::now();
        if let Manner::Paced(rate) = self.manner {
            self.pace(now, rate);
        } else if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            for index in 0..self.flows.len() {
                if std::mem::replace(&mut self.flows[index].quiet, true) {
                    self.round(index);
                }
            }
        }
    }

    /// Something came on the flow of this token.
    pub(crate) fn turn(&mut self, token: usize) {
        let index = token - self.first;
        if index >= self.flows.len() {
            return; // an event of an order before
        }
        let waits = |flow: &Flow| !flow.track.done();
        let (paced, mut emptied) = (matches!(self.manner, Manner::Paced(_)), false);
        // What lies behind the end of a round is stale, and stays where it is until an event brings more.
        while !emptied && (paced || waits(&self.flows[index])) {
            let socket = &self.flows[index].socket;
            let received = match self.manner {
                Manner::Train => self.batch.receive_train(socket),
                Manner::Apart => self.batch.receive(socket),
                Manner::Once | Manner::Paced(_) => self.batch.receive_one(socket),
            };
            match received {
                Ok(done) => emptied = done,
                Err(err) => return self.fail(format!("receive: {err}")),
            }
            self.hear(index);
        }
        let flow = &self.flows[index];
        if !paced && !waits(flow) && !self.paused {
            self.round(index);
        }
    }

    /// Looks at what was received.
    fn hear(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        let mut wrong = None;
        for bytes in self.batch.datagrams() {
            let heard = datagram::number(bytes, index as u32).and_then(|number| Ok((number, flow.track.hear(number)?)));
            match heard {
                Ok((number, heard)) => {
                    self.answered += u64::from(number >= self.mark);
                    if heard == Heard::Awaited {
                        self.units += 1;
                        flow.quiet = false;
                        self.settled += usize::from(!std::mem::replace(&mut flow.settled, true));
                    }
                }
                Err(why) => wrong = Some(why),
            }
        }
        if let Some(why) = wrong {
            self.fail(why);
        }
    }

    /// Begins a round of a flow.
    fn round(&mut self, index: usize) {
        let count = if self.manner == Manner::Once { 1 } else { BURST };
        let begin = self.number;
        self.number += count as u64;
        let bytes = &mut self.burst[..count * SIZE];
        for (number, room) in (begin..).zip(bytes.chunks_mut(SIZE)) {
            datagram::write(room, index as u32, number);
        }
        let flow = &mut self.flows[index];
        flow.track.begin(begin, self.number);
        let sent = match self.manner {
            Manner::Apart => self.batch.send_apart(&flow.socket, bytes).map_err(Into::into),
            _ => flow.socket.send(bytes).map(|_| ()),
        };
        if let Err(err) = sent {
            self.fail(format!("send: {err}"));
        }
    }

    /// Sends what is due, to one flow after the other.
    fn pace(&mut self, now: Instant, rate: f64) {
        let mut due = (now.duration_since(self.pace_since).as_secs_f64() * rate) as u64;
        let most = (BEHIND.as_secs_f64() * rate) as u64 + 1;
        if due.saturating_sub(self.pace_sent) > most {
            // What cannot be caught up is left out, and the rate that is told shows it.
            self.pace_since = now;
            (self.pace_sent, due) = (0, most);
        }
        while self.pace_sent < due {
            let index = (self.number % self.flows.len() as u64) as usize;
            let bytes = &mut self.burst[..SIZE];
            datagram::write(bytes, index as u32, self.number);
            let flow = &mut self.flows[index];
            flow.track.extend(self.number);
            self.number += 1;
            self.pace_sent += 1;
            if let Err(err) = flow.socket.send(bytes) {
                self.fail(format!("send: {err}"));
            }
        }
    }

    fn open(&self, target: SocketAddr, index: usize) -> std::io::Result<UdpSocket> {
        let mut socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        socket.connect(target)?;
        prepare(&socket.as_fd(), self.manner == Manner::Train)?;
        self.registry.register(&mut socket, Token(self.first + index), Interest::READABLE)?;
        Ok(socket)
    }

    fn stop(&mut self) {
        if let Some(why) = self.last_error.take() {
            eprintln!("\nUDP clients: {} failures, the last one: {why}", self.errors);
        }
        self.flows.clear();
        self.paused = true;
        self.errors = 0;
        self.settled = 0;
        (self.mark, self.answered) = (self.number, 0);
    }

    fn fail(&mut self, why: String) {
        self.errors += 1;
        self.last_error = Some(why);
    }
}
