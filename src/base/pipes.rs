//! Pipes that bytes of many take, past the worker's memory (splice(2)): a worker's stock of them.
//!
//! Knows: who may have one, how many there are, and what each counts for. Must not touch: what a pipe is made of; only
//! the streams know that.
//!
//! A pipe is borrowed for one look at a source, and given back at once when the sink took everything; only bytes that wait
//! for a slow reader keep one. Such a pipe counts in its worker's memory as if it were full, whatever it holds: the kernel
//! keeps whole pages. Past the worker's cap nobody gets one, so that a direction holds no more than its blocks then.

use crate::base::blocks::BLOCK;
use crate::base::time::Tick;
use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Free pipes kept for the next to come: each is two descriptors.
const KEEP: usize = 32;
/// How long they are kept when nobody takes one, in milliseconds.
const KEEP_FOR: u64 = 1_000;
/// After a pipe could not be had, so many that ask are sent away before the kernel is asked again.
const SKIP: u32 = 255;

/// One pipe, and how many bytes are in it. Dropped, it is closed; with bytes of somebody in it that is the only way.
pub struct Pipe {
    ends: Box<dyn Any + Send>,
    size: usize,
    held: usize,
    /// Where it is counted: pipes that are open, and blocks in use while it is lent.
    open: Arc<AtomicUsize>,
    lent: Option<Arc<AtomicUsize>>,
}

impl Pipe {
    /// An empty pipe of at most `size` bytes. `ends` is for the streams that it was made for.
    pub fn new(ends: impl Any + Send, size: usize) -> Pipe {
        Pipe { ends: Box::new(ends), size, held: 0, open: Arc::new(AtomicUsize::new(1)), lent: None }
    }

    /// What it is made of; `None` for streams of another kind.
    pub fn ends<T: Any>(&mut self) -> Option<&mut T> {
        self.ends.downcast_mut()
    }

    /// Bytes it can hold at the most. Few bytes can fill it all the same: it counts pieces.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.held
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// So many bytes went in.
    pub fn filled(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// So many bytes came out.
    pub fn drained(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes);
    }

    /// What it counts for.
    fn blocks(&self) -> usize {
        self.size.div_ceil(BLOCK)
    }

    fn lend(&mut self, out: &Arc<AtomicUsize>) {
        out.fetch_add(self.blocks(), Relaxed);
        self.lent = Some(out.clone());
    }

    fn take_back(&mut self) {
        if let Some(out) = self.lent.take() {
            out.fetch_sub(self.blocks(), Relaxed);
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.take_back();
        self.open.fetch_sub(1, Relaxed);
    }
}

/// Where pipes come from, and when one is worth the trouble.
pub struct Supply {
    /// Makes a pipe.
    pub open: Box<dyn FnMut() -> io::Result<Pipe>>,
    /// How many may be open at once.
    pub most: usize,
    /// A read of so many bytes, or more, is the beginning of bulk.
    pub from: usize,
    /// A pipe that was given fewer bytes than this is the end of it. At least 1.
    pub below: usize,
}

impl Supply {
    /// No pipes: everything is copied.
    pub fn none() -> Supply {
        let open = Box::new(|| Err(io::ErrorKind::Unsupported.into()));
        Supply { open, most: 0, from: usize::MAX, below: 1 }
    }
}

/// A worker's pipes.
pub(super) struct Stock {
    pub(super) supply: Supply,
    #[expect(clippy::vec_box, reason = "what is lent is the box: a direction without a pipe holds but a pointer")]
    free: Vec<Box<Pipe>>,
    /// All that live: lent ones, too.
    open: Arc<AtomicUsize>,
    skip: u32,
    told: bool,
    touched: bool,
    due: Option<Tick>,
}

impl Stock {
    pub(super) fn new(supply: Supply) -> Stock {
        let open = Arc::new(AtomicUsize::new(0));
        Stock { supply, free: Vec::new(), open, skip: 0, told: false, touched: false, due: None }
    }

    /// Pipes that are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// An empty pipe, counted in `out`, of which there are `room` blocks left.
    pub(super) fn take(&mut self, out: &Arc<AtomicUsize>, room: usize) -> Option<Box<Pipe>> {
        self.touched = true;
        if self.free.is_empty() {
            self.make();
        }
        let mut pipe = self.free.pop()?;
        if pipe.blocks() > room {
            self.free.push(pipe);
            return None;
        }
        pipe.lend(out);
        Some(pipe)
    }

    fn make(&mut self) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        if self.open() >= self.supply.most {
            return;
        }
        match (self.supply.open)() {
            Ok(mut pipe) => {
                pipe.open = self.open.clone();
                self.open.fetch_add(1, Relaxed);
                self.free.push(Box::new(pipe));
            }
            Err(error) => {
                self.skip = SKIP;
                if !std::mem::replace(&mut self.told, true) {
                    log::info!("no pipe for a bulk transfer, which is copied instead (told once): {error}");
                }
            }
        }
    }

