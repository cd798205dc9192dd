//! The client's side: connections with a bound on every wait, and how they end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;

/// A connection to `addr` on which no read or write takes longer than [`PATIENCE`].
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap_or_else(|e| panic!("connecting to {addr}: {e}"));
    bounded(&stream);
    stream
}

/// Gives every read and write of `stream` a bound, and no delay to small writes.
pub fn bounded(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
    stream.set_nodelay(true).expect("TCP");
}

/// How a connection ended, seen by its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// End of file: the peer says that this was all.
    Clean,
    /// The connection was reset: the peer says that this was not all.
    Reset,
}

/// What the tests do with a connection, on either side.
pub trait Client {
    /// Reads to the end, handing each piece to `each`; how it ended.
    fn drain(&self, each: impl FnMut(&[u8])) -> Ending;

    /// Reads to the end; what came and how it ended.
    fn read_all(&self) -> (Vec<u8>, Ending) {
        let mut all = Vec::new();
        let ending = self.drain(|piece| all.extend_from_slice(piece));
        (all, ending)
    }

    /// Reads exactly `n` bytes.
    fn read_n(&self, n: usize) -> Vec<u8>;

    /// Writes `message` and reads as many bytes back, which must be the same.
    fn echo(&self, message: &[u8]);

    /// Says that nothing more comes from this side.
    fn finish(&self);

    /// Cuts the connection: the peer gets a reset.
    fn reset(self)
    where
        Self: Sized;

    /// Whether nothing can be read for as long as `span`.
    fn is_silent_for(&self, span: Duration) -> bool;
}

impl Client for TcpStream {
    fn drain(&self, mut each: impl FnMut(&[u8])) -> Ending {
        let mut buf = vec![0; 256 * 1024];
        loop {
            match Read::read(&mut &*self, &mut buf) {
                Ok(0) => return Ending::Clean,
                Ok(n) => each(&buf[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ending::Reset,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("reading to the end: {e}"),
            }
        }
    }

    fn read_n(&self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        Read::read_exact(&mut &*self, &mut bytes).unwrap_or_else(|e| panic!("reading {n} bytes: {e}"));
        bytes
    }

    fn echo(&self, message: &[u8]) {
        Write::write_all(&mut &*self, message).unwrap_or_else(|e| panic!("writing {} bytes: {e}", message.len()));
        let back = self.read_n(message.len());
        assert!(back == message, "{} bytes came back changed", message.len());
    }

    fn finish(&self) {
        self.shutdown(Shutdown::Write).expect("the connection is still there");
    }

    fn reset(self) {
        socket2::SockRef::from(&self).set_linger(Some(Duration::ZERO)).expect("TCP");
    }

    fn is_silent_for(&self, span: Duration) -> bool {
        self.set_read_timeout(Some(span)).expect("not zero");
        let answer = self.peek(&mut [0]);
        self.set_read_timeout(Some(PATIENCE)).expect("not zero");
        matches!(answer, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }
}

/// Sends `message` to `addr`, finishes, and returns everything that comes back until a clean end.
pub fn exchange(addr: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut stream = connect(addr);
    stream.write_all(message).expect("a short message");
    stream.finish();
    let (answer, ending) = stream.read_all();
    assert_eq!(ending, Ending::Clean, "after {} bytes", answer.len());
    answer
}

/// Whether a connection to `addr` is closed, by end or reset, without a byte.
pub fn closed_without_data(addr: SocketAddr) -> bool {
    let stream = connect(addr);
    stream.read_all().0.is_empty()
}
