//! A slab whose keys carry a generation and whose memory goes back when it empties.
//!
//! Values live in pages of [`PAGE`] slots. Growing never moves a value (so memory is not doubled at every step), and a
//! page whose last value leaves is freed, but for one: 100,000 sessions that came and went leave nothing behind.

use std::marker::PhantomData;

/// Slots a page.
pub const PAGE: usize = 128;
/// The last generation before they begin again at 1: one bit stays free for poll tokens.
pub const MOST_GENERATION: u32 = u32::MAX >> 1;

/// What a slab hands out: an index, and which tenant of that slot is meant.
pub trait Key: Copy + Eq {
    /// A key from its parts.
    fn new(index: u32, generation: u32) -> Self;
    /// The slot.
    fn index(self) -> u32;
    /// The tenant, 1 to [`MOST_GENERATION`].
    fn generation(self) -> u32;
}

enum Slot<V> {
    /// The next free slot of the page; `PAGE` ends the list.
    Free(u32),
    Held {
        generation: u32,
        value: V,
    },
}

struct Page<V> {
    slots: Box<[Slot<V>]>,
    first_free: u32,
    held: u32,
}

impl<V> Page<V> {
    fn new() -> Self {
        Page { slots: (1..=PAGE as u32).map(Slot::Free).collect(), first_free: 0, held: 0 }
    }
}

/// See the module.
pub struct Slab<K, V> {
    pages: Vec<Option<Page<V>>>,
    /// Pages that may have a free slot, each listed once.
    open: Vec<u32>,
    /// Pages that are allocated and hold nothing.
    empty: usize,
    len: usize,
    generation: u32,
    key: PhantomData<fn() -> K>,
}

impl<K: Key, V> Default for Slab<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key, V> Slab<K, V> {
    /// An empty slab; allocates nothing.
    pub fn new() -> Self {
        Slab { pages: Vec::new(), open: Vec::new(), empty: 0, len: 0, generation: 0, key: PhantomData }
    }

    /// How many values are held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts in what `make` builds from the key it will have.
    pub fn insert_with(&mut self, make: impl FnOnce(K) -> V) -> K {
        let number = match self.open.last() {
            Some(&number) => number,
            None => {
                let number = self.pages.len() as u32;
                self.pages.push(None);
                self.open.push(number);
                number
            }
        };
        let page = self.pages[number as usize].get_or_insert_with(|| {
            self.empty += 1;
            Page::new()
        });
        let at = page.first_free;
        // Skips 0, which tokens keep for what is no link.
        self.generation = self.generation % MOST_GENERATION + 1;
        let key = K::new(number * PAGE as u32 + at, self.generation);
        let value = make(key);
        let slot = &mut page.slots[at as usize];
        let Slot::Free(next) = *slot else { unreachable!("the free list names held slot {at}") };
        page.first_free = next;
        *slot = Slot::Held { generation: self.generation, value };
        if page.held == 0 {
            self.empty -= 1;
        }
        page.held += 1;
        if page.first_free == PAGE as u32 {
            self.open.pop();
        }
        self.len += 1;
        key
    }

    /// Puts a value in.
    pub fn insert(&mut self, value: V) -> K {
        self.insert_with(|_| value)
    }

    fn place(key: K) -> (usize, usize) {
        let index = key.index() as usize;
        (index / PAGE, index % PAGE)
    }

    /// The value of `key`, or `None` when it is gone.
    #[inline]
    pub fn get(&self, key: K) -> Option<&V> {
        let (page, slot) = Self::place(key);
        match self.pages.get(page)?.as_ref()?.slots.get(slot)? {
            Slot::Held { generation, value } if *generation == key.generation() => Some(value),
            _ => None,
        }
    }

