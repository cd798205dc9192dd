//! Who may speak to a client, and from which address it hears.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::support::udp::{Datagrams, LARGEST, UdpBackend, bound, dial, has_ipv6};
use crate::support::{PATIENCE, Setup};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn the_reply_comes_from_the_address_the_client_used() {
    let rows: [(&str, &str, &[&str]); 6] = [
        ("one address", "127.0.0.2:0", &["127.0.0.2"]),
        ("any IPv4 address", "0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.0.0.3"]),
        ("one IPv6 address", "[::1]:0", &["::1"]),
        ("any address of both families", "[::]:0", &["::1", "127.0.0.1", "127.0.0.2", "127.0.0.3"]),
        ("any IPv6 address", "[::]:0", &["::1"]),
        ("any address of both families, IPv4 first", "[::]:0", &["127.0.0.3", "::1"]),
    ];
    for (why, bind, addresses) in rows {
        if bind.starts_with('[') && !has_ipv6() {
            continue;
        }
        for workers in [1, 2] {
            let backend = UdpBackend::echo();
            let global = format!("workers = {workers}");
            let lb = Setup::udp(backend.addr).global(&global).bind(&format!("\"{bind}\"")).start();
            let port = lb.addr().port();
            for address in addresses {
                let why = format!("{why} ({bind}) by {address}, {workers} worker(s)");
                // connected: the kernel keeps from it what comes from elsewhere
                let client = dial(SocketAddr::new(ip(address), port));
                for size in [1, 1200, 9000] {
                    assert!(client.ask(&vec![7; size]) == vec![7; size], "{why}: {size} bytes");
                }
                (0..20).for_each(|i| client.say(&[i; 1000]));
                (0..20).for_each(|i| assert!(client.take() == [i; 1000], "{why}: datagram {i} of a burst"));
            }
        }
    }
}

#[test]
fn one_client_may_use_several_addresses_of_a_wildcard_at_once() {
    let backend = UdpBackend::echo();
    let lb = Setup::udp(backend.addr).bind("\"0.0.0.0:0\"").start();
    let client = bound(Ipv4Addr::LOCALHOST.into());
    let asked: Vec<SocketAddr> =
        (1..=9).map(|i| SocketAddr::from((Ipv4Addr::new(127, 0, 0, i), lb.addr().port()))).collect();
    for round in 0..3 {
        for (i, to) in asked.iter().enumerate() {
            client.send_to(&[round, i as u8], to).expect("sent");
        }
        let mut answers: Vec<_> = asked
            .iter()
            .map(|_| {
                let mut answer = [0; 16];
                let (n, from) = client.recv_from(&mut answer).expect("an answer from each");
                (answer[..n].to_vec(), from)
            })
            .collect();
        answers.sort();
        let expected: Vec<_> = asked.iter().enumerate().map(|(i, to)| (vec![round, i as u8], *to)).collect();
        assert_eq!(answers, expected);
    }
    assert_eq!(backend.peers().len(), asked.len(), "a session for each address of ours that it uses");
}

#[test]
fn families_may_differ_between_client_and_backend() {
    if !has_ipv6() {
        return;
    }
    let six = UdpBackend::at("[::1]:0".parse().expect("an address"), |bytes| Some(bytes.to_vec())).expect("a port");
    let four = UdpBackend::echo();
    for (why, backend, bind) in
        [("IPv4 to IPv6", &six, "127.0.0.1:0"), ("IPv6 to IPv4", &four, "[::1]:0"), ("IPv6 only", &six, "[::1]:0")]
    {
        let lb = Setup::udp(backend.addr).bind(&format!("\"{bind}\"")).start();
        let client = dial(lb.addr());
        for size in [1, 1200, LARGEST] {
            assert!(client.ask(&vec![1; size]) == vec![1; size], "{why}: {size} bytes");
        }
    }
}

#[test]
fn a_backend_sees_one_source_for_a_client_and_may_speak_first_on_it() {
    let backend = UdpBackend::silent();
    let lb = Setup::udp(backend.addr).start();
    let client = dial(lb.addr());
    client.say(b"here I am");
    let peer = backend.wait_for(1).from;
    for i in 0..10_u8 {
        backend.send(&[i; 100], peer);
        assert_eq!(client.take(), [i; 100], "datagrams that nobody asked for");
    }
}

#[test]
fn a_stranger_that_writes_to_a_sessions_socket_is_not_heard() {
    let modes = [
        ("a socket for each session", ""),
        ("sessions that end by replies", "udp_responses = 1000"),
        ("a session for each datagram", "udp_requests = 1"),
        ("a session for three datagrams", "udp_requests = 3"),
    ];
    for (why, pool) in modes {
        let backend = UdpBackend::silent();
        let lb = Setup::udp(backend.addr).pool(pool).start();
        let client = dial(lb.addr());
        client.say(b"hello");
        let peer = backend.wait_for(1).from;
        let to = SocketAddr::new(ip("127.0.0.1"), peer.port());
        let same_port =
            UdpSocket::bind(SocketAddr::new(ip("127.0.0.2"), backend.addr.port())).expect("it is free there");
        let same_address = bound(ip("127.0.0.1"));
        let neither = bound(ip("127.0.0.3"));
        for stranger in [&same_address, &same_port, &neither] {
            for bytes in [&b"evil"[..], b"", &[0; 1200]] {
                // nobody may be there for him: that is an answer too, and may be told at his next word
                let _ = stranger.send_to(bytes, to);
            }
        }
        // in the same queue behind the strangers' words
        backend.send(b"good", peer);
        assert_eq!(client.take(), b"good", "{why}: a stranger was heard");
        assert!(client.is_silent_for(Duration::from_millis(50)), "{why}: a stranger was heard");
        backend.send(b"still there", peer);
        assert_eq!(client.take(), b"still there", "{why}: what a stranger does must not harm the session");
        // nor does he become a client of ours: what he sent comes to no backend
        assert_eq!(backend.received(), 1, "{why}");
        same_address.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
        assert!(same_address.recv(&mut [0; 16]).is_err(), "{why}: somebody answers strangers");
    }
}

#[test]
fn another_backend_of_the_pool_is_a_stranger_to_a_session_that_is_not_its_own() {
    let (a, b) = (UdpBackend::silent(), UdpBackend::silent());
    let lb = Setup::udp(a.addr).backend(b.addr).start();
    let (first, second) = (dial(lb.addr()), dial(lb.addr()));
    first.say(b"to a");
    let of_a = a.wait_for(1).from;
    second.say(b"to b");
    let of_b = b.wait_for(1).from;
    a.send(b"wrong", of_b);
    b.send(b"wrong", of_a);
    a.send(b"from a", of_a);
    b.send(b"from b", of_b);
    assert_eq!(first.take_within(PATIENCE).as_deref(), Some(&b"from a"[..]));
    assert_eq!(second.take_within(PATIENCE).as_deref(), Some(&b"from b"[..]));
}
