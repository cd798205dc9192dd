//! Requests come at random, a pool of the product chooses, servers answer; the time is its own.

use crate::server::{Job, Server, Speed};
use l4lb::balance::key_of;
use l4lb::base::time::Tick;
use l4lb::guard::Outcome;
use l4lb::shared::choose::For;
use l4lb::shared::snapshot::Pool;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Requests that a server answers at once.
const SLOTS: u32 = 8;
/// The mean time that it takes for one, in seconds; exponential.
const SERVICE: f64 = 0.020;
/// How long one takes that fails, in seconds.
const FAILURE: f64 = 0.000_1;
/// What a failure is counted as, at the least, in nanoseconds.
const PENALTY: f64 = 100e6;
/// Clients, each with a key of its own.
const CLIENTS: u64 = 20_000;

/// What is to happen. The special server is the first one.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) seconds: f64,
    /// Of what the servers can do at normal speed.
    pub(crate) load: f64,
    pub(crate) special: Vec<Speed>,
    /// The share of its requests that the special server fails.
    pub(crate) fails: f64,
    /// The same for every other server.
    pub(crate) others_fail: f64,
    /// In which time shares and latencies are counted, in seconds.
    pub(crate) window: (f64, f64),
}

/// What came of it, within the window.
pub(crate) struct Found {
    /// Of all requests, by server.
    pub(crate) shares: Vec<f64>,
    /// Of those that did not fail, in milliseconds, sorted.
    latencies: Vec<f32>,
}

impl Found {
    /// Latency below which that part of the requests lies, in milliseconds.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let at = (self.latencies.len() as f64 * part) as usize;
        self.latencies.get(at.min(self.latencies.len().saturating_sub(1))).map_or(f64::NAN, |ms| f64::from(*ms))
    }
}

/// When the job of a server is done. The soonest is the greatest, as the heap wants it.
struct Done {
    at: f64,
    server: usize,
    job: Job,
}

impl PartialEq for Done {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Done {}
impl PartialOrd for Done {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Done {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.total_cmp(&self.at)
    }
}

/// Lets it happen.
pub(crate) fn run(pool: &Pool, script: &Script, seed: u64) -> Found {
    let n = pool.backends.len();
    let special = |at: usize| if at == 0 { &script.special[..] } else { &[] };
    let mut servers: Vec<Server> = (0..n).map(|at| Server::new(SLOTS, special(at))).collect();
    // What comes and what is chosen have chances of their own, so that all algorithms are given the same requests.
    let mut world = fastrand::Rng::with_seed(seed);
    let mut choice = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let rate = script.load * n as f64 * f64::from(SLOTS) / SERVICE;
    let mut picks = vec![0u64; n];
    let mut latencies = Vec::new();
    let mut ahead: BinaryHeap<Done> = BinaryHeap::new();
    let mut coming = 0.0;
    let within = |at: f64| at >= script.window.0 && at < script.window.1;
    while coming < script.seconds {
        if ahead.peek().is_some_and(|done| done.at <= coming) {
            let Some(Done { at, server, mut job }) = ahead.pop() else { break };
            let took = at - job.came;
            let state = job.lease.backend();
            if job.fails {
                state.estimate.failure(PENALTY, tick(at).0);
            } else {
                state.estimate.sample(took * 1e9, tick(at).0);
                if within(job.came) {
                    latencies.push((took * 1e3) as f32);
                }
            }
            job.lease.report(if job.fails { Outcome::Failure } else { Outcome::Success }, tick(at));
            drop(job);
            ahead.extend(servers[server].next(at).map(|(at, job)| Done { at, server, job }));
            continue;
        }
        let (client, work, luck) = (world.u64(..CLIENTS), exponential(&mut world) * SERVICE, world.f64());
        let whom = For { key: key_of(&client.to_le_bytes()), tried: &[], random: &mut choice };
        if let Ok(picked) = pool.pick(tick(coming), whom) {
            let server = picked.place;
            let fails = luck < if server == 0 { script.fails } else { script.others_fail };
            let work = if fails { FAILURE } else { work };
            picks[server] += u64::from(within(coming));
            let job = Job { came: coming, work, fails, lease: picked.lease };
            ahead.extend(servers[server].come(job, coming).map(|(at, job)| Done { at, server, job }));
        }
        coming += exponential(&mut world) / rate;
    }
    latencies.sort_unstable_by(f32::total_cmp);
    let all: u64 = picks.iter().sum();
    Found { shares: picks.iter().map(|picks| *picks as f64 / all as f64).collect(), latencies }
}

fn tick(seconds: f64) -> Tick {
    Tick((seconds * 1e3) as u64)
}

/// Exponential, of mean 1.
fn exponential(random: &mut fastrand::Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}
