//! Networks as they stand in a configuration: an address, or an address with the length of its prefix.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::error::Quoted;

/// Why a text is no network, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// `proxy.example`, `10.0.0/8`
    #[error("{found} is no IP address; write one, as in \"192.0.2.7\", or a network, as in \"10.0.0.0/8\"")]
    NoAddress {
        /// As typed.
        found: Quoted,
    },
    /// `10.0.0.0/33`
    #[error("{found} has no prefix length from 0 to {longest} behind the \"/\"; write one, as in {example:?}")]
    BadPrefix {
        /// As typed.
        found: Quoted,
        /// Bits of such an address.
        longest: u8,
        /// The address alone as a network.
        example: String,
    },
    /// `10.1.2.3/8`
    #[error(
        "{found} has bits behind its prefix; write {network:?} for the network, or {address:?} for the one address"
    )]
    HostBits {
        /// As typed.
        found: Quoted,
        /// The network.
        network: String,
        /// The address.
        address: String,
    },
    /// `127.0.0.1:80`
    #[error("{found} has a port or brackets; write the address alone, as in {example:?}")]
    Port {
        /// As typed.
        found: Quoted,
        /// The same without.
        example: String,
    },
}

/// Reads `10.0.0.0/8`, `2001:db8::/32`, or an address, which is a network of one. Networks of IPv4-mapped addresses come
/// out as IPv4, which is how the addresses of peers are compared.
///
/// # Errors
/// [`NetworkError`]. Bits behind the prefix are refused rather than cut: `10.1.2.3/8` trusts far more than it seems to.
pub(super) fn read(text: &str) -> Result<IpNet, NetworkError> {
    let found = || Quoted::new(text);
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let Ok(ip) = address.parse::<IpAddr>() else {
        let socket = address.parse().map(|socket: std::net::SocketAddr| socket.ip());
        let bracketed = || address.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
        return Err(match socket.ok().or_else(bracketed) {
            Some(ip) => NetworkError::Port { found: found(), example: ip.to_string() },
            None => NetworkError::NoAddress { found: found() },
        });
    };
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let length = match prefix {
        None => Some(longest),
        Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => None,
        Some(digits) => digits.parse().ok(),
    };
    let Some(network) = length.and_then(|length| IpNet::new(ip, length).ok()) else {
        return Err(NetworkError::BadPrefix { found: found(), longest, example: format!("{ip}/{longest}") });
    };
    if network.trunc() != network {
        let (network, address) = (network.trunc().to_string(), ip.to_string());
        return Err(NetworkError::HostBits { found: found(), network, address });
    }
    Ok(unmapped(network))
}

/// The same addresses as IPv4, where all of them are IPv4-mapped (RFC 4291, section 2.5.5.2).
fn unmapped(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96; // bits before the IPv4 address
    let IpNet::V6(v6) = network else {
        return network;
    };
    let length = v6.prefix_len().checked_sub(MAPPED);
    let v4 = length.zip(v6.addr().to_ipv4_mapped()).and_then(|(length, ip)| Ipv4Net::new(ip, length).ok());
    v4.map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_an_address_and_a_length() {
        let cases = [
            ("IPv4", "10.0.0.0/8", "10.0.0.0/8"),
            ("IPv6", "2001:DB8::/32", "2001:db8::/32"),
            ("one address", "192.0.2.7", "192.0.2.7/32"),
            ("one IPv6 address", "::1", "::1/128"),
            ("everybody", "0.0.0.0/0", "0.0.0.0/0"),
            ("a mapped address is IPv4", "::ffff:192.0.2.7", "192.0.2.7/32"),
            ("a mapped network too", "::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("all that is mapped", "::ffff:0:0/96", "0.0.0.0/0"),
            ("more than what is mapped", "::/64", "::/64"),
        ];
        for (why, text, expected) in cases {
            assert_eq!(read(text).map(|network| network.to_string()), Ok(expected.to_owned()), "{why}: {text}");
        }
    }

    #[test]
    fn what_is_no_network_says_what_to_write() {
        let cases = [
            ("a name", "proxy.example", "no IP address"),
            ("a short form", "10/8", "no IP address"),
            ("nothing", "", "no IP address"),
            ("a leading zero, octal to some", "010.0.0.0/8", "no IP address"),
            ("a length too large", "10.0.0.0/33", "0 to 32 behind the \"/\"; write one, as in \"10.0.0.0/32\""),
            ("one for IPv6", "::/129", "0 to 128"),
            ("no length", "10.0.0.0/", "0 to 32"),
            ("a sign", "10.0.0.0/+8", "0 to 32"),
            ("a netmask", "10.0.0.0/255.0.0.0", "0 to 32"),
            ("bits behind", "10.1.2.3/8", "write \"10.0.0.0/8\" for the network, or \"10.1.2.3\" for the one address"),
            ("a port", "127.0.0.1:80", "write the address alone, as in \"127.0.0.1\""),
            ("brackets and a port", "[::1]:80", "write the address alone, as in \"::1\""),
            ("brackets", "[::1]", "write the address alone, as in \"::1\""),
        ];
        for (why, text, expected) in cases {
            let told = read(text).map_err(|error| error.to_string());
            assert!(told.as_ref().is_err_and(|told| told.contains(expected)), "{why}: {told:?}");
        }
    }
}
