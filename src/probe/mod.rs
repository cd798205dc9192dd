//! What a check sends and expects, and what its outcomes come to: sans-I/O, for whoever has the sockets.
//!
//! Knows: requests, expectations, counts. Must not touch: sockets, the clock, which thread asks.
//! Read [`Check`] first, then [`Verdict`].

mod verdict;

pub use verdict::{Change, Health, Outcome, Rules, Verdict};

/// The longest answer that is looked at, in bytes: what is expected must lie within.
pub const LONGEST: usize = 16 * 1024;

/// What is checked. One connection, or one datagram, each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// That it accepts a connection; with `send` and `expect`, that it answers.
    Tcp {
        /// Sent as soon as it is connected.
        send: Vec<u8>,
        /// Found anywhere in what comes back; empty: nothing is waited for.
        expect: Vec<u8>,
    },
    /// That `GET path` is answered with one of these status codes.
    Http {
        /// Absolute, as in a request line.
        path: String,
        /// The Host field.
        host: String,
        /// Status codes that are good, from and to, both included.
        expect: (u16, u16),
    },
    /// That a datagram is answered; with nothing to expect, that it is not refused.
    Udp {
        /// The datagram.
        send: Vec<u8>,
        /// Found anywhere in the answer; empty: any answer, or none, will do.
        expect: Vec<u8>,
    },
}

/// What an answer, as far as it has come, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Not enough has come; more may.
    More,
    /// As expected.
    Good,
    /// Not as expected: what was wrong.
    Bad(String),
}

