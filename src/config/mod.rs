//! Configuration: TOML as typed turned into [`Config`] as meant, checked once, all errors together.
//!
//! Knows: the format of the file. Must not touch: sockets, threads, the clock; names are not resolved here.
//! Nobody checks again later: what is in a [`Config`] is in range and refers to things that exist.
//!
//! The way of a file: `syntax` makes a document of the text, past its errors; `reader` takes values out of it by the
//! table in [`keys`]; `sections`, `routes` and `checks` say which; `check` compares them with each other and joins them. Read `parse_on` first.

mod address;
mod check;
mod checks;
mod duration;
mod error;
mod health;
mod host;
mod http;
pub mod keys;
mod limits;
mod network;
mod picking;
mod reader;
mod routes;
mod sections;
mod size;
mod syntax;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use crate::base::machine::own_addresses;
use crate::base::secret::Secret;

pub use address::{Address, AddressError};
pub use duration::read as read_duration;
pub use error::{ConfigError, Errors, Fault, Hint, Quoted, Spot};
pub use health::{CheckKind, CheckUrl, CircuitBreaker, HealthCheck, TcpOnDown};
pub use host::{HostError, HostMatch};
pub use http::{Http, Route};
pub use limits::{LimitAlgorithm, LimitKey, RateLimit};
pub use network::NetworkError;
pub use picking::{Algorithm, HashKey};

/// More than any configuration has, in bytes: ten thousand backends take one or two MiB.
const LARGEST: u64 = 16 << 20;

/// Reads and checks the file at `path`, which is also how errors name it, for this machine.
///
/// # Errors
/// One error when it cannot be read (or is no UTF-8, or larger than 16 MiB); else as [`parse_on`].
pub fn load(path: &Path) -> Result<Config, Errors> {
    // At the start it may come through a pipe: whoever wrote that into the command line waits for it.
    load_by(path, |path| {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    })
}

/// The same while everything runs: a pipe or a device is an error, since it might never come to an end.
///
/// # Errors
/// As [`load`].
pub fn load_again(path: &Path) -> Result<Config, Errors> {
    load_by(path, read_file)
}

fn load_by(path: &Path, read: reader::Files) -> Result<Config, Errors> {
    let name = path.display().to_string();
    let file: Arc<str> = name.as_str().into();
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(why) => return Err(ConfigError::Unreadable { file, why }.into()),
    };
    if bytes.len() as u64 > LARGEST {
        return Err(ConfigError::TooLarge { file, limit: LARGEST }.into());
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse_with(&own_addresses(), text, &name, read_file),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            Err(ConfigError::NotText { file, line, column }.into())
        }
    }
}

/// What is in a file, at most one byte more than is read of any. A pipe or a device might never come to an end, and whoever
/// reads again while everything runs would wait for it for ever.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Not waiting for a writer, if it should be a pipe.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() && !about.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or a device"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads and checks `text` for a machine of which nothing is known but its loopback; `name` is how errors name it.
///
/// # Errors
/// As [`parse_on`].
pub fn parse(text: &str, name: &str) -> Result<Config, Errors> {
    parse_on(&[], text, name)
}

/// Reads and checks `text` for a machine with the addresses `own`; `name` is how errors name it. Depends on nothing else: a
/// file that it names is not read, and is an error.
///
/// # Errors
/// All that is wrong, in the order of the file. While a line is no TOML, nothing is said of what is missing: it may be
/// on that line.
pub fn parse_on(own: &[IpAddr], text: &str, name: &str) -> Result<Config, Errors> {
    let refuse = |_: &Path| Err(std::io::Error::other("only a configuration that is a file itself may name others"));
    parse_with(own, text, name, refuse)
}

fn parse_with(own: &[IpAddr], text: &str, name: &str, files: reader::Files) -> Result<Config, Errors> {
    let lines = syntax::Lines::new(text);
    let (readable, bad) = syntax::scan(text, &lines);
    let (document, _) = DeTable::parse_recoverable(&readable);
    let mut reader = reader::Reader::new(name, lines, bad, files);
    let top = reader.open(&keys::TOP, document.get_ref(), 0, String::new());
    let draft = sections::read(&mut reader, &top);
    let config = check::join(&mut reader, draft, own);
    reader.finish(config)
}

