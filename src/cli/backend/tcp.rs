//! The TCP example backend: an echo that tells who answers.
//!
//! Every byte comes back as it is read, whether its line is complete or not; before the first byte of each line stands
//! the id, a colon and a space. A client's half-close is answered with ours, after everything has been sent back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use super::Settings;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// Serves one connection until the client ends it, it breaks, or a fault is due.
pub(super) fn serve(stream: &TcpStream, settings: &Settings) {
    if echo(stream, stream, settings).is_some() {
        let _ = stream.shutdown(Shutdown::Write);
    }
}

/// Sends back what comes until the input ends. `None`: cut short, by an error or by a fault that is due.
fn echo(mut from: impl Read, mut to: impl Write, settings: &Settings) -> Option<()> {
    let mut input = vec![0; CHUNK];
    let mut output = Vec::with_capacity(CHUNK);
    let mut at_line_start = true;
    loop {
        let read = match from.read(&mut input) {
            Ok(0) => return Some(()),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        for piece in input[..read].split_inclusive(|byte| *byte == b'\n') {
            if at_line_start {
                if !settings.delay.is_zero() {
                    send(&mut to, &mut output)?; // the lines before this one have waited long enough
                    thread::sleep(settings.delay);
                }
                if settings.faults.strike() {
                    send(&mut to, &mut output)?;
                    return None;
                }
                output.extend_from_slice(settings.id.as_bytes());
                output.extend_from_slice(b": ");
            }
            output.extend_from_slice(piece);
            at_line_start = piece.ends_with(b"\n");
        }
        send(&mut to, &mut output)?;
    }
}

fn send(to: &mut impl Write, output: &mut Vec<u8>) -> Option<()> {
    to.write_all(output).ok()?;
    output.clear();
    Some(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Faults;
    use super::super::request::tests::Pieces;
    use super::*;

    #[test]
    fn each_line_comes_back_behind_the_id() {
        let cases: &[(&str, &[&str], f64, &str, bool)] = &[
            ("nothing in, nothing out", &[], 0.0, "", true),
            ("one line", &["hello\n"], 0.0, "b1: hello\n", true),
            ("two lines in one read", &["a\nb\n"], 0.0, "b1: a\nb1: b\n", true),
            ("one line in three reads has one id", &["a", "b", "c\n"], 0.0, "b1: abc\n", true),
            ("what has no end yet comes back too", &["a\nhalf"], 0.0, "b1: a\nb1: half", true),
            ("an empty line is a line", &["\n\n"], 0.0, "b1: \nb1: \n", true),
            ("a carriage return is a byte like any other", &["a\r\n"], 0.0, "b1: a\r\n", true),
            ("every second line fails: the first is sent, then the cut", &["a\nb\nc\n"], 0.5, "b1: a\n", false),
        ];
        for (why, pieces, share, expected, ended_well) in cases {
            let settings = Settings { id: "b1".into(), delay: Duration::ZERO, faults: Faults::new(*share) };
            let mut output = Vec::new();
            let ended = echo(Pieces::of(pieces), &mut output, &settings);
            assert_eq!(
                (String::from_utf8(output).unwrap().as_str(), ended.is_some()),
                (*expected, *ended_well),
                "{why}"
            );
        }
    }
}
