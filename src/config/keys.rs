//! The keys of the format, section by section: what each takes now, and which are to come.
//!
//! Said once: the reader takes its ranges, hints and refusals from here, and a test holds the manual page against it.
//! A key becomes supported by changing `later("name")` to a line with what it takes, and by reading it in `sections`.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::one_of;
use super::limits::LimitAlgorithm;
use super::picking::Algorithm;

/// A table of the file and the keys that it may hold.
#[derive(Debug, PartialEq)]
pub struct Section {
    /// As written in a file: `[[pool.backend]]`; the top level has a name of its own.
    pub title: &'static str,
    /// In the order of the manual.
    pub keys: &'static [Key],
}

/// A key of a [`Section`].
#[derive(Debug, PartialEq)]
pub struct Key {
    /// As typed.
    pub name: &'static str,
    /// What may stand behind the `=`.
    pub takes: Takes,
    /// What holds when the key is left out.
    pub default: Preset,
    /// Where the key means something.
    pub scope: Scope,
}

/// Which listeners, pools or checks a key is for; elsewhere it is an error, since it would do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Any,
    /// Those with `protocol = "http"`.
    Http,
    /// Those, and any with `accept_proxy = true`.
    HttpOrProxied,
    /// Those that take connections: `"http"` and `"tcp"`.
    Connections,
    /// Pools whose algorithm hashes.
    Hashing,
    /// Pools with `algorithm = "consistent_hash"`.
    ConsistentHash,
    /// Checks with `kind = "http"`.
    CheckHttp,
    /// Checks that send and expect bytes: those with `kind = "tcp"` and `"udp"`.
    CheckBytes,
    /// Checks of any kind but `"none"`.
    Checked,
    /// Limits with `algorithm = "token_bucket"`.
    TokenBucket,
    /// Limits with `algorithm = "sliding_window"`.
    SlidingWindow,
    /// Limits with `algorithm = "leaky_bucket"`.
    LeakyBucket,
    /// Limits by either bucket.
    Buckets,
}

