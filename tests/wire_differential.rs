//! Two parsers over the same bytes: where ours and kawa's (the one of Sōzu, a proxy too, built on nom) both accept a
//! message, they agree on every part of it; where only ours refuses it, the reason is one of [`STRICTER`]; where only
//! theirs does, one of [`laxer`].

use kawa::{Block, BodySize, Buffer, Kawa, Kind, ParsingPhase, SliceBuffer, StatusLine, Store};
use l4lb::wire::http1::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// What a message says. Values without the white space around them.
#[derive(Clone, Debug, PartialEq)]
struct Message {
    /// Method, origin-form target and authority; or the status and the reason.
    start: [String; 3],
    /// But framing and `Host`.
    fields: Vec<(String, Vec<u8>)>,
    body: Body,
    content: Vec<u8>,
    /// Bytes that belong to the next message.
    left: usize,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Whole(Message),
    More,
    Refused(&'static str),
}

/// Why ours alone refuses: the words of the answer, and what has to be in the message, in lower case, then.
const STRICTER: &[(&str, &str)] = &[
    // kawa leaves these to whoever owns it.
    ("there is no Host field", ""),
    ("there are two Host fields", "host: b"),
    ("Host is malformed", "host: a b"),
    ("Host is not the host of the target", "http://"),
    ("CONNECT is not served here", "connect "),
    ("a field name with an underscore would be taken for another field", "content_length"),
    ("an HTTP/1.0 request of this method has no body", " http/1.0"),
    ("the target has a byte that no target may have", "#"),
    // kawa takes the coding and drops the length; equal lengths are one to it, and of codings it looks at the last.
    ("there are both Content-Length and Transfer-Encoding", "content-length"),
    ("Content-Length is not a number", "transfer-encoding"),
    ("there are two Content-Length fields", "content-length"),
    ("there are two Transfer-Encoding fields", "transfer-encoding"),
    ("Transfer-Encoding is malformed", "transfer-encoding"),
    ("a transfer coding is not known here", "gzip"),
    ("HTTP/1.0 has no Transfer-Encoding", "http/1.0"),
    ("it has a transfer coding that nobody asked for", "transfer-encoding"),
    // It takes an empty name, as HAProxy did (CVE-2023-25725).
    ("a field name is malformed", "\r\n:"),
];

/// Whether this is something that ours takes, and kawa does not.
fn laxer(bytes: &[u8], is_request: bool) -> bool {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let has = |part: &str| text.contains(part);
    // Empty lines before a request line; a status line without a reason and the space before it; chunk extensions.
    (is_request && text.starts_with("\r\n")) || (!is_request && has(" 404\r\n")) || has("5;a")
}

fn ours_body(body: Body, bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let mut decoder = BodyDecoder::new(body, 0, &Limits::default());
    let mut rest = bytes;
    let mut content = Vec::new();
    loop {
        match decoder.next(&mut rest).map_err(|bad| bad.why)? {
            Piece::Data(data) => content.extend_from_slice(data),
            Piece::More if body == Body::ToClose => return Ok(Some((content, 0))),
            Piece::More => return Ok(None),
            Piece::End => return Ok(Some((content, rest.len()))),
        }
    }
}

fn others(fields: &Fields<'_>) -> Vec<(String, Vec<u8>)> {
    let known = ["host", "content-length", "transfer-encoding"];
    let others = fields.iter().filter(|(name, _)| !known.contains(&name.to_ascii_lowercase().as_str()));
    others.map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
}

fn ours_request(bytes: &[u8]) -> Outcome {
    let mut storage = Storage::new();
    let (request, length) = match parse_request(bytes, &mut HeadScan::default(), &Limits::default(), &mut storage) {
        Ok(Some(done)) => done,
        Ok(None) => return Outcome::More,
        Err(bad) => return Outcome::Refused(bad.why),
    };
    let (content, left) = match ours_body(request.body, &bytes[length..]) {
        Ok(Some(done)) => done,
        Ok(None) => return Outcome::More,
        Err(why) => return Outcome::Refused(why),
    };
    let path = match request.target.query {
        Some(query) => format!("{}?{query}", request.target.path),
        None => request.target.path.to_owned(),
    };
    Outcome::Whole(Message {
        start: [request.method.into(), path, request.host.into()],
        fields: others(&request.fields),
        body: if request.body.is_empty() { Body::None } else { request.body },
        content,
        left,
    })
}

fn ours_response(bytes: &[u8]) -> Outcome {
    let mut storage = Storage::new();
    let scan = &mut HeadScan::default();
    let (response, length) = match parse_response(bytes, &Asked::default(), scan, &Limits::default(), &mut storage) {
        Ok(Some(done)) => done,
        Ok(None) => return Outcome::More,
        Err(bad) => return Outcome::Refused(bad.why),
    };
    let (content, left) = match ours_body(response.body, &bytes[length..]) {
        Ok(Some(done)) => done,
        Ok(None) => return Outcome::More,
        Err(why) => return Outcome::Refused(why),
    };
    let reason = response.reason.iter().map(|byte| char::from(*byte)).collect();
    Outcome::Whole(Message {
        start: [response.status.to_string(), reason, String::new()],
        fields: others(&response.fields),
        body: if response.body.is_empty() { Body::None } else { response.body },
        content,
        left,
    })
}

fn theirs(kind: Kind, bytes: &[u8]) -> Outcome {
    let mut buffer = bytes.to_vec();
    let length = buffer.len();
    let mut storage = Buffer::new(SliceBuffer(&mut buffer));
    storage.fill(length);
    let mut kawa = Kawa::new(kind, storage);
    kawa::h1::parse(&mut kawa, &mut kawa::h1::NoCallbacks);
    let to_close = kind == Kind::Response && kawa.body_size == BodySize::Empty && kawa.is_main_phase();
    match kawa.parsing_phase {
        ParsingPhase::Error { .. } => return Outcome::Refused("kawa"),
        ParsingPhase::Terminated => {}
        _ if to_close => {}
        _ => return Outcome::More,
    }
    let buf = kawa.storage.buffer();
    let text = |store: &Store| -> String {
        store.data_opt(buf).unwrap_or_default().iter().map(|byte| char::from(*byte)).collect()
    };
    let start = match &kawa.detached.status_line {
        StatusLine::Request { method, path, authority, .. } => [text(method), text(path), text(authority)],
        StatusLine::Response { code, reason, .. } => [code.to_string(), text(reason), String::new()],
        StatusLine::Unknown => panic!("a message without a start line"),
    };
    let mut message = Message {
        start,
        fields: Vec::new(),
        body: match kawa.body_size {
            _ if to_close => Body::ToClose,
            BodySize::Empty | BodySize::Length(0) => Body::None,
            BodySize::Length(length) => Body::Length(length as u64),
            BodySize::Chunked => Body::Chunked,
        },
        content: Vec::new(),
        left: kawa.storage.unparsed_data().len(),
    };
    let mut in_head = true;
    for block in &kawa.blocks {
        match block {
            Block::Header(pair) if in_head => {
                let name = text(&pair.key);
                let known = ["", "host", "content-length", "transfer-encoding"];
                if !known.contains(&name.to_ascii_lowercase().as_str()) {
                    message.fields.push((name, pair.val.data_opt(buf).unwrap_or_default().to_vec()));
                }
            }
            Block::Chunk(chunk) => message.content.extend_from_slice(chunk.data.data_opt(buf).unwrap_or_default()),
            Block::Flags(flags) if flags.end_header => in_head = false,
            _ => {}
        }
    }
    Outcome::Whole(message)
}

/// Compares, and tells whether both accepted.
fn compare(bytes: &[u8], is_request: bool) -> Result<bool, TestCaseError> {
    let (ours, theirs) = if is_request {
        (ours_request(bytes), theirs(Kind::Request, bytes))
    } else {
        (ours_response(bytes), theirs(Kind::Response, bytes))
    };
    let shown = String::from_utf8_lossy(bytes);
    match (&ours, &theirs) {
        (Outcome::Whole(a), Outcome::Whole(b)) => {
            prop_assert_eq!(a, b, "{:?}", shown);
            return Ok(true);
        }
        (Outcome::Refused(why), Outcome::Whole(_)) => {
            let reason =
                STRICTER.iter().any(|(reason, sign)| reason == why && shown.to_ascii_lowercase().contains(sign));
            prop_assert!(reason, "only we refuse: {}: {:?}", why, shown);
        }
        (Outcome::Whole(message), Outcome::Refused(_)) => {
            prop_assert!(laxer(bytes, is_request), "only kawa refuses {:?}: {:?}", shown, message);
        }
        // Who reads line by line says so sooner.
        (Outcome::Refused(_), _) | (Outcome::More, Outcome::More | Outcome::Refused(_)) => {}
        (Outcome::Whole(_), Outcome::More) | (Outcome::More, Outcome::Whole(_)) => {
            prop_assert!(false, "one waits, the other does not: {:?} {:?} {:?}", ours, theirs, shown);
        }
    }
    Ok(false)
}

const REQUEST_LINES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "GET /a/b?c=d HTTP/1.1\r\n",
    "POST /a HTTP/1.1\r\n",
    "HEAD / HTTP/1.0\r\n",
    "PURGE /%2e%2e//x HTTP/1.1\r\n",
    "GET http://a.example/x?y HTTP/1.1\r\n",
    "GET http://a.example HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET * HTTP/1.1\r\n",
    "GET /a#b HTTP/1.1\r\n",
    "GET  / HTTP/1.1\r\n",
    "GET / HTTP/1.1 \r\n",
    "GET / HTTP/2.0\r\n",
    "GET / http/1.1\r\n",
    "GET / HTTP/1.1\n",
    "GET /\r\n",
    "CONNECT a.example:443 HTTP/1.1\r\n",
    "\r\nGET / HTTP/1.1\r\n",
    "G(T / HTTP/1.1\r\n",
    "GET /\x01 HTTP/1.1\r\n",
];

