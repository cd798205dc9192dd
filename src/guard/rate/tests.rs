//! Each limiter against a model that keeps a plain list of all that happened, moment by moment, a million times.

use super::*;
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const SECOND: u64 = 1_000_000_000;
/// Arrivals for each kind of limit.
const ARRIVALS: usize = 1_000_000;
/// Limits that they come to, one after the other.
const LIMITS: usize = 500;

/// Rates that are whole numbers or tenths of seconds, and what a second is divided by.
const RATES: [(f64, u64, u64); 12] = [
    (0.1, 1, 10),
    (0.25, 1, 4),
    (1.0, 1, 1),
    (3.0, 3, 1),
    (7.0, 7, 1),
    (10.0, 10, 1),
    (30.0, 30, 1),
    (1_000.0, 1_000, 1),
    (1_300.0, 1_300, 1),
    (50_000.0, 50_000, 1),
    (700_000.0, 700_000, 1),
    (1_000_000.0, 1_000_000, 1),
];

/// From 1 to one of two, as often the one as the other.
fn up_to(random: &mut fastrand::Rng, few: u32, many: u32) -> u32 {
    let most = if random.bool() { few } else { many };
    random.u32(1..=most)
}

/// Time as it passes: not at all, a little, to the edge that the limit has told or next to it, or for long.
fn pass(random: &mut fastrand::Rng, now: u64, edge: u64, usual: u64) -> u64 {
    now + match random.u32(..10) {
        0 | 1 => 0,
        2 => 1,
        3 => edge,
        4 => edge.saturating_sub(1),
        5 => edge + 1,
        6 => random.u64(..=usual * 20),
        _ => random.u64(..=usual * 2),
    }
}

/// A bucket of tokens, counted in parts of one: `num` parts of `SECOND * den` come back in a nanosecond.
struct Tokens {
    parts: u128,
    most: u128,
    one: u128,
    num: u128,
    last: u64,
}

impl Tokens {
    fn new(capacity: u32, num: u64, den: u64) -> Tokens {
        let one = u128::from(SECOND * den);
        let most = one * u128::from(capacity);
        Tokens { parts: most, most, one, num: u128::from(num), last: 0 }
    }

    fn take(&mut self, now: u64) -> Result<(), u64> {
        self.parts = (self.parts + u128::from(now - self.last) * self.num).min(self.most);
        self.last = now;
        match self.parts.checked_sub(self.one) {
            Some(rest) => self.parts = rest,
            None => return Err((self.one - self.parts).div_ceil(self.num) as u64),
        }
        Ok(())
    }
}

/// Runs arrivals of a few keys through a limit, and through a model for each key, or for all.
fn compare<M>(
    each: bool,
    seed: u64,
    mut begin: impl FnMut(&mut fastrand::Rng) -> (RateRule, u64, Box<dyn Fn() -> M>),
    mut take: impl FnMut(&mut M, u64) -> Result<(), u64>,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut let_in, mut refused) = (0, 0);
    for _ in 0..LIMITS {
        let (rule, usual, model) = begin(&mut random);
        let keys = if each { 3 } else { 1 };
        let mut models: Vec<M> = (0..keys).map(|_| model()).collect();
        let limit = RateLimit::new(rule, each);
        let (mut now, mut edge) = (random.u64(..SECOND), 0);
        for _ in 0..ARRIVALS / LIMITS {
            now = pass(&mut random, now, edge, usual);
            let whose = random.usize(..keys);
            let key = limit.key_of_address([10, 0, 0, whose as u8].into());
            let told = limit.take(key, now).map_err(|many| many.wait);
            assert_eq!(told, take(&mut models[whose], now), "{rule:?}, each: {each}, at {now}");
            edge = told.err().unwrap_or(edge);
            if told.is_ok() { let_in += 1 } else { refused += 1 }
        }
        assert!(limit.keys() <= keys);
    }
    assert!(let_in > ARRIVALS / 10 && refused > ARRIVALS / 10, "{let_in} let in, {refused} refused: that shows little");
}

#[test]
fn token_buckets_are_exact() {
    for each in [false, true] {
        let begin = |random: &mut fastrand::Rng| {
            let (refill, num, den) = RATES[random.usize(..RATES.len())];
            let capacity = up_to(random, 3, 50);
            let rule = RateRule::TokenBucket { capacity, refill };
            let model: Box<dyn Fn() -> Tokens> = Box::new(move || Tokens::new(capacity, num, den));
            (rule, SECOND * den / num / 2, model)
        };
        compare(each, 1, begin, |model, now| model.take(now));
    }
}

#[test]
fn a_leaky_bucket_for_those_who_do_not_wait_is_exact() {
    for each in [false, true] {
        let begin = |random: &mut fastrand::Rng| {
            let (leak, num, den) = RATES[random.usize(..RATES.len())];
            let capacity = random.u32(1..=5);
            let rule = RateRule::LeakyBucket { capacity, leak };
            // What has leaked out is room, as a token that came back is.
            let model: Box<dyn Fn() -> Tokens> = Box::new(move || Tokens::new(capacity, num, den));
            (rule, SECOND * den / num / 2, model)
        };
        compare(each, 2, begin, |model, now| model.take(now));
    }
}

