//! What a pool does about backends that fail: how they are checked, and when they are left alone.

use std::time::Duration;

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
