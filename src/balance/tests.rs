//! What all pickers promise, and what each promises for itself.

use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

const ALL: [Algorithm; 8] = [
    Algorithm::RoundRobin,
    Algorithm::WeightedRoundRobin,
    Algorithm::IpHash,
    Algorithm::LeastConnections,
    Algorithm::ConsistentHash,
    Algorithm::Maglev,
    Algorithm::RandomTwo,
    Algorithm::FastestResponse,
];
const HASHING: [Algorithm; 3] = [Algorithm::IpHash, Algorithm::ConsistentHash, Algorithm::Maglev];

/// Places that a test opens, fills and slows down.
#[derive(Clone)]
struct Sketch {
    open: Vec<bool>,
    active: Vec<u32>,
    limit: u32,
    expected: Vec<f64>,
    ramp: Vec<f32>,
}

impl Sketch {
    fn new(n: usize) -> Sketch {
        Sketch { open: vec![true; n], active: vec![0; n], limit: u32::MAX, expected: vec![1e6; n], ramp: vec![1.0; n] }
    }
}

impl Field for Sketch {
    fn is_open(&self, place: u32) -> bool {
        self.open[place as usize] && self.active[place as usize] < self.limit
    }
    fn take(&mut self, place: u32) -> bool {
        let open = self.is_open(place);
        self.active[place as usize] += u32::from(open);
        open
    }
    fn active(&self, place: u32) -> u32 {
        self.active[place as usize]
    }
    fn expected(&self, place: u32) -> f64 {
        self.expected[place as usize]
    }
    fn ramp(&self, place: u32) -> f32 {
        self.ramp[place as usize]
    }
}

fn places(weights: &[u16]) -> Vec<Place> {
    let place = |(at, weight): (usize, &u16)| Place { place: at as u32, id: format!("backend{at}"), weight: *weight };
    weights.iter().enumerate().map(place).collect()
}

struct Chance(AtomicU64, fastrand::Rng);

impl Chance {
    fn new() -> Chance {
        Chance(AtomicU64::new(0), fastrand::Rng::with_seed(7))
    }

    fn ask(&mut self, key: u64) -> Ask<'_> {
        Ask { key: key_of(&key.to_le_bytes()), turn: &self.0, random: &mut self.1, bound: None }
    }
}

/// Where each of `keys` keys goes, on a field that remembers nothing.
fn spread(picker: &Picker, field: &Sketch, keys: u64) -> Vec<u32> {
    let mut chance = Chance::new();
    (0..keys).map(|key| picker.pick(&mut field.clone(), &mut chance.ask(key)).unwrap()).collect()
}

fn shares(picks: &[u32], n: usize) -> Vec<f64> {
    let mut shares = vec![0.0; n];
    picks.iter().for_each(|place| shares[*place as usize] += 1.0 / picks.len() as f64);
    shares
}

#[test]
fn shares_go_by_weight() {
    // How far a share may lie from what its weight says, as a part of it.
    let rows = [
        (Algorithm::WeightedRoundRobin, 0.001),
        (Algorithm::IpHash, 0.05),
        (Algorithm::Maglev, 0.05),
        (Algorithm::ConsistentHash, 0.15),
    ];
    for weights in [&[1, 1, 1, 1, 1][..], &[5, 1, 1], &[100, 50, 25, 25]] {
        let sum: u16 = weights.iter().sum();
        for (algorithm, off) in rows {
            let picker = Picker::build(algorithm, &places(weights));
            let found = shares(&spread(&picker, &Sketch::new(weights.len()), 100_000), weights.len());
            for (share, weight) in found.iter().zip(weights) {
                let due = f64::from(*weight) / f64::from(sum);
                assert!((share / due - 1.0).abs() < off, "{algorithm:?} {weights:?}: {found:?}");
            }
        }
    }
}

#[test]
fn weights_shape_what_is_in_flight() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::RandomTwo] {
        let picker = Picker::build(algorithm, &places(&[3, 1, 1, 1]));
        let (mut field, mut chance) = (Sketch::new(4), Chance::new());
        for key in 0..6_000 {
            picker.pick(&mut field, &mut chance.ask(key)).unwrap();
        }
        for (place, due) in [3_000i32, 1_000, 1_000, 1_000].into_iter().enumerate() {
            let off = (field.active[place] as i32 - due).abs();
            let most = if algorithm == Algorithm::LeastConnections { 1 } else { 30 };
            assert!(off <= most, "{algorithm:?}: {:?}", field.active);
        }
    }
}