#[test]
fn sliding_windows_are_exact() {
    for each in [false, true] {
        let begin = |random: &mut fastrand::Rng| {
            let max = up_to(random, 3, 40);
            let span = [1_000_000, 10_000_000, SECOND, 60 * SECOND][random.usize(..4)] + random.u64(..3);
            let rule = RateRule::SlidingWindow { max, window: Duration::from_nanos(span) };
            let model: Box<dyn Fn() -> (u32, u64, Vec<u64>)> = Box::new(move || (max, span, Vec::new()));
            (rule, span / u64::from(max) / 2, model)
        };
        compare(each, 3, begin, |(max, span, let_in), now| {
            // Those who came in the window that ends now; exactly a window ago is outside.
            let inside: Vec<u64> = let_in.iter().copied().filter(|at| at + *span > now).collect();
            if inside.len() >= *max as usize {
                return Err(inside[0] + *span - now);
            }
            let_in.retain(|at| inside.contains(at));
            let_in.push(now);
            Ok(())
        });
    }
}

/// Those who wait, by when they leave; and those moments that were given back.
#[derive(Default)]
struct Line {
    waiting: BTreeSet<u64>,
    free: BTreeSet<u64>,
    last: Option<u64>,
}

impl Line {
    /// When the next one leaves, with a `step` between any two; what it would have to wait for a place if there is none.
    fn join(&mut self, capacity: usize, step: u64, now: u64) -> Result<u64, u64> {
        self.waiting.retain(|at| *at > now);
        self.free.retain(|at| *at >= now);
        if let Some(at) = self.free.pop_first() {
            self.waiting.insert(at);
            return Ok(at);
        }
        let at = self.last.map_or(now, |last| now.max(last + step));
        // As many as wait now, and this one.
        if at > now && self.waiting.len() == capacity {
            return Err(at - now - capacity as u64 * step);
        }
        self.waiting.insert(at);
        self.last = Some(at);
        Ok(at)
    }
}

#[test]
fn a_queue_lets_go_at_its_pace_and_a_place_that_is_left_goes_to_the_next() {
    for each in [false, true] {
        let mut random = fastrand::Rng::with_seed(4);
        let (mut at_once, mut waited, mut refused, mut given_up) = (0, 0, 0, 0);
        for _ in 0..LIMITS {
            let (leak, step) =
                [(1.0, SECOND), (10.0, SECOND / 10), (1e6, 1_000), (0.1, 10 * SECOND)][random.usize(..4)];
            let capacity = up_to(&mut random, 3, 30);
            let limit = RateLimit::new(RateRule::LeakyBucket { capacity, leak }, each);
            let mut models: Vec<Line> = (0..3).map(|_| Line::default()).collect();
            let mut inside: Vec<(usize, u64, Slot)> = Vec::new();
            let (mut now, mut edge) = (random.u64(..SECOND), 0);
            for _ in 0..ARRIVALS / LIMITS {
                now = pass(&mut random, now, edge, step / 2);
                for (_, at, slot) in inside.extract_if(.., |(_, at, _)| *at <= now) {
                    assert_eq!(slot.wait(at), 0);
                    assert_eq!(slot.wait(at - 1), 1, "not a moment earlier");
                    slot.leave();
                }
                if random.u32(..5) == 0 && !inside.is_empty() {
                    let (whose, at, slot) = inside.swap_remove(random.usize(..inside.len()));
                    drop(slot);
                    models[whose].waiting.remove(&at);
                    models[whose].free.insert(at);
                    given_up += 1;
                }
                let whose = if each { random.usize(..3) } else { 0 };
                let told = limit.queue(limit.key_of_bytes(&[whose as u8]), now);
                let expected = models[whose].join(capacity as usize, step, now);
                let got = told.as_ref().map(|slot| now + slot.as_ref().map_or(0, |slot| slot.wait(now)));
                assert_eq!(got.map_err(|many| many.wait), expected, "{capacity} at {leak}, each: {each}, at {now}");
                match told {
                    Ok(Some(slot)) => {
                        edge = slot.wait(now);
                        inside.push((whose, now + edge, slot));
                        waited += 1;
                    }
                    Ok(None) => at_once += 1,
                    Err(many) => {
                        edge = many.wait;
                        refused += 1;
                    }
                }
            }
        }
        let all = [at_once, waited, refused, given_up];
        assert!(all.iter().all(|count| *count > ARRIVALS / 50), "{all:?}: some of it was hardly tried");
    }
}

/// How many of two threads that come as fast as they can are let in at each of these moments.
fn race(limit: &RateLimit, key: RateKey, moments: &[u64], tries: u64) -> Vec<u64> {
    let counts: Vec<AtomicU64> = moments.iter().map(|_| AtomicU64::new(0)).collect();
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for (now, count) in moments.iter().zip(&counts) {
                    barrier.wait();
                    let let_in = (0..tries).filter(|_| limit.take(key, *now).is_ok()).count();
                    count.fetch_add(let_in as u64, SeqCst);
                    barrier.wait();
                }
            });
        }
    });
    counts.into_iter().map(AtomicU64::into_inner).collect()
}

