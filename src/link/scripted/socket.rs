//! One TCP socket as its kernel sees it, and the wire to its far end. Read [`Socket::readiness`] first; `far` is what the other end does.

mod far;

use crate::base::ids::LinkId;
use crate::base::time::Tick;
use crate::link::Ready;
use crate::link::scripted::PAGE;
use crate::link::scripted::pipe::Slots;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

/// What a scripted panic says.
pub const PANIC: &str = "a scripted panic";

/// What is on its way to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes, at least one.
    Bytes(VecDeque<u8>),
    /// An urgent byte. It is no part of the stream, but reads stop at its place.
    Urgent,
    /// The end.
    Fin,
    /// The connection breaks, with this errno.
    Reset(i32),
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The far end has not answered yet.
    Connecting,
    /// Established.
    Open,
    /// Refused, or broken.
    Dead,
}

/// What the far end knows of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It ended in good order, and all that was sent has come.
    Fin,
    /// It was reset.
    Reset,
}

/// What happened to a socket, for checks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Bytes that came into its receive queue.
    pub arrived: u64,
    /// Bytes that `recv` and `splice_in` gave.
    pub taken: u64,
    /// Those of `splice_in`, and how many calls of it found no place in the pipe.
    pub spliced: u64,
    /// See `spliced`.
    pub jammed: u64,
    /// `recv` told of the end with 0 after a FIN.
    pub end_taken: bool,
    /// Bytes that `send` and `splice_out` took.
    pub sent: u64,
    /// Calls of `recv`, `send`, `splice_in` and `splice_out`.
    pub calls: u64,
    /// Calls of `recv` and `splice_in` that found nothing, and of `send` and `splice_out` that found no room.
    pub empty: u64,
    /// See `empty`.
    pub full: u64,
    /// Events that told of it, and everything that they told.
    pub events: u64,
    /// See `events`.
    pub told: Ready,
    /// `failure` told of an error.
    pub failed: bool,
    /// The last call that moved a byte.
    pub moved_at: Tick,
    /// It broke.
    pub died_at: Option<Tick>,
    /// It was closed.
    pub closed_at: Option<Tick>,
}

/// One TCP socket as its kernel sees it, and the wire to its far end.
#[derive(Debug)]
pub struct Socket {
    pub(super) state: State,
    pub(super) link: Option<LinkId>,
    /// Something happened that epoll will tell of.
    pub(super) edge: bool,
    /// On its way to us, in order.
    wire: VecDeque<Piece>,
    /// Bytes that may be on their way at once.
    wire_room: usize,
    /// The receive queue, and how much it holds at most.
    queue: VecDeque<u8>,
    window: usize,
    /// Where in the queue the urgent byte was, as long as no read has passed it.
    mark: Option<usize>,
    fin: bool,
    /// An error that no call was told of yet.
    error: Option<i32>,
    /// Sent and not acknowledged, and how much that may be.
    out: VecDeque<u8>,
    room: usize,
    /// A write came short, so that room that appears is worth an edge (`SOCK_NOSPACE`).
    nospace: bool,
    /// What writes had offered and the socket did not take: it must come again, the same.
    refused: Vec<u8>,
    shut: bool,
    fin_acknowledged: bool,
    pub(super) cut: bool,
    told_reset: bool,
    /// The far end has ended its side.
    far_shut: bool,
    /// The far end has closed, and answers whatever comes by a reset.
    far_gone: bool,
    far_has_reset: bool,
    panic_at: Option<u64>,
    pub(super) record: Record,
}

impl Socket {
    /// A socket in `state` with room for so many bytes: received and not read, and sent and not acknowledged.
    pub fn new(state: State, window: usize, room: usize) -> Socket {
        Socket {
            state,
            link: None,
            edge: false,
            wire: VecDeque::new(),
            wire_room: window.max(2),
            queue: VecDeque::new(),
            window: window.max(1),
            mark: None,
            fin: false,
            error: None,
            out: VecDeque::new(),
            room: room.max(1),
            nospace: false,
            refused: Vec::new(),
            shut: false,
            fin_acknowledged: false,
            cut: false,
            told_reset: false,
            far_shut: false,
            far_gone: false,
            far_has_reset: false,
            panic_at: None,
            record: Record::default(),
        }
    }

    /// Panics in the `call`-th of the [`Record::calls`], counted from 1.
    pub fn panic_at(&mut self, call: u64) {
        self.panic_at = Some(call);
    }