    pub(super) fn give(&mut self, mut pipe: Box<Pipe>) {
        // One that is not empty holds somebody's bytes: nobody else may have it.
        if pipe.is_empty() && self.free.len() < KEEP {
            pipe.take_back();
            self.free.push(pipe);
            // It may have been away for long: from now on it is free, and is closed when nobody wants it.
            self.touched = true;
        }
    }

    /// When free pipes may have to be closed.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.due
    }

    /// Closes the free ones when nobody has asked for one for a while.
    pub(super) fn tidy(&mut self, now: Tick) {
        if std::mem::take(&mut self.touched) {
            self.due = (!self.free.is_empty()).then_some(Tick(now.0 + KEEP_FOR));
        } else if self.due.is_some_and(|due| now >= due) {
            self.free.clear();
            self.due = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::blocks::Pool;
    use std::cell::Cell;
    use std::rc::Rc;

    const SIZE: usize = 4 * BLOCK;

    /// A pool whose pipes are counted while they live, and the count; `fails` says which cannot be made.
    fn pool(cap: usize, most: usize, fails: impl Fn(u32) -> bool + 'static) -> (Pool, Rc<Cell<u32>>) {
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        let mut pool = Pool::new(cap);
        let open = Box::new(move || {
            count.set(count.get() + 1);
            if fails(count.get()) { Err(io::ErrorKind::QuotaExceeded.into()) } else { Ok(Pipe::new((), SIZE)) }
        });
        pool.supply(Supply { open, most, from: 1, below: 1 });
        (pool, asked)
    }

    #[test]
    fn a_pipe_that_is_not_empty_is_closed_and_an_empty_one_is_lent_again() {
        let (mut pool, asked) = pool(64 * BLOCK, 9, |_| false);
        let pipe = pool.take_pipe().unwrap();
        assert_eq!((pool.pipes(), pool.out()), (1, 4), "a lent pipe counts as full");
        pool.give_pipe(pipe);
        assert_eq!((pool.pipes(), pool.out()), (1, 0), "a free one is kept and counts for nothing");
        let mut pipe = pool.take_pipe().unwrap();
        assert_eq!(asked.get(), 1, "it is the same one");
        pipe.filled(1);
        pool.give_pipe(pipe);
        assert_eq!((pool.pipes(), pool.out()), (0, 0), "it held somebody's byte");
    }

    #[test]
    fn a_pipe_that_is_dropped_is_no_longer_counted() {
        let (mut pool, _) = pool(64 * BLOCK, 9, |_| false);
        let mut pipe = pool.take_pipe().unwrap();
        pipe.filled(7);
        drop(pipe);
        assert_eq!((pool.pipes(), pool.out()), (0, 0));
    }

    #[test]
    fn nobody_gets_more_than_there_may_be() {
        let rows: [(&str, usize, usize, usize); 3] =
            [("by number", 64, 2, 2), ("by memory", 11, 9, 2), ("as much as is left", 7, 9, 1)];
        for (why, blocks, most, given) in rows {
            let (mut pool, _) = pool(blocks * BLOCK, most, |_| false);
            let pipes: Vec<Box<Pipe>> = std::iter::from_fn(|| pool.take_pipe()).take(9).collect();
            assert_eq!(pipes.len(), given, "{why}");
        }
    }

    #[test]
    fn a_kernel_that_gives_none_is_not_asked_at_once_again() {
        let (mut pool, asked) = pool(64 * BLOCK, 9, |time| time <= 2);
        let turns = 3 * SKIP;
        let first = (0..turns).find(|_| pool.take_pipe().is_some());
        assert_eq!((first, asked.get()), (Some(2 * (SKIP + 1)), 3));
    }

    #[test]
    fn free_pipes_are_closed_when_nobody_wants_them() {
        let (mut pool, _) = pool(64 * BLOCK, 9, |_| false);
        assert_eq!(pool.pipes_due(), None);
        let pipe = pool.take_pipe().unwrap();
        pool.give_pipe(pipe);
        pool.tidy(Tick(5));
        assert_eq!(pool.pipes_due(), Some(Tick(5 + KEEP_FOR)));
        let pipe = pool.take_pipe().unwrap();
        pool.give_pipe(pipe);
        pool.tidy(Tick(5 + KEEP_FOR));
        assert_eq!((pool.pipes(), pool.pipes_due()), (1, Some(Tick(5 + 2 * KEEP_FOR))), "it was used meanwhile");
        pool.tidy(Tick(4 + 2 * KEEP_FOR));
        assert_eq!(pool.pipes(), 1);
        pool.tidy(Tick(5 + 2 * KEEP_FOR));
        assert_eq!((pool.pipes(), pool.pipes_due()), (0, None));
        // One that was away over several turns.
        let pipe = pool.take_pipe().unwrap();
        pool.tidy(Tick(20_000));
        pool.tidy(Tick(20_001));
        pool.give_pipe(pipe);
        pool.tidy(Tick(20_002));
        assert_eq!(pool.pipes_due(), Some(Tick(20_002 + KEEP_FOR)));
        pool.tidy(Tick(20_002 + KEEP_FOR));
        assert_eq!(pool.pipes(), 0);
    }
}
