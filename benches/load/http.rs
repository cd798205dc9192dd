//! As much of an HTTP/1.1 client as load on one address needs: the address taken apart, a request written, a response
//! read to its end (RFC 9112). Reads from anything that is `Read`, so that `tests/bench_figures.rs` can hold it to
//! examples; sockets and clocks are `url.rs`'s.

use std::io::{self, Read};

/// More than any sensible head of a response.
const BUFFER: usize = 64 * 1024;
const FIELDS: usize = 128;

/// An http:// address taken apart.
#[derive(Debug, PartialEq)]
pub(crate) struct Target {
    /// Without brackets: fit for the resolver.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host and port as the Host field wants them.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let Some(rest) = strip_scheme(url, "http://") else {
            return Err(match strip_scheme(url, "https://") {
                Some(_) => format!("{url}: https is not supported yet; write an http:// address"),
                None => format!("{url}: not an address of http; write one such as http://localhost:8080/"),
            });
        };
        let rest = rest.split('#').next().unwrap_or_default(); // a fragment is never sent
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let bad = |what: &str| Err(format!("{url}: {what}"));
        if authority.contains('@') {
            return bad("user names are not supported yet");
        }
        if path.bytes().chain(authority.bytes()).any(|byte| byte <= b' ' || byte == 0x7f) {
            return bad("blanks and control characters do not belong there; write %20 for a blank");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => match port.parse() {
                Ok(port) if port != 0 => (host, port),
                _ => return bad("the port is not a number from 1 to 65535"),
            },
            _ => (authority, 80),
        };
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || inside.is_none() && host.contains(':') {
            return bad("there is no host; IPv6 addresses go into brackets, as in http://[::1]:8080/");
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { host: inside.unwrap_or(host).to_owned(), port, authority: authority.to_owned(), path })
    }

    /// The bytes of a request.
    pub(crate) fn request(&self) -> Vec<u8> {
        let (path, authority) = (&self.path, &self.authority);
        format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: l4lb-load\r\nAccept: */*\r\n\r\n").into_bytes()
    }
}

fn strip_scheme<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let (start, rest) = url.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// A response, read to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of the body, without its framing.
    pub(crate) body_bytes: u64,
    /// The connection may carry another request.
    pub(crate) keep: bool,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(io::Error),
    /// The connection ended within the response, or before it.
    ClosedEarly,
    NotHttp(&'static str),
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Self::Io(err)
    }
}

enum Body {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What a connection has received and nobody has used yet.
pub(crate) struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER], start: 0, end: 0 }
    }

    /// Nothing of a next response is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads one response to a GET.
    pub(crate) fn answer(&mut self, from: &mut impl Read) -> Result<Answer, Failure> {
        loop {
            let (status, body, keep) = self.head(from)?;
            if (100..200).contains(&status) {
                continue; // an interim response; the real one follows
            }
            let body_bytes = match body {
                Body::None => 0,
                Body::Length(length) => self.skip(from, length)?,
                Body::Chunked => self.chunks(from)?,
                Body::UntilClose => self.rest(from)?,
            };
            let keep = keep && !matches!(body, Body::UntilClose);
            return Ok(Answer { status, body_bytes, keep });
        }
    }

    fn head(&mut self, from: &mut impl Read) -> Result<(u16, Body, bool), Failure> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS];
            let mut response = httparse::Response::new(&mut fields);
            let parsed = response.parse(&self.buffer[self.start..self.end]);
            match parsed.map_err(|_| Failure::NotHttp("the head of the response cannot be parsed"))? {
                httparse::Status::Complete(length) => {
                    let status = response.code.unwrap_or(0);
                    let version = response.version.unwrap_or(0);
                    let found = (status, framing(status, response.headers)?, keeps(version, response.headers));
                    self.start += length;
                    return Ok(found);
                }
                httparse::Status::Partial => self.fill(from)?,
            }
        }
    }

    /// Reads more behind what is there.
    fn fill(&mut self, from: &mut impl Read) -> Result<(), Failure> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            return Err(Failure::NotHttp("a head or chunk line of over 64 KiB"));
        }
        match from.read(&mut self.buffer[self.end..])? {
            0 => Err(Failure::ClosedEarly),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }

    /// Uses up `count` bytes.
    fn skip(&mut self, from: &mut impl Read, count: u64) -> Result<u64, Failure> {
        let mut left = count;
        loop {
            let here = left.min((self.end - self.start) as u64);
            self.start += here as usize;
            left -= here;
            if left == 0 {
                return Ok(count);
            }
            self.fill(from)?;
        }
    }

    fn chunks(&mut self, from: &mut impl Read) -> Result<u64, Failure> {
        let mut all = 0;
        loop {
            let (line, size) = loop {
                match httparse::parse_chunk_size(&self.buffer[self.start..self.end]) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) => self.fill(from)?,
                    Err(_) => return Err(Failure::NotHttp("the size of a chunk cannot be parsed")),
                }
            };
            self.start += line;
            if size == 0 {
                self.trailers(from)?;
                return Ok(all);
            }
            all += self.skip(from, size)?;
            while self.end - self.start < 2 {
                self.fill(from)?;
            }
            if &self.buffer[self.start..self.start + 2] != b"\r\n" {
                return Err(Failure::NotHttp("a chunk does not end where it should"));
            }
            self.start += 2;
        }
    }

    fn trailers(&mut self, from: &mut impl Read) -> Result<(), Failure> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; FIELDS];
            match httparse::parse_headers(&self.buffer[self.start..self.end], &mut fields) {
                Ok(httparse::Status::Complete((length, _))) => {
                    self.start += length;
                    return Ok(());
                }
                Ok(httparse::Status::Partial) => self.fill(from)?,
                Err(_) => return Err(Failure::NotHttp("the trailer section cannot be parsed")),
            }
        }
    }

    fn rest(&mut self, from: &mut impl Read) -> Result<u64, Failure> {
        let mut all = 0;
        loop {
            all += (self.end - self.start) as u64;
            (self.start, self.end) = (0, 0);
            match self.fill(from) {
                Err(Failure::ClosedEarly) => return Ok(all), // here the end is the frame
                other => other?,
            }
        }
    }
}

/// How long the body is (RFC 9112, section 6.3).
fn framing(status: u16, fields: &[httparse::Header<'_>]) -> Result<Body, Failure> {
    if matches!(status, 100..=199 | 204 | 304) {
        return Ok(Body::None);
    }
    if has_word(fields, "transfer-encoding", "chunked") {
        return Ok(Body::Chunked);
    }
    if fields.iter().any(|field| field.name.eq_ignore_ascii_case("transfer-encoding")) {
        return Ok(Body::UntilClose);
    }
    let Some(field) = fields.iter().find(|field| field.name.eq_ignore_ascii_case("content-length")) else {
        return Ok(Body::UntilClose);
    };
    let length = std::str::from_utf8(field.value).ok().and_then(|text| text.trim().parse().ok());
    length.map(Body::Length).ok_or(Failure::NotHttp("Content-Length is not a number"))
}

/// Whether the connection stays open (RFC 9112, section 9.3). `version`: the minor one.
fn keeps(version: u8, fields: &[httparse::Header<'_>]) -> bool {
    !has_word(fields, "connection", "close") && (version == 1 || has_word(fields, "connection", "keep-alive"))
}

fn has_word(fields: &[httparse::Header<'_>], name: &str, word: &str) -> bool {
    let of_name = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    let mut words = of_name.filter_map(|field| std::str::from_utf8(field.value).ok()).flat_map(|text| text.split(','));
    words.any(|found| found.trim().eq_ignore_ascii_case(word))
}
