//! The datagrams of the UDP scenarios: each carries its flow and a number of its own, so that one that is altered,
//! merged, delivered to another flow, doubled or overtaken does not pass for an answer. Pure: bytes in, verdicts out, so
//! that `tests/bench_figures.rs` can include this file and hold it to examples.

/// Bytes of a datagram.
pub(crate) const SIZE: usize = 64;
/// What stands behind number (8 bytes) and flow (4 bytes).
const FILLING: [u8; SIZE - 12] = *b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP";

/// Writes a datagram into `to`, which holds [`SIZE`] bytes.
pub(crate) fn write(to: &mut [u8], flow: u32, number: u64) {
    to[..8].copy_from_slice(&number.to_be_bytes());
    to[8..12].copy_from_slice(&flow.to_be_bytes());
    to[12..SIZE].copy_from_slice(&FILLING);
}

/// The number of a datagram that came back on `flow`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn number(bytes: &[u8], flow: u32) -> Result<u64, String> {
    let [a, b, c, d, e, f, g, h, filling @ ..] = bytes else {
        return Err(format!("a datagram of {} bytes came back", bytes.len()));
    };
    if filling.len() != SIZE - 8 {
        return Err(format!("a datagram of {} bytes came back, not of {SIZE}", bytes.len()));
    }
    if filling[..4] != flow.to_be_bytes() {
        return Err("a datagram came back on another flow, or altered".to_owned());
    }
    if filling[4..] != FILLING {
        return Err("a datagram came back altered".to_owned());
    }
    Ok(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
}

/// What an answer means for its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// One that was waited for.
    Awaited,
    /// To a datagram that was given up already.
    Late,
}

/// Which numbers a flow waits for: those from `next` to before `end`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Track {
    /// Of what was sent before this number, something was given up.
    given_up: u64,
    next: u64,
    end: u64,
}

impl Track {
    /// The numbers from `begin` to before `end` are sent; what is still waited for is given up.
    pub(crate) fn begin(&mut self, begin: u64, end: u64) {
        let given_up = if self.done() { self.given_up } else { begin };
        *self = Self { given_up, next: begin, end };
    }

    /// `number` is sent as well, and nothing is given up.
    pub(crate) fn extend(&mut self, number: u64) {
        self.end = number + 1;
    }

    /// An answer came. Those between the last one and this one are lost: a flow keeps its order.
    ///
    /// # Errors
    /// When there should be no such answer.
    pub(crate) fn hear(&mut self, number: u64) -> Result<Heard, String> {
        if number >= self.end {
            return Err("a datagram came back that was not sent".to_owned());
        }
        if number < self.given_up {
            return Ok(Heard::Late);
        }
        if number < self.next {
            return Err("a datagram came back twice, or behind a later one".to_owned());
        }
        self.next = number + 1;
        Ok(Heard::Awaited)
    }

    /// Nothing is waited for.
    pub(crate) fn done(&self) -> bool {
        self.next == self.end
    }
}
