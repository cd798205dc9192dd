//! Sets of IP addresses, as `allow` and `trusted_proxies` list them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// One network: `10.0.0.0/8`, `::1/128`, or an address alone.
///
/// In its one form: bits behind the prefix are zero, and a network of IPv4-mapped IPv6 addresses is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl Network {
    fn new(ip: IpAddr, prefix: u8) -> Option<Network> {
        let net = IpNet::new(ip, prefix).ok()?.trunc();
        let mapped = match net {
            IpNet::V6(net) if prefix >= 96 => net.network().to_ipv4_mapped(),
            _ => None,
        };
        match mapped {
            Some(ip) => Some(Network(IpNet::new(ip.into(), prefix - 96).ok()?)),
            None => Some(Network(net)),
        }
    }

    /// Whether `ip` is one of its addresses.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

impl From<IpAddr> for Network {
    fn from(ip: IpAddr) -> Network {
        Network(IpNet::from(ip.to_canonical()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no network, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// `example.com`, `10.0.0`, `*`
    #[error("this is no IP address; write one, or a network as in \"10.0.0.0/8\" or \"fd00::/8\"")]
    Address,
    /// `10.0.0.0/33`, `10.0.0.0/255.0.0.0`
    #[error("the part behind \"/\" is no number from 0 to {most}; write how many leading bits are fixed")]
    Prefix {
        /// The bits of an address of that family.
        most: u8,
    },
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `address` or `address/bits`. Bits set behind the prefix are dropped: `10.1.2.3/8` is `10.0.0.0/8`.
    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| NetworkError::Address)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let Some(prefix) = prefix else { return Ok(Network::from(ip)) };
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits);
        prefix.and_then(|prefix| Network::new(ip, prefix)).ok_or(NetworkError::Prefix { most })
    }
}

/// A set of networks. Asking it costs a binary search, however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Apart from each other and in order, as are those of `v6`.
    v4: Box<[Ipv4Net]>,
    v6: Box<[Ipv6Net]>,
}

impl Networks {
    /// The addresses by which a machine reaches itself: `127.0.0.0/8` and `::1`.
    pub fn loopback() -> Networks {
        let v4 = Network::new(Ipv4Addr::LOCALHOST.into(), 8);
        v4.into_iter().chain([Network::from(IpAddr::V6(Ipv6Addr::LOCALHOST))]).collect()
    }

