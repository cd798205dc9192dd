//! Reads HTTP/1 requests from a stream of bytes: heads by httparse, bodies by length or in chunks (RFC 9112).
//!
//! Knows: what a request is and what is refused. Must not touch: what is answered. Everything is bounded: a head by
//! [`MOST_HEAD`], a body by [`MOST_BODY`].

use std::io::{self, Read};

/// Bytes of a request line and its headers together; also of the trailers behind a chunked body.
pub(super) const MOST_HEAD: usize = 64 * 1024;
/// Header lines of a request.
pub(super) const MOST_HEADERS: usize = 100;
/// Bytes of a body.
pub(super) const MOST_BODY: usize = 8 * 1024 * 1024;
/// Bytes of a line that begins a chunk, with its extensions.
const MOST_CHUNK_LINE: usize = 1024;
/// Bytes asked for in one read.
const READ: usize = 16 * 1024;

/// A request without its body.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) method: String,
    /// The request target as sent, with the query.
    pub(super) target: String,
    /// As sent, in their order; bytes that are no UTF-8 are replaced.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Framing,
    /// HTTP/1.1, and not 1.0.
    pub(super) is_1_1: bool,
    /// Whether the client wants to send another request on this connection.
    pub(super) keep_alive: bool,
    /// Whether the client waits for "100 Continue" before it sends the body.
    pub(super) expects_continue: bool,
}

/// How the end of a body is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes, at most [`MOST_BODY`]; 0 when there is no body.
    Length(usize),
    Chunked,
}

/// Why there is no request.
#[derive(Debug, PartialEq)]
pub(super) enum Stop {
    /// The client has left, or has been silent for too long; there is nobody to answer.
    Gone,
    /// Answer this, and close: where the next request would begin is not certain.
    Refused(Refusal),
}

/// A request that is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) why: &'static str,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

fn refuse<T>(status: u16, why: &'static str) -> Result<T, Stop> {
    Err(Refusal { status, why }.into())
}

/// The bytes of one client: those that have come and are not used yet, and where more come from.
pub(super) struct Incoming<R> {
    from: R,
    held: Vec<u8>,
}

impl<R: Read> Incoming<R> {
    pub(super) fn new(from: R) -> Incoming<R> {
        Incoming { from, held: Vec::new() }
    }

    /// Whether bytes behind the last request have come already.
    pub(super) fn has_more(&self) -> bool {
        !self.held.is_empty()
    }

