//! The fields behind a chunked body. Those that would change how a message is framed, routed, authorised or read
//! are dropped (RFC 9110, section 6.5.1); none is ever merged into the header.

use memchr::memchr;

use super::fields::{Kind, is_token, trim};
use super::{Bad, Limits, MAX_FIELDS};

const TOO_LARGE: Bad = Bad { status: 431, why: "the trailers are too large" };
const BAD_LINE: Bad = Bad::request("a trailer is malformed");

/// Dropped, besides every [`Kind`] that a proxy knows, and what begins with [`FORBIDDEN_STARTS`].
const FORBIDDEN: [&str; 17] = [
    "age",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "date",
    "early-data",
    "expires",
    "location",
    "max-forwards",
    "pragma",
    "range",
    "retry-after",
    "set-cookie",
    "vary",
    "warning",
    "www-authenticate",
];
const FORBIDDEN_STARTS: [&str; 2] = ["if-", "proxy-"];

/// The trailers of one body, as far as they have been read.
#[derive(Debug, Default)]
pub(super) struct Trailers {
    /// The line that is not complete yet.
    line: Vec<u8>,
    kept: Vec<u8>,
    /// Of all lines.
    bytes: usize,
    lines: usize,
}

impl Trailers {
    /// The lines that may be forwarded, each ending in CRLF.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Reads up to the end of the line; whether it has come.
    pub(super) fn line(&mut self, bytes: &mut &[u8], limits: &Limits) -> Result<bool, Bad> {
        let end = memchr(b'\n', bytes).map(|lf| lf + 1);
        let (now, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        self.bytes += now.len();
        if self.bytes > limits.head {
            return Err(TOO_LARGE);
        }
        self.line.extend_from_slice(now);
        *bytes = rest;
        if end.is_none() {
            return Ok(false);
        }
        if self.lines == limits.fields.min(MAX_FIELDS) {
            return Err(TOO_LARGE);
        }
        self.lines += 1;
        let line = self.line.strip_suffix(b"\r\n").ok_or(BAD_LINE)?;
        let colon = memchr(b':', line).ok_or(BAD_LINE)?;
        let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
        if !is_token(name) || !value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) {
            return Err(BAD_LINE);
        }
        if may_pass(name) {
            self.kept.extend_from_slice(name);
            self.kept.extend_from_slice(b": ");
            self.kept.extend_from_slice(value);
            self.kept.extend_from_slice(b"\r\n");
        }
        self.line.clear();
        Ok(true)
    }
}

fn may_pass(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let begins = |start: &&str| name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    Kind::of(name) == Kind::Other
        && !FORBIDDEN.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(name))
        && !FORBIDDEN_STARTS.iter().any(begins)
}
