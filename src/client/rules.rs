//! How a pool picks and looks after its backends, as its user says it.

use crate::balance;
use crate::client::Error;
use crate::probe;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// How a pool picks. The words are those of the file of the program: `"least_connections"`.
///
/// ```
/// use l4lb::client::Algorithm;
///
/// assert_eq!("maglev".parse(), Ok(Algorithm::Maglev));
/// assert_eq!(Algorithm::RandomTwo.to_string(), "random_two");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// Each in turn, whatever its weight.
    #[default]
    RoundRobin,
    /// Each in turn by weight, smoothly.
    WeightedRoundRobin,
    /// The same client address, the same backend.
    IpHash,
    /// The one with the least in flight for its weight.
    LeastConnections,
    /// The same key, the same backend; no key moves that need not.
    ConsistentHash,
    /// The one that is expected to answer first of two taken at random.
    FastestResponse,
    /// The same key, the same backend; shares are nearly exact, and a few keys move needlessly.
    Maglev,
    /// The one with less in flight of two taken at random.
    RandomTwo,
}

/// A word that names no [`Algorithm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such algorithm; write round_robin, least_connections, or another of `Algorithm::ALL`")]
pub struct UnknownAlgorithm;

impl Algorithm {
    /// Each of them.
    pub const ALL: &'static [Algorithm] = &[
        Algorithm::RoundRobin,
        Algorithm::WeightedRoundRobin,
        Algorithm::IpHash,
        Algorithm::LeastConnections,
        Algorithm::ConsistentHash,
        Algorithm::FastestResponse,
        Algorithm::Maglev,
        Algorithm::RandomTwo,
    ];

    fn name(self) -> &'static str {
        match self {
            Algorithm::RoundRobin => "round_robin",
            Algorithm::WeightedRoundRobin => "weighted_round_robin",
            Algorithm::IpHash => "ip_hash",
            Algorithm::LeastConnections => "least_connections",
            Algorithm::ConsistentHash => "consistent_hash",
            Algorithm::FastestResponse => "fastest_response",
            Algorithm::Maglev => "maglev",
            Algorithm::RandomTwo => "random_two",
        }
    }

    pub(super) fn inner(self) -> balance::Algorithm {
        match self {
            Algorithm::RoundRobin => balance::Algorithm::RoundRobin,
            Algorithm::WeightedRoundRobin => balance::Algorithm::WeightedRoundRobin,
            Algorithm::IpHash => balance::Algorithm::IpHash,
            Algorithm::LeastConnections => balance::Algorithm::LeastConnections,
            Algorithm::ConsistentHash => balance::Algorithm::ConsistentHash,
            Algorithm::FastestResponse => balance::Algorithm::FastestResponse,
            Algorithm::Maglev => balance::Algorithm::Maglev,
            Algorithm::RandomTwo => balance::Algorithm::RandomTwo,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(word: &str) -> Result<Algorithm, UnknownAlgorithm> {
        Algorithm::ALL.iter().copied().find(|algorithm| algorithm.name() == word).ok_or(UnknownAlgorithm)
    }
}

/// When nobody is sent to a backend for a while, and when it is tried again, one call at a time.
///
/// ```
/// use l4lb::client::CircuitBreaker;
/// use std::time::Duration;
///
/// let breaker = CircuitBreaker::new().failure_threshold(3).timeout(Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    pub(super) failures: u32,
    pub(super) successes: u32,
    pub(super) timeout: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> CircuitBreaker {
        CircuitBreaker { failures: 5, successes: 3, timeout: Duration::from_secs(60) }
    }
}

impl CircuitBreaker {
    /// Opens after 5 failures in a row, for a minute, and closes after 3 good calls.
    pub fn new() -> CircuitBreaker {
        CircuitBreaker::default()
    }

    /// Failures in a row that open it, 1 to 1,000,000.
    pub fn failure_threshold(mut self, failures: u32) -> CircuitBreaker {
        self.failures = failures;
        self
    }

    /// Good calls in a row, one at a time, that close it, 1 to 1,000,000.
    pub fn success_threshold(mut self, successes: u32) -> CircuitBreaker {
        self.successes = successes;
        self
    }

