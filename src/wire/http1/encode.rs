//! Prints the chunked coding (RFC 9112, section 7.1): a [`ChunkHead`], the data, [`CHUNK_END`]; at last
//! [`LAST_CHUNK`].

use std::io::Write as _;
use std::num::NonZeroUsize;

/// Follows the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Ends a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What goes before the data of a chunk: its size and CRLF.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    bytes: [u8; ChunkHead::MOST],
    from: u8,
}

impl ChunkHead {
    const MOST: usize = usize::BITS as usize / 4 + 2;

    /// For a chunk of `size` bytes of data; none may be empty, since that one would be the last.
    pub fn new(size: NonZeroUsize) -> ChunkHead {
        let mut bytes = [0; ChunkHead::MOST];
        let mut from = ChunkHead::MOST - 2;
        bytes[from..].copy_from_slice(b"\r\n");
        let mut left = size.get();
        while left > 0 {
            from -= 1;
            bytes[from] = b"0123456789abcdef"[left % 16];
            left /= 16;
        }
        ChunkHead { bytes, from: from as u8 }
    }

    /// As it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.from)..]
    }
}

/// Ends a body with `trailers`, which are lines as [`super::BodyDecoder::trailers`] gives them.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

/// A line of a head.
pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// As [`field`] with a value that is to be printed.
pub(super) fn printed(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    append(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Prints at the end.
pub(super) fn append(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // A Vec takes everything.
    let _ = write!(out, "{value}");
}
