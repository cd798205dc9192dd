//! Bulk over TCP, one way: the backend sends bytes without end as soon as a client has said something, and the client
//! takes them. Most are thrown away unread, for copying them would make the load the limit; the first ones and some of
//! every 16 MiB are held against what was sent, so that nothing can be lost, doubled or exchanged for long.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

use crate::site::Served;
use crate::talk::throw_away;

/// After so many bytes they begin anew: few enough to stay in a processor's cache, and no multiple of a page, a buffer
/// or a pipe, whose loss would go unseen otherwise.
const PERIOD: usize = 251 * 1000;
/// Read in full from the beginning on.
const FIRST: u64 = 1 << 20;
/// From one look to the next.
const STRIDE: u64 = 16 << 20;
/// Looked at each time.
const LOOK: u64 = 64 << 10;
/// Thrown away at once.
const GULP: u64 = 1 << 20;

/// What is sent: two periods, so that one of them can be had from any point of the first.
pub(crate) struct Bytes(Vec<u8>);

impl Bytes {
    pub(crate) fn new() -> Self {
        let byte = |at: usize| b'!' + ((at ^ (at >> 8) ^ (at >> 16)) % 90) as u8;
        Self((0..2 * PERIOD).map(|at| byte(at % PERIOD)).collect())
    }

    /// Whether this is what stands at a place of the stream.
    fn has(&self, found: &[u8], at: u64) -> bool {
        let mut at = (at % PERIOD as u64) as usize;
        found.chunks(PERIOD).all(|part| {
            let same = self.0[at..at + part.len()] == *part;
            at = (at + part.len()) % PERIOD;
            same
        })
    }
}

/// Sent in a turn: then those have theirs who take it, on the same thread.
const TURN: usize = 1 << 20;

/// A connection of the backend.
#[derive(Default)]
pub(crate) struct Pouring {
    asked: bool,
    /// Where the next byte stands in the period.
    at: usize,
}

impl Pouring {
    /// Sends as much as there is room for, once it was asked to. `ending`: the client sends nothing more.
    pub(crate) fn turn(&mut self, stream: &mut TcpStream, bytes: &Bytes, ending: bool) -> Served {
        if !self.asked {
            match stream.read(&mut [0; 64]) {
                Ok(0) => return Served::Over,
                Ok(_) => self.asked = true,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Served::On,
                Err(_) => return Served::Over,
            }
        }
        if ending {
            return Served::Over; // it would take no more
        }
        let mut sent = 0;
        while sent < TURN {
            match stream.write(&bytes.0[self.at..self.at + PERIOD]) {
                Ok(count) => {
                    self.at = (self.at + count) % PERIOD;
                    sent += count;
                }
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Served::On,
                Err(_) => return Served::Over,
            }
        }
        Served::More
    }
}

/// A connection of a client.
#[derive(Default)]
pub(crate) struct Drinking {
    came: u64,
}

impl Drinking {
    /// Takes what came: its count. `room` and `thrown_away` are there to take it into. `ending`: nothing more will come.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn turn(
        &mut self,
        stream: &mut TcpStream,
        room: &mut [u8],
        thrown_away: &mut Vec<u8>,
        bytes: &Bytes,
        ending: bool,
    ) -> Result<u64, String> {
        let begin = self.came;
        loop {
            let in_stride = self.came % STRIDE;
            let (look, count) = match self.came {
                ..FIRST => (true, FIRST - self.came),
                _ if in_stride < LOOK => (true, LOOK - in_stride),
                _ => (false, GULP.min(STRIDE - in_stride)),
            };
            let count = count as usize;
            let read = if look { stream.read(&mut room[..count]) } else { throw_away(stream, thrown_away, count) };
            match read {
                Ok(0) => return Err("closed while more was to come".to_owned()),
                Ok(got) => {
                    if look && !bytes.has(&room[..got], self.came) {
                        return Err("what came is not what was sent".to_owned());
                    }
                    self.came += got as u64;
                    if got < count && !ending {
                        return Ok(self.came - begin);
                    }
                }
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(self.came - begin),
                Err(err) => return Err(format!("receive: {err}")),
            }
        }
    }
}
