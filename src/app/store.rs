//! Every listening socket comes from here: bound, or passed on by systemd (LISTEN_FDS, sd_listen_fds(3)).

use crate::app::Bound;
use crate::base::ids::ListenerId;
use crate::config::{Address, Config, Listener};
use crate::sys;
use listenfd::ListenFd;
use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;

/// Clients that may wait to be accepted; the kernel takes less where `net.core.somaxconn` says so.
const BACKLOG: i32 = 65_535;
/// How long `defer_accept` waits for data before it passes a connection on without, in seconds.
const DEFER: i32 = 10;
/// Connections that may be open with data in the SYN and not established yet.
const FAST_OPEN: i32 = 1024;

/// All sockets of a process.
pub(super) struct Sockets {
    /// For each worker, a socket of each listener and address.
    pub(super) by_worker: Vec<Vec<(ListenerId, TcpListener)>>,
    /// Where they listen.
    pub(super) bound: Vec<Bound>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot listen on {address}: {error}{hint}")]
pub(super) struct BindError {
    listener: String,
    address: String,
    error: io::Error,
    hint: &'static str,
}

impl BindError {
    fn new(listener: &Listener, address: impl ToString, error: io::Error) -> BindError {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "; another program has it: stop that one, or change bind",
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need root or CAP_NET_BIND_SERVICE: grant it, or change bind"
            }
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has it: change bind",
            _ => "",
        };
        BindError { listener: listener.name.clone(), address: address.to_string(), error, hint }
    }
}

/// Opens every socket of `config`, one a worker and address.
///
/// # Errors
/// The first address that cannot be bound.
pub(super) fn open(config: &Config, workers: usize) -> Result<Sockets, BindError> {
    let mut sockets = Sockets { by_worker: (0..workers).map(|_| Vec::new()).collect(), bound: Vec::new() };
    let mut passed = passed_on();
    let ports_v4 = wildcard_ports_v4(config);
    for (at, listener) in config.listeners.iter().enumerate() {
        let id = ListenerId(at as u16);
        for bind in &listener.binds {
            let addresses = resolve(bind).map_err(|error| BindError::new(listener, bind, error))?;
            for address in addresses {
                // [::] takes IPv4 too, unless that has a listener of its own.
                let only_v6 = address.is_ipv6() && ports_v4.contains(&address.port());
                let fail = |error| BindError::new(listener, address, error);
                let ours = passed.extract_if(.., |socket| is_at(socket, address)).collect::<Vec<_>>();
                let opened = match ours.is_empty() {
                    false => share(ours, listener, workers),
                    true => bind_all(address, only_v6, listener, workers),
                };
                let opened = opened.map_err(fail)?;
                let true_address = opened.first().map(|socket| socket.local_addr());
                let true_address = true_address.unwrap_or(Ok(address)).map_err(fail)?;
                sockets.bound.push(Bound { listener: listener.name.clone(), address: true_address });
                for (at, socket) in opened.into_iter().enumerate() {
                    sockets.by_worker[at % workers].push((id, socket));
                }
            }
        }
    }
    for socket in passed {
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        let address = address.map_or("a socket".into(), |address| address.to_string());
        log::warn!("{address} was passed on by the service manager, and no listener binds it; closed");
    }
    Ok(sockets)
}

fn resolve(bind: &Address) -> io::Result<Vec<SocketAddr>> {
    match bind {
        Address::Ip(address) => Ok(vec![*address]),
        Address::Name { host, port } => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
    }
}

fn wildcard_ports_v4(config: &Config) -> Vec<u16> {
    let binds = config.listeners.iter().flat_map(|listener| &listener.binds);
    binds
        .filter_map(|bind| match bind {
            Address::Ip(SocketAddr::V4(address)) if address.port() != 0 => Some(address.port()),
            _ => None,
        })
        .collect()
}

fn passed_on() -> Vec<Socket> {
    let mut passed = ListenFd::from_env();
    (0..passed.len())
        .filter_map(|at| match passed.take_tcp_listener(at) {
            Ok(listener) => listener.map(Socket::from),
            Err(error) => {
                log::warn!("descriptor {at} of the service manager is no TCP listening socket: {error}");
                None
            }
        })
        .collect()
}

fn is_at(socket: &Socket, wanted: SocketAddr) -> bool {
    socket.local_addr().is_ok_and(|address| address.as_socket() == Some(wanted))
}

/// Sockets passed on for one address, dealt out to the workers; where there are fewer than workers, several have a
/// descriptor of the same one and take what they can get.
fn share(passed: Vec<Socket>, listener: &Listener, workers: usize) -> io::Result<Vec<TcpListener>> {
    let mut sockets = Vec::with_capacity(workers.max(passed.len()));
    for socket in &passed {
        set_options(socket, listener)?;
        if !socket.is_listener()? {
            socket.listen(BACKLOG)?;
        }
    }
    for at in passed.len()..workers {
        sockets.push(TcpListener::from_std(passed[at % passed.len()].try_clone()?.into()));
    }
    sockets.extend(passed.into_iter().map(|socket| TcpListener::from_std(socket.into())));
    Ok(sockets)
}

/// A socket a worker, between which the kernel spreads what comes in (`SO_REUSEPORT`, socket(7)).
fn bind_all(address: SocketAddr, only_v6: bool, listener: &Listener, workers: usize) -> io::Result<Vec<TcpListener>> {
    // The first without SO_REUSEPORT: with it, an address that another process has with SO_REUSEPORT could be bound, and
    // the two would share its clients. It gets the option once the address is its own, and the others join it.
    let first = bind_one(address, only_v6, false)?;
    first.set_reuse_port(true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind_one(address, only_v6, true)?);
    }
    let listening = sockets.into_iter().map(|socket| {
        set_options(&socket, listener)?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from_std(socket.into()))
    });
    listening.collect()
}

fn bind_one(address: SocketAddr, only_v6: bool, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Options that what is accepted inherits, so that no connection has to set them.
fn set_options(socket: &Socket, listener: &Listener) -> io::Result<()> {
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
    Ok(())
}
