//! Many datagrams in one call, and what the kernel tells of them: recvmmsg(2), sendmmsg(2), udp(7), ip(7), ipv6(7).
//!
//! Read [`Headers::recv`] and [`Headers::send`] first. The headers live as long as their owner, so that no datagram costs
//! an allocation; their pointers are written anew for each call, from borrows that last for all of it.

use crate::sys::set_int;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// The most datagrams of one train. Linux takes 128 since 6.9, and 64 before (`UDP_MAX_SEGMENTS`, linux/udp.h).
pub const MOST_SEGMENTS: usize = 64;
/// The most bytes of one train: what fits into an IPv4 packet behind its header and that of UDP.
pub const MOST_BYTES: usize = 65_507;

/// A `sockaddr_in` takes 16 bytes of it, a `sockaddr_in6` all.
const NAME: usize = 28;
/// Room for a segment size (24 bytes) and a `in6_pktinfo` (40), with some to spare.
const CONTROL: usize = 96;
/// What a `cmsghdr` takes on a 64-bit Linux: a length of 8 bytes, level and type of 4 each (cmsg(3)).
const CMSG_HEADER: usize = 16;
const _: () = assert!(size_of::<libc::cmsghdr>() == CMSG_HEADER, "control messages are laid out as on a 64-bit Linux");

/// What the kernel tells of a datagram, or of a train of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes.
    pub len: usize,
    /// Who sent it, if that was asked for.
    pub from: Option<SocketAddr>,
    /// The local address it was sent to, where [`report_destination`] was called.
    pub to: Option<IpAddr>,
    /// How long each datagram of a train is (the last may be shorter); 0 for a single datagram.
    pub segment: usize,
    /// It was longer than its slot, or its control messages were: it is not whole.
    pub truncated: bool,
}

impl Received {
    /// How many datagrams these are.
    pub fn datagrams(&self) -> usize {
        if self.segment == 0 { 1 } else { self.len.div_ceil(self.segment) }
    }
}

/// A datagram to send, or a train of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Where to; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// The local address it leaves from; `None` leaves that to the system.
    pub source: Option<IpAddr>,
    /// How long each datagram of a train is (the last may be shorter); 0 for a single datagram.
    pub segment: usize,
    /// Its first part.
    pub first: usize,
    /// How many parts it has: they are sent one behind the other.
    pub parts: usize,
}

/// Some bytes of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where they begin.
    pub start: usize,
    /// How many.
    pub len: usize,
}

#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; CONTROL]);

/// The headers of one call.
pub struct Headers {
    messages: Box<[libc::mmsghdr]>,
    names: Box<[[u8; NAME]]>,
    controls: Box<[Control]>,
    parts: Box<[libc::iovec]>,
}

// SAFETY: the pointers in them are written anew for each call, and nothing looks at them but the kernel during it: between
// two calls they are numbers without a meaning, on whichever thread.
unsafe impl Send for Headers {}

