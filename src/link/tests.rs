use super::*;
use crate::base::slab::Key;
use std::collections::VecDeque;

/// A stream that takes from its socket whatever is there, and gives it piece by piece, as one over TLS does. An empty
/// piece is the end.
#[derive(Default)]
struct Pieces {
    socket: VecDeque<Vec<u8>>,
    held: VecDeque<Vec<u8>>,
}

impl Stream for Pieces {
    fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.held.append(&mut self.socket);
        let Some(piece) = self.held.pop_front() else { return Err(ErrorKind::WouldBlock.into()) };
        into[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
    fn holds_input(&self) -> bool {
        !self.held.is_empty()
    }
    fn send(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
    fn shutdown(&mut self) {}
    fn unsent(&self) -> usize {
        0
    }
    fn set_cut(&mut self) {}
    fn set_nodelay(&mut self) {}
    fn local_address(&self) -> Option<SocketAddr> {
        None
    }
    fn failure(&mut self) -> Option<io::Error> {
        None
    }
}

#[test]
fn what_a_stream_holds_is_readable_without_an_event() {
    type Row = (&'static str, &'static [&'static [u8]], &'static [Read]);
    let rows: [Row; 4] = [
        ("one piece, read short", &[b"a"], &[Read::Bytes(1)]),
        ("another piece behind it", &[b"a", b"bc"], &[Read::Bytes(1), Read::Bytes(2)]),
        ("the end behind it, and the socket stays open", &[b"a", b""], &[Read::Bytes(1), Read::End]),
        ("nothing but the end", &[b""], &[Read::End]),
    ];
    for (why, pieces, reads) in rows {
        let mut link = Link::accepted(Pieces::default(), SessionId::new(0, 1));
        assert!(!link.readable(), "{why}: nothing was told");
        link.stream_mut().socket.extend(pieces.iter().map(|piece| piece.to_vec()));
        link.latch(Ready::IN);
        let mut given = Vec::new();
        while link.readable() {
            given.push(link.recv(&mut [0; 16]));
        }
        assert_eq!(given, reads, "{why}");
    }
}

#[test]
fn a_link_is_quiet_until_something_comes_that_nobody_asked_for() {
    type Row = (&'static str, Ready, &'static [&'static [u8]], bool);
    let rows: [Row; 5] = [
        ("nothing was told", Ready::default(), &[], true),
        ("room to write is no news", Ready::OUT, &[], true),
        ("bytes", Ready::IN, &[b"a"], false),
        ("its end", Ready::RDHUP, &[b""], false),
        ("an error", Ready::ERR, &[], false),
    ];
    for (why, told, pieces, quiet) in rows {
        let mut link = Link::accepted(Pieces::default(), SessionId::new(0, 1));
        link.stream_mut().socket.extend(pieces.iter().map(|piece| piece.to_vec()));
        link.latch(told);
        assert_eq!(link.is_quiet(), quiet, "{why}");
    }
    let mut ended = Link::accepted(Pieces::default(), SessionId::new(0, 1));
    ended.stream_mut().socket.push_back(Vec::new());
    assert_eq!(ended.recv(&mut [0; 16]), Read::End);
    assert!(!ended.is_quiet(), "its end was read already");
    let mut broken = Link::accepted(Pieces::default(), SessionId::new(0, 1));
    broken.give_up();
    assert!(!broken.is_quiet(), "bytes for it were lost");
}
