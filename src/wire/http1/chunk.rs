//! The chunked coding, byte by byte where there is framing and slice by slice where there is data (RFC 9112,
//! section 7.1). Lines end in CRLF and in nothing else; extensions are checked and dropped.

use super::fields::is_tchar;
use super::trailers::Trailers;
use super::{Bad, Limits};

/// The largest chunk: what everybody's numbers can hold, doubles included.
const MAX_CHUNK: u64 = 1 << 52;
/// Digits of a size, leading zeros among them.
const MAX_DIGITS: u8 = 16;
/// Bytes of extensions in one body.
const MAX_EXTENSIONS: u16 = 1024;

const BAD_SIZE: Bad = Bad::request("a chunk does not begin with its size");
const BAD_EXTENSION: Bad = Bad::request("a chunk extension is malformed");
const BAD_LINE: Bad = Bad::request("a chunk line does not end in CRLF");
const BAD_END: Bad = Bad::request("a chunk is not as long as it says");

/// Where the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        at: Extension,
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// The first byte of a line behind the last chunk.
    Line,
    Trailer,
    EndLf,
    End,
}

/// Where in `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
    QuoteEnd,
    AfterValue,
}

/// One body in chunks, as far as it has been read.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    extensions: u16,
    trailers: Option<Box<Trailers>>,
    limits: Limits,
}

/// What the next bytes are.
pub(super) enum Part<'b> {
    /// A chunk of this size begins.
    Size(u64),
    Data(&'b [u8]),
    End,
    More,
}

const SIZE: At = At::Size { digits: 0, size: 0 };

impl Chunks {
    pub(super) fn new(limits: &Limits) -> Chunks {
        Chunks { at: SIZE, extensions: 0, trailers: None, limits: *limits }
    }

    /// See [`super::BodyDecoder::trailers`].
    pub(super) fn trailers(&self) -> &[u8] {
        self.trailers.as_ref().map_or(&[], |trailers| trailers.kept())
    }

    pub(super) fn is_end(&self) -> bool {
        self.at == At::End
    }

    /// Content that is left in the chunk.
    pub(super) fn left(&self) -> u64 {
        if let At::Data { left } = self.at { left } else { 0 }
    }

    /// Counts content that went another way, at most [`Chunks::left`].
    pub(super) fn advance(&mut self, bytes: u64) {
        if let At::Data { left } = &mut self.at {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.at = At::DataCr;
            }
        }
    }

    pub(super) fn next<'b>(&mut self, bytes: &mut &'b [u8]) -> Result<Part<'b>, Bad> {
        loop {
            match self.at {
                At::End => return Ok(Part::End),
                At::Data { left } if !bytes.is_empty() => {
                    let size = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let (data, rest) = bytes.split_at(size);
                    *bytes = rest;
                    self.advance(size as u64);
                    return Ok(Part::Data(data));
                }
                At::Trailer => {
                    let Some(trailers) = &mut self.trailers else { return Err(BAD_LINE) };
                    if !trailers.line(bytes, &self.limits)? {
                        return Ok(Part::More);
                    }
                    self.at = At::Line;
                }
                _ => {
                    let Some((&byte, rest)) = bytes.split_first() else { return Ok(Part::More) };
                    let was = self.at;
                    self.at = self.step(byte)?;
                    if self.at == At::Trailer {
                        // The byte belongs to the line.
                        self.trailers.get_or_insert_default();
                        continue;
                    }
                    *bytes = rest;
                    if let (At::SizeLf { size: size @ 1.. }, At::Data { .. }) = (was, self.at) {
                        return Ok(Part::Size(size));
                    }
                }
            }
        }
    }

    fn step(&mut self, byte: u8) -> Result<At, Bad> {
        match (self.at, byte) {
            (At::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                let size = size * 16 + u64::from(digit);
                if digits == MAX_DIGITS || size > MAX_CHUNK {
                    return Err(Bad::request("a chunk is larger than any can be"));
                }
                Ok(At::Size { digits: digits + 1, size })
            }
            (At::Size { digits: 1.., size }, b'\r') => Ok(At::SizeLf { size }),
            (At::Size { digits: 1.., size }, b';') => self.extension(Extension::BeforeName, size),
            (At::Size { .. }, _) => Err(BAD_SIZE),
            (At::Extension { at, size }, b'\r') => match at {
                Extension::Name | Extension::Value | Extension::QuoteEnd => Ok(At::SizeLf { size }),
                _ => Err(BAD_EXTENSION),
            },
            (At::Extension { at, size }, _) => {
                let next = extension(at, byte).ok_or(BAD_EXTENSION)?;
                self.extension(next, size)
            }
            (At::SizeLf { size: 0 }, b'\n') => Ok(At::Line),
            (At::SizeLf { size }, b'\n') => Ok(At::Data { left: size }),
            (At::SizeLf { .. }, _) => Err(BAD_LINE),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(SIZE),
            (At::DataCr | At::DataLf, _) => Err(BAD_END),
            (At::Line, b'\r') => Ok(At::EndLf),
            (At::EndLf, b'\n') => Ok(At::End),
            (At::EndLf, _) => Err(BAD_LINE),
            (At::Line, _) => Ok(At::Trailer),
            (at @ (At::Data { .. } | At::Trailer | At::End), _) => Ok(at),
        }
    }

    fn extension(&mut self, at: Extension, size: u64) -> Result<At, Bad> {
        if self.extensions == MAX_EXTENSIONS {
            return Err(Bad { status: 413, why: "there are too many chunk extensions" });
        }
        self.extensions += 1;
        Ok(At::Extension { at, size })
    }
}

fn extension(at: Extension, byte: u8) -> Option<Extension> {
    use Extension::*;
    match (at, byte) {
        (BeforeName | AfterName | BeforeValue | AfterValue, b' ' | b'\t') => Some(at),
        (Name, b' ' | b'\t') => Some(AfterName),
        (Value | QuoteEnd, b' ' | b'\t') => Some(AfterValue),
        (Name | AfterName, b'=') => Some(BeforeValue),
        (Name | AfterName | Value | QuoteEnd | AfterValue, b';') => Some(BeforeName),
        (BeforeName | Name, _) if is_tchar(byte) => Some(Name),
        (BeforeValue | Value, _) if is_tchar(byte) => Some(Value),
        (BeforeValue, b'"') => Some(Quoted),
        (Quoted, b'"') => Some(QuoteEnd),
        (Quoted, b'\\') => Some(Escaped),
        (Quoted | Escaped, b'\t' | b' '..=b'~' | 0x80..) => Some(Quoted),
        _ => None,
    }
}
