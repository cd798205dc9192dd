//! A listening socket of a worker, and the clients that come in by it.

use crate::base::ids::{ListenerId, SocketId};
use crate::base::time::Tick;
use crate::guard::{Cap, Seldom};
use crate::link::plain::PlainStream;
use crate::shared::mail::{Arrival, canonical, is_of_one};
use crate::shared::snapshot::Listener;
use mio::net::TcpListener;
use std::io::ErrorKind;
use std::sync::Arc;

/// Clients accepted in one turn: others wait, too.
const BUDGET: usize = 64;
/// How soon a door that is paused tries again, in milliseconds, when nobody of this worker has left meanwhile.
const RETRY: u64 = 25;
/// How soon the same reason may be warned of again, in milliseconds.
const QUIET: u64 = 60_000;

/// See the module.
pub struct Door {
    /// Which address it is at.
    pub id: SocketId,
    /// Its listener in the snapshot.
    pub listener: ListenerId,
    /// For the log.
    pub name: Arc<str>,
    /// The socket, non-blocking, registered edge-triggered.
    pub socket: TcpListener,
    /// Its max_connections.
    pub connections: Arc<Cap>,
    /// When to try again; `None` while it takes clients.
    pub paused: Option<Tick>,
    /// Shared by all doors of the listener.
    warnings: Arc<Seldom>,
    /// Held for its count alone: who opens sockets sees that this one is there.
    _held: Arc<Cap>,
}

/// Why a door stopped taking clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nobody waits.
    Empty,
    /// The turn is over; more may wait.
    Budget,
    /// It is paused: no place, no descriptor, no memory.
    Paused,
}

impl Door {
    /// A door for the socket `id` of `listener`; `held` is dropped with it.
    pub fn new(id: SocketId, listener: ListenerId, plan: &Listener, socket: TcpListener, held: Arc<Cap>) -> Door {
        let Listener { name, connections, warnings, .. } = plan;
        let (name, connections, warnings) = (name.clone(), connections.clone(), warnings.clone());
        Door { id, listener, name, socket, connections, paused: None, warnings, _held: held }
    }

    /// From now on its clients are those of `listener`.
    pub fn rename(&mut self, listener: ListenerId, plan: &Listener) {
        (self.listener, self.name) = (listener, plan.name.clone());
        (self.connections, self.warnings) = (plan.connections.clone(), plan.warnings.clone());
    }

    /// Takes in who waits, at most a budget of them.
    pub fn accept(
        &mut self,
        process: &Arc<Cap>,
        full: bool,
        now: Tick,
        mut take: impl FnMut(Arrival<PlainStream>),
    ) -> Stop {
        self.paused = None;
        for _ in 0..BUDGET {
            if full {
                return self.pause(now, "its worker holds as much memory for slow readers as it may");
            }
            let Some(whole) = process.take() else {
                return self.pause(now, "the process is at global.max_connections, or at what its descriptors allow");
            };
            let Some(own) = self.connections.take() else {
                return self.pause(now, "it is at its max_connections");
            };
            let permits = (whole, own);
            match self.socket.accept() {
                Ok((stream, client)) => {
                    take(Arrival {
                        stream: stream.into(),
                        client: canonical(client),
                        listener: self.listener,
                        permits,
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Stop::Empty,
                Err(error) if is_of_one(&error) => {
                    log::debug!("listener {}: a connection was lost before it was accepted: {error}", self.name);
                }
                Err(error) => return self.pause(now, &error.to_string()),
            }
        }
        Stop::Budget
    }

    fn pause(&mut self, now: Tick, why: &str) -> Stop {
        self.paused = Some(Tick(now.0 + RETRY));
        if self.warnings.may(now, QUIET) {
            log::warn!("listener {}: accepts nobody for now: {why}; new clients wait in the kernel's queue", self.name);
        }
        Stop::Paused
    }
}
