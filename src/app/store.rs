//! Every socket that clients come in by is from here: bound, passed on by systemd (LISTEN_FDS, sd_listen_fds(3)), or handed
//! over by the process whose place this one takes.

use crate::app::{Bound, ToldBy};
use crate::base::ids::ListenerId;
use crate::config::{Address, Config, Listener, Transport};
use crate::sys;
use listenfd::ListenFd;
use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;

/// Clients that may wait to be accepted; the kernel takes less where `net.core.somaxconn` says so.
const BACKLOG: i32 = 65_535;
/// How long `defer_accept` waits for data before it passes a connection on without, in seconds.
const DEFER: i32 = 10;
/// Connections that may be open with data in the SYN and not established yet.
const FAST_OPEN: i32 = 1024;

/// What a UDP socket may hold of what has come, and of what is to go, in bytes: datagrams that a busy worker has not
/// looked at yet would be lost else. The kernel takes less where `net.core.rmem_max` and `wmem_max` say so.
const BUFFER: usize = 4 << 20;

/// All sockets of a process.
pub(super) struct Sockets {
    /// For each worker, a socket of each TCP listener and address.
    pub(super) by_worker: Vec<Vec<(ListenerId, TcpListener)>>,
    /// The same for UDP: bound and non-blocking. A worker has none of an address that was passed on as fewer sockets than
    /// there are workers, if others cannot be bound beside those.
    pub(super) udp_by_worker: Vec<Vec<(ListenerId, UdpSocket)>>,
    /// Where they listen.
    pub(super) bound: Vec<Bound>,
    /// Addresses at port 0, and what they have become.
    pub(super) chosen: Vec<Chosen>,
    /// What was taken of what was handed over.
    pub(super) taken: Vec<Taken>,
}

/// A listener asked for port 0, and got one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) listener: String,
    pub(super) transport: Transport,
    pub(super) asked: SocketAddr,
    pub(super) got: SocketAddr,
}

/// A socket of the process before this one.
#[derive(Debug)]
pub(super) struct Handed {
    /// As that process counts it.
    pub(super) number: usize,
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    /// Which one it is of those at its address.
    pub(super) slot: usize,
    /// Who asked for it by port 0, and how.
    pub(super) asked: Option<(String, SocketAddr)>,
    pub(super) socket: Socket,
}

/// A socket that was handed over and is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// As the other process counts it.
    pub(super) number: usize,
    pub(super) transport: Transport,
    /// Who has it here, and at which place of its kind.
    pub(super) worker: usize,
    pub(super) place: usize,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot listen on {address}: {error}{hint}")]
pub(super) struct BindError {
    listener: String,
    address: String,
    error: io::Error,
    hint: String,
}

impl BindError {
    fn new(told_by: ToldBy, listener: &Listener, address: impl ToString, error: io::Error) -> BindError {
        let (port, host) = match told_by {
            ToldBy::File => ("change bind", "change bind"),
            ToldBy::HostAndPort => ("choose another --port", "choose another --host"),
            ToldBy::Port => ("choose another --port", "choose another --port"),
        };
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => format!("; another program has it: stop that one, or {port}"),
            io::ErrorKind::PermissionDenied => {
                format!("; ports below 1024 need root or CAP_NET_BIND_SERVICE: grant it, or {port}")
            }
            io::ErrorKind::AddrNotAvailable => format!("; no interface of this machine has it: {host}"),
            _ => String::new(),
        };
        BindError { listener: listener.name.clone(), address: address.to_string(), error, hint }
    }
}

/// Opens every socket of `config`, one a worker and address; those `handed` over are kept, as many as they are: with more
/// beside them, clients of UDP would come to other sockets than before, and those who wait at a new one would be lost with
/// it if this process failed.
///
/// # Errors
/// The first address that cannot be bound.
pub(super) fn open(
    config: &Config,
    workers: usize,
    told_by: ToldBy,
    handed: Vec<Handed>,
) -> Result<Sockets, BindError> {
    open_with(config, workers, told_by, passed_on(), handed)
}

