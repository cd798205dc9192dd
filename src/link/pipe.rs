//! Pipes of the kernel (pipe(7)), and what goes in and out of them by splice(2).

use crate::base::pipes::{Pipe, Supply};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Bytes a pipe should hold, as long as the kernel gives so much (pipe(7): a user without privileges has a quota). Where
/// many connections are in bulk at once, small pipes make the proxy pay for what the senders would do: with a quarter of
/// this, 16 connections cost 1.4 times as much, and one costs the same.
const SIZES: [usize; 2] = [1024 * 1024, 256 * 1024];
/// Bytes a pipe has to hold to be of use.
const LEAST: usize = 64 * 1024;
/// A read of so many bytes, or more, is the beginning of bulk: about where two splices cost less than a read and a write.
const FROM: usize = 16 * 1024;
/// A splice of fewer bytes is the end of bulk.
const BELOW: usize = 8 * 1024;

/// The two ends of one.
struct Ends {
    out: OwnedFd,
    into: OwnedFd,
}

/// The kernel's pipes, at most so many at once.
pub(super) fn supply(most: usize) -> Supply {
    Supply { open: Box::new(open), most, from: FROM, below: BELOW }
}

/// A pipe as large as may be.
fn open() -> io::Result<Pipe> {
    let (out, into) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
    // A user without privileges has a quota (pipe(7), pipe-user-pages-soft). Past it the size stays what it is, and that
    // may be two pages.
    let set = |size: usize| fcntl(&into, FcntlArg::F_SETPIPE_SZ(size as i32)).ok();
    let size = SIZES.into_iter().find_map(set).map_or_else(|| fcntl(&into, FcntlArg::F_GETPIPE_SZ), Ok)?;
    let size = usize::try_from(size).unwrap_or(0);
    if size < LEAST {
        return Err(io::ErrorKind::QuotaExceeded.into());
    }
    Ok(Pipe::new(Ends { out, into }, size))
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE
}

fn ends(pipe: &mut Pipe) -> Result<&mut Ends, Errno> {
    pipe.ends().ok_or(Errno::EINVAL)
}

/// From a socket into a pipe.
pub(super) fn fill(pipe: &mut Pipe, socket: impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(socket, None, &ends(pipe)?.into, None, most, flags())?)
}

/// From a pipe into a socket.
pub(super) fn drain(pipe: &mut Pipe, socket: impl AsFd) -> io::Result<usize> {
    let held = pipe.len();
    Ok(splice(&ends(pipe)?.out, None, socket, None, held, flags())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        far.set_nodelay(true).unwrap();
        (far, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_go_through_a_pipe_and_no_more_than_asked_for() {
        let ((mut far, near), (next, mut end)) = (pair(), pair());
        let mut pipe = open().unwrap();
        assert!(pipe.size() >= LEAST, "{}", pipe.size());
        far.write_all(b"abcdef").unwrap();
        let mut six = [0; 6];
        while near.peek(&mut six).unwrap() < 6 {}
        assert_eq!(fill(&mut pipe, &near, 4).unwrap(), 4);
        pipe.filled(4);
        assert_eq!(drain(&mut pipe, &next).unwrap(), 4);
        let mut four = [0; 4];
        end.read_exact(&mut four).unwrap();
        assert_eq!(&four, b"abcd");
        assert_eq!((&near).read(&mut six).unwrap(), 2, "the rest is still there");
    }

    #[test]
    fn few_bytes_in_many_pieces_fill_a_pipe() {
        // What the rule of `Link::splice_in` is for: the kernel says the same as for a socket with nothing in it.
        let (mut far, near) = pair();
        near.set_nonblocking(true).unwrap();
        let mut pipe = open().unwrap();
        let mut held = 0;
        for _ in 0..4_096 {
            far.write_all(&[7; 16]).unwrap();
            near.peek(&mut [0]).ok();
            match fill(&mut pipe, &near, SIZES[0]) {
                Ok(n) => held += n,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    if near.peek(&mut [0; 16]).is_ok_and(|n| n > 0) {
                        assert!(held < pipe.size() / 2, "full with {held} bytes");
                        return;
                    }
                }
            }
        }
        panic!("{held} bytes in pieces of 16 went into a pipe of {}", pipe.size());
    }
}
