//! Addresses as they stand in a configuration: read, checked for shape and compared, never resolved.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::error::Quoted;
use crate::base::machine::arrives;

/// An address as configured: an IP literal, or a name that is resolved at run time, off the data path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `127.0.0.1:80`, `[::1]:80`.
    Ip(SocketAddr),
    /// `localhost:80`.
    Name {
        /// The name to resolve.
        host: String,
        /// The port behind it.
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(addr) => addr.fmt(f),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Address {
    /// The port; 0 means that the system chooses, which makes sense only where one listens.
    pub fn port(&self) -> u16 {
        match self {
            Address::Ip(addr) => addr.port(),
            Address::Name { port, .. } => *port,
        }
    }

    /// Reads where a backend is: like [`Address::from_str`], and it must be a place that one can connect to.
    ///
    /// # Errors
    /// Also [`AddressError::PortZero`] and [`AddressError::Unspecified`].
    pub fn backend(text: &str) -> Result<Self, AddressError> {
        let address: Address = text.parse()?;
        if address.port() == 0 {
            return Err(AddressError::PortZero { found: Quoted::new(text) });
        }
        match &address {
            Address::Ip(addr) if addr.ip().to_canonical().is_unspecified() => {
                Err(AddressError::Unspecified { found: Quoted::new(text) })
            }
            _ => Ok(address),
        }
    }

    /// One form for all spellings of an address: mapped IPv4 as IPv4, names in lower case without the root's dot.
    pub fn canonical(&self) -> Address {
        match self {
            Address::Ip(addr) => match addr.ip().to_canonical() {
                IpAddr::V4(ip) => Address::Ip(SocketAddr::from((ip, addr.port()))),
                IpAddr::V6(_) => Address::Ip(*addr),
            },
            Address::Name { host, port } => {
                Address::Name { host: host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(), port: *port }
            }
        }
    }

    /// The IP addresses that are known without asking a resolver. `localhost` is the loopback (RFC 6761, section 6.3).
    fn known(&self) -> Vec<IpAddr> {
        match self.canonical() {
            Address::Ip(addr) => vec![addr.ip()],
            Address::Name { host, .. } if host == "localhost" => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            Address::Name { .. } => Vec::new(),
        }
    }

    /// Whether two sockets could not listen on both. `0.0.0.0` covers every IPv4 address and `[::]` every IPv6 one;
    /// the two of them together are a usual pair and no clash.
    pub(super) fn clashes(&self, other: &Address) -> bool {
        if self.port() == 0 || self.port() != other.port() {
            return false;
        }
        let covers = |a: &IpAddr, b: &IpAddr| a == b || (a.is_unspecified() && a.is_ipv4() == b.is_ipv4());
        self.canonical() == other.canonical()
            || self.known().iter().any(|a| other.known().iter().any(|b| covers(a, b) || covers(b, a)))
    }

    /// Whether what is sent to `self` arrives at a socket that listens on `bind`, as far as one can tell before names are
    /// resolved. A wildcard takes what is sent to an address of `own`, those of this machine; `[::]` takes IPv4 as well,
    /// unless it is `only_v6`.
    pub fn reaches(&self, bind: &Address, only_v6: bool, own: &[IpAddr]) -> bool {
        if bind.port() == 0 || self.port() != bind.port() {
            return false;
        }
        let takes = |bind: &IpAddr, ip: &IpAddr| arrives(*ip, *bind, only_v6, own);
        self.canonical() == bind.canonical() || bind.known().iter().any(|b| self.known().iter().any(|ip| takes(b, ip)))
    }
}

/// Why a text is no address, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// `127.0.0.1`
    #[error("{found} has no port; write {example:?}, with the port you mean")]
    NoPort {
        /// As typed.
        found: Quoted,
        /// The same with a port.
        example: String,
    },
    /// `:80`, `*:80`, `80`
    #[error("{found} has no host; write {example:?} for every IPv4 address of this machine, or the address you mean")]
    NoHost {
        /// As typed.
        found: Quoted,
        /// The same with a host.
        example: String,
    },
    /// `127.0.0.1:99999`
    #[error("{found} has a port that is no number from 0 to 65535; write one, as in {example:?}")]
    BadPort {
        /// As typed.
        found: Quoted,
        /// The same with a port.
        example: String,
    },
    /// `127.0.0.1:0` for a backend
    #[error("{found} has port 0, to which nothing can connect; write the port of the server")]
    PortZero {
        /// As typed.
        found: Quoted,
    },
    /// `0.0.0.0:80` for a backend
    #[error("{found} is no single machine; write the address of the server, 127.0.0.1 for this one")]
    Unspecified {
        /// As typed.
        found: Quoted,
    },
    /// `::1:80`
    #[error("{found} is IPv6 without brackets; write it as in \"[::1]:80\"")]
    NoBrackets {
        /// As typed.
        found: Quoted,
    },
    /// `[::g]:80`
    #[error("{found} has no IPv6 address in its brackets; write one as in \"[::1]:80\" or \"[fe80::1%2]:80\"")]
    BadIpv6 {
        /// As typed.
        found: Quoted,
    },
    /// `300.0.0.1:80`, `127.1:80`
    #[error("{found} is no IPv4 address; write four numbers from 0 to 255, as in \"127.0.0.1:80\"")]
    BadIpv4 {
        /// As typed.
        found: Quoted,
    },
    /// `http://example.com:80/`
    #[error("{found} is a URL or a path; write host and port alone, as in \"example.com:80\"")]
    Url {
        /// As typed.
        found: Quoted,
    },
    /// `exa mple:80`
    #[error("{found} is no host name: {why}; write letters, digits, \"-\" and \".\", as in \"db1.example.com:80\"")]
    BadName {
        /// As typed.
        found: Quoted,
        /// What is wrong.
        why: &'static str,
    },
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `host:port`, where host is an IPv4 literal, an IPv6 literal in brackets, or a name; port 0 passes.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(addr) = text.parse() {
            return Ok(Address::Ip(addr));
        }
        let found = Quoted::new(text);
        if text.contains('/') {
            return Err(AddressError::Url { found });
        }
        if text.starts_with('[') {
            return Err(bracketed(text, found));
        }
        if text.parse::<Ipv6Addr>().is_ok() || text.matches(':').count() > 1 {
            return Err(AddressError::NoBrackets { found });
        }
        let Some((host, port)) = text.split_once(':') else {
            let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            return Err(match host_error(text, &found) {
                _ if number => AddressError::NoHost { found, example: format!("0.0.0.0:{text}") },
                Some(error) => error,
                None => AddressError::NoPort { found, example: format!("{text}:80") },
            });
        };
        let port = port_number(port);
        if host.is_empty() || host == "*" {
            let example = format!("0.0.0.0:{}", port.unwrap_or(80));
            return Err(AddressError::NoHost { found, example });
        }
        if let Some(error) = host_error(host, &found) {
            return Err(error);
        }
        match port {
            Some(port) => Ok(match host.parse::<Ipv4Addr>() {
                Ok(ip) => Address::Ip((ip, port).into()), // a port with more zeros than the library reads
                Err(_) => Address::Name { host: host.to_owned(), port },
            }),
            None => Err(AddressError::BadPort { found, example: format!("{host}:80") }),
        }
    }
}

