//! Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443` and CR LF (the specification, section 2.1).

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str;

use super::{Header, Pair, ProxyError, Version, agree, pair};

/// What every header begins with.
pub(super) const PREFIX: &[u8] = b"PROXY ";
/// Bytes of the longest header, CR LF included.
pub(super) const MAX: usize = 107;

/// Appended to the beginning of an address, one of these makes it whole, if anything can. After a group of digits, a
/// colon or a dot there is no case that none of them serves: a missing rest is a "::", a last group, or last numbers.
const REST_OF_IPV4: &[&str] = &["", "0", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0"];
const REST_OF_IPV6: &[&str] = &["", "0", ":", "::", ".0", "0.0", ".0.0", "0.0.0"];

#[derive(Clone, Copy)]
enum Family {
    Tcp4,
    Tcp6,
    Unknown,
}

const FAMILIES: [(&str, Family); 3] = [("TCP4", Family::Tcp4), ("TCP6", Family::Tcp6), ("UNKNOWN", Family::Unknown)];

/// Appends an UNKNOWN header to `out`: a connection of our own, such as a health check, made for no client. 15 bytes.
pub fn encode_unknown(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PROXY UNKNOWN\r\n");
}

pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    if !agree(bytes, PREFIX) {
        return Err(ProxyError::NotProxy);
    }
    let Some(rest) = bytes.get(PREFIX.len()..) else { return Ok(None) };
    let most = MAX - PREFIX.len() - 1; // the last byte is LF's: CR stands before it
    let window = &rest[..rest.len().min(most)];
    let end = window.iter().position(|&byte| byte == b'\r');
    let mut fields = Fields { rest: Some(&window[..end.unwrap_or(window.len())]), whole: end.is_some() };
    let ends = ends(&mut fields)?;
    match (end, ends) {
        (Some(end), Some(ends)) => match rest.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some((Header::new(Version::V1, ends), PREFIX.len() + end + 2))),
            Some(_) => Err(ProxyError::LineEnd),
        },
        _ if window.len() == most => Err(ProxyError::TooLong),
        _ => Ok(None),
    }
}

/// Source and destination, if the header has any.
type Ends = Option<(SocketAddr, SocketAddr)>;

/// What the fields tell; `None` while some are still to come.
fn ends(fields: &mut Fields<'_>) -> Result<Option<Ends>, ProxyError> {
    let known = |text: &str| FAMILIES.iter().find(|(name, _)| *name == text).map(|(_, family)| *family);
    let begun = |text: &str| FAMILIES.iter().any(|(name, _)| name.starts_with(text));
    let Some(family) = fields.next(known, begun, ProxyError::Protocol)? else { return Ok(None) };
    let (ip, rests): (fn(&str) -> Option<IpAddr>, _) = match family {
        Family::Tcp4 => (|text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4), REST_OF_IPV4),
        Family::Tcp6 => (|text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6), REST_OF_IPV6),
        Family::Unknown => {
            let rest = fields.rest.unwrap_or_default();
            return if rest.contains(&b'\n') { Err(ProxyError::LineEnd) } else { Ok(fields.whole.then_some(None)) };
        }
    };
    let begun = |text: &str| rests.iter().any(|rest| ip(&[text, rest].concat()).is_some());
    let Some(source) = fields.next(ip, begun, ProxyError::Address)? else { return Ok(None) };
    let Some(destination) = fields.next(ip, begun, ProxyError::Address)? else { return Ok(None) };
    let begun = |text: &str| text.is_empty() || port(text).is_some();
    let Some(source_port) = fields.next(port, begun, ProxyError::Port)? else { return Ok(None) };
    let Some(destination_port) = fields.next(port, begun, ProxyError::Port)? else { return Ok(None) };
    if fields.rest.is_some() {
        return Err(ProxyError::LineEnd);
    }
    Ok(Some(Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port)))))
}

/// A plain decimal number: no sign, no leading zero. What one begins with is one too, but for nothing at all.
fn port(text: &str) -> Option<u16> {
    let plain = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| plain)
}

/// The line as it has come so far, cut at single spaces.
struct Fields<'a> {
    /// From the next field on; `None` behind the last one that has begun.
    rest: Option<&'a [u8]>,
    /// Whether the line goes on no further.
    whole: bool,
}

impl Fields<'_> {
    /// The next field, read by `read` if it is complete; `None` when it is not and, as `begun` says, could become one.
    fn next<T>(
        &mut self,
        read: impl Fn(&str) -> Option<T>,
        begun: impl Fn(&str) -> bool,
        error: ProxyError,
    ) -> Result<Option<T>, ProxyError> {
        let Some(rest) = self.rest.take() else { return if self.whole { Err(error) } else { Ok(None) } };
        let space = rest.iter().position(|&byte| byte == b' ');
        let (field, complete) = match space {
            Some(at) => (&rest[..at], true),
            None => (rest, self.whole),
        };
        self.rest = space.map(|at| &rest[at + 1..]);
        let text = str::from_utf8(field).map_err(|_| error)?;
        match read(text) {
            Some(value) if complete => Ok(Some(value)),
            _ if !complete && begun(text) => Ok(None),
            _ => Err(error),
        }
    }
}

pub(super) fn encode(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let ports = (source.port(), destination.port());
    let written = match pair(source, destination) {
        Pair::V4(source, destination) => write!(out, "PROXY TCP4 {source} {destination} {} {}\r\n", ports.0, ports.1),
        Pair::V6(source, destination) => {
            let (source, destination) = (hexadecimal(source), hexadecimal(destination));
            write!(out, "PROXY TCP6 {source} {destination} {} {}\r\n", ports.0, ports.1)
        }
    };
    written.expect("a vector takes every byte");
}

/// As `Display`, which writes a mapped address with dots.
fn hexadecimal(ip: Ipv6Addr) -> String {
    match ip.to_ipv4_mapped() {
        Some(_) => format!("::ffff:{:x}:{:x}", ip.segments()[6], ip.segments()[7]),
        None => ip.to_string(),
    }
}
