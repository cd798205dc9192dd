//! The UDP example backend: an echo that tells who answers.
//!
//! Each datagram is answered with one: the id, a colon, a space, and what came. What would then be too long to be sent
//! comes back as it is. One thread receives; with a delay a second one sends, so that datagrams wait beside each other.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::Settings;

/// More than any datagram has.
const WHOLE: usize = 65_536;
/// The longest that IPv4 can carry: less the headers of IP and UDP (RFC 768, RFC 791).
const LONGEST: usize = 65_535 - 20 - 8;
/// Answers that may wait for their time; more are lost, as UDP may lose anything.
const WAITING: usize = 16_384;
/// What the socket may hold, in bytes; the system may allow less.
const BUFFER: usize = 4 << 20;
/// A breath when the system cannot receive for now.
const BREATH: Duration = Duration::from_millis(10);

/// An answer, where it goes, and when.
type Answer = (Vec<u8>, SocketAddr, Instant);

/// Serves until the process ends.
pub(super) fn serve(socket: &UdpSocket, settings: &Settings) {
    // What comes in one burst should not be lost here; with less it works too.
    let _ = SockRef::from(socket).set_recv_buffer_size(BUFFER);
    let _ = SockRef::from(socket).set_send_buffer_size(BUFFER);
    if settings.delay.is_zero() {
        return receive(socket, settings, |answer, client| _ = socket.send_to(answer, client));
    }
    let (put, take) = sync_channel::<Answer>(WAITING);
    thread::scope(|scope| {
        scope.spawn(move || send_later(socket, &take));
        receive(socket, settings, |answer, client| {
            let _ = put.try_send((answer.to_vec(), client, Instant::now() + settings.delay));
        });
    });
}

fn receive(socket: &UdpSocket, settings: &Settings, mut answer: impl FnMut(&[u8], SocketAddr)) {
    let mut buffer = vec![0; WHOLE];
    let mut output = Vec::with_capacity(WHOLE);
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((read, client)) => {
                if !settings.faults.strike() {
                    write(&settings.id, &buffer[..read], &mut output);
                    answer(&output, client);
                }
            }
            // A client that is gone tells of it here.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => {}
            Err(_) => thread::sleep(BREATH),
        }
    }
}

/// All wait for the same time, so the first one that came is the first to go.
fn send_later(socket: &UdpSocket, answers: &Receiver<Answer>) {
    for (answer, client, due) in answers {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let _: io::Result<usize> = socket.send_to(&answer, client);
    }
}

fn write(id: &str, datagram: &[u8], output: &mut Vec<u8>) {
    output.clear();
    if id.len() + 2 + datagram.len() <= LONGEST {
        output.extend_from_slice(id.as_bytes());
        output.extend_from_slice(b": ");
    }
    output.extend_from_slice(datagram);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_the_backend_where_it_has_room() {
        let long = "x".repeat(LONGEST);
        let cases = [
            ("a line", "hello\n", "b1: hello\n".to_owned()),
            ("two lines are one datagram", "a\nb\n", "b1: a\nb\n".to_owned()),
            ("nothing is a datagram", "", "b1: ".to_owned()),
            ("just room enough", &long[4..], format!("b1: {}", &long[4..])),
            ("a byte too long", &long[3..], long[3..].to_owned()),
            ("the longest", &long, long.clone()),
        ];
        let mut output = b"what was sent before".to_vec();
        for (why, datagram, expected) in cases {
            write("b1", datagram.as_bytes(), &mut output);
            assert!(output == expected.as_bytes(), "{why}: {} bytes", output.len());
        }
    }
}