impl Check {
    /// What is sent first. Empty: nothing.
    pub fn request(&self) -> Vec<u8> {
        match self {
            Check::Tcp { send, .. } | Check::Udp { send, .. } => send.clone(),
            Check::Http { path, host, .. } => format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: l4lb\r\nAccept: */*\r\nConnection: close\r\n\r\n"
            )
            .into_bytes(),
        }
    }

    /// True when being connected, or having sent, is all that is asked.
    pub fn is_answerless(&self) -> bool {
        match self {
            Check::Tcp { expect, .. } | Check::Udp { expect, .. } => expect.is_empty(),
            Check::Http { .. } => false,
        }
    }

    /// Judges what has come so far. `ended`: nothing more will come.
    pub fn judge(&self, answer: &[u8], ended: bool) -> Answer {
        let all = ended || answer.len() >= LONGEST;
        match self {
            Check::Tcp { expect, .. } | Check::Udp { expect, .. } => match find(answer, expect) {
                true => Answer::Good,
                // A datagram comes whole; a stream may go on.
                false if all || matches!(self, Check::Udp { .. }) => Answer::Bad(unexpected(answer)),
                false => Answer::More,
            },
            Check::Http { expect, .. } => judge_http(answer, *expect, all),
        }
    }
}

fn find(answer: &[u8], expect: &[u8]) -> bool {
    expect.is_empty() || answer.windows(expect.len()).any(|part| part == expect)
}

fn unexpected(answer: &[u8]) -> String {
    match answer {
        [] => "it closed without an answer".into(),
        some => format!(
            "it answered {:?}, which is not what is expected",
            some[..some.len().min(64)].escape_ascii().to_string()
        ),
    }
}

fn judge_http(answer: &[u8], (from, to): (u16, u16), all: bool) -> Answer {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(answer);
    // A whole head, for a client would be given no less: one that breaks off is no answer, however good it looked.
    match (response.code, parsed) {
        (Some(100..=199), Ok(httparse::Status::Complete(head))) => judge_http(&answer[head..], (from, to), all),
        (Some(code), Ok(httparse::Status::Complete(_))) if (from..=to).contains(&code) => Answer::Good,
        (Some(code), Ok(httparse::Status::Complete(_))) => Answer::Bad(format!("it answered {code}")),
        (_, Err(error)) => Answer::Bad(format!("its answer is not HTTP: {error}")),
        (_, Ok(_)) if all && answer.is_empty() => Answer::Bad("it closed without an answer".into()),
        (_, Ok(_)) if all => Answer::Bad("its answer stopped within the head".into()),
        (_, Ok(_)) => Answer::More,
    }
}

/// Reads `send` and `expect` as they are typed: text, or bytes as `hex:` and pairs of digits, between which spaces are
/// allowed.
///
/// # Errors
/// What is wrong with the digits.
pub fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
    let Some(digits) = text.strip_prefix("hex:") else { return Ok(text.as_bytes().to_vec()) };
    let digits: Vec<char> = digits.chars().filter(|c| !c.is_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return Err("behind \"hex:\" stands an odd number of digits; write two for each byte".into());
    }
    let byte = |pair: &[char]| Some(pair[0].to_digit(16)? as u8 * 16 + pair[1].to_digit(16)? as u8);
    digits
        .chunks(2)
        .map(|pair| {
            byte(pair)
                .ok_or_else(|| format!("{:?} is no byte; write two digits of 0-9 and a-f", String::from_iter(pair)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_as_they_come() {
        let bad = |why: &str| Answer::Bad(why.into());
        let tcp = Check::Tcp { send: b"PING\r\n".to_vec(), expect: b"+PONG".to_vec() };
        let udp = Check::Udp { send: vec![0], expect: vec![0x81, 0x80] };
        let http = Check::Http { path: "/health".into(), host: "a".into(), expect: (200, 399) };
        let rows: &[(&str, &Check, &[u8], bool, Answer)] = &[
            ("nothing yet", &tcp, b"", false, Answer::More),
            ("half of it", &tcp, b"+PO", false, Answer::More),
            ("all of it", &tcp, b"hello\r\n+PONG\r\n", false, Answer::Good),
            ("the end before it", &tcp, b"+PO", true, bad("it answered \"+PO\", which is not what is expected")),
            ("the end at once", &tcp, b"", true, bad("it closed without an answer")),
            ("a datagram with it", &udp, &[1, 2, 0x81, 0x80, 0], false, Answer::Good),
            (
                "one without comes whole",
                &udp,
                &[1],
                false,
                bad("it answered \"\\\\x01\", which is not what is expected"),
            ),
            ("a status line in parts", &http, b"HTTP/1.1 20", false, Answer::More),
            ("a head in parts", &http, b"HTTP/1.1 204 No Content\r\n", false, Answer::More),
            ("good as soon as its head is there", &http, b"HTTP/1.1 204 No Content\r\n\r\n", false, Answer::Good),
            (
                "four digits",
                &http,
                b"HTTP/1.1 2000 OK\r\n\r\n",
                false,
                bad("its answer is not HTTP: invalid response status"),
            ),
            ("the end within the head", &http, b"HTTP/1.1 200 OK\r\n", true, bad("its answer stopped within the head")),
            ("a redirection", &http, b"HTTP/1.0 302 Found\r\n\r\n", false, Answer::Good),
            ("an error", &http, b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false, bad("it answered 503")),
            ("an interim answer, and more to come", &http, b"HTTP/1.1 103 Early Hints\r\n\r\n", false, Answer::More),
            (
                "an interim answer first",
                &http,
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                false,
                Answer::Good,
            ),
            ("no HTTP", &http, b"SSH-2.0-OpenSSH_9.2\r\n", false, bad("its answer is not HTTP: invalid HTTP version")),
            ("the end within the line", &http, b"HTTP/1", true, bad("its answer stopped within the head")),
            ("the end at once", &http, b"", true, bad("it closed without an answer")),
        ];
        for (why, check, answer, ended, expected) in rows {
            assert_eq!(check.judge(answer, *ended), *expected, "{why}");
        }
    }

    #[test]
    fn an_endless_answer_is_none() {
        let tcp = Check::Tcp { send: Vec::new(), expect: b"x".to_vec() };
        assert!(matches!(tcp.judge(&[b'y'; LONGEST], false), Answer::Bad(_)));
    }

    #[test]
    fn bytes_are_text_or_hex() {
        let rows = [
            ("PING\r\n", Ok(b"PING\r\n".to_vec())),
            ("hex:00ff", Ok(vec![0, 255])),
            ("hex: AB cd", Ok(vec![0xab, 0xcd])),
            ("", Ok(Vec::new())),
            ("hex:abc", Err("behind \"hex:\" stands an odd number of digits; write two for each byte".to_owned())),
            ("hex:zz", Err("\"zz\" is no byte; write two digits of 0-9 and a-f".to_owned())),
        ];
        for (text, expected) in rows {
            assert_eq!(bytes_of(text), expected, "{text}");
        }
    }
}
