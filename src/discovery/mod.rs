//! The outside world turned into mail for control: names of backends, resolved off the data path.
//!
//! Knows: names and how often to ask. Must not touch: the snapshot, workers.

use crate::config::{Address, Config};
use crate::shared::mail::ControlMail;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// How often every name is asked for again.
const INTERVAL: Duration = Duration::from_secs(30);
/// Mail for control waits at most this long; what is missed comes with the next round.
const PATIENCE: Duration = Duration::from_secs(5);

/// A name and the port behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// The name.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Name {
    /// Every name of a backend in `config`, once.
    pub fn of(config: &Config) -> Vec<Name> {
        let backends = config.pools.iter().flat_map(|pool| &pool.backends);
        let names: BTreeSet<Name> = backends
            .filter_map(|backend| match &backend.address {
                Address::Name { host, port } => Some(Name { host: host.clone(), port: *port }),
                Address::Ip(_) => None,
            })
            .collect();
        names.into_iter().collect()
    }
}

/// What a name resolves to, in the resolver's order; empty when it does not.
pub type Answer = (Name, Vec<SocketAddr>);

/// The thread that resolves; it ends when all of these are dropped, and the answer it waits for has come.
#[derive(Clone)]
pub struct Resolver {
    orders: Sender<Order>,
}

/// From now on these names, and no others. Those that are new are answered as they are resolved.
struct Order {
    names: Vec<Name>,
    answers: Sender<Answer>,
}

impl Resolver {
    /// Begins to resolve `names` and to mail what changes. Waits for the first answers, at most for `patience`; those
    /// that come later are mailed.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        names: Vec<Name>,
        mail: Sender<ControlMail>,
        patience: Duration,
    ) -> io::Result<(Resolver, Vec<Answer>)> {
        let (orders, taken) = unbounded();
        thread::Builder::new().name("resolver".into()).spawn(move || resolve_all(&taken, &mail))?;
        let resolver = Resolver { orders };
        let found = resolver.learn(names, patience);
        Ok((resolver, found))
    }

    /// From now on resolves `names`, and no others; they are all asked for anew. Waits for the answers, at most for
    /// `patience`; those that come later are mailed.
    pub fn learn(&self, names: Vec<Name>, patience: Duration) -> Vec<Answer> {
        let count = names.len();
        let (first, answers) = bounded(count);
        let _ = self.orders.send(Order { names, answers: first });
        let until = Instant::now() + patience;
        let mut found = Vec::with_capacity(count);
        while found.len() < count {
            match answers.recv_deadline(until) {
                Ok(answer) => found.push(answer),
                Err(_) if patience.is_zero() => break,
                Err(_) => {
                    log::warn!("{} of {count} names are not resolved yet; going on without them", count - found.len());
                    break;
                }
            }
        }
        found
    }
}

fn resolve_all(orders: &Receiver<Order>, mail: &Sender<ControlMail>) {
    let mut known: HashMap<Name, Vec<SocketAddr>> = HashMap::new();
    let mut names: Vec<Name> = Vec::new();
    let mut next = orders.recv().ok();
    loop {
        let answers = next.take().map(|order: Order| {
            names = order.names;
            // Those that wait for an answer are not to wait behind those that have one.
            names.sort_by_key(|name| known.contains_key(name));
            order.answers
        });
        let mut last = std::mem::take(&mut known);
        for name in &names {
            let before = last.remove(name);
            let addresses = resolve(name, before.as_ref());
            // Both: nobody may wait any more, and control takes what it knows already for nothing new.
            if let Some(answers) = &answers {
                let _ = answers.try_send((name.clone(), addresses.clone()));
            }
            tell(mail, name, addresses.clone());
            known.insert(name.clone(), addresses);
        }
        match orders.recv_timeout(INTERVAL) {
            Ok(order) => next = Some(orders.try_iter().last().unwrap_or(order)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn tell(mail: &Sender<ControlMail>, name: &Name, addresses: Vec<SocketAddr>) {
    let _ = mail.send_timeout(ControlMail::Resolved { host: name.host.clone(), port: name.port, addresses }, PATIENCE);
}

fn resolve(name: &Name, last: Option<&Vec<SocketAddr>>) -> Vec<SocketAddr> {
    let (addresses, why) = match (name.host.as_str(), name.port).to_socket_addrs() {
        Ok(found) => (found.collect::<Vec<_>>(), None),
        Err(error) => (Vec::new(), Some(error)),
    };
    if last != Some(&addresses) {
        match why {
            Some(error) => log::warn!("{} does not resolve, its backends are down until it does: {error}", name.host),
            None => log::info!("{}:{} is {addresses:?}", name.host, name.port),
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::mail::control_box;

    #[test]
    fn the_first_answers_are_waited_for_and_mailed() {
        let (mail, mailbox) = control_box();
        let name = Name { host: "localhost".into(), port: 7 };
        let bad = Name { host: "no-such-name.invalid".into(), port: 7 };
        let (_resolver, first) =
            Resolver::start(vec![name.clone(), bad.clone()], mail, Duration::from_secs(20)).unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!(first[0].0, name);
        assert!(first[0].1.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
        assert!(!first[0].1.is_empty());
        assert_eq!(first[1], (bad, Vec::new()), "one that does not resolve is down, and no error");
        let ControlMail::Resolved { host, .. } = mailbox.recv_timeout(Duration::from_secs(5)).unwrap() else {
            panic!("something else was mailed")
        };
        assert_eq!(host, "localhost");
    }
}