/// What holds when a key is left out.
#[derive(Debug, PartialEq)]
pub enum Preset {
    /// It cannot be left out.
    Required,
    /// This value, as it would be typed.
    Value(&'static str),
    /// No value of the key; what happens instead, in words.
    Words(&'static str),
}

/// What a key takes. Displays as words that fit behind "write".
#[derive(Debug, PartialEq)]
pub enum Takes {
    /// Known, not built yet: refused.
    NotYet,
    /// The version of the format.
    Version,
    /// A whole number.
    Integer(RangeInclusive<i64>),
    /// `true` or `false`.
    Boolean,
    /// A time with a unit.
    Duration(RangeInclusive<Duration>),
    /// A number of bytes with a unit.
    Size(RangeInclusive<u64>),
    /// A number with a fraction.
    Fraction(RangeInclusive<f64>),
    /// 0, which turns it off, or a number with a fraction.
    ZeroOr(RangeInclusive<f64>),
    /// One word of a list.
    OneOf {
        /// Those that work.
        now: &'static [&'static str],
        /// Those that are known and refused.
        later: &'static [&'static str],
    },
    /// A name that we may repeat in a URL, a log or a metric.
    Name,
    /// The name of a `[[pool]]`.
    Pool,
    /// The path of a file.
    Path,
    /// The name of a user of the system.
    User,
    /// The name of a group of the system.
    Group,
    /// A TCP congestion control algorithm (tcp(7), `TCP_CONGESTION`).
    CongestionControl,
    /// Where to listen: an address or an array of them.
    Binds,
    /// Where to listen, one address.
    Bind,
    /// Where a backend is.
    Address,
    /// An array of networks, each an address or a prefix of one.
    Networks,
    /// The host of a request.
    Host,
    /// An array of hosts of requests.
    Hosts,
    /// The path of a request, or the beginning of one.
    UrlPath,
    /// A request method or an array of them.
    Methods,
    /// The name of a header field.
    HeaderName,
    /// The value of a header field.
    HeaderValue,
    /// What a hashing algorithm looks at.
    HashKey,
    /// Who shares a limit.
    LimitKey,
    /// What a check by HTTP asks for: a path, with a query or without.
    CheckPath,
    /// The Host of a check by HTTP.
    CheckHost,
    /// A status of a response or a range of them.
    Statuses,
    /// What a check sends or expects.
    Bytes,
    /// A table.
    Table(&'static Section),
    /// An array of tables.
    Tables(&'static Section),
}

impl Takes {
    /// `LOWEST to HIGHEST`, for what has a range.
    pub fn range(&self) -> Option<String> {
        match self {
            Takes::Integer(range) => Some(format!("{} to {}", range.start(), range.end())),
            Takes::Duration(range) => Some(format!("{} to {}", short(*range.start()), short(*range.end()))),
            Takes::Size(range) => Some(format!("{} to {}", short_size(*range.start()), short_size(*range.end()))),
            Takes::Fraction(range) | Takes::ZeroOr(range) => Some(format!("{:?} to {:?}", range.start(), range.end())),
            _ => None,
        }
    }
}

/// A duration in the largest unit up to days that needs no fraction; `0s` for none.
fn short(time: Duration) -> String {
    let nanos = time.as_nanos();
    let units = [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)];
    let small = [("ms", 1_000_000), ("us", 1000), ("ns", 1)];
    match units.iter().chain(&small).find(|(_, size)| nanos > 0 && nanos.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{}{unit}", nanos / size),
        None => "0s".to_owned(),
    }
}

/// A size in the largest unit that needs no fraction; `0` for none.
fn short_size(bytes: u64) -> String {
    let units = [("PiB", bytesize::PIB), ("TiB", bytesize::TIB), ("GiB", bytesize::GIB)];
    let small = [("MiB", bytesize::MIB), ("KiB", bytesize::KIB), ("B", 1)];
    match units.iter().chain(&small).find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{}{unit}", bytes / size),
        None => "0".to_owned(),
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Takes::NotYet => f.write_str("nothing yet"),
            Takes::Version => f.write_str("1"),
            Takes::Integer(_) | Takes::Fraction(_) => {
                write!(f, "a number from {}", self.range().unwrap_or_default())
            }
            Takes::ZeroOr(_) => write!(f, "0 or a number from {}", self.range().unwrap_or_default()),
            Takes::Boolean => f.write_str("true or false"),
            Takes::Duration(_) => write!(f, "a duration in quotes from {}", self.range().unwrap_or_default()),
            Takes::Size(_) => write!(f, "a size in quotes from {}", self.range().unwrap_or_default()),
            Takes::OneOf { now, .. } => f.write_str(&one_of(now)),
            Takes::Name => f.write_str("a name in quotes"),
            Takes::Pool => f.write_str("the name of a [[pool]] in quotes"),
            Takes::Path => f.write_str("a path in quotes"),
            Takes::User => f.write_str("the name of a user in quotes"),
            Takes::Group => f.write_str("the name of a group in quotes"),
            Takes::CongestionControl => f.write_str("an algorithm in quotes, such as \"cubic\""),
            Takes::Binds => f.write_str("an address such as \"0.0.0.0:8080\", or an array of them"),
            Takes::Bind => f.write_str("an address such as \"127.0.0.1:8081\""),
            Takes::Address => f.write_str("an address such as \"127.0.0.1:8001\""),
            Takes::Networks => f.write_str("addresses in an array, such as [\"10.0.0.0/8\", \"::1\"]"),
            Takes::Host => f.write_str("a host such as \"api.example.com\" or \"*.example.com\""),
            Takes::Hosts => f.write_str("hosts in an array, such as [\"lb.example.com\"]"),
            Takes::UrlPath => f.write_str("a path such as \"/v1\""),
            Takes::Methods => f.write_str("a method such as \"GET\", or an array of them"),
            Takes::HeaderName => f.write_str("the name of a header such as \"x-canary\""),
            Takes::HeaderValue => f.write_str("the value of a header in quotes"),
            Takes::HashKey => f.write_str("\"client_ip\", \"path\", \"uri\", \"header:NAME\" or \"cookie:NAME\""),
            Takes::LimitKey => f.write_str("\"all\", \"client_ip\" or \"header:NAME\""),
            Takes::CheckPath => f.write_str("a path such as \"/health\""),
            Takes::CheckHost => f.write_str("a host such as \"api.example.com\""),
            Takes::Statuses => f.write_str("a status such as 200, or a range such as \"200-399\""),
            Takes::Bytes => f.write_str("text in quotes, or bytes such as \"hex:0d0a\""),
            Takes::Table(_) => f.write_str("a table"),
            Takes::Tables(section) => write!(f, "{} tables", section.title),
        }
    }
}