    /// Whether `ip` is in one of them. An IPv4-mapped IPv6 address is the IPv4 one: `::/0` does not hold it, `0.0.0.0/0` does.
    pub fn contains(&self, ip: IpAddr) -> bool {
        // The only network that could hold it is the last one that does not begin behind it.
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let behind = self.v4.partition_point(|net| net.network() <= ip);
                behind > 0 && self.v4[behind - 1].contains(&ip)
            }
            IpAddr::V6(ip) => {
                let behind = self.v6.partition_point(|net| net.network() <= ip);
                behind > 0 && self.v6[behind - 1].contains(&ip)
            }
        }
    }

    /// True when no address is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Networks {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for Network(net) in networks {
            match net {
                IpNet::V4(net) => v4.push(net),
                IpNet::V6(net) => v6.push(net),
            }
        }
        let (mut v4, mut v6) = (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6));
        v4.sort_unstable();
        v6.sort_unstable();
        Networks { v4: v4.into(), v6: v6.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_becomes_a_network() {
        let wrong = |most| Err(NetworkError::Prefix { most });
        let cases = [
            ("a network", "10.0.0.0/8", Ok("10.0.0.0/8")),
            ("a network of IPv6", "fd00::/8", Ok("fd00::/8")),
            ("one address", "::1/128", Ok("::1/128")),
            ("an address alone is a network of one", "192.0.2.1", Ok("192.0.2.1/32")),
            ("an address alone, IPv6", "2001:DB8::1", Ok("2001:db8::1/128")),
            ("everything", "0.0.0.0/0", Ok("0.0.0.0/0")),
            ("bits behind the prefix say nothing", "10.1.2.3/8", Ok("10.0.0.0/8")),
            ("mapped is IPv4", "::ffff:10.1.2.3", Ok("10.1.2.3/32")),
            ("a mapped network too", "::ffff:10.0.0.0/104", Ok("10.0.0.0/8")),
            ("all of IPv4, mapped", "::ffff:0:0/96", Ok("0.0.0.0/0")),
            ("the first 95 bits are more than IPv4", "::ffff:0:0/95", Ok("::fffe:0:0/95")),
            ("a name is for a resolver", "localhost", Err(NetworkError::Address)),
            ("not all of it", "10.0.0/8", Err(NetworkError::Address)),
            ("octal to some", "010.0.0.0/8", Err(NetworkError::Address)),
            ("a space", " 10.0.0.0/8", Err(NetworkError::Address)),
            ("brackets are for ports", "[::1]", Err(NetworkError::Address)),
            ("nothing", "", Err(NetworkError::Address)),
            ("too many bits", "10.0.0.0/33", wrong(32)),
            ("too many bits, IPv6", "::1/129", wrong(128)),
            ("no bits named", "10.0.0.0/", wrong(32)),
            ("a sign", "10.0.0.0/+8", wrong(32)),
            ("a mask", "10.0.0.0/255.0.0.0", wrong(32)),
            ("twice", "10.0.0.0/8/8", wrong(32)),
            ("more than a byte", "10.0.0.0/264", wrong(32)),
        ];
        for (why, text, expected) in cases {
            let found = text.parse::<Network>().map(|net| net.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{why}");
        }
    }

    #[test]
    fn an_address_is_in_or_out() {
        let list = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "192.0.2.3", "fd00::/8", "::1", "255.255.255.255"];
        let set: Networks = list.iter().map(|text| text.parse::<Network>().unwrap()).collect();
        let cases = [
            ("the first of a network", "10.0.0.0", true),
            ("the last", "10.255.255.255", true),
            ("in a network inside another", "10.1.2.3", true),
            ("behind the inner one and in the outer one", "10.2.0.0", true),
            ("before the first network", "9.255.255.255", false),
            ("behind it", "11.0.0.0", false),
            ("between two", "192.0.2.2", false),
            ("the very last", "255.255.255.255", true),
            ("the same, mapped", "::ffff:10.1.2.3", true),
            ("IPv6", "fdff::1", true),
            ("IPv6, out", "fe00::", false),
            ("not the unspecified one", "::", false),
        ];
        for (why, ip, expected) in cases {
            assert_eq!(set.contains(ip.parse().unwrap()), expected, "{why}");
        }
        assert!(!Networks::default().contains(Ipv4Addr::LOCALHOST.into()) && Networks::default().is_empty());
        assert!(Networks::loopback().contains("127.9.9.9".parse().unwrap()) && !Networks::loopback().is_empty());
        assert!(Networks::loopback().contains("::1".parse().unwrap()));
        assert!(!Networks::loopback().contains("128.0.0.0".parse().unwrap()));
    }

    /// Few enough that networks touch, overlap and hold what is asked for.
    fn ip() -> impl Strategy<Value = IpAddr> {
        let v4 = (0u32..4, 0u32..8).prop_map(|(high, low)| IpAddr::V4(Ipv4Addr::from(high << 30 | low)));
        let v6 = (0u128..4, 0u128..8).prop_map(|(high, low)| IpAddr::V6(Ipv6Addr::from(high << 126 | low)));
        let mapped = (0u32..8).prop_map(|low| IpAddr::V6(Ipv4Addr::from(low).to_ipv6_mapped()));
        prop_oneof![v4, v6, mapped]
    }

    proptest! {
        #[test]
        fn a_set_holds_what_any_of_its_networks_holds(
            nets in prop::collection::vec((ip(), 0u8..=3, any::<bool>()), 0..12),
            asked in prop::collection::vec(ip(), 1..20),
        ) {
            let nets: Vec<Network> = nets.into_iter().map(|(ip, bits, low)| {
                let most = if ip.is_ipv4() { 32 } else { 128 };
                Network::new(ip, if low { most - bits } else { bits }).unwrap()
            }).collect();
            let set: Networks = nets.iter().copied().collect();
            for ip in asked {
                prop_assert_eq!(set.contains(ip), nets.iter().any(|net| net.contains(ip)), "{} in {:?}", ip, nets);
            }
        }
    }
}
