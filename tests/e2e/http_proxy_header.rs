//! The PROXY protocol both ways: the address that the header tells is the client's, nothing else gets through, and a
//! backend that wants a header gets one on each connection, about whom that connection is for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proxy_header::{ParseConfig, ProxyHeader};

use crate::support::http::{Backend, Wire, get, ok, scripted};
use crate::support::ports::Refusing;
use crate::support::{Client, Ending, PATIENCE, Server, Setup, wait_until};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 with this command and family, these addresses, and what follows them.
fn v2(command: u8, family: u8, addresses: &[u8], more: &[u8]) -> Vec<u8> {
    let length = (addresses.len() + more.len()) as u16;
    [SIGNATURE, &[0x20 | command, family], &length.to_be_bytes(), addresses, more].concat()
}

/// 192.0.2.7:5000 to 198.51.100.1:80
const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 0, 80];

fn ipv6() -> Vec<u8> {
    let mut addresses = vec![0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    addresses.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    addresses.extend([0x13, 0x88, 0, 80]);
    addresses
}

/// Headers, and the client that they tell.
fn good() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("v1, IPv4", b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 80\r\n".to_vec(), "192.0.2.7"),
        ("v1, IPv6", b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 80\r\n".to_vec(), "2001:db8::7"),
        ("v1, unknown", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ("v1, unknown with more", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), "127.0.0.1"),
        ("v2, IPv4", v2(1, 0x11, &IPV4, b""), "192.0.2.7"),
        ("v2, IPv6", v2(1, 0x21, &ipv6(), b""), "2001:db8::7"),
        ("v2, IPv4 and a value", v2(1, 0x11, &IPV4, b"\x04\x00\x03abc"), "192.0.2.7"),
        ("v2, the proxy's own check", v2(0, 0x00, b"", b""), "127.0.0.1"),
        ("v2, its own with addresses", v2(0, 0x11, &IPV4, b""), "127.0.0.1"),
    ]
}

#[test]
fn the_address_told_is_the_client_of_every_request() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).listener("accept_proxy = true").start();
    for (why, header, client) in good() {
        for (how, pieces) in [("at once", false), ("byte by byte", true)] {
            let mut wire = Wire::to(lb.addr());
            let all = [&header, get("/").as_bytes()].concat();
            if pieces {
                all.iter().for_each(|byte| wire.send([*byte]));
            } else {
                wire.send(&all);
            }
            assert_eq!(wire.response().status(), 200, "{why}, {how}");
            assert_eq!(wire.ask(get("/second")).status(), 200, "{why}, {how}");
            for request in backend.take_seen() {
                assert_eq!(request.head.get("x-forwarded-for"), Some(client), "{why}, {how}");
            }
        }
    }
}

#[test]
fn the_address_told_is_the_one_that_is_trusted_or_not() {
    let backend = Backend::named("b");
    let listener = "accept_proxy = true\ntrusted_proxies = [\"192.0.2.0/24\"]";
    let lb = Setup::http(backend.addr()).listener(listener).start();
    for (source, expected) in [("192.0.2.7", "203.0.113.9, 192.0.2.7"), ("192.0.3.7", "192.0.3.7")] {
        let mut wire = Wire::to(lb.addr());
        wire.send(format!("PROXY TCP4 {source} 198.51.100.1 5000 80\r\n"));
        wire.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
        assert_eq!(backend.only().head.get("x-forwarded-for"), Some(expected));
    }
}

#[test]
fn tcp_gets_what_follows_the_header_and_nothing_of_it() {
    let echo = Server::echo();
    let lb = Setup::to(echo.addr).listener("accept_proxy = true").start();
    for (why, header, _) in good() {
        for pieces in [false, true] {
            let mut wire = Wire::to(lb.addr());
            let all = [&header[..], b"hello"].concat();
            if pieces {
                all.iter().for_each(|byte| wire.send([*byte]));
            } else {
                wire.send(&all);
            }
            assert_eq!(wire.bytes(5), b"hello", "{why}");
            wire.stream.finish();
            wire.expect_end(why);
        }
    }
}

