//! Reads a body: what is content, and where it ends.

use super::chunk::{Chunks, Part};
use super::{Bad, Body, Limits};

const TOO_LARGE: Bad = Bad { status: 413, why: "the body is too large" };

/// What the next bytes of a message are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// Content, never empty.
    Data(&'b [u8]),
    /// The body has ended; the bytes that are left belong to the next message.
    End,
    /// All bytes are used up, and the body has not ended.
    More,
}

/// Finds the content in the bytes behind a head. It holds no content; it allocates only for trailers.
#[derive(Debug)]
pub struct BodyDecoder {
    at: At,
    /// Content that may still come.
    allowed: u64,
}

#[derive(Debug)]
enum At {
    Length(u64),
    Chunked(Chunks),
    ToClose,
    End,
    /// Longer than allowed, and its head said so.
    TooLarge,
}

impl BodyDecoder {
    /// For a body of which `max` bytes of content are allowed (`max_body_size`; 0 for no limit). `limits` are those
    /// of its trailers.
    pub fn new(body: Body, max: u64, limits: &Limits) -> BodyDecoder {
        let allowed = if max == 0 { u64::MAX } else { max };
        let at = match body {
            Body::None | Body::Length(0) => At::End,
            Body::Length(length) if length > allowed => At::TooLarge,
            Body::Length(length) => At::Length(length),
            Body::Chunked => At::Chunked(Chunks::new(limits)),
            Body::ToClose => At::ToClose,
        };
        BodyDecoder { at, allowed }
    }

    /// Takes the next piece from the front of `bytes`. To be called until it says `End` or `More`.
    ///
    /// # Errors
    /// 400 for bad framing, 413 for more content than allowed (or more than 1 KiB of chunk extensions), 431 for
    /// trailers past the limits. Nothing after an error has a meaning; from a backend it is the end of the connection.
    pub fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Piece<'b>, Bad> {
        match &mut self.at {
            At::End => Ok(Piece::End),
            At::TooLarge => Err(TOO_LARGE),
            At::Length(_) | At::ToClose if bytes.is_empty() => Ok(Piece::More),
            At::Length(left) => {
                let size = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= size as u64;
                if *left == 0 {
                    self.at = At::End;
                }
                Ok(Piece::Data(take(bytes, size)))
            }
            At::ToClose => {
                self.allowed = self.allowed.checked_sub(bytes.len() as u64).ok_or(TOO_LARGE)?;
                let size = bytes.len();
                Ok(Piece::Data(take(bytes, size)))
            }
            At::Chunked(chunks) => loop {
                match chunks.next(bytes)? {
                    Part::Size(size) => self.allowed = self.allowed.checked_sub(size).ok_or(TOO_LARGE)?,
                    Part::Data(data) => return Ok(Piece::Data(data)),
                    Part::End => return Ok(Piece::End),
                    Part::More => return Ok(Piece::More),
                }
            },
        }
    }

    /// The sender's stream has ended cleanly: what a body to the close waits for.
    ///
    /// # Errors
    /// The body is cut short; the receiver must be able to see that (no clean end, no last chunk).
    pub fn ended(&mut self) -> Result<(), Bad> {
        match self.at {
            At::ToClose => self.at = At::End,
            _ if self.is_end() => {}
            _ => return Err(Bad::request("the body is cut short")),
        }
        Ok(())
    }

    /// Whether the body has ended. A chunked body has ended only when [`BodyDecoder::next`] has said so.
    pub fn is_end(&self) -> bool {
        match &self.at {
            At::End => true,
            At::Chunked(chunks) => chunks.is_end(),
            _ => false,
        }
    }

    /// Bytes of content that come next with no framing between them: those may be moved without being looked at,
    /// and told to [`BodyDecoder::advance`]. `u64::MAX` for a body to the close without a limit.
    pub fn run(&self) -> u64 {
        match &self.at {
            At::Length(left) => *left,
            At::Chunked(chunks) => chunks.left(),
            At::ToClose => self.allowed,
            At::End | At::TooLarge => 0,
        }
    }

    /// Counts content that was moved without being looked at; at most [`BodyDecoder::run`].
    pub fn advance(&mut self, bytes: u64) {
        match &mut self.at {
            At::Length(left) => {
                *left = left.saturating_sub(bytes);
                if *left == 0 {
                    self.at = At::End;
                }
            }
            At::Chunked(chunks) => chunks.advance(bytes),
            At::ToClose if self.allowed == u64::MAX => {}
            At::ToClose => self.allowed = self.allowed.saturating_sub(bytes),
            At::End | At::TooLarge => {}
        }
    }

    /// The trailers that may be forwarded, as lines that end in CRLF: complete once [`BodyDecoder::next`] has said
    /// `End`, and made for [`super::write_last_chunk`]. Mostly empty.
    pub fn trailers(&self) -> &[u8] {
        match &self.at {
            At::Chunked(chunks) => chunks.trailers(),
            _ => &[],
        }
    }
}

fn take<'b>(bytes: &mut &'b [u8], size: usize) -> &'b [u8] {
    let (taken, rest) = bytes.split_at(size);
    *bytes = rest;
    taken
}
