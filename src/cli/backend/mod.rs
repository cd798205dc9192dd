//! `l4lb backend`: a small server to put behind a balancer, that tells its name in every answer.
//!
//! Knows: std::net and threads. Must not touch: anything of the balancer; it is the other side of the wire. A thread a
//! connection is enough for what it is for, and easy to read; their number is bounded by [`MOST_CONNECTIONS`].

mod gate;
mod http;
mod request;
mod tcp;
mod udp;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::gate::Gate;
use super::args::{BackendArgs, Protocol};
use crate::base::exit::Exit;

/// Connections served at once; more wait in the kernel's queue. Each costs a thread.
const MOST_CONNECTIONS: usize = 4096;
/// Bytes of stack a connection; the deepest call is the writing of a flat JSON object.
const STACK: usize = 256 * 1024;

/// What a backend speaks, with all it needs to know for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http,
    Tcp,
    Udp,
}

impl From<Protocol> for Speaks {
    fn from(protocol: Protocol) -> Speaks {
        match protocol {
            Protocol::Http => Speaks::Http,
            Protocol::Tcp => Speaks::Tcp,
            Protocol::Udp => Speaks::Udp,
        }
    }
}

/// How a backend answers.
#[derive(Debug)]
pub(super) struct Settings {
    /// The name in every answer.
    pub(super) id: String,
    /// Slept before each answer.
    pub(super) delay: Duration,
    /// Which answers fail.
    pub(super) faults: Faults,
}

/// A bound backend that does not serve yet.
pub(super) struct Server {
    socket: Socket,
    address: SocketAddr,
}

enum Socket {
    Connections(TcpListener, Talk),
    Datagrams(UdpSocket),
}

/// How a connection is served.
type Talk = fn(&TcpStream, &Settings);

impl Server {
    /// Binds; port 0 lets the system choose.
    ///
    /// # Errors
    /// What the system says: the address is taken, not ours, not allowed, or the name does not resolve.
    pub(super) fn bind(speaks: Speaks, host: &str, port: u16) -> io::Result<Server> {
        let at = (super::without_brackets(host), port);
        let talk: Talk = match speaks {
            Speaks::Http => http::serve,
            Speaks::Tcp => tcp::serve,
            Speaks::Udp => {
                let socket = UdpSocket::bind(at)?;
                return Ok(Server { address: socket.local_addr()?, socket: Socket::Datagrams(socket) });
            }
        };
        let listener = TcpListener::bind(at)?;
        Ok(Server { address: listener.local_addr()?, socket: Socket::Connections(listener, talk) })
    }

    /// Where it listens, with the true port.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on threads of its own until the process ends.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(self, settings: Settings) -> io::Result<()> {
        let settings = Arc::new(settings);
        let thread = thread::Builder::new().name(settings.id.clone());
        thread.spawn(move || match self.socket {
            Socket::Connections(listener, talk) => accept(&listener, talk, &settings),
            Socket::Datagrams(socket) => udp::serve(&socket, &settings),
        })?;
        Ok(())
    }
}

/// Runs one backend until SIGTERM or SIGINT.
pub(super) fn run(args: &BackendArgs) -> Exit {
    raise_descriptor_limit();
    // Before the address is announced: from then on a signal may come, and must end us with 0.
    let mut signals = match Signals::new([SIGTERM, SIGINT]) {
        Ok(signals) => signals,
        Err(error) => {
            return super::cannot_bind(format_args!("{}:{}", args.host, args.port), &error);
        }
    };
    let server = match Server::bind(args.protocol.into(), &args.host, args.port) {
        Ok(server) => server,
        Err(error) => {
            return super::cannot_bind(format_args!("{}:{}", args.host, args.port), &error);
        }
    };
    let address = server.address();
    let id = args.id.clone().unwrap_or_else(|| format!("backend-{}", address.port()));
    let settings = Settings { id: id.clone(), delay: args.delay, faults: Faults::new(args.error_rate) };
    if let Err(error) = server.start(settings) {
        return super::cannot_bind(address, &error);
    }
    super::say(&format!("{id} listening on {address}\n"));
    signals.forever().next();
    Exit::Done
}

/// A connection is a descriptor; the usual soft limit of 1024 would be met long before [`MOST_CONNECTIONS`].
/// Where it cannot be raised, `accept` waits for descriptors instead.
fn raise_descriptor_limit() {
    let wanted = MOST_CONNECTIONS as u64 + 64;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard);
    }
}

fn accept(listener: &TcpListener, talk: Talk, settings: &Arc<Settings>) {
    let gate = Gate::new(MOST_CONNECTIONS);
    loop {
        let pass = gate.enter();
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                drop(pass);
                // A client that has left again is nothing; without descriptors, one that leaves brings one back.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    gate.wait_for_leave();
                }
                continue;
            }
        };
        let settings = settings.clone();
        let serving = thread::Builder::new().stack_size(STACK).spawn(move || {
            // Answers leave at once; a socket that refuses this option only answers later.
            let _ = stream.set_nodelay(true);
            talk(&stream, &settings);
            drop(pass);
        });
        // No thread to be had: the connection was closed with the closure that owned it, and the next may fare better.
        drop(serving);
    }
}

/// Decides which answers fail: an exact share, evenly spread, so that a trial can be repeated.
#[derive(Debug)]
pub(super) struct Faults {
    millionths: u64,
    asked: AtomicU64,
}

impl Faults {
    const WHOLE: u64 = 1_000_000;

    /// `share` is 0 to 1; it counts to the millionth.
    pub(super) fn new(share: f64) -> Faults {
        let millionths = (share.clamp(0.0, 1.0) * Self::WHOLE as f64).round() as u64;
        Faults { millionths, asked: AtomicU64::new(0) }
    }

    /// Whether this answer fails. Counts it.
    fn strike(&self) -> bool {
        let before = self.asked.fetch_add(1, Ordering::Relaxed) % Self::WHOLE;
        (before + 1) * self.millionths / Self::WHOLE > before * self.millionths / Self::WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_an_exact_share() {
        let cases = [
            ("none", 0.0, 1000, 0),
            ("every tenth", 0.1, 1000, 100),
            ("a share that no binary fraction meets", 0.29, 100, 29),
            ("every second", 0.5, 7, 3),
            ("all", 1.0, 1000, 1000),
        ];
        for (why, share, answers, failed) in cases {
            let faults = Faults::new(share);
            assert_eq!((0..answers).filter(|_| faults.strike()).count(), failed, "{why}");
        }
    }

    #[test]
    fn faults_are_evenly_spread() {
        let faults = Faults::new(0.25);
        let struck: Vec<bool> = (0..8).map(|_| faults.strike()).collect();
        assert_eq!(struck, [false, false, false, true, false, false, false, true]);
    }
}
