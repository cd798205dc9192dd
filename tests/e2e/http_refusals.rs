//! What is refused is refused at once, nothing of it reaches a backend, and the connection ends.

use crate::support::http::{Backend, Wire, get, ok};
use crate::support::{L4lb, Setup};

/// Sends `request` and then what a smuggler would have behind it; the status of the one answer that may come.
fn refusal(lb: &L4lb, why: &str, request: impl AsRef<[u8]>) -> u16 {
    let mut client = Wire::to(lb.addr());
    let mut bytes = request.as_ref().to_vec();
    bytes.extend_from_slice(get("/smuggled").as_bytes());
    client.send(bytes);
    let answer = client.response_to(if request.as_ref().starts_with(b"HEAD") { "HEAD" } else { "GET" });
    assert!(answer.head.closes(), "{why}: {:?}", answer.head);
    let content_type = answer.head.get("content-type").unwrap_or("none");
    assert!(content_type.starts_with("text/plain"), "{why}: {content_type}");
    let (rest, _) = client.rest();
    assert!(rest.is_empty(), "{why}: after the answer came {:?}", String::from_utf8_lossy(&rest));
    answer.status()
}

/// Each row with its request, as a whole.
fn all_are_refused(setup: &str, rows: &[(&str, Vec<u8>, u16)]) {
    let backend = Backend::named("reached");
    let lb = Setup::http(backend.addr()).listener(setup).start();
    let mut wrong = Vec::new();
    for (why, request, status) in rows {
        let found = refusal(&lb, why, request);
        if found != *status {
            wrong.push(format!("{why}: {found} instead of {status}"));
        }
    }
    // a body that turns out to be wrong has sent its head ahead: never the request behind it
    let seen: Vec<_> = backend.take_seen().into_iter().map(|request| request.head.line).collect();
    assert!(seen.is_empty(), "the backend answered {seen:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A request with these field lines besides Host.
fn with(fields: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes()
}

/// The same with a body.
fn with_body(fields: &str, body: &str) -> Vec<u8> {
    [with(fields), body.as_bytes().to_vec()].concat()
}

fn chunks(body: &str) -> Vec<u8> {
    with_body("Transfer-Encoding: chunked", body)
}

#[test]
fn framing_that_could_be_read_in_two_ways_is_refused() {
    let te = |value: &str| with_body(&format!("Transfer-Encoding: {value}"), "0\r\n\r\n");
    let cl = |value: &str| with_body(&format!("Content-Length: {value}"), "hello");
    all_are_refused(
        "",
        &[
            ("1: both", with_body("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400),
            (
                "1: both, the other way round",
                with_body("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"),
                400,
            ),
            ("2: two lengths", with_body("Content-Length: 5\r\nContent-Length: 6", "hello"), 400),
            ("2: a list of lengths", cl("5, 6"), 400),
            ("3: the same length twice", with_body("Content-Length: 5\r\nContent-Length: 5", "hello"), 400),
            ("3: the same length in a list", cl("5, 5"), 400),
            ("4: no length in the field", cl(""), 400),
            ("4: an empty one and then a good one", with_body("Content-Length:\r\nContent-Length: 5", "hello"), 400),
            ("5: plus", cl("+5"), 400),
            ("5: minus", cl("-5"), 400),
            ("5: underscore", cl("1_0"), 400),
            ("5: hexadecimal", cl("0x5"), 400),
            ("5: a space within", cl("5 0"), 400),
            ("5: a fraction", cl("5.0"), 400),
            ("5: more than 64 bits", cl("18446744073709551621"), 400),
            ("5: far more", cl(&"9".repeat(100)), 400),
            ("7: chunked is not the last", te("chunked, gzip"), 400),
            ("7: chunked is not there", te("gzip"), 400),
            ("8: a coding we do not know before chunked", te("gzip, chunked"), 501),
            ("9: a comma first", te(",chunked"), 400),
            ("9: a comma last", te("chunked,"), 400),
            ("9: empty", te(""), 400),
            ("9: chunked twice", te("chunked, chunked"), 400),
            ("9: two lines", with_body("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400),
            (
                "9: two lines, one of them wrong",
                with_body("Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
                400,
            ),
            ("9: almost chunked", te("xchunked"), 400),
            ("9: identity", te("identity"), 400),
            ("10: vertical tab", te("\u{b}chunked"), 400),
            ("10: form feed", te("chunked\u{c}"), 400),
            ("10: NUL", te("chunked\0"), 400),
            ("10: quotes", te("\"chunked\""), 400),
            ("10: a parameter", te("chunked;x=1"), 400),
            (
                "11: a transfer coding in HTTP/1.0",
                b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
                400,
            ),
        ],
    );
    // bytes that are no UTF-8 cannot be rows above
    let latin1 = |byte: u8| {
        [&b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "[..], &[byte], b"chunked\r\n\r\n0\r\n\r\n"].concat()
    };
    all_are_refused("", &[("10: 0x85", latin1(0x85), 400), ("10: 0xa0", latin1(0xa0), 400)]);
}

#[test]
fn chunks_that_could_be_read_in_two_ways_are_refused() {
    all_are_refused(
        "",
        &[
            ("12: no size", chunks("\r\nhello\r\n0\r\n\r\n"), 400),
            ("12: 0x", chunks("0x5\r\nhello\r\n0\r\n\r\n"), 400),
            ("12: plus", chunks("+5\r\nhello\r\n0\r\n\r\n"), 400),
            ("12: minus", chunks("-5\r\nhello\r\n0\r\n\r\n"), 400),
            ("12: underscore", chunks("1_0\r\nhello\r\n0\r\n\r\n"), 400),
            ("12: a space before", chunks(" 5\r\nhello\r\n0\r\n\r\n"), 400),
            ("12: a space behind", chunks("5 \r\nhello\r\n0\r\n\r\n"), 400),
            ("12: no hexadecimal digit", chunks("g\r\nhello\r\n0\r\n\r\n"), 400),
            ("12: more than 2^52", chunks("20000000000000\r\nhello\r\n0\r\n\r\n"), 400),
            ("12: wraps at 64 bits", chunks("10000000000000005\r\nhello\r\n0\r\n\r\n"), 400),
            ("13: LF ends the size", chunks("5\nhello\r\n0\r\n\r\n"), 400),
            ("13: CR and something else", chunks("5\rXhello\r\n0\r\n\r\n"), 400),
            ("13: CR within the extension", chunks("5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
            ("13: LF within the extension", chunks("5;a\nb\r\nhello\r\n0\r\n\r\n"), 400),
            ("13: LF ends the last chunk", chunks("5\r\nhello\r\n0\n\r\n"), 400),
            ("14: a control in the extension", chunks("5;a=\x01\r\nhello\r\n0\r\n\r\n"), 400),
            ("14: NUL in the extension", chunks("5;a=\0\r\nhello\r\n0\r\n\r\n"), 400),
            ("14: quotes that do not end", chunks("5;a=\"b\r\nhello\r\n0\r\n\r\n"), 400),
            ("14: a bare semicolon", chunks("5;\r\nhello\r\n0\r\n\r\n"), 400),
            ("14: extensions without end", chunks(&format!("5;a={}\r\nhello\r\n0\r\n\r\n", "b".repeat(3000))), 413),
            ("15: no CRLF behind the data", chunks("5\r\nhelloX\r\n0\r\n\r\n"), 400),
            ("15: only LF behind the data", chunks("5\r\nhello\n0\r\n\r\n"), 400),
            ("15: two other bytes behind the data", chunks("5\r\nhelloXX0\r\n\r\n"), 400),
            ("15: data longer than its size", chunks("4\r\nhello\r\n0\r\n\r\n"), 400),
            ("a trailer that is none", chunks("0\r\nno trailer\r\n\r\n"), 400),
            ("a trailer with a bare LF", chunks("0\r\na: b\nc: d\r\n\r\n"), 400),
        ],
    );
}

#[test]
fn heads_that_could_be_read_in_two_ways_are_refused() {
    let raw = |text: &str| text.as_bytes().to_vec();
    all_are_refused(
        "",
        &[
            ("16: CR in the start line", raw("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("16: CR in a value", with("X: a\rb"), 400),
            ("16: CR in a name", with("X\r: a"), 400),
            ("17: LF ends the start line", raw("GET / HTTP/1.1\nHost: a\r\n\r\n"), 400),
            ("17: LF ends a field", raw("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"), 400),
            ("17: LF ends the head", raw("GET / HTTP/1.1\r\nHost: a\r\n\n"), 400),
            ("17: LF ends everything", raw("GET / HTTP/1.1\nHost: a\n\n"), 400),
            ("18: NUL in a value", with("X: a\0b"), 400),
            ("18: a control in a value", with("X: a\x01b"), 400),
            ("18: DEL in a value", with("X: a\x7fb"), 400),
            ("19: a space before the colon", with("Content-Length : 5"), 400),
            ("19: a tab before the colon", with("X\t: 5"), 400),
            ("20: a space before the first field", raw("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400),
            ("20: a line with a space only", raw("GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n"), 400),
            ("21: a folded line", with("X: a\r\n b"), 400),
            ("21: a folded line, by a tab", with("X: a\r\n\tb"), 400),
            ("22: no name", with(": a"), 400),
            ("22: no colon", with("X"), 400),
            ("22: no token", with("X(y): a"), 400),
            ("22: not ASCII", with("X\u{e9}: a"), 400),
            ("23: no Host", raw("GET / HTTP/1.1\r\n\r\n"), 400),
            ("23: two hosts", raw("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400),
            ("23: the same host twice", raw("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400),
            ("23: a comma", raw("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), 400),
            ("23: a user", raw("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), 400),
            ("23: a path", raw("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400),
            ("23: a space", raw("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400),
            ("23: a port that is none", raw("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"), 400),
            ("24: Host is not that of the target", raw("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("26: * with GET", raw("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("26: an authority without CONNECT", raw("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("27: a space in the target", raw("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("27: a fragment", raw("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("27: not ASCII", raw("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("27: a control", raw("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("28: no version", raw("GET /\r\n\r\n"), 400),
            ("28: a version with two digits", raw("GET / HTTP/1.10\r\nHost: a\r\n\r\n"), 400),
            ("28: lower case", raw("GET / http/1.1\r\nHost: a\r\n\r\n"), 400),
            ("28: another major version", raw("GET / HTTP/3.0\r\nHost: a\r\n\r\n"), 505),
            ("28: HTTP/2 by prior knowledge", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505),
            ("29: a method that is no token", raw("G@T / HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("29: an endless method", format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "G".repeat(300)).into_bytes(), 501),
            ("25: CONNECT", raw("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), 501),
            (
                "34: a body with a GET of HTTP/1.0",
                raw("GET / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
                400,
            ),
            (
                "35: an upgrade with a body",
                with_body("Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 5", "hello"),
                400,
            ),
            ("39: an alias of a field we set", with("X_Forwarded_For: 1.2.3.4"), 400),
            ("39: an alias of a framing field", with("Content_Length: 5"), 400),
            ("43: above the root", raw("GET /../a HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("43: NUL in the path", raw("GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n"), 400),
            ("TLS to a plain port", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n".to_vec(), 400),
        ],
    );
}

#[test]
fn what_is_too_large_or_not_known_has_its_own_status() {
    let fields: String = (0..101).map(|i| format!("X-{i}: y\r\n")).collect();
    all_are_refused(
        "max_header_size = \"2KiB\"\nmax_body_size = \"1KiB\"",
        &[
            ("30: the line", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(2100)).into_bytes(), 414),
            ("30: the fields", with(&format!("X: {}", "a".repeat(2100))), 431),
            ("30: their number", with(fields.trim_end()), 431),
            ("31: the body, as it is told", with("Content-Length: 1025"), 413),
            ("31: the body, as it comes", chunks(&format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(1025))), 413),
            ("33: an expectation", with("Expect: miracles\r\nContent-Length: 5"), 417),
            ("https here", b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 421),
        ],
    );
}

#[test]
fn a_host_too_long_to_be_told_twice_is_refused() {
    let host = |length| format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(length)).into_bytes();
    all_are_refused(
        "max_header_size = \"48KiB\"",
        &[("the longest", host(48_000), 431), ("in between", host(40_000), 431)],
    );
}

#[test]
fn what_only_looks_odd_is_served() {
    let rows: [(&str, &str, &str); 12] = [
        ("6: leading zeros", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n\r\nhello", "hello"),
        (
            "10: SP and HTAB around the coding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \t chunked \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        (
            "another case",
            "POST / HTTP/1.1\r\nhOST: a\r\ntRANSFER-eNCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        (
            "14: a good extension",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d;e\"\r\nhello\r\n0;last\r\n\r\n",
            "hello",
        ),
        (
            "sizes with leading zeros and in capitals",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00A\r\nhellohello\r\n000\r\n\r\n",
            "hellohello",
        ),
        ("24: an absolute target", "GET http://A:80/x HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        ("26: OPTIONS of everything", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        ("29: a method nobody knows", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        ("37: an empty line before", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
        ("42: a body with GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        (
            "36: h2c is not passed",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
            "",
        ),
        ("an empty value, and one of many bytes", "GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \u{e9}\u{20ac}\r\n\r\n", ""),
    ];
    let backend = Backend::named("reached");
    let lb = Setup::http(backend.addr()).start();
    for (why, request, body) in rows {
        let mut client = Wire::to(lb.addr());
        assert_eq!(client.ask(request).status(), 200, "{why}");
        let seen = backend.only();
        assert_eq!(seen.text(), body, "{why}");
        assert_eq!(seen.head.length().unwrap_or(body.len()), body.len(), "{why}");
        assert_eq!((seen.head.get("upgrade"), seen.head.get("http2-settings")), (None, None), "{why}");
        assert_eq!(client.ask(get("/next")).text(), "reached", "{why}: and the next request is found");
        backend.take_seen();
    }
}

#[test]
fn a_refused_request_does_not_hurt_the_answers_before_it() {
    let backend = Backend::new(|request| ok(request.head.target()));
    let lb = Setup::http(backend.addr()).start();
    let mut client = Wire::to(lb.addr());
    client.send([get("/1"), get("/2"), "GET / HTTP/9.9\r\n\r\n".into(), get("/3")].concat());
    assert_eq!(client.response().text(), "/1");
    assert_eq!(client.response().text(), "/2");
    assert_eq!(client.response().status(), 505);
    assert!(client.rest().0.is_empty());
    assert_eq!(backend.take_seen().len(), 2);
}

#[test]
fn a_refusal_of_head_has_no_body() {
    let backend = Backend::named("reached");
    let lb = Setup::http(backend.addr()).listener("max_body_size = \"1KiB\"").start();
    let mut client = Wire::to(lb.addr());
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n");
    let answer = client.head();
    assert_eq!(answer.status(), 413);
    assert!(answer.length().is_some_and(|length| length > 0));
    client.expect_end("no body");
}

#[test]
fn a_body_that_goes_wrong_after_the_answer_began_cuts_the_answer() {
    let backend = crate::support::http::scripted(|mut wire| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin");
        wire.rest();
    });
    let lb = Setup::http(backend.addr).start();
    let mut client = Wire::to(lb.addr());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.bytes(5), b"begin");
    client.send("no size\r\n");
    let (rest, ending) = client.rest();
    assert_eq!(String::from_utf8_lossy(&rest), "", "nothing may look like the rest of the answer");
    assert_eq!(ending, crate::support::Ending::Reset);
}
