//! The kernel, where the standard library, mio, nix and socket2 have no safe call. The only room that may hold `unsafe`.
//!
//! Every function here is safe to call; each `unsafe` block says why.
#![allow(unsafe_code)]

pub mod pass;
pub mod udp;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

/// What a socket still has to send or has not had acknowledged, in bytes (`SIOCOUTQ`, tcp(7)): 0 once its peer has it all.
///
/// # Errors
/// What ioctl(2) says; a socket that is closed or was reset answers 0 or an error.
pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor stays open for the call, since it is borrowed; TIOCOUTQ (= SIOCOUTQ) writes one int to the
    // pointer, which is valid and aligned for it and outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { Ok(usize::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

fn set_int(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor stays open for the call, since it is borrowed; the option value is one int that lives
    // for the whole call, and its size is given with it.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets a listening socket wake its owner only when a connection has sent something, or after `seconds`
/// (`TCP_DEFER_ACCEPT`, tcp(7)).
///
/// # Errors
/// What setsockopt(2) says.
pub fn defer_accept(listener: BorrowedFd<'_>, seconds: i32) -> io::Result<()> {
    set_int(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// Lets a listening socket take data in the SYN from up to `queue` connections that are not established yet
/// (`TCP_FASTOPEN`, RFC 7413).
///
/// # Errors
/// What setsockopt(2) says.
pub fn fast_open(listener: BorrowedFd<'_>, queue: i32) -> io::Result<()> {
    set_int(listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, queue)
}

/// Closes all of `fds`, by one call for those that follow each other (close_range(2), Linux 5.9).
pub fn close_all(fds: &mut Vec<OwnedFd>) {
    fds.sort_unstable_by_key(|fd| fd.as_raw_fd());
    while let Some(last) = fds.pop() {
        let end = last.as_raw_fd();
        let mut begin = end;
        // Given up here, so that nobody else closes it: from here on the numbers stand for what is to be closed.
        let _ = last.into_raw_fd();
        while let Some(before) = fds.pop_if(|fd| fd.as_raw_fd() + 1 == begin) {
            begin = before.into_raw_fd();
        }
        // SAFETY: every number from `begin` to `end` is of a descriptor that was owned in `fds` and was given up just now,
        // so that all of them are open, and nobody else has any of them.
        let done = begin != end && unsafe { libc::close_range(begin as _, end as _, 0) } == 0;
        if !done {
            for fd in begin..=end {
                // SAFETY: as above; close_range closes none where it fails (an older kernel knows no such call).
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn unsent_falls_to_zero_when_the_peer_has_it_all() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let chunk = [7u8; 65536];
        let mut sent = 0;
        while let Ok(n) = near.write(&chunk) {
            sent += n;
        }
        assert!(unsent(near.as_fd()).unwrap() > 0, "nobody reads, so something waits");
        let mut got = 0;
        let mut buffer = [0u8; 65536];
        while got < sent {
            got += far.read(&mut buffer).unwrap();
        }
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while unsent(near.as_fd()).unwrap() > 0 {
            assert!(std::time::Instant::now() < patience, "all was read, and still something waits");
            std::thread::yield_now();
        }
    }

    #[test]
    fn all_of_a_list_are_closed_and_nothing_beside_them() {
        // Each in a process of its own would be surer; here other tests open descriptors, but close none of these.
        let sockets: Vec<OwnedFd> = (0..40).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().into()).collect();
        let bound: Vec<_> = sockets.iter().map(|fd| socket2::SockRef::from(fd).local_addr().unwrap()).collect();
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for (at, fd) in sockets.into_iter().enumerate() {
            // Runs of one, two, and more, and gaps between them.
            if [3, 7, 8, 20, 33].contains(&at) { kept.push((at, fd)) } else { gone.push(fd) }
        }
        gone.reverse();
        close_all(&mut gone);
        assert!(gone.is_empty());
        for (at, fd) in &kept {
            let address = socket2::SockRef::from(fd).local_addr().unwrap();
            assert_eq!(address.as_socket(), bound[*at].as_socket(), "{at} was kept");
        }
        let kept: Vec<usize> = kept.iter().map(|(at, _)| *at).collect();
        for (at, address) in bound.iter().enumerate().filter(|(at, _)| !kept.contains(at)) {
            let refused = TcpStream::connect(address.as_socket().unwrap());
            assert!(refused.is_err(), "{at} is still listened on");
        }
    }

    #[test]
    fn listening_options_are_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        defer_accept(listener.as_fd(), 1).unwrap();
        fast_open(listener.as_fd(), 16).unwrap();
    }
}
