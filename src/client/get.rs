//! One GET of the list of backends, over a blocking socket.

use crate::wire::http1::{Asked, BodyDecoder, HeadScan, Limits, Piece, Storage, parse_response};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// How long a question may take in all.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes: some hundred thousand backends.
const LONGEST: usize = 32 * 1024 * 1024;

/// Where to ask, and for what.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// A host and a port.
    pub(super) address: String,
    pub(super) pool: String,
    pub(super) token: Option<String>,
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The list is the one of the tag that was sent.
    Unchanged,
    /// A list.
    List {
        body: Vec<u8>,
        /// Its ETag.
        tag: Option<String>,
    },
}

/// Asks for the backends of a pool; `known` is the tag of the list that is known.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn get(place: &Place, known: Option<&str>) -> Result<Answer, String> {
    let due = Instant::now() + PATIENCE;
    let mut stream = connect(&place.address, due).map_err(|error| error.to_string())?;
    let answer = talk(&mut stream, &request(place, known), due).map_err(|error| error.to_string())?;
    read(&answer)
}

/// Each address of the name in turn.
fn connect(address: &str, due: Instant) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(due)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn request(Place { address, pool, token }: &Place, known: Option<&str>) -> String {
    let mut request = String::from("GET /lb/backends?pool=");
    for byte in pool.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => request.push(char::from(byte)),
            _ => _ = write!(request, "%{byte:02X}"),
        }
    }
    _ = write!(request, " HTTP/1.1\r\nHost: {address}\r\nUser-Agent: l4lb\r\nAccept: application/json\r\n");
    if let Some(token) = token {
        _ = write!(request, "Authorization: Bearer {token}\r\n");
    }
    if let Some(known) = known {
        _ = write!(request, "If-None-Match: {known}\r\n");
    }
    request + "Connection: close\r\n\r\n"
}

/// All that is answered until the connection ends.
fn talk(stream: &mut TcpStream, request: &str, due: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left(due)?))?;
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        stream.set_read_timeout(Some(left(due)?))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(count) if answer.len() + count > LONGEST => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer has no end"));
            }
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            Err(error) => return Err(error),
        }
    }
}

fn left(due: Instant) -> io::Result<Duration> {
    let left = due.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time")
}

/// What an answer says.
fn read(answer: &[u8]) -> Result<Answer, String> {
    let limits = Limits::default();
    let mut storage = Storage::default();
    let parsed = parse_response(answer, &Asked::default(), &mut HeadScan::default(), &limits, &mut storage);
    let Some((response, head)) = parsed.map_err(|error| format!("its answer is not HTTP: {error}"))? else {
        return Err("its answer stopped within the head".into());
    };
    if response.status == 304 {
        return Ok(Answer::Unchanged);
    }
    let mut rest = &answer[head..];
    let mut decoder = BodyDecoder::new(response.body, 0, &limits);
    let mut body = Vec::new();
    loop {
        match decoder.next(&mut rest).map_err(|error| error.to_string())? {
            Piece::Data(data) => body.extend_from_slice(data),
            Piece::End => break,
            Piece::More => {
                decoder.ended().map_err(|error| error.why.to_owned())?;
                break;
            }
        }
    }
    if response.status != 200 {
        let said = String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
        return Err(format!("it answered {}: {said}", response.status));
    }
    let tag = response.fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("etag"));
    let tag = tag.and_then(|(_, value)| String::from_utf8(value.to_vec()).ok());
    Ok(Answer::List { body, tag })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_what_they_are() {
        let list = |body: &str, tag: Option<&str>| {
            Ok(Answer::List { body: body.as_bytes().to_vec(), tag: tag.map(str::to_owned) })
        };
        let rows = [
            ("a list", "200 OK\r\nETag: \"7\"\r\nContent-Length: 2\r\n\r\n[]", list("[]", Some("\"7\""))),
            (
                "in chunks, by a proxy",
                "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
                list("[]", None),
            ),
            ("to the end", "200 OK\r\n\r\n[]", list("[]", None)),
            ("nothing new", "304 Not Modified\r\nETag: \"7\"\r\n\r\n", Ok(Answer::Unchanged)),
            ("cut short", "200 OK\r\nContent-Length: 3\r\n\r\n[]", Err("the body is cut short")),
            ("in the head", "200 OK\r\nContent-", Err("its answer stopped within the head")),
            ("refused", "401 Unauthorized\r\nContent-Length: 5\r\n\r\ntoken", Err("it answered 401: token")),
        ];
        for (why, answer, expected) in rows {
            assert_eq!(read(format!("HTTP/1.1 {answer}").as_bytes()), expected.map_err(str::to_owned), "{why}");
        }
    }

    #[test]
    fn a_question_names_what_it_asks_for() {
        let place = Place { address: "localhost:81".into(), pool: "a b&ä".into(), token: Some("t".into()) };
        let asked = request(&place, Some("\"7\""));
        assert!(
            asked.starts_with("GET /lb/backends?pool=a%20b%26%C3%A4 HTTP/1.1\r\nHost: localhost:81\r\n"),
            "{asked}"
        );
        for line in ["Authorization: Bearer t", "If-None-Match: \"7\"", "Connection: close"] {
            assert!(asked.contains(&format!("\r\n{line}\r\n")), "{line}: {asked}");
        }
    }
}
