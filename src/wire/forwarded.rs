//! X-Forwarded-For read backwards: which of the addresses in it is the client's.
//!
//! Each proxy appends the address it was called from, so the right end is the youngest and the left end is whatever the
//! first one was told. Only what a trusted proxy wrote is believed.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str;

use crate::base::net::Networks;

/// The client of a request that `peer` sent: the rightmost address that is not itself trusted, if `peer` is trusted, else
/// `peer`. An IPv4-mapped IPv6 address comes out as IPv4.
///
/// `values` are those of all X-Forwarded-For fields, in the order they stand in the message: together one list (RFC 9110,
/// section 5.3). If all are trusted it is the leftmost. What is no address ends the walk, since nobody can tell what wrote
/// the rest: then it is the last good one. Empty elements do not count (RFC 9110, section 5.6.1.2).
pub fn client_address<'a, I>(peer: SocketAddr, values: I, trusted: &Networks) -> IpAddr
where
    I: IntoIterator<Item = &'a [u8]>,
    I::IntoIter: DoubleEndedIterator,
{
    let mut client = peer.ip().to_canonical();
    let elements = values.into_iter().rev().flat_map(|value| value.rsplit(|&byte| byte == b','));
    let mut elements = elements.map(trim).filter(|element| !element.is_empty());
    while trusted.contains(client) {
        match elements.next().and_then(address) {
            Some(ip) => client = ip.to_canonical(),
            None => break,
        }
    }
    client
}

/// Without spaces and tabs around it.
fn trim(mut element: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = element {
        element = rest;
    }
    element
}