impl Key {
    /// What the key takes and what holds without it, in a line; the manual has it word for word.
    pub fn told(&self) -> String {
        let told = match self.default {
            Preset::Required => format!("{}; required", self.takes),
            Preset::Value(value) => format!("{}; default {value}", self.takes),
            Preset::Words(words) => format!("{}; otherwise {words}", self.takes),
        };
        match self.scope {
            Scope::Any => told,
            Scope::Http => format!("{told}; http only"),
            Scope::HttpOrProxied => format!("{told}; http or accept_proxy"),
            Scope::Connections => format!("{told}; http and tcp only"),
            Scope::Hashing => format!("{told}; only for algorithms that hash"),
            Scope::ConsistentHash => format!("{told}; consistent_hash only"),
            Scope::CheckHttp => format!("{told}; kind http only"),
            Scope::CheckBytes => format!("{told}; kinds tcp and udp only"),
            Scope::Checked => format!("{told}; not for kind none"),
            Scope::TokenBucket => format!("{told}; token_bucket only"),
            Scope::SlidingWindow => format!("{told}; sliding_window only"),
            Scope::LeakyBucket => format!("{told}; leaky_bucket only"),
            Scope::Buckets => format!("{told}; token_bucket and leaky_bucket only"),
        }
    }
}

impl Section {
    /// The key called `name`, supported or not.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The keys that are supported.
    pub fn now(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().filter(|key| key.takes != Takes::NotYet)
    }
}

/// Ten years: long enough for anybody, and far from the ends of any clock's arithmetic.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
/// The tick of the timers: nothing shorter can be kept.
const TICK: Duration = Duration::from_millis(1);
/// Checks that are closer together are a load of their own.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// Rarer checks find nothing in time.
const LONGEST_INTERVAL: Duration = Duration::from_secs(86_400);
/// A longer spin is no trade of CPU for latency any more, it is a busy machine.
const LONGEST_SPIN: Duration = Duration::from_secs(1);
/// A shorter head holds no usual request: a browser's first line, its cookies and a few fields.
const SMALLEST_HEAD: u64 = bytesize::KIB;
/// A head is parsed in one piece, so all of it must fit the buffer of a direction, which is 64 KiB. The rest of that is
/// for what comes with a head: the fields that we add, and the first bytes of a body.
const LARGEST_HEAD: u64 = 48 * bytesize::KIB;
/// More than anybody uploads at once, and small enough that sums of sizes never overflow.
const LARGEST_BODY: u64 = bytesize::PIB;

const fn key(name: &'static str, takes: Takes, default: &'static str) -> Key {
    Key { name, takes, default: Preset::Value(default), scope: Scope::Any }
}

const fn required(name: &'static str, takes: Takes) -> Key {
    Key { name, takes, default: Preset::Required, scope: Scope::Any }
}

const fn otherwise(name: &'static str, takes: Takes, words: &'static str) -> Key {
    Key { name, takes, default: Preset::Words(words), scope: Scope::Any }
}

const fn later(name: &'static str) -> Key {
    Key { name, takes: Takes::NotYet, default: Preset::Words("off"), scope: Scope::Any }
}

const fn http(key: Key) -> Key {
    Key { scope: Scope::Http, ..key }
}

