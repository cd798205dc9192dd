//! The authority a request is for: `Host`, or that of an absolute target (RFC 9110, section 7.2; RFC 3986, 3.2).

use std::net::Ipv6Addr;

use super::Bad;

const BAD: Bad = Bad::request("Host is malformed");

/// Checks an authority: a name, an IPv4 address or an IPv6 one in brackets, and a port if it likes.
///
/// Stricter than RFC 3986: names of letters, digits and `-._~` only, so no comma, user or escape gets to whoever
/// splits at one. An empty name is refused (RFC 9110, section 4.2.1).
pub(super) fn check(authority: &[u8]) -> Result<&str, Bad> {
    let text = std::str::from_utf8(authority).map_err(|_| BAD)?;
    let (name, port) = split(text);
    let port_is_good = port.is_none_or(|port| {
        port.is_empty() || (port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
    });
    let name_is_good = match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
        }
    };
    if port_is_good && name_is_good { Ok(text) } else { Err(BAD) }
}

/// The name and, without its colon, the port. An IPv6 address keeps its brackets.
pub(super) fn split(authority: &str) -> (&str, Option<&str>) {
    let from = if authority.starts_with('[') { authority.find(']').unwrap_or(0) } else { 0 };
    match authority[from..].find(':') {
        Some(colon) => (&authority[..from + colon], Some(&authority[from + colon + 1..])),
        None => (authority, None),
    }
}

/// Whether two authorities of `http` are one: names in any case, no port means 80.
pub(super) fn same(one: &str, other: &str) -> bool {
    let port = |port: Option<&str>| port.and_then(|port| port.parse().ok()).unwrap_or(80u16);
    let ((one, one_port), (other, other_port)) = (split(one), split(other));
    one.eq_ignore_ascii_case(other) && port(one_port) == port(other_port)
}
