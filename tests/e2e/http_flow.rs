//! Requests and responses as they should be: every one arrives whole, in order, framed so that its end is certain.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::http::{Backend, Wire, ask, chunked, get, ok, scripted};
use crate::support::{Client, Ending, Pattern, Setup, wait_until};

#[test]
fn one_connection_carries_many_requests_and_so_does_the_one_behind() {
    let backend = Backend::echoing_targets();
    let lb = Setup::http(backend.addr()).start();
    let mut client = Wire::to(lb.addr());
    for i in 0..50 {
        let path = format!("/{i}?q={i}");
        let response = client.ask(get(&path));
        assert_eq!((response.status(), response.text()), (200, &*path));
        assert!(!response.head.closes(), "{:?}", response.head);
    }
    assert_eq!(backend.accepted(), 1, "connections to the backend");
    assert_eq!(backend.take_seen().len(), 50);
}

#[test]
fn ten_thousand_pipelined_requests_are_answered_in_order_and_starve_nobody() {
    const REQUESTS: usize = 10_000;
    let backend = Backend::echoing_targets();
    // one worker, so that the other client is served by the same
    let lb = Setup::http(backend.addr()).global("workers = 1\nshutdown_timeout = \"5s\"\n").start();
    let addr = lb.addr();
    let finished = AtomicBool::new(false);
    let meanwhile = thread::scope(|scope| {
        let client = Wire::to(addr);
        let mut sender = client.stream.try_clone().expect("a descriptor");
        scope.spawn(move || {
            let all: String = (0..REQUESTS).map(|i| get(&format!("/{i}"))).collect();
            std::io::Write::write_all(&mut sender, all.as_bytes()).expect("all requests are taken");
        });
        let finished = &finished;
        let other = scope.spawn(move || {
            let mut other = Wire::to(addr);
            let mut served = 0;
            while !finished.load(Ordering::SeqCst) {
                assert_eq!(other.ask(get("/other")).text(), "/other");
                served += 1;
            }
            served
        });
        let mut client = client;
        for i in 0..REQUESTS {
            assert_eq!(client.response().text(), format!("/{i}"));
        }
        finished.store(true, Ordering::SeqCst);
        other.join().expect("the other client is served")
    });
    assert!(meanwhile > 50, "another client was served {meanwhile} times during {REQUESTS} pipelined requests");
}

#[test]
fn a_request_may_come_byte_by_byte_and_so_may_its_response() {
    let backend = scripted(|mut wire| {
        let request = wire.request();
        assert_eq!(request.body, b"hello");
        for byte in ok("answer") {
            wire.send([byte]);
        }
    });
    let lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    for byte in b"\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" {
        client.send([*byte]);
    }
    assert_eq!(client.response().text(), "answer");
    backend.outcome();
}

