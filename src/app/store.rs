//! Every socket that clients come in by is from here: bound, passed on by systemd (LISTEN_FDS, sd_listen_fds(3)), or handed
//! over by the process whose place this one takes.

use crate::app::{Bound, ToldBy};
use crate::base::ids::SocketId;
use crate::config::{self, Address, Config, Listener, SocketOptions, Transport};
use crate::guard::Cap;
use crate::shared::mail::{Listen, Moves, Opened};
use crate::sys;
use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Clients that may wait to be accepted; the kernel takes less where `net.core.somaxconn` says so.
const BACKLOG: i32 = 65_535;
/// How long `defer_accept` waits for data before it passes a connection on without, in seconds.
const DEFER: i32 = 10;
/// Connections that may be open with data in the SYN and not established yet.
const FAST_OPEN: i32 = 1024;

/// The congestion control of whatever says nothing else (proc_sys_net(5)).
const USUAL_CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
/// For so long after its listener has gone a socket for datagrams stays at least: by then every worker knows.
const CLOSES: Duration = Duration::from_secs(1);

/// What a UDP socket may hold of what has come, and of what is to go, in bytes: datagrams that a busy worker has not
/// looked at yet would be lost else. The kernel takes less where `net.core.rmem_max` and `wmem_max` say so.
const BUFFER: usize = 4 << 20;

/// Everything that is listened on. Keeps a descriptor of each socket beside the one that its worker has, so that a socket
/// can be told something else while it is used.
pub(super) struct Store {
    workers: usize,
    told_by: ToldBy,
    /// The number of the next address.
    next: u32,
    held: Vec<Held>,
    /// It has let everything go.
    over: bool,
}

/// An address that is listened on.
struct Held {
    id: SocketId,
    transport: Transport,
    /// As it was asked for, and as it is: port 0 has become another.
    wanted: SocketAddr,
    at: SocketAddr,
    listener: String,
    protocol: config::Protocol,
    options: SocketOptions,
    /// One a worker, where each has its own.
    kept: Vec<Socket>,
    /// All workers have this while they have a socket. For UDP it counts flows.
    flows: Arc<Cap>,
    /// No listener has it any more, since then.
    closing: Option<Instant>,
}

/// An address that a configuration asks for.
struct Want {
    /// Its listener's place.
    at: usize,
    transport: Transport,
    address: SocketAddr,
    only_v6: bool,
}

/// What is to be had for it: one that is there, or new sockets.
enum Got {
    Held(usize),
    /// With the numbers of those that were handed over.
    New(Vec<Socket>, Vec<usize>),
}

/// What a configuration comes to.
pub(super) struct Change {
    pub(super) moves: Moves,
    /// Where everything listens.
    pub(super) bound: Vec<Bound>,
    /// What of that is new.
    pub(super) added: Vec<Bound>,
    /// What was closed.
    pub(super) removed: Vec<Bound>,
    /// What was taken of what was handed over.
    pub(super) taken: Vec<Taken>,
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
    pub(super) at: Place,
}

/// Where a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Who has it.
    pub(super) worker: usize,
    pub(super) id: SocketId,
    pub(super) slot: u32,
}

/// A socket for the process after this one.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    pub(super) at: Place,
    /// Who asked for it by port 0, and how.
    pub(super) asked: Option<(String, SocketAddr)>,
    pub(super) socket: Socket,
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

impl Store {
    /// Nothing is open yet.
    pub(super) fn new(workers: usize, told_by: ToldBy) -> Store {
        Store { workers, told_by, next: 0, held: Vec::new(), over: false }
    }