    /// The value of `key`, or `None` when it is gone.
    #[inline]
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let (page, slot) = Self::place(key);
        held_mut(self.pages.get_mut(page)?.as_mut()?.slots.get_mut(slot)?, key.generation())
    }

    /// Two values at once; `None` when one is gone or both keys name the same slot.
    pub fn pair_mut(&mut self, a: K, b: K) -> Option<(&mut V, &mut V)> {
        let ((page_a, slot_a), (page_b, slot_b)) = (Self::place(a), Self::place(b));
        let (one, two) = if page_a == page_b {
            let slots = &mut self.pages.get_mut(page_a)?.as_mut()?.slots;
            let [one, two] = slots.get_disjoint_mut([slot_a, slot_b]).ok()?;
            (one, two)
        } else {
            let [one, two] = self.pages.get_disjoint_mut([page_a, page_b]).ok()?;
            (one.as_mut()?.slots.get_mut(slot_a)?, two.as_mut()?.slots.get_mut(slot_b)?)
        };
        Some((held_mut(one, a.generation())?, held_mut(two, b.generation())?))
    }

    /// Takes the value of `key` out, or `None` when it is gone.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let (number, at) = Self::place(key);
        let page = self.pages.get_mut(number)?.as_mut()?;
        let slot = page.slots.get_mut(at)?;
        if !matches!(slot, Slot::Held { generation, .. } if *generation == key.generation()) {
            return None;
        }
        let was_full = page.first_free == PAGE as u32;
        let Slot::Held { value, .. } = std::mem::replace(slot, Slot::Free(page.first_free)) else { return None };
        page.first_free = at as u32;
        page.held -= 1;
        self.len -= 1;
        if was_full {
            self.open.push(number as u32);
        }
        if page.held == 0 {
            // One empty page stays, so that a single session that comes and goes does not allocate each time.
            if self.empty == 0 {
                self.empty = 1;
            } else {
                self.pages[number] = None;
            }
        }
        Some(value)
    }

    /// Every value with its key, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.pages.iter().enumerate().flat_map(|(number, page)| {
            page.iter().flat_map(move |page| {
                page.slots.iter().enumerate().filter_map(move |(at, slot)| match slot {
                    Slot::Held { generation, value } => Some((K::new((number * PAGE + at) as u32, *generation), value)),
                    Slot::Free(_) => None,
                })
            })
        })
    }
}

#[inline]
fn held_mut<V>(slot: &mut Slot<V>, wanted: u32) -> Option<&mut V> {
    match slot {
        Slot::Held { generation, value } if *generation == wanted => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::SessionId;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn generations_begin_again_at_one() {
        let mut slab: Slab<SessionId, ()> = Slab { generation: MOST_GENERATION - 1, ..Slab::new() };
        let generations = [(); 3].map(|()| slab.insert(()).generation());
        assert_eq!(generations, [MOST_GENERATION, 1, 2]);
    }

    #[test]
    fn a_late_key_finds_nothing_never_the_successor() {
        let mut slab: Slab<SessionId, &str> = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(first.index(), second.index(), "the slot is reused, or this test shows nothing");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
    }

    #[test]
    fn a_pair_is_two_different_values_or_nothing() {
        let mut slab: Slab<SessionId, u32> = Slab::new();
        let keys: Vec<_> = (0..2 * PAGE as u32).map(|n| slab.insert(n)).collect();
        for (why, a, b) in [("one page", 0, 1), ("two pages", 0, PAGE), ("backwards", PAGE + 1, 3)] {
            let (one, two) = slab.pair_mut(keys[a], keys[b]).expect(why);
            assert_eq!((*one as usize, *two as usize), (a, b), "{why}");
        }
        assert!(slab.pair_mut(keys[0], keys[0]).is_none(), "the same one twice");
        slab.remove(keys[1]);
        assert!(slab.pair_mut(keys[0], keys[1]).is_none(), "one is gone");
    }

    #[test]
    fn pages_go_back_when_they_empty() {
        let mut slab: Slab<SessionId, u64> = Slab::new();
        let keys: Vec<_> = (0..100 * PAGE as u64).map(|n| slab.insert(n)).collect();
        for key in keys {
            slab.remove(key);
        }
        assert!(slab.is_empty());
        assert!(slab.pages.iter().flatten().count() <= 1, "at most one empty page stays");
        let key = slab.insert(1);
        assert_eq!(slab.get(key), Some(&1));
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..2000)) {
            let mut slab: Slab<SessionId, usize> = Slab::new();
            let mut model: HashMap<SessionId, usize> = HashMap::new();
            for (n, (add, which)) in steps.into_iter().enumerate() {
                if add || model.is_empty() {
                    prop_assert!(model.insert(slab.insert(n), n).is_none(), "a key was handed out twice");
                } else {
                    let mut keys: Vec<_> = model.keys().copied().collect();
                    keys.sort_by_key(|k| (k.index(), k.generation()));
                    let key = *which.get(&keys);
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                }
                prop_assert_eq!(slab.len(), model.len());
            }
            let seen: HashMap<SessionId, usize> = slab.iter().map(|(k, v)| (k, *v)).collect();
            prop_assert_eq!(seen, model);
        }
    }
}
