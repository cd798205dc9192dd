use std::net::{IpAddr, Ipv4Addr};

use super::*;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const STRANGER: Forward<'_> =
    Forward { peer: PEER, proto: "http", trusted: false, default_host: "", close: false, upgrade: false };
const TRUSTED: Forward<'_> = Forward { trusted: true, ..STRANGER };

fn rewritten(forward: &Forward<'_>, head: &str) -> String {
    let mut storage = Storage::new();
    let parsed = parse_request(head.as_bytes(), &mut HeadScan::default(), &Limits::default(), &mut storage);
    let (request, _) = parsed.expect("good").expect("whole");
    let mut out = Vec::new();
    write_request(&mut out, &request, forward);
    String::from_utf8(out).expect("text")
}

/// What follows the fields of the client when nothing is special.
const USUAL: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\nVia: 1.1 l4lb\r\n";

#[test]
fn a_request_is_built_anew() {
    let get = "GET / HTTP/1.1\r\nHost: a\r\n";
    let with = |fields: &str| format!("{get}{fields}\r\n");
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    #[rustfmt::skip]
    let cases = [
        ("nothing special", STRANGER, with(""), format!("{get}{USUAL}\r\n")),
        ("names, values, order and repetition stay", STRANGER, with("x-B:  1 \r\nX-a:\r\nx-b: 2,3\r\n"), format!("{get}x-B: 1\r\nX-a: \r\nx-b: 2,3\r\n{USUAL}\r\n")),
        ("Host comes first", STRANGER, "GET /x?y HTTP/1.1\r\nX: y\r\nhost: a\r\n\r\n".into(), format!("GET /x?y HTTP/1.1\r\nHost: a\r\nX: y\r\n{USUAL}\r\n")),
        ("6: a length is written anew", STRANGER, "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 005\r\nX: y\r\n\r\n".into(), format!("POST / HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 5\r\n{USUAL}\r\n")),
        ("42: a length of 0 stays", STRANGER, with("Content-Length: 0\r\n"), format!("{get}Content-Length: 0\r\n{USUAL}\r\n")),
        ("10: chunked is written anew", STRANGER, with("transfer-encoding:\tCHUNKED \r\nTrailer: X\r\n"), format!("{get}Trailer: X\r\nTransfer-Encoding: chunked\r\n{USUAL}\r\n")),
        ("Trailer without chunks means nothing", STRANGER, with("Trailer: X\r\n"), format!("{get}{USUAL}\r\n")),
        ("24: an absolute target becomes a path, and its host is the host", STRANGER, "GET http://A:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n".into(), format!("GET /x?y HTTP/1.1\r\nHost: A:80\r\n{}\r\n", USUAL.replace("Host: a", "Host: A:80"))),
        ("26: OPTIONS about the server", STRANGER, "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n".into(), format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{USUAL}\r\n")),
        ("43: the path goes on as it came", STRANGER, "GET //a/../%2e?%zz HTTP/1.1\r\nHost: a\r\n\r\n".into(), format!("GET //a/../%2e?%zz HTTP/1.1\r\nHost: a\r\n{USUAL}\r\n")),
        ("HTTP/1.0 goes on as 1.1, and Via tells", Forward { default_host: "10.0.0.1:80", ..STRANGER }, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".into(), "GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nVia: 1.0 l4lb\r\n\r\n".into()),
        ("33: the expectation goes on", STRANGER, with("Content-Length: 1\r\nExpect: 100-Continue\r\n"), format!("{get}Content-Length: 1\r\nExpect: 100-continue\r\n{USUAL}\r\n")),
        ("33: not without a body", STRANGER, with("Expect: 100-continue\r\n"), format!("{get}{USUAL}\r\n")),
        ("hop-by-hop fields end here", STRANGER, with("Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Hop: 1\r\nTE: gzip\r\nUpgrade: websocket\r\n"), format!("{get}{USUAL}\r\n")),
        ("credentials for a proxy are not ours to take", STRANGER, with("Proxy-Authorization: x\r\n"), format!("{get}Proxy-Authorization: x\r\n{USUAL}\r\n")),
        ("41: that trailers are taken is told, and nothing else of TE", STRANGER, with("TE: gzip;q=0.5, trailers\r\nConnection: TE\r\n"), format!("{get}{USUAL}TE: trailers\r\nConnection: TE\r\n\r\n")),
        ("36: nothing is left of h2c", STRANGER, with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), format!("{get}{USUAL}\r\n")),
        ("36: HTTP2-Settings goes even where Connection does not name it", STRANGER, with("HTTP2-Settings: AAMAAABk\r\n"), format!("{get}{USUAL}\r\n")),
        ("35: an upgrade that is wanted", Forward { upgrade: true, close: true, ..STRANGER }, with("Connection: Upgrade\r\nUpgrade: h2c, websocket\r\nSec-WebSocket-Key: x\r\n"), format!("{get}Sec-WebSocket-Key: x\r\n{USUAL}Upgrade: websocket\r\nConnection: upgrade\r\n\r\n")),
        ("35: an upgrade that is not", STRANGER, with(upgrade), format!("{get}{USUAL}\r\n")),
        ("the last request of a connection", Forward { close: true, ..STRANGER }, with(""), format!("{get}{USUAL}Connection: close\r\n\r\n")),
        ("38: what Connection may not remove", STRANGER, with("Connection: Host, Content-Length, Cookie, Authorization, X-Forwarded-For, Via, Expect\r\nContent-Length: 1\r\nCookie: c\r\nAuthorization: z\r\nExpect: 100-continue\r\n"), format!("{get}Cookie: c\r\nAuthorization: z\r\nContent-Length: 1\r\nExpect: 100-continue\r\n{USUAL}\r\n")),
        ("38: nor where a trusted proxy set it", TRUSTED, with("Connection: X-Forwarded-For, x-forwarded-proto, X-Real-IP\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 198.51.100.1\r\n"), format!("{get}X-Forwarded-Proto: https\r\nX-Real-IP: 198.51.100.1\r\nX-Forwarded-For: 198.51.100.1, 192.0.2.7\r\nX-Forwarded-Host: a\r\nVia: 1.1 l4lb\r\n\r\n")),
        ("40: a stranger's word on the way is dropped", STRANGER, with("X-Forwarded-For: 1.1.1.1\r\nX-FORWARDED-PROTO: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-Prefix: /x\r\nX-Forwarded-Port: 1\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\n"), format!("{get}{USUAL}\r\n")),
        ("40: a trusted proxy's is kept and added to, in one line", TRUSTED, with("X-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2, 3.3.3.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-Port: 1\r\nForwarded: for=1.1.1.1\r\n"), format!("{get}X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-Port: 1\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7\r\nForwarded: for=1.1.1.1, for=192.0.2.7;proto=http\r\nVia: 1.1 l4lb\r\n\r\n")),
        ("40: a trusted proxy that says nothing", TRUSTED, with("X-Forwarded-For:\r\n"), format!("{get}{USUAL}\r\n")),
        ("40: Via is kept, whoever sent it", STRANGER, with("Via: 1.0 fred\r\nVia: 1.1 b (c)\r\n"), format!("{get}{}\r\n", USUAL.replace("Via: ", "Via: 1.0 fred, 1.1 b (c), "))),
        ("40: IPv6 bare in one and in brackets in the other", Forward { peer: "2001:db8::1".parse().expect("an address"), ..TRUSTED }, with("Forwarded: for=x\r\n"), format!("{get}{}Forwarded: for=x, for=\"[2001:db8::1]\";proto=http\r\nVia: 1.1 l4lb\r\n\r\n", USUAL.replace("192.0.2.7", "2001:db8::1").replace("Via: 1.1 l4lb\r\n", ""))),
        ("40: IPv4 in IPv6 is IPv4", Forward { peer: "::ffff:192.0.2.7".parse().expect("an address"), ..STRANGER }, with(""), format!("{get}{USUAL}\r\n")),
    ];
    for (why, forward, head, expected) in cases {
        assert_eq!(rewritten(&forward, &head), expected, "{why}");
    }
}

fn answered(answer: &Answer, asked: &Asked<'_>, head: &str) -> (String, Body) {
    let mut storage = Storage::new();
    let parsed = parse_response(head.as_bytes(), asked, &mut HeadScan::default(), &Limits::default(), &mut storage);
    let (response, _) = parsed.expect("good").expect("whole");
    let mut out = Vec::new();
    let body = write_response(&mut out, &response, answer);
    (String::from_utf8(out).expect("text"), body)
}

#[test]
fn a_response_is_built_anew() {
    let new = Answer { to: Version::Http11, close: false };
    let last = Answer { close: true, ..new };
    let old = Answer { to: Version::Http10, close: false };
    let get = Asked::default();
    let head = Asked { head: true, upgrade: None };
    let websocket = Asked { head: false, upgrade: Some("websocket") };
    #[rustfmt::skip]
    let cases = [
        ("a length", new, get, "HTTP/1.1 200 Fine\r\nDate: x\r\ncontent-length: 05\r\nX-a:  b\r\n\r\n", "HTTP/1.1 200 Fine\r\nDate: x\r\nX-a: b\r\nContent-Length: 5\r\nVia: 1.1 l4lb\r\n\r\n", Body::Length(5)),
        ("chunks", new, get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n", "HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\nVia: 1.1 l4lb\r\n\r\n", Body::Chunked),
        ("no reason", new, get, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 \r\nContent-Length: 0\r\nVia: 1.1 l4lb\r\n\r\n", Body::Length(0)),
        ("hop-by-hop fields end here", new, get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: x\r\nProxy-Connection: x\r\nUpgrade: h2,h2c\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 l4lb\r\n\r\n", Body::Length(0)),
        ("Via is added to", new, get, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nVia: 1.1 b\r\nX: y\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 0\r\nVia: 1.1 b, 1.0 l4lb\r\n\r\n", Body::Length(0)),
        ("the last one", last, get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 l4lb\r\nConnection: close\r\n\r\n", Body::Length(0)),
        ("to an old client", old, get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 l4lb\r\nConnection: close\r\n\r\n", Body::Length(0)),
        ("R3: no length goes on beside chunks", new, get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 l4lb\r\n\r\n", Body::Chunked),
        ("R4: to the close becomes chunks", new, get, "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.0 l4lb\r\n\r\n", Body::Chunked),
        ("R4: not to an old client", old, get, "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nVia: 1.0 l4lb\r\nConnection: close\r\n\r\n", Body::ToClose),
        ("R4: chunks become a body to the close for an old client", old, get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n", "HTTP/1.1 200 OK\r\nVia: 1.1 l4lb\r\nConnection: close\r\n\r\n", Body::ToClose),
        ("R4: a length beside identity does not go on", new, get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 l4lb\r\n\r\n", Body::Chunked),
        ("R5: HEAD tells the length", new, head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 l4lb\r\n\r\n", Body::None),
        ("R5: HEAD of chunks", new, head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nVia: 1.1 l4lb\r\n\r\n", Body::None),
        ("R5: 304 tells the length", new, get, "HTTP/1.1 304 OK\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 304 OK\r\nContent-Length: 5\r\nVia: 1.1 l4lb\r\n\r\n", Body::None),
        ("R5: 204 has no length", new, get, "HTTP/1.1 204 OK\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 204 OK\r\nVia: 1.1 l4lb\r\n\r\n", Body::None),
        ("R6: an interim response does not end the connection", last, get, "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 103 Hints\r\nLink: x\r\nVia: 1.1 l4lb\r\n\r\n", Body::None),
        ("R7: 101", last, websocket, "HTTP/1.1 101 Switch\r\nconnection: upgrade\r\nupgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\n\r\n", "HTTP/1.1 101 Switch\r\nSec-WebSocket-Accept: x\r\nVia: 1.1 l4lb\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\r\n", Body::None),
        ("38: what Connection may not remove", new, get, "HTTP/1.1 200 OK\r\nConnection: Content-Length, Via\r\nContent-Length: 5\r\nVia: 1.1 b\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 b, 1.1 l4lb\r\n\r\n", Body::Length(5)),
        ("a name with an underscore is the backend's own", new, get, "HTTP/1.1 200 OK\r\nContent_Length: 7\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 200 OK\r\nContent_Length: 7\r\nContent-Length: 5\r\nVia: 1.1 l4lb\r\n\r\n", Body::Length(5)),
    ];
    for (why, answer, asked, head, expected, body) in cases {
        assert_eq!(answered(&answer, &asked, head), (expected.to_owned(), body), "{why}");
    }
}

#[test]
fn our_own_answers_are_whole_messages() {
    let write = |failure: &Failure<'_>| {
        let mut out = Vec::new();
        write_error(&mut out, failure);
        String::from_utf8(out).expect("text")
    };
    let bad = Failure { status: 400, why: "there are two Host fields", close: true, ..Failure::default() };
    assert_eq!(
        write(&bad),
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 43\r\nConnection: close\r\n\r\n\
         400 Bad Request: there are two Host fields\n"
    );
    let busy = Failure { status: 503, retry_after: Some(5), head: true, date: Some("today"), ..Failure::default() };
    assert_eq!(
        write(&busy),
        "HTTP/1.1 503 Service Unavailable\r\nDate: today\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 24\r\n\
         Retry-After: 5\r\n\r\n"
    );
    let json = write(&Failure { json: true, why: "a \"quoted\"\n\\", ..bad });
    let (head, body) = json.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("application/problem+json") && head.contains(&format!("Content-Length: {}", body.len())));
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((&body["status"], &body["detail"]), (&400.into(), &"a \"quoted\"\n\\".into()));
}

#[test]
fn every_status_of_ours_has_its_phrase() {
    for status in [400, 403, 404, 408, 413, 414, 417, 421, 429, 431, 501, 502, 503, 504, 505] {
        assert!(!phrase(status).ends_with("Error"), "{status}");
    }
    assert_eq!(phrase(599), "Server Error");
}
