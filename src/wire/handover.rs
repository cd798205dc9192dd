//! What a process says to the one that takes its place: a preamble, then frames. Bytes in, frames out; no sockets here.
//!
//! The preamble is a magic word, the version that is spoken and the oldest that is understood. A frame is a kind (2 bytes),
//! how many descriptors belong to it (2), the length of its payload (4), and the payload; numbers are big-endian. A kind
//! that is not known is passed over by its reader, descriptors and all: so a version may add kinds without a new number.

use std::fmt;

/// The first bytes of either side.
pub const MAGIC: [u8; 8] = *b"l4lb\xff\r\n\0";
/// The version that is spoken here.
pub const VERSION: u16 = 1;
/// The oldest version that is understood here.
pub const OLDEST: u16 = 1;
/// The most descriptors of one frame: as many as one message over a UNIX socket takes (`SCM_MAX_FD`, unix(7)).
pub const MOST_DESCRIPTORS: usize = 253;
/// The longest payload, in bytes: some hundred times what ten thousand backends come to.
pub const MOST_PAYLOAD: usize = 256 << 20;

const PREAMBLE: usize = 12;
const HEAD: usize = 8;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: u16,
    /// How many of the descriptors that came with the bytes belong to it, in order.
    pub descriptors: usize,
    /// The rest.
    pub payload: Vec<u8>,
}

/// Why the bytes cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// They are not of a hand-over.
    Magic,
    /// The other side speaks no version that this one understands: it speaks this one.
    Version(u16),
    /// A frame has more descriptors than one can have.
    Descriptors(usize),
    /// A frame is longer than one may be.
    TooLong(usize),
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bad::Magic => write!(f, "what comes is no hand-over"),
            Bad::Version(theirs) => {
                write!(
                    f,
                    "the hand-over is of version {theirs}, and {OLDEST} to {VERSION} are understood; restart instead"
                )
            }
            Bad::Descriptors(count) => write!(f, "a frame has {count} descriptors, more than {MOST_DESCRIPTORS}"),
            Bad::TooLong(len) => write!(f, "a frame has {len} bytes, more than {MOST_PAYLOAD}"),
        }
    }
}

/// What either side says first.
pub fn preamble() -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
    bytes[10..].copy_from_slice(&OLDEST.to_be_bytes());
    bytes
}

/// Writes a frame behind `out`.
///
/// # Panics
/// With more descriptors or bytes than a frame may have, which whoever calls sees to.
pub fn write(out: &mut Vec<u8>, kind: u16, descriptors: usize, payload: &[u8]) {
    assert!(descriptors <= MOST_DESCRIPTORS && payload.len() <= MOST_PAYLOAD, "a frame that nobody would take");
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(descriptors as u16).to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
}

/// Takes bytes as they come, and gives frames.
#[derive(Debug, Default)]
pub struct Reader {
    held: Vec<u8>,
    /// How many of them were given already.
    used: usize,
    greeted: bool,
}

impl Reader {
    /// Takes what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.held.drain(..self.used);
            self.used = 0;
        }
        self.held.extend_from_slice(bytes);
    }

    /// True while a frame, or the preamble, has come in part.
    pub fn is_within(&self) -> bool {
        self.used < self.held.len()
    }

    /// The next frame; `None` until it is whole.
    ///
    /// # Errors
    /// The bytes are not to be understood, and what follows them neither.
    pub fn frame(&mut self) -> Result<Option<Frame>, Bad> {
        if !self.greeted && !self.greet()? {
            return Ok(None);
        }
        let held = &self.held[self.used..];
        let Some((head, rest)) = held.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [k0, k1, d0, d1, length @ ..] = *head;
        let descriptors = usize::from(u16::from_be_bytes([d0, d1]));
        let length = u32::from_be_bytes(length) as usize;
        if descriptors > MOST_DESCRIPTORS {
            return Err(Bad::Descriptors(descriptors));
        }
        if length > MOST_PAYLOAD {
            return Err(Bad::TooLong(length));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Frame { kind: u16::from_be_bytes([k0, k1]), descriptors, payload: payload.to_vec() };
        self.used += HEAD + length;
        Ok(Some(frame))
    }

    /// Reads the preamble; false until it is whole.
    fn greet(&mut self) -> Result<bool, Bad> {
        let some = self.held.len().min(MAGIC.len());
        if self.held[..some] != MAGIC[..some] {
            return Err(Bad::Magic);
        }
        let Some(versions) = self.held.get(8..PREAMBLE) else { return Ok(false) };
        let spoken = u16::from_be_bytes([versions[0], versions[1]]);
        let oldest = u16::from_be_bytes([versions[2], versions[3]]);
        if spoken < OLDEST || oldest > VERSION {
            return Err(Bad::Version(spoken));
        }
        (self.greeted, self.used) = (true, PREAMBLE);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(pieces: &[&[u8]]) -> Result<Vec<Frame>, Bad> {
        let (mut reader, mut all) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.push(piece);
            while let Some(frame) = reader.frame()? {
                all.push(frame);
            }
        }
        Ok(all)
    }

    #[test]
    fn what_is_no_hand_over_is_refused_and_a_version_beyond_ours_too() {
        let with = |spoken: u16, oldest: u16| {
            let mut bytes = preamble().to_vec();
            bytes[8..10].copy_from_slice(&spoken.to_be_bytes());
            bytes[10..12].copy_from_slice(&oldest.to_be_bytes());
            bytes
        };
        let head = |descriptors: u16, length: u32| {
            let mut bytes = preamble().to_vec();
            bytes.extend([0, 1]);
            bytes.extend(descriptors.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes
        };
        let cases = [
            ("ours", preamble().to_vec(), Ok(0)),
            ("a later one that still knows ours", with(VERSION + 7, VERSION), Ok(0)),
            ("a later one that does not", with(VERSION + 7, VERSION + 1), Err(Bad::Version(VERSION + 7))),
            ("from before there were any", with(OLDEST - 1, 0), Err(Bad::Version(OLDEST - 1))),
            ("the first byte is wrong already", b"G".to_vec(), Err(Bad::Magic)),
            ("the last of the magic is", b"l4lb\xff\r\n1".to_vec(), Err(Bad::Magic)),
            ("a preamble that has come in part", preamble()[..11].to_vec(), Ok(0)),
            ("more descriptors than go", head(254, 0), Err(Bad::Descriptors(254))),
            ("as many as go", head(253, 0), Ok(1)),
            ("a length that nobody means", head(0, u32::MAX), Err(Bad::TooLong(u32::MAX as usize))),
        ];
        for (why, bytes, expected) in cases {
            assert_eq!(frames(&[&bytes]).map(|frames| frames.len()), expected, "{why}");
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            sent in prop::collection::vec((any::<u16>(), 0..=MOST_DESCRIPTORS, prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            cut in 1..40_usize,
        ) {
            let mut bytes = preamble().to_vec();
            let sent: Vec<Frame> =
                sent.into_iter().map(|(kind, descriptors, payload)| Frame { kind, descriptors, payload }).collect();
            sent.iter().for_each(|frame| write(&mut bytes, frame.kind, frame.descriptors, &frame.payload));
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(frames(&pieces), Ok(sent));
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), greet in any::<bool>()) {
            let greeting = if greet { preamble().to_vec() } else { Vec::new() };
            let _ = frames(&[&greeting, &bytes]);
        }
    }
}
