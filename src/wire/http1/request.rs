//! Reads the head of a request.

use super::fields::{Fields, Kind, Options, elements, is_token};
use super::framing::{Coding, Framing};
use super::{Bad, Body, HeadScan, Limits, Storage, Target, Version, host};

/// Bytes of a method; RFC 9110 wants 501 for one that is longer than any we would know.
const MAX_METHOD: usize = 32;

/// The head of a request. It borrows the bytes it was parsed from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A token, as sent; methods have a case.
    pub method: &'a str,
    /// What is asked for.
    pub target: Target<'a>,
    /// What the client speaks.
    pub version: Version,
    /// The authority, with the port if there is one: that of an absolute target, else `Host`. Empty only for an
    /// HTTP/1.0 client that told none.
    pub host: &'a str,
    /// All fields, as received.
    pub fields: Fields<'a>,
    /// Never `ToClose`.
    pub body: Body,
    /// Whether the client means to send another request on this connection. Never with HTTP/1.0 (RFC 9112, section
    /// C.2.2).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The protocol the client would like to change to: the first it names that is not HTTP/2.
    pub upgrade: Option<&'a str>,
    /// Whether the client takes trailers (`TE: trailers`).
    pub te_trailers: bool,
    pub(super) nominates: bool,
}

impl<'a> Request<'a> {
    /// [`Request::host`] without the port; an IPv6 address in its brackets. As sent: compare in any case.
    pub fn hostname(&self) -> &'a str {
        host::split(self.host).0
    }
}

/// Reads the head that `bytes` begin with, and says how long it is; `None` while its end is missing.
///
/// `scan` is new for each head and remembers what was searched, so a head that comes byte by byte costs no more than
/// one that comes at once; `bytes` may only grow at their end meanwhile.
///
/// # Errors
/// What to answer before the connection is closed: see [`Bad::status`].
pub fn parse_request<'a, 'b: 'a>(
    bytes: &'b [u8],
    scan: &mut HeadScan,
    limits: &Limits,
    storage: &'a mut Storage<'b>,
) -> Result<Option<(Request<'a>, usize)>, Bad> {
    let Some(length) = scan.request(bytes, limits)? else { return Ok(None) };
    let head = &bytes[..length];
    let mut parsed = httparse::Request::new(&mut []);
    let parts = match parsed.parse_with_uninit_headers(head, &mut storage.headers) {
        Ok(httparse::Status::Complete(used)) if used == length => (parsed.method, parsed.path, parsed.version),
        Ok(_) => return Err(Bad::request("the head is malformed")),
        Err(error) => return Err(refusal(error, head)),
    };
    let (Some(method), Some(target), Some(minor)) = parts else {
        return Err(Bad::request("the request line is malformed"));
    };
    let fields = Fields::new(parsed.headers, &mut storage.kinds);
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    request(method, target, version, fields).map(|request| Some((request, length)))
}

fn request<'a>(method: &'a str, target: &'a str, version: Version, fields: Fields<'a>) -> Result<Request<'a>, Bad> {
    if method.len() > MAX_METHOD {
        return Err(Bad { status: 501, why: "no method is that long" });
    }
    if method == "CONNECT" {
        return Err(Bad { status: 501, why: "CONNECT is not served here" });
    }
    let (target, authority) = Target::parse(method, target)?;
    if fields.has(Kind::Alias) {
        return Err(Bad::request("a field name with an underscore would be taken for another field"));
    }
    let host = host_of(&fields, authority, version)?;
    let body = body_of(method, version, Framing::of(&fields)?)?;
    let options = Options::of(&fields)?;
    let upgrade = upgrade_of(&fields)?.filter(|_| options.upgrade && version == Version::Http11);
    if upgrade.is_some() && !body.is_empty() {
        return Err(Bad::request("a request with a body cannot change the protocol"));
    }
    Ok(Request {
        method,
        target,
        version,
        host,
        fields,
        body,
        keep_alive: version == Version::Http11 && !options.close,
        expects_continue: expects_continue(&fields)? && version == Version::Http11 && !body.is_empty(),
        upgrade,
        te_trailers: version == Version::Http11 && te_trailers(&fields),
        nominates: options.nominates,
    })
}

