//! Connections to backends: one attempt at one backend, over all its addresses.
//!
//! Knows: addresses, links, how long a connect may take. Must not touch: which backend is picked, what is sent to it.

mod idle;

pub use idle::Idle;

use crate::base::ids::{LinkId, SessionId};
use crate::base::slab::Slab;
use crate::base::time::Tick;
use crate::guard::Seldom;
use crate::link::{Link, Net, Stream, is_local, is_out_of_descriptors};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How soon a dial is tried again that failed for want of descriptors, in milliseconds.
const SHORT_STEP: u64 = 25;
/// How soon that may be warned of again, in milliseconds.
const QUIET: u64 = 60_000;
static SHORTAGES: Seldom = Seldom::new();

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
    speaks_first: bool,
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
    /// `speaks_first`: see [`Net::dial`].
    pub fn new(addresses: Arc<[SocketAddr]>, now: Tick, timeout: Duration, speaks_first: bool) -> Attempt {
        Attempt { addresses, next: 0, link: None, due: now, until: now.after(timeout), speaks_first, error: None }
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
                Err(error) if is_out_of_descriptors(&error) && now < self.until => {
                    // Somebody will leave: the client waits, as those do who are not accepted yet.
                    if SHORTAGES.may(now, QUIET) {
                        log::warn!(
                            "backends cannot be connected to for now: {error}; clients wait for connect_timeout"
                        );
                    }
                    self.next -= 1;
                    self.error = Some(error);
                    return Progress::Wait(Tick(now.0 + SHORT_STEP).min(self.until));
                }
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
        let stream = net.dial(address, self.speaks_first)?;
        let id = links.insert(Link::dialled(stream, session));
        let Some(link) = links.get_mut(id) else { return Err(no_address()) };
        net.watch(link.stream_mut(), id).inspect_err(|_| drop(links.remove(id)))?;
        Ok(id)
    }

    /// Gives the attempt up: closes what is being connected. By a reset, or a backend that has accepted meanwhile would
    /// take it for a client that had nothing to say.
    pub fn abandon<S: Stream>(&mut self, links: &mut Slab<LinkId, Link<S>>) {
        if let Some(mut link) = self.link.take().and_then(|id| links.remove(id)) {
            link.set_cut();
        }
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "its name does not resolve")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Key;
    use crate::link::Ready;
    use std::io::IoSlice;

    /// A stream that nobody reads or writes.
    struct Nothing;

    impl Stream for Nothing {
        fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn send(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn shutdown(&mut self) {}
        fn unsent(&self) -> usize {
            0
        }
        fn set_cut(&mut self) {}
        fn set_nodelay(&mut self) {}
        fn local_address(&self) -> Option<SocketAddr> {
            None
        }
        fn failure(&mut self) -> Option<io::Error> {
            None
        }
    }

    /// Answers dials with these errors in turn, and then with streams.
    struct Answers(Vec<i32>);

    impl Net for Answers {
        type Stream = Nothing;
        fn dial(&mut self, _: SocketAddr, _: bool) -> io::Result<Nothing> {
            self.0.pop().map_or(Ok(Nothing), |errno| Err(io::Error::from_raw_os_error(errno)))
        }
        fn watch(&mut self, _: &mut Nothing, _: LinkId) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn out_of_descriptors_it_waits_and_then_tries_the_same_address_again() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut attempt = Attempt::new(Arc::new([address]), Tick(0), Duration::from_secs(2), false);
        let (mut links, session) = (Slab::new(), SessionId::new(0, 1));
        let mut net = Answers(vec![libc::ENFILE, libc::EMFILE]);
        for now in [0, SHORT_STEP] {
            let progress = attempt.turn(&mut net, &mut links, session, Tick(now));
            assert!(matches!(progress, Progress::Wait(due) if due == Tick(now + SHORT_STEP)), "at {now}");
            assert_eq!(links.len(), 0);
        }
        let now = Tick(2 * SHORT_STEP);
        assert!(matches!(attempt.turn(&mut net, &mut links, session, now), Progress::Wait(_)), "it is being connected");
        let link = links.iter().next().map(|(id, _)| id).expect("there is a link now");
        links.get_mut(link).unwrap().latch(Ready::OUT);
        assert!(matches!(attempt.turn(&mut net, &mut links, session, now), Progress::Connected(id) if id == link));
    }

    #[test]
    fn a_shortage_that_lasts_ends_with_connect_timeout_and_is_our_own() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut attempt = Attempt::new(Arc::new([address]), Tick(0), Duration::from_millis(100), false);
        let mut links = Slab::new();
        let mut net = Answers(vec![libc::EMFILE; 100]);
        let mut now = Tick(0);
        let last = loop {
            match attempt.turn(&mut net, &mut links, SessionId::new(0, 1), now) {
                Progress::Wait(due) => now = due,
                other => break other,
            }
        };
        assert!(last.is_local(), "no evidence against the backend");
        assert!((100..200).contains(&now.0), "it ended at {now:?}");
    }
}
