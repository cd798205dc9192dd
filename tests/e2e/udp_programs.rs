//! Real servers and tools over UDP: a DNS server under load that dies and comes back, and a stream of iperf3.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::programs::{Program, iperf3, run, unbound};
use crate::support::{Setup, note};
use crate::udp_life::twin_listener;

/// What dnsperf counts.
#[derive(Debug)]
struct Queries {
    sent: u64,
    completed: u64,
    lost: u64,
    report: String,
}

/// Asks at `addr` for names of the little zone: `rate` queries a second for so many seconds.
fn dnsperf(addr: SocketAddr, mode: &str, rate: u32, seconds: u32) -> Queries {
    let dir = tempfile::tempdir().expect("a directory");
    let names = dir.path().join("names");
    std::fs::write(&names, "h0.test A\nh1.test A\nh2.test TXT\n").expect("ours");
    let mut command = Command::new("dnsperf");
    command.args(["-m", mode, "-s", &addr.ip().to_string(), "-p", &addr.port().to_string(), "-d"]).arg(&names);
    command.args(["-l", &seconds.to_string(), "-Q", &rate.to_string()]);
    // eight sockets, at most fifty questions open, and one that has no answer after a second is lost
    command.args(["-c", "8", "-q", "50", "-t", "1"]);
    let (out, err) = run(&mut command);
    let report = format!("{out}{err}");
    let figure = |name: &str| {
        let line = out.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_else(|| panic!("{report}"));
        line.split_whitespace().next().expect("a figure").parse().expect("a number")
    };
    let [sent, completed, lost] = ["Queries sent:", "Queries completed:", "Queries lost:"].map(figure);
    assert!(!report.contains("SERVFAIL") && !report.contains("REFUSED") && !report.contains("NXDOMAIN"), "{report}");
    Queries { sent, completed, lost, report }
}

#[test]
fn dnsperf_loses_nothing_through_it() {
    let servers = [unbound(), unbound()];
    let rows = [
        ("sessions that end with their reply", "udp_responses = 1"),
        ("sessions that end by idle time", ""),
        ("each query by itself", "udp_requests = 1"),
    ];
    for (why, pool) in rows {
        let lb = Setup::udp(servers[0].addr).backend(servers[1].addr).pool(pool).start();
        let queries = dnsperf(lb.addr(), "udp", 2000, 2);
        assert!(queries.sent > 1000, "{why}: {}", queries.report);
        assert_eq!((queries.lost, queries.completed), (0, queries.sent), "{why}: {}", queries.report);
    }
}

#[test]
fn dnsperf_over_tcp_and_udp_at_one_port_with_one_pool() {
    let servers = [unbound(), unbound()];
    let backends = servers.each_ref().map(|server| format!("{{ address = \"{}\" }}", server.addr)).join(", ");
    let lb = twin_listener(&backends, "udp_responses = 1");
    for mode in ["udp", "tcp"] {
        let queries = dnsperf(lb.addr(), mode, 1000, 1);
        assert!(queries.sent > 500, "{mode}: {}", queries.report);
        assert_eq!(queries.lost, 0, "{mode}: {}", queries.report);
    }
}

#[test]
fn a_dns_server_that_dies_under_load_and_comes_back_costs_what_was_in_flight() {
    const RATE: u32 = 2000;
    const SECONDS: u32 = 6;
    for (why, pool) in [("udp_responses = 1", "udp_responses = 1"), ("sessions by idle time", "")] {
        let (stays, mut dies) = (unbound(), unbound());
        let lb = Setup::udp(dies.addr).backend(stays.addr).pool(pool).start();
        let queries = thread::scope(|scope| {
            let load = scope.spawn(|| dnsperf(lb.addr(), "udp", RATE, SECONDS));
            // a third of the time all is well, a third it is dead, a third it is back
            thread::sleep(Duration::from_millis(1500));
            dies.kill();
            thread::sleep(Duration::from_secs(2));
            dies.start_again();
            load.join().expect("dnsperf comes to its end")
        });
        note(&format!(
            "dnsperf, {} queries at {RATE}/s, one of two DNS servers dead for 2 s, {why}: {} lost",
            queries.sent, queries.lost
        ));
        // half of what is asked in two seconds would be 2000
        assert!(queries.lost <= 100, "{why}: lost more than was in flight: {}", queries.report);
        assert!(queries.sent > u64::from(RATE) * u64::from(SECONDS) / 2, "{why}: {}", queries.report);
    }
}

/// Runs iperf3 against what listens at `addr` and returns what it says about the stream.
fn iperf3_udp(addr: SocketAddr, more: &[&str]) -> Value {
    let mut command = Command::new("iperf3");
    command.args(["--client", &addr.ip().to_string(), "--port", &addr.port().to_string(), "--udp", "--json"]);
    command.args(["--bitrate", "20M", "--length", "1200", "--time", "2"]).args(more).stderr(Stdio::null());
    let (out, _) = run(&mut command);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}:\n{out}"));
    assert!(report.get("error").is_none(), "{out}");
    report["end"]["sum"].clone()
}

#[test]
fn an_iperf3_stream_passes_either_way() {
    let server: Program = iperf3();
    let lb = twin_listener(&format!("{{ address = \"{}\" }}", server.addr), "");
    for (why, more) in [
        ("to the server", &[][..]),
        ("from the server", &["--reverse"]),
        ("four at once", &["--parallel", "4", "--bitrate", "5M"]),
    ] {
        let sum = iperf3_udp(lb.addr(), more);
        let (packets, lost) = (sum["packets"].as_u64().unwrap_or(0), sum["lost_percent"].as_f64().unwrap_or(100.0));
        assert!(packets > 1000, "{why}: {sum}");
        assert!(lost < 3.0, "{why}: {sum}");
        note(&format!("iperf3 over UDP, 20 Mbit/s in all, {why}: {packets} datagrams, {lost:.2} % lost"));
    }
}
