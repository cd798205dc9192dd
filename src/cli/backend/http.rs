//! The HTTP example backend: answers each request with JSON that names the backend and repeats the request.
//!
//! Knows: HTTP/1.1 as a server (RFC 9112). Must not touch: how requests are read, which is `request`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Settings;
use super::request::{Framing, Head, Incoming, Refusal, Stop};

/// A connection on which nothing comes for this long is closed. Longer than a balancer keeps an idle one.
const SILENCE: Duration = Duration::from_secs(60);
/// What still comes after our last answer is read and thrown away for so long, each silence in it, and in all.
const LINGER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Serves one connection until it ends.
pub(super) fn serve(stream: &TcpStream, settings: &Settings) {
    let _ = stream.set_read_timeout(Some(SILENCE));
    if let Ok(End::Closed) = converse(stream, stream, settings) {
        linger(stream);
    }
}

/// Why a conversation is over.
#[derive(Debug, PartialEq)]
enum End {
    /// The client has left.
    Left,
    /// We have said that we close, perhaps before the client had sent everything.
    Closed,
}

/// Closing with unread bytes would reset the connection and could destroy our last answer on its way
/// (RFC 9112, section 9.6): end our side, then read what still comes, within bounds.
fn linger(mut stream: &TcpStream) {
    let (silence, most) = LINGER;
    if stream.shutdown(Shutdown::Write).is_err() || stream.set_read_timeout(Some(silence)).is_err() {
        return;
    }
    let since = Instant::now();
    let mut sink = [0; 16 * 1024];
    while since.elapsed() < most && matches!(stream.read(&mut sink), Ok(1..)) {}
}

/// Reads requests and answers them in their order.
fn converse(from: impl Read, mut to: impl Write, settings: &Settings) -> io::Result<End> {
    let mut incoming = Incoming::new(from);
    loop {
        let (head, answer) = match next(&mut incoming, &mut to) {
            Ok((head, body)) => {
                let answer = answer(&head, &body, settings);
                (Some(head), answer)
            }
            Err(Stop::Gone) => return Ok(End::Left),
            Err(Stop::Refused(refusal)) => (None, Answer::refusal(refusal, settings)),
        };
        thread::sleep(settings.delay);
        to.write_all(&answer.encode(head.as_ref()))?;
        if !head.is_some_and(|head| head.keep_alive) {
            return Ok(End::Closed);
        }
    }
}

/// The next request, whole; asks for the body where the client waits to be asked (RFC 9110, section 10.1.1).
fn next(incoming: &mut Incoming<impl Read>, to: &mut impl Write) -> Result<(Head, Vec<u8>), Stop> {
    let head = incoming.head()?;
    if head.expects_continue && head.body != Framing::Length(0) && !incoming.has_more() {
        to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| Stop::Gone)?;
    }
    let body = incoming.body(head.body)?;
    Ok((head, body))
}

/// What a request is answered with, besides the framing.
struct Answer {
    status: u16,
    /// A header of this answer alone, as a whole line.
    extra: &'static str,
    json: String,
}

/// A request as it is told back.
#[derive(Serialize)]
struct Echo<'a> {
    id: &'a str,
    method: &'a str,
    path: &'a str,
    headers: BTreeMap<&'a str, String>,
    body: &'a str,
    body_length: usize,
}

/// How the backend is.
#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    id: &'a str,
}

/// Why there is no echo.
#[derive(Serialize)]
struct Problem<'a> {
    id: &'a str,
    error: &'a str,
}

fn answer(head: &Head, body: &[u8], settings: &Settings) -> Answer {
    let path = head.target.split('?').next().unwrap_or_default();
    match (path, head.method.as_str()) {
        (_, "CONNECT") => Answer::problem(501, "there is no tunnel here", settings),
        ("/health", "GET" | "HEAD") => Answer::new(200, &Health { status: "healthy", id: &settings.id }),
        ("/health", _) => {
            Answer { extra: "Allow: GET, HEAD\r\n", ..Answer::problem(405, "/health knows GET and HEAD", settings) }
        }
        _ if settings.faults.strike() => Answer::problem(500, "an error as asked for with --error-rate", settings),
        _ => Answer::new(
            200,
            &Echo {
                id: &settings.id,
                method: &head.method,
                path: &head.target,
                headers: joined(&head.headers),
                body: &String::from_utf8_lossy(body),
                body_length: body.len(),
            },
        ),
    }
}

/// Headers by name, as first spelled; those of one name in one list (RFC 9110, section 5.3).
fn joined(headers: &[(String, String)]) -> BTreeMap<&str, String> {
    let mut spelled: BTreeMap<String, &str> = BTreeMap::new();
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        let first = *spelled.entry(name.to_ascii_lowercase()).or_insert(name);
        all.entry(first)
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(value);
            })
            .or_insert_with(|| value.clone());
    }
    all
}

impl Answer {
    fn new(status: u16, json: &impl Serialize) -> Answer {
        // Strings and numbers under string keys always have a JSON form.
        let json = serde_json::to_string(json).unwrap_or_default() + "\n";
        Answer { status, extra: "", json }
    }

