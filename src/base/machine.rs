//! The addresses of this machine, and what they mean for a socket that is bound to all of them.

use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of the interfaces, as they are now, each once; IPv4-mapped ones as IPv4. None when the system does not
/// tell.
pub fn own_addresses() -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())));
        if let Some(ip) = ip.map(|ip| ip.to_canonical()).filter(|ip| !own.contains(ip)) {
            own.push(ip);
        }
    }
    own
}

/// Whether what is sent to `to` from here arrives at a socket that is bound to `bind` (`only_v6`: and takes no IPv4), on a
/// machine with the addresses `own`, besides loopback ones.
pub fn arrives(to: IpAddr, bind: IpAddr, only_v6: bool, own: &[IpAddr]) -> bool {
    let to = match to.to_canonical() {
        // Where Linux connects to when it is asked for nowhere.
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        to => to,
    };
    let ours = || to.is_loopback() || own.contains(&to);
    match bind.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => to.is_ipv4() && ours(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (to.is_ipv6() || !only_v6) && ours(),
        bind => to == bind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_an_own_address() {
        let own = own_addresses();
        assert!(own.contains(&Ipv4Addr::LOCALHOST.into()), "{own:?}");
        assert_eq!(own.iter().filter(|ip| **ip == Ipv4Addr::LOCALHOST).count(), 1, "{own:?}");
    }

    #[test]
    fn what_is_sent_to_an_own_address_arrives_at_every_address() {
        let own = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let cases = [
            ("an own address", "192.0.2.1", "0.0.0.0", false, true),
            ("as a mapped one", "::ffff:192.0.2.1", "0.0.0.0", false, true),
            ("bound as a mapped one", "192.0.2.1", "::ffff:0.0.0.0", false, true),
            ("of another machine", "192.0.2.2", "0.0.0.0", false, false),
            ("any loopback address", "127.9.9.9", "0.0.0.0", false, true),
            ("nowhere is the loopback", "0.0.0.0", "127.0.0.1", false, true),
            ("nowhere in IPv6", "::", "::1", false, true),
            ("an own IPv6 address", "2001:db8::1", "::", false, true),
            ("IPv6 at IPv4", "2001:db8::1", "0.0.0.0", false, false),
            ("IPv4 at IPv6", "192.0.2.1", "::", false, true),
            ("IPv4 at IPv6 that takes none", "192.0.2.1", "::", true, false),
            ("IPv6 at IPv6 that takes no IPv4", "2001:db8::1", "::", true, true),
            ("another machine's IPv6", "2001:db8::2", "::", false, false),
            ("the very address", "192.0.2.7", "192.0.2.7", false, true),
            ("another own address", "127.0.0.1", "192.0.2.1", false, false),
        ];
        for (why, to, bind, only_v6, expected) in cases {
            let [to, bind] = [to, bind].map(|ip| ip.parse().unwrap());
            assert_eq!(arrives(to, bind, only_v6, &own), expected, "{why}");
        }
    }
}