    /// Waits for the head of the next request.
    pub(super) fn head(&mut self) -> Result<Head, Stop> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut request = httparse::Request::new(&mut fields);
            match request.parse(&self.held) {
                Ok(httparse::Status::Complete(used)) => {
                    let head = head_of(&request)?;
                    self.held.drain(..used);
                    return Ok(head);
                }
                Ok(httparse::Status::Partial) if self.held.len() >= MOST_HEAD => {
                    return refuse(431, "the head of the request is larger than 64 KiB");
                }
                Ok(httparse::Status::Partial) => self.fill()?,
                Err(httparse::Error::TooManyHeaders) => {
                    return refuse(431, "the request has more than 100 headers");
                }
                Err(httparse::Error::Version) => {
                    return refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
                }
                Err(_) => return refuse(400, "this is no HTTP/1 request"),
            }
        }
    }

    /// Waits for the whole body that belongs to a head.
    pub(super) fn body(&mut self, framing: Framing) -> Result<Vec<u8>, Stop> {
        match framing {
            Framing::Length(length) => self.take(length),
            Framing::Chunked => self.chunks(),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Stop> {
        let mut body = Vec::new();
        loop {
            let size = match httparse::parse_chunk_size(&self.held) {
                Ok(httparse::Status::Complete((used, size))) => {
                    self.held.drain(..used);
                    size
                }
                Ok(httparse::Status::Partial) if self.held.len() < MOST_CHUNK_LINE => {
                    self.fill()?;
                    continue;
                }
                _ => return refuse(400, "a chunk does not begin with its size"),
            };
            if size == 0 {
                self.skip_trailers()?;
                return Ok(body);
            }
            let size = within_bound(size.saturating_add(body.len() as u64))? - body.len();
            body.extend(self.take(size)?);
            if self.take(2)? != b"\r\n" {
                return refuse(400, "a chunk is not as long as it says");
            }
        }
    }

    /// Lines up to an empty one; nobody asked for them.
    fn skip_trailers(&mut self) -> Result<(), Stop> {
        let mut seen = 0;
        loop {
            let Some(end) = self.held.iter().position(|byte| *byte == b'\n') else {
                if seen + self.held.len() >= MOST_HEAD {
                    return refuse(431, "the trailers are larger than 64 KiB");
                }
                self.fill()?;
                continue;
            };
            let line: Vec<u8> = self.held.drain(..=end).collect();
            if matches!(line.as_slice(), b"\n" | b"\r\n") {
                return Ok(());
            }
            seen += line.len();
        }
    }

    /// The next bytes, exactly so many.
    fn take(&mut self, size: usize) -> Result<Vec<u8>, Stop> {
        while self.held.len() < size {
            self.fill()?;
        }
        let rest = self.held.split_off(size);
        Ok(std::mem::replace(&mut self.held, rest))
    }

    fn fill(&mut self) -> Result<(), Stop> {
        let before = self.held.len();
        self.held.resize(before + READ, 0);
        let read = loop {
            match self.from.read(&mut self.held[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.unwrap_or(0),
            }
        };
        self.held.truncate(before + read);
        if read == 0 { Err(Stop::Gone) } else { Ok(()) }
    }
}

fn within_bound(length: u64) -> Result<usize, Stop> {
    match usize::try_from(length) {
        Ok(length) if length <= MOST_BODY => Ok(length),
        _ => refuse(413, "the body is larger than 8 MiB"),
    }
}

fn head_of(request: &httparse::Request<'_, '_>) -> Result<Head, Stop> {
    let is_1_1 = request.version == Some(1);
    let mut head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        headers: Vec::with_capacity(request.headers.len()),
        body: Framing::Length(0),
        is_1_1,
        keep_alive: is_1_1,
        expects_continue: false,
    };
    let (mut hosts, mut length, mut chunked) = (0, None, false);
    for field in request.headers.iter() {
        let value = String::from_utf8_lossy(field.value).into_owned();
        let tokens = || value.split(',').map(str::trim);
        match field.name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" => {
                if length.is_some_and(|other| other != value) {
                    return refuse(400, "there are two lengths");
                }
                length = Some(value.clone());
            }
            "transfer-encoding" if !is_1_1 => {
                return refuse(400, "HTTP/1.0 knows no Transfer-Encoding");
            }
            "transfer-encoding" if !chunked && value.eq_ignore_ascii_case("chunked") => chunked = true,
            "transfer-encoding" => {
                return refuse(501, "the only Transfer-Encoding spoken here is chunked");
            }
            "connection" => {
                // "close" wins over "keep-alive", wherever it stands (RFC 9112, section 9.3).
                if tokens().any(|token| token.eq_ignore_ascii_case("close")) {
                    head.keep_alive = false;
                } else if !is_1_1 && tokens().any(|token| token.eq_ignore_ascii_case("keep-alive")) {
                    head.keep_alive = true;
                }
            }
            "expect" if !is_1_1 => {} // to be ignored (RFC 9110, section 10.1.1)
            "expect" if value.eq_ignore_ascii_case("100-continue") => head.expects_continue = true,
            "expect" => return refuse(417, "the only expectation met here is 100-continue"),
            _ => {}
        }
        head.headers.push((field.name.to_owned(), value));
    }
    if hosts > 1 || (is_1_1 && hosts == 0) {
        return refuse(400, "an HTTP/1.1 request has one Host");
    }
    head.body = match (length, chunked) {
        (Some(_), true) => {
            return refuse(400, "a length and chunks: the end of the body is not certain");
        }
        (None, true) => Framing::Chunked,
        (None, false) => Framing::Length(0),
        (Some(digits), false) => Framing::Length(within_bound(decimal(&digits)?)?),
    };
    Ok(head)
}

