//! How much each client address has, and at most may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts of the table, each behind a lock of its own: two workers seldom want the same one. A power of two.
const SHARDS: usize = 64;
/// A part with room for fewer addresses than this is not worth making smaller.
const SMALL: usize = 64;
/// A part that uses less than one in so many of its places is made smaller.
const SPARSE: usize = 8;

/// Sessions by client address, at most so many of each.
///
/// The one lock among the limits: which addresses come is not known beforehand, so there is no counter to share. It is held
/// for one look at a table, once when a session begins and once when it ends, never for a datagram of one.
#[derive(Debug)]
pub struct PerClient {
    max: AtomicU32,
    /// Whoever sends chooses the addresses, so the hash must be one that cannot be foreseen.
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

type Shard = HashMap<IpAddr, u32>;

impl PerClient {
    /// At most `max` for each address; with 0 nobody gets any.
    pub fn new(max: u32) -> Arc<PerClient> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(PerClient { max: AtomicU32::new(max), hasher: RandomState::new(), shards })
    }

    /// From now on at most `max` for each address. Who has more keeps it.
    pub fn set_max(&self, max: u32) {
        self.max.store(max, Relaxed);
    }

    /// Takes a place for the client at `ip`; `None` when it has all that it may have. An IPv4-mapped address is the IPv4
    /// one.
    pub fn take(self: &Arc<Self>, ip: IpAddr) -> Option<ClientPermit> {
        let ip = ip.to_canonical();
        let max = self.max.load(Relaxed);
        let mut shard = self.shard(ip);
        match shard.entry(ip) {
            Entry::Occupied(mut entry) if *entry.get() < max => *entry.get_mut() += 1,
            Entry::Vacant(entry) if max > 0 => _ = entry.insert(1),
            _ => return None,
        }
        drop(shard);
        Some(ClientPermit { of: self.clone(), ip })
    }

    /// How many addresses have something.
    pub fn clients(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, ip: IpAddr) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.hasher.hash_one(ip) as usize % SHARDS])
    }

    fn release(&self, ip: IpAddr) {
        let mut shard = self.shard(ip);
        let Entry::Occupied(mut entry) = shard.entry(ip) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() > 0 {
            return;
        }
        entry.remove();
        // Twice what is used: the next time is only after half of the rest has left, so a place costs little all in all.
        if shard.capacity() > SMALL && shard.len() < shard.capacity() / SPARSE {
            let keep = shard.len() * 2;
            shard.shrink_to(keep);
        }
    }
}

/// What a panic may have left half done is a count, at worst one too high.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place under a [`PerClient`]; given back on drop.
#[derive(Debug)]
pub struct ClientPermit {
    of: Arc<PerClient>,
    ip: IpAddr,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.of.release(self.ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    fn client(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    fn room(limits: &PerClient) -> usize {
        limits.shards.iter().map(|shard| lock(shard).capacity()).sum()
    }

    #[test]
    fn each_client_has_its_own() {
        let limits = PerClient::new(2);
        let (first, _second) = (limits.take(client(1)), limits.take(client(1)));
        assert!(first.is_some() && limits.take(client(1)).is_none(), "two are all it may have");
        assert!(limits.take("::ffff:0.0.0.1".parse().unwrap()).is_none(), "the same one, as an IPv6 socket sees it");
        assert!(limits.take(client(2)).is_some() && limits.take("::1".parse().unwrap()).is_some(), "others are free");
        drop(first);
        assert_eq!(limits.clients(), 1, "whoever has nothing left is forgotten");
        assert!(limits.take(client(1)).is_some(), "one came back");
        assert!(PerClient::new(0).take(client(1)).is_none());
    }

    #[test]
    fn many_clients_leave_no_memory_behind() {
        let limits = PerClient::new(1);
        let mut permits: Vec<_> = (0..100_000).filter_map(|n| limits.take(client(n))).collect();
        assert_eq!((permits.len(), limits.clients()), (100_000, 100_000));
        assert!(room(&limits) >= 100_000);
        permits.truncate(1_000);
        assert!(room(&limits) < 20_000, "room for {} is kept for 1000", room(&limits));
        permits.clear();
        assert_eq!(limits.clients(), 0);
        assert!(room(&limits) <= SHARDS * SMALL, "room for {} is kept for none", room(&limits));
    }

    proptest! {
        #[test]
        fn it_counts_as_a_plain_table_does(max in 0..4_u32, steps in prop::collection::vec((any::<bool>(), 0..200_u32), 0..2_000)) {
            let limits = PerClient::new(max);
            let mut held: HashMap<u32, Vec<ClientPermit>> = HashMap::new();
            for (take, number) in steps {
                // Few have more than one, and many come and go.
                let number = if number < 100 { number % 5 } else { number };
                let has = held.entry(number).or_default();
                if take {
                    let got = limits.take(client(number));
                    prop_assert_eq!(got.is_some(), has.len() < max as usize);
                    has.extend(got);
                } else {
                    has.pop();
                }
            }
            prop_assert_eq!(limits.clients(), held.values().filter(|has| !has.is_empty()).count());
            held.clear();
            prop_assert_eq!(limits.clients(), 0);
        }
    }

    #[test]
    fn threads_never_take_one_too_many() {
        const MAX: u32 = 3;
        let limits = PerClient::new(MAX);
        let had: [AtomicU32; 4] = Default::default();
        let (most, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (limits, had, most, taken) = (&limits, &had, &most, &taken);
                scope.spawn(move || {
                    let mut permits = Vec::new();
                    for step in 0..40_000_u32 {
                        let number = (step * 7 + thread) % 4;
                        if let Some(permit) = limits.take(client(number)) {
                            taken.fetch_add(1, SeqCst);
                            most.fetch_max(had[number as usize].fetch_add(1, SeqCst) + 1, SeqCst);
                            permits.push((number, permit));
                        }
                        if permits.len() > 5 {
                            let (number, permit) = permits.swap_remove(step as usize % permits.len());
                            // First the note, then the place: else another could take it before it is noted.
                            had[number as usize].fetch_sub(1, SeqCst);
                            drop(permit);
                        }
                    }
                    for (number, permit) in permits {
                        had[number as usize].fetch_sub(1, SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!(most.load(SeqCst) <= MAX && taken.load(SeqCst) > 40_000, "{most:?} at once, {taken:?} in all");
        assert_eq!(limits.clients(), 0);
    }
}
