//! What both examples need: servers that can die and come back, and a count of who was called.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

/// A server on a thread of its own.
pub struct Server {
    address: SocketAddr,
    dies: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `address` (port 0: any), and has `serve` answer one connection after the other.
    pub fn start(address: SocketAddr, serve: fn(TcpStream) -> io::Result<()>) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let dies = Arc::new(AtomicBool::new(false));
        let died = dies.clone();
        let thread = thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if died.load(Relaxed) {
                    return; // and with the listener, whoever comes from now on is refused
                }
                // A client that leaves early is no reason to die.
                let _ = serve(connection);
            }
        });
        Ok(Server { address, dies, thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Dies: from now on nobody listens at its address.
    pub fn die(&mut self) {
        self.dies.store(true, Relaxed);
        // It waits for somebody to come.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Calls by backend: how many were answered, and how many were not.
#[derive(Default)]
pub struct Calls(BTreeMap<String, (u32, u32)>);

impl Calls {
    pub fn count(&mut self, backend: &str, answered: bool) {
        let counts = self.0.entry(backend.to_owned()).or_default();
        if answered { counts.0 += 1 } else { counts.1 += 1 }
    }

    pub fn print(&self, when: &str) {
        let one = |(id, (good, bad)): (&String, &(u32, u32))| match bad {
            0 => format!("{id}: {good}"),
            _ => format!("{id}: {good} and {bad} refused"),
        };
        println!("{when:<28} {}", self.0.iter().map(one).collect::<Vec<_>>().join(", "));
    }
}
