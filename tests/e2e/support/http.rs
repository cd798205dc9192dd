//! HTTP/1.1 by hand, on either side: a test says exactly which bytes it sends, and reads messages whole.
//!
//! The reader here is simple and believes nothing: what is no message fails the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use super::{Client, Ending, Server, client, connect};

/// A connection with what was read of it and not used yet.
pub struct Wire {
    pub stream: TcpStream,
    held: Vec<u8>,
}

/// The first line and the fields of a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    pub line: String,
    pub fields: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &[u8]) -> Head {
        let text = String::from_utf8(text.to_vec()).expect("the heads of these tests are text");
        let mut lines = text.strip_suffix("\r\n\r\n").expect("the end of a head").split("\r\n");
        let line = lines.next().expect("a first line").to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is no field in {text:?}"));
            assert!(!value.contains('\n'), "a bare line feed in {text:?}");
            (name.to_owned(), value.to_owned())
        };
        Head { line, fields: lines.map(field).collect() }
    }

    /// The values of all fields of this name, in any case.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_owned();
        self.fields.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(&name)).map(|(_, value)| &**value)
    }

    /// The value of the only field of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.all(name);
        let first = all.next();
        assert!(all.next().is_none(), "{name} comes twice in {self:?}");
        first
    }

    /// Of a response.
    pub fn status(&self) -> u16 {
        let rest = self.line.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("{:?} is no status line", self.line));
        rest[..3].parse().unwrap_or_else(|e| panic!("{:?}: {e}", self.line))
    }

    /// Of a request.
    pub fn method(&self) -> &str {
        self.line.split(' ').next().expect("one part at least")
    }

    /// Of a request.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_else(|| panic!("{:?} is no request line", self.line))
    }

    pub fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|coding| {
            assert_eq!(coding, "chunked");
            assert_eq!(self.get("content-length"), None, "both framings in {self:?}");
            true
        })
    }

    pub fn length(&self) -> Option<usize> {
        self.get("content-length").map(|text| text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}")))
    }

    pub fn closes(&self) -> bool {
        self.all("connection").any(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A message read to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
    /// The trailer lines of a chunked body.
    pub trailers: Vec<String>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("these bodies are text")
    }
}

impl Wire {
    pub fn to(addr: SocketAddr) -> Wire {
        Wire::of(connect(addr))
    }

    pub fn of(stream: TcpStream) -> Wire {
        client::bounded(&stream);
        Wire { stream, held: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.stream.write_all(bytes).unwrap_or_else(|e| panic!("writing {} bytes: {e}", bytes.len()));
    }

    /// Sends as much as the other side takes; true when that was all.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads more; how it ended when there is none.
    fn more(&mut self) -> Result<(), Ending> {
        let mut buf = [0; 64 * 1024];
        loop {
            return match self.stream.read(&mut buf) {
                Ok(0) => Err(Ending::Clean),
                Ok(n) => {
                    self.held.extend_from_slice(&buf[..n]);
                    Ok(())
                }
                Err(e) if e.kind() == ErrorKind::ConnectionReset => Err(Ending::Reset),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => panic!("reading: {e}; held {:?}", String::from_utf8_lossy(&self.held)),
            };
        }
    }

    /// Reads until `mark`, and takes all up to its end; how it ended when it did so before, with what came.
    pub fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>, (Vec<u8>, Ending)> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.held[searched..].windows(mark.len()).position(|window| window == mark) {
                let rest = self.held.split_off(searched + at + mark.len());
                return Ok(std::mem::replace(&mut self.held, rest));
            }
            searched = self.held.len().saturating_sub(mark.len() - 1);
            if let Err(ending) = self.more() {
                return Err((std::mem::take(&mut self.held), ending));
            }
        }
    }

    /// The next head; `None` when the connection ended, cleanly or not, before its first byte.
    pub fn next_head(&mut self) -> Option<Head> {
        match self.until(b"\r\n\r\n") {
            Ok(text) => Some(Head::parse(&text)),
            Err((begun, _)) if begun.is_empty() => None,
            Err((begun, ending)) => panic!("{ending:?} within a head: {:?}", String::from_utf8_lossy(&begun)),
        }
    }

    pub fn head(&mut self) -> Head {
        self.next_head().expect("a head, not the end")
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.held.len() < n {
            if let Err(ending) = self.more() {
                panic!("{ending:?} after {} of {n} bytes", self.held.len());
            }
        }
        let rest = self.held.split_off(n);
        std::mem::replace(&mut self.held, rest)
    }

    fn line(&mut self) -> String {
        let line = self.until(b"\r\n").unwrap_or_else(|(begun, ending)| panic!("{ending:?} after {begun:?}"));
        String::from_utf8(line).expect("lines are text").trim_end_matches("\r\n").to_owned()
    }

    /// The next chunk; empty when it is the last one.
    pub fn chunk(&mut self) -> Vec<u8> {
        let line = self.line();
        let size = usize::from_str_radix(&line, 16).unwrap_or_else(|e| panic!("chunk size {line:?}: {e}"));
        if size == 0 {
            return Vec::new();
        }
        let data = self.bytes(size);
        assert_eq!(self.bytes(2), b"\r\n", "after a chunk");
        data
    }

    /// The rest of a chunked body, and its trailers.
    pub fn chunks(&mut self) -> (Vec<u8>, Vec<String>) {
        let mut content = Vec::new();
        loop {
            let chunk = self.chunk();
            if chunk.is_empty() {
                break;
            }
            content.extend_from_slice(&chunk);
        }
        let mut trailers = Vec::new();
        loop {
            match self.line() {
                line if line.is_empty() => return (content, trailers),
                line => trailers.push(line),
            }
        }
    }

    /// The body of a request with this head.
    pub fn request_body(&mut self, head: &Head) -> (Vec<u8>, Vec<String>) {
        if head.is_chunked() { self.chunks() } else { (self.bytes(head.length().unwrap_or(0)), Vec::new()) }
    }

    pub fn next_request(&mut self) -> Option<Message> {
        let head = self.next_head()?;
        let (body, trailers) = self.request_body(&head);
        Some(Message { head, body, trailers })
    }

    pub fn request(&mut self) -> Message {
        self.next_request().expect("a request, not the end")
    }

    /// The next final response to a request of this method; interim ones are passed over.
    pub fn response_to(&mut self, method: &str) -> Message {
        loop {
            let head = self.head();
            if (100..200).contains(&head.status()) && head.status() != 101 {
                continue;
            }
            let (body, trailers) = if method == "HEAD" || matches!(head.status(), 101 | 204 | 304) {
                (Vec::new(), Vec::new())
            } else if head.is_chunked() {
                self.chunks()
            } else if let Some(length) = head.length() {
                (self.bytes(length), Vec::new())
            } else {
                let (rest, ending) = self.rest();
                assert_eq!(ending, Ending::Clean, "a body without a length");
                (rest, Vec::new())
            };
            return Message { head, body, trailers };
        }
    }

    pub fn response(&mut self) -> Message {
        self.response_to("GET")
    }

    /// Sends a request and reads its response.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        let request = request.as_ref();
        self.send(request);
        self.response_to(if request.starts_with(b"HEAD ") { "HEAD" } else { "GET" })
    }

    /// Everything until the end, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, Ending) {
        loop {
            if let Err(ending) = self.more() {
                return (std::mem::take(&mut self.held), ending);
            }
        }
    }

    /// Fails unless the connection ends now, cleanly and without another byte.
    pub fn expect_end(&mut self, why: &str) {
        let (rest, ending) = self.rest();
        assert_eq!((String::from_utf8_lossy(&rest).as_ref(), ending), ("", Ending::Clean), "{why}");
    }
}

