//! A connection that changes its protocol is a tunnel from the backend's 101 on, and not before.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Message, WebSocket};

use crate::support::http::{Backend, Wire, ask, get, ok, scripted};
use crate::support::{Client, Ending, PATIENCE, Pattern, Server, Setup, connect};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x-test\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x-test\r\n\r\n";

/// A WebSocket server that sends messages back.
fn websocket_echo() -> Server<u64> {
    Server::new(|stream| {
        let mut socket = tungstenite::accept_with_config(stream, Some(large())).expect("a handshake");
        let mut messages = 0;
        loop {
            match socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                    socket.send(message).expect("the echo is taken");
                    messages += 1;
                }
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return messages,
                Err(error) => panic!("after {messages} messages: {error}"),
            }
        }
    })
}

fn large() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(32 << 20)).max_frame_size(Some(32 << 20))
}

fn websocket(addr: SocketAddr) -> WebSocket<TcpStream> {
    let stream = connect(addr);
    let asked = tungstenite::client::client_with_config(format!("ws://{addr}/chat?x=1"), stream, Some(large()));
    asked.unwrap_or_else(|error| panic!("no WebSocket: {error}")).0
}

#[test]
fn websocket_messages_of_sixteen_mebibytes_come_back() {
    let backend = websocket_echo();
    let lb = Setup::http(backend.addr).start();
    let mut socket = websocket(lb.addr());
    for i in 0..4 {
        let content = Bytes::from(Pattern { seed: i }.bytes(0, 16 << 20));
        // both write at once: neither side's buffers hold a whole message
        socket.send(Message::Binary(content.clone())).expect("it is taken");
        assert!(socket.read().expect("the echo") == Message::Binary(content), "message {i} came back changed");
    }
    socket.close(None).expect("a close frame");
    while socket.read().is_ok() {}
    assert_eq!(backend.outcome(), 4);
}

#[test]
fn many_small_websocket_messages_come_back_in_order() {
    let backend = websocket_echo();
    let lb = Setup::http(backend.addr).start();
    let mut sockets: Vec<_> = (0..20).map(|_| websocket(lb.addr())).collect();
    for i in 0..100 {
        for socket in &mut sockets {
            socket.send(Message::text(format!("message {i}"))).expect("it is taken");
        }
        for socket in &mut sockets {
            assert_eq!(socket.read().expect("the echo"), Message::text(format!("message {i}")));
        }
    }
    for mut socket in sockets {
        socket.close(None).expect("a close frame");
        while socket.read().is_ok() {}
        assert_eq!(backend.outcome(), 100);
    }
}

#[test]
fn bytes_sent_early_reach_the_backend_behind_the_request_and_only_after_101() {
    for size in [5, 100_000] {
        let early = Pattern { seed: 7 }.bytes(0, size);
        let expected = early.clone();
        let backend = scripted(move |mut wire| {
            let head = wire.head();
            assert!(wire.stream.is_silent_for(Duration::from_millis(100)), "nothing before 101");
            wire.send(SWITCHED);
            wire.send("first");
            assert!(wire.bytes(expected.len()) == expected);
            wire.send("last");
            head
        });
        let lb = Setup::http(backend.addr).start();
        let mut client = Wire::to(lb.addr());
        client.send([UPGRADE.as_bytes(), &early].concat());
        let head = client.head();
        assert_eq!((head.status(), head.get("upgrade")), (101, Some("x-test")));
        assert!(head.all("connection").any(|value| value.eq_ignore_ascii_case("upgrade")));
        assert_eq!(client.bytes(9), b"firstlast");
        let seen = backend.outcome();
        assert_eq!((seen.get("upgrade"), seen.get("connection")), (Some("x-test"), Some("upgrade")));
        client.expect_end("the backend has ended");
    }
}

#[test]
fn bytes_that_come_with_101_are_not_lost() {
    let backend = scripted(|mut wire| {
        wire.head();
        wire.send([SWITCHED, "at once"].concat());
        wire.rest()
    });
    let lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    client.send(UPGRADE);
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.bytes(7), b"at once");
    client.send("and back");
    client.stream.finish();
    assert_eq!(backend.outcome(), (b"and back".to_vec(), Ending::Clean));
    client.expect_end("both have ended");
}

#[test]
fn half_a_tunnel_may_end_before_the_other_half() {
    let backend = scripted(|mut wire| {
        wire.head();
        wire.send(SWITCHED);
        let (all, ending) = wire.rest();
        wire.send(all);
        ending
    });
    let lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    client.send(UPGRADE);
    client.head();
    let content = Pattern { seed: 9 }.bytes(0, 500_000);
    client.send(&content);
    client.stream.finish();
    let (back, ending) = client.rest();
    assert!(back == content && ending == Ending::Clean);
    assert_eq!(backend.outcome(), Ending::Clean);
}

#[test]
fn a_backend_that_does_not_want_to_answers_as_ever() {
    let backend = Backend::new(|request| match request.head.target() {
        "/chat" => b"HTTP/1.1 426 No\r\nUpgrade: other\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno".to_vec(),
        other => ok(other),
    });
    let lb = Setup::http(backend.addr()).global("workers = 1\n").start();
    let mut client = Wire::to(lb.addr());
    // what is sent behind an upgrade that was refused is a request
    client.send([UPGRADE, &get("/next")].concat());
    let answer = client.response();
    assert_eq!((answer.status(), answer.text()), (426, "no"));
    assert_eq!(client.response().text(), "/next");
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn another_protocol_than_was_asked_for_is_a_502() {
    let rows = [
        ("another one", "Connection: upgrade\r\nUpgrade: other\r\n"),
        ("none", ""),
        ("no Connection", "Upgrade: x-test\r\n"),
        ("two", "Connection: upgrade\r\nUpgrade: x-test\r\nUpgrade: other\r\n"),
    ];
    for (why, fields) in rows {
        let backend = scripted(move |mut wire| {
            wire.head();
            wire.send(format!("HTTP/1.1 101 Switching\r\n{fields}\r\n"));
            wire.rest();
        });
        let lb = Setup::http(backend.addr).start();
        assert_eq!(ask(lb.addr(), UPGRADE).status(), 502, "{why}");
    }
}

#[test]
fn a_tunnel_without_a_byte_ends_after_tunnel_timeout_and_no_other() {
    let backend = scripted(|mut wire| {
        wire.head();
        wire.send(SWITCHED);
        let mut piece = [0; 100];
        while let Ok(n @ 1..) = std::io::Read::read(&mut wire.stream, &mut piece) {
            let _ = wire.stream.write_all(&piece[..n]);
        }
    });
    let lb = Setup::http(backend.addr)
        .listener("tunnel_timeout = \"600ms\"\nidle_timeout = \"100ms\"\nbody_timeout = \"100ms\"\nheader_timeout = \"100ms\"")
        .pool("response_timeout = \"200ms\"")
        .start();
    let mut client = Wire::to(lb.addr());
    client.send(UPGRADE);
    client.head();
    let mut last = Instant::now();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        last = Instant::now();
        client.send("ping");
        assert_eq!(client.bytes(4), b"ping");
    }
    client.rest();
    let silent = last.elapsed();
    assert!(silent >= Duration::from_millis(590) && silent < PATIENCE / 3, "after {silent:?}");
    backend.outcome();
}
