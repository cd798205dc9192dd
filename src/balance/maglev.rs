//! A Maglev table: one lookup a pick, shares that are nearly exact, and a few keys that move needlessly (Eisenbud et al.,
//! "Maglev", NSDI 2016, section 3.4; weights as turns by which places fill the table).

use super::hash::{key_of, mix};
use super::{Ask, Field, Place, is_ramped};

/// Primes to choose the size of a table from: at least a hundred slots a backend (section 5.3 of the paper).
const SIZES: [u32; 4] = [65_537, 655_373, 2_621_447, 10_485_767];
/// Slots walked past before all places are looked at one by one.
const WALK: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub struct Maglev {
    slots: Slots,
    places: Box<[u32]>,
}

/// Indexes of `places`. In two bytes wherever they fit: half the memory that a pick has to fetch some of.
#[derive(Debug)]
enum Slots {
    Few(Box<[u16]>),
    Many(Box<[u32]>),
}

impl Default for Slots {
    fn default() -> Self {
        Slots::Few(Box::default())
    }
}

impl Slots {
    fn len(&self) -> usize {
        match self {
            Slots::Few(slots) => slots.len(),
            Slots::Many(slots) => slots.len(),
        }
    }

    #[inline]
    fn get(&self, at: usize) -> usize {
        match self {
            Slots::Few(slots) => usize::from(slots[at]),
            Slots::Many(slots) => slots[at] as usize,
        }
    }
}

impl Maglev {
    /// A table over `places`, whose ids are different.
    pub fn build(places: &[&Place]) -> Maglev {
        let all: Box<[u32]> = places.iter().map(|place| place.place).collect();
        if places.is_empty() {
            return Maglev::default();
        }
        let wanted = places.len() as u64 * 100;
        let size = SIZES.iter().copied().find(|size| u64::from(*size) >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
        // In the order of their ids: who comes first must not depend on where it stands in a configuration.
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by(|a, b| places[*a].id.cmp(&places[*b].id));
        let most = places.iter().map(|place| place.weight).max().unwrap_or(1);
        struct Filling {
            at: usize,
            next: u64,
            skip: u64,
            gain: f64,
            wealth: f64,
        }
        let size = u64::from(size);
        let mut filling: Vec<Filling> = order
            .into_iter()
            .map(|at| {
                let hash = key_of(places[at].id.as_bytes()).0;
                let gain = f64::from(places[at].weight) / f64::from(most);
                Filling { at, next: hash % size, skip: mix(hash) % (size - 1) + 1, gain, wealth: 0.0 }
            })
            .collect();
        let mut slots = vec![u32::MAX; size as usize];
        let mut left = size;
        'rounds: loop {
            for one in &mut filling {
                one.wealth += one.gain;
                if one.wealth < 1.0 {
                    continue;
                }
                one.wealth -= 1.0;
                while slots[one.next as usize] != u32::MAX {
                    one.next = (one.next + one.skip) % size;
                }
                slots[one.next as usize] = one.at as u32;
                left -= 1;
                if left == 0 {
                    break 'rounds;
                }
            }
        }
        let slots = match all.len() <= 1 << 16 {
            true => Slots::Few(slots.into_iter().map(|at| at as u16).collect()),
            false => Slots::Many(slots.into()),
        };
        Maglev { slots, places: all }
    }

    /// Each place once.
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// True when it has no place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The place of the key's slot, or of one of the slots behind it, among those that the field takes.
    pub fn pick<F: Field>(&self, field: &mut F, ask: &mut Ask<'_>) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let size = self.slots.len() as u64;
        let slot = ask.key.0 % size;
        // Other steps for other keys: those of one backend that is down are spread over all the rest.
        let step = mix(ask.key.0) % (size - 1) + 1;
        let mut at = slot;
        for _ in 0..WALK {
            let place = self.places[self.slots.get(at as usize)];
            if field.is_open(place) && is_ramped(ask.key, place, field.ramp(place)) && field.take(place) {
                return Some(place);
            }
            at = (at + step) % size;
        }
        let from = (ask.key.0 % self.places.len() as u64) as usize;
        let (before, behind) = self.places.split_at(from);
        behind.iter().chain(before).copied().find(|&place| field.take(place))
    }
}