/// Sends one request on a connection of its own, and reads its response.
pub fn ask(addr: SocketAddr, request: impl AsRef<[u8]>) -> Message {
    Wire::to(addr).ask(request)
}

/// `GET` of this path.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A response with this content and its length.
pub fn ok(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).into_bytes();
    response.extend_from_slice(content);
    response
}

/// `content` in the chunked coding, in chunks of `size`, with these trailer lines.
pub fn chunked(content: &[u8], size: usize, trailers: &str) -> Vec<u8> {
    let mut coded = Vec::new();
    for chunk in content.chunks(size) {
        coded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        coded.extend_from_slice(chunk);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    coded
}

/// A backend that keeps its connections and remembers what it was asked.
pub struct Backend {
    server: Server,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Backend {
    /// Answers each request with the bytes that `answer` gives for it.
    pub fn new(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Backend {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remember = seen.clone();
        let server = Server::new(move |stream| {
            let mut wire = Wire::of(stream);
            while let Some(request) = wire.next_request() {
                let response = answer(&request);
                remember.lock().expect("never poisoned").push(request);
                if !wire.try_send(response) {
                    return;
                }
            }
        });
        Backend { server, seen }
    }

    /// Answers with the request's target as content.
    pub fn echoing_targets() -> Backend {
        Backend::new(|request| ok(request.head.target()))
    }

    /// Tells this name.
    pub fn named(name: &'static str) -> Backend {
        Backend::new(move |_| ok(name))
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    pub fn accepted(&self) -> usize {
        self.server.accepted()
    }

    pub fn open(&self) -> usize {
        self.server.open()
    }

    /// The requests answered so far, taken away.
    pub fn take_seen(&self) -> Vec<Message> {
        std::mem::take(&mut *self.seen.lock().expect("never poisoned"))
    }

    /// The only request answered since the last look.
    pub fn only(&self) -> Message {
        let mut seen = self.take_seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

/// A backend where `script` has each connection to itself.
pub fn scripted<T: Send + 'static>(script: impl Fn(Wire) -> T + Send + Sync + 'static) -> Server<T> {
    Server::new(move |stream| script(Wire::of(stream)))
}

#[test]
fn a_wire_reads_messages_whole_and_one_after_the_other() {
    let server = scripted(|mut wire| {
        wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.send(chunked(b"hello world", 4, "a: b\r\n"));
        wire.send(ok("next"));
        wire.stream.finish();
    });
    let mut wire = Wire::to(server.addr);
    let first = wire.response();
    assert_eq!((first.status(), first.text(), &first.trailers), (200, "hello world", &vec!["a: b".to_owned()]));
    assert_eq!(wire.response().text(), "next");
    wire.expect_end("nothing more");
}
