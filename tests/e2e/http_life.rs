//! Connections from their beginning to their end: errors that cost no connection, clients that leave, readers that
//! are slow, and a drain; nothing is left behind.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::http::{Backend, Wire, chunked, get, ok, scripted};
use crate::support::ports::Refusing;
use crate::support::{Client, Ending, Pattern, Setup, proc, wait_until};

#[test]
fn an_error_of_ours_costs_a_client_its_connection_only_where_the_next_request_is_not_certain() {
    let refusing = Refusing::new();
    let route = "[[listener.route]]\npath = \"/none\"\nhost = \"nobody\"\npool = \"out\"\n";
    let lb = Setup::http(refusing.addr).listener(route).start();
    let rows = [
        ("nothing follows the head", get("/"), false),
        ("the body has come", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n".to_owned(), true),
        ("the client wants to go", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(), true),
        ("HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n\r\n".to_owned(), true),
    ];
    for (why, request, closes) in rows {
        let mut client = Wire::to(lb.addr());
        let answer = client.ask(&request);
        assert_eq!((answer.status(), answer.head.closes()), (502, closes), "{why}");
        if closes {
            client.expect_end(why);
        } else {
            assert_eq!(client.ask(&request).status(), 502, "{why}: the next one");
        }
    }
}

#[test]
fn requests_pipelined_behind_an_error_are_answered() {
    let backend = Backend::echoing_targets();
    let (lb, pool) = (Setup::http(backend.addr()), "pool = \"out\"\n");
    // only /a and below are served
    let toml = lb.toml().replacen(pool, "[[listener.route]]\npath_prefix = \"/a\"\npool = \"out\"\n", 1);
    let lb = crate::support::L4lb::start(crate::support::l4lb::command(&[]), &toml);
    let mut client = Wire::to(lb.addr());
    client.send((0..100).map(|i| get(if i % 2 == 0 { "/b" } else { "/a" })).collect::<String>());
    for i in 0..100 {
        assert_eq!(client.response().status(), if i % 2 == 0 { 404 } else { 200 }, "{i}");
    }
}

#[test]
fn an_upload_that_its_client_cuts_never_looks_whole() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    for (framing, part) in [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n")] {
        for resets in [false, true] {
            let backend = scripted(|mut wire| {
                let head = wire.head();
                let part = wire.bytes(if head.is_chunked() { 10 } else { 5 });
                (part, wire.rest().0)
            });
            let lb = Setup::http(backend.addr).start();
            let mut client = Wire::to(lb.addr());
            client.send(format!("{head}{framing}\r\n\r\n{part}"));
            wait_until("the backend is asked", || backend.accepted() == 1);
            if resets {
                thread::sleep(Duration::from_millis(50)); // a reset may overtake what was sent before it
                client.stream.reset();
            } else {
                client.stream.finish();
            }
            let (begun, rest) = backend.outcome();
            assert_eq!((&*begun, &*rest), (part.as_bytes(), &b""[..]), "{framing}");
        }
    }
}

#[test]
fn clients_that_leave_at_any_point_leave_nothing_behind() {
    let backend = Backend::new(|_| {
        let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        response.extend(chunked(&[b'x'; 100_000], 1000, ""));
        response
    });
    let lb = Setup::http(backend.addr()).pool("keepalive = 0").start();
    let at_start = proc::settled_descriptors(lb.pid());
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for cut in 0..=request.len() {
        for way in 0..3 {
            let mut client = Wire::to(lb.addr());
            client.send(&request[..cut]);
            match way {
                0 => client.stream.reset(),
                1 => client.stream.finish(),
                _ => {}
            }
        }
    }
    proc::wait_for_descriptors(lb.pid(), at_start);
    wait_until("the backend is left alone", || backend.open() == 0);
}

