//! What may be asked of the harness on its command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures l4lb and its peers side by side, or loads one HTTP address.
#[derive(Debug, Parser)]
#[command(
    name = "load",
    bin_name = "cargo bench --bench load --",
    after_help = "Examples:\n  \
        cargo bench --bench load -- --scenario tcp-rr --peer l4lb,haproxy,nginx --syscalls\n  \
        cargo bench --bench load -- --scenario udp-train,udp-train-off --peer l4lb,nginx\n  \
        cargo bench --bench load -- --url http://localhost:8080 --requests 1000 --concurrency 50 --output results.json\n\n\
        docs/performance.md says how to read the table."
)]
pub(crate) struct Args {
    /// Passed by cargo; means nothing.
    #[arg(long, hide = true)]
    bench: bool,

    /// What to measure.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "tcp-rr,tcp-connect,tcp-idle,tcp-bulk-1,tcp-bulk-16,udp-rr,udp-train,udp-train-off,udp-loss,\
                         http-keepalive,http-connect,http-1mb,http-idle"
    )]
    pub(crate) scenario: Vec<Scenario>,

    /// Whom to measure; those not installed are left out and named.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "l4lb,haproxy,nginx,direct")]
    pub(crate) peer: Vec<Kind>,

    /// Worker threads (or processes) of each proxy; several counts are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: Vec<u16>,

    /// How long one measurement lasts, in seconds (0.1 to 600).
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// How often each party is measured; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// Of udp-loss: datagrams a second.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    pub(crate) rate: u32,

    /// Also count the proxies' system calls, in windows of their own (needs perf and the right to use it).
    #[arg(long)]
    pub(crate) syscalls: bool,

    /// Write every figure of the run to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Instead of all that: send GET requests to this http:// address.
    #[arg(long, conflicts_with_all = ["scenario", "peer", "workers", "seconds", "rounds", "rate", "syscalls", "json"])]
    pub(crate) url: Option<String>,

    /// With --url: how many requests.
    #[arg(long, requires = "url", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: u64,

    /// With --url: how many connections at once.
    #[arg(long, requires = "url", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) concurrency: u32,

    /// With --url: how long one request may take, connecting included ("500ms", "10s").
    #[arg(long, requires = "url", default_value = "10s", value_parser = timeout)]
    pub(crate) timeout: Duration,

    /// With --url: write the result to this file, as JSON.
    #[arg(long, requires = "url", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// 64 bytes there and back, over and over, on 64 connections.
    TcpRr,
    /// Connect, 64 bytes there and back, close; 64 at once.
    TcpConnect,
    /// What a connection costs in memory that has said something once and is silent since.
    TcpIdle,
    /// Bytes without end from the backend, on one connection.
    #[value(name = "tcp-bulk-1")]
    #[serde(rename = "tcp-bulk-1")]
    TcpBulk1,
    /// The same on 16 connections.
    #[value(name = "tcp-bulk-16")]
    #[serde(rename = "tcp-bulk-16")]
    TcpBulk16,
    /// A datagram of 64 bytes there and back, over and over, on 256 flows.
    UdpRr,
    /// Trains of 16 datagrams of 64 bytes there and back (one send, UDP_SEGMENT; one receive, UDP_GRO), on 64 flows.
    UdpTrain,
    /// The same bursts of 16, each datagram sent and received by itself.
    UdpTrainOff,
    /// Datagrams of 64 bytes there and back at a fixed rate, on 256 flows: how many are lost.
    UdpLoss,
    /// A GET answered with 1 KiB, over and over, on 64 connections.
    HttpKeepalive,
    /// Connect, a GET with "Connection: close" answered with 1 KiB, the proxy closes; 64 at once.
    HttpConnect,
    /// A GET answered with 1 MiB, over and over, on 16 connections.
    #[value(name = "http-1mb")]
    #[serde(rename = "http-1mb")]
    Http1mb,
    /// What a client connection costs in memory that had a GET answered with 1 KiB and is silent since.
    HttpIdle,
}

