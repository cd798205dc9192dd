//! What a pool does about backends that fail: how they are checked, and when they are left alone.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::address::Address;
use super::error::Quoted;

/// `health_check`: how backends are checked, and what it takes to change one's mind about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is sent and expected.
    pub kind: CheckKind,
    /// From one check to the next, before jitter; 10 ms to a day.
    pub interval: Duration,
    /// How long a check may take; 1 ms to a day, and it may exceed the interval: the next check then waits.
    pub timeout: Duration,
    /// Good checks in a row that bring up one that is down; 1 to 1000.
    pub rise: u32,
    /// Bad checks in a row that bring down one that is up; 1 to 1000.
    pub fall: u32,
    /// Whether a backend counts as up before the first verdict.
    pub initially_up: bool,
}

impl HealthCheck {
    /// No checks.
    pub fn none() -> Self {
        HealthCheck { kind: CheckKind::None, ..HealthCheck::default() }
    }
}

impl Default for HealthCheck {
    /// A connection every two seconds.
    fn default() -> Self {
        HealthCheck {
            kind: CheckKind::Tcp { send: Vec::new(), expect: Vec::new() },
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            initially_up: true,
        }
    }
}

/// What a check does. `send` and `expect` have at most 4096 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Nothing: a backend is up until something fails. The default where only UDP listeners use the pool, for a connection
    /// would tell nothing of its backends.
    None,
    /// Connects; then sends, and waits for what is expected.
    Tcp {
        /// Sent as soon as it is connected; may be empty.
        send: Vec<u8>,
        /// Looked for in what comes back; empty: nothing is waited for.
        expect: Vec<u8>,
    },
    /// Sends a GET and looks at the status of the response.
    Http {
        /// The target of the request: a path, with a query or without; ASCII.
        path: String,
        /// The Host field, as typed, with a port or without; `None` means the address of the backend as configured.
        host: Option<String>,
        /// The statuses that are good, from and to, both included; 200 to 599.
        expect_status: (u16, u16),
    },
    /// Sends a datagram, and waits for one that has what is expected; refused, it is bad at once.
    Udp {
        /// The datagram; not empty.
        send: Vec<u8>,
        /// Looked for in the answer; empty: none is needed, and only a refusal is bad.
        expect: Vec<u8>,
    },
}

/// Where a backend that registered itself is checked, by HTTP: `http://10.0.0.7:8080/health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckUrl {
    /// The host and the port, as typed: what a check sends as Host.
    pub authority: String,
    /// The host alone, an IPv6 address without brackets.
    pub host: String,
    /// 80 where none is typed.
    pub port: u16,
    /// The target of the request: a path, with a query or without; ASCII.
    pub path: String,
}

impl CheckUrl {
    /// The longest that is taken, in bytes.
    const LONGEST: usize = 4096;

    /// How a backend of a pool with the rules of `pool` is checked there: its timings, and its statuses if it has any.
    pub fn over(&self, pool: &HealthCheck) -> HealthCheck {
        let expect_status = match &pool.kind {
            CheckKind::Http { expect_status, .. } => *expect_status,
            _ => (200, 399),
        };
        let kind = CheckKind::Http { path: self.path.clone(), host: Some(self.authority.clone()), expect_status };
        HealthCheck { kind, ..pool.clone() }
    }
}

impl fmt::Display for CheckUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl FromStr for CheckUrl {
    type Err = String;