#[test]
fn a_connection_without_a_good_header_is_closed_without_a_byte() {
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("none", get("/").into_bytes()),
        ("almost", b"PROXX TCP4 192.0.2.7 198.51.100.1 5000 80\r\n".to_vec()),
        ("lower case", b"proxy TCP4 192.0.2.7 198.51.100.1 5000 80\r\n".to_vec()),
        ("no address", b"PROXY TCP4 nobody 198.51.100.1 5000 80\r\n".to_vec()),
        ("the wrong family", b"PROXY TCP4 2001:db8::7 2001:db8::1 5000 80\r\n".to_vec()),
        ("no port", b"PROXY TCP4 192.0.2.7 198.51.100.1 70000 80\r\n".to_vec()),
        ("two spaces", b"PROXY TCP4  192.0.2.7 198.51.100.1 5000 80\r\n".to_vec()),
        ("only LF", b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 80\n".to_vec()),
        ("longer than 107", format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).into_bytes()),
        ("v2 with another version", [SIGNATURE, &[0x11, 0x11, 0, 12], &IPV4].concat()),
        ("v2 with another command", v2(2, 0x11, &IPV4, b"")),
        ("v2 too short for its family", v2(1, 0x11, &IPV4[..8], b"")),
        ("v2 with a wrong signature", [&b"\r\n\r\n\0\r\nQUIX\n"[..], &[0x21, 0x11, 0, 12], &IPV4[..]].concat()),
    ];
    for protocol in ["http", "tcp"] {
        let backend = Backend::named("reached");
        let setup = Setup { protocol, ..Setup::to(backend.addr()) };
        let lb = setup.listener("accept_proxy = true").start();
        for (why, header) in &rows {
            let mut wire = Wire::to(lb.addr());
            wire.try_send([&header[..], get("/").as_bytes()].concat());
            assert_eq!(wire.rest().0, b"", "{protocol}, {why}");
        }
        assert_eq!(backend.accepted(), 0, "{protocol}");
    }
}

#[test]
fn header_timeout_bounds_the_wait_for_the_header() {
    for protocol in ["http", "tcp"] {
        let backend = Backend::named("reached");
        let setup = Setup { protocol, ..Setup::to(backend.addr()) };
        let lb = setup.listener("accept_proxy = true\nheader_timeout = \"300ms\"").start();
        for sent in [&b""[..], b"PROXY TCP4 192.0", &SIGNATURE[..5]] {
            let since = Instant::now();
            let mut wire = Wire::to(lb.addr());
            wire.send(sent);
            assert_eq!(wire.rest().0, b"", "{protocol}");
            let took = since.elapsed();
            assert!(took >= Duration::from_millis(290) && took < PATIENCE / 3, "{protocol}: {took:?}");
        }
        assert_eq!(backend.accepted(), 0);
    }
}

#[test]
fn without_accept_proxy_a_header_is_no_request() {
    let backend = Backend::named("reached");
    let lb = Setup::http(backend.addr()).start();
    let mut wire = Wire::to(lb.addr());
    wire.send(["PROXY TCP4 192.0.2.7 198.51.100.1 5000 80\r\n", &get("/")].concat());
    assert_eq!(wire.response().status(), 400);
    assert_eq!(backend.accepted(), 0);
}

/// What the header of this version says that a connection begins with: from where to where. A well-kept reader of
/// both versions does the reading.
fn introduction(wire: &mut Wire, version: &str) -> Option<(SocketAddr, SocketAddr)> {
    let bytes = if version == "v1" {
        wire.until(b"\r\n").expect("a line")
    } else {
        let mut bytes = wire.bytes(16);
        let length = u16::from_be_bytes([bytes[14], bytes[15]]);
        bytes.extend(wire.bytes(length.into()));
        bytes
    };
    assert_eq!(bytes.starts_with(b"PROXY "), version == "v1", "{bytes:?}");
    let (header, used) = ProxyHeader::parse(&bytes, ParseConfig::default()).expect("a PROXY header");
    assert_eq!(used, bytes.len());
    header.proxied_address().map(|told| (told.source, told.destination))
}