const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 103 Early Hints\r\n",
    "HTTP/1.1 404 \r\n",
    "HTTP/1.1 404\r\n",
    "HTTP/1.1 500 a b c\r\n",
    "HTTP/1.1 20 OK\r\n",
    "HTTP/1.1 2000 OK\r\n",
    "HTTP/2.0 200 OK\r\n",
    "HTTP/1.1 200 OK\n",
    "HTTP/1.1  200 OK\r\n",
];

const FIELDS: &[&str] = &[
    "Content-Length: 5\r\n",
    "Content-Length: 005\r\n",
    "content-length:7\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length:\r\n",
    "Content-Length: 5 5\r\n",
    "Content-Length : 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding: \tCHUNKED \t\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: chunked,\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunked\x0b\r\n",
    "Transfer-Encoding:\r\n",
    "X-A: b\r\n",
    "X-A:\t b c \t\r\n",
    "X-A:\r\n",
    "X-A: b\n",
    "X-A: b\r\n c\r\n",
    "X-A: b\rc\r\n",
    "X-A: b\0c\r\n",
    " X-A: b\r\n",
    ": b\r\n",
    "X-A\r\n",
    "X(A: b\r\n",
    "X_A: b\r\n",
    "Content_Length: 5\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Host: b.example\r\n",
];

