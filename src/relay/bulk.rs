//! Bulk: many bytes from one link to another through a pipe, past our memory (splice(2)).
//!
//! A mode of one direction that sticks: it begins with a large read, and ends when a splice has given little. A message
//! of less costs more by two splices than by a read and a write, and a source that sends such messages never gets here.

use crate::base::blocks::Pool;
use crate::link::{Fill, Link, Stream};
use crate::relay::Outbox;

/// Whether a direction is in bulk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bulk {
    on: bool,
}

/// What a splice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spliced {
    /// So many bytes left the source; what the sink has not taken is in the outbox.
    Bytes(usize),
    /// Nothing can move now: the poll will tell.
    Wait,
    /// To be copied: read.
    Read,
}

impl Bulk {
    /// A read has given so many bytes, or so many are known to come.
    #[inline]
    pub fn saw(&mut self, bytes: u64, pool: &Pool) {
        if bytes >= pool.bulk_from() as u64 {
            self.on = true;
        }
    }

    /// True while it would rather splice.
    #[inline]
    pub fn is_on(self) -> bool {
        self.on
    }

    /// Moves at most `most` bytes from `source` to `sink`, whose `outbox` is empty and of which nothing is known to be in
    /// the way. A sink that is full is not read for at all, so that a pipe is held only for one that took a part.
    pub fn splice<S: Stream>(
        &mut self,
        source: &mut Link<S>,
        sink: &mut Link<S>,
        most: u64,
        outbox: &mut Outbox,
        pool: &mut Pool,
    ) -> Spliced {
        if !self.on || !source.can_fill() || !sink.can_drain() {
            return Spliced::Read;
        }
        if !sink.writable() {
            return Spliced::Wait;
        }
        let Some(mut pipe) = pool.take_pipe() else {
            self.on = false;
            return Spliced::Read;
        };
        let most = usize::try_from(most).map_or(pipe.size(), |most| most.min(pipe.size()));
        let spliced = match source.splice_in(&mut pipe, most) {
            Fill::Bytes(n) => {
                self.on = n >= pool.bulk_below().min(most);
                // What it did not take stays in the pipe; if it broke, it knows.
                sink.splice_out(&mut pipe);
                Spliced::Bytes(n)
            }
            Fill::Empty => Spliced::Wait,
            Fill::Full | Fill::Unclear => {
                self.on = false;
                Spliced::Read
            }
        };
        outbox.hold_pipe(pipe, pool);
        spliced
    }
}
