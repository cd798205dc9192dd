//! Many datagrams by one system call, and trains: runs of equal datagrams that enter and leave the kernel as one
//! (UDP_SEGMENT and UDP_GRO, udp(7)).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

use nix::cmsg_space;
use nix::sys::socket::sockopt::{RcvBufForce, UdpGroSegment, UdpGsoSegment};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recv, recvmmsg, recvmsg, sendmmsg,
    setsockopt,
};
use socket2::SockRef;

use crate::datagram::SIZE;

/// Datagrams a call.
const SLOTS: usize = 64;
/// Room of each: more than a datagram has, so that a longer one is seen to be longer.
const ROOM: usize = 4 * SIZE;
/// The largest train there is.
const TRAIN: usize = 64 << 10;
/// What may wait at a socket of ours: the load must not lose what a proxy brought. (The kernel counts most of 1 KiB for
/// 64 bytes.)
const WAITING: usize = 4 << 20;

/// Prepares a socket: with room for what may wait, and for trains or against them.
pub(crate) fn prepare(socket: &impl AsFd, trains: bool) -> std::io::Result<()> {
    let size = if trains { SIZE as i32 } else { 0 };
    setsockopt(socket, UdpGsoSegment, &size)?; // whatever is longer is sent as a train
    setsockopt(socket, UdpGroSegment, &trains)?;
    match setsockopt(socket, RcvBufForce, &WAITING) {
        Ok(()) => Ok(()),
        Err(_) => SockRef::from(socket).set_recv_buffer_size(WAITING), // as much as everybody may have
    }
}

/// Room to send and receive with, of all sockets.
pub(crate) struct Batch {
    incoming: MultiHeaders<SockaddrIn>,
    outgoing: MultiHeaders<SockaddrIn>,
    room: Vec<u8>,
    control: Vec<u8>,
    /// Of what came: where it begins in `room`, its length, and where it is from.
    came: Vec<(usize, usize, Option<SockaddrIn>)>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            incoming: MultiHeaders::preallocate(SLOTS, None),
            outgoing: MultiHeaders::preallocate(SLOTS, None),
            room: vec![0; TRAIN.max(SLOTS * ROOM)],
            control: cmsg_space!(i32),
            came: Vec::with_capacity(SLOTS),
        }
    }

    /// What the last call brought, one by one.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.came.iter().map(|&(begin, length, _)| &self.room[begin..begin + length])
    }

    /// Takes one datagram: true when there was none.
    pub(crate) fn receive_one(&mut self, socket: &impl AsRawFd) -> nix::Result<bool> {
        self.came.clear();
        match recv(socket.as_raw_fd(), &mut self.room[..ROOM], MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                self.came.push((0, length, None));
                Ok(false)
            }
            Err(nix::Error::EWOULDBLOCK) => Ok(true),
            Err(err) => Err(err),
        }
    }

    /// Takes what waits at the socket, or a part of it: true when the socket was emptied.
    pub(crate) fn receive(&mut self, socket: &impl AsRawFd) -> nix::Result<bool> {
        self.came.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.room.chunks_mut(ROOM).take(SLOTS).map(|room| [IoSliceMut::new(room)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmmsg(socket.as_raw_fd(), &mut self.incoming, slices.iter_mut(), flags, None) {
            Ok(came) => {
                self.came.extend(came.enumerate().map(|(at, one)| (at * ROOM, one.bytes, one.address)));
                Ok(self.came.len() < SLOTS)
            }
            Err(nix::Error::EWOULDBLOCK) => Ok(true),
            Err(err) => Err(err),
        }
    }

    /// Takes one train, or a datagram that came alone: true when there was none.
    pub(crate) fn receive_train(&mut self, socket: &impl AsRawFd) -> nix::Result<bool> {
        self.came.clear();
        let mut slices = [IoSliceMut::new(&mut self.room)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let got = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut self.control), flags);
        let (length, from, size) = match got {
            Ok(train) => {
                let size = train.cmsgs()?.find_map(|message| match message {
                    ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
                    _ => None,
                });
                (train.bytes, train.address, size)
            }
            Err(nix::Error::EWOULDBLOCK) => return Ok(true),
            Err(err) => return Err(err),
        };
        // Without a size it is one datagram, however long: it will be found to be too long.
        let size = size.filter(|&size| size > 0).unwrap_or(length.max(1));
        self.came.extend((0..length.max(1)).step_by(size).map(|begin| (begin, size.min(length - begin), from)));
        Ok(false)
    }

    /// Sends back what came by [`Batch::receive`].
    pub(crate) fn send_back(&mut self, socket: &impl AsRawFd) -> nix::Result<()> {
        let to: Vec<Option<SockaddrIn>> = self.came.iter().map(|&(_, _, from)| from).collect();
        let slice = |&(begin, length, _): &(usize, usize, _)| [IoSlice::new(&self.room[begin..begin + length])];
        let slices: Vec<[IoSlice<'_>; 1]> = self.came.iter().map(slice).collect();
        send(socket, &mut self.outgoing, &slices, &to)
    }

    /// Where the train came from, and its bytes.
    pub(crate) fn train(&self) -> Option<(SockaddrIn, &[u8])> {
        let (&(begin, _, from), &(last, length, _)) = (self.came.first()?, self.came.last()?);
        Some((from?, &self.room[begin..last + length]))
    }

    /// Sends `bytes`, at most [`SLOTS`] datagrams of [`SIZE`] bytes, one by one on a connected socket.
    pub(crate) fn send_apart(&mut self, socket: &impl AsRawFd, bytes: &[u8]) -> nix::Result<()> {
        let slices: Vec<[IoSlice<'_>; 1]> = bytes.chunks(SIZE).map(|one| [IoSlice::new(one)]).collect();
        send(socket, &mut self.outgoing, &slices, &vec![None; slices.len()])
    }
}

/// What the kernel did not take is lost, and will be missed.
fn send<'a>(
    socket: &impl AsRawFd,
    headers: &mut MultiHeaders<SockaddrIn>,
    slices: &'a [[IoSlice<'a>; 1]],
    to: &'a [Option<SockaddrIn>],
) -> nix::Result<()> {
    const NONE: [ControlMessage<'_>; 0] = [];
    sendmmsg(socket.as_raw_fd(), headers, slices, to, NONE, MsgFlags::MSG_DONTWAIT).map(|_| ())
}