#[test]
fn both_bodies_may_move_at_once_and_neither_stops_the_other() {
    const SIZE: usize = 30_000_000;
    let backend = scripted(|mut wire| {
        let head = wire.head();
        let length = head.length().expect("a length");
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
        let mut left = length;
        while left > 0 {
            let piece = wire.bytes(left.min(50_000));
            left -= piece.len();
            wire.send(piece);
        }
    });
    let lb = Setup::http(backend.addr).start();
    let content = Pattern { seed: 95 }.bytes(0, SIZE);
    let mut client = Wire::to(lb.addr());
    let mut sender = client.stream.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        let content = &content;
        scope.spawn(move || {
            sender.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())?;
            sender.write_all(content)
        });
        assert!(client.response().body == *content);
    });
}

#[test]
fn a_client_that_does_not_read_holds_the_backend_up_and_no_memory() {
    let backend = scripted(|mut wire| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = chunked(&[b'x'; 60_000], 60_000, "");
        let chunk = &chunk[..chunk.len() - 5];
        let mut sent = 0_u64;
        while wire.try_send(chunk) {
            sent += chunk.len() as u64;
        }
        sent
    });
    let lb = Setup::http(backend.addr).start();
    let before = proc::memory_kib(lb.pid());
    let mut clients: Vec<_> = (0..20).map(|_| Wire::to(lb.addr())).collect();
    clients.iter_mut().for_each(|client| client.send(get("/")));
    wait_until("all are served", || backend.open() == 20);
    crate::support::wait_until_still("nothing moves", Duration::from_millis(300), || {
        proc::cpu_time(lb.pid()).as_millis() / 5
    });
    let grown = proc::memory_kib(lb.pid()).saturating_sub(before);
    assert!(grown < 20 * 300, "20 connections hold {grown} KiB");
    drop(clients);
    for _ in 0..20 {
        assert!(backend.outcome() < 100 << 20, "the backend could send without end");
    }
}

#[test]
fn a_drain_ends_idle_connections_at_once_and_lets_answers_end() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let backend = scripted(move |mut wire| {
        while let Some(request) = wire.next_request() {
            if request.head.target() == "/slow" {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
                let _ = told.lock().expect("never poisoned").recv();
                wire.send("later");
            } else {
                wire.send(ok("served"));
            }
        }
    });
    let mut lb = Setup::http(backend.addr).global("workers = 2\nshutdown_timeout = \"20s\"\n").start();
    let (mut idle, mut fresh, mut slow) = (Wire::to(lb.addr()), Wire::to(lb.addr()), Wire::to(lb.addr()));
    assert_eq!(idle.ask(get("/")).text(), "served");
    slow.send(get("/slow"));
    assert_eq!((slow.head().status(), &*slow.bytes(5)), (200, &b"first"[..]));
    let asked = Instant::now();
    lb.signal(Signal::SIGTERM);
    idle.expect_end("an idle connection");
    // its request may be on its way
    let answer = fresh.ask(get("/"));
    assert_eq!((answer.text(), answer.head.closes()), ("served", true), "one that had sent nothing yet");
    assert!(asked.elapsed() < Duration::from_secs(5), "after {:?}", asked.elapsed());
    assert!(lb.is_running(), "one answer is not whole");
    tell.send(()).expect("the backend waits");
    assert_eq!(slow.bytes(5), b"later");
    slow.expect_end("the connection has nothing more to carry");
    assert!(lb.wait_for_exit().success());
    assert!(asked.elapsed() < Duration::from_secs(15), "it did not wait for the time to be over");
}

#[test]
fn an_answer_that_begins_during_a_drain_says_that_the_connection_ends() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let backend = scripted(move |mut wire| {
        wire.head();
        let _ = told.lock().expect("never poisoned").recv();
        wire.send(ok("served"));
        wire.rest();
    });
    let mut lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    client.send(get("/"));
    wait_until("the backend is asked", || backend.open() == 1);
    lb.signal(Signal::SIGTERM);
    wait_until("it listens no more", || std::net::TcpStream::connect(lb.addr()).is_err());
    tell.send(()).expect("the backend waits");
    let answer = client.response();
    assert_eq!(answer.text(), "served");
    assert!(answer.head.closes(), "{:?}", answer.head);
    assert_eq!(client.rest().1, Ending::Clean);
    assert!(lb.wait_for_exit().success());
}