    /// How long it stays open before a call tries the backend.
    pub fn timeout(mut self, timeout: Duration) -> CircuitBreaker {
        self.timeout = timeout;
        self
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let fits = |count| (1..=1_000_000).contains(&count);
        match fits(self.failures) && fits(self.successes) {
            true => Ok(()),
            false => Err(Error::Invalid { what: "a threshold of the circuit breaker", instead: "1 to 1,000,000" }),
        }
    }
}

/// How backends are checked, in the background. A pool without one believes in all of them until calls fail.
///
/// ```
/// use l4lb::client::HealthCheck;
/// use std::time::Duration;
///
/// let by_http = HealthCheck::http("/health").interval(Duration::from_secs(5)).expect_status(200..=299);
/// let by_redis = HealthCheck::tcp().send("PING\r\n").expect("+PONG").fall(2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    kind: Kind,
    interval: Duration,
    pub(super) timeout: Duration,
    rise: u32,
    fall: u32,
    initially_up: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Tcp { send: Vec<u8>, expect: Vec<u8> },
    Udp { send: Vec<u8>, expect: Vec<u8> },
    Http { path: String, host: Option<String>, expect: RangeInclusive<u16> },
}

impl HealthCheck {
    fn of(kind: Kind) -> HealthCheck {
        let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
        HealthCheck { kind, interval, timeout, rise: 2, fall: 3, initially_up: true }
    }

    /// That a connection can be made.
    pub fn tcp() -> HealthCheck {
        HealthCheck::of(Kind::Tcp { send: Vec::new(), expect: Vec::new() })
    }

    /// That this datagram is not refused; with [`expect`](HealthCheck::expect), that it is answered.
    pub fn udp(datagram: impl Into<Vec<u8>>) -> HealthCheck {
        HealthCheck::of(Kind::Udp { send: datagram.into(), expect: Vec::new() })
    }

    /// That `GET path` over HTTP/1.1, without TLS, is answered with a status of 200 to 399.
    pub fn http(path: impl Into<String>) -> HealthCheck {
        HealthCheck::of(Kind::Http { path: path.into(), host: None, expect: 200..=399 })
    }

    /// What a TCP check sends once it is connected. No other kind heeds it.
    pub fn send(mut self, bytes: impl Into<Vec<u8>>) -> HealthCheck {
        if let Kind::Tcp { send, .. } = &mut self.kind {
            *send = bytes.into();
        }
        self
    }

    /// What is looked for in the answer to a TCP or UDP check; empty: no answer is needed. HTTP does not heed it.
    pub fn expect(mut self, bytes: impl Into<Vec<u8>>) -> HealthCheck {
        if let Kind::Tcp { expect, .. } | Kind::Udp { expect, .. } = &mut self.kind {
            *expect = bytes.into();
        }
        self
    }

    /// The statuses that are good, 200 to 599. Only HTTP heeds it.
    pub fn expect_status(mut self, statuses: RangeInclusive<u16>) -> HealthCheck {
        if let Kind::Http { expect, .. } = &mut self.kind {
            *expect = statuses;
        }
        self
    }

    /// The Host that an HTTP check sends, in place of the address of the backend. Only HTTP heeds it.
    pub fn host(mut self, name: impl Into<String>) -> HealthCheck {
        if let Kind::Http { host, .. } = &mut self.kind {
            *host = Some(name.into());
        }
        self
    }

    /// From one check of a backend to the next, 10 ms to a day, give or take a tenth; 2 s by default.
    pub fn interval(mut self, interval: Duration) -> HealthCheck {
        self.interval = interval;
        self
    }

    /// How long a check may take, over all addresses of a backend, 1 ms to a day; 1 s by default.
    pub fn timeout(mut self, timeout: Duration) -> HealthCheck {
        self.timeout = timeout;
        self
    }

    /// Good checks in a row that bring up a backend that is down, 1 to 1000; 2 by default.
    pub fn rise(mut self, rise: u32) -> HealthCheck {
        self.rise = rise;
        self
    }

    /// Bad checks in a row that bring down a backend that is up, 1 to 1000; 3 by default.
    pub fn fall(mut self, fall: u32) -> HealthCheck {
        self.fall = fall;
        self
    }

