//! What is said in the HTTP scenarios: two pages of a tiny site, and a connection of the backend that serves them.
//!
//! The backend answers each head it sees with bytes made beforehand. It reads strictly what a connection asks first, and
//! of what comes after it only the path: a proxy that starts well is not going to forget the rules later.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

/// What clients put into Host, and the backend wants to see again.
const HOST: &str = "load.test";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// 1 KiB.
    Small,
    /// 1 MiB.
    Large,
}

impl Page {
    /// Its path, which is also its name in orders to the load.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Small => "/1k",
            Self::Large => "/1m",
        }
    }

    pub(crate) fn of_path(path: &str) -> Option<Self> {
        [Self::Small, Self::Large].into_iter().find(|page| page.path() == path)
    }

    /// Every byte tells about where it stands, so that nothing can be lost, doubled or exchanged unseen.
    pub(crate) fn body(self) -> Vec<u8> {
        let length = match self {
            Self::Small => 1 << 10,
            Self::Large => 1 << 20,
        };
        (0..length).map(|at: usize| b'!' + ((at ^ (at >> 8) ^ (at >> 16)) % 90) as u8).collect()
    }

    /// What a client sends. `close`: it wants no other answer on this connection.
    pub(crate) fn request(self, close: bool) -> Vec<u8> {
        let connection = if close { "Connection: close\r\n" } else { "" };
        format!("GET {} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: load\r\nAccept: */*\r\n{connection}\r\n", self.path())
            .into_bytes()
    }

    /// What the backend sends. The fields are those that a usual server has.
    fn answer(self) -> Vec<u8> {
        let body = self.body();
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nServer: load\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend_from_slice(&body);
        answer
    }
}

/// The answers, made once.
pub(crate) struct Site {
    small: Vec<u8>,
    large: Vec<u8>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { small: Page::Small.answer(), large: Page::Large.answer() }
    }

    fn answer(&self, page: Page) -> &[u8] {
        match page {
            Page::Small => &self.small,
            Page::Large => &self.large,
        }
    }
}

/// What a turn of a connection came to.
pub(crate) enum Served {
    /// It stays.
    On,
    /// It stays, and is to be called again without an event.
    More,
    /// It is over.
    Over,
    /// It is over, and what was asked was wrong.
    Wrong(String),
}

/// A connection of the backend.
#[derive(Default)]
pub(crate) struct Serving {
    /// The beginning of a head whose rest is to come.
    head: Vec<u8>,
    /// The first head was read, and found right.
    checked: bool,
    /// The first head wanted the connection to close. (Nobody here says so later.)
    close: bool,
    /// What is being sent, and how much of it was.
    sending: Option<(Page, usize)>,
}

impl Serving {
    /// Reads and answers as far as it can now. `ending`: the end is still to be read after a short read.
    pub(crate) fn turn(&mut self, stream: &mut TcpStream, site: &Site, scratch: &mut [u8], ending: bool) -> Served {
        if let Some((page, sent)) = self.sending
            && let Some(served) = self.send(stream, site, page, sent)
        {
            return served;
        }
        loop {
            match stream.read(scratch) {
                // In the middle of an exchange too: then the client tells what is missing.
                Ok(0) => return Served::Over,
                Ok(count) => {
                    if let Some(served) = self.heard(stream, site, &scratch[..count]) {
                        return served;
                    }
                    if count < scratch.len() && !ending {
                        return Served::On;
                    }
                }
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Served::On,
                Err(_) => return Served::Over,
            }
        }
    }

    /// `None`: go on reading.
    fn heard(&mut self, stream: &mut TcpStream, site: &Site, bytes: &[u8]) -> Option<Served> {
        if self.sending.is_some() {
            return Some(Served::Wrong("the backend was asked again before it had answered".to_owned()));
        }
        let page = if self.head.is_empty() && self.checked && bytes.ends_with(b"\r\n\r\n") {
            quick(bytes)
        } else {
            self.head.extend_from_slice(bytes);
            if !self.head.ends_with(b"\r\n\r\n") {
                return None; // also when something stands behind the head: then no answer comes, and that is noticed
            }
            let head = std::mem::take(&mut self.head);
            match strict(&head) {
                Ok((page, close)) => {
                    (self.checked, self.close) = (true, close);
                    Some(page)
                }
                Err(why) => return Some(Served::Wrong(format!("the backend was asked wrongly: {why}"))),
            }
        };
        match page {
            Some(page) => self.send(stream, site, page, 0),
            None => Some(Served::Wrong("the backend was asked for no page of its own".to_owned())),
        }
    }

    /// `None`: the answer is sent and the next question may come, or its rest waits for room.
    fn send(&mut self, stream: &mut TcpStream, site: &Site, page: Page, mut sent: usize) -> Option<Served> {
        let answer = site.answer(page);
        while sent < answer.len() {
            match stream.write(&answer[sent..]) {
                Ok(count) => sent += count,
                Err(err) if err.kind() == ErrorKind::WouldBlock => {
                    self.sending = Some((page, sent));
                    return None;
                }
                Err(_) => return Some(Served::Over),
            }
        }
        self.sending = None;
        self.close.then_some(Served::Over)
    }
}

/// The page of a head that is no connection's first.
fn quick(head: &[u8]) -> Option<Page> {
    match head.get(..9)? {
        b"GET /1k H" => Some(Page::Small),
        b"GET /1m H" => Some(Page::Large),
        _ => None,
    }
}

/// The page of a head, and whether the connection is to close; or what is wrong with it.
fn strict(head: &[u8]) -> Result<(Page, bool), String> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        other => return Err(format!("{other:?}")),
    }
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(format!("{:?}, version {:?}", request.method, request.version));
    }
    let path = request.path.unwrap_or_default();
    let page = Page::of_path(path).ok_or_else(|| format!("path {path:?}"))?;
    let all = |name: &str| -> Vec<&[u8]> {
        let of_name = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        of_name.map(|field| field.value).collect()
    };
    if all("host") != [HOST.as_bytes()] {
        return Err(format!("Host {:?}", all("host")));
    }
    if !all("content-length").is_empty() || !all("transfer-encoding").is_empty() {
        return Err("a body is announced".to_owned());
    }
    Ok((page, all("connection").iter().any(|value| value.eq_ignore_ascii_case(b"close"))))
}
