//! Descriptors from one process to another: `SCM_RIGHTS` over a UNIX socket (unix(7)), and the one that was inherited.

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg, sockopt};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Descriptors of one message at the most (`SCM_MAX_FD`).
const MOST: usize = 253;

/// Sends some of `bytes`, and with the first of them `descriptors`; returns how many bytes were taken.
///
/// # Errors
/// What sendmsg(2) says; `ETOOMANYREFS` when more descriptors are under way than a process may have open.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None);
    sent.map_err(io::Error::from)
}

/// Receives into `bytes`, and puts the descriptors that came with them behind `descriptors`, close-on-exec; returns how many
/// bytes came, 0 at the end.
///
/// # Errors
/// What recvmsg(2) says; `ENOBUFS` where the process may not have as many descriptors open as have come.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = nix::cmsg_space!([RawFd; MOST]);
    let mut parts = [IoSliceMut::new(bytes)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            for number in numbers {
                // SAFETY: the kernel has just made this descriptor for us, and told its number here alone.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok(received.bytes)
}

/// The UNIX socket that this process has inherited under `number` from its parent. It can be had once.
///
/// # Errors
/// There is none of that number, it is no UNIX socket, its other end is not our parent's, or it was asked for before.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    // Those below are standard input, output and error, which have other owners.
    if number <= 2 {
        return Err(wrong("it is none that could be inherited"));
    }
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(wrong("it was taken before"));
    }
    // SAFETY: the call takes any number, and fails for one that is no open descriptor.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as was just seen, and nobody in this process knows of it who could close it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let peer = getsockopt(&borrowed, sockopt::PeerCredentials)?;
    if peer.pid() != nix::unistd::getppid().as_raw() {
        return Err(wrong("its other end is not that of the process that started this one"));
    }
    // SAFETY: it is open, and a UNIX socket, as the call above has shown. It was open when the process began, since its
    // maker, our parent, has told its number in our environment, so nobody here has made it; and nobody else takes it,
    // since this is the one place that does, once.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    nix::fcntl::fcntl(&owned, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_in_order_and_are_the_same_files() {
        let (near, far) = UnixStream::pair().unwrap();
        let pairs: Vec<_> = (0..MOST).map(|_| UnixStream::pair().unwrap()).collect();
        let lent: Vec<BorrowedFd<'_>> = pairs.iter().map(|(lent, _)| lent.as_fd()).collect();
        assert_eq!(send(near.as_fd(), b"take these", &lent).unwrap(), 10);
        assert_eq!(send(near.as_fd(), b"!", &[]).unwrap(), 1);
        let (mut bytes, mut came) = ([0; 64], Vec::new());
        // Bytes without descriptors may come with those before them.
        let mut read = receive(far.as_fd(), &mut bytes, &mut came).unwrap();
        while read < 11 {
            read += receive(far.as_fd(), &mut bytes[read..], &mut came).unwrap();
        }
        assert_eq!((&bytes[..read], came.len()), (&b"take these!"[..], MOST));
        for (at, (taken, (_, other))) in came.into_iter().zip(&pairs).enumerate() {
            let flags = nix::fcntl::fcntl(&taken, nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_ne!(flags & libc::FD_CLOEXEC, 0, "nobody inherits it by chance");
            UnixStream::from(taken).write_all(&[at as u8]).unwrap();
            let mut said = [0];
            (&*other).read_exact(&mut said).unwrap();
            assert_eq!(said[0], at as u8);
        }
        drop(near);
        assert_eq!(receive(far.as_fd(), &mut bytes, &mut Vec::new()).unwrap(), 0, "the end");
    }

    #[test]
    fn only_a_socket_of_our_parent_is_inherited() {
        let (ours, _other) = UnixStream::pair().unwrap();
        // Made by this process, not by its parent.
        assert!(inherited(ours.as_raw_fd()).is_err());
        assert!(inherited(1).is_err(), "standard output");
    }
}
