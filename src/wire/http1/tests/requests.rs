use super::*;

/// Refused heads: (why, head, status).
#[rustfmt::skip]
pub(super) const REFUSED: &[(&str, &[u8], u16)] = &[
    ("1: length and chunked", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("1: in the other order too", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    ("2: two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    ("2: two lengths in a list", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\n", 400),
    ("3: two equal lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", 400),
    ("3: two equal lengths in a list", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,5\r\n\r\n", 400),
    ("4: an empty length", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
    ("4: a length of white space", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t \r\n\r\n", 400),
    ("4: an empty length, then a good one", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\nContent-Length: 5\r\n\r\n", 400),
    ("5: a plus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
    ("5: a minus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400),
    ("5: an underscore", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n", 400),
    ("5: hexadecimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400),
    ("5: a space inside", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 0\r\n\r\n", 400),
    ("5: a letter behind", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5b\r\n\r\n", 400),
    ("5: one past 64 bits", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400),
    ("5: far past 64 bits", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    ("5: a digit that is not ASCII", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \u{0665}\r\n\r\n".as_bytes(), 400),
    ("7: the last coding is not chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
    ("7: a coding that is not chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ("8: a coding before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("9: an empty element before", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n", 400),
    ("9: an empty element behind", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n", 400),
    ("9: empty", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", 400),
    ("9: chunked twice", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
    ("9: two lines", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("9: two lines that would make a list", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("9: xchunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
    ("9: identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("9: identity before chunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n", 400),
    ("9: a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", 400),
    ("9: in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 400),
    ("10: a vertical tab before the token", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400),
    ("10: a form feed behind the token", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0c\r\n\r\n", 400),
    ("10: 0x85 behind the token", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x85\r\n\r\n", 400),
    ("10: 0xa0 before the token", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n", 400),
    ("10: a NUL behind the token", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n", 400),
    ("11: a coding in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("16: a bare CR in the request line", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("16: a bare CR behind the version", b"GET / HTTP/1.1\rX\nHost: a\r\n\r\n", 400),
    ("16: a bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
    ("16: a bare CR in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\rY: a\r\n\r\n", 400),
    ("16: two CR before LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    ("17: the request line ends in LF", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("17: a field ends in LF", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    ("17: the head ends in LF LF", b"GET / HTTP/1.1\r\nHost: a\n\n", 400),
    ("17: the empty line is an LF", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    ("17: an LF before the request line", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("18: a NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
    ("18: a control in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n", 400),
    ("18: DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", 400),
    ("19: a space before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", 400),
    ("19: a tab before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\n", 400),
    ("20: white space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("20: an empty folded line before the first field", b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", 400),
    ("21: a folded value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    ("21: a value folded with a tab", b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\tb\r\n\r\n", 400),
    ("22: an empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    ("22: a line without a colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("22: a name that is no token", b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): b\r\n\r\n", 400),
    ("22: a name that is not ASCII", "GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: b\r\n\r\n".as_bytes(), 400),
    ("23: no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("23: two Host lines", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("23: two equal Host lines", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
    ("23: two Host lines in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("23: an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("23: a port alone", b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400),
    ("23: a comma", b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
    ("23: a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("23: a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("23: a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("23: an escape", b"GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n", 400),
    ("23: a port that is no number", b"GET / HTTP/1.1\r\nHost: a:8o\r\n\r\n", 400),
    ("23: a port that is too large", b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    ("23: a port of more digits than a port has", b"GET / HTTP/1.1\r\nHost: a:000080\r\n\r\n", 400),
    ("23: a port with a sign", b"GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n", 400),
    ("23: two ports", b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400),
    ("23: IPv6 without brackets", b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", 400),
    ("23: an open bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("23: a name in brackets", b"GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", 400),
    ("23: something behind the bracket", b"GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n", 400),
    ("23: a byte that is not ASCII", "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n".as_bytes(), 400),
    ("24: Host is not that of the target", b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    ("24: Host has another port than the target", b"GET http://a/ HTTP/1.1\r\nHost: a:8080\r\n\r\n", 400),
    ("24: no Host beside an absolute target", b"GET http://a/ HTTP/1.1\r\n\r\n", 400),
    ("24: a target without an authority", b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("24: a user in the target", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("24: another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("24: https where nothing is secured", b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421),
    ("25: CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    ("25: CONNECT with a path", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("26: * with another method", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("26: * with more", b"OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("26: an authority without CONNECT", b"GET a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400),
    ("26: a path without its slash", b"GET x/y HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("27: a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("27: two spaces before the target", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("27: two spaces behind the target", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("27: a tab for a space", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("27: a fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("27: a control", b"GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("27: DEL", b"GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("27: raw UTF-8", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes(), 400),
    ("27: a raw byte", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("27: no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("28: HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("28: HTTP/0.9 with a version", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 400),
    ("28: HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    ("28: HTTP/1.10", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    ("28: HTTP/01.1", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400),
    ("28: a version in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    ("28: a space behind the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    ("28: another protocol", b"GET / ICAP/1.1\r\nHost: a\r\n\r\n", 400),
    ("28: another major version", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ("28: the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("29: a method that is no token", b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("29: no method", b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("29: a method longer than any", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ("28: a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("33: another expectation", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", 417),
    ("33: one more expectation", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, tea\r\nContent-Length: 1\r\n\r\n", 417),
    ("34: GET with a body in HTTP/1.0", b"GET / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", 400),
    ("34: HEAD with a body in HTTP/1.0", b"HEAD / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", 400),
    ("34: DELETE with a body in HTTP/1.0", b"DELETE / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", 400),
    ("35: Upgrade with a length", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n", 400),
    ("35: Upgrade with chunks", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("36: Upgrade to what is no protocol", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: web socket\r\n\r\n", 400),
    ("37: five empty lines before the request line", b"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("37: a bare CR before the request line", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("38: Connection is no list of tokens", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close; now\r\n\r\n", 400),
    ("39: an underscore makes another X-Forwarded-For", b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 192.0.2.1\r\n\r\n", 400),
    ("39: a single underscore does too", b"GET / HTTP/1.1\r\nHost: a\r\nx-forwarded_proto: https\r\n\r\n", 400),
    ("39: another Content-Length", b"GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n", 400),
    ("39: another X-Real-IP", b"GET / HTTP/1.1\r\nHost: a\r\nX_Real_IP: 192.0.2.1\r\n\r\n", 400),
    ("39: another X-Forwarded-Prefix", b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_Prefix: /x\r\n\r\n", 400),
];

fn host(host: &str) -> Seen {
    Seen {
        method: "GET".into(),
        path: "/".into(),
        query: None,
        host: host.into(),
        body: Body::None,
        keep_alive: true,
        expects_continue: false,
        upgrade: None,
        te_trailers: false,
        length: 0,
    }
}

fn post(body: Body) -> Seen {
    Seen { method: "POST".into(), body, ..host("a") }
}

/// Accepted heads: (why, head, what it is; the length is that of the whole text).
pub(super) fn accepted() -> Vec<(&'static str, &'static [u8], Seen)> {
    let old = Seen { keep_alive: false, ..host("") };
    let upgrade = |protocol: &str| Seen { upgrade: Some(protocol.into()), ..host("a") };
    #[rustfmt::skip]
    let table: Vec<(&str, &[u8], Seen)> = vec![
        ("the least", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", host("a")),
        ("no white space around a value, and much", b"GET / HTTP/1.1\r\nHost:a\r\nX: \t b \t \r\n\r\n", host("a")),
        ("5: as long as 64 bits can say", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n", post(Body::Length(u64::MAX))),
        ("6: leading zeros are still decimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0010\r\n\r\n", post(Body::Length(10))),
        ("6: more zeros than 64 bits have digits", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 000000000000000000000000007\r\n\r\n", post(Body::Length(7))),
        ("a length of 0 is told apart from none", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", post(Body::Length(0))),
        ("no framing: no body", b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", post(Body::None)),
        ("chunked in any case", b"POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: Chunked\r\n\r\n", post(Body::Chunked)),
        ("10: white space around the token", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \tchunked\t \r\n\r\n", post(Body::Chunked)),
        ("18: bytes past ASCII in a value are text", b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xe9\r\n\r\n", host("a")),
        ("23: a port", b"GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", host("a.example:8080")),
        ("23: an empty port", b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", host("a:")),
        ("23: an IPv6 address", b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", host("[2001:db8::1]:80")),
        ("23: an underscore, as container names have", b"GET / HTTP/1.1\r\nHost: my_app\r\n\r\n", host("my_app")),
        ("23: HTTP/1.0 needs no Host", b"GET / HTTP/1.0\r\n\r\n", old.clone()),
        ("24: an absolute target", b"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n", Seen { path: "/x".into(), query: Some("y".into()), ..host("a") }),
        ("24: no port is port 80, and names have no case", b"GET HTTP://A:80/ HTTP/1.1\r\nHost: a\r\n\r\n", host("A:80")),
        ("24: an absolute target without a path", b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", host("a")),
        ("24: an absolute target with a query alone", b"GET http://a?x/y HTTP/1.1\r\nHost: a\r\n\r\n", Seen { query: Some("x/y".into()), ..host("a") }),
        ("24: an absolute target in HTTP/1.0 tells the host", b"GET http://a/ HTTP/1.0\r\n\r\n", Seen { keep_alive: false, ..host("a") }),
        ("26: OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Seen { method: "OPTIONS".into(), path: "*".into(), ..host("a") }),
        ("26: OPTIONS for a host is OPTIONS *", b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", Seen { method: "OPTIONS".into(), path: "*".into(), ..host("a") }),
        ("27: an empty query is one", b"GET /? HTTP/1.1\r\nHost: a\r\n\r\n", Seen { query: Some("".into()), ..host("a") }),
        ("27: characters that browsers leave raw", b"GET /a|b?{\"c\"}^[] HTTP/1.1\r\nHost: a\r\n\r\n", Seen { path: "/a|b".into(), query: Some("{\"c\"}^[]".into()), ..host("a") }),
        ("27: two slashes begin a path, not an authority", b"GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n", Seen { path: "//b/c".into(), ..host("a") }),
        ("29: an unknown method", b"PURGE / HTTP/1.1\r\nHost: a\r\n\r\n", Seen { method: "PURGE".into(), ..host("a") }),
        ("29: methods have a case", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", Seen { method: "get".into(), ..host("a") }),
        ("29: the longest method", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n", Seen { method: "A".repeat(32), ..host("a") }),
        ("33: 100-continue", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", Seen { expects_continue: true, ..post(Body::Length(1)) }),
        ("33: 100-continue without a body is nothing to wait for", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", post(Body::None)),
        ("33: HTTP/1.0 knows no 100-continue", b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", Seen { method: "POST".into(), body: Body::Length(1), ..old.clone() }),
        ("34: HTTP/1.0 may say that there is no body", b"GET / HTTP/1.0\r\nContent-Length: 0\r\n\r\n", Seen { body: Body::Length(0), ..old.clone() }),
        ("35: a WebSocket", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", upgrade("websocket")),
        ("35: an upgrade beside an empty body", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", Seen { body: Body::Length(0), ..upgrade("websocket") }),
        ("35: Upgrade that Connection does not name", b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", host("a")),
        ("35: HTTP/1.0 cannot upgrade", b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", old.clone()),
        ("36: h2c is not heard", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", host("a")),
        ("36: h2c is not heard among others", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: H2C, websocket\r\nUpgrade: h2c\r\n\r\n", upgrade("websocket")),
        ("36: h2c with a body is a request like any other", b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n", post(Body::Length(2))),
        ("37: empty lines before the request line", b"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", host("a")),
        ("38: close, in any case and among others", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-A, CLOSE\r\n\r\n", Seen { keep_alive: false, ..host("a") }),
        ("38: close is stronger than keep-alive", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", Seen { keep_alive: false, ..host("a") }),
        ("38: HTTP/1.0 does not persist through a proxy", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", old),
        ("39: an underscore in a name of somebody's own", b"GET / HTTP/1.1\r\nHost: a\r\nx_request_id: 1\r\n\r\n", host("a")),
        ("41: trailers are taken", b"GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, Trailers\r\nConnection: TE\r\n\r\n", Seen { te_trailers: true, ..host("a") }),
        ("42: GET with a body", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", Seen { body: Body::Length(3), ..host("a") }),
    ];
    table.into_iter().map(|(why, head, seen)| (why, head, Seen { length: head.len(), ..seen })).collect()
}

#[test]
fn what_is_not_understood_for_certain_is_refused() {
    for (why, head, status) in REFUSED {
        assert_eq!(parsed(head), Err(*status), "{why}");
    }
}

#[test]
fn what_is_understood_is_what_it_says() {
    for (why, head, seen) in accepted() {
        assert_eq!(parsed(head), Ok(seen), "{why}");
    }
}

/// `GET /ppp… HTTP/1.1`, with fields so that the head has this length.
fn head_of(line: usize, head: usize) -> Vec<u8> {
    let mut text =
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n", "p".repeat(line - "GET / HTTP/1.1\r\n".len())).into_bytes();
    text.extend_from_slice(b"X: ");
    text.resize(head.saturating_sub(4).max(text.len()), b'v');
    text.extend_from_slice(b"\r\n\r\n");
    text
}

#[test]
fn sizes_are_bounded_and_each_bound_has_its_status() {
    let limits = Limits { head: 1000, fields: 3 };
    let fields =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: b\r\n".repeat(count - 1)).into_bytes();
    let cases = [
        ("30: a head that just fits", head_of(100, 1000), Ok(())),
        ("30: one byte more", head_of(100, 1001), Err(431)),
        ("30: a request line as large as all", head_of(990, 1020), Err(431)),
        ("30: a request line that just does not fit", head_of(1001, 0), Err(414)),
        ("30: as many fields as allowed", fields(3), Ok(())),
        ("30: one field more", fields(4), Err(431)),
        ("30: a field too many comes before a malformed one", [&fields(4)[..], b"bad"].concat(), Err(431)),
    ];
    for (why, head, expected) in cases {
        let whole = seen(&head, &limits, &mut HeadScan::default());
        assert_eq!(whole.map(|_| ()).map_err(|bad| bad.status), expected, "{why}");
    }
    let cut = seen(&head_of(100, 1001)[..1000], &limits, &mut HeadScan::default()).map_err(|bad| bad.status);
    assert_eq!(cut, Err(431), "30: an end that cannot come in time is not waited for");
    assert_eq!(parsed(head_of(8000, 9000)).map(|seen| seen.length), Ok(9000), "30: a line of 8000 bytes by default");
    let many = Limits { head: 100_000, fields: 1000 };
    let hundred = seen(&fields(MAX_FIELDS), &many, &mut HeadScan::default()).map(|_| ()).map_err(|bad| bad.status);
    assert_eq!(hundred, Ok(()), "30: there is room for a hundred fields");
    let more = seen(&fields(MAX_FIELDS + 1), &many, &mut HeadScan::default()).map(|_| ()).map_err(|bad| bad.status);
    assert_eq!(more, Err(431), "30: and for no more, whatever the limit says");
}

#[test]
fn options_of_connection_are_bounded() {
    let head = |options: String| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {options}\r\n\r\n");
    for option in ["x", "close", ""] {
        assert!(parsed(head([option; 64].join(","))).is_ok(), "38: more than anybody names");
        assert_eq!(parsed(head([option; 65].join(","))), Err(400), "38: all fields are compared with {option:?}");
    }
}

#[test]
fn an_end_that_is_missing_is_waited_for_and_a_silent_client_has_not_begun() {
    let limits = Limits::default();
    let mut scan = HeadScan::default();
    assert_eq!(seen(b"", &limits, &mut scan), Ok(None));
    assert_eq!(seen(b"\r\n", &limits, &mut scan), Ok(None));
    assert!(!scan.has_begun(), "37: an empty line is no request");
    assert_eq!(seen(b"\r\nG", &limits, &mut scan), Ok(None));
    assert!(scan.has_begun(), "32: from here on 408 is due");
    assert_eq!(seen(b"\r\nGET / HTTP/1.1\r\n", &limits, &mut scan), Ok(None));
    assert!(scan.has_begun(), "32: at the end of a line too");
}

#[test]
fn our_name_in_via_is_counted() {
    let count = |via: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{via}\r\n");
        let mut storage = Storage::new();
        let parsed = parse_request(text.as_bytes(), &mut HeadScan::default(), &Limits::default(), &mut storage);
        let (request, _) = parsed.expect("good").expect("whole");
        via_count(&request.fields, NAME)
    };
    let cases = [
        ("none", "", 0),
        ("another", "Via: 1.1 nginx\r\n", 0),
        ("one", "Via: 1.1 l4lb\r\n", 1),
        (
            "in lists, over lines, in any case and with comments",
            "Via: 1.0 a, 1.1 l4lb\r\nvia: HTTP/1.1 L4LB (x),1.1\tl4lb\r\n",
            3,
        ),
        ("our name elsewhere", "Via: l4lb x, 1.1 l4lb2, 1.1 a (l4lb)\r\nX: 1.1 l4lb\r\n", 0),
    ];
    for (why, via, expected) in cases {
        assert_eq!(count(via), expected, "40: {why}");
    }
}

#[test]
fn a_host_is_told_without_its_port() {
    let name = |host: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut storage = Storage::new();
        let parsed = parse_request(text.as_bytes(), &mut HeadScan::default(), &Limits::default(), &mut storage);
        parsed.expect("good").expect("whole").0.hostname().to_owned()
    };
    assert_eq!(name("a.example:8080"), "a.example");
    assert_eq!(name("a.example"), "a.example");
    assert_eq!(name("[::1]:80"), "[::1]");
    assert_eq!(name("[::1]"), "[::1]");
}
