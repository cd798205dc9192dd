//! Real clients and servers find nothing wrong with the road between them.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::programs::{nginx, postgres, postgres_bin, redis, run, run_with_input};
use crate::support::{Pattern, Setup, note};

fn host_and_port(addr: SocketAddr) -> [String; 4] {
    ["-h".into(), addr.ip().to_string(), "-p".into(), addr.port().to_string()]
}

#[test]
fn redis_benchmark_through_it_has_no_error() {
    let redis = redis();
    let lb = Setup::to(redis.addr).start();
    for pipelined in ["1", "16"] {
        let measure = |addr| {
            let mut command = Command::new("redis-benchmark");
            command.args(host_and_port(addr)).args(["-n", "20000", "-c", "50", "-t", "ping_mbulk,set,get,lrange_100"]);
            let (out, err) = run(command.args(["--csv", "-P", pipelined]));
            assert!(!err.to_lowercase().contains("error"), "{err}");
            assert!(!out.to_lowercase().contains("error"), "{out}");
            let rate = |test: &str| {
                let row = out.lines().find(|l| l.starts_with(test)).unwrap_or_else(|| panic!("no {test} in {out}"));
                let field = row.split(',').nth(1).expect("a rate").trim_matches('"');
                field.parse::<f64>().unwrap_or_else(|e| panic!("{row}: {e}"))
            };
            ["\"SET\"", "\"GET\"", "\"PING_MBULK\"", "\"LRANGE_100"].map(rate)
        };
        let (direct, through) = (measure(redis.addr), measure(lb.addr()));
        assert!(through.iter().all(|rate| *rate > 0.0), "{through:?}");
        note(&format!(
            "redis-benchmark, 50 clients, pipeline {pipelined}: GET {:.0}/s through l4lb, {:.0}/s direct",
            through[1], direct[1]
        ));
    }
}

#[test]
fn redis_cli_through_it_says_what_it_says_directly() {
    let redis = redis();
    let lb = Setup::to(redis.addr).start();
    let cli = |addr, args: &[&str], input: &[u8]| {
        let (out, err) = run_with_input(Command::new("redis-cli").args(host_and_port(addr)).args(args), input);
        assert_eq!(err, "", "{args:?}");
        out
    };
    assert_eq!(cli(lb.addr(), &["SET", "greeting", "hello"], b""), "OK\n");
    assert_eq!(cli(redis.addr, &["GET", "greeting"], b""), "hello\n");
    let large = "0123456789".repeat(500_000);
    assert_eq!(cli(lb.addr(), &["-x", "SET", "large"], large.as_bytes()), "OK\n");
    assert!(cli(lb.addr(), &["GET", "large"], b"") == format!("{large}\n"), "five megabytes come back changed");
    let many: String = (0..5_000).map(|i| format!("SET key:{i} {i}\r\n")).collect();
    let piped = cli(lb.addr(), &["--pipe"], many.as_bytes());
    assert!(piped.contains("errors: 0, replies: 5000"), "{piped}");
    assert_eq!(cli(lb.addr(), &["DBSIZE"], b""), "5002\n");
}

#[test]
fn pgbench_through_it_has_no_error() {
    let postgres = postgres();
    let lb = Setup::to(postgres.addr).start();
    let pgbench = |addr, args: &[&str]| {
        let mut command = Command::new(postgres_bin("pgbench"));
        run(command.args(host_and_port(addr)).args(["-U", "l4lb"]).args(args).arg("postgres"))
    };
    pgbench(lb.addr(), &["-i", "-s", "1", "-q"]);
    let measure = |addr| {
        let (out, err) = pgbench(addr, &["-n", "-c", "8", "-j", "2", "-t", "200"]);
        assert!(out.contains("number of transactions actually processed: 1600/1600"), "{out}\n{err}");
        assert!(out.contains("number of failed transactions: 0"), "{out}\n{err}");
        for word in ["error", "aborted", "fatal"] {
            assert!(!err.to_lowercase().contains(word), "{err}");
        }
        let tps = out.lines().find_map(|line| line.strip_prefix("tps = ")).expect("pgbench tells a rate");
        tps.split_whitespace().next().expect("a number").parse::<f64>().expect("a number")
    };
    let (direct, through) = (measure(postgres.addr), measure(lb.addr()));
    // a connection a transaction: what pgbench -C does to a proxy
    let (out, _) = pgbench(lb.addr(), &["-n", "-S", "-C", "-c", "4", "-t", "25"]);
    assert!(out.contains("number of transactions actually processed: 100/100"), "{out}");
    note(&format!("pgbench, 8 clients: {through:.0} transactions/s through l4lb, {direct:.0}/s direct"));
}

#[test]
fn wrk_through_it_to_nginx_has_no_error() {
    let nginx = nginx(b"");
    let lb = Setup::to(nginx.addr).start();
    let measure = |addr| {
        let (out, err) =
            run(Command::new("wrk").args(["-t", "1", "-c", "32", "-d", "2s"]).arg(format!("http://{addr}/")));
        assert!(!out.contains("Socket errors"), "{out}{err}");
        assert!(!out.contains("Non-2xx"), "{out}{err}");
        let rate = out.lines().find_map(|line| line.strip_prefix("Requests/sec:")).expect("wrk tells a rate");
        rate.trim().parse::<f64>().expect("a number")
    };
    let (direct, through) = (measure(nginx.addr), measure(lb.addr()));
    assert!(through > 0.0);
    note(&format!("wrk, 32 connections to nginx: {through:.0} requests/s through l4lb, {direct:.0}/s direct"));
}

#[test]
fn curl_through_it_gets_what_nginx_serves() {
    let file = Pattern { seed: 61 }.bytes(0, 3_000_000);
    let nginx = nginx(&file);
    let lb = Setup::to(nginx.addr).start();
    let dir = tempfile::tempdir().expect("a directory");
    let got = dir.path().join("got");
    for connection in ["close", "keep-alive"] {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "-H", &format!("Connection: {connection}"), "-o"]);
        run(command.arg(&got).arg(format!("http://{}/file", lb.addr())));
        assert!(std::fs::read(&got).expect("curl wrote it") == file, "the file comes back changed");
    }
    let (out, _) = run(Command::new("curl").args(["-sS", "--fail"]).arg(format!("http://{}/", lb.addr())));
    assert_eq!(out, "hello");
}
