//! Bytes that wait for a slow reader: pooled blocks, and chains of them. The pool lends pipes, too (`pipes`).
//!
//! Bytes that move on at once never come here; they stay in the worker's scratch.

use crate::base::pipes::{Pipe, Stock, Supply};
use crate::base::time::Tick;
use std::collections::TryReserveError;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes a block.
pub const BLOCK: usize = 16 * 1024;
/// Blocks a chain at the most: a direction holds 64 KiB.
pub const CHAIN: usize = 4;
/// Bytes a chain at the most.
pub const CHAIN_BYTES: usize = CHAIN * BLOCK;
/// Free blocks a pool keeps for the next to come.
const KEEP: usize = 64;

/// One block. Counted in its pool until it is dropped, by whatever way, so that a panic leaks no count.
pub struct Block {
    bytes: Box<[u8]>,
    out: Arc<AtomicUsize>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.out.fetch_sub(1, Relaxed);
    }
}

/// A worker's blocks and pipes.
pub struct Pool {
    free: Vec<Box<[u8]>>,
    out: Arc<AtomicUsize>,
    cap: usize,
    pipes: Stock,
}

impl Pool {
    /// A pool that should hold no more than `cap` bytes; [`Pool::over`] says when it does.
    pub fn new(cap: usize) -> Pool {
        let pipes = Stock::new(Supply::none());
        Pool { free: Vec::new(), out: Arc::default(), cap: (cap / BLOCK).max(CHAIN), pipes }
    }

    /// Says where pipes come from; until then there are none.
    pub fn supply(&mut self, supply: Supply) {
        self.pipes = Stock::new(supply);
    }

    /// An empty pipe; `None` when there is none to be had, or no room in the cap for all that it could hold.
    pub fn take_pipe(&mut self) -> Option<Box<Pipe>> {
        let room = self.cap.saturating_sub(self.out());
        self.pipes.take(&self.out, room)
    }

    /// Takes a pipe back. One with bytes in it is closed.
    pub fn give_pipe(&mut self, pipe: Box<Pipe>) {
        self.pipes.give(pipe);
    }

    /// Pipes that are open, lent or free.
    pub fn pipes(&self) -> usize {
        self.pipes.open()
    }

    /// A read of so many bytes is the beginning of bulk.
    #[inline]
    pub fn bulk_from(&self) -> usize {
        self.pipes.supply.from
    }

    /// A pipe that was given fewer bytes than this is the end of it.
    pub fn bulk_below(&self) -> usize {
        self.pipes.supply.below
    }

    /// When [`Pool::tidy`] may have something to do.
    pub fn pipes_due(&self) -> Option<Tick> {
        self.pipes.next_due()
    }

    /// Closes free pipes that nobody has asked for in a while. To be called once a turn.
    pub fn tidy(&mut self, now: Tick) {
        self.pipes.tidy(now);
    }

    /// Blocks in use, those that lent pipes count for included.
    pub fn out(&self) -> usize {
        self.out.load(Relaxed)
    }

    /// The cap, in blocks.
    pub fn cap(&self) -> usize {
        self.cap
    }

    /// How many blocks are out beyond the cap.
    pub fn over(&self) -> usize {
        self.out().saturating_sub(self.cap)
    }

    fn take(&mut self) -> Result<Block, TryReserveError> {
        let bytes = match self.free.pop() {
            Some(bytes) => bytes,
            None => {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(BLOCK)?;
                bytes.resize(BLOCK, 0);
                bytes.into_boxed_slice()
            }
        };
        self.out.fetch_add(1, Relaxed);
        Ok(Block { bytes, out: self.out.clone() })
    }

    fn give(&mut self, mut block: Block) {
        if self.free.len() < KEEP {
            self.free.push(std::mem::take(&mut block.bytes));
        }
    }
}

/// Up to [`CHAIN_BYTES`] bytes in order, in blocks. Empty, it holds no block.
#[derive(Default)]
pub struct Chain {
    blocks: [Option<Block>; CHAIN],
    /// Where the first byte is in the first block.
    start: usize,
    len: usize,
}