    /// A backend counts as down until its checks say otherwise.
    pub fn initially_down(mut self) -> HealthCheck {
        self.initially_up = false;
        self
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let invalid = |what, instead| Err(Error::Invalid { what, instead });
        let day = Duration::from_secs(24 * 60 * 60);
        if !(Duration::from_millis(10)..=day).contains(&self.interval) {
            return invalid("the interval of the health check", "10 ms to a day");
        }
        if !(Duration::from_millis(1)..=day).contains(&self.timeout) {
            return invalid("the timeout of the health check", "1 ms to a day");
        }
        if !(1..=1000).contains(&self.rise) || !(1..=1000).contains(&self.fall) {
            return invalid("rise or fall of the health check", "1 to 1000");
        }
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        match &self.kind {
            Kind::Http { path, .. } if !path.starts_with('/') || !is_plain(path) || path.contains('#') => {
                invalid("the path of the health check", "one that begins with \"/\", percent-encoded")
            }
            Kind::Http { host: Some(host), .. } if !is_plain(host) => {
                invalid("the host of the health check", "a name, with a port or without")
            }
            Kind::Http { expect, .. } if expect.is_empty() || *expect.start() < 200 || *expect.end() > 599 => {
                invalid("expect_status of the health check", "a range from 200 to 599")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn rules(&self) -> probe::Rules {
        let HealthCheck { interval, rise, fall, initially_up, .. } = *self;
        probe::Rules { rise, fall, interval, initially_up }
    }

    /// The check of a backend at `address`.
    pub(super) fn check(&self, address: SocketAddr) -> probe::Check {
        match self.kind.clone() {
            Kind::Tcp { send, expect } => probe::Check::Tcp { send, expect },
            Kind::Udp { send, expect } => probe::Check::Udp { send, expect },
            Kind::Http { path, host, expect } => {
                let host = host.unwrap_or_else(|| address.to_string());
                probe::Check::Http { path, host, expect: (*expect.start(), *expect.end()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused() {
        let second = Duration::from_secs(1);
        let rows = [
            ("the usual", HealthCheck::http("/health"), true),
            ("a query", HealthCheck::http("/up?deep=1").host("svc.test:81"), true),
            ("no slash", HealthCheck::http("health"), false),
            ("a line's end", HealthCheck::http("/\r\nX: y"), false),
            ("a line's end in the host", HealthCheck::http("/").host("a\r\nX: y"), false),
            ("no host", HealthCheck::http("/").host(""), false),
            ("a status that is none", HealthCheck::http("/").expect_status(200..=600), false),
            ("an empty range", HealthCheck::http("/").expect_status(RangeInclusive::new(300, 200)), false),
            ("too often", HealthCheck::tcp().interval(Duration::from_millis(9)), false),
            ("no time", HealthCheck::tcp().timeout(Duration::ZERO), false),
            ("never up", HealthCheck::tcp().rise(0), false),
            ("never down", HealthCheck::tcp().fall(1001), false),
            ("a slow one", HealthCheck::udp("x").interval(second).timeout(second * 5), true),
        ];
        for (why, check, fine) in rows {
            assert_eq!(check.validate().is_ok(), fine, "{why}: {check:?}");
        }
        assert!(CircuitBreaker::new().validate().is_ok());
        assert!(CircuitBreaker::new().failure_threshold(0).validate().is_err());
        assert!(CircuitBreaker::new().success_threshold(1_000_001).validate().is_err());
    }

    #[cfg(feature = "proxy")]
    #[test]
    fn the_words_and_defaults_are_those_of_the_file() {
        use crate::config;
        let words: Vec<String> = Algorithm::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(words, config::Algorithm::NAMES);
        let (ours, theirs) = (HealthCheck::tcp(), config::HealthCheck::default());
        assert_eq!(
            (ours.interval, ours.timeout, ours.rise, ours.fall, ours.initially_up),
            (theirs.interval, theirs.timeout, theirs.rise, theirs.fall, theirs.initially_up)
        );
        let (ours, theirs) = (CircuitBreaker::new(), config::CircuitBreaker::default());
        assert_eq!(
            (ours.failures, ours.successes, ours.timeout),
            (theirs.failure_threshold, theirs.success_threshold, theirs.timeout)
        );
    }
}
