//! Hosts: as a route names them, and as a request does.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Bytes of the longest host (RFC 1035, section 2.3.4, without the root's dot): a longer one is no route's.
pub(super) const MAX: usize = 253;

/// The host of a route: a name, or `*.` and a name. In lower case, without the root's dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostMatch {
    name: Box<str>,
    wild: bool,
}

impl HostMatch {
    /// Without the `*.`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it had one.
    pub(super) fn wild(&self) -> bool {
        self.wild
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wild { "*." } else { "" }, self.name)
    }
}

/// Why a text is no host for a route, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing, or `*`.
    #[error("it names no host; write one as in \"api.example.com\" or \"*.example.com\", or leave it out for all")]
    None,
    /// `api.example.com:8080`
    #[error("it has a port, which is no part of the match; leave it out")]
    Port,
    /// `a.*.com`, `*example.com`
    #[error("a \"*\" stands for all that is before a dot; write it once and first, as in \"*.example.com\"")]
    Star,
    /// `[::g]`, `[::1`, `*.[::1]`
    #[error("it is no IPv6 address in brackets; write one as in \"[::1]\"")]
    Brackets,
    /// `::1`
    #[error("it is IPv6 without brackets; write it as in \"[::1]\"")]
    NoBrackets,
    /// A space, a slash, an umlaut, an empty label, or too long
    #[error("no request can name it: {0}; write letters, digits, \"-\" and \".\", as in \"api.example.com\"")]
    Name(&'static str),
}

impl FromStr for HostMatch {
    type Err = HostError;

    fn from_str(text: &str) -> Result<HostMatch, HostError> {
        let (text, wild) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let exact = |name: String| Ok(HostMatch { name: name.into(), wild });
        if text.contains(['[', ']']) {
            let literal = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let Some((Ok(ip), rest)) = literal.map(|(ip, rest)| (ip.parse::<Ipv6Addr>(), rest)) else {
                return Err(HostError::Brackets);
            };
            return match rest {
                _ if wild => Err(HostError::Brackets),
                "" => exact(format!("[{ip}]")),
                _ => Err(HostError::Port),
            };
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(HostError::NoBrackets);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name == "*" {
            return Err(HostError::None);
        }
        if name.contains('*') {
            return Err(HostError::Star);
        }
        if name.contains(':') {
            return Err(HostError::Port);
        }
        if name.len() > MAX {
            return Err(HostError::Name("it is longer than 253 characters"));
        }
        if !name.is_ascii() {
            return Err(HostError::Name("it is not ASCII (an international name is written in its xn-- form)"));
        }
        if name.split('.').any(str::is_empty) {
            return Err(HostError::Name("a part between dots is empty"));
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(HostError::Name("another character is in it"));
        }
        exact(name.to_ascii_lowercase())
    }
}

/// The host in what a request has as Host or :authority: without the port, and without the root's dot behind a name. An
/// IPv6 literal keeps its brackets. What has the form of neither comes back as it is.
pub fn host_of(authority: &str) -> &str {
    let host = match authority.starts_with('[') {
        true => authority.find(']').map(|at| authority.split_at(at + 1)),
        false => authority.find(':').map(|at| authority.split_at(at)),
    };
    let host = match host {
        Some((host, "")) => host,
        Some((host, port)) if port.starts_with(':') && port[1..].bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_authority() {
        let cases = [
            ("a name", "example.com", "example.com"),
            ("the port goes", "example.com:8080", "example.com"),
            ("a port may be empty (RFC 3986, section 3.2.3)", "example.com:", "example.com"),
            ("the root's dot goes", "example.com.", "example.com"),
            ("both", "example.com.:80", "example.com"),
            ("case is for the router", "EXAMPLE.com", "EXAMPLE.com"),
            ("IPv4", "192.0.2.1:80", "192.0.2.1"),
            ("IPv6 keeps its brackets", "[::1]", "[::1]"),
            ("IPv6 with a port", "[::1]:80", "[::1]"),
            ("nothing", "", ""),
            ("no name", ":80", ""),
            ("a dot alone is nobody's", ".", "."),
            ("IPv6 without brackets is no authority", "::1", "::1"),
            ("a port that is no number", "example.com:http", "example.com:http"),
            ("two ports", "example.com:1:2", "example.com:1:2"),
            ("brackets that do not end", "[::1", "[::1"),
            ("something behind brackets", "[::1]x", "[::1]x"),
        ];
        for (why, authority, expected) in cases {
            assert_eq!(host_of(authority), expected, "{why}");
        }
    }

    #[test]
    fn a_text_becomes_a_host() {
        let long = format!("{}.com", "a".repeat(250));
        let name = |why| Err(HostError::Name(why));
        let cases = [
            ("a name", "api.example.com", Ok("api.example.com")),
            ("in lower case", "API.Example.com", Ok("api.example.com")),
            ("without the root's dot", "example.com.", Ok("example.com")),
            ("a wildcard", "*.Example.com", Ok("*.example.com")),
            ("IPv4", "192.0.2.1", Ok("192.0.2.1")),
            ("IPv6, as browsers write it", "[0:0::1]", Ok("[::1]")),
            ("an underscore is common", "my_app", Ok("my_app")),
            ("nothing", "", Err(HostError::None)),
            ("everything is no host", "*", Err(HostError::None)),
            ("everything below nothing", "*.", Err(HostError::None)),
            ("a port", "example.com:80", Err(HostError::Port)),
            ("a port behind brackets", "[::1]:80", Err(HostError::Port)),
            ("a star inside", "a.*.com", Err(HostError::Star)),
            ("a star that is no label", "*example.com", Err(HostError::Star)),
            ("two stars", "*.*.com", Err(HostError::Star)),
            ("no address in brackets", "[::g]", Err(HostError::Brackets)),
            ("below an address is nothing", "*.[::1]", Err(HostError::Brackets)),
            ("IPv6 without brackets", "::1", Err(HostError::NoBrackets)),
            ("a space", "exa mple", name("another character is in it")),
            ("a URL's path", "example.com/x", name("another character is in it")),
            ("two dots", "a..b", name("a part between dots is empty")),
            ("a dot first", ".example.com", name("a part between dots is empty")),
            ("no ASCII", "bücher.de", name("it is not ASCII (an international name is written in its xn-- form)")),
            ("too long", &long, name("it is longer than 253 characters")),
        ];
        for (why, text, expected) in cases {
            let found = text.parse::<HostMatch>().map(|host| host.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{why}");
        }
    }
}
