//! What all pickers promise, and what each promises for itself.

use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;
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
    /// What is taken is not counted.
    forgets: bool,
}

impl Sketch {
    fn new(n: usize) -> Sketch {
        Sketch {
            open: vec![true; n],
            active: vec![0; n],
            limit: u32::MAX,
            expected: vec![1e6; n],
            ramp: vec![1.0; n],
            forgets: false,
        }
    }
}

impl Field for Sketch {
    fn is_open(&self, place: u32) -> bool {
        self.open[place as usize] && self.active[place as usize] < self.limit
    }
    fn take(&mut self, place: u32) -> bool {
        let open = self.is_open(place);
        self.active[place as usize] += u32::from(open && !self.forgets);
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
    let (mut chance, mut field) = (Chance::new(), Sketch { forgets: true, ..field.clone() });
    (0..keys).map(|key| picker.pick(&mut field, &mut chance.ask(key)).unwrap()).collect()
}

fn shares(picks: &[u32], n: usize) -> Vec<f64> {
    let mut shares = vec![0.0; n];
    picks.iter().for_each(|place| shares[*place as usize] += 1.0 / picks.len() as f64);
    shares
}

#[test]
fn sequences_are_exact() {
    // Nobody leaves.
    type Row = (&'static str, Algorithm, &'static [u16], &'static [u32]);
    let rows: [Row; 5] = [
        ("in turn, whatever the weight", Algorithm::RoundRobin, &[5, 1, 1], &[0, 1, 2, 0, 1, 2]),
        ("but 0 takes nothing", Algorithm::RoundRobin, &[5, 0, 1], &[0, 2, 0, 2]),
        ("smooth, as nginx has it", Algorithm::WeightedRoundRobin, &[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0, 0, 0, 1]),
        ("of equally full ones, in turn", Algorithm::LeastConnections, &[1, 1, 1], &[0, 1, 2, 0, 1, 2]),
        (
            "four times the weight bears four times as much",
            Algorithm::LeastConnections,
            &[4, 1],
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 1],
        ),
    ];
    for (why, algorithm, weights, expected) in rows {
        let picker = Picker::build(algorithm, &places(weights));
        let (mut field, mut chance) = (Sketch::new(weights.len()), Chance::new());
        let found: Vec<u32> =
            (0..expected.len()).map(|_| picker.pick(&mut field, &mut chance.ask(0)).unwrap()).collect();
        assert_eq!(found, expected, "{why}: {algorithm:?}");
    }
}

#[test]
fn two_choices_among_equals_are_chance() {
    for algorithm in [Algorithm::RandomTwo, Algorithm::FastestResponse] {
        let picker = Picker::build(algorithm, &places(&[1; 10]));
        let picks = spread(&picker, &Sketch::new(10), 20_000);
        // Nine degrees of freedom: one in a thousand lies above 27.9, and one in a thousand below 1.15, where turns lie.
        let singles = chi_square(shares(&picks, 10).iter().map(|share| share * 20_000.0), 2_000.0);
        assert!(singles > 1.15 && singles < 27.9, "{algorithm:?}: {singles}");
        // Nor does a pick tell of the next one: 99 degrees of freedom, of pairs that do not overlap.
        let mut pairs = [0.0; 100];
        picks.chunks_exact(2).for_each(|pair| pairs[(pair[0] * 10 + pair[1]) as usize] += 1.0);
        let pairs = chi_square(pairs.into_iter(), 100.0);
        assert!(pairs > 56.0 && pairs < 149.0, "{algorithm:?}: {pairs}");
    }
}

fn chi_square(found: impl Iterator<Item = f64>, due: f64) -> f64 {
    found.map(|found| (found - due) * (found - due) / due).sum()
}

#[test]
fn shares_go_by_weight() {
    // How far a share may lie from what its weight says, as a part of it.
    let rows = [
        (Algorithm::WeightedRoundRobin, 0.001),
        (Algorithm::IpHash, 0.05),
        (Algorithm::Maglev, 0.05),
        (Algorithm::ConsistentHash, 0.10),
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
fn every_process_of_every_release_picks_alike() {
    // One number for where 10,000 keys go. When one changes, keys of users move at their next update.
    let found = HASHING.map(|algorithm| {
        let picks =
            spread(&Picker::build(algorithm, &places(&[1, 2, 3, 1, 1, 5, 1, 1, 1, 1])), &Sketch::new(10), 10_000);
        key_of(&picks.iter().map(|place| *place as u8).collect::<Vec<u8>>()).0
    });
    assert_eq!(found, KNOWN);
}

const KNOWN: [u64; 3] = [5_305_629_924_614_385_571, 10_277_114_346_850_917_081, 5_305_629_924_614_385_571];

#[test]
fn when_one_of_many_leaves_few_keys_move() {
    for n in [3usize, 10, 100] {
        // What ip_hash and maglev are built from is the same.
        for algorithm in [Algorithm::ConsistentHash, Algorithm::Maglev] {
            let all = places(&vec![1; n]);
            let whole = Picker::build(algorithm, &all);
            let before = spread(&whole, &Sketch::new(n), 50_000);
            let gone = (n / 2) as u32;
            let rest: Vec<Place> = all.into_iter().filter(|place| place.place != gone).collect();
            let removed = spread(&Picker::build(algorithm, &rest), &Sketch::new(n), 50_000);
            let mut field = Sketch::new(n);
            field.open[gone as usize] = false;
            let down = spread(&whole, &field, 50_000);
            for (what, after) in [("removed", removed), ("down", down)] {
                let mut needless = 0;
                let mut moved = 0;
                for (was, is) in before.iter().zip(&after) {
                    moved += u32::from(was != is);
                    needless += u32::from(was != is && *was != gone);
                }
                let share = f64::from(moved) / 50_000.0;
                assert!(share <= 1.0 / n as f64 + 0.01, "{algorithm:?}, one of {n} {what}: {share} moved");
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

/// Another thread takes the last place within the bound, between our look and our hand.
struct Rival {
    active: [u32; 2],
    came: bool,
}

impl Field for Rival {
    fn is_open(&self, _: u32) -> bool {
        true
    }
    fn take(&mut self, place: u32) -> bool {
        self.active[place as usize] += 1 + u32::from(!std::mem::replace(&mut self.came, true));
        true
    }
    fn take_from(&mut self, place: u32, seen: u32) -> Taken {
        let active = &mut self.active[place as usize];
        *active += u32::from(!std::mem::replace(&mut self.came, true));
        if *active != seen {
            return Taken::Moved;
        }
        *active += 1;
        Taken::Yes
    }
    fn active(&self, place: u32) -> u32 {
        self.active[place as usize]
    }
}

#[test]
fn of_two_threads_one_gets_the_last_place_within_the_bound() {
    let picker = Picker::build(Algorithm::ConsistentHash, &places(&[1, 1]));
    for key in 0..20 {
        // At most ceil(1.25 * 9 / 2) = 6 each.
        let bound = Some(Bound { factor: 1.25, active: 8, weight: 2 });
        let (mut field, mut chance) = (Rival { active: [5, 5], came: false }, Chance::new());
        picker.pick(&mut field, &mut Ask { bound, ..chance.ask(key) }).unwrap();
        assert_eq!(field.active, [6, 6], "key {key}");
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
    let unknown = [0, 1].map(|active| estimate.expected(active, 0));
    estimate.sample(20.0 * ms, 1_000);
    assert!((estimate.expected(0, 1_000) / (20.0 * ms) - 1.0).abs() < 0.01, "the first one counts whole");
    estimate.sample(3.0 * s, 2_000);
    assert!((estimate.expected(0, 2_000) / (3.0 * s) - 1.0).abs() < 0.01, "a slow one counts at once");
    estimate.sample(20.0 * ms, 2_001);
    assert!(estimate.expected(0, 2_001) > 2.9 * s, "one good answer is no recovery");
    assert!(estimate.expected(0, 62_001) < 20.0 * ms, "a minute without an answer is: it is tried again");
    for at in 0..1_000 {
        estimate.sample(20.0 * ms, 2_001 + at * 60);
    }
    assert!((estimate.expected(0, 62_001) / (20.0 * ms) - 1.0).abs() < 0.5, "{}", estimate.expected(0, 62_001));
    assert!(unknown[0] < 1_000.0, "one that nothing is known of is tried, however fast others are");
    assert!(unknown[1] > 20.0 * ms, "but by one at a time");
    estimate.failure(1.0 * s, 62_001);
    assert!(estimate.expected(0, 62_001) > 0.99 * s, "a failure is never fast");
    (0..100).for_each(|_| estimate.failure(0.1 * s, 62_001));
    assert!(
        (estimate.expected(0, 62_001) / (2.0 * s) - 1.0).abs() < 0.01,
        "many are worse than one, but not without end"
    );
}

#[test]
fn an_estimate_outlives_the_turn_of_its_clock() {
    let estimate = Estimate::default();
    let late = u64::from(u32::MAX) - 10;
    estimate.sample(5e6, late);
    assert!(estimate.expected(0, late + 20) > 4.9e6);
    estimate.sample(4e6, late + 20);
    assert!(estimate.expected(0, late + 20) > 3.9e6);
}

/// Hashing pickers over some pools, built once: a table is work in a debug build, and what is to be shown of them lies in
/// the states of a pool, not in its weights.
static TABLES: LazyLock<Vec<(Vec<u16>, Picker)>> = LazyLock::new(|| {
    let mixed = |n: usize| (0..n).map(|at| (at * 7 % 5) as u16).collect::<Vec<_>>();
    let pools = [vec![], vec![0], vec![1], vec![0, 0, 3], mixed(9), mixed(90)];
    let both = |weights: Vec<u16>| {
        let build = |algorithm| Picker::build(algorithm, &places(&weights));
        [Algorithm::ConsistentHash, Algorithm::Maglev].map(|algorithm| (weights.clone(), build(algorithm)))
    };
    pools.into_iter().flat_map(both).collect()
});

/// Whoever may be picked is; and nobody is only when there is nobody.
fn total(picker: &Picker, weights: &[u16], field: &Sketch, key: u64) -> Result<(), TestCaseError> {
    let field = &mut Sketch { forgets: true, ..field.clone() };
    let there: Vec<u32> =
        (0..weights.len()).filter(|at| weights[*at] > 0 && field.open[*at]).map(|at| at as u32).collect();
    let mut chance = Chance::new();
    for key in [key, key ^ 1, !key] {
        match picker.pick(field, &mut chance.ask(key)) {
            Some(place) => prop_assert!(there.contains(&place), "{:?} picked {}", weights, place),
            None => prop_assert!(there.is_empty(), "nobody of {:?}", there),
        }
    }
    prop_assert_eq!(picker.is_empty(), weights.iter().all(|weight| *weight == 0));
    Ok(())
}

proptest! {
    #[test]
    fn picking_is_total(
        weights in prop::collection::vec(0u16..=4, 0..90),
        open in prop::collection::vec(any::<bool>(), 90),
        few: bool,
        ramp in prop::collection::vec(0.01f32..=1.0, 90),
        key: u64,
    ) {
        let mut field = Sketch { open, ramp, ..Sketch::new(90) };
        if few {
            // All but one in thirteen are down.
            field.open.iter_mut().enumerate().for_each(|(at, open)| *open &= at % 13 == 5);
        }
        for algorithm in ALL.into_iter().filter(|algorithm| !algorithm.hashes()) {
            total(&Picker::build(algorithm, &places(&weights)), &weights, &field, key)?;
        }
        for (weights, picker) in &*TABLES {
            total(picker, weights, &field, key)?;
        }
    }
}