#[test]
fn an_http_1_0_client_gets_no_chunks_and_an_end() {
    let bodies: [(&str, &[u8]); 3] = [
        ("with a length", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        ("in chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ("to the end", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"),
    ];
    for (why, response) in bodies {
        let backend = scripted(move |mut wire| {
            let request = wire.request();
            wire.send(response);
            request.head.line
        });
        let lb = Setup::http(backend.addr).start();
        for fields in ["Host: a\r\n", "Host: a\r\nConnection: keep-alive\r\n"] {
            let mut client = Wire::to(lb.addr());
            client.send(format!("GET / HTTP/1.0\r\n{fields}\r\n"));
            let head = client.head();
            assert_eq!(head.status(), 200, "{why}");
            assert_eq!(head.get("transfer-encoding"), None, "{why}");
            let (body, ending) = client.rest();
            assert_eq!((&*body, ending), (&b"hello"[..], Ending::Clean), "{why}");
            assert_eq!(backend.outcome(), "GET / HTTP/1.1", "{why}: we speak 1.1 ourselves");
        }
    }
}

#[test]
fn responses_without_a_body_end_with_their_head() {
    let rows = [
        ("HEAD tells the length of what GET gives", "HEAD", "200 OK\r\nContent-Length: 5000", Some("5000")),
        ("HEAD of a chunked one", "HEAD", "200 OK\r\nTransfer-Encoding: chunked", None),
        ("204", "DELETE", "204 No Content", None),
        (
            "304 tells the length of what was not sent",
            "GET",
            "304 Not Modified\r\nContent-Length: 7\r\nETag: x",
            Some("7"),
        ),
        ("304 without a length", "GET", "304 Not Modified\r\nETag: x", None),
        ("no content", "GET", "200 OK\r\nContent-Length: 0", Some("0")),
    ];
    for (why, method, response, length) in rows {
        let backend = Backend::new(move |request| match request.head.target() {
            "/after" => ok("after"),
            _ => format!("HTTP/1.1 {response}\r\n\r\n").into_bytes(),
        });
        let lb = Setup::http(backend.addr()).start();
        let mut client = Wire::to(lb.addr());
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n{}", get("/after")));
        let answer = client.response_to(method);
        assert_eq!(answer.head.line, format!("HTTP/1.1 {}", response.split("\r\n").next().expect("one")), "{why}");
        assert_eq!(answer.head.get("content-length"), length, "{why}");
        assert_eq!(client.response().text(), "after", "{why}: the connection goes on");
        assert_eq!(backend.accepted(), 1, "{why}: and the one behind");
    }
}

#[test]
fn uploads_arrive_whole_however_they_are_framed() {
    for size in [0, 1, 5, 8 * 1024, 8 * 1024 + 1, 70_000, 3_000_000] {
        let content = Pattern { seed: 71 }.bytes(0, size);
        let backend = Backend::new(|_| ok("thanks"));
        let lb = Setup::http(backend.addr()).start();
        let mut client = Wire::to(lb.addr());
        client.send(format!("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
        client.send(&content);
        assert_eq!(client.response().text(), "thanks");
        let seen = backend.only();
        assert_eq!(seen.head.length(), Some(size));
        assert!(seen.body == content, "{size} bytes with a length");
        for chunk in [1 + size / 1000, 16_384] {
            client.send("PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send(chunked(&content, chunk, ""));
            assert_eq!(client.response().text(), "thanks");
            let seen = backend.only();
            assert!(seen.head.is_chunked());
            assert!(seen.body == content, "{size} bytes in chunks of {chunk}");
        }
        assert_eq!(backend.accepted(), 1);
    }
}

#[test]
fn downloads_arrive_whole_however_they_are_framed() {
    for size in [0, 1, 8 * 1024 + 1, 70_000, 3_000_000] {
        let content = Pattern { seed: 72 }.bytes(0, size);
        let sent = content.clone();
        let backend = Backend::new(move |request| match request.head.target() {
            "/length" => ok(&sent),
            "/chunked" => {
                let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                response.extend(chunked(&sent, 1 + sent.len() / 777, ""));
                response
            }
            other => panic!("{other}"),
        });
        let lb = Setup::http(backend.addr()).start();
        let mut client = Wire::to(lb.addr());
        let answer = client.ask(get("/length"));
        assert_eq!(answer.head.length(), Some(size));
        assert!(answer.body == content, "{size} bytes with a length");
        let answer = client.ask(get("/chunked"));
        assert!(answer.head.is_chunked());
        assert!(answer.body == content, "{size} bytes in chunks");
        assert!(client.ask(get("/length")).body == content, "and the connection goes on");
        assert_eq!(backend.accepted(), 1);
    }
}

#[test]
fn a_response_that_ends_with_its_connection_comes_in_chunks_and_the_client_stays() {
    for version in ["1.1", "1.0"] {
        let content = Pattern { seed: 73 }.bytes(0, 200_000);
        let sent = content.clone();
        let backend = scripted(move |mut wire| {
            wire.request();
            wire.send(format!("HTTP/{version} 200 OK\r\nX: y\r\n\r\n"));
            wire.send(&sent);
        });
        let lb = Setup::http(backend.addr).start();
        let mut client = Wire::to(lb.addr());
        for _ in 0..2 {
            let answer = client.ask(get("/"));
            assert!(answer.head.is_chunked(), "HTTP/{version}: {:?}", answer.head);
            assert!(answer.body == content, "HTTP/{version}");
        }
        assert_eq!(backend.accepted(), 2);
    }
}

#[test]
fn trailers_pass_both_ways_but_those_that_frame_or_authorise_do_not() {
    const TRAILERS: &str = "X-Sum: 1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\
        Authorization: x\r\nConnection: close\r\nX-Forwarded-For: 1.2.3.4\r\nX-More: 2\r\n";
    let backend = Backend::new(|_| {
        let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n".to_vec();
        response.extend(chunked(b"hello", 5, TRAILERS));
        response
    });
    let lb = Setup::http(backend.addr()).start();
    let mut client = Wire::to(lb.addr());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(chunked(b"hi", 1, TRAILERS));
    let answer = client.response();
    let seen = backend.only();
    assert_eq!((&*answer.body, &*seen.body), (&b"hello"[..], &b"hi"[..]));
    for (where_to, message) in [("to the client", &answer), ("to the backend", &seen)] {
        let names: Vec<_> = message.trailers.iter().map(|line| line.split(':').next().expect("one")).collect();
        assert_eq!(names, ["X-Sum", "X-More"], "{where_to}");
    }
    assert_eq!(client.ask(get("/")).text(), "hello", "nothing of it was taken for another message");
}

#[test]
fn expect_100_continue_is_relayed_and_so_is_the_answer() {
    let backend = scripted(|mut wire| {
        let head = wire.head();
        wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        let (body, _) = wire.request_body(&head);
        wire.send(ok("got it"));
        (head, body)
    });
    let lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    client.send("hello");
    assert_eq!(client.response().text(), "got it");
    let (head, body) = backend.outcome();
    assert_eq!(head.get("expect"), Some("100-continue"));
    assert_eq!(body, b"hello");
}

#[test]
fn a_final_answer_in_place_of_100_continue_reaches_a_client_that_sent_no_body() {
    for status in [401, 413, 417] {
        let backend = scripted(move |mut wire| {
            wire.head();
            wire.send(format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno"));
            // what comes next on this connection would be the body, were it reused
            wire.rest().0
        });
        let lb = Setup::http(backend.addr).start();
        let mut client = Wire::to(lb.addr());
        client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        let answer = client.response();
        assert_eq!((answer.status(), answer.text()), (status, "no"));
        assert!(answer.head.closes(), "{:?}", answer.head);
        client.expect_end("whether a body follows is not certain");
        assert_eq!(backend.outcome(), b"", "{status}: nothing more on the backend's connection");
    }
}

#[test]
fn interim_responses_go_to_http_1_1_clients_only() {
    let backend = scripted(|mut wire| {
        while wire.next_request().is_some() {
            wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
            wire.send(ok("final"));
        }
    });
    let lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    for _ in 0..2 {
        client.send(get("/"));
        let early = client.head();
        assert_eq!((early.status(), early.get("link")), (103, Some("</a>")));
        assert_eq!(client.head().status(), 102);
        assert_eq!(client.response().text(), "final");
    }
    let mut old = Wire::to(lb.addr());
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(old.head().status(), 200);
    assert_eq!(old.rest(), (b"final".to_vec(), Ending::Clean));
}

#[test]
fn an_early_answer_to_an_upload_is_read_by_a_client_that_still_sends() {
    const LENGTH: usize = 64 << 20;
    // what the backend does with the body after its answer
    for (why, goes) in [("it closes at once", true), ("it reads no further and stays", false)] {
        let backend = scripted(move |mut wire| {
            wire.head();
            wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large");
            if !goes {
                wait_until("the proxy has given up on it", || {
                    let mut buf = [0; 64 * 1024];
                    !matches!(std::io::Read::read(&mut wire.stream, &mut buf), Ok(1..))
                });
            }
        });
        let lb = Setup::http(backend.addr).start();
        for framing in [format!("Content-Length: {LENGTH}"), "Transfer-Encoding: chunked".to_owned()] {
            let mut client = Wire::to(lb.addr());
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            // a browser goes on sending until it has read the answer
            let piece = if framing.starts_with('C') {
                b"x".repeat(1000)
            } else {
                [b"3e8\r\n", &*b"x".repeat(1000), b"\r\n"].concat()
            };
            for _ in 0..100 {
                if !client.try_send(&piece) {
                    break;
                }
            }
            let answer = client.response();
            assert_eq!((answer.status(), answer.text()), (413, "too large"), "{why}, {framing}");
            assert!(answer.head.closes(), "{why}, {framing}");
            backend.outcome();
        }
    }
}

#[test]
fn connection_close_of_the_client_is_heeded_and_not_passed_on() {
    let backend = Backend::echoing_targets();
    // each worker keeps connections of its own
    let lb = Setup::http(backend.addr()).global("workers = 1\n").start();
    for _ in 0..3 {
        let mut client = Wire::to(lb.addr());
        let answer = client.ask("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(answer.text(), "/x");
        assert!(answer.head.closes());
        client.expect_end("as it asked for");
    }
    assert_eq!(backend.accepted(), 1, "the backend's connection is ours and stays");
}

#[test]
fn connection_close_of_the_backend_is_heeded_and_not_passed_on() {
    let backend = Backend::new(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi".to_vec());
    let lb = Setup::http(backend.addr()).start();
    let mut client = Wire::to(lb.addr());
    for i in 1..4 {
        let answer = client.ask(get("/"));
        assert_eq!(answer.text(), "hi");
        assert!(!answer.head.closes());
        assert_eq!(backend.accepted(), i, "a new connection each time");
    }
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answers() {
    let backend = Backend::echoing_targets();
    let lb = Setup::http(backend.addr()).start();
    let mut client = Wire::to(lb.addr());
    client.send([get("/1"), get("/2"), get("/3")].concat());
    client.stream.finish();
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.response().text(), path);
    }
    client.expect_end("after the last answer");
}

#[test]
fn a_head_of_its_limit_and_a_long_line_pass() {
    let backend = Backend::new(|_| ok("fine"));
    let lb = Setup::http(backend.addr()).start();
    let long = format!("/{}", "a".repeat(8_000));
    assert_eq!(ask(lb.addr(), get(&long)).status(), 200);
    assert_eq!(backend.only().head.target(), long);
    let value = "v".repeat(16 * 1024 - "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len());
    assert_eq!(ask(lb.addr(), format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n")).status(), 200);
    assert_eq!(backend.only().head.get("x"), Some(&*value));
}

#[test]
fn a_client_that_sends_on_for_a_while_still_reads_the_early_answer() {
    let backend = scripted(|mut wire| {
        wire.head();
        wire.send("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno");
        wire.rest().0.len()
    });
    let lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    // the answer is there, and the other end has said that it is done
    wait_until("the answer has come", || client.stream.peek(&mut [0]).is_ok());
    for _ in 0..10 {
        assert!(client.try_send(b"x".repeat(1000)), "no reset for what is on its way");
        thread::sleep(std::time::Duration::from_millis(5));
    }
    let answer = client.response();
    assert_eq!((answer.status(), answer.text()), (401, "no"));
    client.expect_end("and then the end");
}

#[test]
fn interim_and_final_responses_may_be_cut_anywhere() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let whole = [early.as_bytes(), early.as_bytes(), &ok("answer")].concat();
    let sent = whole.clone();
    let backend = scripted(move |mut wire| {
        while let Some(request) = wire.next_request() {
            let (first, second) = sent.split_at(request.text().parse().expect("where to cut"));
            wire.send(first);
            // so that it is read before the rest comes
            thread::sleep(std::time::Duration::from_millis(1));
            wire.send(second);
        }
    });
    let lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    for cut in 1..whole.len() {
        let cut = cut.to_string();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{cut}", cut.len()));
        assert_eq!((client.head().status(), client.head().status()), (103, 103), "cut at {cut}");
        assert_eq!(client.response().text(), "answer", "cut at {cut}");
    }
}

#[test]
fn the_largest_head_and_a_body_in_one_write_arrive() {
    let backend = Backend::new(|_| ok("fine"));
    let lb = Setup::http(backend.addr()).listener("max_header_size = \"48KiB\"").start();
    let body = Pattern { seed: 74 }.bytes(0, 40_000);
    for framing in ["Content-Length: 40000", "Transfer-Encoding: chunked"] {
        let begin = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\nX: ");
        let value = "v".repeat(48 * 1024 - begin.len() - 4);
        let coded = if framing.starts_with('C') { body.clone() } else { chunked(&body, 1000, "") };
        let all = [begin.as_bytes(), value.as_bytes(), b"\r\n\r\n", &coded].concat();
        let mut client = Wire::to(lb.addr());
        for _ in 0..3 {
            assert_eq!(client.ask(&all).status(), 200, "{framing}");
            let seen = backend.only();
            assert!(seen.head.get("x") == Some(&*value) && seen.body == body, "{framing}");
        }
    }
}
