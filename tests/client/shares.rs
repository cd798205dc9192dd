//! The same requests, to a pool of the library and to one of the program: both send each backend the same share.
//!
//! A small world in its own time, as in benches/choosing: requests come at random, servers answer eight at once, one of them
//! is slow or fails. The library measures real time, so here it is told what answers took.

use l4lb::balance;
use l4lb::base::ids::BackendSlot;
use l4lb::base::time::Tick;
use l4lb::client::{Algorithm, Backend, Context, Lease, Pool};
use l4lb::guard::Outcome;
use l4lb::shared::backend::{BackendState, Lease as ProgramLease};
use l4lb::shared::choose::For;
use l4lb::shared::snapshot;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

const WEIGHTS: [u16; 6] = [1, 2, 1, 3, 1, 1];
const REQUESTS: usize = 30_000;
/// Requests that a server answers at once.
const SLOTS: usize = 8;
/// The mean time that it takes for one, in nanoseconds.
const SERVICE: f64 = 20e6;
/// What the program counts a failure as, at the least, in nanoseconds.
const PENALTY: f64 = 100e6;

/// Somebody who picks for a client.
trait Chooses {
    type Lease;
    fn pick(&mut self, client: Ipv4Addr) -> (usize, Self::Lease);
    fn done(lease: Self::Lease, took: f64, failed: bool);
}

struct Library(Pool);

impl Chooses for Library {
    type Lease = Lease;

    fn pick(&mut self, client: Ipv4Addr) -> (usize, Lease) {
        let lease = self.0.pick(&Context::new().client_ip(IpAddr::V4(client))).expect("all are up");
        (lease.backend().id().trim_start_matches("backend").parse().expect("a number"), lease)
    }

    fn done(mut lease: Lease, took: f64, failed: bool) {
        if failed {
            lease.failure();
        } else {
            lease.answered_after(Duration::from_nanos(took as u64));
            lease.success();
        }
    }
}

struct Program(snapshot::Pool, fastrand::Rng);

impl Chooses for Program {
    type Lease = ProgramLease;

    fn pick(&mut self, client: Ipv4Addr) -> (usize, ProgramLease) {
        let key = balance::key_of(&client.octets());
        let picked = self.0.pick(Tick(1), For { key, tried: &[], random: &mut self.1 }).expect("all are up");
        (picked.place, picked.lease)
    }

    fn done(mut lease: ProgramLease, took: f64, failed: bool) {
        let estimate = &lease.backend().estimate;
        if failed {
            estimate.failure(PENALTY, 1);
        } else {
            estimate.sample(took, 1);
        }
        lease.report(if failed { Outcome::Failure } else { Outcome::Success }, Tick(1));
    }
}

/// A request under way.
struct Job<L> {
    server: usize,
    came: f64,
    work: f64,
    fails: bool,
    lease: L,
}

#[derive(Default)]
struct Server {
    busy: usize,
    waiting: VecDeque<usize>,
}