const BODIES: &[&str] = &[
    "",
    "hello",
    "hello, and what comes next",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\nGET",
    "05;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    "5;a\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello!\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "5;\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX\r\n\r\n",
    "0\r\n\n",
];

fn message(starts: &'static [&'static str], host: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let hosts = if host.is_empty() { vec![""] } else { vec![host, host, host, host, "", "Host: a b\r\n"] };
    let good = |from: &'static [&'static str], good: usize| prop_oneof![3 => select(&from[..good]), 1 => select(from)];
    // What both would accept is at the beginning of each list, so that agreement is tried too.
    let good_starts = starts.len().min(5);
    let fields = prop_oneof![2 => select(&["X-A: b\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "X-A:\t b c \t\r\n"][..]), 1 => select(FIELDS)];
    (good(starts, good_starts), select(hosts), vec(fields, 0..4), good(BODIES, 6))
        .prop_map(|(start, host, fields, body)| [start, host, &fields.concat(), "\r\n", body].concat().into_bytes())
}

fn run(starts: &'static [&'static str], host: &'static str, is_request: bool) {
    let cases = 5000;
    let agreed = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&message(starts, host), |bytes| {
        agreed.set(agreed.get() + u32::from(compare(&bytes, is_request)?));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let agreed = agreed.get();
    assert!(agreed > cases / 10, "only {agreed} of {cases} were accepted by both");
}

#[test]
fn requests_are_read_alike() {
    run(REQUEST_LINES, "Host: a.example\r\n", true);
}

#[test]
fn responses_are_read_alike() {
    run(STATUS_LINES, "", false);
}
