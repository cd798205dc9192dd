//! What workers are told and tell while one process takes the place of another.
//!
//! The old one: for each UDP socket [`Handing::Freeze`] until all its flows are told, then
//! [`Handing::Leave`]; or [`Handing::Thaw`] where nothing comes of it. The new one: [`Handing::Adopt`] for each of these
//! sockets, then [`Handing::Open`].

use crate::base::ids::SocketId;
use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// An order to a worker.
#[derive(Debug)]
pub enum Handing {
    /// Read the listening socket `front`, and its flows, no more; tell of those flows from number `from` on, as many as
    /// go into one message. None means that these were all.
    Freeze {
        /// Its address, and which one of those there it is.
        front: (SocketId, u32),
        /// How many were told already.
        from: usize,
        /// Where they go.
        tell: Sender<Vec<Carried<OwnedFd>>>,
    },
    /// Go on as if nothing had been.
    Thaw,
    /// The new process serves: leave what was frozen to it, and these listening sockets for TCP with whoever waits there.
    Leave {
        /// By their addresses.
        doors: Vec<SocketId>,
    },
    /// Take flows on for the listening socket `front`; with `last`, begin to read that, and tell how many live.
    Adopt {
        /// Its address, and which one of those there it is.
        front: (SocketId, u32),
        /// What is taken on.
        flows: Vec<Carried<OwnedFd>>,
        /// Asked for with the last ones.
        last: Option<Sender<usize>>,
    },
    /// Begin to serve by all sockets that are not served yet.
    Open,
}

/// A session of datagrams, as it goes from one process to the other. `D`: a descriptor.
#[derive(Debug, PartialEq, Eq)]
pub struct Carried<D> {
    /// What is known of it.
    pub flow: FlowRecord,
    /// Its sockets, in the order that [`Onward`] tells.
    pub sockets: Vec<D>,
}

/// What is known of a session of datagrams. Durations, not moments: the other process has another clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// The client.
    pub client: SocketAddr,
    /// The address it sends to, where its socket is bound to a wildcard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// The pool of its backend.
    pub pool: String,
    /// For how many more milliseconds it may be silent.
    pub idle_left: u64,
    /// Datagrams of the client so far.
    pub sent: u64,
    /// The client's next datagram belongs to it.
    pub listed: bool,
    /// Where its datagrams go.
    pub onward: Onward,
}

/// Where the datagrams of a session go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Onward {
    /// All to one backend, by one socket.
    One {
        /// Its address, as configured.
        backend: String,
        /// Where its socket is connected to.
        peer: SocketAddr,
        /// Datagrams that went there.
        requests: u64,
        /// Datagrams that came back.
        replies: u64,
    },
    /// Each to the backend whose turn it is, by a socket for IPv4 and one for IPv6, where it has them.
    Each {
        /// It has one for IPv4.
        v4: bool,
        /// It has one for IPv6.
        v6: bool,
        /// Whom it has sent to, with the backend's address as configured.
        known: Vec<(SocketAddr, String)>,
    },
}

impl FlowRecord {
    /// How many sockets it has.
    pub fn sockets(&self) -> usize {
        match &self.onward {
            Onward::One { .. } => 1,
            Onward::Each { v4, v6, .. } => usize::from(*v4) + usize::from(*v6),
        }
    }
}