/// A whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[global]`.
    pub global: Global,
    /// `[admin]`.
    pub admin: Admin,
    /// `[[listener]]`, in the order of the file, at least one; and that of `[admin]` behind them.
    pub listeners: Vec<Listener>,
    /// `[[pool]]`, in the order of the file.
    pub pools: Vec<Pool>,
}

/// `[global]`: what concerns the whole process.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// Event-loop threads; 0 means one per core.
    pub workers: usize,
    /// What is logged.
    pub log_level: log::LevelFilter,
    /// Where the log goes; `None` is standard error.
    pub log_file: Option<PathBuf>,
    /// Where the file says so, for the error when it cannot be opened.
    pub log_file_at: Option<Spot>,
    /// Client connections in all; 0 means what the file-descriptor limit allows.
    pub max_connections: u32,
    /// How long a drain may last.
    pub shutdown_timeout: Duration,
    /// How long everything goes on before that while `/lb/health` says that we leave.
    pub shutdown_delay: Duration,
    /// The user to change to once everything is bound; `None` stays the one that started us.
    pub user: Option<String>,
    /// Where the file says so, for the error when there is none of that name.
    pub user_at: Option<Spot>,
    /// The group to change to; `None` means that of the user.
    pub group: Option<String>,
    /// Where the file says so.
    pub group_at: Option<Spot>,
    /// Pin worker i to core i.
    pub cpu_affinity: bool,
    /// How long a worker polls before it blocks.
    pub spin: Duration,
}

impl Default for Global {
    fn default() -> Self {
        Global {
            workers: 0,
            log_level: log::LevelFilter::Info,
            log_file: None,
            log_file_at: None,
            max_connections: 0,
            shutdown_timeout: Duration::from_secs(30),
            shutdown_delay: Duration::ZERO,
            user: None,
            user_at: None,
            group: None,
            group_at: None,
            cpu_affinity: false,
            spin: Duration::ZERO,
        }
    }
}

/// `[admin]`: where `/lb/*` is served, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// The clients that may call it at all; IPv4-mapped ones as IPv4.
    pub allow: Vec<ipnet::IpNet>,
    /// Names for Host besides IP literals and localhost.
    pub hosts: Vec<HostMatch>,
    /// What a request must carry.
    pub token: Option<Token>,
    /// Where what it changes is kept over a restart; `None`: nowhere.
    pub state_file: Option<PathBuf>,
    /// Where the file says so, for the error when nothing can be kept there.
    pub state_file_at: Option<Spot>,
}

/// The token of the admin API, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The token.
    pub secret: Secret,
    /// Its file.
    pub file: PathBuf,
}

impl Default for Admin {
    fn default() -> Self {
        let v4 = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128);
        Admin {
            allow: vec![v4.into(), v6.into()],
            hosts: Vec::new(),
            token: None,
            state_file: None,
            state_file_at: None,
        }
    }
}

/// What a listener is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// Backends: `/lb/*` is a path like any other.
    #[default]
    Traffic,
    /// Backends, and `/lb/*` to those that [`Admin`] lets in.
    Both,
    /// `/lb/*` alone.
    Admin,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1, request by request.
    Http,
    /// Bytes, forwarded as they are.
    Tcp,
    /// Datagrams, forwarded as they are, by session.
    Udp,
}

