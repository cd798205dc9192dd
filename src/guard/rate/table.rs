//! What is known of each key, for a bounded number of them: parts under a lock each, shared by all workers.
//!
//! Nobody knows beforehand which keys come, so there is no word to share; the lock is held for a look at one part. A key
//! whose share is whole again is forgotten, one by each who comes to its part and two by who is new there: no sweep takes
//! long. A part that is full forgets whoever was silent for longest, who then begins anew: a bounded memory cannot do more.
//!
//! With many keys all of it is waiting for memory, so what is forgotten leaves a free place, and nobody is moved there.

use super::RateKey;
use crossbeam_utils::CachePadded;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts of the table. A power of two. So many that a part is small, and making it larger takes no time to speak of.
const PARTS: usize = 256;
/// Keys in a part: a million keys leave one in eight places free, so that chance overfills none.
const MOST_KEYS: usize = 4_608;
/// Bytes that the keys of a part may hold besides their places: 64 MiB in all.
const MOST_BYTES: usize = 256 * 1024;
/// A part with room for fewer keys than this is not worth making smaller.
const SMALL: usize = 64;
/// No key.
const NONE: u32 = u32::MAX;

/// What is known of a key. As it begins it stands for one that is not known.
pub(super) trait State: Default {
    /// What it holds besides itself.
    fn bytes(&self) -> usize {
        0
    }
}

impl State for u64 {}

/// See the module.
#[derive(Debug)]
pub(super) struct Table<S> {
    /// Whoever sends chooses the keys, so the hash must be one that cannot be foreseen.
    hasher: RandomState,
    parts: Box<[CachePadded<Mutex<Part<S>>>]>,
}

/// A part: places, an index to those in use, the order in which these were last asked for, and the free ones.
#[derive(Debug)]
struct Part<S> {
    index: HashTable<u32>,
    places: Vec<Place<S>>,
    newest: u32,
    oldest: u32,
    /// The first free place; its `older` is the next one.
    free: u32,
    /// What the states hold besides themselves.
    bytes: usize,
}

#[derive(Debug)]
struct Place<S> {
    key: RateKey,
    state: S,
    newer: u32,
    older: u32,
}

impl<S: State> Table<S> {
    pub(super) fn new() -> Table<S> {
        let part = || CachePadded::new(Mutex::new(Part::new()));
        Table { hasher: RandomState::new(), parts: (0..PARTS).map(|_| part()).collect() }
    }

    fn part(&self, key: RateKey) -> (u64, MutexGuard<'_, Part<S>>) {
        let hash = self.hasher.hash_one(key);
        // Bits that the index of the part does not go by.
        (hash, lock(&self.parts[(hash >> 40) as usize % PARTS]))
    }

    /// Does something with the state of `key`; `over` says of a state that it may be forgotten.
    pub(super) fn with<R>(&self, key: RateKey, over: impl Fn(&S) -> bool, act: impl FnOnce(&mut S) -> R) -> R {
        let (hash, mut part) = self.part(key);
        part.sweep(&self.hasher, &over);
        let at = match part.find(hash, key) {
            Some(at) => {
                part.unlink(at);
                at
            }
            None => {
                part.sweep(&self.hasher, &over);
                part.insert(hash, key, &self.hasher)
            }
        };
        part.link(at);
        part.act(at, &self.hasher, act)
    }

    /// Does something with the state of `key`, if there is one.
    pub(super) fn known(&self, key: RateKey, act: impl FnOnce(&mut S)) {
        let (hash, mut part) = self.part(key);
        if let Some(at) = part.find(hash, key) {
            part.act(at, &self.hasher, act);
        }
    }

    /// How many keys are known.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).index.len()).sum()
    }

    /// Bytes that all of it takes.
    pub(super) fn bytes(&self) -> usize {
        let of =
            |part: &Part<S>| part.places.capacity() * size_of::<Place<S>>() + part.index.allocation_size() + part.bytes;
        self.parts.iter().map(|part| of(&lock(part)) + size_of_val(&**part)).sum()
    }
}

