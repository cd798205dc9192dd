//! What the far end of a socket does, and the network between. Read [`Socket::flow`] first.

use super::{End, Piece, Socket, State, copy_out};
use crate::base::time::Tick;
use std::collections::VecDeque;

impl Socket {
    /// The connect ends: well, or with an errno.
    pub fn connect(&mut self, error: Option<i32>, now: Tick) {
        if self.state == State::Connecting {
            match error {
                None => {
                    self.state = State::Open;
                    self.record.moved_at = now;
                }
                Some(error) => self.die(error, now),
            }
            self.edge = true;
        }
    }

    /// The far end sends: as many of `bytes` as may be on their way. Returns how many.
    pub fn far_send(&mut self, bytes: &[u8]) -> usize {
        let on_its_way: usize =
            self.wire.iter().map(|piece| if let Piece::Bytes(b) = piece { b.len() } else { 0 }).sum();
        let n = bytes.len().min(self.wire_room.saturating_sub(on_its_way));
        match self.wire.back_mut() {
            Some(Piece::Bytes(last)) => last.extend(&bytes[..n]),
            _ if n > 0 => self.wire.push_back(Piece::Bytes(bytes[..n].iter().copied().collect())),
            _ => {}
        }
        n
    }

    /// The far end sends an urgent byte.
    pub fn far_urgent(&mut self) {
        self.wire.push_back(Piece::Urgent);
    }

    /// The far end ends its side.
    pub fn far_shutdown(&mut self) {
        if !self.far_shut {
            self.far_shut = true;
            self.wire.push_back(Piece::Fin);
        }
    }

    /// The far end breaks: of what it had sent, up to `most` bytes that still fit come before the reset.
    pub fn far_reset(&mut self, most: usize, error: i32) {
        let mut left = most.min(self.window.saturating_sub(self.queue.len()));
        let mut kept = VecDeque::new();
        while let Some(mut piece) = self.wire.pop_front() {
            let whole = match &mut piece {
                Piece::Bytes(bytes) => {
                    let whole = bytes.len() <= left;
                    bytes.truncate(left);
                    left -= bytes.len();
                    if bytes.is_empty() {
                        break;
                    }
                    whole
                }
                _ => true,
            };
            kept.push_back(piece);
            if !whole {
                break;
            }
        }
        kept.push_back(Piece::Reset(error));
        self.wire = kept;
        self.far_gone = true;
        self.far_has_reset = true;
    }

    /// The far end closes, without having read what is on its way to it: that is answered by a reset.
    pub fn far_close(&mut self) {
        self.far_shutdown();
        self.far_gone = true;
    }

    /// Lets what is on its way come in: one piece, or `most` bytes of it. True when that changed anything.
    pub fn flow(&mut self, most: usize, now: Tick) -> bool {
        if self.owes_reset() {
            self.far_has_reset = true;
            self.wire.push_back(Piece::Reset(libc::ECONNRESET));
        }
        if !self.is_flowing() {
            return false;
        }
        let closed = self.record.closed_at.is_some();
        if let Some(Piece::Bytes(bytes)) = self.wire.front_mut() {
            if closed {
                // Nobody is there to read them.
                self.told_reset = true;
                self.out.clear();
                self.wire.clear();
                return true;
            }
            let n = bytes.len().min(most.max(1)).min(self.window - self.queue.len());
            self.queue.extend(bytes.drain(..n));
            if bytes.is_empty() {
                self.wire.pop_front();
            }
            self.record.arrived += n as u64;
            self.edge = true;
            return true;
        }
        match self.wire.pop_front() {
            Some(Piece::Urgent) => self.mark = Some(self.queue.len()),
            Some(Piece::Fin) => self.fin = true,
            Some(Piece::Reset(error)) => self.die(error, now),
            _ => return false,
        }
        self.edge = true;
        true
    }

    /// The far end takes up to `most` bytes, which acknowledges them.
    pub fn far_read(&mut self, most: usize) -> Vec<u8> {
        if self.far_gone || self.state != State::Open {
            return Vec::new();
        }
        let mut bytes = vec![0; most.min(self.out.len())];
        copy_out(&mut self.out, &mut bytes);
        if self.nospace && self.is_writable() && !bytes.is_empty() {
            self.nospace = false;
            self.edge = true;
        }
        bytes
    }

    /// What the far end knows of ours, once it has read everything before it.
    pub fn far_end(&mut self) -> Option<End> {
        if self.told_reset {
            return Some(End::Reset);
        }
        if self.state != State::Open || !self.shut || !self.out.is_empty() {
            return None;
        }
        if !self.fin_acknowledged {
            self.fin_acknowledged = true;
            self.edge = true;
        }
        Some(End::Fin)
    }
}
