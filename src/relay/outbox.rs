//! Bytes on their way into one link: sent at once where it takes them, held where it does not.

use crate::base::blocks::{Chain, Pool};
use crate::base::pipes::Pipe;
use crate::link::{Link, Stream, Write};
use std::io::IoSlice;

/// What a link has not taken yet: in blocks, or in a pipe. Never in both, since more is added only while nothing is held.
#[derive(Default)]
pub struct Outbox {
    held: Chain,
    /// Never empty.
    pipe: Option<Box<Pipe>>,
}

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is held any more.
    All,
    /// The link takes no more for now.
    Full,
    /// The link broke; what was held is lost.
    Broken,
}

impl From<Chain> for Outbox {
    fn from(held: Chain) -> Outbox {
        Outbox { held, pipe: None }
    }
}

impl Outbox {
    /// True when nothing is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.pipe.is_none()
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.held.len() + self.pipe.as_ref().map_or(0, |pipe| pipe.len())
    }

    /// Sends what is held, as much as `link` takes.
    pub fn flush<S: Stream>(&mut self, link: &mut Link<S>, pool: &mut Pool) -> Flushed {
        if link.broken() {
            self.clear(pool);
            return Flushed::Broken;
        }
        if let Some(mut pipe) = self.pipe.take() {
            if link.writable() {
                link.splice_out(&mut pipe);
            }
            self.hold_pipe(pipe, pool);
            if link.broken() {
                self.clear(pool);
                return Flushed::Broken;
            }
            return if self.is_empty() { Flushed::All } else { Flushed::Full };
        }
        while !self.held.is_empty() {
            if !link.writable() {
                return Flushed::Full;
            }
            let (slices, used) = self.held.slices();
            match link.send(&slices[..used]) {
                Write::Taken(n) => self.held.consume(n, pool),
                Write::Broken => {
                    self.held.clear(pool);
                    return Flushed::Broken;
                }
            }
        }
        Flushed::All
    }

    /// Sends `parts` in order behind what is held; what `link` does not take is held. Callers read the next bytes only
    /// while nothing is held, so the bound of a chain is kept.
    pub fn put<S: Stream>(&mut self, parts: [&[u8]; 2], link: &mut Link<S>, pool: &mut Pool) -> Flushed {
        debug_assert!(self.pipe.is_none(), "these bytes would overtake those in the pipe");
        let mut taken = 0;
        if self.held.is_empty() && link.writable() {
            let slices = parts.map(IoSlice::new);
            let from = usize::from(parts[0].is_empty());
            let to = if parts[1].is_empty() { 1 } else { 2 };
            if from < to {
                match link.send(&slices[from..to]) {
                    Write::Taken(n) => taken = n,
                    Write::Broken => return Flushed::Broken,
                }
            }
        }
        for part in parts {
            let skip = taken.min(part.len());
            taken -= skip;
            if self.held.push(&part[skip..], pool).is_err() {
                // Out of memory: these bytes are lost, so the stream must not seem whole.
                link.give_up();
                self.held.clear(pool);
                return Flushed::Broken;
            }
        }
        if self.held.is_empty() { Flushed::All } else { Flushed::Full }
    }

    /// Holds what is in `pipe`, or gives it back when nothing is.
    pub(super) fn hold_pipe(&mut self, pipe: Box<Pipe>, pool: &mut Pool) {
        debug_assert!(self.is_empty(), "what is in a pipe would overtake what is held");
        if pipe.is_empty() {
            pool.give_pipe(pipe);
        } else {
            self.pipe = Some(pipe);
        }
    }

    /// Holds `bytes` without sending.
    pub fn hold(&mut self, bytes: &[u8], pool: &mut Pool) -> bool {
        self.held.push(bytes, pool).is_ok()
    }

    /// How many more bytes can be held.
    pub fn room(&self) -> usize {
        self.held.room()
    }

    /// What is held in blocks, handed on.
    pub fn into_chain(self) -> Chain {
        debug_assert!(self.pipe.is_none(), "bytes in a pipe cannot be handed on");
        self.held
    }

    /// Gives up what is held.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.held.clear(pool);
        if let Some(pipe) = self.pipe.take() {
            pool.give_pipe(pipe);
        }
    }
}