    /// Reads `http://host:port/path?query`; the port and what follows it may be left out.
    fn from_str(text: &str) -> Result<CheckUrl, String> {
        let bad =
            |why: &str| Err(format!("{} {why}; write it as in \"http://10.0.0.7:8080/health\"", Quoted::new(text)));
        if text.len() > CheckUrl::LONGEST {
            return bad("is too long");
        }
        let Some((scheme, rest)) = text.split_once("://") else { return bad("is no URL") };
        if !scheme.eq_ignore_ascii_case("http") {
            return bad("is not checked: only http is");
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
            return bad(
                "has a path that cannot be sent like that (percent-encode what is no ASCII, and leave out what \"#\" begins)",
            );
        }
        let typed_port = authority.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let whole = if typed_port { authority.to_owned() } else { format!("{authority}:80") };
        let (host, port) = match Address::backend(&whole) {
            Ok(Address::Ip(address)) => (address.ip().to_string(), address.port()),
            Ok(Address::Name { host, port }) => (host, port),
            Err(_) => return bad("names no host, or a port that is no number from 1 to 65535"),
        };
        let path = match path.as_bytes() {
            [] => "/".to_owned(),
            [b'?', ..] => format!("/{path}"),
            _ => path.to_owned(),
        };
        Ok(CheckUrl { authority: authority.to_owned(), host, port, path })
    }
}

/// `circuit_breaker`: when a backend is left alone, and when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Failures in a row that open it; 1 to 1,000,000.
    pub failure_threshold: u32,
    /// Successes in a row, of one trial at a time, that close it; 1 to 1,000,000.
    pub success_threshold: u32,
    /// How long it stays open before a trial.
    pub timeout: Duration,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker { failure_threshold: 5, success_threshold: 3, timeout: Duration::from_secs(60) }
    }
}

/// What becomes of the open connections of a backend that is found down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TcpOnDown {
    /// They go on.
    #[default]
    Keep,
    /// They are closed.
    Close,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_url_is_taken_apart() {
        let rows = [
            ("the usual", "http://10.0.0.7:8080/health", Some(("10.0.0.7", 8080, "10.0.0.7:8080", "/health"))),
            ("no port", "http://svc.test/up?deep=1", Some(("svc.test", 80, "svc.test", "/up?deep=1"))),
            ("no path", "http://svc.test:81", Some(("svc.test", 81, "svc.test:81", "/"))),
            ("a query alone", "http://svc.test?x", Some(("svc.test", 80, "svc.test", "/?x"))),
            ("IPv6", "HTTP://[::1]:81/", Some(("::1", 81, "[::1]:81", "/"))),
            ("IPv6 without a port", "http://[::1]/", Some(("::1", 80, "[::1]", "/"))),
            ("no scheme", "10.0.0.7:8080/health", None),
            ("another scheme", "https://10.0.0.7/", None),
            ("no host", "http:///health", None),
            ("a user", "http://me@svc.test/", None),
            ("no port behind the colon", "http://svc.test:/", None),
            ("port 0", "http://svc.test:0/", None),
            ("a fragment", "http://svc.test/#up", None),
            ("a blank", "http://svc.test/a b", None),
            ("a line's end", "http://svc.test/\r\nX: y", None),
            ("not ASCII", "http://svc.test/\u{e4}", None),
        ];
        for (why, text, expected) in rows {
            let read = text.parse::<CheckUrl>();
            let told = read.as_ref().ok().map(|url| (&*url.host, url.port, &*url.authority, &*url.path));
            assert_eq!(told, expected, "{why}: {read:?}");
        }
    }

    #[test]
    fn a_check_of_its_own_has_the_timings_and_statuses_of_the_pool() {
        let url: CheckUrl = "http://a:1/up".parse().unwrap();
        let mut pool = HealthCheck { interval: Duration::from_secs(7), ..HealthCheck::none() };
        let checked = |pool: &HealthCheck| match url.over(pool) {
            HealthCheck { kind: CheckKind::Http { path, host, expect_status }, interval, .. } => {
                (path, host.unwrap_or_default(), expect_status, interval.as_secs())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(checked(&pool), ("/up".into(), "a:1".into(), (200, 399), 7));
        pool.kind = CheckKind::Http { path: "/x".into(), host: None, expect_status: (204, 204) };
        assert_eq!(checked(&pool).2, (204, 204));
    }
}