#[test]
fn two_threads_share_a_limit_exactly() {
    let token = RateRule::TokenBucket { capacity: 100, refill: 1_000.0 };
    let window = RateRule::SlidingWindow { max: 100, window: Duration::from_millis(100) };
    let leaky = RateRule::LeakyBucket { capacity: 100, leak: 1_000.0 };
    let moments: Vec<u64> = (1..400).map(|step| step * 50_000_000).collect();
    for each in [false, true] {
        let key = |limit: &RateLimit| limit.key_of_address([192, 0, 2, 1].into());
        for (why, rule, first, then) in [
            ("50 come back in 50 ms", token, 100, [50, 50]),
            ("50 leak in 50 ms", leaky, 100, [50, 50]),
            ("all of them at every second moment", window, 100, [0, 100]),
        ] {
            let limit = RateLimit::new(rule, each);
            let counts = race(&limit, key(&limit), &moments, 150);
            assert_eq!(counts[0], first, "{why}, each: {each}");
            for (at, count) in counts.iter().enumerate().skip(1) {
                assert_eq!(*count, then[(at + 1) % 2], "{why}, each: {each}, the {at}th moment");
            }
        }
    }
}

#[test]
fn one_at_a_time_is_one_also_for_two_threads() {
    let limit = RateLimit::new(RateRule::SlidingWindow { max: 1, window: Duration::from_millis(1) }, false);
    let moments: Vec<u64> = (0..2_000).map(|step| step * 1_000_000).collect();
    assert!(race(&limit, RateKey::default(), &moments, 20).iter().all(|count| *count == 1));
}

#[test]
fn two_threads_never_wait_for_one_moment() {
    let limit = RateLimit::new(RateRule::LeakyBucket { capacity: 50_000, leak: 1_000.0 }, false);
    let taken = |gives_up: bool| {
        let limit = &limit;
        move || {
            let mut random = fastrand::Rng::with_seed(u64::from(gives_up));
            let mut inside: Vec<Slot> = Vec::new();
            for _ in 0..20_000 {
                inside.extend(limit.queue(RateKey::default(), 5).ok().flatten());
                if gives_up && random.bool() && !inside.is_empty() {
                    drop(inside.swap_remove(random.usize(..inside.len())));
                }
            }
            inside
        }
    };
    let inside: Vec<Slot> = std::thread::scope(|scope| {
        let threads = [scope.spawn(taken(true)), scope.spawn(taken(false))];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let moments: BTreeSet<u64> = inside.iter().map(|slot| slot.wait(5)).collect();
    assert_eq!(moments.len(), inside.len(), "a moment was given twice");
    assert!(inside.len() > 25_000);
}

#[test]
fn an_earlier_time_of_another_thread_gives_nothing_twice() {
    for each in [false, true] {
        for rule in [
            RateRule::TokenBucket { capacity: 2, refill: 1.0 },
            RateRule::SlidingWindow { max: 2, window: Duration::from_secs(1) },
            RateRule::LeakyBucket { capacity: 2, leak: 1.0 },
        ] {
            let limit = RateLimit::new(rule, each);
            let times = [9 * SECOND, 9 * SECOND - 5, 8 * SECOND, 9 * SECOND, 9 * SECOND - 7, 9 * SECOND];
            let let_in = times.into_iter().filter(|now| limit.take(RateKey::default(), *now).is_ok()).count();
            assert_eq!(let_in, 2, "{rule:?}, each: {each}");
        }
    }
}

#[test]
fn keys_are_whole_addresses_and_digests() {
    let limit = RateLimit::new(RateRule::TokenBucket { capacity: 1, refill: 1.0 }, true);
    let rows = [
        ("IPv4", "192.0.2.1", true),
        ("the same, as an IPv6 socket sees it", "::ffff:192.0.2.1", false),
        ("another one", "192.0.2.2", true),
        ("IPv6", "2001:db8::1", true),
        ("the same network, and another address", "2001:db8::2", true),
        ("the same again", "2001:db8::2", false),
    ];
    for (why, ip, let_in) in rows {
        let key = limit.key_of_address(ip.parse().unwrap());
        assert_eq!(limit.take(key, 0).is_ok(), let_in, "{why}");
    }
    let digest = |bytes: &[u8]| limit.key_of_bytes(bytes);
    assert_eq!(digest(b"a"), digest(b"a"));
    assert!(digest(b"a") != digest(b"b") && digest(b"a") != digest(b""));
    let other = RateLimit::new(RateRule::TokenBucket { capacity: 1, refill: 1.0 }, true);
    assert!(digest(b"a") != other.key_of_bytes(b"a"), "each limit has secrets of its own");
}

#[test]
fn seconds_are_rounded_up() {
    let rows = [(0, 1), (1, 1), (SECOND, 1), (SECOND + 1, 2), (90 * SECOND, 90)];
    for (wait, seconds) in rows {
        assert_eq!(TooMany { wait }.seconds(), seconds, "{wait}");
    }
}