fn open_with(
    config: &Config,
    workers: usize,
    told_by: ToldBy,
    mut passed: Vec<Passed>,
    mut handed: Vec<Handed>,
) -> Result<Sockets, BindError> {
    let mut sockets = Sockets {
        by_worker: (0..workers).map(|_| Vec::new()).collect(),
        udp_by_worker: (0..workers).map(|_| Vec::new()).collect(),
        bound: Vec::new(),
        chosen: Vec::new(),
        taken: Vec::new(),
    };
    for (at, listener) in config.listeners.iter().enumerate() {
        let id = ListenerId(at as u16);
        let transport = listener.protocol.transport();
        let ports_v4 = ports_v4(config, transport);
        for bind in &listener.binds {
            let addresses = resolve(bind).map_err(|error| BindError::new(told_by, listener, bind, error))?;
            for address in addresses {
                // [::] takes IPv4 too, unless that has a listener of its own.
                let only_v6 = address.is_ipv6() && ports_v4.contains(&address.port());
                let fail = |error| BindError::new(told_by, listener, address, error);
                let before = handed_for(&mut handed, listener, address);
                let numbers: Vec<usize> = before.iter().map(|handed| handed.number).collect();
                let ours =
                    passed.extract_if(.., |passed| passed.transport == transport && is_at(&passed.socket, address));
                let ours: Vec<Socket> = ours.map(|passed| passed.socket).collect();
                let opened = match (ours.is_empty(), transport) {
                    _ if !before.is_empty() => Ok(before.into_iter().map(|handed| handed.socket).collect()),
                    (true, _) => bind_all(address, transport, only_v6, workers),
                    (false, Transport::Tcp) => share(ours, workers),
                    (false, Transport::Udp) => join(ours, listener, workers),
                };
                let opened = opened.map_err(fail)?;
                let true_address = opened.first().map(|socket| socket.local_addr());
                let true_address = true_address.transpose().map_err(fail)?.and_then(|address| address.as_socket());
                let true_address = true_address.unwrap_or(address);
                sockets.bound.push(Bound {
                    listener: listener.name.clone(),
                    protocol: listener.protocol,
                    address: true_address,
                });
                if address.port() == 0 {
                    let listener = listener.name.clone();
                    sockets.chosen.push(Chosen { listener, transport, asked: address, got: true_address });
                }
                for (at, socket) in opened.into_iter().enumerate() {
                    let worker = at % workers;
                    if let Some(number) = numbers.get(at) {
                        let place = match transport {
                            Transport::Tcp => sockets.by_worker[worker].len(),
                            Transport::Udp => sockets.udp_by_worker[worker].len(),
                        };
                        sockets.taken.push(Taken { number: *number, transport, worker, place });
                    }
                    match transport {
                        Transport::Tcp => {
                            let socket = listen(socket, listener).map_err(fail)?;
                            sockets.by_worker[worker].push((id, socket));
                        }
                        Transport::Udp => {
                            let socket = receive(socket).map_err(fail)?;
                            sockets.udp_by_worker[worker].push((id, socket));
                        }
                    }
                }
            }
        }
    }
    for Passed { socket, transport } in passed {
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        let address = address.map_or("a socket".into(), |address| address.to_string());
        let over = match transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        };
        log::warn!("{address} ({over}) was passed on by the service manager, and no listener binds it; closed");
    }
    Ok(sockets)
}

/// The sockets handed over for `listener` at `address`, in the order of their slots.
fn handed_for(handed: &mut Vec<Handed>, listener: &Listener, address: SocketAddr) -> Vec<Handed> {
    let transport = listener.protocol.transport();
    let asked_for = |handed: &Handed| {
        let asked = handed.asked.as_ref();
        asked.is_some_and(|(name, asked)| *name == listener.name && *asked == address)
    };
    let found = handed.iter().filter(|handed| handed.transport == transport).find(|handed| match address.port() {
        0 => asked_for(handed),
        _ => handed.address == address,
    });
    let Some(found) = found.map(|handed| handed.address) else { return Vec::new() };
    let ours = handed.extract_if(.., |handed| handed.transport == transport && handed.address == found);
    let mut ours: Vec<Handed> = ours.collect();
    ours.sort_by_key(|handed| handed.slot);
    ours
}

fn resolve(bind: &Address) -> io::Result<Vec<SocketAddr>> {
    match bind {
        Address::Ip(address) => Ok(vec![*address]),
        Address::Name { host, port } => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
    }
}

/// The ports that listeners over `transport` bind by IPv4.
fn ports_v4(config: &Config, transport: Transport) -> Vec<u16> {
    let listeners = config.listeners.iter().filter(|listener| listener.protocol.transport() == transport);
    listeners
        .flat_map(|listener| &listener.binds)
        .filter_map(|bind| match bind {
            Address::Ip(SocketAddr::V4(address)) if address.port() != 0 => Some(address.port()),
            _ => None,
        })
        .collect()
}

/// A socket of the service manager.
struct Passed {
    transport: Transport,
    socket: Socket,
}