#[test]
fn a_backend_is_told_who_the_client_is_and_where_it_came_in() {
    for protocol in ["http", "tcp"] {
        for version in ["v1", "v2"] {
            let backend = scripted(move |mut wire| {
                let told = introduction(&mut wire, version);
                wire.request();
                wire.send(ok("served"));
                told
            });
            let setup = Setup { protocol, ..Setup::to(backend.addr) };
            let lb = setup.pool(&format!("send_proxy = \"{version}\"")).start();
            let mut client = Wire::to(lb.addr());
            let from = client.stream.local_addr().expect("connected");
            assert_eq!(client.ask(get("/")).text(), "served", "{protocol} {version}");
            assert_eq!(backend.outcome(), Some((from, lb.addr())), "{protocol} {version}");
        }
    }
}

#[test]
fn what_a_header_told_us_is_what_we_tell() {
    for (protocol, version) in [("http", "v1"), ("http", "v2"), ("tcp", "v1"), ("tcp", "v2")] {
        let backend = scripted(move |mut wire| {
            let told = introduction(&mut wire, version);
            wire.request();
            wire.send(ok("served"));
            told
        });
        let setup = Setup { protocol, ..Setup::to(backend.addr) }.listener("accept_proxy = true");
        let lb = setup.pool(&format!("send_proxy = \"{version}\"")).start();
        let rows = [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 5000 80\r\n", "192.0.2.7:5000", "198.51.100.1:80"),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 5000 80\r\n", "[2001:db8::7]:5000", "[2001:db8::1]:80"),
        ];
        for (header, source, destination) in rows {
            let mut client = Wire::to(lb.addr());
            client.send(header);
            assert_eq!(client.ask(get("/")).text(), "served");
            let expected = (source.parse().expect("an address"), destination.parse().expect("an address"));
            assert_eq!(backend.outcome(), Some(expected), "{protocol} {version}: {header}");
        }
    }
}

/// A backend that wants a header, answers with the port it was told, and keeps the connection.
fn telling_ports() -> Server {
    scripted(|mut wire| {
        let (client, _) = introduction(&mut wire, "v1").expect("an address");
        while wire.next_request().is_some() {
            wire.send(ok(client.port().to_string()));
        }
    })
}

const SEND: &str = "send_proxy = \"v1\"\n";

#[test]
fn a_connection_told_of_one_client_never_carries_another() {
    let backend = telling_ports();
    let lb = Setup::http(backend.addr).global("workers = 1\n").pool(SEND).start();
    let mut clients: Vec<_> = (0..5).map(|_| Wire::to(lb.addr())).collect();
    for _ in 0..5 {
        for client in &mut clients {
            let port = client.stream.local_addr().expect("connected").port().to_string();
            assert_eq!(client.ask(get("/")).text(), port);
        }
    }
    assert_eq!(backend.accepted(), clients.len(), "and each client's is used again");
    drop(clients);
    wait_until("they end with their clients", || backend.open() == 0);
}

#[test]
fn a_header_is_sent_once_more_when_another_backend_is_tried() {
    let (refusing, backend) = (Refusing::new(), telling_ports());
    let lb = Setup::http(refusing.addr).backend(backend.addr).pool(SEND).start();
    for _ in 0..4 {
        let mut client = Wire::to(lb.addr());
        let port = client.stream.local_addr().expect("connected").port().to_string();
        assert_eq!(client.ask(get("/")).text(), port);
    }
}

#[test]
fn bytes_on_an_idle_connection_told_of_a_client_are_never_an_answer() {
    let backend = scripted(|mut wire| {
        introduction(&mut wire, "v1");
        wire.request();
        wire.send(ok("first"));
        std::thread::sleep(Duration::from_millis(20));
        wire.try_send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        wire.rest().0
    });
    let lb = Setup::http(backend.addr).pool(SEND).start();
    let mut client = Wire::to(lb.addr());
    for _ in 0..5 {
        assert_eq!(client.ask(get("/")).text(), "first");
        assert_eq!(String::from_utf8_lossy(&backend.outcome()), "", "no second request on it");
    }
}
