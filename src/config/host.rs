//! The host that a route asks for: one, or all below a name.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::address::{NameFault, name_fault};
use super::error::Quoted;

/// Which hosts of requests a route takes, in the form in which they are compared: lower case, without port and without
/// the dot of the root; IPv6 in brackets, as RFC 5952 writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostMatch {
    /// This one.
    Exact(String),
    /// Those that end so; begins with a dot. `.example.com` takes names at any depth below `example.com`, not itself.
    Suffix(String),
}

/// Why a text is no host of a request, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// `https://example.com`
    #[error("{found} is a URL or a path; write the host alone, as in \"example.com\"")]
    Url {
        /// As typed.
        found: Quoted,
    },
    /// `example.com:8080`
    #[error("{found} has a port, and routes do not look at it; write {example:?}")]
    Port {
        /// As typed.
        found: Quoted,
        /// The same without it.
        example: String,
    },
    /// `*`
    #[error("{found} would be every host, and so is no host at all; leave it out")]
    Every {
        /// As typed.
        found: Quoted,
    },
    /// `www.*`, `*example.com`
    #[error(
        "{found} has a \"*\" that is not the whole first part; write it as in \"*.example.com\", for all names below that one"
    )]
    Wildcard {
        /// As typed.
        found: Quoted,
    },
    /// `::1`, `[::g]`
    #[error("{found} is no host; write an IPv6 address in brackets, as in \"[2001:db8::1]\"")]
    BadIpv6 {
        /// As typed.
        found: Quoted,
    },
    /// `127.1`, `*.0.0.1`
    #[error("{found} is no IPv4 address; write four numbers from 0 to 255, as in \"192.0.2.1\"")]
    BadIpv4 {
        /// As typed.
        found: Quoted,
    },
    /// `exa mple`
    #[error("{found} is no host name: {why}; write letters, digits, \"-\" and \".\", as in \"api.example.com\"")]
    BadName {
        /// As typed.
        found: Quoted,
        /// What is wrong.
        why: &'static str,
    },
}

impl FromStr for HostMatch {
    type Err = HostError;

    /// Reads `api.example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`, in any case.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let found = Quoted::new(text);
        if text.contains('/') {
            return Err(HostError::Url { found });
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (ip, port) = rest.split_once(']').unwrap_or((rest, "?"));
            return match ip.parse::<Ipv6Addr>() {
                Ok(ip) if port.is_empty() => Ok(HostMatch::Exact(format!("[{ip}]"))),
                Ok(ip) if port.starts_with(':') => Err(HostError::Port { found, example: format!("[{ip}]") }),
                _ => Err(HostError::BadIpv6 { found }),
            };
        }
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return Err(HostError::BadIpv6 { found }),
            Some(("*", _)) => return Err(HostError::Every { found }),
            Some((host, _)) => return Err(HostError::Port { found, example: host.to_owned() }),
            None => {}
        }
        if text == "*" {
            return Err(HostError::Every { found });
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        if name.contains('*') {
            return Err(HostError::Wildcard { found });
        }
        let wild = name.len() < text.len();
        match name_fault(name) {
            Some(NameFault::Shape(why)) => return Err(HostError::BadName { found, why }),
            Some(NameFault::Numeric) => return Err(HostError::BadIpv4 { found }),
            None if wild && name.parse::<Ipv4Addr>().is_ok() => return Err(HostError::Wildcard { found }),
            None => {}
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        Ok(if wild { HostMatch::Suffix(format!(".{name}")) } else { HostMatch::Exact(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_kept_as_they_are_compared() {
        let exact = |text: &str| HostMatch::Exact(text.to_owned());
        let cases = [
            ("a name", "api.example.com", exact("api.example.com")),
            ("case does not count", "API.Example.COM", exact("api.example.com")),
            ("nor does the dot of the root", "example.com.", exact("example.com")),
            ("one word", "localhost", exact("localhost")),
            ("an underscore, as some have it", "my_app", exact("my_app")),
            ("IPv4", "192.0.2.1", exact("192.0.2.1")),
            ("IPv6", "[2001:DB8:0::1]", exact("[2001:db8::1]")),
            ("all below", "*.Example.com", HostMatch::Suffix(".example.com".to_owned())),
            ("all below a word", "*.internal.", HostMatch::Suffix(".internal".to_owned())),
        ];
        for (why, text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{why}: {text}");
        }
    }

    #[test]
    fn what_is_no_host_says_what_to_write() {
        let cases = [
            ("a URL", "https://example.com", "write the host alone"),
            ("a path", "example.com/", "write the host alone"),
            ("a port", "Example.com:8080", "write \"Example.com\""),
            ("an empty port", "example.com:", "write \"example.com\""),
            ("a port behind brackets", "[::1]:80", "write \"[::1]\""),
            ("every host", "*", "leave it out"),
            ("every host with a port", "*:80", "leave it out"),
            ("a star at the end", "www.*", "not the whole first part"),
            ("a star inside", "a.*.com", "not the whole first part"),
            ("a part of a part", "*example.com", "not the whole first part"),
            ("two stars", "*.*.com", "not the whole first part"),
            ("nothing is below an address", "*.192.0.2.1", "not the whole first part"),
            ("below nothing", "*.", "it is empty"),
            ("IPv6 without brackets", "::1", "in brackets"),
            ("no IPv6", "[::g]", "in brackets"),
            ("a bracket that does not close", "[::1", "in brackets"),
            ("text behind brackets", "[::1]x", "in brackets"),
            ("nearly IPv4", "127.1", "no IPv4 address"),
            ("a blank", "exa mple", "another character"),
            ("not ASCII", "größe.example", "xn--"),
            ("two dots", "a..b", "between dots is empty"),
            ("a hyphen at the end", "a-.example", "begins or ends with \"-\""),
        ];
        for (why, text, expected) in cases {
            let told = text.parse::<HostMatch>().map_err(|error| error.to_string());
            assert!(told.as_ref().is_err_and(|told| told.contains(expected)), "{why}: {told:?}");
        }
    }
}
