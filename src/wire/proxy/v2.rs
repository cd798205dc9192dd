//! Version 2: a signature, a command, a family, a length; then addresses and TLVs (the specification, section 2.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, Pair, ProxyError, Version, agree, pair};

/// What every header begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes before the addresses: signature, version and command, family and transport, length.
pub(super) const FIXED: usize = 16;
/// Bytes behind the fixed part at the most. The specification wants all of it in one small segment (536 bytes), but a
/// client certificate's name or a cloud's own TLVs can be longer.
pub(super) const MAX_BODY: u16 = 4096;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const STREAM_4: u8 = 0x11;
const STREAM_6: u8 = 0x21;
/// The TLV that holds a CRC32C of the whole header, itself taken as zeros (section 2.2.3).
const TLV_CRC32C: u8 = 0x03;
/// Bytes of a TLV before its value: the type, and the value's length.
const TLV_FIXED: usize = 3;
const CRC: usize = 4;

pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    if !agree(bytes, SIGNATURE) {
        return Err(ProxyError::NotProxy);
    }
    let Some(&command) = bytes.get(12) else { return Ok(None) };
    match command {
        LOCAL | PROXY => {}
        _ if command >> 4 != 2 => return Err(ProxyError::Version),
        _ => return Err(ProxyError::Command),
    }
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    let addresses = if command == LOCAL { Addresses::Ignored } else { Addresses::of(family)? };
    let Some(&high) = bytes.get(14) else { return Ok(None) };
    let low = bytes.get(15).copied();
    if u16::from_be_bytes([high, low.unwrap_or(0)]) > MAX_BODY {
        return Err(ProxyError::TooLong);
    }
    if usize::from(u16::from_be_bytes([high, low.unwrap_or(u8::MAX)])) < addresses.size() {
        return Err(ProxyError::TooShort);
    }
    let Some(low) = low else { return Ok(None) };
    let total = FIXED + usize::from(u16::from_be_bytes([high, low]));
    let seen = &bytes[..bytes.len().min(total)];
    let checksum = match addresses {
        Addresses::Ignored => None,
        _ => walk(seen, FIXED + addresses.size(), total)?,
    };
    if seen.len() < total {
        return Ok(None);
    }
    if checksum.is_some_and(|at| !intact(seen, at)) {
        return Err(ProxyError::Checksum);
    }
    Ok(Some((Header::new(Version::V2, addresses.read(&seen[FIXED..])), total)))
}

/// What stands where the addresses do.
#[derive(Clone, Copy)]
enum Addresses {
    V4,
    V6,
    Unix,
    /// Nothing that we would use, nor do we know how long it is.
    Ignored,
}

impl Addresses {
    fn of(family: u8) -> Result<Addresses, ProxyError> {
        match (family >> 4, family & 0xf) {
            (4.., _) | (_, 3..) => Err(ProxyError::Family),
            (0, _) | (_, 0) => Ok(Addresses::Ignored),
            (1, _) => Ok(Addresses::V4),
            (2, _) => Ok(Addresses::V6),
            (3, _) => Ok(Addresses::Unix),
        }
    }

    /// Bytes of both addresses and their ports.
    fn size(self) -> usize {
        match self {
            Addresses::V4 => 2 * (4 + 2),
            Addresses::V6 => 2 * (16 + 2),
            Addresses::Unix => 2 * 108,
            Addresses::Ignored => 0,
        }
    }

    /// Source and destination from the body of a header, which is long enough.
    fn read(self, body: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        match self {
            Addresses::V4 => {
                let (source, body) = body.split_first_chunk::<4>()?;
                let (destination, ports) = body.split_first_chunk::<4>()?;
                ends(Ipv4Addr::from(*source), Ipv4Addr::from(*destination), ports)
            }
            Addresses::V6 => {
                let (source, body) = body.split_first_chunk::<16>()?;
                let (destination, ports) = body.split_first_chunk::<16>()?;
                ends(Ipv6Addr::from(*source), Ipv6Addr::from(*destination), ports)
            }
            Addresses::Unix | Addresses::Ignored => None,
        }
    }
}

fn ends<T>(source: T, destination: T, ports: &[u8]) -> Option<(SocketAddr, SocketAddr)>
where
    SocketAddr: From<(T, u16)>,
{
    let (&[a, b, c, d], _) = ports.split_first_chunk()?;
    Some(((source, u16::from_be_bytes([a, b])).into(), (destination, u16::from_be_bytes([c, d])).into()))
}

/// Goes over the TLVs of `seen` from `at` to `total`, as far as they have come, and tells where the checksum's value is.
fn walk(seen: &[u8], mut at: usize, total: usize) -> Result<Option<usize>, ProxyError> {
    let mut checksum = None;
    while at < total {
        let value = at + TLV_FIXED;
        if value > total {
            return Err(ProxyError::Tlv);
        }
        let Some(&[kind, high, low]) = seen.get(at..value) else { break };
        let length = usize::from(u16::from_be_bytes([high, low]));
        at = value + length;
        if at > total {
            return Err(ProxyError::Tlv);
        }
        // Two could not both be right: each would be part of the other's sum.
        if kind == TLV_CRC32C && (length != CRC || checksum.replace(value).is_some()) {
            return Err(ProxyError::Tlv);
        }
    }
    Ok(checksum)
}

/// Whether the checksum at `at` is that of `header` with zeros in its place.
fn intact(header: &[u8], at: usize) -> bool {
    let (before, rest) = header.split_at(at);
    let (told, after) = rest.split_at(CRC);
    let sum = [before, &[0; CRC], after].into_iter().flatten().fold(!0, |sum: u32, byte| {
        let index = (sum ^ u32::from(*byte)) & 0xff;
        sum >> 8 ^ CRC32C[index as usize]
    });
    told == (!sum).to_be_bytes()
}

/// The remainders of all bytes for CRC32C, Castagnoli's polynomial in reflected form (RFC 4960, appendix B).
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// Appends a LOCAL header to `out`: a connection of our own, such as a health check, made for no client. 16 bytes.
pub fn encode_local(out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[LOCAL, 0, 0, 0]);
}

pub(super) fn encode(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    match pair(source, destination) {
        Pair::V4(source, destination) => {
            out.extend_from_slice(&[PROXY, STREAM_4, 0, 12]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        Pair::V6(source, destination) => {
            out.extend_from_slice(&[PROXY, STREAM_6, 0, 36]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
    }
    out.extend_from_slice(&ports);
}
