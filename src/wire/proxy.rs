//! The PROXY protocol, versions 1 (a line of text) and 2 (binary): who the client is, told by the proxy before us in
//! front of the first byte, and told by us to a backend.
//!
//! Source: haproxy.org, doc/proxy-protocol.txt ("the specification" below), sections 2.1 and 2.2.
//! Read [`decode`] first. Strict, because whoever gets something odd past us can choose whom we take him for: nothing is
//! guessed, trimmed or repaired, and what can become no header is refused as soon as that is certain.

mod v1;
mod v2;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use v1::encode_unknown;
pub use v2::encode_local;

/// Bytes of the longest header that [`decode`] takes: it wants no more than this to say yes or no.
pub const MAX_LENGTH: usize = v2::FIXED + v2::MAX_BODY as usize;

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format it came in.
    pub version: Version,
    /// The client. `None` for LOCAL, UNKNOWN and what has no IP address: then the peer's own address counts.
    ///
    /// An IPv4 address in its IPv6-mapped form comes out as IPv4, so that a client has one address whatever the road.
    pub source: Option<SocketAddr>,
    /// Where the client connected to; `None` together with `source`.
    pub destination: Option<SocketAddr>,
}

impl Header {
    fn new(version: Version, ends: Option<(SocketAddr, SocketAddr)>) -> Header {
        let (source, destination) = ends.unzip();
        Header { version, source: source.map(canonical), destination: destination.map(canonical) }
    }

    /// The client of a connection that `peer` opened and began with this header.
    pub fn client(&self, peer: SocketAddr) -> SocketAddr {
        self.source.unwrap_or(peer)
    }
}

/// Why bytes are no header. The connection is closed: there is nobody to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// `GET / HTTP/1.1`
    #[error("it does not begin with a PROXY protocol header; make the sender send one, or turn accept_proxy off")]
    NotProxy,
    /// `PROXY UDP4 …`
    #[error("version 1 names a protocol other than TCP4, TCP6 and UNKNOWN")]
    Protocol,
    /// `PROXY TCP4 ::1 …`, `PROXY TCP4 010.0.0.1 …`
    #[error("version 1 has no address of the family it names where one belongs")]
    Address,
    /// `PROXY TCP4 1.2.3.4 1.2.3.4 080 …`
    #[error("version 1 has no port where one belongs, or one that is no plain number from 0 to 65535")]
    Port,
    /// A line end that is not CR LF, or something between the last port and it.
    #[error("version 1 does not end in CR LF where it should")]
    LineEnd,
    /// More than 107 bytes of version 1, or more than 4096 behind the fixed part of version 2.
    #[error("the header is longer than any that makes sense")]
    TooLong,
    /// The signature is right, the four bits behind it are not 2.
    #[error("the binary header is of another version than 2")]
    Version,
    /// Neither LOCAL nor PROXY.
    #[error("version 2 has a command other than LOCAL and PROXY")]
    Command,
    /// An address family or transport that the specification does not know.
    #[error("version 2 has an address family or a transport that is not in the specification")]
    Family,
    /// The length leaves no room for two addresses of the family.
    #[error("version 2 is shorter than the addresses it announces")]
    TooShort,
    /// A TLV that reaches past the end, or a checksum that is not four bytes or not the only one.
    #[error("version 2 has a TLV whose length can not be")]
    Tlv,
    /// CRC32C does not match.
    #[error("version 2 has a checksum that does not match; something on the way changed it")]
    Checksum,
}

/// Reads a header at the start of `bytes`, which is all that has come so far; what stands behind it is not looked at.
///
/// `Some` with the header and its length in bytes, at most [`MAX_LENGTH`]; `None` while it could still become one. More
/// bytes behind the same ones never change a `Some` or an error into anything else.
///
/// # Errors
/// At the first byte that no header could have there, whatever may follow; but a TLV is judged when its length is there
/// and a checksum at the end. The specification lets a receiver ignore what follows UNKNOWN, LOCAL and an unspecified
/// family or transport, and so it is ignored: it could not say anything that we would use.
pub fn decode(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    match bytes.first() {
        None => Ok(None),
        Some(&first) if first == v1::PREFIX[0] => v1::decode(bytes),
        Some(&first) if first == v2::SIGNATURE[0] => v2::decode(bytes),
        Some(_) => Err(ProxyError::NotProxy),
    }
}

/// Appends a version 1 header to `out`: 107 bytes at most.
///
/// Two IPv4 addresses, mapped ones included, make a TCP4 header; if either is IPv6 both are written as IPv6, the IPv4 one
/// mapped (`::ffff:a.b.c.d`, in hexadecimal groups since the specification knows no others). Zone and flow are left out.
pub fn encode_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    v1::encode(source, destination, out);
}

/// Appends a version 2 header to `out`: PROXY, STREAM, no TLV; 52 bytes at most. Families are mixed as by [`encode_v1`].
pub fn encode_v2(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    v2::encode(source, destination, out);
}

/// Appends a header of that version.
pub fn encode(version: Version, source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    match version {
        Version::V1 => encode_v1(source, destination, out),
        Version::V2 => encode_v2(source, destination, out),
    }
}

/// A mapped IPv4 address as IPv4; no zone, no flow.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Two addresses of one family, as both formats want them.
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// IPv4 if both are, else IPv6.
fn pair(source: SocketAddr, destination: SocketAddr) -> Pair {
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Pair::V4(source, destination),
        (source, destination) => Pair::V6(mapped(source), mapped(destination)),
    }
}

/// Whether the two are the same as far as both reach.
fn agree(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(a, b)| a == b)
}

#[cfg(test)]
mod tests;