/// What a scenario's connections speak; it decides how the parties are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    /// TCP with another backend, which sends without end.
    Bulk,
    Udp,
    Http,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Bulk => "tcp bulk",
            Self::Udp => "udp",
            Self::Http => "http",
        }
    }
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TcpRr => "tcp-rr",
            Self::TcpConnect => "tcp-connect",
            Self::TcpIdle => "tcp-idle",
            Self::TcpBulk1 => "tcp-bulk-1",
            Self::TcpBulk16 => "tcp-bulk-16",
            Self::UdpRr => "udp-rr",
            Self::UdpTrain => "udp-train",
            Self::UdpTrainOff => "udp-train-off",
            Self::UdpLoss => "udp-loss",
            Self::HttpKeepalive => "http-keepalive",
            Self::HttpConnect => "http-connect",
            Self::Http1mb => "http-1mb",
            Self::HttpIdle => "http-idle",
        }
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::TcpRr | Self::TcpConnect | Self::TcpIdle => Protocol::Tcp,
            Self::TcpBulk1 | Self::TcpBulk16 => Protocol::Bulk,
            Self::UdpRr | Self::UdpTrain | Self::UdpTrainOff | Self::UdpLoss => Protocol::Udp,
            Self::HttpKeepalive | Self::HttpConnect | Self::Http1mb | Self::HttpIdle => Protocol::Http,
        }
    }

    /// It moves nothing, and memory is what it measures.
    pub(crate) fn is_idle(self) -> bool {
        matches!(self, Self::TcpIdle | Self::HttpIdle)
    }

    /// The order to the load, and what is said. `rate`: of `udp-loss`, datagrams a second.
    pub(crate) fn order(self, rate: u32) -> String {
        match self {
            Self::TcpRr => "rr echo",
            Self::TcpConnect => "connect echo",
            Self::TcpIdle => "hold echo",
            Self::TcpBulk1 | Self::TcpBulk16 => "rr bulk",
            Self::UdpRr => "udp once",
            Self::UdpTrain => "udp train",
            Self::UdpTrainOff => "udp apart",
            Self::UdpLoss => return format!("udp {rate}"),
            Self::HttpKeepalive => "rr /1k",
            Self::HttpConnect => "connect /1k",
            Self::Http1mb => "rr /1m",
            Self::HttpIdle => "hold /1k",
        }
        .to_owned()
    }

    /// Connections or flows, where bytes move.
    pub(crate) fn connections(self) -> usize {
        match self {
            Self::TcpBulk1 => 1,
            Self::TcpBulk16 | Self::Http1mb => 16,
            Self::UdpRr | Self::UdpLoss => 256,
            _ => 64,
        }
    }

    /// What a unit of work is.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::TcpRr => "round trip",
            Self::TcpConnect => "connection",
            Self::TcpIdle | Self::HttpIdle => "idle connection",
            Self::TcpBulk1 | Self::TcpBulk16 => "GB",
            Self::UdpRr | Self::UdpTrain | Self::UdpTrainOff | Self::UdpLoss => "round trip of a datagram",
            Self::HttpKeepalive | Self::HttpConnect | Self::Http1mb => "request",
        }
    }

    /// What the load counts that makes up one unit: bytes, in bulk.
    pub(crate) fn counted_per_unit(self) -> f64 {
        if self.protocol() == Protocol::Bulk { 1e9 } else { 1.0 }
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The release binary of this checkout.
    #[value(name = "l4lb")]
    L4lb,
    /// haproxy, as found on PATH.
    Haproxy,
    /// nginx with its stream module, as found on PATH.
    Nginx,
    /// No proxy: the client talks to the backend.
    Direct,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::L4lb => "l4lb",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Direct => "direct",
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.1..=600.0).contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err("write a number of seconds from 0.1 to 600".to_owned()),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("write a duration above zero, such as 500ms or 10s".to_owned()),
    }
}