const fn connections(key: Key) -> Key {
    Key { scope: Scope::Connections, ..key }
}

const fn scoped(scope: Scope, key: Key) -> Key {
    Key { scope, ..key }
}

/// Failures or successes in a row.
const ROW: Takes = Takes::Integer(1..=1_000_000);

const COUNT: Takes = Takes::Integer(0..=u32::MAX as i64);

/// The top of the file. Every other section hangs from it.
pub static TOP: Section = Section {
    title: "Top level",
    keys: &[
        key("version", Takes::Version, "1"),
        otherwise("global", Takes::Table(&GLOBAL), "every default holds"),
        otherwise("admin", Takes::Table(&ADMIN), "every default holds"),
        otherwise("listener", Takes::Tables(&LISTENER), "there is nothing to do, an error"),
        otherwise("pool", Takes::Tables(&POOL), "none"),
    ],
};

static GLOBAL: Section = Section {
    title: "[global]",
    keys: &[
        key("workers", Takes::Integer(0..=1024), "0"),
        key("log_level", Takes::OneOf { now: &["error", "warn", "info", "debug", "trace"], later: &[] }, "\"info\""),
        otherwise("log_file", Takes::Path, "standard error"),
        later("access_log"),
        later("access_log_format"),
        key("max_connections", COUNT, "0"),
        key("shutdown_timeout", Takes::Duration(Duration::ZERO..=LONGEST), "\"30s\""),
        key("shutdown_delay", Takes::Duration(Duration::ZERO..=LONGEST), "\"0s\""),
        otherwise("user", Takes::User, "the one that starts it"),
        otherwise("group", Takes::Group, "the group of user"),
        key("cpu_affinity", Takes::Boolean, "false"),
        key("spin", Takes::Duration(Duration::ZERO..=LONGEST_SPIN), "\"0us\""),
    ],
};

static ADMIN: Section = Section {
    title: "[admin]",
    keys: &[
        otherwise("listen", Takes::Bind, "none of its own"),
        key("allow", Takes::Networks, "[\"127.0.0.0/8\", \"::1/128\"]"),
        key("hosts", Takes::Hosts, "[]"),
        otherwise("token_file", Takes::Path, "no token is asked for"),
        otherwise("state_file", Takes::Path, "a restart forgets what the API has changed"),
    ],
};

static LISTENER: Section = Section {
    title: "[[listener]]",
    keys: &[
        required("name", Takes::Name),
        required("bind", Takes::Binds),
        required("protocol", Takes::OneOf { now: &["http", "tcp", "udp"], later: &[] }),
        otherwise("pool", Takes::Pool, "routes alone; required for tcp and udp"),
        http(key("admin", Takes::Boolean, "false")),
        otherwise(
            "idle_timeout",
            Takes::Duration(TICK..=LONGEST),
            "\"60s\" for http, \"10m\" for tcp, \"30s\" for udp",
        ),
        Key { scope: Scope::HttpOrProxied, ..key("header_timeout", Takes::Duration(TICK..=LONGEST), "\"10s\"") },
        http(key("body_timeout", Takes::Duration(TICK..=LONGEST), "\"30s\"")),
        http(key("request_timeout", Takes::Duration(Duration::ZERO..=LONGEST), "\"0s\"")),
        http(key("tunnel_timeout", Takes::Duration(TICK..=LONGEST), "\"1h\"")),
        key("max_connections", COUNT, "0"),
        key("max_per_client", COUNT, "0"),
        http(key("max_header_size", Takes::Size(SMALLEST_HEAD..=LARGEST_HEAD), "\"16KiB\"")),
        http(key("max_body_size", Takes::Size(0..=LARGEST_BODY), "\"0\"")),
        connections(key("accept_proxy", Takes::Boolean, "false")),
        http(key("trusted_proxies", Takes::Networks, "[]")),
        otherwise("rate_limit", Takes::Table(&LISTENER_LIMIT), "off"),
        connections(otherwise("congestion_control", Takes::CongestionControl, "the system's")),
        connections(key("defer_accept", Takes::Boolean, "false")),
        connections(key("tcp_fastopen", Takes::Boolean, "false")),
        later("steer_cpu"),
        http(otherwise("route", Takes::Tables(&ROUTE), "none")),
    ],
};

