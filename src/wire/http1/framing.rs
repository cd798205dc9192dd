//! Where a body ends: `Content-Length` and `Transfer-Encoding`, read without any guess (RFC 9112, section 6).

use super::Bad;
use super::fields::{Fields, Kind, is_token, list};

/// What the framing fields of one head say, each on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Framing {
    /// From the one `Content-Length`.
    pub(super) length: Option<u64>,
    /// From the one `Transfer-Encoding`.
    pub(super) coding: Option<Coding>,
}

/// What a `Transfer-Encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// `chunked` and nothing else.
    Chunked,
    /// Something else, then `chunked`.
    AndChunked,
    /// `identity` alone, which RFC 7230 took away.
    Identity,
    /// Ends in something else.
    Unknown,
}

impl Framing {
    /// Reads the fields. A field that comes twice is refused, even with one value: whoever put both there, somebody
    /// on the way reads the other one.
    pub(super) fn of(fields: &Fields<'_>) -> Result<Framing, Bad> {
        let mut framing = Framing::default();
        if !fields.has(Kind::ContentLength) && !fields.has(Kind::TransferEncoding) {
            return Ok(framing);
        }
        for (kind, _, value) in fields.kinds() {
            match kind {
                Kind::ContentLength if framing.length.is_some() => {
                    return Err(Bad::request("there are two Content-Length fields"));
                }
                Kind::ContentLength => framing.length = Some(length(value)?),
                Kind::TransferEncoding if framing.coding.is_some() => {
                    return Err(Bad::request("there are two Transfer-Encoding fields"));
                }
                Kind::TransferEncoding => framing.coding = Some(coding(value)?),
                _ => {}
            }
        }
        Ok(framing)
    }
}

/// Decimal digits and nothing else; leading zeros are still decimal.
fn length(value: &[u8]) -> Result<u64, Bad> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    match digits.then(|| value.iter().try_fold(0, add)).flatten() {
        Some(length) => Ok(length),
        None => Err(Bad::request("Content-Length is not a number")),
    }
}

fn coding(value: &[u8]) -> Result<Coding, Bad> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let is_identity = |coding: &[u8]| coding.eq_ignore_ascii_case(b"identity");
    if is_chunked(value) {
        return Ok(Coding::Chunked);
    }
    if is_identity(value) {
        return Ok(Coding::Identity);
    }
    let mut codings = list(value).peekable();
    let mut last = Coding::Unknown;
    while let Some(coding) = codings.next() {
        let is_last = codings.peek().is_none();
        if !is_token(coding) || is_identity(coding) || (is_chunked(coding) && !is_last) {
            return Err(Bad::request("Transfer-Encoding is malformed"));
        }
        if is_last && is_chunked(coding) {
            last = Coding::AndChunked;
        }
    }
    Ok(last)
}