/// Digits and nothing else; `str::parse` would also take a plus sign.
fn decimal(digits: &str) -> Result<u64, Stop> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse(400, "Content-Length is no number");
    }
    // More digits than fit are a length too, one beyond every bound.
    Ok(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A stream that gives its pieces one read each, then ends.
    pub(in super::super) struct Pieces(std::collections::VecDeque<Vec<u8>>);

    impl Pieces {
        pub(in super::super) fn of(pieces: &[&str]) -> Pieces {
            Pieces(pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect())
        }

        pub(in super::super) fn bytes(text: &str) -> Pieces {
            Pieces(text.bytes().map(|byte| vec![byte]).collect())
        }
    }

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(mut piece) = self.0.pop_front() else {
                return Ok(0);
            };
            let size = piece.len().min(buffer.len());
            buffer[..size].copy_from_slice(&piece[..size]);
            if size < piece.len() {
                self.0.push_front(piece.split_off(size));
            }
            Ok(size)
        }
    }

    /// Reads one request, first whole and then byte by byte; both must tell the same.
    fn read(text: &str) -> Result<(Head, Vec<u8>), Stop> {
        let once = |from: Pieces| {
            let mut incoming = Incoming::new(from);
            let head = incoming.head()?;
            let body = incoming.body(head.body)?;
            Ok((head, body))
        };
        let whole = once(Pieces::of(&[text]));
        assert_eq!(whole, once(Pieces::bytes(text)), "{text:?}");
        whole
    }

    #[test]
    fn bodies_end_where_rfc_9112_section_6_3_says() {
        let cases = [
            ("no length: no body", "", "", Ok("")),
            ("a length", "Content-Length: 5\r\n", "hellomore", Ok("hello")),
            ("leading zeros are decimal", "Content-Length: 005\r\n", "hello", Ok("hello")),
            ("the same length twice", "Content-Length: 5\r\nContent-Length: 5\r\n", "hello", Ok("hello")),
            ("two lengths: smuggling", "Content-Length: 5\r\nContent-Length: 6\r\n", "hello!", Err(400)),
            ("a sign is no digit", "Content-Length: +5\r\n", "hello", Err(400)),
            ("no digits at all", "Content-Length: \r\n", "hello", Err(400)),
            ("one byte too many", "Content-Length: 8388609\r\n", "", Err(413)),
            ("more than any number", "Content-Length: 99999999999999999999999\r\n", "", Err(413)),
            ("chunks", "Transfer-Encoding: chunked\r\n", "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\nmore", Ok("hello")),
            ("hex in capitals", "Transfer-Encoding: Chunked\r\n", "A\r\n0123456789\r\n0\r\n\r\n", Ok("0123456789")),
            ("trailers are read", "Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\nX: y\r\nZ: w\r\n\r\n", Ok("a")),
            ("no size", "Transfer-Encoding: chunked\r\n", "x\r\n", Err(400)),
            ("longer than it says", "Transfer-Encoding: chunked\r\n", "1\r\nabc\r\n", Err(400)),
            ("a chunk beyond the bound", "Transfer-Encoding: chunked\r\n", "800001\r\n", Err(413)),
            ("chunks that wrap around", "Transfer-Encoding: chunked\r\n", "1\r\na\r\nffffffffffffffff\r\n", Err(413)),
            ("both: smuggling", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "", Err(400)),
            ("an encoding that we do not speak", "Transfer-Encoding: gzip, chunked\r\n", "", Err(501)),
            ("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "", Err(501)),
        ];
        for (why, fields, body, expected) in cases {
            let got = match read(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")) {
                Ok((_, body)) => Ok(String::from_utf8(body).unwrap()),
                Err(Stop::Refused(refusal)) => Err(refusal.status),
                Err(Stop::Gone) => panic!("{why}: the end came too soon"),
            };
            assert_eq!(got.as_deref(), expected.as_ref().copied(), "{why}");
        }
    }

    #[test]
    fn heads_are_taken_or_refused() {
        let cases = [
            ("no host in 1.1", "GET / HTTP/1.1\r\n\r\n", Some(400)),
            ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Some(400)),
            ("1.0 needs none", "GET / HTTP/1.0\r\n\r\n", None),
            ("an empty line before a request", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("an unknown method is echoed like any", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("not HTTP", "hello\r\n\r\n", Some(400)),
            ("a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", Some(400)),
            ("chunks in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Some(400)),
            ("an expectation we cannot meet", "POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", Some(417)),
            ("HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(505)),
        ];
        for (why, text, expected) in cases {
            let got = match read(text) {
                Ok(_) => None,
                Err(Stop::Refused(refusal)) => Some(refusal.status),
                Err(Stop::Gone) => panic!("{why}: the end came too soon"),
            };
            assert_eq!(got, expected, "{why}");
        }
    }

    #[test]
    fn a_head_is_bounded() {
        let many = "X: y\r\n".repeat(MOST_HEADERS + 1);
        let large = format!("X: {}\r\n", "y".repeat(MOST_HEAD));
        for (why, fields) in
            [("many headers", many), ("large headers", large.clone()), ("one endless line", large + "Z")]
        {
            let mut incoming = Incoming::new(Pieces::of(&[&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}")]));
            let Err(Stop::Refused(refusal)) = incoming.head() else { panic!("{why}: taken") };
            assert_eq!(refusal.status, 431, "{why}");
        }
    }

    #[test]
    fn trailers_are_bounded() {
        let trailers = "X: y\r\n".repeat(MOST_HEAD / 6 + 2);
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}");
        let mut incoming = Incoming::new(Pieces::of(&[&text]));
        let head = incoming.head().unwrap();
        assert!(matches!(incoming.body(head.body), Err(Stop::Refused(Refusal { status: 431, .. }))));
    }

    #[test]
    fn a_connection_stays_or_ends_as_rfc_9112_section_9_3_says() {
        let cases = [
            ("1.1 stays", "HTTP/1.1", "", true),
            ("1.1 with close", "HTTP/1.1", "Connection: close\r\n", false),
            ("in a list, in capitals", "HTTP/1.1", "Connection: foo, CLOSE\r\n", false),
            ("1.0 ends", "HTTP/1.0", "", false),
            ("1.0 that asks to stay", "HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("both: it ends", "HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ];
        for (why, version, fields, expected) in cases {
            let (head, _) = read(&format!("GET / {version}\r\nHost: a\r\n{fields}\r\n")).unwrap();
            assert_eq!(head.keep_alive, expected, "{why}");
        }
    }

    #[test]
    fn the_end_of_input_is_no_request() {
        for text in ["", "GET /", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell"] {
            assert_eq!(read(text), Err(Stop::Gone), "{text:?}");
        }
    }
}
