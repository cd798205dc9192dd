//! Configuration: TOML as typed turned into [`Config`] as meant, checked once, all errors together.
//!
//! Knows: the format of the file. Must not touch: sockets, threads, the clock; names are not resolved here.
//! Nobody checks again later: what is in a [`Config`] is in range and refers to things that exist.
//!
//! The way of a file: `syntax` makes a document of the text, past its errors; `reader` takes values out of it by the
//! table in [`keys`]; `sections` says which; `check` compares them with each other and joins them. Read `parse` first.

mod address;
mod check;
mod duration;
mod error;
pub mod keys;
mod reader;
mod sections;
mod syntax;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

pub use address::{Address, AddressError};
pub use duration::read as read_duration;
pub use error::{ConfigError, Errors, Fault, Hint, Quoted, Spot};

/// More than any configuration has, in bytes: ten thousand backends take one or two MiB.
const LARGEST: u64 = 16 << 20;

/// Reads and checks the file at `path`, which is also how errors name it.
///
/// # Errors
/// One error when it cannot be read (or is no UTF-8, or larger than 16 MiB); else as [`parse`].
pub fn load(path: &Path) -> Result<Config, Errors> {
    let name = path.display().to_string();
    let file: Arc<str> = name.as_str().into();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|open| open.take(LARGEST + 1).read_to_end(&mut bytes));
    if let Err(why) = read {
        return Err(ConfigError::Unreadable { file, why }.into());
    }
    if bytes.len() as u64 > LARGEST {
        return Err(ConfigError::TooLarge { file, limit: LARGEST }.into());
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &name),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            Err(ConfigError::NotText { file, line, column }.into())
        }
    }
}

/// Reads and checks `text`; `name` is how errors name it. Depends on nothing else.
///
/// # Errors
/// All that is wrong, in the order of the file. While a line is no TOML, nothing is said of what is missing: it may be
/// on that line.
pub fn parse(text: &str, name: &str) -> Result<Config, Errors> {
    let lines = syntax::Lines::new(text);
    let (readable, bad) = syntax::scan(text, &lines);
    let (document, _) = DeTable::parse_recoverable(&readable);
    let mut reader = reader::Reader::new(name, lines, bad);
    let top = reader.open(&keys::TOP, document.get_ref(), 0, String::new());
    let draft = sections::read(&mut reader, &top);
    let config = check::join(&mut reader, draft);
    reader.finish(config)
}

/// A whole configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[global]`.
    pub global: Global,
    /// `[[listener]]`, in the order of the file; at least one.
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
    /// Client connections in all; 0 means what the file-descriptor limit allows.
    pub max_connections: u32,
    /// How long a drain may last.
    pub shutdown_timeout: Duration,
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
            max_connections: 0,
            shutdown_timeout: Duration::from_secs(30),
            cpu_affinity: false,
            spin: Duration::ZERO,
        }
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bytes, forwarded as they are.
    Tcp,
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
    /// Where everything goes: an index into [`Config::pools`].
    pub pool: usize,
    /// No byte either way for this long ends a connection.
    pub idle_timeout: Duration,
    /// Connections of this listener; 0 means no limit of its own.
    pub max_connections: u32,
    /// Socket options of the listening sockets.
    pub socket: SocketOptions,
}

impl Listener {
    /// The default of `idle_timeout` for TCP.
    pub const TCP_IDLE: Duration = Duration::from_secs(600);
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

/// How a pool picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Each in turn; weights are not heeded, except 0.
    #[default]
    RoundRobin,
    /// Each in turn by weight, smoothly.
    WeightedRoundRobin,
}

/// How backends are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HealthCheck {
    /// Whether they can be connected to: one look at the start.
    #[default]
    Tcp,
    /// Not at all.
    None,
}

/// `[[pool]]`: a named set of backends with one algorithm.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Unique among the pools.
    pub name: String,
    /// How a backend is picked.
    pub algorithm: Algorithm,
    /// How long a connection may take to be made; past it another backend.
    pub connect_timeout: Duration,
    /// Other backends tried when a connection fails.
    pub retries: u32,
    /// How it is found out which backends are up, besides by the connections that clients make.
    pub health_check: HealthCheck,
    /// In the order of the file; may be empty.
    pub backends: Vec<Backend>,
}

impl Pool {
    /// A pool with every default, and no backend.
    pub fn new(name: impl Into<String>) -> Self {
        Pool {
            name: name.into(),
            algorithm: Algorithm::default(),
            connect_timeout: Duration::from_secs(2),
            retries: 1,
            health_check: HealthCheck::default(),
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
    /// Connections at once; 0 means no limit.
    pub max_connections: u32,
    /// Used only when no other is up.
    pub backup: bool,
    /// Takes no new work.
    pub disabled: bool,
}