static ROUTE: Section = Section {
    title: "[[listener.route]]",
    keys: &[
        otherwise("host", Takes::Host, "any"),
        otherwise("path", Takes::UrlPath, "any"),
        otherwise("path_prefix", Takes::UrlPath, "any"),
        otherwise("method", Takes::Methods, "any"),
        otherwise("header", Takes::Table(&HEADER), "none is asked for"),
        required("pool", Takes::Pool),
    ],
};

static HEADER: Section = Section {
    title: "header",
    keys: &[required("name", Takes::HeaderName), otherwise("value", Takes::HeaderValue, "any")],
};

static POOL: Section = Section {
    title: "[[pool]]",
    keys: &[
        required("name", Takes::Name),
        key("algorithm", Takes::OneOf { now: &Algorithm::NAMES, later: &[] }, "\"round_robin\""),
        scoped(
            Scope::Hashing,
            otherwise(
                "hash_key",
                Takes::HashKey,
                "\"client_ip\", but \"uri\" for consistent_hash where only http listeners use the pool",
            ),
        ),
        // Beyond the upper end nothing would be bounded any more.
        scoped(Scope::ConsistentHash, key("hash_balance", Takes::ZeroOr(1.0..=1000.0), "0")),
        key("connect_timeout", Takes::Duration(TICK..=LONGEST), "\"2s\""),
        key("response_timeout", Takes::Duration(TICK..=LONGEST), "\"30s\""),
        key("retries", Takes::Integer(0..=100), "1"),
        key("retry_budget", Takes::Fraction(0.0..=1.0), "0.2"),
        // More clients than this are not waiting, they are lost.
        key("queue", Takes::Integer(0..=1_000_000), "0"),
        key("queue_timeout", Takes::Duration(TICK..=LONGEST), "\"5s\""),
        key("keepalive", Takes::Integer(0..=65_535), "64"),
        key("keepalive_timeout", Takes::Duration(TICK..=LONGEST), "\"4s\""),
        key("send_proxy", Takes::OneOf { now: &["off", "v1", "v2"], later: &[] }, "\"off\""),
        key("slow_start", Takes::Duration(Duration::ZERO..=LONGEST), "\"0s\""),
        key("panic_threshold", Takes::Fraction(0.0..=1.0), "0.0"),
        key("tcp_on_down", Takes::OneOf { now: &["keep", "close"], later: &[] }, "\"keep\""),
        key("drain_timeout", Takes::Duration(Duration::ZERO..=LONGEST), "\"0s\""),
        key("udp_responses", COUNT, "0"),
        key("udp_requests", COUNT, "0"),
        key("udp_on_down", Takes::OneOf { now: &["reselect", "keep"], later: &[] }, "\"reselect\""),
        later("source"),
        later("affinity"),
        otherwise(
            "health_check",
            Takes::Table(&HEALTH_CHECK),
            "kind tcp with every default, or kind none where only udp listeners use the pool",
        ),
        otherwise("circuit_breaker", Takes::Table(&CIRCUIT_BREAKER), "off"),
        otherwise("rate_limit", Takes::Table(&POOL_LIMIT), "off"),
        otherwise("backend", Takes::Tables(&BACKEND), "none"),
    ],
};