impl Protocol {
    /// What carries it. Listeners of different ones can have the same address, and never meet.
    pub fn transport(self) -> Transport {
        match self {
            Protocol::Http | Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Http => "http",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// What carries a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// `[[listener]]`: an address and protocol where traffic enters.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique among the listeners.
    pub name: String,
    /// Where to listen; at least one.
    pub binds: Vec<Address>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Whether the admin API is served there: for HTTP only.
    pub serves: Serves,
    /// Where everything goes that no route takes: an index into [`Config::pools`]. Always there for TCP and UDP; for
    /// HTTP this, a route, or both.
    pub pool: Option<usize>,
    /// In the order of the file: the first that matches takes the request. None for TCP and UDP.
    pub routes: Vec<Route>,
    /// TCP: no byte either way for this long ends a connection. HTTP: the same between requests. UDP: no datagram
    /// either way for this long ends a session.
    pub idle_timeout: Duration,
    /// Connections, or sessions, of this listener; 0 means no limit of its own.
    pub max_connections: u32,
    /// Connections, or sessions, of one client address; 0 means no limit.
    pub max_per_client: u32,
    /// How many requests, connections or sessions may begin in a time; `None` means no limit. By a header only for HTTP.
    pub rate_limit: Option<RateLimit>,
    /// What only HTTP needs; every default for TCP and UDP, but for a `header_timeout` together with `accept_proxy`.
    pub http: Http,
    /// Whether a connection must begin with a PROXY protocol header, v1 or v2; [`Http::header_timeout`] bounds the wait.
    /// False for UDP.
    pub accept_proxy: bool,
    /// Peers whose X-Forwarded-* is believed and appended to: prefixes without bits behind them, IPv4-mapped ones as
    /// IPv4. None for TCP and UDP.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Socket options of the listening sockets; every default for UDP.
    pub socket: SocketOptions,
}

impl Listener {
    /// The default of `idle_timeout` for TCP.
    pub const TCP_IDLE: Duration = Duration::from_secs(600);
    /// The default of `idle_timeout` for HTTP.
    pub const HTTP_IDLE: Duration = Duration::from_secs(60);
    /// The default of `idle_timeout` for UDP.
    pub const UDP_IDLE: Duration = Duration::from_secs(30);

    /// The name of the listener of `[admin]`.
    pub const ADMIN: &str = "[admin]";

    /// A listener with every default, and no address, pool or route.
    pub fn new(name: impl Into<String>, protocol: Protocol) -> Self {
        Listener {
            name: name.into(),
            binds: Vec::new(),
            protocol,
            serves: Serves::default(),
            pool: None,
            routes: Vec::new(),
            idle_timeout: match protocol {
                Protocol::Http => Listener::HTTP_IDLE,
                Protocol::Tcp => Listener::TCP_IDLE,
                Protocol::Udp => Listener::UDP_IDLE,
            },
            max_connections: 0,
            max_per_client: 0,
            rate_limit: None,
            http: Http::default(),
            accept_proxy: false,
            trusted_proxies: Vec::new(),
            socket: SocketOptions::default(),
        }
    }
}

/// Options a listening socket passes on to what it accepts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SocketOptions {
    /// TCP congestion control algorithm (tcp(7), `TCP_CONGESTION`); `None` leaves the system's.
    pub congestion_control: Option<String>,
    /// Wake only when data has come (tcp(7), `TCP_DEFER_ACCEPT`).
    pub defer_accept: bool,
    /// Accept data in the SYN (RFC 7413).
    pub tcp_fastopen: bool,
}

/// What a UDP session does when its backend is found down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnDown {
    /// It takes another one at its client's next datagram.
    #[default]
    Reselect,
    /// It stays.
    Keep,
}

/// Whether and how a backend is told who the client is, ahead of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SendProxy {
    /// It is not.
    #[default]
    Off,
    /// By the text form of the PROXY protocol.
    V1,
    /// By its binary form.
    V2,
}