fn passed_on() -> Vec<Passed> {
    let mut passed = ListenFd::from_env();
    (0..passed.len())
        .filter_map(|at| {
            let taken = passed.take_tcp_listener(at).map(|listener| (Transport::Tcp, listener.map(Socket::from)));
            // What is none stays in its place.
            let taken =
                taken.or_else(|_| passed.take_udp_socket(at).map(|socket| (Transport::Udp, socket.map(Socket::from))));
            match taken {
                Ok((transport, socket)) => Some(Passed { transport, socket: socket? }),
                Err(error) => {
                    log::warn!("descriptor {at} of the service manager is no TCP or UDP socket: {error}");
                    None
                }
            }
        })
        .collect()
}

fn is_at(socket: &Socket, wanted: SocketAddr) -> bool {
    socket.local_addr().is_ok_and(|address| address.as_socket() == Some(wanted))
}

/// Listening sockets passed on for one address, dealt out to the workers; where there are fewer than workers, several have
/// a descriptor of the same one and take what they can get.
fn share(mut passed: Vec<Socket>, workers: usize) -> io::Result<Vec<Socket>> {
    let count = passed.len();
    for at in count..workers {
        let again = passed[at % count].try_clone()?;
        passed.push(again);
    }
    Ok(passed)
}

/// UDP sockets passed on for one address, and beside them one for each worker that has none: two workers on one socket
/// would each get a part of what a client sends, and answer it as if it were two clients.
fn join(mut passed: Vec<Socket>, listener: &Listener, workers: usize) -> io::Result<Vec<Socket>> {
    if passed.len() < workers
        && let Some(first) = passed.first()
        && let Err(error) = beside(first, workers - passed.len()).map(|more| passed.extend(more))
    {
        let count = passed.len();
        log::warn!(
            "listener {}: {count} of {workers} workers serve what was passed on: no socket can be bound beside it: {error}",
            listener.name
        );
    }
    Ok(passed)
}

/// A socket a worker, between which the kernel spreads what comes in (`SO_REUSEPORT`, socket(7)).
fn bind_all(address: SocketAddr, transport: Transport, only_v6: bool, workers: usize) -> io::Result<Vec<Socket>> {
    // The first without SO_REUSEPORT: with it, an address that another process has with SO_REUSEPORT could be bound, and
    // the two would share its clients. It gets the option once the address is its own, and the others join it.
    let first = bind_one(address, transport, only_v6, false)?;
    let more = beside(&first, workers - 1)?;
    Ok(std::iter::once(first).chain(more).collect())
}

/// `count` sockets at the address of `first`.
fn beside(first: &Socket, count: usize) -> io::Result<Vec<Socket>> {
    let local = first.local_addr()?;
    let address = local.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let only_v6 = address.is_ipv6() && first.only_v6()?;
    let transport = if first.r#type()? == Type::DGRAM { Transport::Udp } else { Transport::Tcp };
    first.set_reuse_port(true)?;
    (0..count).map(|_| bind_one(address, transport, only_v6, true)).collect()
}

fn bind_one(address: SocketAddr, transport: Transport, only_v6: bool, reuse_port: bool) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // Over connections that linger. Nothing lingers of UDP: there it would only let two processes have one address.
    if transport == Transport::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Begins to listen, with options that what is accepted inherits, so that no connection has to set them.
fn listen(socket: Socket, listener: &Listener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let options = &listener.socket;
    if let Some(name) = &options.congestion_control {
        let set = socket.set_tcp_congestion(name.as_bytes());
        set.map_err(|error| io::Error::new(error.kind(), format!("congestion_control {name:?} is not to be had ({error}); write one of net.ipv4.tcp_available_congestion_control")))?;
    }
    if options.defer_accept {
        sys::defer_accept(socket.as_fd(), DEFER)?;
    }
    if options.tcp_fastopen {
        sys::fast_open(socket.as_fd(), FAST_OPEN)?;
    }
    if !socket.is_listener()? {
        socket.listen(BACKLOG)?;
    }
    Ok(TcpListener::from_std(socket.into()))
}