/// Digits alone: `u16::from_str` also takes a plus sign.
fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// Why something that starts with `[` is no socket address.
fn bracketed(text: &str, found: Quoted) -> AddressError {
    let Some((host, rest)) = text.split_once(']') else {
        return AddressError::BadIpv6 { found };
    };
    let good = format!("{host}]:80").parse::<SocketAddr>().is_ok();
    match rest.strip_prefix(':') {
        _ if !good => AddressError::BadIpv6 { found },
        Some(_) => AddressError::BadPort { found, example: format!("{host}]:80") },
        None => AddressError::NoPort { found, example: format!("{host}]:80") },
    }
}

/// What keeps `host` from being a name that a resolver would take, or an IPv4 literal.
fn host_error(host: &str, found: &Quoted) -> Option<AddressError> {
    match name_fault(host)? {
        NameFault::Shape(why) => Some(AddressError::BadName { found: found.clone(), why }),
        NameFault::Numeric => Some(AddressError::BadIpv4 { found: found.clone() }),
    }
}

/// Why a text is no name of a host.
pub(super) enum NameFault {
    /// What is wrong with it, in words.
    Shape(&'static str),
    /// It looks like an IPv4 address, and is none.
    Numeric,
}

/// What is wrong with the name `host` (RFC 1123, section 2.1; `_` is common in practice). `None` for an IPv4 literal too.
pub(super) fn name_fault(host: &str) -> Option<NameFault> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let bad = |why| Some(NameFault::Shape(why));
    if name.is_empty() {
        return bad("it is empty");
    }
    if name.len() > 253 {
        return bad("it is longer than 253 characters");
    }
    if !name.is_ascii() {
        return bad("it is not ASCII (an international name is written in its xn-- form)");
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return bad("a part between dots is empty or longer than 63 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return bad("another character is in it");
    }
    if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
        return bad("a part begins or ends with \"-\"");
    }
    // A resolver takes "127.1" or "1.2.3.04" for an address, each in its own way; nobody names a host like that.
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    (numeric && host.parse::<Ipv4Addr>().is_err()).then_some(NameFault::Numeric)
}

#[cfg(test)]
mod tests;
