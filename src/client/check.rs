//! One check of one backend, over the blocking sockets of the standard library.

use crate::client::members::Seat;
use crate::client::rules::HealthCheck;
use crate::probe::{Answer, Check, LONGEST, Outcome};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// A check that was this much later than it may be was not run for a while: it says nothing about the backend.
const LATE: Duration = Duration::from_millis(250);

/// How a check ended, and why when it was not good.
pub(super) type Ended = (Outcome, Option<String>);

/// Checks each address of `seat` until one is good, or the time is over.
pub(super) fn run(seat: &Seat, how: &HealthCheck) -> Ended {
    let due = Instant::now() + how.timeout;
    let mut ended = (Outcome::Bad, None);
    for address in seat.backend.addresses() {
        let one = One { check: how.check(seat.backend.address()), address: *address, due };
        match one.run() {
            Ok(()) => return (Outcome::Good, None),
            Err(Bad::Backend(why)) => ended = (Outcome::Bad, Some(why)),
            Err(Bad::Io(error)) if is_local(&error) => return (Outcome::Void, Some(error.to_string())),
            Err(Bad::Io(error)) => ended = (Outcome::Bad, Some(error.to_string())),
        }
        if Instant::now() >= due {
            break;
        }
    }
    if Instant::now() > due + LATE {
        ended.0 = Outcome::Void;
    }
    ended
}

/// Our own shortage of descriptors, ports or memory.
fn is_local(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOMEM: the same numbers on every Unix.
    matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied | ErrorKind::OutOfMemory)
        || cfg!(unix) && matches!(error.raw_os_error(), Some(12 | 23 | 24))
}

enum Bad {
    /// It answered, and not well.
    Backend(String),
    Io(io::Error),
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Bad {
        Bad::Io(error)
    }
}

struct One {
    check: Check,
    address: SocketAddr,
    due: Instant,
}

impl One {
    fn run(&self) -> Result<(), Bad> {
        match &self.check {
            Check::Udp { .. } => self.by_datagram(),
            Check::Tcp { .. } | Check::Http { .. } => self.by_stream(),
        }
    }

    /// What is left of the time; never zero, which sockets take for no limit.
    fn left(&self) -> Result<Duration, Bad> {
        let left = self.due.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(late()) } else { Ok(left) }
    }

    fn by_stream(&self) -> Result<(), Bad> {
        let mut stream = TcpStream::connect_timeout(&self.address, self.left()?)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(self.left()?))?;
        timely(stream.write_all(&self.check.request()))?;
        if self.check.is_answerless() {
            return Ok(());
        }
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        loop {
            stream.set_read_timeout(Some(self.left()?))?;
            let count = match stream.read(&mut part) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => timely(read)?,
            };
            answer.extend_from_slice(&part[..count.min(LONGEST - answer.len())]);
            match self.check.judge(&answer, count == 0) {
                Answer::Good => return Ok(()),
                Answer::Bad(why) => return Err(Bad::Backend(why)),
                Answer::More => {}
            }
        }
    }

    fn by_datagram(&self) -> Result<(), Bad> {
        let any: SocketAddr = match self.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(self.address)?;
        socket.send(&self.check.request())?;
        let mut datagram = vec![0; 65_535];
        loop {
            let left = match self.left() {
                Ok(left) => left,
                // Nobody has refused the datagram, and no more than that was asked.
                Err(_) if self.check.is_answerless() => return Ok(()),
                Err(late) => return Err(late),
            };
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut datagram) {
                // What is not expected may be a late answer to somebody before us on this port.
                Ok(count) if self.check.judge(&datagram[..count], true) == Answer::Good => return Ok(()),
                Ok(_) => {}
                Err(error) if is_time(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_time(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A timeout of a socket that is connected, in words.
fn timely<T>(done: io::Result<T>) -> Result<T, Bad> {
    done.map_err(|error| if is_time(&error) { late() } else { error.into() })
}

fn late() -> Bad {
    Bad::Backend("it did not answer in time".into())
}
