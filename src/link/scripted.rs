//! Takes a checked configuration and serves it until told to stop.
//!
//! For now a plain forwarder with two threads a connection; the workers take its place, behind the same face.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use crate::base::exit::Exit;
use crate::config::Config;

/// Told where everything listens.
pub type Ready = Box<dyn FnOnce(&[Bound]) + Send>;

/// What the command line adds to a configuration.
#[derive(Default)]
pub struct Options {
    /// Log at level debug, whatever the configuration says.
    pub debug: bool,
    /// Begins the same drain as SIGTERM, from inside the process.
    pub stop: Option<Stop>,
    /// Called once, when all listeners are bound and before the first connection is served.
    pub ready: Option<Ready>,
}

/// An address that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The listener's name.
    pub listener: String,
    /// The true address: port 0 has become the port that the system chose.
    pub address: SocketAddr,
}

/// A handle that ends [`run`] as SIGTERM does.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    told: Arc<(Mutex<bool>, Condvar)>,
}

impl Stop {
    /// A handle that nobody has used yet.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Begins the drain. Once is enough; again does nothing.
    pub fn stop(&self) {
        *self.told.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.told.1.notify_all();
    }

    fn wait(&self) {
        let mut told = self.told.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*told {
            told = self.told.1.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Starts everything, serves until told to stop; returns the exit code: 0 done, 3 an address cannot be bound.
pub fn run(config: Config, options: Options) -> Exit {
    let stop = options.stop.unwrap_or_default();
    let config = Arc::new(config);
    let mut sockets = Vec::new();
    let mut bound = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        for bind in &listener.binds {
            match TcpListener::bind(bind.to_string()).and_then(|socket| Ok((socket.local_addr()?, socket))) {
                Ok((address, socket)) => {
                    bound.push(Bound { listener: listener.name.clone(), address });
                    sockets.push((index, socket));
                }
                Err(error) => {
                    eprintln!("l4lb: cannot listen on {bind}: {error}");
                    return Exit::Bind;
                }
            }
        }
    }
    let ending = stop.clone();
    if let Ok(mut signals) = signal_hook::iterator::Signals::new([libc::SIGTERM, libc::SIGINT]) {
        thread::spawn(move || {
            for _ in signals.forever() {
                ending.stop();
            }
        });
    }
    for (index, socket) in sockets {
        let config = config.clone();
        thread::spawn(move || accept(&socket, &config, index));
    }
    if let Some(ready) = options.ready {
        ready(&bound);
    }
    stop.wait();
    Exit::Done
}

fn accept(socket: &TcpListener, config: &Arc<Config>, listener: usize) {
    let turn = AtomicUsize::new(0);
    for client in socket.incoming().flatten() {
        let Some(pool) = config.listeners[listener].pool.map(|pool| &config.pools[pool]) else { continue };
        let first = turn.fetch_add(1, Ordering::Relaxed);
        let backend = (0..pool.backends.len())
            .map(|next| &pool.backends[(first + next) % pool.backends.len()])
            .find_map(|backend| TcpStream::connect(backend.address.to_string()).ok());
        let Some(backend) = backend else { continue };
        let (Ok(client_too), Ok(backend_too)) = (client.try_clone(), backend.try_clone()) else {
            continue;
        };
        thread::spawn(move || forward(&client, &backend));
        thread::spawn(move || forward(&backend_too, &client_too));
    }
}

fn forward(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
