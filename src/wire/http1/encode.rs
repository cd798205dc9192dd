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

/// As [`field`] with a number.
pub(super) fn number_field(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    number(out, value);
    out.extend_from_slice(b"\r\n");
}

/// In decimal digits. By hand, as each response has two and `fmt` takes several times as long.
pub(super) fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20]; // u64::MAX has that many
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

/// The beginning of a response: `HTTP/1.1 200 `. A status has three digits (RFC 9112, section 4).
pub(super) fn status(out: &mut Vec<u8>, status: u16) {
    let digit = |of: u16| b'0' + (of % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
}

/// Prints at the end.
pub(super) fn append(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // A Vec takes everything.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_fmt_does() {
        for value in [0, 1, 9, 10, 99, 100, 255, 1024, 1 << 20, u64::MAX - 9, u64::MAX] {
            let mut out = b"<".to_vec();
            number(&mut out, value);
            assert_eq!(String::from_utf8_lossy(&out), format!("<{value}"));
        }
        for code in [0, 99, 100, 204, 599, 999] {
            let mut out = Vec::new();
            status(&mut out, code);
            assert_eq!(String::from_utf8_lossy(&out), format!("HTTP/1.1 {code:03} "));
        }
    }
}