#[test]
fn two_processes_agree() {
    for algorithm in HASHING {
        let ours = places(&[1, 2, 3, 1, 1, 5, 1, 1, 1, 1]);
        let mut theirs = ours.clone();
        theirs.reverse();
        // The other one has them in another order, under other numbers.
        let numbers: Vec<u32> = theirs.iter().map(|place| place.place).collect();
        for (at, place) in theirs.iter_mut().enumerate() {
            place.place = at as u32;
        }
        let field = Sketch::new(10);
        let one = spread(&Picker::build(algorithm, &ours), &field, 10_000);
        let other = spread(&Picker::build(algorithm, &theirs), &field, 10_000);
        let other: Vec<u32> = other.iter().map(|place| numbers[*place as usize]).collect();
        assert_eq!(one, other, "{algorithm:?}");
    }
}

#[test]
fn when_one_of_many_leaves_few_keys_move() {
    for n in [3usize, 10, 100] {
        for algorithm in HASHING {
            let all = places(&vec![1; n]);
            let before = spread(&Picker::build(algorithm, &all), &Sketch::new(n), 50_000);
            let gone = (n / 2) as u32;
            let rest: Vec<Place> = all.into_iter().filter(|place| place.place != gone).collect();
            let removed = spread(&Picker::build(algorithm, &rest), &Sketch::new(n), 50_000);
            let mut field = Sketch::new(n);
            field.open[gone as usize] = false;
            let down = spread(&Picker::build(algorithm, &places(&vec![1; n])), &field, 50_000);
            for (what, after) in [("removed", removed), ("down", down)] {
                let mut needless = 0;
                let mut moved = 0;
                for (was, is) in before.iter().zip(&after) {
                    moved += u32::from(was != is);
                    needless += u32::from(was != is && *was != gone);
                }
                let share = f64::from(moved) / 50_000.0;
                // A backend holds a little more or less than its share of the keys itself.
                let due = shares(&before, n)[gone as usize] + 0.01;
                assert!(share <= due, "{algorithm:?}, one of {n} {what}: {share} moved");
                if algorithm == Algorithm::ConsistentHash || what == "down" {
                    assert_eq!(needless, 0, "{algorithm:?}, one of {n} {what}");
                }
            }
        }
    }
}

#[test]
fn no_backend_holds_more_than_its_bound() {
    let picker = Picker::build(Algorithm::ConsistentHash, &places(&[1, 1, 2, 4]));
    let (mut field, mut chance) = (Sketch::new(4), Chance::new());
    for active in 0..4_000u64 {
        let bound = Bound { factor: 1.25, active, weight: 8 };
        // Few keys: without a bound they would all go to one or two.
        let mut ask = Ask { bound: Some(bound), ..chance.ask(active % 2) };
        picker.pick(&mut field, &mut ask).unwrap();
        for (place, weight) in [1.0, 1.0, 2.0, 4.0].into_iter().enumerate() {
            let most = (1.25 * (active + 1) as f64 * weight / 8.0).ceil();
            assert!(f64::from(field.active[place]) <= most, "{:?} of {}", field.active, active + 1);
        }
    }
}

#[test]
fn a_wide_bound_changes_nothing() {
    let picker = Picker::build(Algorithm::ConsistentHash, &places(&[1; 7]));
    let (field, mut chance) = (Sketch::new(7), Chance::new());
    for key in 0..1_000 {
        let plain = picker.pick(&mut field.clone(), &mut chance.ask(key));
        let bound = Some(Bound { factor: 100.0, active: 0, weight: 7 });
        assert_eq!(picker.pick(&mut field.clone(), &mut Ask { bound, ..chance.ask(key) }), plain);
    }
}

#[test]
fn one_that_starts_slowly_bears_a_part_of_its_share() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::IpHash, Algorithm::ConsistentHash, Algorithm::Maglev] {
        let picker = Picker::build(algorithm, &places(&[1; 5]));
        let mut field = Sketch::new(5);
        let before = spread(&picker, &field, 20_000);
        field.ramp[2] = 0.25;
        let after = spread(&picker, &field, 20_000);
        let (full, part) = (shares(&before, 5)[2], shares(&after, 5)[2]);
        // Of turns, what it gives up goes to all: a quarter of one against four whole ones.
        let due = if algorithm == Algorithm::RoundRobin { 0.25 / 4.25 * 5.0 } else { 0.25 };
        assert!((part / full - due).abs() < 0.05, "{algorithm:?}: {part} of {full}");
        if HASHING.contains(&algorithm) {
            let others = before.iter().zip(&after).filter(|(was, is)| was != is && **was != 2).count();
            assert_eq!(others, 0, "{algorithm:?}: keys of others moved");
        }
    }
}

