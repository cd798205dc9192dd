//! A flow, and what it is found by.

use crate::base::ids::{ListenerId, PoolId};
use crate::base::time::Tick;
use crate::guard::{ClientPermit, Permit};
use crate::shared::backend::{BackendState, Lease};
use rustc_hash::FxHashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a flow is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The listening socket, by its place in the worker.
    pub(super) front: u32,
    /// The client, as its socket tells it.
    pub(super) client: SocketAddr,
    /// The address it sends to, and is answered from, where its socket is bound to a wildcard.
    pub(super) local: Option<IpAddr>,
}

impl Hash for Key {
    /// As few words as hold it all: a hash is taken for each run of datagrams.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let scope = match self.client {
            SocketAddr::V4(v4) => {
                state.write_u32(v4.ip().to_bits());
                0
            }
            SocketAddr::V6(v6) => {
                state.write_u128(v6.ip().to_bits());
                v6.scope_id()
            }
        };
        state.write_u64(u64::from(scope) << 32 | u64::from(self.front) << 16 | u64::from(self.client.port()));
        match self.local {
            Some(IpAddr::V4(ip)) => state.write_u32(ip.to_bits()),
            Some(IpAddr::V6(ip)) => state.write_u128(ip.to_bits()),
            None => {}
        }
    }
}

/// Its places under the limits: of the process, of its listener, among the flows of its address, and of its client.
pub(super) type Permits = (Permit, Permit, Permit, Option<ClientPermit>);

/// See `session::udp`.
pub(super) struct Flow<S> {
    pub(super) key: Key,
    /// The listener that it came in by.
    pub(super) listener: ListenerId,
    /// The pool that it was begun in.
    pub(super) pool: PoolId,
    /// When it began, in nanoseconds.
    pub(super) began: u64,
    /// A reply has come, from whichever backend.
    pub(super) answered: bool,
    pub(super) upstream: Upstream<S>,
    /// How long it may be silent, in milliseconds.
    pub(super) idle: u64,
    /// When it ends if nothing comes; moved by each datagram, either way.
    pub(super) due: Tick,
    /// Where its one entry in the wheel that counts is; earlier than `due` when that has moved on.
    pub(super) wheel_at: Tick,
    pub(super) queued: bool,
    /// Datagrams of the client so far.
    pub(super) sent: u64,
    /// Replies may leave as trains: the way to the client has not refused one yet.
    pub(super) trains: bool,
    pub(super) _permits: Permits,
}

impl<S> Flow<S> {
    /// When it ends if nothing comes from now on.
    #[inline]
    pub(super) fn next_due(&self, now: Tick) -> Tick {
        // One more, since this tick may be nearly over already.
        Tick(now.0.saturating_add(self.idle).saturating_add(1))
    }

    /// Takes note of a datagram, either way.
    #[inline]
    pub(super) fn touch(&mut self, now: Tick) {
        self.due = self.next_due(now);
    }

    /// The connected socket, if it has one.
    pub(super) fn connected(&mut self) -> Option<&mut Connected<S>> {
        match &mut self.upstream {
            Upstream::One(connected) => Some(connected),
            Upstream::Each(_) => None,
        }
    }
}

/// Where a flow's datagrams go.
pub(super) enum Upstream<S> {
    /// All to one backend.
    One(Connected<S>),
    /// Each to the backend whose turn it is (`udp_requests = 1`).
    Each(Box<Scattered<S>>),
}

/// What is to be done before the next datagram leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Send,
    /// Go to the backend's next address: this one refused.
    Address,
    /// Go to another backend: this one refused at each of its addresses.
    Backend,
}

/// A socket that is connected to a backend.
pub(super) struct Connected<S> {
    pub(super) socket: S,
    pub(super) lease: Lease,
    /// The backend's, in the resolver's order.
    pub(super) addresses: Arc<[SocketAddr]>,
    /// Which of them the socket is connected to.
    pub(super) at: usize,
    /// The snapshot in which the backend was last seen.
    pub(super) generation: u64,
    /// When it was reached, by the clock, in nanoseconds, and the turn: its first datagram follows at once.
    pub(super) asked: (u64, Tick),
    /// It has refused, at each of its addresses, since it last answered.
    pub(super) refused: bool,
    /// Datagrams of the client that went to this backend: what it has to answer.
    pub(super) requests: u64,
    /// Datagrams that came back.
    pub(super) replies: u64,
    /// Addresses that refused, one after the other, since the backend last answered.
    pub(super) refusals: usize,
    pub(super) next: Next,
    /// Runs may leave as trains: the way to the backend has not refused one yet.
    pub(super) trains: bool,
}

/// Sockets that are connected to nobody, one a family.
pub(super) struct Scattered<S> {
    pub(super) v4: Option<S>,
    pub(super) v6: Option<S>,
    /// Whom it has sent to, by address: all others are strangers.
    pub(super) known: FxHashMap<(IpAddr, u16), Known>,
    /// How many of these are tried for their breakers.
    pub(super) trials: usize,
}

/// An address of a backend that datagrams were sent to, each a session of its own.
pub(super) struct Known {
    pub(super) state: Arc<BackendState>,
    /// How the last of these sessions went is not known yet: it has neither been answered nor refused.
    pub(super) open: bool,
    /// When the first datagram was sent that has no reply behind it: by the clock, in nanoseconds, and the turn.
    pub(super) asked: Option<(u64, Tick)>,
    /// The breaker of the backend is half open, and waits for how it goes.
    pub(super) trial: Option<Trial>,
}

/// See [`Known::trial`].
pub(super) struct Trial {
    pub(super) lease: Lease,
    /// When silence counts as good.
    pub(super) until: Tick,
}

impl<S> Scattered<S> {
    pub(super) fn new() -> Scattered<S> {
        Scattered { v4: None, v6: None, known: FxHashMap::default(), trials: 0 }
    }

    /// The socket of the family of `to`.
    pub(super) fn socket(&mut self, to: SocketAddr) -> &mut Option<S> {
        match to {
            SocketAddr::V4(_) => &mut self.v4,
            SocketAddr::V6(_) => &mut self.v6,
        }
    }
}