/// The address of one element: IPv4 or IPv6 in brackets with a port or without, or IPv6 alone.
fn address(element: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(element).ok()?;
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let (ip, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, behind) = rest.split_once(']')?;
            (IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), behind.strip_prefix(':').or(behind.is_empty().then_some("0"))?)
        }
        None => {
            let (ip, port) = text.split_once(':')?;
            (IpAddr::V4(ip.parse().ok()?), port)
        }
    };
    let number = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    number.then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::net::Network;
    use proptest::prelude::*;

    fn trusted() -> Networks {
        ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse::<Network>().unwrap()).into_iter().collect()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
        const PROXY: &str = "10.0.0.1:999";
        let cases: [(&str, &str, &[&str], &str); 30] = [
            ("no field: the peer", PROXY, &[], "10.0.0.1"),
            ("one hop", PROXY, &["192.0.2.7"], "192.0.2.7"),
            ("a stranger is not believed", "192.0.2.1:999", &["192.0.2.7"], "192.0.2.1"),
            ("what the client itself sent is left of it", PROXY, &["127.0.0.1, 192.0.2.7"], "192.0.2.7"),
            ("trusted ones on the way are passed over", PROXY, &["192.0.2.7, 10.0.0.3,10.0.0.2"], "192.0.2.7"),
            ("all trusted: the leftmost", PROXY, &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("fields are one list", PROXY, &["192.0.2.7", "10.0.0.2"], "192.0.2.7"),
            ("the last field is the youngest", PROXY, &["192.0.2.7", "192.0.2.8"], "192.0.2.8"),
            ("garbage next to the peer: the peer", PROXY, &["192.0.2.7, unknown"], "10.0.0.1"),
            ("garbage behind a trusted one: that one", PROXY, &["192.0.2.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("garbage left of the client is not looked at", PROXY, &["<x>, 192.0.2.7"], "192.0.2.7"),
            ("garbage in another field", PROXY, &["192.0.2.7", "_hidden"], "10.0.0.1"),
            ("bytes that are no text", PROXY, &["192.0.2.7, \u{e9}"], "10.0.0.1"),
            ("empty elements do not count", PROXY, &[", 192.0.2.7 ,, ", ""], "192.0.2.7"),
            ("tabs are white too", PROXY, &["\t192.0.2.7\t,\t10.0.0.2 "], "192.0.2.7"),
            ("with a port", PROXY, &["192.0.2.7:51234"], "192.0.2.7"),
            ("IPv6", PROXY, &["2001:db8::7"], "2001:db8::7"),
            ("IPv6 in brackets", PROXY, &["[2001:db8::7]"], "2001:db8::7"),
            ("IPv6 in brackets with a port", PROXY, &["[2001:db8::7]:51234"], "2001:db8::7"),
            ("mapped is IPv4, and trusted as such", PROXY, &["192.0.2.7, ::ffff:10.0.0.2"], "192.0.2.7"),
            ("mapped comes out as IPv4", PROXY, &["::ffff:192.0.2.7"], "192.0.2.7"),
            ("a peer on a dual-stack socket", "[::ffff:10.0.0.1]:999", &["192.0.2.7"], "192.0.2.7"),
            ("an IPv6 proxy", "[fd00::1]:999", &["192.0.2.7"], "192.0.2.7"),
            ("brackets are for IPv6", PROXY, &["[192.0.2.7]"], "10.0.0.1"),
            ("a port that is none", PROXY, &["192.0.2.7:"], "10.0.0.1"),
            ("a port that is too large", PROXY, &["192.0.2.7:65536"], "10.0.0.1"),
            ("a port with a sign", PROXY, &["[2001:db8::7]:+1"], "10.0.0.1"),
            ("something behind the bracket", PROXY, &["[2001:db8::7]x"], "10.0.0.1"),
            ("leading zeros are octal to some", PROXY, &["192.0.02.7"], "10.0.0.1"),
            ("quotes belong to Forwarded", PROXY, &["\"192.0.2.7\""], "10.0.0.1"),
        ];
        for (why, peer, values, expected) in cases {
            let found = client_address(peer.parse().unwrap(), values.iter().map(|value| value.as_bytes()), &trusted());
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{why}");
        }
    }

    fn element() -> impl Strategy<Value = String> {
        prop_oneof![
            (0u8..4).prop_map(|low| format!("10.0.0.{low}")),
            (0u8..4).prop_map(|low| format!("192.0.2.{low}")),
            (0u8..4).prop_map(|low| format!("[fd00::{low}]:80")),
            Just(String::new()),
            Just("unknown".to_owned()),
            "[0-9a-f:.,\\[\\] ]{0,12}",
        ]
    }

    proptest! {
        #[test]
        fn what_stands_left_of_the_client_changes_nothing(
            left in prop::collection::vec(element(), 0..5),
            proxies in prop::collection::vec("10\\.0\\.0\\.[1-9]", 0..4),
            cuts in prop::collection::vec(any::<bool>(), 10),
        ) {
            let mut elements = left;
            elements.push("192.0.2.99".to_owned());
            elements.extend(proxies);
            // A new field or a comma, as the cut falls.
            let mut values = vec![elements[0].clone()];
            for (element, cut) in elements[1..].iter().zip(&cuts) {
                match cut {
                    true => values.push(element.clone()),
                    false => values.last_mut().unwrap().push_str(&format!(", {element}")),
                }
            }
            let found = client_address("10.0.0.1:1".parse().unwrap(), values.iter().map(String::as_bytes), &trusted());
            prop_assert_eq!(found, "192.0.2.99".parse::<IpAddr>().unwrap());
        }

        #[test]
        fn an_untrusted_answer_stands_in_the_list_or_is_the_peer(elements in prop::collection::vec(element(), 0..8)) {
            let value = elements.join(",");
            let peer = "10.0.0.1:1".parse().unwrap();
            let found = client_address(peer, [value.as_bytes()], &trusted());
            let listed = value.split(',').filter_map(|element| address(trim(element.as_bytes())));
            prop_assert!(found == peer.ip() || listed.map(|ip| ip.to_canonical()).any(|ip| ip == found));
            let stranger = "192.0.2.1:1".parse().unwrap();
            prop_assert_eq!(client_address(stranger, [value.as_bytes()], &trusted()), stranger.ip());
        }
    }
}
