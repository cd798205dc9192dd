//! Moves bytes between two links, both ways, until both are done (half-close: RFC 9293, section 3.6.1).
//!
//! Knows: links, blocks, pipes. Must not touch: routes, pools, timers, counters.
//! The caller decides when to give up; we tell how many bytes went each way and why we ended.
//! Read [`Relay::turn`] first.
//!
//! A direction reads only while its sink has taken everything, so that it holds at most one scratch of bytes, or one pipe.
//! A stream that broke is never turned into a clean end: the other side gets what was read before, and then a reset.
//! Small messages are copied, bulk is spliced (`bulk`); what is in a pipe is held like what is in blocks (`outbox`), so
//! that ends, resets and deadlines wait for it in the same way.

mod bulk;
mod outbox;
#[cfg(test)]
mod tests;

pub use bulk::{Bulk, Spliced};
pub use outbox::{Flushed, Outbox};

use crate::base::blocks::{CHAIN_BYTES, Chain, Pool};
use crate::link::{Link, Read, Side, Stream};

/// Bytes read at once: what a chain can hold, since the sink may take none of them.
pub const SCRATCH: usize = CHAIN_BYTES;
/// Bytes each direction may move in one turn, so that a busy one starves neither the other nor another session.
const BUDGET: usize = 4 * SCRATCH;

/// One direction of a relay.
#[derive(Default)]
struct Direction {
    pending: Outbox,
    bulk: Bulk,
    flow: Flow,
    moved: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Flow {
    /// The source may give more.
    #[default]
    Open,
    /// The source ended in good order; what is pending must still be written, then the end.
    Ending,
    /// The source broke; what is pending must still be written, and no end is ever sent.
    Breaking,
    /// All was written, and the end was sent (or goes out with the close that follows).
    Ended,
    /// The sink broke: nothing can be delivered, so nothing is read.
    Cut,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing more can move now; the poll will tell.
    Wait,
    /// There is more to move, and others wait for their turn.
    Again,
    /// One side broke and all that came from it is written to `Side`: reset that once it has acknowledged everything.
    Lame(Side),
    /// Both sides ended in good order, and everything is written.
    Done,
    /// Both sides broke.
    Broken,
}

/// See the module.
#[derive(Default)]
pub struct Relay {
    up: Direction,
    down: Direction,
}

impl Relay {
    /// A relay that begins with bytes that were read from the client, and from the backend, before it.
    pub fn seeded(from_client: Chain, from_backend: Chain) -> Relay {
        let mut relay = Relay::default();
        relay.up.pending = from_client.into();
        relay.down.pending = from_backend.into();
        relay
    }

    /// Moves what can be moved, at most a budget of it each way.
    pub fn turn<S: Stream>(
        &mut self,
        client: &mut Link<S>,
        backend: &mut Link<S>,
        scratch: &mut [u8],
        pool: &mut Pool,
    ) -> Turn {
        let (mut up_budget, mut down_budget) = (BUDGET, BUDGET);
        loop {
            let last = self.down.flow == Flow::Ended;
            let up = self.up.pump(client, backend, scratch, pool, &mut up_budget, last);
            let last = self.up.flow == Flow::Ended;
            let down = self.down.pump(backend, client, scratch, pool, &mut down_budget, last);
            if up_budget == 0 || down_budget == 0 {
                return Turn::Again;
            }
            // A break seen by one direction may be the other one's business, so look once more after any progress.
            if !up && !down {
                break;
            }
        }
        match (client.broken(), backend.broken()) {
            (true, true) => Turn::Broken,
            (true, false) if self.up.is_written() => Turn::Lame(Side::Backend),
            (false, true) if self.down.is_written() => Turn::Lame(Side::Client),
            (false, false) if self.up.flow == Flow::Ended && self.down.flow == Flow::Ended => Turn::Done,
            _ => Turn::Wait,
        }
    }

    /// Bytes read from the client so far.
    pub fn up(&self) -> u64 {
        self.up.moved
    }

    /// Bytes read from the backend so far.
    pub fn down(&self) -> u64 {
        self.down.moved
    }

    /// Bytes read and not written yet, both ways.
    pub fn held(&self) -> usize {
        self.up.pending.len() + self.down.pending.len()
    }

    /// True when the backend ended or broke before its client did, and without a byte: it closed without a response.
    pub fn backend_left_silently(&self) -> bool {
        self.down.moved == 0 && self.down.flow != Flow::Open && self.up.flow == Flow::Open
    }

    /// True while blocks are held, or a pipe.
    pub fn holds_blocks(&self) -> bool {
        !self.up.pending.is_empty() || !self.down.pending.is_empty()
    }

    /// Gives blocks and pipes back.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.up.pending.clear(pool);
        self.down.pending.clear(pool);
    }
}

impl Direction {
    /// True when nothing is left to write and nothing more will come.
    fn is_written(&self) -> bool {
        self.pending.is_empty() && matches!(self.flow, Flow::Breaking | Flow::Ended)
    }

    /// Moves what can be moved from `source` to `sink`. True when anything changed. `last`: the other direction has ended,
    /// so that the close that follows sends the end of this one.
    fn pump<S: Stream>(
        &mut self,
        source: &mut Link<S>,
        sink: &mut Link<S>,
        scratch: &mut [u8],
        pool: &mut Pool,
        budget: &mut usize,
        last: bool,
    ) -> bool {
        if source.ended() && !source.broken() {
            // Read to its end in good order, and reset afterwards: its own direction stays clean, the other is cut.
            source.notice_break();
        }
        if self.flow == Flow::Cut {
            return false;
        }
        let mut progress = false;
        if !self.pending.is_empty() && !sink.broken() {
            if !sink.writable() {
                return false;
            }
            let held = self.pending.len();
            match self.pending.flush(sink, pool) {
                Flushed::Broken => {}
                flushed => {
                    let taken = held - self.pending.len();
                    *budget = budget.saturating_sub(taken);
                    progress = taken > 0;
                    if flushed == Flushed::Full {
                        return progress;
                    }
                }
            }
        }
        while self.flow == Flow::Open && !sink.broken() && source.readable() && *budget > 0 {
            if self.bulk.is_on() {
                match self.bulk.splice(source, sink, u64::MAX, &mut self.pending, pool) {
                    Spliced::Bytes(n) => {
                        progress = true;
                        self.moved += n as u64;
                        *budget = budget.saturating_sub(n);
                        if !self.pending.is_empty() {
                            break;
                        }
                        continue;
                    }
                    Spliced::Wait => break,
                    Spliced::Read => {}
                }
            }
            match source.recv(scratch) {
                Read::Bytes(n) => {
                    progress = true;
                    self.moved += n as u64;
                    *budget = budget.saturating_sub(n);
                    self.bulk.saw(n as u64, pool);
                    self.pending.put([&scratch[..n], &[]], sink, pool);
                    if !self.pending.is_empty() {
                        break;
                    }
                }
                Read::Empty => break,
                Read::End => self.flow = Flow::Ending,
                Read::Broken => self.flow = Flow::Breaking,
            }
        }
        if sink.broken() {
            self.pending.clear(pool);
            self.flow = Flow::Cut;
            return true;
        }
        if self.flow == Flow::Ending && self.pending.is_empty() {
            if !last {
                sink.shutdown();
            }
            self.flow = Flow::Ended;
            progress = true;
        }
        progress
    }
}