/// `[[pool]]`: a named set of backends with one algorithm.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Unique among the pools.
    pub name: String,
    /// How a backend is picked.
    pub algorithm: Algorithm,
    /// What is hashed, where the algorithm hashes. All but [`HashKey::ClientIp`] only where every listener of the pool
    /// speaks HTTP.
    pub hash_key: HashKey,
    /// `consistent_hash`: no backend holds more than this times the mean, 1.0 to 1000.0; `None` means no bound.
    pub hash_balance: Option<f64>,
    /// How long a connection may take to be made; past it another backend.
    pub connect_timeout: Duration,
    /// HTTP: how long from a request sent to the head of its response.
    pub response_timeout: Duration,
    /// Other backends tried when a connection fails.
    pub retries: u32,
    /// Retries are at most this share of the pool's requests; 0.0 to 1.0.
    pub retry_budget: f64,
    /// HTTP: idle connections to a backend that are kept, in all workers together; 0 means none. At most 65,535.
    pub keepalive: u32,
    /// HTTP: how long one of them is kept.
    pub keepalive_timeout: Duration,
    /// Whether backends are told the client by a PROXY protocol header.
    pub send_proxy: SendProxy,
    /// UDP: a session ends when every datagram of its client so far has had that many replies; 0 means by idle time alone.
    pub udp_responses: u32,
    /// UDP: after that many datagrams of its client the next one opens another session; 0 means no limit.
    pub udp_requests: u32,
    /// UDP: what a session does when its backend is found down.
    pub udp_on_down: OnDown,
    /// Clients that wait when every backend is at its limit; 0 means none. At most 1,000,000.
    pub queue: u32,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// How long a backend that comes back or is added takes to its whole share; zero means none.
    pub slow_start: Duration,
    /// Below this healthy fraction, health is ignored; 0.0 to 1.0, and 0.0 means never.
    pub panic_threshold: f64,
    /// What becomes of the open connections of a backend found down.
    pub tcp_on_down: TcpOnDown,
    /// What is still open at a backend that leaves, or drains, is cut after this; zero means never.
    pub drain_timeout: Duration,
    /// How it is found out which backends are up, besides by the connections that clients make.
    pub health_check: HealthCheck,
    /// When a backend that fails clients is left alone; `None` means never.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How many requests, connections or sessions may begin in a time; `None` means no limit. By a header only where every
    /// listener of the pool speaks HTTP.
    pub rate_limit: Option<RateLimit>,
    /// In the order of the file; may be empty.
    pub backends: Vec<Backend>,
}

impl Pool {
    /// A pool with every default, and no backend.
    pub fn new(name: impl Into<String>) -> Self {
        Pool {
            name: name.into(),
            algorithm: Algorithm::default(),
            hash_key: HashKey::default(),
            hash_balance: None,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(30),
            retries: 1,
            retry_budget: 0.2,
            keepalive: 64,
            keepalive_timeout: Duration::from_secs(4),
            send_proxy: SendProxy::default(),
            udp_responses: 0,
            udp_requests: 0,
            udp_on_down: OnDown::default(),
            queue: 0,
            queue_timeout: Duration::from_secs(5),
            slow_start: Duration::ZERO,
            panic_threshold: 0.0,
            tcp_on_down: TcpOnDown::default(),
            drain_timeout: Duration::ZERO,
            health_check: HealthCheck::default(),
            circuit_breaker: None,
            rate_limit: None,
            backends: Vec::new(),
        }
    }
}

/// `[[pool.backend]]`: one server of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Unique in its pool; the address as typed when the file gives none.
    pub id: String,
    /// Where it is.
    pub address: Address,
    /// 0 to 256; 0 takes no new work.
    pub weight: u16,
    /// Connections, requests or sessions at once; 0 means no limit.
    pub max_connections: u32,
    /// Used only when no other is up.
    pub backup: bool,
    /// Takes no new work.
    pub disabled: bool,
    /// Takes no new sessions; those that are open, and those that belong to it, go on. Never of a file.
    pub draining: bool,
    /// On its way out: it takes nothing new, and is gone with its last connection or when drain_timeout is over. Never of a
    /// file.
    pub leaving: bool,
    /// Where it is checked, in place of what its pool says. Never of a file.
    pub check: Option<CheckUrl>,
}

impl Backend {
    /// A backend with every default.
    pub fn new(id: impl Into<String>, address: Address) -> Self {
        Backend {
            id: id.into(),
            address,
            weight: 1,
            max_connections: 0,
            backup: false,
            disabled: false,
            draining: false,
            leaving: false,
            check: None,
        }
    }

    /// How long a name or an id may be, in bytes. One that a backend has from its address may be longer by a little.
    pub const LONGEST_ID: usize = 255;

    /// What is wrong with `id` as an id: it is a part of paths of the admin API, some of which are taken.
    pub fn fault_of_id(id: &str) -> Option<&'static str> {
        match id {
            "" => Some("it is empty"),
            "add" | "register" | "." | ".." => Some("that word has another meaning in the paths of the admin API"),
            _ if id.contains('/') => Some("there is a \"/\" in it"),
            _ if id.chars().any(char::is_control) => Some("there is a control character in it"),
            _ => None,
        }
    }
}
