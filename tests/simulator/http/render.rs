//! The bytes of requests and responses, the malformed ones among them.

use super::plan::{Answer, Ask, Body, Ends, Wrong, ask_has_no_body};
use crate::pattern::Pattern;
use l4lb::link::scripted::Dice;

/// What may pass behind a body in chunks, and what may not.
pub(crate) const TRAILERS: &str = "X-Sum: all of it\r\nContent-Length: 7\r\nX-Last: 1\r\n";
/// What is left of it.
pub(crate) const TRAILERS_KEPT: [(&str, &str); 2] = [("x-sum", "all of it"), ("x-last", "1")];

/// Heads that are refused: why, the head with `ID` in place of the request's number, and what is answered.
/// `PAD` is a field value of 20,000 bytes.
pub(crate) const BAD_HEADS: [(&str, &str, u16); 26] = [
    ("two lengths", "POST /r/ID HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    ("both", "POST /r/ID HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a sign", "POST /r/ID HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
    ("no number", "POST /r/ID HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 400),
    ("not chunked", "POST /r/ID HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked twice", "POST /r/ID HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    ("a coding", "POST /r/ID HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("1.0 in chunks", "POST /r/ID HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("bare LF", "GET /r/ID HTTP/1.1\nHost: a\n\n", 400),
    ("bare CR", "GET /r/ID HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
    ("space before the colon", "GET /r/ID HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("a folded line", "GET /r/ID HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
    ("no host", "GET /r/ID HTTP/1.1\r\n\r\n", 400),
    ("two hosts", "GET /r/ID HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("a bad host", "GET /r/ID HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
    ("no version", "GET /r/ID\r\nHost: a\r\n\r\n", 400),
    ("another version", "GET /r/ID HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("CONNECT", "CONNECT r.test:80 HTTP/1.1\r\nHost: r.test:80\r\n\r\n", 501),
    ("an expectation", "POST /r/ID HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 3\r\n\r\nabc", 417),
    ("too large", "GET /r/ID HTTP/1.1\r\nHost: a\r\nX: PAD\r\n\r\n", 431),
    ("too long", "GET /r/ID?PAD HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ("a NUL", "GET /r/ID HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400),
    ("above the root", "GET /../r/ID HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("https", "GET https://a/r/ID HTTP/1.1\r\nHost: a\r\n\r\n", 421),
    (
        "a loop",
        "GET /r/ID HTTP/1.1\r\nHost: a\r\nVia: 1.1 l4lb, 1.1 l4lb, 1.1 l4lb, 1.1 l4lb, 1.1 l4lb, 1.1 l4lb\r\n\r\n",
        502,
    ),
    ("no HTTP", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0", 400),
];

/// What stands in a body where a chunk should begin. All of them are 400.
pub(crate) const BAD_CHUNKS: [&str; 9] = [
    "zz\r\n",
    "+5\r\nabcde\r\n",
    "5 \r\nabcde\r\n",
    "5\nabcde\n",
    "3\r\nabcde\r\n",
    "0x5\r\nabcde\r\n",
    "fffffffffffffffff\r\n",
    "5;\r\nabcde\r\n",
    "0\r\nX bad\r\n\r\n",
];

/// What is no response.
pub(crate) const BAD_RESPONSES: [&str; 12] = [
    "220 mail.test ready\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
    "\0\0\0\0\r\n\r\n",
];

/// What comes behind a response that nobody asked for: a response in its turn, which must never be taken for one.
pub(crate) const EXTRA: &str = "HTTP/1.1 200 OK\r\nX-Id: nobody\r\nContent-Length: 6\r\n\r\nstolen";

/// The same without the looks.
pub(crate) const GARBAGE: &str = "and more\r\n\r\n";

/// The content of a request.
pub(crate) fn said(id: usize) -> Pattern {
    Pattern(2 * id as u64 + 1)
}

/// The content of the answer to a try at it.
pub(crate) fn told(id: usize, attempt: usize) -> Pattern {
    Pattern(2 * (id as u64 * 64 + attempt as u64) + 2)
}

/// What is said in another protocol: by the client, by the backend.
pub(crate) fn in_tunnel(id: usize, of_client: bool) -> Pattern {
    Pattern(1_000_003 + 2 * id as u64 + u64::from(of_client))
}

/// A request as it is sent, and how long its head is.
pub(crate) fn request(ask: &Ask, id: usize) -> (Vec<u8>, usize) {
    if let Some(bad) = ask.bad_head {
        let text = BAD_HEADS[bad].1.replace("ID", &id.to_string()).replace("PAD", &"p".repeat(20_000));
        let length = text.len();
        return (text.into_bytes(), length);
    }
    let version = if ask.http10 { "1.0" } else { "1.1" };
    let mut text =
        format!("{} /r/{id}?q=1 HTTP/{version}\r\nHost: www.test\r\nX-Forwarded-For: 6.6.6.6\r\n", ask.method);
    if ask.padding > 0 {
        text += &format!("X-Padding: {}\r\n", "p".repeat(ask.padding));
    }
    let options = [(ask.close, "close"), (ask.te, "TE"), (ask.upgrade.is_some(), "upgrade")];
    let options: Vec<&str> = options.iter().filter(|option| option.0).map(|option| option.1).collect();
    if !options.is_empty() {
        text += &format!("Connection: {}\r\n", options.join(", "));
    }
    if ask.te {
        text += "TE: trailers\r\n";
    }
    if ask.upgrade.is_some() {
        text += "Upgrade: chatter\r\n";
    }
    if ask.expect {
        text += "Expect: 100-continue\r\n";
    }
    match ask.body {
        Body::None => {}
        Body::Length(length) => text += &format!("Content-Length: {length}\r\n"),
        Body::Chunked { .. } | Body::Bad { .. } => text += "Transfer-Encoding: chunked\r\n",
    }
    let mut bytes = (text + "\r\n").into_bytes();
    let head = bytes.len();
    match ask.body {
        Body::None => {}
        Body::Length(length) => bytes.extend(said(id).bytes(0, length as usize)),
        Body::Chunked { length, grain, trailers } => {
            chunks(&mut bytes, said(id), length, grain, id as u64);
            bytes.extend_from_slice(if trailers { TRAILERS.as_bytes() } else { b"" });
            bytes.extend_from_slice(b"\r\n");
        }
        Body::Bad { length, bad } => {
            chunks(&mut bytes, said(id), length, 1_000, id as u64);
            // In place of the last chunk.
            bytes.truncate(bytes.len() - 3);
            bytes.extend_from_slice(BAD_CHUNKS[bad].as_bytes());
        }
    }
    if let Some((length, true)) = ask.upgrade {
        bytes.extend(in_tunnel(id, true).bytes(0, length as usize));
    }
    (bytes, head)
}

/// Content in chunks of odd sizes, oddly written, up to the last chunk.
fn chunks(bytes: &mut Vec<u8>, content: Pattern, length: u64, grain: u64, seed: u64) {
    let mut dice = Dice::new(seed ^ 0xc4_07);
    let mut at = 0;
    while at < length {
        let size = (dice.from_to(1, grain.max(1) as usize) as u64).min(length - at);
        let line = match dice.below(4) {
            0 => format!("{size:x}\r\n"),
            1 => format!("{size:X}\r\n"),
            2 => format!("000{size:x}\r\n"),
            _ => format!("{size:x};a=\"b;\\\"\"\r\n"),
        };
        // Extensions are bounded, all together.
        let line = if length / grain.max(1) > 20 { format!("{size:x}\r\n") } else { line };
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend(content.bytes(at, size as usize));
        bytes.extend_from_slice(b"\r\n");
        at += size;
    }
    bytes.extend_from_slice(b"0\r\n");
}

/// A response as it is sent.
pub(crate) struct Rendered {
    pub(crate) bytes: Vec<u8>,
    /// How long the final head and what comes before it is.
    pub(crate) head: usize,
}

/// What a backend sends for this try.
pub(crate) fn response(answer: &Answer, ask: &Ask, id: usize, attempt: usize) -> Rendered {
    let mut text = String::new();
    for status in &answer.interim {
        text += &format!("HTTP/1.1 {status} Wait\r\nX-Id: {id}-{attempt}\r\n\r\n");
    }
    if let Wrong::Head(bad) = answer.wrong {
        text += BAD_RESPONSES[bad];
        return Rendered { head: text.len(), bytes: text.into_bytes() };
    }
    let version = if answer.http10 { "1.0" } else { "1.1" };
    text += &format!("HTTP/{version} {} Fine\r\nX-Id: {id}-{attempt}\r\nServer: sim\r\n", answer.status);
    if answer.status == 101 {
        text += "Connection: upgrade\r\nUpgrade: chatter\r\n";
    } else if answer.close {
        text += "Connection: close\r\n";
    } else if answer.http10 {
        text += "Connection: keep-alive\r\n";
    }
    match answer.ends {
        Ends::Length | Ends::Never(true) => text += &format!("Content-Length: {}\r\n", answer.length),
        Ends::Chunked => text += "Transfer-Encoding: chunked\r\n",
        Ends::Close | Ends::Never(false) => {}
    }
    let mut bytes = (text + "\r\n").into_bytes();
    let head = bytes.len();
    let content = told(id, attempt);
    if answer.status == 101 {
        bytes.extend(in_tunnel(id, false).bytes(0, answer.length as usize));
    } else if !ask_has_no_body(ask, answer.status) {
        match answer.ends {
            Ends::Length | Ends::Close => bytes.extend(content.bytes(0, answer.length as usize)),
            Ends::Chunked => {
                let bad = if let Wrong::Chunk(at) = answer.wrong { Some(at) } else { None };
                chunks(&mut bytes, content, bad.unwrap_or(answer.length), 3_000, id as u64 + attempt as u64);
                if bad.is_some() {
                    bytes.truncate(bytes.len() - 3);
                    bytes.extend_from_slice(BAD_CHUNKS[(id + attempt) % BAD_CHUNKS.len()].as_bytes());
                } else {
                    bytes.extend_from_slice(if answer.trailers { TRAILERS.as_bytes() } else { b"" });
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            Ends::Never(_) => {}
        }
    }
    Rendered { bytes, head }
}