static HEALTH_CHECK: Section = Section {
    title: "health_check",
    keys: &[
        otherwise(
            "kind",
            Takes::OneOf { now: &["http", "tcp", "udp", "none"], later: &[] },
            "\"tcp\"; required where only udp listeners use the pool",
        ),
        scoped(Scope::CheckHttp, key("path", Takes::CheckPath, "\"/health\"")),
        scoped(Scope::CheckHttp, otherwise("host", Takes::CheckHost, "the address of the backend")),
        scoped(Scope::CheckHttp, key("expect_status", Takes::Statuses, "\"200-399\"")),
        scoped(Scope::CheckBytes, otherwise("send", Takes::Bytes, "nothing; required for udp")),
        scoped(Scope::CheckBytes, otherwise("expect", Takes::Bytes, "nothing is waited for")),
        scoped(Scope::Checked, key("interval", Takes::Duration(SHORTEST_INTERVAL..=LONGEST_INTERVAL), "\"2s\"")),
        scoped(Scope::Checked, key("timeout", Takes::Duration(TICK..=LONGEST_INTERVAL), "\"1s\"")),
        scoped(Scope::Checked, key("rise", Takes::Integer(1..=1000), "2")),
        scoped(Scope::Checked, key("fall", Takes::Integer(1..=1000), "3")),
        scoped(Scope::Checked, key("initial", Takes::OneOf { now: &["up", "down"], later: &[] }, "\"up\"")),
    ],
};

static CIRCUIT_BREAKER: Section = Section {
    title: "circuit_breaker",
    keys: &[
        key("failure_threshold", ROW, "5"),
        key("success_threshold", ROW, "3"),
        key("timeout", Takes::Duration(TICK..=LONGEST), "\"60s\""),
    ],
};

/// More than this at once is no limit.
const MOST_AT_ONCE: Takes = Takes::Integer(1..=1_000_000);
/// A second. Below, one waits for a quarter of an hour; above, asking costs as much as what is limited.
const RATE: Takes = Takes::Fraction(0.001..=1_000_000.0);

const LIMIT_ALGORITHM: Takes = Takes::OneOf { now: &LimitAlgorithm::NAMES, later: &[] };

const CAPACITY: Key = scoped(Scope::Buckets, key("capacity", MOST_AT_ONCE, "100"));
const REFILL_RATE: Key = scoped(Scope::TokenBucket, key("refill_rate", RATE, "10.0"));
const MAX_REQUESTS: Key = scoped(Scope::SlidingWindow, otherwise("max_requests", MOST_AT_ONCE, "an error"));
const WINDOW: Key = scoped(Scope::SlidingWindow, otherwise("window", Takes::Duration(TICK..=LONGEST), "an error"));
const LEAK_RATE: Key = scoped(Scope::LeakyBucket, key("leak_rate", RATE, "5.0"));

static LISTENER_LIMIT: Section = Section {
    title: "listener.rate_limit",
    keys: &[
        key("algorithm", LIMIT_ALGORITHM, "\"token_bucket\""),
        key("key", Takes::LimitKey, "\"client_ip\""),
        CAPACITY,
        REFILL_RATE,
        MAX_REQUESTS,
        WINDOW,
        LEAK_RATE,
    ],
};

static POOL_LIMIT: Section = Section {
    title: "pool.rate_limit",
    keys: &[
        key("algorithm", LIMIT_ALGORITHM, "\"leaky_bucket\""),
        key("key", Takes::LimitKey, "\"all\""),
        CAPACITY,
        REFILL_RATE,
        MAX_REQUESTS,
        WINDOW,
        LEAK_RATE,
    ],
};

static BACKEND: Section = Section {
    title: "[[pool.backend]]",
    keys: &[
        otherwise("id", Takes::Name, "the address as typed"),
        required("address", Takes::Address),
        key("weight", Takes::Integer(0..=256), "1"),
        key("max_connections", COUNT, "0"),
        key("backup", Takes::Boolean, "false"),
        key("disabled", Takes::Boolean, "false"),
    ],
};

/// Every section, in the order of the manual.
pub static SECTIONS: [&Section; 12] = [
    &TOP,
    &GLOBAL,
    &ADMIN,
    &LISTENER,
    &ROUTE,
    &HEADER,
    &LISTENER_LIMIT,
    &POOL,
    &HEALTH_CHECK,
    &CIRCUIT_BREAKER,
    &POOL_LIMIT,
    &BACKEND,
];