/// What a panic may have left half done is the share of one key.
fn lock<S>(part: &Mutex<Part<S>>) -> MutexGuard<'_, Part<S>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: State> Part<S> {
    fn new() -> Part<S> {
        Part { index: HashTable::new(), places: Vec::new(), newest: NONE, oldest: NONE, free: NONE, bytes: 0 }
    }

    fn find(&self, hash: u64, key: RateKey) -> Option<u32> {
        self.index.find(hash, |at| self.places[*at as usize].key == key).copied()
    }

    /// Does something with a state. Where the part then holds too much, those who were silent for longest are forgotten.
    fn act<R>(&mut self, at: u32, hasher: &RandomState, act: impl FnOnce(&mut S) -> R) -> R {
        let state = &mut self.places[at as usize].state;
        let before = state.bytes();
        let done = act(state);
        self.bytes = self.bytes + state.bytes() - before;
        while self.bytes > MOST_BYTES && self.oldest != self.newest {
            self.remove(self.oldest, hasher);
        }
        done
    }

    /// A place for a key that has none; it is in no order yet.
    fn insert(&mut self, hash: u64, key: RateKey, hasher: &RandomState) -> u32 {
        if self.index.len() >= MOST_KEYS {
            self.remove(self.oldest, hasher);
        }
        let place = Place { key, state: S::default(), newer: NONE, older: NONE };
        let mut at = self.free;
        match self.places.get_mut(at as usize) {
            Some(free) => {
                self.free = free.older;
                *free = place;
            }
            None => {
                if self.places.len() == self.places.capacity() {
                    let more = (self.places.len() / 4).max(SMALL / 4).min(MOST_KEYS - self.places.len());
                    self.places.reserve_exact(more);
                }
                at = self.places.len() as u32;
                self.places.push(place);
            }
        }
        let places = &self.places;
        self.index.insert_unique(hash, at, |at| hasher.hash_one(places[*at as usize].key));
        at
    }

    fn unlink(&mut self, at: u32) {
        let Place { newer, older, .. } = self.places[at as usize];
        match self.places.get_mut(newer as usize) {
            Some(place) => place.older = older,
            None => self.newest = older,
        }
        match self.places.get_mut(older as usize) {
            Some(place) => place.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Makes a place that is in no order the newest.
    fn link(&mut self, at: u32) {
        let older = self.newest;
        (self.places[at as usize].newer, self.places[at as usize].older) = (NONE, older);
        match self.places.get_mut(older as usize) {
            Some(place) => place.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }

    /// Forgets the key at this place, which is free then.
    fn remove(&mut self, at: u32, hasher: &RandomState) {
        self.unlink(at);
        let place = &mut self.places[at as usize];
        self.bytes -= std::mem::take(&mut place.state).bytes();
        (place.newer, place.older) = (NONE, self.free);
        self.free = at;
        if let Ok(entry) = self.index.find_entry(hasher.hash_one(place.key), |place| *place == at) {
            entry.remove();
        }
        let (len, room) = (self.index.len(), self.places.capacity());
        if room > SMALL && len < room / 8 {
            self.shrink(hasher);
        }
    }

    /// Moves all to where there is room for twice as many: the next time is only after half of the rest has left, and as
    /// many have come.
    fn shrink(&mut self, hasher: &RandomState) {
        let len = self.index.len();
        let mut old = std::mem::replace(self, Part::new());
        self.places.reserve_exact(len * 2);
        self.index.reserve(len * 2, |_| 0);
        let mut at = old.oldest;
        while let Some(place) = old.places.get_mut(at as usize) {
            let (key, state) = (place.key, std::mem::take(&mut place.state));
            at = place.newer;
            self.bytes += state.bytes();
            let moved = self.insert(hasher.hash_one(key), key, hasher);
            self.places[moved as usize].state = state;
            self.link(moved);
        }
    }

    /// Forgets whoever was silent for longest, if that one's share is whole.
    fn sweep(&mut self, hasher: &RandomState, over: &impl Fn(&S) -> bool) {
        if self.places.get(self.oldest as usize).is_some_and(|oldest| over(&oldest.state)) {
            self.remove(self.oldest, hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn key(number: u64) -> RateKey {
        RateKey([number, !number])
    }

    /// Whether the order, the index and the places tell the same.
    fn check<S: State>(table: &Table<S>) {
        for part in &table.parts {
            let part = lock(part);
            let (mut at, mut newer, mut seen) = (part.newest, NONE, 0);
            while at != NONE {
                let place = &part.places[at as usize];
                assert_eq!(place.newer, newer);
                assert_eq!(part.find(table.hasher.hash_one(place.key), place.key), Some(at));
                (newer, at, seen) = (at, place.older, seen + 1);
            }
            let (mut at, mut free) = (part.free, 0);
            while at != NONE {
                (at, free) = (part.places[at as usize].older, free + 1);
            }
            assert_eq!((part.oldest, part.index.len(), part.places.len()), (newer, seen, seen + free));
            assert_eq!(part.bytes, part.places.iter().map(|place| place.state.bytes()).sum::<usize>());
        }
    }

    #[test]
    fn it_knows_what_a_plain_table_knows_and_forgets_what_is_over() {
        let table: Table<u64> = Table::new();
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        let mut random = fastrand::Rng::with_seed(1);
        for now in 1..60_000_u64 {
            // Each is over a thousand steps after it was last asked for, and as new if it is asked for then.
            let number = random.u64(..3_000);
            let over = |last: &u64| last + 1_000 <= now;
            let known = table.with(key(number), over, |last| {
                let before = if over(last) { 0 } else { *last };
                *last = now;
                before
            });
            let expected = model.insert(number, now).filter(|last| last + 1_000 > now).unwrap_or(0);
            assert_eq!(known, expected, "key {number} at {now}");
            if now % 5_000 == 0 {
                check(&table);
                assert!(table.len() < 2_000, "{} of about 850 that count are known", table.len());
            }
        }
    }

    #[test]
    fn what_is_forgotten_leaves_no_memory_behind() {
        let table: Table<u64> = Table::new();
        (0..500_000).for_each(|n| table.with(key(n), |_| false, |state| *state = 1));
        assert_eq!(table.len(), 500_000);
        let before = table.bytes();
        // Whoever comes forgets one of a part; so many that chance leaves no part without.
        (0..1_800_000).for_each(|n| table.with(key(1_000_000 + n % 10_000), |state| *state == 1, |state| *state = 2));
        check(&table);
        assert_eq!(table.len(), 10_000);
        assert!(table.bytes() < before / 5, "{} bytes for 500,000, {} for 10,000", before, table.bytes());
    }

    #[test]
    fn a_full_part_forgets_whoever_was_silent_for_longest() {
        let table: Table<u64> = Table::new();
        let (hash_of, first) = (|n: u64| table.hasher.hash_one(key(n)) >> 40 & 255, 0);
        let mut same = (1..).filter(|n| hash_of(*n) == hash_of(first));
        table.with(key(first), |_| false, |state| *state = 7);
        let second = same.next().unwrap();
        table.with(key(second), |_| false, |state| *state = 8);
        for n in same.by_ref().take(MOST_KEYS - 2) {
            table.with(key(n), |_| false, |state| *state = 9);
        }
        assert_eq!(table.len(), MOST_KEYS);
        table.with(key(first), |_| false, |state| assert_eq!(*state, 7, "it has just been asked for"));
        table.with(key(same.next().unwrap()), |_| false, |state| *state = 9);
        assert_eq!(table.len(), MOST_KEYS, "no more than it may hold");
        check(&table);
        table.with(key(first), |_| false, |state| assert_eq!(*state, 7, "it stays"));
        table.with(key(second), |_| false, |state| assert_eq!(*state, 0, "it was silent for longest"));
    }

    #[derive(Default)]
    struct Heavy(Vec<u8>);

    impl State for Heavy {
        fn bytes(&self) -> usize {
            self.0.capacity()
        }
    }

    #[test]
    fn what_keys_hold_is_bounded_too() {
        let table: Table<Heavy> = Table::new();
        for n in 0..200_000 {
            table.with(key(n), |_| false, |state| state.0 = Vec::with_capacity(1_024));
        }
        check(&table);
        let most = PARTS * MOST_BYTES;
        assert!(table.len() * 1_024 <= most && table.len() * 1_024 > most * 9 / 10, "{} keys", table.len());
        table.with(key(1), |_| false, |state| state.0 = Vec::with_capacity(2 * MOST_BYTES));
        check(&table);
        table.with(key(1), |_| false, |state| assert!(state.0.capacity() > 0, "who is asked for stays"));
    }
}
