//! How a pool picks: the algorithms by name, and what of a client those that hash look at.

use std::fmt;

/// How a pool picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// Each in turn; weights are not heeded, except 0.
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
    /// The same key, the same backend; nearly exact shares for a few needless moves.
    Maglev,
    /// The one with less in flight of two taken at random.
    RandomTwo,
}

impl Algorithm {
    /// All of them, in the order of the manual.
    pub const ALL: [Algorithm; 8] = [
        Algorithm::RoundRobin,
        Algorithm::WeightedRoundRobin,
        Algorithm::IpHash,
        Algorithm::LeastConnections,
        Algorithm::ConsistentHash,
        Algorithm::FastestResponse,
        Algorithm::Maglev,
        Algorithm::RandomTwo,
    ];

    /// The name of each, in the same order.
    pub const NAMES: [&'static str; 8] = {
        let mut names = [""; 8];
        let mut at = 0;
        while at < names.len() {
            names[at] = Algorithm::ALL[at].name();
            at += 1;
        }
        names
    };

    /// As typed in a file or behind `--algorithm`.
    pub const fn name(self) -> &'static str {
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

    /// The one of this name.
    pub fn named(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Whether it sends the same key to the same backend, and so reads a [`HashKey`].
    pub fn is_hashing(self) -> bool {
        matches!(self, Algorithm::IpHash | Algorithm::ConsistentHash | Algorithm::Maglev)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a hashing algorithm tells clients or requests apart by. All but the first are read from HTTP requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum HashKey {
    /// The address of the client.
    #[default]
    ClientIp,
    /// The path of the request, without its query.
    Path,
    /// The path and the query.
    Uri,
    /// The value of the header field of this name, which is in lower case.
    Header(String),
    /// The value of the cookie of this name, compared letter by letter.
    Cookie(String),
}

impl HashKey {
    /// What holds when none is given; `all_http` says that every listener of the pool speaks HTTP.
    pub fn usual(algorithm: Algorithm, all_http: bool) -> HashKey {
        match algorithm {
            Algorithm::ConsistentHash if all_http => HashKey::Uri,
            _ => HashKey::ClientIp,
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKey::ClientIp => f.write_str("client_ip"),
            HashKey::Path => f.write_str("path"),
            HashKey::Uri => f.write_str("uri"),
            HashKey::Header(name) => write!(f, "header:{name}"),
            HashKey::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}