#[test]
fn of_two_the_slower_is_left_alone_and_the_fuller_too() {
    let picker = Picker::build(Algorithm::FastestResponse, &places(&[1, 1]));
    let mut field = Sketch::new(2);
    field.expected = vec![1e6, 10e6];
    assert!(spread(&picker, &field, 100).iter().all(|place| *place == 0), "ten times as fast");
    field.active[0] = 20;
    assert!(spread(&picker, &field, 100).iter().all(|place| *place == 1), "and twenty times as full");
}

#[test]
fn threads_keep_least_connections_exact() {
    struct Shared<'a>(&'a [AtomicU32]);
    impl Field for Shared<'_> {
        fn is_open(&self, _: u32) -> bool {
            true
        }
        fn take(&mut self, place: u32) -> bool {
            self.0[place as usize].fetch_add(1, Relaxed);
            true
        }
        fn take_from(&mut self, place: u32, seen: u32) -> Taken {
            let took = self.0[place as usize].compare_exchange(seen, seen + 1, Relaxed, Relaxed);
            if took.is_ok() { Taken::Yes } else { Taken::Moved }
        }
        fn active(&self, place: u32) -> u32 {
            self.0[place as usize].load(Relaxed)
        }
    }
    let active: Vec<AtomicU32> = (0..7).map(|_| AtomicU32::new(0)).collect();
    let picker = Picker::build(Algorithm::LeastConnections, &places(&[1; 7]));
    let turn = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (picker, active, turn) = (&picker, &active, &turn);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..7_000 {
                    let mut ask = Ask { key: Key(0), turn, random: &mut random, bound: None };
                    picker.pick(&mut Shared(active), &mut ask).unwrap();
                }
            });
        }
    });
    let found: Vec<u32> = active.iter().map(|count| count.load(Relaxed)).collect();
    assert!(found.iter().all(|count| count.abs_diff(2_000) <= 2), "{found:?}");
}

#[test]
fn an_estimate_jumps_up_at_once_and_comes_down_with_time() {
    let (ms, s) = (1e6, 1e9);
    let estimate = Estimate::default();
    let unknown = estimate.expected(0);
    estimate.sample(20.0 * ms, 1_000);
    assert!((estimate.expected(1_000) / (20.0 * ms) - 1.0).abs() < 0.01, "the first one counts whole");
    estimate.sample(3.0 * s, 2_000);
    assert!((estimate.expected(2_000) / (3.0 * s) - 1.0).abs() < 0.01, "a slow one counts at once");
    estimate.sample(20.0 * ms, 2_001);
    assert!(estimate.expected(2_001) > 2.9 * s, "one good answer is no recovery");
    assert!(estimate.expected(62_001) < 20.0 * ms, "a minute without an answer is: it is tried again");
    for at in 0..1_000 {
        estimate.sample(20.0 * ms, 2_001 + at * 60);
    }
    assert!((estimate.expected(62_001) / (20.0 * ms) - 1.0).abs() < 0.5, "{}", estimate.expected(62_001));
    assert!(unknown < 20.0 * ms, "one that nothing is known of is tried");
    estimate.failure(1.0 * s, 62_001);
    assert!(estimate.expected(62_001) > 0.99 * s, "a failure is never fast");
}

#[test]
fn an_estimate_outlives_the_turn_of_its_clock() {
    let estimate = Estimate::default();
    let late = u64::from(u32::MAX) - 10;
    estimate.sample(5e6, late);
    assert!(estimate.expected(late + 20) > 4.9e6);
    estimate.sample(4e6, late + 20);
    assert!(estimate.expected(late + 20) > 3.9e6);
}

proptest! {
    #[test]
    fn picking_is_total(
        weights in prop::collection::vec(0u16..=4, 0..90),
        open in prop::collection::vec(any::<bool>(), 90),
        ramp in prop::collection::vec(0.01f32..=1.0, 90),
        key: u64,
    ) {
        let mut field = Sketch::new(90);
        field.open = open;
        field.ramp = ramp;
        for algorithm in ALL {
            let all = places(&weights);
            let picker = Picker::build(algorithm, &all);
            let mut chance = Chance::new();
            let there: Vec<u32> =
                all.iter().filter(|p| p.weight > 0 && field.open[p.place as usize]).map(|p| p.place).collect();
            for key in [key, key ^ 1, !key] {
                let picked = picker.pick(&mut field.clone(), &mut chance.ask(key));
                match picked {
                    Some(place) => prop_assert!(there.contains(&place), "{:?} picked {}", algorithm, place),
                    None => prop_assert!(there.is_empty(), "{:?} picked nobody of {:?}", algorithm, there),
                }
            }
            prop_assert_eq!(picker.is_empty(), weights.iter().all(|weight| *weight == 0));
        }
    }
}
