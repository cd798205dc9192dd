//! Backends that do not behave: a client gets an honest error or sees that its answer was cut, and never what was
//! meant for another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::http::{Backend, Wire, ask, chunked, get, ok, scripted};
use crate::support::ports::{Blackhole, Refusing};
use crate::support::{Client, Ending, PATIENCE, Setup};

const POST: &str = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

/// One worker, which keeps all idle connections.
const ONE: &str = "workers = 1\nshutdown_timeout = \"5s\"\n";

#[test]
fn what_is_no_response_is_a_502() {
    let rows: [(&str, Vec<u8>); 28] = [
        ("nothing at all", b"".to_vec()),
        ("the beginning of a head", b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()),
        ("bytes", b"\x00\x01\x02\x03\r\n\r\n".to_vec()),
        ("HTTP/2", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\r\n\r\n".to_vec()),
        ("no version", b"200 OK\r\n\r\n".to_vec()),
        ("another version", b"HTTP/2.0 200 OK\r\n\r\n".to_vec()),
        ("a status of two digits", b"HTTP/1.1 20 OK\r\n\r\n".to_vec()),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n".to_vec()),
        ("a status of letters", b"HTTP/1.1 abc OK\r\n\r\n".to_vec()),
        ("a status below 100", b"HTTP/1.1 099 OK\r\n\r\n".to_vec()),
        ("a space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi".to_vec()),
        ("a folded line", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi".to_vec()),
        ("a line without a colon", b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nhi".to_vec()),
        ("an empty name", b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 2\r\n\r\nhi".to_vec()),
        ("NUL in a value", b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nhi".to_vec()),
        ("CR in a value", b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nhi".to_vec()),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi".to_vec()),
        ("a list of lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nhi".to_vec()),
        ("a negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi".to_vec()),
        ("no number", b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nhi".to_vec()),
        ("a coding nobody asked for", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_vec()),
        ("chunks in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
        ("chunk size wrong at once", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".to_vec()),
        ("101 that nobody asked for", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec()),
        ("interim responses without end", b"HTTP/1.1 102 Processing\r\n\r\n".repeat(5_000)),
        ("a head without end", [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), b"y".repeat(1 << 20)].concat()),
        ("fields without end", [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".repeat(5_000)].concat()),
    ];
    for (why, response) in rows {
        let backend = scripted(move |mut wire| {
            wire.request();
            wire.try_send(&response);
        });
        let lb = Setup::http(backend.addr).start();
        for request in [get("/"), POST.to_owned()] {
            let answer = ask(lb.addr(), &request);
            assert_eq!(answer.status(), 502, "{why}: {answer:?}");
            assert!(!answer.text().contains(&backend.addr.to_string()), "{why}: names the backend: {answer:?}");
            backend.outcome();
        }
    }
}

#[test]
fn an_answer_that_is_cut_short_never_looks_whole() {
    // the head and what comes of the body; a pause between them, so that the head is passed on before
    let rows: [(&str, &str, &str, &str); 6] = [
        ("shorter than its length", "1.1", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "begin"),
        ("no byte of it", "1.1", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", ""),
        ("no last chunk", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nbegin\r\n"),
        ("within a chunk", "1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "50\r\nbegin"),
        ("to HTTP/1.0 by length", "1.0", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "begin"),
        (
            "to HTTP/1.0, where the end is all",
            "1.0",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "5\r\nbegin\r\n",
        ),
    ];
    for (why, version, head, body) in rows {
        let (tell, go) = channel::<()>();
        let go = Mutex::new(go);
        let backend = scripted(move |mut wire| {
            wire.request();
            wire.send(head);
            wire.send(body);
            go.lock().expect("never poisoned").recv_timeout(PATIENCE).expect("the client has read the head");
        });
        let lb = Setup::http(backend.addr).start();
        let mut client = Wire::to(lb.addr());
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"));
        assert_eq!(client.head().status(), 200, "{why}");
        tell.send(()).expect("the backend waits");
        let (rest, ending) = client.rest();
        assert_eq!(ending, Ending::Reset, "{why}: after {:?}", String::from_utf8_lossy(&rest));
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{why}");
    }
}

#[test]
fn what_arrived_before_the_cut_is_delivered_before_the_cut() {
    let content = crate::support::Pattern { seed: 81 }.bytes(0, 1_000_000);
    let sent = content.clone();
    let backend = scripted(move |mut wire| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n");
        wire.send(&sent);
    });
    let lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    client.send(get("/"));
    client.head();
    let (rest, ending) = client.rest();
    assert_eq!(ending, Ending::Reset);
    assert!(rest == content, "{} bytes of {}", rest.len(), content.len());
}

#[test]
fn a_chunk_that_goes_wrong_later_cuts_the_answer() {
    for version in ["1.1", "1.0"] {
        let (tell, go) = channel::<()>();
        let go = Mutex::new(go);
        let backend = scripted(move |mut wire| {
            wire.request();
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n");
            go.lock().expect("never poisoned").recv_timeout(PATIENCE).expect("the client has read the head");
            wire.send("what?\r\n0\r\n\r\n");
            wire.rest();
        });
        let lb = Setup::http(backend.addr).start();
        let mut client = Wire::to(lb.addr());
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"));
        assert_eq!(client.head().status(), 200);
        tell.send(()).expect("the backend waits");
        let (rest, ending) = client.rest();
        assert_eq!(ending, Ending::Reset, "HTTP/{version}: after {:?}", String::from_utf8_lossy(&rest));
        backend.outcome();
    }
}

#[test]
fn bytes_that_nobody_asked_for_are_never_the_next_answer() {
    const POISON: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let rows: [(&str, &str, Vec<u8>); 6] = [
        ("longer than its length", "GET", [ok("good"), POISON.to_vec()].concat()),
        (
            "a body with HEAD",
            "HEAD",
            [b"HTTP/1.1 200 OK\r\nContent-Length: 51\r\n\r\n".to_vec(), POISON.to_vec()].concat(),
        ),
        ("a body with 204", "GET", [b"HTTP/1.1 204 No\r\n\r\n".to_vec(), POISON.to_vec()].concat()),
        (
            "a body with 304",
            "GET",
            [b"HTTP/1.1 304 No\r\nContent-Length: 51\r\n\r\n".to_vec(), POISON.to_vec()].concat(),
        ),
        (
            "something behind the last chunk",
            "GET",
            [
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                chunked(b"good", 4, ""),
                POISON.to_vec(),
            ]
            .concat(),
        ),
        ("one byte more", "GET", [ok("good"), b"\n".to_vec()].concat()),
    ];
    for (why, method, response) in rows {
        let backend = scripted(move |mut wire| {
            while let Some(request) = wire.next_request() {
                if request.head.target() == "/bad" {
                    wire.send(&response);
                } else {
                    wire.send(ok("right"));
                }
            }
        });
        let lb = Setup::http(backend.addr).global(ONE).start();
        let mut client = Wire::to(lb.addr());
        for _ in 0..5 {
            client.ask(format!("{method} /bad HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(client.ask(get("/good")).text(), "right", "{why}");
        }
    }
}

#[test]
fn bytes_on_an_idle_connection_are_never_an_answer_and_close_it() {
    let backend = scripted(|mut wire| {
        wire.request();
        wire.send(ok("first"));
        // it has been read and kept; now say something unasked
        thread::sleep(Duration::from_millis(20));
        wire.try_send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        wire.rest().0
    });
    let lb = Setup::http(backend.addr).global(ONE).start();
    let mut client = Wire::to(lb.addr());
    for _ in 0..5 {
        assert_eq!(client.ask(get("/")).text(), "first");
        assert_eq!(String::from_utf8_lossy(&backend.outcome()), "", "no second request on it");
    }
}

#[test]
fn both_framings_in_an_answer_are_read_as_chunks_and_the_connection_is_not_kept() {
    let backend = Backend::new(|_| {
        let mut response = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        response.extend(chunked(b"hello", 5, ""));
        response
    });
    let lb = Setup::http(backend.addr()).global(ONE).start();
    let mut client = Wire::to(lb.addr());
    for i in 1..4 {
        let answer = client.ask(get("/"));
        assert!(answer.head.is_chunked(), "and no length: {:?}", answer.head);
        assert_eq!(answer.text(), "hello");
        assert_eq!(backend.accepted(), i);
    }
}

#[test]
fn a_connection_closed_as_it_is_used_again_costs_an_idempotent_request_nothing() {
    // serves one request and closes when the second comes: what a backend's own keep-alive timeout looks like
    let posts = Arc::new(AtomicUsize::new(0));
    let count = posts.clone();
    let backend = scripted(move |mut wire| {
        let request = wire.request();
        if request.head.method() == "POST" {
            count.fetch_add(1, Ordering::SeqCst);
        }
        wire.send(ok("served"));
        if let Some(request) = wire.next_request()
            && request.head.method() == "POST"
        {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let lb = Setup::http(backend.addr).global(ONE).pool("retries = 0").start();
    let mut client = Wire::to(lb.addr());
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for i in 0..4 {
            let answer = client.ask(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(answer.status(), 200, "{method} {i}");
        }
    }
    // a POST may have been done already
    let answer = client.ask(POST);
    assert_eq!(answer.status(), 502);
    assert_eq!(posts.load(Ordering::SeqCst), 1, "it was asked once");
}

#[test]
fn an_idle_connection_that_the_backend_closed_is_not_used_again() {
    let backend = scripted(|mut wire| {
        wire.request();
        wire.send(ok("served"));
        wire.stream.finish();
        wire.rest()
    });
    let lb = Setup::http(backend.addr).global(ONE).start();
    let mut client = Wire::to(lb.addr());
    for i in 0..20 {
        assert_eq!(client.ask(POST).status(), 200, "{i}");
        assert_eq!(backend.outcome(), (Vec::new(), Ending::Clean), "{i}: it was noticed and closed");
    }
}

#[test]
fn a_slow_head_is_a_504_and_is_not_asked_elsewhere() {
    for request in [get("/"), POST.to_owned()] {
        let slow = scripted(|mut wire| {
            wire.request();
            wire.rest().0.len()
        });
        let other = Backend::named("other");
        let lb = Setup::http(slow.addr)
            .backend(other.addr())
            .global(ONE)
            .pool("response_timeout = \"300ms\"\nretries = 3")
            .start();
        let asked = Instant::now();
        let answer = ask(lb.addr(), &request);
        assert_eq!(answer.status(), 504);
        assert!(asked.elapsed() >= Duration::from_millis(290), "after {:?}", asked.elapsed());
        assert!(asked.elapsed() < PATIENCE / 3, "after {:?}", asked.elapsed());
        assert_eq!(other.accepted(), 0);
        slow.outcome();
    }
}

#[test]
fn a_backend_that_never_accepts_is_a_504_or_another_one() {
    let blackhole = Blackhole::new();
    let lb = Setup::http(blackhole.addr).pool("connect_timeout = \"300ms\"").start();
    assert_eq!(ask(lb.addr(), get("/")).status(), 504);
    let other = Backend::named("other");
    let lb = Setup::http(blackhole.addr).backend(other.addr()).pool("connect_timeout = \"300ms\"").start();
    assert_eq!(ask(lb.addr(), POST).text(), "other", "nothing was sent, so a POST may go elsewhere too");
}

#[test]
fn refused_connections_are_tried_elsewhere_and_are_a_502_at_last() {
    let (refusing, other) = (Refusing::new(), Backend::named("other"));
    let lb = Setup::http(refusing.addr).backend(other.addr()).start();
    for request in [POST.to_owned(), get("/")] {
        for _ in 0..4 {
            assert_eq!(ask(lb.addr(), &request).text(), "other");
        }
    }
    let lb = Setup::http(refusing.addr).start();
    assert_eq!(ask(lb.addr(), POST).status(), 502);
}

#[test]
fn a_backend_that_closes_without_an_answer_is_repeated_elsewhere_only_where_that_is_safe() {
    let rows: [(&str, &str, u16); 4] = [
        ("GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("DELETE", "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("POST", POST, 502),
        ("PATCH", "PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 502),
    ];
    for (why, request, status) in rows {
        let rude = scripted(|mut wire| {
            wire.request();
        });
        let other = Backend::named("other");
        let lb = Setup::http(rude.addr).backend(other.addr()).global(ONE).start();
        assert_eq!(ask(lb.addr(), request).status(), status, "{why}");
        assert_eq!(other.take_seen().len(), usize::from(status == 200), "{why}");
        rude.outcome();
    }
}

#[test]
fn a_backend_that_began_an_answer_is_not_repeated() {
    let rude = scripted(|mut wire| {
        wire.request();
        wire.send("HTTP/1.1 20");
    });
    let other = Backend::named("other");
    let lb = Setup::http(rude.addr).backend(other.addr()).global(ONE).start();
    assert_eq!(ask(lb.addr(), get("/")).status(), 502);
    assert_eq!(other.accepted(), 0);
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    let (tell, told) = channel();
    let backend = scripted(move |mut wire| {
        wire.request();
        tell.send(()).expect("the test waits");
        wire.rest().0
    });
    let lb = Setup::http(backend.addr).start();
    for _ in 0..10 {
        let mut client = Wire::to(lb.addr());
        client.send(get("/"));
        told.recv_timeout(PATIENCE).expect("the backend is asked");
        client.stream.reset();
        assert_eq!(backend.outcome(), b"", "its connection ends too");
    }
}

#[test]
fn a_body_that_came_with_its_head_goes_along_when_another_backend_is_tried() {
    let (refusing, other) = (Refusing::new(), Backend::new(|request| ok(&request.body)));
    for size in [1, 5_000, 50_000, 1_000_000] {
        // anew each time: one that has refused is set aside
        let lb = Setup::http(refusing.addr).backend(other.addr()).start();
        let body = crate::support::Pattern { seed: 82 }.bytes(0, size);
        for _ in 0..3 {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
            assert!(ask(lb.addr(), [request.as_bytes(), &body].concat()).body == body, "{size} bytes");
        }
    }
}
