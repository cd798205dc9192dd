//! The harness's own child process, which makes the load and answers it: this same binary, started with a hidden first
//! argument. Orders come line by line on standard input, and each is answered by one line of JSON. When the input ends
//! (the parent is gone, however it went) the child ends too.
//!
//! Clients and backend share one thread and one poll. As two processes on one processor they would preempt each other
//! at every message, and leave less of it for the load.

use std::fs::File;
use std::io::ErrorKind;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::client::Client;
use crate::echo::{Echo, UDP};
use crate::flows::Flows;

/// The hidden first argument.
pub(crate) const LOAD: &str = "role:load";
const ORDERS: Token = Token(usize::MAX);
/// Tokens from here on are those of the clients that speak UDP.
const FLOWS: usize = 1 << 31;
/// Tokens from here on are the backend's.
const BACKEND: usize = 1 << 32;
/// Tokens from here on are those of the backend that speaks UDP.
const ECHO: usize = 1 << 33;

/// How a child tells where it stands.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reading {
    /// Units of work done since it started; over `bulk` bytes.
    pub(crate) units: u64,
    /// Connections that failed, broke, or answered wrongly.
    pub(crate) errors: u64,
    /// Connections that have done at least one unit of the present order.
    pub(crate) settled: usize,
    /// Connections that the backend has.
    pub(crate) backend_open: usize,
    /// Datagrams sent since the last `mark`.
    pub(crate) sent: u64,
    /// Of those, how many have not come back.
    pub(crate) lost: u64,
    /// When this was read, in ns since the child started.
    pub(crate) at_ns: u64,
}

/// The parent's end.
pub(crate) struct Role {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Role {
    /// Starts the load on the processors that the calling thread may use. `words` as in [`run`].
    pub(crate) fn start(words: &[String]) -> Result<Self, String> {
        let itself = std::env::current_exe().map_err(|err| format!("cannot find this program: {err}"))?;
        let mut child = Command::new(itself)
            .arg(LOAD)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|err| format!("cannot start the load: {err}"))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let answers = BufReader::new(answers.ok_or("a child without output")?);
        let mut role = Self { child, orders, answers };
        role.answer()?; // the first line says that it is ready
        Ok(role)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order and waits for the answer, which comes at once.
    pub(crate) fn ask(&mut self, order: &str) -> Result<Reading, String> {
        let orders = self.orders.as_mut().ok_or("the child's input is closed")?;
        writeln!(orders, "{order}").map_err(|err| format!("a load process is gone: {err}"))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Reading, String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err("a load process ended; its message is above".to_owned()),
            Ok(_) => serde_json::from_str(&line).map_err(|err| format!("a load process said {line:?}: {err}")),
            Err(err) => Err(format!("cannot read from a load process: {err}")),
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It ends by itself; killing only makes the wait short and certain. Both may fail when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child process. Words: `CONGESTION|- BACKEND...` as in [`Backend::new`], or behind [`UDP`] as in [`Echo::new`];
/// orders as in [`Client::obey`] and [`Flows::obey`].
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let started = Instant::now();
    let failed = |err: std::io::Error| format!("poll: {err}");
    let (congestion, ports) = words.split_first().ok_or("a congestion control and ports are needed")?;
    let mut poll = Poll::new().map_err(failed)?;
    let (udp, ports): (Vec<String>, Vec<String>) = ports.iter().cloned().partition(|port| port.starts_with(UDP));
    let udp: Vec<String> = udp.iter().map(|port| port[UDP.len()..].to_owned()).collect();
    let mut backend = Backend::new(poll.registry().try_clone().map_err(failed)?, BACKEND, congestion, &ports)?;
    let mut echo = Echo::new(poll.registry(), ECHO, &udp)?;
    let mut client = Client::new(poll.registry().try_clone().map_err(failed)?);
    let mut flows = Flows::new(poll.registry().try_clone().map_err(failed)?, FLOWS);
    let mut orders = Orders::open()?;
    let source = orders.input.as_raw_fd();
    poll.registry().register(&mut SourceFd(&source), ORDERS, Interest::READABLE).map_err(failed)?;
    let answer = |client: &Client, flows: &Flows, backend: &Backend, echo: &Echo| {
        let mut reading = client.reading();
        flows.add_to(&mut reading);
        reading.errors += backend.errors + echo.errors;
        reading.backend_open = backend.open();
        reading.at_ns = started.elapsed().as_nanos() as u64;
        Orders::answer(&reading)
    };
    answer(&client, &flows, &backend, &echo)?;
    let mut events = Events::with_capacity(1024);
    loop {
        let pause = match backend.has_more() {
            true => Some(Duration::ZERO),
            false => client.wants_pause().then_some(Duration::from_millis(10)).or_else(|| flows.patience()),
        };
        match poll.poll(&mut events, pause) {
            Err(err) if err.kind() == ErrorKind::Interrupted => continue,
            other => other.map_err(failed)?,
        }
        client.reopen();
        flows.tick();
        backend.go_on();
        for event in &events {
            match event.token() {
                ORDERS => {
                    let Some(lines) = orders.take() else {
                        return Ok(());
                    };
                    for line in lines {
                        match line.split(' ').next() {
                            Some("udp" | "mark" | "pause") => {
                                flows.obey(&line)?;
                                echo.set_trains(flows.are_trains())?;
                            }
                            Some("stop") => {
                                flows.obey(&line)?;
                                client.obey(&line)?;
                            }
                            _ => client.obey(&line)?,
                        }
                        answer(&client, &flows, &backend, &echo)?;
                    }
                }
                Token(token) if token >= ECHO => echo.turn(token),
                Token(token) if token >= BACKEND => {
                    backend.turn(token, event.is_read_closed() || event.is_error())?;
                }
                Token(token) if token >= FLOWS => flows.turn(token),
                Token(slot) => {
                    let ending = event.is_read_closed() || event.is_error();
                    client.turn(slot, event.is_readable() || ending, ending);
                }
            }
        }
    }
}

/// Orders in, answers out.
struct Orders {
    input: File,
    half_a_line: Vec<u8>,
}

impl Orders {
    /// Takes standard input and output over.
    fn open() -> Result<Self, String> {
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(|err| format!("standard input: {err}"))?;
        Ok(Self { input: File::from(input), half_a_line: Vec::new() })
    }

    /// The orders that have come; `None` when there will be no more. Call when the input is readable.
    fn take(&mut self) -> Option<Vec<String>> {
        let mut buffer = [0; 4096];
        match self.input.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => self.half_a_line.extend_from_slice(&buffer[..count]),
        }
        let mut lines = Vec::new();
        while let Some(end) = self.half_a_line.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.half_a_line.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim().to_owned());
        }
        Some(lines)
    }

    fn answer(reading: &Reading) -> Result<(), String> {
        let line = serde_json::to_string(reading).map_err(|err| err.to_string())?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|err| format!("standard output: {err}"))
    }
}
