//! A pipe as the kernel has it: so many slots, each for one piece, however small (pipe(7), "Pipe capacity").

use std::collections::VecDeque;
use std::io::IoSlice;

/// Bytes a slot holds at the most.
pub const PAGE: usize = 4096;

/// What the pipes of a simulation are like.
#[derive(Clone, Copy, Debug)]
pub struct Pipes {
    /// Pieces that one holds.
    pub slots: usize,
    /// Bytes of a piece at the most; 0 is always a whole page.
    pub piece: usize,
    /// Of a hundred that are asked for, how many cannot be had.
    pub fails: usize,
    /// How many may be open at once.
    pub most: usize,
    /// See [`crate::base::pipes::Supply::from`].
    pub from: usize,
    /// See [`crate::base::pipes::Supply::below`].
    pub below: usize,
}

impl Default for Pipes {
    /// As with a kernel.
    fn default() -> Pipes {
        Pipes { slots: 64, piece: 0, fails: 0, most: 1024, from: 16 * 1024, below: 8 * 1024 }
    }
}

/// What is in one.
pub(super) struct Slots {
    pieces: VecDeque<VecDeque<u8>>,
    most: usize,
}

impl Slots {
    pub(super) fn new(most: usize) -> Slots {
        Slots { pieces: VecDeque::new(), most }
    }

    /// Slots that are free.
    pub(super) fn free(&self) -> usize {
        self.most - self.pieces.len()
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(VecDeque::len).sum()
    }

    /// # Panics
    /// When there is no slot for it.
    pub(super) fn push(&mut self, piece: VecDeque<u8>) {
        assert!(self.free() > 0 && piece.len() <= PAGE, "no place in the pipe");
        self.pieces.push_back(piece);
    }

    pub(super) fn slices(&self) -> Vec<IoSlice<'_>> {
        let parts = self.pieces.iter().flat_map(|piece| {
            let (first, second) = piece.as_slices();
            [first, second]
        });
        parts.map(IoSlice::new).collect()
    }

    /// Drops the first bytes; a slot is free once all of its piece is gone.
    pub(super) fn consume(&mut self, mut bytes: usize) {
        while let Some(first) = self.pieces.front_mut().filter(|_| bytes > 0) {
            let n = bytes.min(first.len());
            first.drain(..n);
            bytes -= n;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}
