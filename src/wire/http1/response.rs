//! Reads the head of a response.

use super::fields::{Fields, Kind, Options};
use super::framing::{Coding, Framing};
use super::request::protocol_of;
use super::{Bad, Body, HeadScan, Limits, Storage, Version};

/// What was asked: a response cannot be read without it (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The method was `HEAD`.
    pub head: bool,
    /// The protocol we asked to change to.
    pub upgrade: Option<&'a str>,
}

/// Why what a backend sent is not a response: 502, evidence against the backend, and its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct BadResponse {
    /// One clause for the log; never for the client.
    pub why: &'static str,
}

impl BadResponse {
    const fn new(why: &'static str) -> BadResponse {
        BadResponse { why }
    }
}

impl From<Bad> for BadResponse {
    fn from(bad: Bad) -> BadResponse {
        BadResponse { why: bad.why }
    }
}

/// The head of a response. It borrows the bytes it was parsed from.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// 100 to 999. One of 100 to 199 but 101 is not the last response to its request.
    pub status: u16,
    /// As sent; any byte but controls, and may be empty.
    pub reason: &'a [u8],
    /// What the backend speaks.
    pub version: Version,
    /// All fields, as received.
    pub fields: Fields<'a>,
    /// What follows the head.
    pub body: Body,
    /// What `Content-Length` says, also where no body follows (`HEAD`, 304); `None` where it has no meaning.
    pub length: Option<u64>,
    /// Whether this connection may carry another request once the body has ended.
    pub keep_alive: bool,
    /// The protocol that is spoken from here on. With 101 only, and then always.
    pub upgrade: Option<&'a str>,
    pub(super) nominates: bool,
}

/// Reads the head that `bytes` begin with, and says how long it is; `None` while its end is missing. An interim
/// response (100, 103) is one like any other.
///
/// `scan` as in [`super::parse_request`].
///
/// # Errors
/// It is no response to what was asked, or where it ends is not certain.
pub fn parse_response<'a, 'b: 'a>(
    bytes: &'b [u8],
    asked: &Asked<'_>,
    scan: &mut HeadScan,
    limits: &Limits,
    storage: &'a mut Storage<'b>,
) -> Result<Option<(Response<'a>, usize)>, BadResponse> {
    let Some(length) = scan.response(bytes, limits)? else { return Ok(None) };
    let head = &bytes[..length];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parts = match config.parse_response_with_uninit_headers(&mut parsed, head, &mut storage.headers) {
        Ok(httparse::Status::Complete(used)) if used == length => (parsed.code, parsed.version),
        Ok(_) => return Err(BadResponse::new("the head is malformed")),
        Err(httparse::Error::HeaderName) => return Err(BadResponse::new("a field name is malformed")),
        Err(httparse::Error::HeaderValue) => return Err(BadResponse::new("a field value is malformed")),
        Err(httparse::Error::Version) => return Err(BadResponse::new("it does not begin with HTTP/1.0 or HTTP/1.1")),
        Err(_) => return Err(BadResponse::new("the status line is malformed")),
    };
    let (Some(status @ 100..), Some(minor)) = parts else {
        return Err(BadResponse::new("the status is not one"));
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let fields = Fields::new(parsed.headers, &mut storage.kinds);
    response(status, reason_of(head), version, fields, asked).map(|response| Some((response, length)))
}

/// What follows the status in a status line that has been parsed: `HTTP/1.1 200 OK`.
fn reason_of(head: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'\r', head).unwrap_or(head.len());
    head.get(13..end).unwrap_or_default()
}

fn response<'a>(
    status: u16,
    reason: &'a [u8],
    version: Version,
    fields: Fields<'a>,
    asked: &Asked<'_>,
) -> Result<Response<'a>, BadResponse> {
    let framing = Framing::of(&fields)?;
    // A Connection field that cannot be read loses us the connection, not the response.
    let options = Options::of(&fields).unwrap_or(Options { close: true, nominates: true, ..Options::default() });
    let Framed { body, length, certain } = framed(status, version, framing, asked.head)?;
    let lasts = match version {
        Version::Http10 => options.keep_alive,
        Version::Http11 => true,
    };
    Ok(Response {
        status,
        reason,
        version,
        fields,
        body,
        length,
        keep_alive: lasts && !options.close && certain && body != Body::ToClose,
        upgrade: if status == 101 { Some(switched(&fields, &options, asked)?) } else { None },
        nominates: options.nominates,
    })
}

struct Framed {
    body: Body,
    length: Option<u64>,
    /// Whether nobody could see the end elsewhere.
    certain: bool,
}

fn framed(status: u16, version: Version, framing: Framing, head: bool) -> Result<Framed, BadResponse> {
    let Framing { length, coding } = framing;
    if coding.is_some() && version == Version::Http10 {
        return Err(BadResponse::new("HTTP/1.0 has no Transfer-Encoding"));
    }
    if matches!(status, 100..=199 | 204) {
        let certain = coding.is_none() && matches!(length, None | Some(0));
        return Ok(Framed { body: Body::None, length: None, certain });
    }
    if head || status == 304 {
        let certain = coding.is_none() || length.is_none();
        return Ok(Framed { body: Body::None, length: length.filter(|_| coding.is_none()), certain });
    }
    match coding {
        Some(Coding::Chunked) => Ok(Framed { body: Body::Chunked, length: None, certain: length.is_none() }),
        Some(Coding::Identity) => Ok(Framed { body: Body::ToClose, length: None, certain: false }),
        // We ask for none but trailers, and the client could not undo it: the label does not pass through us.
        Some(_) => Err(BadResponse::new("it has a transfer coding that nobody asked for")),
        None => Ok(Framed { body: length.map_or(Body::ToClose, Body::Length), length, certain: true }),
    }
}

fn switched<'a>(fields: &Fields<'a>, options: &Options, asked: &Asked<'_>) -> Result<&'a str, BadResponse> {
    let Some(wanted) = asked.upgrade else {
        return Err(BadResponse::new("it changes the protocol, and nobody asked for that"));
    };
    let mut upgrades = fields.of(Kind::Upgrade);
    let protocol = upgrades.next().and_then(protocol_of).filter(|_| upgrades.next().is_none());
    match protocol {
        Some(protocol) if options.upgrade && protocol.eq_ignore_ascii_case(wanted) => Ok(protocol),
        _ => Err(BadResponse::new("it changes to a protocol that was not asked for")),
    }
}
