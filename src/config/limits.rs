//! `rate_limit` of a listener or a pool: how many may begin in a time, and whose share that is.

use std::fmt;
use std::time::Duration;

use super::error::Fault;
use super::keys::Scope;
use super::reader::{Noted, Open, Reader};
use crate::guard::MOST_LOGGED;

/// `rate_limit`.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// What is allowed.
    pub algorithm: LimitAlgorithm,
    /// To whom.
    pub key: LimitKey,
}

/// What a [`RateLimit`] allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LimitAlgorithm {
    /// A burst of `capacity`, and `refill_rate` a second.
    TokenBucket {
        /// 1 to 1,000,000.
        capacity: u32,
        /// A second; 0.001 to 1,000,000.
        refill_rate: f64,
    },
    /// At most so many in any time of this length.
    SlidingWindow {
        /// 1 to 1,000,000; to 10,000 where each key has its own.
        max_requests: u32,
        /// 1 ms to ten years.
        window: Duration,
    },
    /// One after the other at a rate. HTTP: a request waits for its turn.
    LeakyBucket {
        /// The most that wait, 1 to 1,000,000; for TCP and UDP, that are let in at once.
        capacity: u32,
        /// A second; 0.001 to 1,000,000.
        leak_rate: f64,
    },
}

impl LimitAlgorithm {
    /// The name of each, in the order of the manual.
    pub const NAMES: [&'static str; 3] = ["token_bucket", "sliding_window", "leaky_bucket"];

    /// As typed in a file.
    pub fn name(self) -> &'static str {
        match self {
            LimitAlgorithm::TokenBucket { .. } => Self::NAMES[0],
            LimitAlgorithm::SlidingWindow { .. } => Self::NAMES[1],
            LimitAlgorithm::LeakyBucket { .. } => Self::NAMES[2],
        }
    }
}

/// Who shares what a [`RateLimit`] allows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// All clients.
    All,
    /// Those with one address.
    ClientIp,
    /// HTTP: requests with one value of the header field of this name, which is in lower case; requests without it, those
    /// of one address.
    Header(String),
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitKey::All => f.write_str("all"),
            LimitKey::ClientIp => f.write_str("client_ip"),
            LimitKey::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// `rate_limit`, with the `usual` algorithm and key where it says nothing of them. Also where its key stands, for whoever
/// knows what speaks HTTP.
pub(super) fn rate_limit(
    r: &mut Reader<'_>,
    t: &Open<'_>,
    usual: (&'static str, LimitKey),
) -> (RateLimit, Option<Noted<LimitKey>>) {
    let told = r.has(t, "algorithm");
    let algorithm = r.choice(t, "algorithm");
    // What could not be read may be any; so may what stands on a line that could not be.
    let sure = if told { algorithm.is_some() } else { !r.partial() };
    let algorithm = algorithm.unwrap_or(usual.0);
    if sure {
        r.misplaced(t, |scope| {
            let of = match (scope, algorithm) {
                (Scope::TokenBucket, "sliding_window" | "leaky_bucket") => "token_bucket",
                (Scope::SlidingWindow, "token_bucket" | "leaky_bucket") => "sliding_window",
                (Scope::LeakyBucket, "token_bucket" | "sliding_window") => "leaky_bucket",
                (Scope::Buckets, "sliding_window") => "token_bucket and leaky_bucket",
                _ => return None,
            };
            Some(if told { Fault::OtherLimit { of, algorithm } } else { Fault::UsualLimit { of, algorithm } })
        });
    }
    let reads = |algorithms: &[&str]| !sure || algorithms.contains(&algorithm);
    let key = r.limit_key(t, "key");
    let whose = key.as_ref().map_or(usual.1, |key| key.value.clone());
    let mut capacity = None;
    if reads(&["token_bucket", "leaky_bucket"]) {
        capacity = r.integer(t, "capacity");
    }
    let capacity = capacity.unwrap_or(100);
    let (mut refill_rate, mut leak_rate) = (None, None);
    if reads(&["token_bucket"]) {
        refill_rate = r.fraction(t, "refill_rate");
    }
    if reads(&["leaky_bucket"]) {
        leak_rate = r.fraction(t, "leak_rate");
    }
    let (mut max_requests, mut window) = (None, None);
    if reads(&["sliding_window"]) {
        max_requests = r.noted_integer::<u32>(t, "max_requests");
        window = r.duration(t, "window");
    }
    if sure && algorithm == "sliding_window" {
        r.demand(t, "max_requests");
        r.demand(t, "window");
        if let Some(max) = max_requests.as_ref().filter(|max| max.value > MOST_LOGGED && whose != LimitKey::All) {
            r.report(max.at, max.place.clone(), Fault::TooManyForEach { found: max.value, most: MOST_LOGGED });
        }
    }
    let algorithm = match algorithm {
        "token_bucket" => LimitAlgorithm::TokenBucket { capacity, refill_rate: refill_rate.unwrap_or(10.0) },
        "leaky_bucket" => LimitAlgorithm::LeakyBucket { capacity, leak_rate: leak_rate.unwrap_or(5.0) },
        "sliding_window" => LimitAlgorithm::SlidingWindow {
            max_requests: max_requests.map_or(1, |max| max.value),
            window: window.unwrap_or(Duration::from_secs(1)),
        },
        other => unreachable!("{other} is in the table of keys, but not read"),
    };
    (RateLimit { algorithm, key: whose }, key)
}