/// What httparse does not like, as what we answer.
fn refusal(error: httparse::Error, head: &[u8]) -> Bad {
    match error {
        httparse::Error::HeaderName => Bad::request("a field name is malformed"),
        httparse::Error::HeaderValue => Bad::request("a field value has a byte that no value may have"),
        httparse::Error::TooManyHeaders => Bad { status: 431, why: "there are too many header fields" },
        httparse::Error::Version => version_refusal(head),
        _ => Bad::request("the request line is malformed"),
    }
}

/// 505 is for another major version; anything else that is not ours is no HTTP at all (RFC 9110, section 15.6.6).
fn version_refusal(head: &[u8]) -> Bad {
    let line = head.split(|byte| *byte == b'\n').find(|line| !matches!(line, [] | [b'\r'])).unwrap_or_default();
    let version = line.strip_suffix(b"\r").unwrap_or(line).splitn(3, |byte| *byte == b' ').nth(2);
    match version {
        Some([b'H', b'T', b'T', b'P', b'/', major @ b'2'..=b'9', b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Bad { status: 505, why: "only HTTP/1.0 and HTTP/1.1 are spoken here" }
        }
        _ => Bad::request("the request line does not end in HTTP/1.0 or HTTP/1.1"),
    }
}

fn host_of<'a>(fields: &Fields<'a>, authority: Option<&'a str>, version: Version) -> Result<&'a str, Bad> {
    let mut hosts = fields.of(Kind::Host);
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(Bad::request("there are two Host fields"));
    }
    let host = match first {
        Some(value) => Some(host::check(value)?),
        None if version == Version::Http11 => return Err(Bad::request("there is no Host field")),
        None => None,
    };
    match (authority, host) {
        (Some(authority), Some(host)) if !host::same(authority, host) => {
            Err(Bad::request("Host is not the host of the target"))
        }
        (authority, host) => Ok(authority.or(host).unwrap_or_default()),
    }
}

fn body_of(method: &str, version: Version, framing: Framing) -> Result<Body, Bad> {
    match (framing.length, framing.coding) {
        (Some(_), Some(_)) => Err(Bad::request("there are both Content-Length and Transfer-Encoding")),
        (None, Some(_)) if version == Version::Http10 => Err(Bad::request("HTTP/1.0 has no Transfer-Encoding")),
        (None, Some(Coding::Chunked)) => Ok(Body::Chunked),
        (None, Some(Coding::AndChunked)) => Err(Bad { status: 501, why: "a transfer coding is not known here" }),
        (None, Some(_)) => Err(Bad::request("Transfer-Encoding does not end in chunked")),
        (Some(1..), None) if version == Version::Http10 && matches!(method, "GET" | "HEAD" | "DELETE") => {
            Err(Bad::request("an HTTP/1.0 request of this method has no body"))
        }
        (Some(length), None) => Ok(Body::Length(length)),
        (None, None) => Ok(Body::None),
    }
}

/// The first protocol that is offered and is not HTTP/2, which is never reached this way through us.
fn upgrade_of<'a>(fields: &Fields<'a>) -> Result<Option<&'a str>, Bad> {
    let mut first = None;
    for protocol in fields.of(Kind::Upgrade).flat_map(elements) {
        let Some(text) = protocol_of(protocol) else { return Err(Bad::request("Upgrade is malformed")) };
        let is_http2 = text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("h2"));
        if first.is_none() && !is_http2 {
            first = Some(text);
        }
    }
    Ok(first)
}

/// A protocol: a name, and perhaps a version behind a slash (RFC 9110, section 7.8).
pub(super) fn protocol_of(bytes: &[u8]) -> Option<&str> {
    let mut parts = bytes.splitn(2, |byte| *byte == b'/');
    if parts.all(is_token) { std::str::from_utf8(bytes).ok() } else { None }
}

fn expects_continue(fields: &Fields<'_>) -> Result<bool, Bad> {
    let mut expects = false;
    for expectation in fields.of(Kind::Expect) {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(Bad { status: 417, why: "only 100-continue can be expected here" });
        }
        expects = true;
    }
    Ok(expects)
}

fn te_trailers(fields: &Fields<'_>) -> bool {
    fields.of(Kind::Te).flat_map(elements).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}
