//! When registrations are over: who has not renewed in time.
//!
//! Knows: the time, by argument. Must not touch: the overlay; renewing changes a number here and nothing else anywhere.

use crate::base::time::Tick;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

type Name = (String, String);

/// The deadlines of all that has registered, by pool and id.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    due: HashMap<Name, Tick>,
    /// One for each at the least; one that comes too early is put in again.
    queue: BinaryHeap<Reverse<(Tick, Name)>>,
}

impl Expiry {
    /// `name` has spoken: it stays for `ttl` from `now` on.
    pub(super) fn renew(&mut self, name: Name, ttl: Duration, now: Tick) {
        let due = now.after(ttl);
        let before = self.due.insert(name.clone(), due);
        // A deadline that moves on is found out when its entry comes up; only an earlier one needs one of its own.
        if before.is_none_or(|before| due < before) {
            self.queue.push(Reverse((due, name)));
        }
    }

    /// Everybody has so much more time.
    pub(super) fn later(&mut self, by: Duration) {
        // The entries of the queue come too early from now on, and are put in again.
        self.due.values_mut().for_each(|due| *due = due.after(by));
    }

    /// Whether it is waited for.
    pub(super) fn knows(&self, name: &Name) -> bool {
        self.due.contains_key(name)
    }

    /// Forgets all that `stays` does not know.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Name) -> bool) {
        self.due.retain(|name, _| stays(name));
    }

    /// When to look next.
    pub(super) fn next(&self) -> Option<Tick> {
        self.queue.peek().map(|Reverse((due, _))| *due)
    }

    /// Whoever is over by `now`, once.
    pub(super) fn take(&mut self, now: Tick) -> Vec<Name> {
        let mut over = Vec::new();
        while let Some(Reverse((at, _))) = self.queue.peek()
            && *at <= now
        {
            let Some(Reverse((_, name))) = self.queue.pop() else { break };
            match self.due.get(&name) {
                Some(due) if *due > now => self.queue.push(Reverse((*due, name))),
                Some(_) => {
                    self.due.remove(&name);
                    over.push(name);
                }
                None => {}
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str) -> Name {
        ("p".into(), id.into())
    }

    const TTL: Duration = Duration::from_millis(10);

    #[test]
    fn who_does_not_renew_is_over_once() {
        let mut expiry = Expiry::default();
        expiry.renew(name("a"), TTL, Tick(0));
        expiry.renew(name("b"), TTL, Tick(0));
        let due = expiry.next().unwrap();
        expiry.renew(name("a"), TTL, Tick(5));
        assert_eq!(expiry.take(Tick(due.0 - 1)), [], "too early");
        assert_eq!(expiry.take(due), [name("b")]);
        assert_eq!(expiry.take(due), []);
        assert_eq!(expiry.take(Tick(due.0 + 5)), [name("a")]);
        assert_eq!(expiry.next(), None, "nothing is left");
    }

    #[test]
    fn a_ttl_may_become_shorter_and_a_name_may_come_back() {
        let mut expiry = Expiry::default();
        expiry.renew(name("a"), TTL * 10, Tick(0));
        expiry.renew(name("a"), TTL, Tick(0));
        assert_eq!(expiry.take(Tick(11)), [name("a")]);
        expiry.renew(name("a"), TTL, Tick(20));
        expiry.retain(|_| false);
        assert!(!expiry.knows(&name("a")));
        expiry.renew(name("a"), TTL, Tick(25));
        assert_eq!(expiry.take(Tick(31)), [], "the entry of the one before counts no more");
        assert_eq!(expiry.take(Tick(36)), [name("a")]);
        expiry.renew(name("b"), TTL, Tick(40));
        expiry.retain(|_| false);
        assert_eq!(expiry.take(Tick(100)), []);
    }

    #[test]
    fn renewing_ever_so_often_holds_one_entry() {
        let mut expiry = Expiry::default();
        for now in 0..1_000 {
            expiry.renew(name("a"), TTL, Tick(now));
            expiry.take(Tick(now));
        }
        assert!(expiry.queue.len() <= 2, "{}", expiry.queue.len());
    }
}