/// Makes a bound UDP socket ready for a worker.
fn receive(socket: Socket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    // As much as there is to be had: with less it works too.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(config: &Config, workers: usize, passed: Vec<Passed>) -> Result<Sockets, BindError> {
        open_with(config, workers, ToldBy::File, passed, Vec::new())
    }

    use crate::config;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    /// A UDP listener on `bind`, and whatever else.
    fn config(bind: &str, rest: &str) -> Config {
        let text = format!(
            "[[listener]]\nname = 'dns'\nbind = '{bind}'\nprotocol = 'udp'\npool = 'p'\n{rest}\n[[pool]]\nname = 'p'\n"
        );
        config::parse(&text, "test").unwrap()
    }

    fn passed(shared: bool) -> (Passed, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_reuse_port(shared).unwrap();
        socket.set_reuse_address(shared).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (Passed { transport: Transport::Udp, socket }, address)
    }

    /// How many datagrams of 64 clients come to each socket.
    fn spread(sockets: &[&UdpSocket], address: SocketAddr) -> Vec<usize> {
        const CLIENTS: usize = 64;
        for _ in 0..CLIENTS {
            let bind = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(bind).unwrap().send_to(b"hello", address).unwrap();
        }
        let mut come = vec![0; sockets.len()];
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while come.iter().sum::<usize>() < CLIENTS {
            assert!(std::time::Instant::now() < until, "only {come:?} have come");
            for (socket, come) in sockets.iter().zip(&mut come) {
                *come += std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok()).count();
            }
        }
        come
    }

    fn of(sockets: &Sockets) -> Vec<&UdpSocket> {
        sockets.udp_by_worker.iter().flatten().map(|(_, socket)| socket).collect()
    }

    #[test]
    fn each_worker_has_a_udp_socket_and_the_kernel_spreads_clients() {
        let sockets = opened(&config("127.0.0.1:0", ""), 3, Vec::new()).unwrap();
        assert!(sockets.udp_by_worker.iter().all(|own| own.len() == 1 && own[0].0 == ListenerId(0)));
        assert!(sockets.by_worker.iter().all(Vec::is_empty));
        let [Bound { address, protocol: config::Protocol::Udp, .. }] = sockets.bound[..] else {
            panic!("{:?}", sockets.bound)
        };
        let come = spread(&of(&sockets), address);
        assert!(come.iter().all(|some| *some > 0), "{come:?}: one gets nothing");
    }

    #[test]
    fn a_udp_address_that_somebody_has_is_not_shared() {
        for shared in [false, true] {
            let (theirs, address) = passed(shared);
            for workers in [1, 2] {
                let error = opened(&config(&address.to_string(), ""), workers, Vec::new()).err();
                let told = error.map(|error| error.to_string()).unwrap_or_default();
                let words = format!("listener dns: cannot listen on {address}: Address already in use");
                assert!(told.starts_with(&words), "{told:?}, shared {shared}");
            }
            drop(theirs);
        }
    }

    #[test]
    fn a_tcp_listener_can_have_the_same_address() {
        let twin = |bind: &str| format!("[[listener]]\nname = 'twin'\nbind = '{bind}'\nprotocol = 'tcp'\npool = 'p'");
        // What is free over UDP may be taken over TCP, by whoever runs beside this.
        let tries = std::iter::repeat_with(|| {
            let (theirs, address) = passed(false);
            drop(theirs);
            let address = address.to_string();
            Some((opened(&config(&address, &twin(&address)), 2, Vec::new()).ok()?, address))
        });
        let (sockets, address) = tries.take(100).flatten().next().expect("one of a hundred ports is free");
        assert_eq!(sockets.bound[0].address, sockets.bound[1].address);
        drop(sockets);
        // Over UDP [::] takes IPv4 as well, whatever TCP binds.
        let port = address.rsplit(':').next().unwrap();
        let config = config(&format!("[::]:{port}"), &twin(&format!("127.0.0.1:{port}")));
        let sockets = opened(&config, 1, Vec::new()).unwrap();
        assert_eq!(spread(&of(&sockets), address.parse().unwrap()), [64]);
    }

    #[test]
    fn a_udp_socket_passed_on_is_taken_and_the_other_workers_join_it() {
        for (workers, shared) in [(1, false), (3, false), (3, true)] {
            let (theirs, address) = passed(shared);
            let early = UdpSocket::bind("127.0.0.1:0").unwrap();
            early.send_to(b"early", address).unwrap();
            let sockets = opened(&config(&address.to_string(), ""), workers, vec![theirs]).unwrap();
            assert_eq!(sockets.bound[0].address, address);
            let all = of(&sockets);
            assert_eq!(all.len(), workers);
            let mut first = [0; 16];
            assert_eq!(all[0].recv(&mut first).unwrap(), 5, "what came before the start is still there");
            let come = spread(&all, address);
            assert!(come.iter().all(|some| *some > 0), "{come:?}: one gets nothing");
        }
    }

    #[test]
    fn what_is_passed_on_over_the_other_transport_is_not_taken() {
        // The port is free over UDP only: another try where somebody has it over TCP.
        let sockets = (0..20).find_map(|_| {
            let (theirs, address) = passed(false);
            let text = format!(
                "listener = [{{ name = 't', bind = '{address}', protocol = 'tcp', pool = 'p' }}]\npool = [{{ name = 'p' }}]"
            );
            opened(&config::parse(&text, "test").unwrap(), 1, vec![theirs]).ok()
        });
        let sockets = sockets.unwrap();
        assert_eq!((sockets.by_worker[0].len(), sockets.udp_by_worker[0].len()), (1, 0));
    }

    /// Sockets of a process before this one, so many of each transport at one address each.
    fn handed_over(slots: usize, asked: Option<&str>) -> (Vec<Handed>, [SocketAddr; 2]) {
        let mut all = Vec::new();
        let addresses = [Transport::Tcp, Transport::Udp].map(|transport| {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let sockets = bind_all(any, transport, false, slots).unwrap();
            let address = sockets[0].local_addr().unwrap().as_socket().unwrap();
            for (slot, socket) in sockets.into_iter().enumerate() {
                if transport == Transport::Tcp {
                    socket.listen(8).unwrap();
                }
                let asked = asked.map(|name| (name.to_owned(), any));
                // The last slot is told first.
                all.insert(0, Handed { number: all.len(), transport, address, slot, asked, socket });
            }
            address
        });
        (all, addresses)
    }

    /// What tells a socket from all others, whatever its descriptor is.
    fn file_of(socket: &impl AsRawFd) -> u64 {
        std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap().ino()
    }

    fn names(sockets: &[Taken], transport: Transport) -> Vec<(usize, usize, usize)> {
        let of = sockets.iter().filter(|taken| taken.transport == transport);
        of.map(|taken| (taken.number, taken.worker, taken.place)).collect()
    }

    #[test]
    fn what_is_handed_over_is_kept_slot_by_slot_however_many_workers_there_are() {
        type Row = (&'static str, usize, Vec<(usize, usize, usize)>);
        let rows: [Row; 3] = [
            ("as many", 2, vec![(0, 0, 0), (1, 1, 0)]),
            ("fewer: one has several", 1, vec![(0, 0, 0), (1, 0, 1)]),
            ("more: some have none", 3, vec![(0, 0, 0), (1, 1, 0)]),
        ];
        for (why, workers, expected) in rows {
            let (handed, [tcp, udp]) = handed_over(2, None);
            let inode = |handed: &Handed| {
                std::fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handed.socket))).unwrap()
            };
            let files: Vec<u64> =
                handed.iter().map(|handed| std::os::unix::fs::MetadataExt::ino(&inode(handed))).collect();
            let twin = format!("[[listener]]\nname = 't'\nbind = '{tcp}'\nprotocol = 'tcp'\npool = 'p'");
            let config = config(&udp.to_string(), &twin);
            let sockets = open_with(&config, workers, ToldBy::File, Vec::new(), handed).unwrap();
            assert_eq!(names(&sockets.taken, Transport::Tcp), expected, "{why}");
            let udp: Vec<_> = expected.iter().map(|(number, worker, place)| (number + 2, *worker, *place)).collect();
            assert_eq!(names(&sockets.taken, Transport::Udp), udp, "{why}");
            assert_eq!(of(&sockets).len() + sockets.by_worker.iter().flatten().count(), 4, "{why}: none beside them");
            for socket in of(&sockets) {
                assert!(files.contains(&file_of(socket)), "{why}: the same one");
            }
        }
    }

    #[test]
    fn a_port_that_the_system_chose_is_found_again_by_who_asked_for_it() {
        let twin = |bind: &str| format!("[[listener]]\nname = 'twin'\nbind = '{bind}'\nprotocol = 'tcp'\npool = 'p'");
        let (mut handed, [tcp, udp]) = handed_over(1, Some("dns"));
        // The one for TCP was asked for under another name.
        let of_tcp = handed.iter_mut().find(|handed| handed.transport == Transport::Tcp).unwrap();
        of_tcp.asked = Some(("was".into(), "127.0.0.1:0".parse().unwrap()));
        let config = config("127.0.0.1:0", &twin("127.0.0.1:0"));
        let sockets = open_with(&config, 1, ToldBy::File, Vec::new(), handed).unwrap();
        assert_eq!(sockets.bound[0].address, udp);
        assert_ne!(sockets.bound[1].address, tcp, "nobody asks for that one any more");
        assert_eq!(names(&sockets.taken, Transport::Tcp), []);
        let asked = "127.0.0.1:0".parse().unwrap();
        let chosen = Chosen { listener: "dns".into(), transport: Transport::Udp, asked, got: udp };
        assert_eq!(sockets.chosen[0], chosen, "and it can be handed on once more");
    }
}