    fn problem(status: u16, error: &str, settings: &Settings) -> Answer {
        Answer::new(status, &Problem { id: &settings.id, error })
    }

    fn refusal(refusal: Refusal, settings: &Settings) -> Answer {
        Answer::problem(refusal.status, refusal.why, settings)
    }

    /// The bytes to send; without a head (it could not be read) the connection ends.
    fn encode(&self, head: Option<&Head>) -> Vec<u8> {
        let connection = match head {
            Some(head) if !head.keep_alive => "Connection: close\r\n",
            Some(head) if !head.is_1_1 => "Connection: keep-alive\r\n",
            Some(_) => "",
            None => "Connection: close\r\n",
        };
        let mut bytes = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}{connection}\r\n",
            self.status,
            reason(self.status),
            self.json.len(),
            self.extra,
        )
        .into_bytes();
        if head.is_none_or(|head| head.method != "HEAD") {
            bytes.extend_from_slice(self.json.as_bytes());
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "", // allowed to be empty (RFC 9112, section 4)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Faults;
    use super::super::request::tests::Pieces;
    use super::*;

    /// What the backend "b1" sends when this comes, whole or byte by byte.
    fn talk(input: &str, share: f64) -> (String, End) {
        let once = |from: Pieces| {
            let settings = Settings { id: "b1".into(), delay: Duration::ZERO, faults: Faults::new(share) };
            let mut output = Vec::new();
            let end = converse(from, &mut output, &settings).unwrap();
            (String::from_utf8(output).unwrap(), end)
        };
        let whole = once(Pieces::of(&[input]));
        // A client that waits to be asked for a body is asked only while the body has not come, so these two differ.
        if !input.contains("Expect") {
            assert_eq!(whole, once(Pieces::bytes(input)), "{input:?}");
        }
        whole
    }

    fn statuses(output: &str) -> Vec<u16> {
        output.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
    }

    #[test]
    fn requests_get_their_answers_in_order() {
        let cases: &[(&str, &str, &[u16], End)] = &[
            ("nothing", "", &[], End::Left),
            ("one, and the connection stays", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[200], End::Left),
            ("one that closes", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[200], End::Closed),
            (
                "pipelined, the last one closes",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /health HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n",
                &[200, 200, 200],
                End::Closed,
            ),
            (
                "what follows a bad request is not read",
                "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                &[400],
                End::Closed,
            ),
            ("health is only read", "PUT /health HTTP/1.1\r\nHost: a\r\n\r\n", &[405], End::Left),
            ("health with a query", "GET /health?x HTTP/1.1\r\nHost: a\r\n\r\n", &[200], End::Left),
            ("no tunnels", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", &[501], End::Left),
            (
                "a body that comes at once needs no asking",
                "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
                &[200],
                End::Left,
            ),
            (
                "too large: refused, not asked for",
                "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
                &[413],
                End::Closed,
            ),
        ];
        for (why, input, expected, end) in cases {
            let (output, ended) = talk(input, 0.0);
            assert_eq!((statuses(&output).as_slice(), &ended), (*expected, end), "{why}: {output}");
        }
    }

    #[test]
    fn a_client_that_waits_is_asked_for_the_body() {
        let settings = Settings { id: "b1".into(), delay: Duration::ZERO, faults: Faults::new(0.0) };
        let mut output = Vec::new();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        converse(Pieces::of(&[head, "ab"]), &mut output, &settings).unwrap();
        assert_eq!(statuses(&String::from_utf8(output).unwrap()), [100, 200]);
    }

    #[test]
    fn the_echo_tells_the_request() {
        let (output, _) = talk(
            "POST /a/b?c=d HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nAccept: a\r\nx-one: 2\r\nContent-Length: 4\r\n\r\nö\"\n",
            0.0,
        );
        let (head, body) = output.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            body,
            "{\"id\":\"b1\",\"method\":\"POST\",\"path\":\"/a/b?c=d\",\"headers\":{\"Accept\":\"a\",\"Content-Length\":\"4\",\
             \"Host\":\"x\",\"X-One\":\"1, 2\"},\"body\":\"ö\\\"\\n\",\"body_length\":4}\n"
        );
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    }

    #[test]
    fn head_is_get_without_the_body() {
        let (get, _) = talk("GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 0.0);
        let (head, _) = talk("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", 0.0);
        let (fields, body) = get.split_once("\r\n\r\n").unwrap();
        assert_eq!((head, body), (format!("{fields}\r\n\r\n"), "{\"status\":\"healthy\",\"id\":\"b1\"}\n"));
    }

    #[test]
    fn an_old_client_is_told_that_the_connection_stays() {
        let (output, end) = talk("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 0.0);
        assert!(output.contains("\r\nConnection: keep-alive\r\n"), "{output}");
        assert_eq!(end, End::Left);
    }

    #[test]
    fn faults_strike_echoes_and_spare_health() {
        let echo = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let health = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
        let (output, _) = talk(&[echo, health, echo, health, echo, echo].concat(), 0.5);
        assert_eq!(statuses(&output), [200, 200, 500, 200, 200, 500]);
    }
}
