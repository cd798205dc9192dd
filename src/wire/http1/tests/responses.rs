use super::*;

type Told = (u16, Body, Option<u64>, bool);

fn told(asked: &Asked<'_>, bytes: &[u8]) -> Result<Told, BadResponse> {
    let mut storage = Storage::new();
    let parsed = parse_response(bytes, asked, &mut HeadScan::default(), &Limits::default(), &mut storage)?;
    let (response, length) = parsed.expect("a whole head");
    assert_eq!(length, bytes.len());
    Ok((response.status, response.body, response.length, response.keep_alive))
}

const GET: Asked<'_> = Asked { head: false, upgrade: None };
const HEAD: Asked<'_> = Asked { head: true, upgrade: None };
const WEBSOCKET: Asked<'_> = Asked { head: false, upgrade: Some("websocket") };

/// Accepted: (why, what was asked, head, status, body, length, whether the connection lasts).
#[rustfmt::skip]
pub(super) const ACCEPTED: &[(&str, &Asked<'_>, &[u8], Told)] = &[
    ("a length", &GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (200, Body::Length(5), Some(5), true)),
    ("a length of 0", &GET, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (200, Body::Length(0), Some(0), true)),
    ("chunks", &GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", (200, Body::Chunked, None, true)),
    ("no reason, no space before it", &GET, b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", (404, Body::Length(0), Some(0), true)),
    ("no reason, a space before it", &GET, b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", (404, Body::Length(0), Some(0), true)),
    ("a reason past ASCII", &GET, b"HTTP/1.1 200 \xe4\xf6\r\nContent-Length: 0\r\n\r\n", (200, Body::Length(0), Some(0), true)),
    ("a status that nobody registered", &GET, b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n", (999, Body::Length(0), Some(0), true)),
    ("close", &GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", (200, Body::Length(5), Some(5), false)),
    ("HTTP/1.0 ends", &GET, b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", (200, Body::Length(5), Some(5), false)),
    ("HTTP/1.0 that says it does not", &GET, b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n", (200, Body::Length(5), Some(5), true)),
    ("a Connection that cannot be read loses the connection", &GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: a b\r\n\r\n", (200, Body::Length(5), Some(5), false)),
    ("R3: length and chunks: chunks, and no reuse", &GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", (200, Body::Chunked, None, false)),
    ("R4: no length", &GET, b"HTTP/1.1 200 OK\r\n\r\n", (200, Body::ToClose, None, false)),
    ("R4: no length, but keep-alive", &GET, b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", (200, Body::ToClose, None, false)),
    ("R4: identity", &GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", (200, Body::ToClose, None, false)),
    ("R4: identity and a length", &GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", (200, Body::ToClose, None, false)),
    ("R5: HEAD has no body, whatever it says", &HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (200, Body::None, Some(5), true)),
    ("R5: HEAD that would be in chunks", &HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", (200, Body::None, None, true)),
    ("R5: HEAD without a length does not end the connection", &HEAD, b"HTTP/1.1 200 OK\r\n\r\n", (200, Body::None, None, true)),
    ("R5: HEAD with both", &HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", (200, Body::None, None, false)),
    ("R5: 304 tells the length of another", &GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (304, Body::None, Some(5), true)),
    ("R5: 204", &GET, b"HTTP/1.1 204 No Content\r\n\r\n", (204, Body::None, None, true)),
    ("R5: 204 with a length of 0 is harmless", &GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", (204, Body::None, None, true)),
    ("R5: 204 with a length is not trusted further", &GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", (204, Body::None, None, false)),
    ("R5: 204 in chunks is not trusted further", &GET, b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", (204, Body::None, None, false)),
    ("R6: 100", &GET, b"HTTP/1.1 100 Continue\r\n\r\n", (100, Body::None, None, true)),
    ("R6: 103 with fields", &GET, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", (103, Body::None, None, true)),
    ("R6: 101 to what was asked for", &WEBSOCKET, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n", (101, Body::None, None, true)),
];

/// Refused: (why, what was asked, head).
#[rustfmt::skip]
pub(super) const REFUSED: &[(&str, &Asked<'_>, &[u8])] = &[
    ("R1: a length that is no number", &GET, b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    ("R1: two lengths", &GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    ("R1: two equal lengths", &GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    ("R1: a length that is no number beside chunks", &GET, b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("R1: a space before the colon", &GET, b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n"),
    ("R1: a status of two digits", &GET, b"HTTP/1.1 20 OK\r\n\r\n"),
    ("R1: a status of four digits", &GET, b"HTTP/1.1 2000 OK\r\n\r\n"),
    ("R1: a status below 100", &GET, b"HTTP/1.1 099 OK\r\n\r\n"),
    ("R1: a status that is no number", &GET, b"HTTP/1.1 2xx OK\r\n\r\n"),
    ("R1: a folded value", &GET, b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\n"),
    ("R1: bare LF", &GET, b"HTTP/1.1 200 OK\nContent-Length: 5\n\n"),
    ("R1: a bare CR in a value", &GET, b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n"),
    ("R1: a bare CR in the reason", &GET, b"HTTP/1.1 200 O\rK\r\n\r\n"),
    ("R1: a NUL in the reason", &GET, b"HTTP/1.1 200 O\0K\r\n\r\n"),
    ("R1: an empty line before the status line", &GET, b"\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("R1: another version", &GET, b"HTTP/2.0 200 OK\r\n\r\n"),
    ("R1: two spaces", &GET, b"HTTP/1.1  200 OK\r\n\r\n"),
    ("R1: no HTTP at all", &GET, b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ("R1: chunked twice", &GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"),
    ("R1: two codings", &GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("R1: chunks in HTTP/1.0", &GET, b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("R4: a coding that nobody asked for, before chunked", &GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("R4: a coding that nobody asked for, to the close", &GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
    ("R6: 101 that nobody asked for", &GET, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    ("R6: 101 to another protocol", &WEBSOCKET, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
    ("R6: 101 to two protocols", &WEBSOCKET, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
    ("R6: 101 that does not say to what", &WEBSOCKET, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ("R6: 101 without Connection", &WEBSOCKET, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
];

#[test]
fn a_response_is_read_by_what_was_asked() {
    for (why, asked, head, expected) in ACCEPTED {
        assert_eq!(told(asked, head), Ok(*expected), "{why}");
    }
}

#[test]
fn what_is_no_response_for_certain_is_refused() {
    for (why, asked, head) in REFUSED {
        let told = told(asked, head);
        assert!(told.is_err(), "{why}: {told:?}");
    }
}

#[test]
fn a_response_has_bounds_too() {
    let limits = Limits { head: 100, fields: 2 };
    let refused = |head: &[u8]| {
        let mut storage = Storage::new();
        parse_response(head, &GET, &mut HeadScan::default(), &limits, &mut storage).is_err()
    };
    assert!(!refused(b"HTTP/1.1 200 OK\r\nA: b\r\nA: b\r\n\r\n"));
    assert!(refused(b"HTTP/1.1 200 OK\r\nA: b\r\nA: b\r\nA: b\r\n\r\n"), "one field too many");
    assert!(refused(&[b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'b'; 100]].concat()), "an end that cannot come in time");
}

#[test]
fn reason_and_protocol_are_told() {
    let head = b"HTTP/1.1 101 Over \xe4 there\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    let mut storage = Storage::new();
    let parsed = parse_response(head, &WEBSOCKET, &mut HeadScan::default(), &Limits::default(), &mut storage);
    let (response, _) = parsed.expect("good").expect("whole");
    assert_eq!((response.reason, response.upgrade), (b"Over \xe4 there".as_slice(), Some("websocket")));
}