    /// True when it has panicked.
    pub fn has_panicked(&self) -> bool {
        self.panic_at.is_some_and(|call| self.record.calls >= call)
    }

    /// Gives it twice the room, as kernels do for a connection that lives.
    pub fn widen(&mut self) {
        self.window *= 2;
        self.room *= 2;
        self.wire_room *= 2;
    }

    /// What happened so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// How far the connection is.
    pub fn state(&self) -> State {
        self.state
    }

    /// The link it is watched as.
    pub fn link(&self) -> Option<LinkId> {
        self.link
    }

    /// Bytes that wait to be read.
    pub fn unread(&self) -> usize {
        self.queue.len()
    }

    /// True when it has an end to tell that `recv` did not tell yet, and nothing before it.
    pub fn at_end(&self) -> bool {
        self.fin && self.queue.is_empty() && !self.record.end_taken
    }

    /// True when the far end's FIN has come.
    pub fn fin(&self) -> bool {
        self.fin
    }

    /// True when we have ended our side.
    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Bytes sent and not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.out.len()
    }

    /// True when a write would take something, and no edge is owed for it.
    pub fn has_room(&self) -> bool {
        self.state == State::Open && !self.shut && !self.nospace && self.is_writable()
    }

    /// True when something is on its way that could come in.
    pub fn is_flowing(&self) -> bool {
        let open = self.state == State::Open;
        open && match self.wire.front() {
            Some(Piece::Bytes(_)) => self.queue.len() < self.window || self.record.closed_at.is_some(),
            Some(_) => true,
            None => self.owes_reset(),
        }
    }

    fn owes_reset(&self) -> bool {
        self.far_gone && !self.far_has_reset && !self.out.is_empty() && self.state == State::Open
    }

    // As a kernel: room is told of once a third of the buffer is free.
    fn is_writable(&self) -> bool {
        (self.room - self.out.len().min(self.room)) * 3 >= self.room
    }

    /// What poll(2) would say now, as mio tells it.
    pub fn readiness(&self) -> Ready {
        if self.state == State::Connecting {
            return Ready::default();
        }
        let dead = self.state == State::Dead;
        let both_over = dead || self.fin && self.shut;
        let over = dead || self.fin;
        let readable = over || !self.queue.is_empty();
        Ready::default()
            .with_if(readable || self.mark.is_some(), Ready::IN)
            .with_if(dead || self.shut || self.is_writable(), Ready::OUT)
            .with_if(both_over || readable && over, Ready::RDHUP)
            .with_if(self.error.is_some(), Ready::ERR)
            .with_if(self.mark.is_some(), Ready::PRI)
    }

    /// Somebody was told what [`Socket::readiness`] says now.
    pub fn tell(&mut self) -> Ready {
        let told = self.readiness();
        // Polling a full socket asks to be told of room.
        self.nospace |= self.state == State::Open && !told.any(Ready::OUT);
        self.record.events += 1;
        self.record.told = self.record.told.with(told);
        told
    }

    fn call(&mut self) {
        self.record.calls += 1;
        assert!(self.panic_at != Some(self.record.calls), "{PANIC}");
    }

    pub(super) fn recv(&mut self, into: &mut [u8], now: Tick) -> io::Result<usize> {
        self.call();
        if self.mark == Some(0) {
            // The urgent byte itself is passed over.
            self.mark = None;
        }
        let n = into.len().min(self.mark.unwrap_or(usize::MAX)).min(self.queue.len());
        if n > 0 {
            copy_out(&mut self.queue, &mut into[..n]);
            self.mark = self.mark.map(|mark| mark - n);
            self.record.taken += n as u64;
            self.record.moved_at = now;
            return Ok(n);
        }
        let nothing = self.nothing();
        self.record.end_taken |= self.fin && nothing.is_ok();
        nothing
    }

    /// What a call tells that finds nothing to read.
    fn nothing(&mut self) -> io::Result<usize> {
        if self.fin {
            return Ok(0);
        }
        match self.error.take() {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None if self.state == State::Dead => Ok(0),
            None => {
                self.record.empty += 1;
                Err(ErrorKind::WouldBlock.into())
            }
        }
    }

    /// As tcp_splice_read() has it: it never passes the urgent mark, behind which everything looks like nothing. `size` is
    /// that of the pieces.
    pub(super) fn splice_in(&mut self, pipe: &mut Slots, most: usize, size: usize, now: Tick) -> io::Result<usize> {
        self.call();
        if pipe.free() == 0 {
            self.record.jammed += 1;
            return Err(ErrorKind::WouldBlock.into());
        }
        let n = most.min(pipe.free() * PAGE).min(self.mark.unwrap_or(usize::MAX)).min(self.queue.len());
        let mut left = n;
        while left > 0 && pipe.free() > 0 {
            let piece = size.min(left);
            pipe.push(self.queue.drain(..piece).collect());
            left -= piece;
        }
        let n = n - left;
        if n == 0 {
            return self.nothing();
        }
        self.mark = self.mark.map(|mark| mark - n);
        self.record.taken += n as u64;
        self.record.spliced += n as u64;
        self.record.moved_at = now;
        Ok(n)
    }

    pub(super) fn splice_out(&mut self, pipe: &mut Slots, most: usize, now: Tick) -> io::Result<usize> {
        let n = self.send(&pipe.slices(), most, now)?;
        pipe.consume(n);
        Ok(n)
    }

    pub(super) fn send(&mut self, bytes: &[IoSlice<'_>], most: usize, now: Tick) -> io::Result<usize> {
        self.call();
        if self.state == State::Connecting {
            self.record.full += 1;
            return Err(ErrorKind::WouldBlock.into());
        }
        if let Some(error) = self.error.take() {
            return Err(io::Error::from_raw_os_error(error));
        }
        if self.shut || self.state == State::Dead {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let total: usize = bytes.iter().map(|slice| slice.len()).sum();
        let n = total.min(self.room.saturating_sub(self.out.len())).min(most);
        self.nospace |= n < total;
        if n < total || !self.refused.is_empty() {
            self.offered(bytes, n);
        }
        if n == 0 && total > 0 {
            self.record.full += 1;
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut left = n;
        for slice in bytes {
            let part = left.min(slice.len());
            self.out.extend(&slice[..part]);
            left -= part;
        }
        self.record.sent += n as u64;
        self.record.moved_at = now;
        Ok(n)
    }

    /// Holds the caller to the rule of [`crate::link::Stream::send`] on what was not taken.
    fn offered(&mut self, bytes: &[IoSlice<'_>], taken: usize) {
        let mut expected = self.refused.iter();
        let all = || bytes.iter().flat_map(|slice| slice.iter());
        // Fewer bytes than last time are no change, and more may follow those.
        let same = all().zip(&mut expected).all(|(now, before)| now == before);
        assert!(same, "bytes that were not taken came again changed");
        if expected.len() > 0 {
            self.refused.drain(..taken);
        } else {
            self.refused.clear();
            self.refused.extend(all().skip(taken));
        }
    }

    pub(super) fn shutdown(&mut self) {
        if self.state == State::Open && !self.shut {
            self.shut = true;
            // Whoever polls is woken, for nothing.
            self.edge = true;
        }
    }

    pub(super) fn unsent(&self) -> usize {
        // The end counts as a byte until it is acknowledged. A reset leaves the number as it was.
        self.out.len() + usize::from(self.shut && !self.fin_acknowledged)
    }

    pub(super) fn failure(&mut self) -> Option<io::Error> {
        let error = self.error.take()?;
        self.record.failed = true;
        Some(io::Error::from_raw_os_error(error))
    }

    pub(super) fn close(&mut self, now: Tick) {
        self.record.closed_at = Some(now);
        let is_over = self.fin && self.shut && self.out.is_empty();
        if self.state != State::Open || !self.queue.is_empty() || self.cut && !is_over {
            // Bytes that nobody has read make a plain close a reset, too.
            self.told_reset |= self.state != State::Dead;
            self.out.clear();
            self.wire.clear();
        } else {
            self.shut = true;
        }
    }

    fn die(&mut self, error: i32, now: Tick) {
        if self.state == State::Dead || self.fin && self.fin_acknowledged {
            return;
        }
        // As tcp_reset() has it.
        self.error = Some(if self.fin && !self.shut { libc::EPIPE } else { error });
        self.state = State::Dead;
        self.record.died_at = Some(now);
        self.edge = true;
    }
}

fn copy_out(from: &mut VecDeque<u8>, into: &mut [u8]) {
    let (first, second) = from.as_slices();
    let split = into.len().min(first.len());
    into[..split].copy_from_slice(&first[..split]);
    let rest = into.len() - split;
    into[split..].copy_from_slice(&second[..rest]);
    from.drain(..into.len());
}