impl Chain {
    /// Bytes held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// Out of memory; then nothing is lost but what did not fit.
    ///
    /// # Panics
    /// When it would hold more than [`CHAIN_BYTES`]: callers read only while it is empty, and never more than that.
    pub fn push(&mut self, mut bytes: &[u8], pool: &mut Pool) -> Result<(), TryReserveError> {
        assert!(self.start + self.len + bytes.len() <= CHAIN_BYTES, "a chain is at its bound");
        while !bytes.is_empty() {
            let end = self.start + self.len;
            let slot = &mut self.blocks[end / BLOCK];
            let block = match slot {
                Some(block) => block,
                None => slot.insert(pool.take()?),
            };
            let room = &mut block.bytes[end % BLOCK..];
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            self.len += n;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// The bytes as slices for one writev; unused slices are empty. The count says how many are used.
    pub fn slices(&self) -> ([IoSlice<'_>; CHAIN], usize) {
        let mut slices = [IoSlice::new(&[]); CHAIN];
        let mut used = 0;
        let (mut at, end) = (self.start, self.start + self.len);
        while at < end {
            let Some(block) = &self.blocks[at / BLOCK] else { break };
            let stop = end.min((at / BLOCK + 1) * BLOCK);
            slices[used] = IoSlice::new(&block.bytes[at % BLOCK..][..stop - at]);
            used += 1;
            at = stop;
        }
        (slices, used)
    }

    /// Drops the first `n` bytes, giving back each block that is done with.
    pub fn consume(&mut self, n: usize, pool: &mut Pool) {
        let n = n.min(self.len);
        self.start += n;
        self.len -= n;
        if self.len == 0 {
            self.start = 0;
            for block in self.blocks.iter_mut().filter_map(Option::take) {
                pool.give(block);
            }
            return;
        }
        while self.start >= BLOCK {
            if let Some(block) = self.blocks[0].take() {
                pool.give(block);
            }
            self.blocks.rotate_left(1);
            self.start -= BLOCK;
        }
    }

    /// Copies the first bytes out, as many as `into` holds; they stay.
    pub fn peek(&self, into: &mut [u8]) -> usize {
        let (slices, used) = self.slices();
        let mut done = 0;
        for slice in &slices[..used] {
            let n = slice.len().min(into.len() - done);
            into[done..done + n].copy_from_slice(&slice[..n]);
            done += n;
        }
        done
    }

    /// How many more bytes fit behind those held.
    pub fn room(&self) -> usize {
        CHAIN_BYTES - self.start - self.len
    }

    /// Drops everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.consume(self.len, pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_leave_in_the_order_they_came(steps in prop::collection::vec((0usize..CHAIN_BYTES, 0usize..CHAIN_BYTES), 1..50)) {
            let mut pool = Pool::new(CHAIN_BYTES);
            let mut chain = Chain::default();
            let mut model: Vec<u8> = Vec::new();
            let mut next = 0u8;
            for (add, take) in steps {
                // As callers do: only what fits behind what is held.
                let add = add.min(CHAIN_BYTES - chain.start - chain.len());
                let bytes: Vec<u8> = (0..add).map(|_| { next = next.wrapping_mul(31).wrapping_add(7); next }).collect();
                chain.push(&bytes, &mut pool).unwrap();
                model.extend(&bytes);
                let (slices, used) = chain.slices();
                prop_assert!(slices[used..].iter().all(|s| s.is_empty()));
                let held: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                prop_assert_eq!(&held, &model);
                let take = take.min(model.len());
                chain.consume(take, &mut pool);
                model.drain(..take);
                prop_assert_eq!(chain.len(), model.len());
                prop_assert!(pool.out() <= CHAIN);
            }
            chain.clear(&mut pool);
            prop_assert_eq!(pool.out(), 0, "an empty chain holds no block");
        }
    }

    #[test]
    fn a_dropped_chain_is_no_longer_counted() {
        let mut pool = Pool::new(CHAIN_BYTES);
        let mut chain = Chain::default();
        chain.push(&[1; BLOCK + 1], &mut pool).unwrap();
        assert_eq!(pool.out(), 2);
        drop(chain);
        assert_eq!(pool.out(), 0);
    }

    #[test]
    fn the_cap_is_told() {
        let mut pool = Pool::new(CHAIN_BYTES);
        let mut chains: Vec<Chain> = (0..2).map(|_| Chain::default()).collect();
        for chain in &mut chains {
            chain.push(&[1; CHAIN_BYTES], &mut pool).unwrap();
        }
        assert_eq!(pool.over(), CHAIN);
        chains.clear();
        assert_eq!(pool.over(), 0);
    }
}