impl Headers {
    /// For so many messages, of so many parts together.
    pub fn new(messages: usize, parts: usize) -> Headers {
        // SAFETY: an `mmsghdr` is made of integers and raw pointers, for which all bits zero are a value.
        let empty: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Headers {
            messages: vec![empty; messages].into(),
            names: vec![[0; NAME]; messages].into(),
            controls: vec![Control([0; CONTROL]); messages].into(),
            parts: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; parts].into(),
        }
    }

    /// Receives into `told.len()` slots: slot `i` is the `size` bytes of `bytes` that begin at `i * stride`. Returns how
    /// many were filled; what is known of them is in `told`. Fewer than asked for means that no more were there, or that
    /// the socket has an error to tell to the next call. `names` asks who sent them.
    ///
    /// # Errors
    /// What recvmmsg(2) says; `WouldBlock` when there is nothing.
    ///
    /// # Panics
    /// When there are fewer headers, or bytes, than slots.
    pub fn recv(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &mut [u8],
        (stride, size): (usize, usize),
        names: bool,
        told: &mut [Received],
    ) -> io::Result<usize> {
        let asked = told.len();
        for i in 0..asked {
            let slot = &mut bytes[i * stride..][..size];
            self.parts[i] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let header = &mut self.messages[i].msg_hdr;
            (header.msg_name, header.msg_namelen) = match names {
                true => (self.names[i].as_mut_ptr().cast(), NAME as libc::socklen_t),
                false => (ptr::null_mut(), 0),
            };
            (header.msg_control, header.msg_controllen) = (self.controls[i].0.as_mut_ptr().cast(), CONTROL as _);
            header.msg_flags = 0;
        }
        let parts = self.parts.as_mut_ptr();
        for (i, message) in self.messages[..asked].iter_mut().enumerate() {
            message.msg_hdr.msg_iov = parts.wrapping_add(i);
            message.msg_hdr.msg_iovlen = 1;
        }
        let (fd, messages) = (socket.as_raw_fd(), self.messages.as_mut_ptr());
        // SAFETY: the descriptor stays open for the call, since it is borrowed; `asked` headers are there, as the slicing
        // above has checked, and each points at a slot, a name, a control buffer and a part that are borrowed mutably or
        // owned here, that are of the sizes given with them, of which no two overlap (the slots when stride >= size; when
        // not, bytes are overwritten, which is no harm to memory), and that outlive the call.
        let filled = unsafe { libc::recvmmsg(fd, messages, asked as _, libc::MSG_DONTWAIT as _, ptr::null_mut()) };
        let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        for (i, told) in told.iter_mut().enumerate().take(filled) {
            let message = &self.messages[i];
            let len = message.msg_len as usize;
            *told = Received { len, ..Received::default() };
            told.truncated = message.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
            if names {
                told.from = address(&self.names[i]);
            }
            let control = &self.controls[i].0[..length(message.msg_hdr.msg_controllen).min(CONTROL)];
            read_control(control, told);
            // A train of one is a datagram.
            if told.segment >= told.len {
                told.segment = 0;
            }
        }
        Ok(filled)
    }

    /// Takes what the kernel has noted of one datagram that did not arrive, where [`report_errors`] was called: to whom it
    /// was sent, and the errno (ip(7), `IP_RECVERR`). `None` when nothing is noted.
    ///
    /// # Panics
    /// When there is no header.
    pub fn take_error(&mut self, socket: BorrowedFd<'_>) -> Option<(SocketAddr, i32)> {
        // What the datagram said is of no use: a byte of it is taken.
        let mut byte = [0u8; 1];
        self.parts[0] = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let header = &mut self.messages[0].msg_hdr;
        (header.msg_iov, header.msg_iovlen) = (self.parts.as_mut_ptr(), 1);
        (header.msg_name, header.msg_namelen) = (self.names[0].as_mut_ptr().cast(), NAME as libc::socklen_t);
        (header.msg_control, header.msg_controllen) = (self.controls[0].0.as_mut_ptr().cast(), CONTROL as _);
        header.msg_flags = 0;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the descriptor stays open for the call, since it is borrowed; the header points at one part, a name and a
        // control buffer that are owned here, of the sizes given with them, and that outlive the call.
        let taken = unsafe { libc::recvmsg(socket.as_raw_fd(), header, flags) };
        if taken < 0 {
            return None;
        }
        let control = &self.controls[0].0[..length(header.msg_controllen).min(CONTROL)];
        // The first message is the error, which begins with its errno (`sock_extended_err`).
        let errno = array(control, CMSG_HEADER).map(i32::from_ne_bytes)?;
        Some((address(&self.names[0])?, errno))
    }

    /// Sends `messages` in order, whose parts are `parts` of `bytes`; returns how many were taken, at least one. An error
    /// is that of the first; an error of a later one is told by the call that begins with it.
    ///
    /// # Errors
    /// What sendmmsg(2) says.
    ///
    /// # Panics
    /// When there are fewer headers, parts or bytes than named.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        parts: &[Part],
        messages: &[Departure],
    ) -> io::Result<usize> {
        let iovecs = self.parts.as_mut_ptr();
        let mut used = 0;
        for (i, message) in messages.iter().enumerate() {
            let first = used;
            for part in &parts[message.first..][..message.parts] {
                let part = &bytes[part.start..][..part.len];
                self.parts[used] = libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() };
                used += 1;
            }
            let name = message.to.map_or(0, |to| write_address(to, &mut self.names[i]));
            let control = write_control(message, &mut self.controls[i].0);
            let header = &mut self.messages[i].msg_hdr;
            (header.msg_iov, header.msg_iovlen) = (iovecs.wrapping_add(first), (used - first) as _);
            (header.msg_name, header.msg_namelen) = match name {
                0 => (ptr::null_mut(), 0),
                len => (self.names[i].as_mut_ptr().cast(), len as libc::socklen_t),
            };
            (header.msg_control, header.msg_controllen) = match control {
                0 => (ptr::null_mut(), 0),
                len => (self.controls[i].0.as_mut_ptr().cast(), len as _),
            };
            header.msg_flags = 0;
        }
        let (fd, headers) = (socket.as_raw_fd(), self.messages.as_mut_ptr());
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the descriptor stays open for the call, since it is borrowed; as many headers are there, as the indexing
        // above has checked, and each points at a name, a control buffer and parts that are borrowed or owned here, that
        // are of the sizes given with them and outlive the call, which only reads what they point at.
        let sent = unsafe { libc::sendmmsg(fd, headers, messages.len() as _, flags as _) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Lets a socket receive trains as they come (`UDP_GRO`, udp(7)).
///
/// # Errors
/// What setsockopt(2) says; kernels before 5.0 know no trains.
pub fn receive_trains(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Lets a socket that is not connected tell of datagrams that did not arrive (`IP_RECVERR`, ip(7)): the next call is told
/// an error, and [`Headers::take_error`] which ones they were.
///
/// # Errors
/// What setsockopt(2) says.
pub fn report_errors(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    match v6 {
        true => set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
        false => set_int(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1),
    }
}

/// Lets a socket tell of each datagram where it was sent to (`IP_PKTINFO`, ip(7); `IPV6_RECVPKTINFO`, ipv6(7)).
///
/// # Errors
/// What setsockopt(2) says.
pub fn report_destination(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    match v6 {
        true => set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
        false => set_int(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
    }
}

/// A length that is a `size_t` in one C library and a `socklen_t` in another.
fn length(len: impl TryInto<usize>) -> usize {
    len.try_into().unwrap_or(0)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// What a `sockaddr_in` or `sockaddr_in6` says (ip(7), ipv6(7)).
fn address(name: &[u8; NAME]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(array(name, 2)?);
    match i32::from(u16::from_ne_bytes(array(name, 0)?)) {
        libc::AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(array::<4>(name, 4)?), port).into()),
        libc::AF_INET6 => {
            let scope = u32::from_ne_bytes(array(name, 24)?);
            // The flow label is not kept: it is no part of where somebody is.
            Some(SocketAddrV6::new(Ipv6Addr::from(array::<16>(name, 8)?), port, 0, scope).into())
        }
        _ => None,
    }
}

fn write_address(address: SocketAddr, name: &mut [u8; NAME]) -> usize {
    *name = [0; NAME];
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    let (family, len) = match address {
        SocketAddr::V4(v4) => {
            name[4..8].copy_from_slice(&v4.ip().octets());
            (libc::AF_INET, 16)
        }
        SocketAddr::V6(v6) => {
            name[8..24].copy_from_slice(&v6.ip().octets());
            name[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            (libc::AF_INET6, NAME)
        }
    };
    name[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    len
}

/// What control messages say (cmsg(3)).
fn read_control(mut control: &[u8], told: &mut Received) {
    while let (Some(len), Some(level), Some(kind)) = (array(control, 0), array(control, 8), array(control, 12)) {
        let len = usize::from_ne_bytes(len);
        let Some(data) = control.get(CMSG_HEADER..len) else { return };
        match (i32::from_ne_bytes(level), i32::from_ne_bytes(kind)) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                told.segment = array(data, 0).map_or(0, |size| usize::try_from(i32::from_ne_bytes(size)).unwrap_or(0));
            }
            // The interface (4 bytes), the local address to answer from (4), the address it was sent to (4): these two
            // differ for a broadcast.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                told.to = array::<4>(data, 4).map(|ip| Ipv4Addr::from(ip).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let to = array::<16>(data, 0).map(Ipv6Addr::from);
                // Nobody can answer from a group's address.
                told.to = to.filter(|to| !to.is_multicast()).map(IpAddr::V6);
            }
            _ => {}
        }
        control = control.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
}

fn write_control(message: &Departure, control: &mut [u8; CONTROL]) -> usize {
    let mut used = 0;
    let mut add = |level: i32, kind: i32, data: &[u8]| {
        let len = CMSG_HEADER + data.len();
        let at = &mut control[used..used + len.next_multiple_of(8)];
        at.fill(0);
        at[..8].copy_from_slice(&len.to_ne_bytes());
        at[8..12].copy_from_slice(&level.to_ne_bytes());
        at[12..16].copy_from_slice(&kind.to_ne_bytes());
        at[16..len].copy_from_slice(data);
        used += at.len();
    };
    match message.source {
        Some(IpAddr::V4(ip)) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&ip.octets());
            add(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            add(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if message.segment != 0 {
        add(libc::SOL_UDP, libc::UDP_SEGMENT, &(message.segment as u16).to_ne_bytes());
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    const SIZE: usize = 65_536;

    /// Receives until `wanted` datagrams have come; loopback delivers within the sending call, so the wait is short.
    fn receive(socket: &UdpSocket, slots: usize, wanted: usize) -> Vec<(Received, Vec<u8>)> {
        let mut headers = Headers::new(slots, slots);
        let mut bytes = vec![0; slots * SIZE];
        let mut all = Vec::new();
        let mut came = 0;
        let patience = std::time::Instant::now() + Duration::from_secs(5);
        while came < wanted && std::time::Instant::now() < patience {
            let mut told = vec![Received::default(); slots];
            match headers.recv(socket.as_fd(), &mut bytes, (SIZE, SIZE), true, &mut told) {
                Ok(n) => {
                    came += told[..n].iter().map(Received::datagrams).sum::<usize>();
                    all.extend((0..n).map(|i| (told[i], bytes[i * SIZE..][..told[i].len].to_vec())));
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        all
    }

    fn one(to: Option<SocketAddr>, source: Option<IpAddr>, segment: usize, first: usize, parts: usize) -> Departure {
        Departure { to, source, segment, first, parts }
    }

    #[test]
    fn datagrams_go_out_and_come_in_as_they_are() {
        for (why, bind) in [("IPv4", "127.0.0.1:0"), ("IPv6", "[::1]:0")] {
            let (near, far) = (UdpSocket::bind(bind).unwrap(), UdpSocket::bind(bind).unwrap());
            let to = Some(far.local_addr().unwrap());
            let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
            let parts = [Part { start: 3, len: 10 }, Part { start: 0, len: 0 }, Part { start: 20, len: 65_000 }];
            let messages = [one(to, None, 0, 0, 1), one(to, None, 0, 1, 1), one(to, None, 0, 2, 1)];
            let sent = Headers::new(8, 8).send(near.as_fd(), &bytes, &parts, &messages).unwrap();
            assert_eq!(sent, 3, "{why}");
            let came = receive(&far, 4, 3);
            for ((told, got), part) in came.iter().zip(parts) {
                assert_eq!(got, &bytes[part.start..][..part.len], "{why}");
                assert_eq!(told.from, Some(near.local_addr().unwrap()), "{why}");
                assert_eq!((told.segment, told.truncated, told.to), (0, false, None), "{why}");
            }
            assert_eq!(came.len(), 3, "{why}");
        }
    }

    #[test]
    fn trains_come_whole_where_they_are_taken_and_one_by_one_where_not() {
        for (why, taken, expected) in [("with UDP_GRO", true, 1), ("without", false, 4)] {
            let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
            if taken {
                receive_trains(far.as_fd()).unwrap();
            }
            let bytes = [7; 400];
            let parts = [100, 100, 100, 30].map(|len| Part { start: 5, len });
            let message = one(Some(far.local_addr().unwrap()), None, 100, 0, 4);
            Headers::new(1, 4).send(near.as_fd(), &bytes, &parts, &[message]).unwrap();
            let came = receive(&far, 8, 4);
            assert_eq!(came.len(), expected, "{why}");
            assert_eq!(came.iter().map(|(told, _)| told.datagrams()).sum::<usize>(), 4, "{why}");
            assert_eq!(came.iter().map(|(told, _)| told.len).sum::<usize>(), 330, "{why}");
            assert_eq!(came[0].0.segment, if taken { 100 } else { 0 }, "{why}");
        }
    }

    #[test]
    fn where_it_was_sent_to_is_told_and_answered_from() {
        let rows = [
            ("IPv4", "0.0.0.0:0", "127.0.0.7", "127.0.0.7"),
            ("IPv6", "[::]:0", "::1", "::1"),
            ("IPv4 through IPv6", "[::]:0", "127.0.0.9", "::ffff:127.0.0.9"),
        ];
        for (why, bind, to, told_as) in rows {
            let here = UdpSocket::bind(bind).unwrap();
            report_destination(here.as_fd(), bind.starts_with('[')).unwrap();
            let to: IpAddr = to.parse().unwrap();
            let client = UdpSocket::bind((if to.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
            client.send_to(b"ask", (to, here.local_addr().unwrap().port())).unwrap();
            let (told, _) = receive(&here, 2, 1)[0].clone();
            assert_eq!(told.to, Some(told_as.parse().unwrap()), "{why}");
            let parts = [Part { start: 0, len: 2 }];
            Headers::new(1, 1).send(here.as_fd(), b"ok", &parts, &[one(told.from, told.to, 0, 0, 1)]).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut answer = [0; 8];
            let (len, from) = client.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..len], from.ip()), (&b"ok"[..], to), "{why}");
        }
    }

    #[test]
    fn what_does_not_fit_its_slot_is_told() {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        near.send_to(&[1; 100], far.local_addr().unwrap()).unwrap();
        let mut told = [Received::default(); 2];
        let filled = Headers::new(2, 2).recv(far.as_fd(), &mut [0; 128], (64, 64), false, &mut told).unwrap();
        assert_eq!((filled, told[0].len, told[0].truncated, told[0].from), (1, 64, true, None));
    }

    #[test]
    fn who_refused_is_told_of_a_socket_that_is_not_connected() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let (near, far) = (UdpSocket::bind(bind).unwrap(), UdpSocket::bind(bind).unwrap());
            let there = far.local_addr().unwrap();
            report_errors(near.as_fd(), there.is_ipv6()).unwrap();
            drop(far);
            let mut headers = Headers::new(1, 1);
            assert_eq!(headers.take_error(near.as_fd()), None);
            near.send_to(b"some words", there).unwrap();
            assert_eq!(headers.take_error(near.as_fd()), Some((there, libc::ECONNREFUSED)), "{bind}");
            assert_eq!(headers.take_error(near.as_fd()), None, "{bind}");
        }
    }

    #[test]
    fn a_refusal_is_told_once_and_what_was_sent_with_it_is_not_gone_out() {
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        let there = far.local_addr().unwrap();
        near.connect(there).unwrap();
        drop(far);
        let mut headers = Headers::new(1, 1);
        let mut send = || headers.send(near.as_fd(), b"x", &[Part { start: 0, len: 1 }], &[one(None, None, 0, 0, 1)]);
        assert_eq!(send().unwrap(), 1, "nobody knows yet");
        assert_eq!(send().unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
        let far = UdpSocket::bind(there).unwrap();
        assert_eq!(send().unwrap(), 1, "told once");
        assert_eq!(receive(&far, 4, 1).len(), 1, "the one in the middle did not go out");
    }
}
