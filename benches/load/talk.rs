//! What a client says, and how it knows that the answer is whole and right.
//!
//! HTTP: the first answer of a connection's place is read strictly, to the last byte, and tells how long an answer is.
//! Later ones are counted: they must begin as an answer does and have that length, and the kernel throws the rest away
//! unread, for copying it would make the load the limit.

use std::io::{ErrorKind, Read};
use std::mem::MaybeUninit;

use mio::net::TcpStream;
use socket2::SockRef;

use crate::bulk::{Bytes, Drinking};
use crate::site::Page;

/// What goes there and back over TCP.
const MESSAGE: [u8; 64] = *b"0123456789abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQR";
/// How every good answer begins.
const BEGINNING: &[u8] = b"HTTP/1.1 200 ";
/// Read, or thrown away, at once.
const SCRATCH: usize = 1 << 20;

/// What is said, and what is expected.
pub(crate) enum Talk {
    /// 64 bytes that come back.
    Echo,
    /// 64 bytes, and what comes then has no end.
    Bulk,
    /// A page of the backend's site.
    Http {
        request: Vec<u8>,
        body: Vec<u8>,
        /// The server is to close after the answer.
        close: bool,
    },
}

/// How far the answer on one connection is.
#[derive(Default)]
pub(crate) struct Hearing {
    came: usize,
    /// HTTP: the length of an answer, head and all, once one was heard; 0 before.
    length: usize,
    /// HTTP: of the first answer, what came so far.
    first: Vec<u8>,
    drinking: Drinking,
}

impl Hearing {
    /// For the next answer.
    pub(crate) fn again(&mut self) {
        self.came = 0;
        self.first.clear(); // of an answer that broke
        self.drinking = Drinking::default();
    }
}

/// What a turn came to.
pub(crate) enum Heard {
    Whole,
    /// More is to come.
    Part,
    /// So many bytes of an answer without end came.
    Bytes(u64),
}

/// Room to read into, of all connections.
pub(crate) struct Room {
    bytes: Vec<u8>,
    thrown_away: Vec<u8>,
    bulk: Bytes,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; SCRATCH], thrown_away: Vec::with_capacity(SCRATCH), bulk: Bytes::new() }
    }
}

impl Talk {
    /// From the word of an order: `echo`, `bulk`, or the path of a page.
    pub(crate) fn of(word: &str, close: bool) -> Result<Self, String> {
        match word {
            "echo" => return Ok(Self::Echo),
            "bulk" => return Ok(Self::Bulk),
            _ => {}
        }
        let page = Page::of_path(word).ok_or_else(|| format!("nothing to say: {word}"))?;
        Ok(Self::Http { request: page.request(close), body: page.body(), close })
    }

    pub(crate) fn request(&self) -> &[u8] {
        match self {
            Self::Echo | Self::Bulk => &MESSAGE,
            Self::Http { request, .. } => request,
        }
    }

    /// Reads what came. `ending`: the other side sends nothing more.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub(crate) fn hear(
        &self,
        stream: &mut TcpStream,
        hearing: &mut Hearing,
        room: &mut Room,
        ending: bool,
    ) -> Result<Heard, String> {
        match self {
            Self::Echo => echo(stream, hearing, room),
            Self::Bulk => {
                let Room { bytes, thrown_away, bulk } = room;
                hearing.drinking.turn(stream, bytes, thrown_away, bulk, ending).map(Heard::Bytes)
            }
            Self::Http { body, close, .. } => http(stream, hearing, room, body, *close, ending),
        }
    }
}

fn echo(stream: &mut TcpStream, hearing: &mut Hearing, room: &mut Room) -> Result<Heard, String> {
    match stream.read(&mut room.bytes[..4096]) {
        Ok(0) => Err("closed before the answer was whole".to_owned()),
        Ok(count) => {
            let whole = hearing.came + count;
            if MESSAGE.get(hearing.came..whole) != Some(&room.bytes[..count]) {
                return Err("what came back is not what was sent".to_owned());
            }
            hearing.came = whole;
            Ok(if whole == MESSAGE.len() { Heard::Whole } else { Heard::Part })
        }
        Err(err) if err.kind() == ErrorKind::WouldBlock => Ok(Heard::Part),
        Err(err) => Err(format!("receive: {err}")),
    }
}

fn http(
    stream: &mut TcpStream,
    hearing: &mut Hearing,
    room: &mut Room,
    body: &[u8],
    close: bool,
    ending: bool,
) -> Result<Heard, String> {
    loop {
        let beginning = hearing.came < BEGINNING.len();
        let counted = hearing.length > 0 && !beginning;
        // The first bytes are looked at, and the first answer whole; with those of a small answer comes all of it.
        let room_for = if hearing.length > 0 && beginning { 16 << 10 } else { SCRATCH };
        let read = if counted {
            throw_away(stream, &mut room.thrown_away, SCRATCH)
        } else {
            stream.read(&mut room.bytes[..room_for])
        };
        match read {
            Ok(0) if close && hearing.length > 0 && hearing.came == hearing.length => return Ok(Heard::Whole),
            Ok(0) => return Err("closed before the answer was whole".to_owned()),
            Ok(count) => {
                if hearing.length == 0 {
                    hearing.first.extend_from_slice(&room.bytes[..count]);
                    if let Some(length) = strict(&hearing.first, body)? {
                        hearing.length = length;
                        hearing.first = Vec::new();
                    }
                } else if beginning {
                    let upto = count.min(BEGINNING.len() - hearing.came);
                    if room.bytes[..upto] != BEGINNING[hearing.came..hearing.came + upto] {
                        let begins = String::from_utf8_lossy(&room.bytes[..count.min(40)]).into_owned();
                        return Err(format!("an answer begins {begins:?}"));
                    }
                }
                hearing.came += count;
                if hearing.length > 0 && hearing.came > hearing.length {
                    return Err("an answer is longer than the first one".to_owned());
                }
                let drained = count < room_for;
                if hearing.came == hearing.length && (!close || (drained && ending)) {
                    return Ok(Heard::Whole);
                }
                if drained && !ending {
                    return Ok(Heard::Part);
                }
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(Heard::Part),
            Err(err) => return Err(format!("receive: {err}")),
        }
    }
}

/// tcp(7): with MSG_TRUNC, bytes are taken from the queue and given to nobody. At most `count`, and what fits `room`.
pub(crate) fn throw_away(stream: &TcpStream, room: &mut Vec<u8>, count: usize) -> std::io::Result<usize> {
    let room: &mut [MaybeUninit<u8>] = room.spare_capacity_mut();
    let count = count.min(room.len());
    let room = &mut room[..count];
    SockRef::from(stream).recv_with_flags(room, libc::MSG_TRUNC)
}

/// The length of an answer once it is whole. It must be right in every byte.
fn strict(bytes: &[u8], body: &[u8]) -> Result<Option<usize>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(err) => return Err(format!("not HTTP: {err}")),
    };
    if response.code != Some(200) || response.version != Some(1) {
        return Err(format!("status {:?}, version {:?}", response.code, response.version));
    }
    let value = |name: &str| response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    let told = value("content-length").map(|field| String::from_utf8_lossy(field.value).into_owned());
    if told.as_deref() != Some(body.len().to_string().as_str()) {
        return Err(format!("Content-Length {told:?}, not {}", body.len()));
    }
    let came = &bytes[length..];
    if body.get(..came.len()) != Some(came) {
        return Err("the body is not what the backend sent".to_owned());
    }
    Ok((came.len() == body.len()).then_some(length + body.len()))
}