/// The shares of the servers, of which the first one takes `slow` times as long, and fails the part `fails` at once.
fn shares<C: Chooses>(mut who: C, slow: f64, fails: f64) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(7);
    // An exponential of mean 1, a number below 1, and a client.
    let mut draw = move || (-(1.0 - random.f64()).ln(), random.f64(), random.u32(..5_000));
    let rate = 0.6 * (WEIGHTS.len() * SLOTS) as f64 / SERVICE;
    let mut servers: Vec<Server> = WEIGHTS.iter().map(|_| Server::default()).collect();
    let mut jobs: Vec<Option<Job<C::Lease>>> = Vec::new();
    // When those that are served are done, in nanoseconds, and where they are in `jobs`.
    let mut ahead: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut picks = vec![0u32; WEIGHTS.len()];
    let mut now = 0.0;
    for _ in 0..REQUESTS {
        let (gap, luck, client) = draw();
        let coming = now + gap / rate;
        while let Some(Reverse((at, number))) = ahead.peek().copied().filter(|Reverse((at, _))| *at as f64 <= coming) {
            ahead.pop();
            let Job { server, came, fails, lease, .. } = jobs[number].take().expect("it is done once");
            C::done(lease, at as f64 - came, fails);
            servers[server].busy -= 1;
            if let Some(next) = servers[server].waiting.pop_front() {
                servers[server].busy += 1;
                let work = jobs[next].as_ref().expect("it waits").work;
                ahead.push(Reverse((at + work as u64, next)));
            }
        }
        now = coming;
        let (work, _, _) = draw();
        let (server, lease) = who.pick(Ipv4Addr::from(0x0a00_0000 + client));
        picks[server] += 1;
        let fails = server == 0 && luck < fails;
        let work = if fails { 1e5 } else { work * SERVICE * if server == 0 { slow } else { 1.0 } };
        if servers[server].busy < SLOTS {
            servers[server].busy += 1;
            ahead.push(Reverse(((now + work) as u64, jobs.len())));
        } else {
            servers[server].waiting.push_back(jobs.len());
        }
        jobs.push(Some(Job { server, came: now, work, fails, lease }));
    }
    picks.iter().map(|count| f64::from(*count) / REQUESTS as f64).collect()
}

fn library(algorithm: Algorithm, hash_balance: f32) -> Library {
    let backend =
        |(n, weight): (usize, &u16)| Backend::new(format!("backend{n}"), ([192, 0, 2, n as u8], 80)).weight(*weight);
    let builder = Pool::builder("p").algorithm(algorithm).backends(WEIGHTS.iter().enumerate().map(backend));
    Library(builder.hash_balance(hash_balance).build().expect("it can be built"))
}

fn program(algorithm: balance::Algorithm, hash_balance: f32) -> Program {
    let backend = |(n, weight): (usize, &u16)| snapshot::Backend {
        id: format!("backend{n}").into(),
        address: "".into(),
        disabled: false,
        draining: false,
        checked: false,
        weight: *weight,
        addresses: Arc::new([]),
        state: BackendState::new(BackendSlot(n as u32), 0, 0, 1),
    };
    let mut pool = snapshot::Pool::over(algorithm, WEIGHTS.iter().enumerate().map(backend).collect());
    pool.hash_balance = hash_balance;
    Program(pool, fastrand::Rng::with_seed(3))
}

#[test]
fn the_library_sends_each_backend_the_share_that_the_program_sends() {
    use balance::Algorithm as Inner;
    // By chance two runs differ by some percent of a share; where none is involved, in nothing.
    let rows = [
        (Algorithm::RoundRobin, Inner::RoundRobin, 0.0, 0.0),
        (Algorithm::WeightedRoundRobin, Inner::WeightedRoundRobin, 0.0, 0.0),
        (Algorithm::LeastConnections, Inner::LeastConnections, 0.0, 0.0),
        (Algorithm::IpHash, Inner::IpHash, 0.0, 0.0),
        (Algorithm::Maglev, Inner::Maglev, 0.0, 0.0),
        (Algorithm::ConsistentHash, Inner::ConsistentHash, 0.0, 0.0),
        (Algorithm::ConsistentHash, Inner::ConsistentHash, 1.25, 0.0),
        (Algorithm::RandomTwo, Inner::RandomTwo, 0.0, 0.02),
        (Algorithm::FastestResponse, Inner::FastestResponse, 0.0, 0.05),
    ];
    assert_eq!(rows.len(), Algorithm::ALL.len() + 1, "every algorithm, and the bound");
    for (name, slow, fails) in [("all alike", 1.0, 0.0), ("the first is slow", 3.0, 0.0), ("it fails", 1.0, 0.5)] {
        for (ours, theirs, hash_balance, most) in rows {
            let found = shares(library(ours, hash_balance), slow, fails);
            let expected = shares(program(theirs, hash_balance), slow, fails);
            println!("{name:<18} {ours:<22} {hash_balance:<4} {found:.3?} {expected:.3?}");
            let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(apart <= most, "{name}, {ours}: {found:.3?}, and the program {expected:.3?}");
        }
    }
}