    /// Opens every socket of the first configuration: those that were `handed` over or passed on, and the rest. Those that were
    /// handed over are kept, as many as they are: with more beside them, clients of UDP would come to other sockets than
    /// before, and those who wait at a new one would be lost with it if this process failed.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub(super) fn open(&mut self, config: &Config, handed: Vec<Handed>) -> Result<Change, BindError> {
        let wants = Store::wants(config, self.told_by)?;
        self.change(config, wants, (passed_on(), handed), false)
    }

    /// Binds what `config` needs and is not there yet, and tells what to do with the rest. With `dry_run` it only looks
    /// whether that can be done.
    ///
    /// # Errors
    /// The first address that cannot be bound, or option that cannot be had. Then everything is as it was.
    ///
    /// `None` when everything was let go.
    pub(super) fn again(&mut self, config: &Config, dry_run: bool) -> Option<Result<Change, BindError>> {
        if self.over {
            return None;
        }
        let wants = Store::wants(config, self.told_by);
        Some(wants.and_then(|wants| self.change(config, wants, (Vec::new(), Vec::new()), dry_run)))
    }

    /// All addresses that `config` asks for.
    fn wants(config: &Config, told_by: ToldBy) -> Result<Vec<Want>, BindError> {
        let mut wants = Vec::new();
        for (at, listener) in config.listeners.iter().enumerate() {
            let transport = listener.protocol.transport();
            let ports_v4 = ports_v4(config, transport);
            for bind in &listener.binds {
                let addresses = resolve(bind).map_err(|error| BindError::new(told_by, listener, bind, error))?;
                for address in addresses {
                    // [::] takes IPv4 too, unless that has a listener of its own.
                    let only_v6 = address.is_ipv6() && ports_v4.contains(&address.port());
                    wants.push(Want { at, transport, address, only_v6 });
                }
            }
        }
        Ok(wants)
    }

    fn change(
        &mut self,
        config: &Config,
        wants: Vec<Want>,
        (mut passed, mut handed): (Vec<Passed>, Vec<Handed>),
        dry_run: bool,
    ) -> Result<Change, BindError> {
        self.held.retain(|held| held.closing.is_none() || Arc::strong_count(&held.flows) > 1);
        let kept = self.match_up(config, &wants);
        let mut at_restart = Vec::new();
        let mut got = Vec::with_capacity(wants.len());
        for (want, held) in wants.iter().zip(kept) {
            let listener = &config.listeners[want.at];
            let fail = |error| BindError::new(self.told_by, listener, want.address, error);
            if let Some(held) = held {
                at_restart.extend(self.stuck(held, want, listener));
                got.push(Got::Held(held));
                continue;
            }
            let is_passed =
                |passed: &mut Passed| passed.transport == want.transport && is_at(&passed.socket, want.address);
            let ours: Vec<Socket> = passed.extract_if(.., is_passed).map(|passed| passed.socket).collect();
            let before = handed_for(&mut handed, listener, want);
            let numbers = before.iter().map(|handed| handed.number).collect();
            let opened = match (ours.is_empty(), want.transport) {
                _ if !before.is_empty() => Ok(before.into_iter().map(|handed| handed.socket).collect()),
                (true, _) => bind_all(want, self.has_port(want), self.workers),
                (false, Transport::Tcp) => share(ours, self.workers),
                (false, Transport::Udp) => join(ours, listener, self.workers),
            };
            let mut opened = opened.map_err(fail)?;
            for socket in &mut opened {
                prepare(socket, listener).map_err(fail)?;
            }
            got.push(Got::New(opened, numbers));
        }
        for Passed { socket, transport } in passed {
            let address = socket.local_addr().ok().and_then(|address| address.as_socket());
            let address = address.map_or("a socket".into(), |address| address.to_string());
            let over = if transport == Transport::Tcp { "TCP" } else { "UDP" };
            log::warn!("{address} ({over}) was passed on by the service manager, and no listener binds it; closed");
        }
        if !dry_run {
            self.set_options(config, &wants, &got)?;
        }
        let change = self.plan(config, &wants, got, at_restart, dry_run);
        change.map_err(|(at, address, error)| BindError::new(self.told_by, &config.listeners[at], address, error))
    }

    /// For each that is wanted the one that is there already: of the same listener first, then of any.
    fn match_up(&self, config: &Config, wants: &[Want]) -> Vec<Option<usize>> {
        let mut found: Vec<Option<usize>> = vec![None; wants.len()];
        let mut taken = vec![false; self.held.len()];
        for same in [true, false] {
            for (want, found) in wants.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                let name = &config.listeners[want.at].name;
                let fits = |held: &Held| {
                    // A socket for connections that is to be closed is closed already, or will be in a moment.
                    let there = held.closing.is_none() || held.transport == Transport::Udp && !held.kept.is_empty();
                    let at = held.at == want.address || same && held.wanted == want.address;
                    there && at && held.transport == want.transport && (!same || held.listener == *name)
                };
                *found = (0..self.held.len()).find(|at| !taken[*at] && fits(&self.held[*at]));
                if let Some(at) = *found {
                    taken[at] = true;
                }
            }
        }
        found
    }

    /// True when a socket of ours has that port already, at another address: then the two can be bound beside each other.
    fn has_port(&self, want: &Want) -> bool {
        self.held.iter().any(|held| held.transport == want.transport && held.at.port() == want.address.port())
    }

    /// What a socket that is there cannot be told any more.
    fn stuck(&self, held: usize, want: &Want, listener: &Listener) -> Option<String> {
        let only_v6 = self.held[held].kept.first()?.only_v6().ok().filter(|_| want.address.is_ipv6())?;
        let does = if want.only_v6 { "leaves IPv4 to another listener" } else { "takes IPv4, too" };
        (only_v6 != want.only_v6).then(|| format!("listener {}: {} {does}", listener.name, want.address))
    }

    /// Tells sockets that are there what they pass on from now on. All of them, or none.
    fn set_options(&mut self, config: &Config, wants: &[Want], got: &[Got]) -> Result<(), BindError> {
        let mut done: Vec<(usize, SocketOptions)> = Vec::new();
        for (want, got) in wants.iter().zip(got) {
            let Got::Held(at) = *got else { continue };
            let listener = &config.listeners[want.at];
            if want.transport == Transport::Udp || self.held[at].options == listener.socket {
                continue;
            }
            let was = std::mem::replace(&mut self.held[at].options, listener.socket.clone());
            done.push((at, was.clone()));
            let held = &self.held[at];
            if let Err(error) = held.kept.iter().try_for_each(|socket| reset_options(socket, &was, &held.options)) {
                for (at, was) in done {
                    let held = &mut self.held[at];
                    let wrong = std::mem::replace(&mut held.options, was);
                    let back = held.kept.iter().try_for_each(|socket| reset_options(socket, &wrong, &held.options));
                    back.unwrap_or_else(|error| log::error!("listener {}: {error}", held.listener));
                }
                return Err(BindError::new(self.told_by, listener, want.address, error));
            }
        }
        Ok(())
    }

    /// Everything can be had: notes what there is from now on, and what is to be done.
    fn plan(
        &mut self,
        config: &Config,
        wants: &[Want],
        got: Vec<Got>,
        at_restart: Vec<String>,
        dry_run: bool,
    ) -> Result<Change, (usize, SocketAddr, io::Error)> {
        let mut change = Change {
            moves: Moves { at_restart, ..Moves::default() },
            bound: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            taken: Vec::new(),
        };
        if dry_run {
            return Ok(change);
        }
        let mut orders: Vec<Listen<usize>> = (0..self.workers).map(|_| Listen::default()).collect();
        let mut stays = vec![false; self.held.len()];
        let mut new = Vec::new();
        for (want, got) in wants.iter().zip(got) {
            let listener = &config.listeners[want.at];
            let fail = |error| (want.at, want.address, error);
            match got {
                Got::Held(at) => {
                    stays[at] = true;
                    let held = &mut self.held[at];
                    let same = held.listener == listener.name && held.protocol == listener.protocol;
                    if !same || held.closing.is_some() {
                        orders.iter_mut().for_each(|order| order.rename.push((held.id, want.at)));
                        (held.listener, held.protocol) = (listener.name.clone(), listener.protocol);
                        held.closing = None;
                    }
                    held.wanted = want.address;
                    change.bound.push(held.told());
                }
                Got::New(sockets, numbers) => {
                    let at = sockets.first().map(|socket| socket.local_addr()).transpose().map_err(fail)?;
                    let at = at.and_then(|at| at.as_socket()).unwrap_or(want.address);
                    let held = Held {
                        id: SocketId(self.next),
                        transport: want.transport,
                        wanted: want.address,
                        at,
                        listener: listener.name.clone(),
                        protocol: listener.protocol,
                        options: listener.socket.clone(),
                        kept: Vec::with_capacity(sockets.len()),
                        flows: Cap::new(0),
                        closing: None,
                    };
                    self.next += 1;
                    new.push((want.at, held, sockets, numbers));
                }
            }
        }
        for (listener, mut held, sockets, numbers) in new {
            for (slot, socket) in sockets.into_iter().enumerate() {
                let kept = socket.try_clone().map_err(|error| (listener, held.at, error))?;
                held.kept.push(kept);
                let (id, transport, flows) = (held.id, held.transport, held.flows.clone());
                let (worker, slot) = (slot % self.workers, slot as u32);
                if let Some(number) = numbers.get(slot as usize) {
                    change.taken.push(Taken { number: *number, transport, at: Place { worker, id, slot } });
                }
                let opened = Opened { id, slot, listener, transport, socket: socket.into(), flows };
                orders[worker].open.push(opened);
            }
            change.bound.push(held.told());
            change.added.push(held.told());
            self.held.push(held);
            stays.push(true);
        }
        for (held, _) in self.held.iter_mut().zip(&stays).filter(|(held, stays)| !**stays && held.closing.is_none()) {
            held.closing = Some(Instant::now());
            if held.transport == Transport::Tcp {
                // What the worker closes is to be closed.
                held.kept.clear();
            }
            orders.iter_mut().for_each(|order| order.close.push(held.id));
            change.removed.push(held.told());
        }
        change.moves.bound = change.bound.iter().map(|bound| (bound.protocol.transport(), bound.address)).collect();
        change.moves.orders = orders;
        Ok(change)
    }

    /// Sockets for datagrams that no listener has any more, and at which no flow lives: to be dropped by all workers at
    /// once, since the kernel spreads clients over those that there are.
    pub(super) fn silent(&mut self) -> Vec<SocketId> {
        let mut silent = Vec::new();
        for held in &mut self.held {
            let over = held.closing.is_some_and(|since| since.elapsed() >= CLOSES);
            if over && !held.kept.is_empty() && held.flows.used() == 0 {
                held.kept.clear();
                silent.push(held.id);
            }
        }
        silent
    }

    /// All sockets that clients come in by, each with a descriptor of its own; those for datagrams, too, that no listener has
    /// any more while flows live there: the next configuration may want that address, and nobody else could bind it.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub(super) fn lend(&self) -> io::Result<Vec<Lent>> {
        let mut lent = Vec::new();
        for held in &self.held {
            for (slot, socket) in held.kept.iter().enumerate() {
                let asked = (held.wanted.port() == 0).then(|| (held.listener.clone(), held.wanted));
                let at = Place { worker: slot % self.workers, id: held.id, slot: slot as u32 };
                let (transport, address) = (held.transport, held.at);
                lent.push(Lent { transport, address, at, asked, socket: socket.try_clone()? });
            }
        }
        Ok(lent)
    }

    /// Lets everything go: what workers close from now on is closed.
    pub(super) fn let_go(&mut self) {
        self.held.clear();
        self.over = true;
    }
}

