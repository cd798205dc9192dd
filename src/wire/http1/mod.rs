//! HTTP/1.0 and HTTP/1.1 for a proxy (RFC 9110, RFC 9112), sans-I/O, on httparse.
//!
//! A head is parsed once and strictly; the message that goes on is built anew from the parsed form, so no framing is
//! ever forwarded as received. What is not understood for certain is a [`Bad`]: answer it and close.
//!
//! Read [`parse_request`] and [`write_request`] first; [`BodyDecoder`] is what comes between them and the next head.
//! `scan` finds the end of a head, `fields`, `framing`, `host` and `target` say what is in it, `body`, `chunk` and
//! `trailers` read what follows, `write`, `answer` and `encode` print. `path` makes the copy that routes are
//! matched against.

mod answer;
mod body;
mod chunk;
mod encode;
mod fields;
mod framing;
mod host;
mod path;
mod request;
mod response;
mod scan;
mod target;
mod trailers;
mod write;

#[cfg(test)]
mod tests;

pub use answer::{Failure, Own, phrase, write_error, write_own};
pub use body::{BodyDecoder, Piece};
pub use encode::{CHUNK_END, ChunkHead, LAST_CHUNK, write_last_chunk};
pub use fields::{Fields, MAX_FIELDS, Storage, via_count};
pub use path::normalise_path;
pub use request::{Request, parse_request};
pub use response::{Asked, BadResponse, Response, parse_response};
pub use scan::HeadScan;
pub use target::{Form, Target};
pub use write::{Answer, Forward, write_request, write_response};

/// A version that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How the end of a body is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none: the message ends with its head.
    None,
    /// So many bytes; 0 when the sender said 0.
    Length(u64),
    /// In chunks, the last one empty.
    Chunked,
    /// All that comes until the connection ends. Responses only.
    ToClose,
}

impl Body {
    /// Whether no byte of content follows the head.
    pub fn is_empty(self) -> bool {
        matches!(self, Body::None | Body::Length(0))
    }
}

/// What a head, and the trailers of a body, may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes from the first of the start line to the last of the empty line (`max_header_size`).
    pub head: usize,
    /// Field lines; more than [`MAX_FIELDS`] means that.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { head: 16 * 1024, fields: MAX_FIELDS }
    }
}

/// Why a message from a client is refused. The connection is to be closed after the answer: where the next request
/// would begin is not certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {why}")]
pub struct Bad {
    /// What to answer: 400, 413, 414, 417, 421, 431, 501 or 505.
    pub status: u16,
    /// One clause for the person who wrote the client.
    pub why: &'static str,
}

impl Bad {
    /// 400 with a reason.
    const fn request(why: &'static str) -> Bad {
        Bad { status: 400, why }
    }
}

/// The name that we go by in `Via`, and know a loop by.
pub const NAME: &str = "l4lb";
