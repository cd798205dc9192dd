//! Finds the end of a head, looking at each byte once however slowly the bytes come.
//!
//! It also holds what can be told line by line: sizes, counts, and that every line ends in CRLF (RFC 9112, section
//! 2.2), which httparse does not ask for. Errors come in the order of the bytes, so how the bytes were split over
//! reads changes no answer.

use memchr::memchr;

use super::{Bad, Limits, MAX_FIELDS};

/// Empty lines that a client may send before a request line (RFC 9112, section 2.2, says "at least one").
const MAX_EMPTY_LINES: u8 = 4;

const TOO_LONG_LINE: Bad = Bad { status: 414, why: "the start line is too long" };
const TOO_LARGE: Bad = Bad { status: 431, why: "the header section is too large" };
const TOO_MANY: Bad = Bad { status: 431, why: "there are too many header fields" };
const BARE_LF: Bad = Bad::request("a line does not end in CRLF");

/// How far the search for the end of one head has come. Begin each head with a new one.
///
/// Between two calls with the same scan the bytes may only have grown at their end.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Bytes looked at.
    at: usize,
    /// Where the line that is not complete yet begins.
    line: usize,
    /// Empty lines before the start line.
    empty: u8,
    /// Complete lines since, the start line among them.
    lines: usize,
}

impl HeadScan {
    /// Whether a byte of a request has been seen; empty lines before it are none. Tells a silent connection from a
    /// slow client.
    pub fn has_begun(&self) -> bool {
        self.lines > 0 || self.at > self.line
    }

    /// The length of the head that `bytes` begin with, empty lines before it included, or `None` while its end is
    /// missing.
    ///
    /// # Errors
    /// 414 or 431 past `limits`; 400 for a line that does not end in CRLF, for more than four empty lines before the
    /// request line, and for a first byte that begins no method.
    pub fn request(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Bad> {
        self.find(bytes, limits, MAX_EMPTY_LINES)
    }

    /// As [`HeadScan::request`] for a response, before which no empty line is allowed.
    ///
    /// # Errors
    /// The same; the status has no meaning then.
    pub fn response(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Bad> {
        self.find(bytes, limits, 0)
    }

    fn find(&mut self, bytes: &[u8], limits: &Limits, empty_lines: u8) -> Result<Option<usize>, Bad> {
        let most_lines = 1 + limits.fields.min(MAX_FIELDS);
        while let Some(found) = memchr(b'\n', bytes.get(self.at..).unwrap_or_default()) {
            let lf = self.at + found;
            let line = self.line;
            self.first_byte(bytes)?;
            if lf >= limits.head {
                return Err(self.too_large());
            }
            if lf == line || bytes[lf - 1] != b'\r' {
                return Err(BARE_LF);
            }
            self.at = lf + 1;
            self.line = lf + 1;
            if lf - line > 1 {
                if self.lines == most_lines {
                    return Err(TOO_MANY);
                }
                self.lines += 1;
            } else if self.lines > 0 {
                return Ok(Some(lf + 1));
            } else {
                if self.empty == empty_lines {
                    return Err(Bad::request("there are empty lines before the start line"));
                }
                self.empty += 1;
            }
        }
        self.first_byte(bytes)?;
        self.at = bytes.len();
        if bytes.len() >= limits.head { Err(self.too_large()) } else { Ok(None) }
    }

    /// Somebody who does not speak HTTP (a TLS hello, say) need not be waited for.
    fn first_byte(&self, bytes: &[u8]) -> Result<(), Bad> {
        match bytes.get(self.line) {
            Some(byte) if self.lines == 0 && !matches!(byte, b'\r' | b'\n' | 0x21..=0x7e) => {
                Err(Bad::request("this is not HTTP"))
            }
            _ => Ok(()),
        }
    }

    fn too_large(&self) -> Bad {
        if self.lines == 0 { TOO_LONG_LINE } else { TOO_LARGE }
    }
}