impl Held {
    fn told(&self) -> Bound {
        Bound { listener: self.listener.clone(), protocol: self.protocol, address: self.at }
    }
}

/// The sockets handed over for what is wanted, in the order of their slots.
fn handed_for(handed: &mut Vec<Handed>, listener: &Listener, want: &Want) -> Vec<Handed> {
    let asked_for = |handed: &Handed| {
        let asked = handed.asked.as_ref();
        asked.is_some_and(|(name, asked)| *name == listener.name && *asked == want.address)
    };
    let found =
        handed.iter().filter(|handed| handed.transport == want.transport).find(|handed| match want.address.port() {
            0 => asked_for(handed),
            _ => handed.address == want.address,
        });
    let Some(found) = found.map(|handed| handed.address) else { return Vec::new() };
    let ours = handed.extract_if(.., |handed| handed.transport == want.transport && handed.address == found);
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

/// A socket a worker, between which the kernel spreads what comes in (`SO_REUSEPORT`, socket(7)). `beside_ours`: we have
/// the port already, at another address.
fn bind_all(want: &Want, beside_ours: bool, workers: usize) -> io::Result<Vec<Socket>> {
    // The first without SO_REUSEPORT: with it, an address that another process has with SO_REUSEPORT could be bound, and
    // the two would share its clients. It gets the option once the address is its own, and the others join it.
    let first = match bind_one(want.address, want.transport, want.only_v6, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && beside_ours => {
            bind_one(want.address, want.transport, want.only_v6, true)
        }
        other => other,
    }?;
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
    // Before the first datagram can come: what came before has no address of ours with it, and would be answered from another.
    if transport == Transport::Udp && address.ip().is_unspecified() {
        sys::udp::report_destination(socket.as_fd(), address.is_ipv6())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Makes a bound socket ready for a worker.
fn prepare(socket: &Socket, listener: &Listener) -> io::Result<()> {
    match listener.protocol.transport() {
        Transport::Tcp => listen(socket, listener),
        Transport::Udp => receive(socket),
    }
}

/// Begins to listen, with options that what is accepted inherits, so that no connection has to set them.
fn listen(socket: &Socket, listener: &Listener) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    reset_options(socket, &SocketOptions::default(), &listener.socket)?;
    if !socket.is_listener()? {
        socket.listen(BACKLOG)?;
    }
    Ok(())
}

/// Sets what is different between two sets of options.
fn reset_options(socket: &Socket, was: &SocketOptions, is: &SocketOptions) -> io::Result<()> {
    if was.congestion_control != is.congestion_control {
        let name = match &is.congestion_control {
            Some(name) => name.clone(),
            None => std::fs::read_to_string(USUAL_CONGESTION)?.trim().to_owned(),
        };
        let set = socket.set_tcp_congestion(name.as_bytes());
        set.map_err(|error| io::Error::new(error.kind(), format!("congestion_control {name:?} is not to be had ({error}); write one of net.ipv4.tcp_available_congestion_control")))?;
    }
    if was.defer_accept != is.defer_accept {
        sys::defer_accept(socket.as_fd(), if is.defer_accept { DEFER } else { 0 })?;
    }
    if was.tcp_fastopen != is.tcp_fastopen {
        sys::fast_open(socket.as_fd(), if is.tcp_fastopen { FAST_OPEN } else { 0 })?;
    }
    Ok(())
}

/// Makes a bound UDP socket ready for a worker.
fn receive(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // As much as there is to be had: with less it works too.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    Ok(())
}

#[cfg(test)]
mod tests;
