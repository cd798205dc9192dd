//! Connections to backends: one attempt at one backend, over all its addresses.
//!
//! Knows: addresses, links, how long a connect may take. Must not touch: which backend is picked, what is sent to it.

mod idle;

pub use idle::Idle;

use crate::base::ids::{LinkId, SessionId};
use crate::base::slab::Slab;
use crate::base::time::Tick;
use crate::link::{Link, Net, is_local};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A backend that is being connected to: its addresses are tried one after the other.
///
/// `connect_timeout` bounds the whole attempt; each address gets an equal share of what is left of it, so that one that
/// swallows packets does not use up the time of the next.
pub struct Attempt {
    addresses: Arc<[SocketAddr]>,
    next: usize,
    link: Option<LinkId>,
    /// When the address that is being tried has had its share.
    due: Tick,
    until: Tick,
    /// Why the last address failed.
    error: Option<io::Error>,
}

/// Where an attempt stands.
pub enum Progress {
    /// Nothing yet; ask again when the link is ready, or at this tick.
    Wait(Tick),
    /// The link is connected and handed over.
    Connected(LinkId),
    /// No address could be connected to: the last error says why.
    Failed(io::Error),
}

impl Progress {
    /// True when it failed for a reason of our own: no evidence against the backend.
    pub fn is_local(&self) -> bool {
        matches!(self, Progress::Failed(error) if is_local(error))
    }
}

impl Attempt {
    /// An attempt over `addresses` that may last for `timeout`; nothing happens before [`Attempt::turn`].
    pub fn new(addresses: Arc<[SocketAddr]>, now: Tick, timeout: Duration) -> Attempt {
        Attempt { addresses, next: 0, link: None, due: now, until: now.after(timeout), error: None }
    }

    /// Goes on as far as it can now.
    pub fn turn<N: Net>(
        &mut self,
        net: &mut N,
        links: &mut Slab<LinkId, Link<N::Stream>>,
        session: SessionId,
        now: Tick,
    ) -> Progress {
        loop {
            if let Some(id) = self.link {
                let outcome = match links.get_mut(id).map(Link::connected) {
                    Some(Some(outcome)) => outcome,
                    Some(None) if now < self.due => return Progress::Wait(self.due),
                    Some(None) => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
                    None => Err(io::Error::from_raw_os_error(libc::ENOTCONN)),
                };
                match outcome {
                    Ok(()) => {
                        self.link = None;
                        return Progress::Connected(id);
                    }
                    Err(error) => {
                        self.error = Some(error);
                        self.abandon(links);
                    }
                }
            }
            let left = self.addresses.len().saturating_sub(self.next) as u64;
            if left == 0 || (now >= self.until && self.next > 0) {
                return Progress::Failed(self.error.take().unwrap_or_else(no_address));
            }
            let address = self.addresses[self.next];
            self.next += 1;
            self.due = Tick(now.0 + (self.until.0.saturating_sub(now.0)).div_ceil(left));
            match self.dial(net, links, session, address) {
                Ok(link) => self.link = Some(link),
                Err(error) => self.error = Some(error),
            }
        }
    }

    fn dial<N: Net>(
        &mut self,
        net: &mut N,
        links: &mut Slab<LinkId, Link<N::Stream>>,
        session: SessionId,
        address: SocketAddr,
    ) -> io::Result<LinkId> {
        let stream = net.dial(address)?;
        let id = links.insert(Link::dialled(stream, session));
        let Some(link) = links.get_mut(id) else { return Err(no_address()) };
        net.watch(link.stream_mut(), id).inspect_err(|_| drop(links.remove(id)))?;
        Ok(id)
    }

    /// Gives the attempt up: closes what is being connected.
    pub fn abandon<S>(&mut self, links: &mut Slab<LinkId, Link<S>>) {
        if let Some(id) = self.link.take() {
            links.remove(id);
        }
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "its name does not resolve")
}
