//! Real servers, each with a check that asks it for something: up while it is well, down when it hangs or is killed, and
//! up again after.

use std::net::SocketAddr;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::admin;
use crate::support::http::ask;
use crate::support::l4lb::command;
use crate::support::programs::{Program, nginx_alone, postgres, redis, unbound};
use crate::support::{L4lb, wait_until};

/// Asks for the address of `h0.test`: an id, "recursion desired", one question of type A in class IN.
const DNS_QUERY: &str = "hex: 6c34 0100 0001 0000 0000 0000 02 6830 04 74657374 00 0001 0001";
/// The address in the answer, behind its length: 192.0.2.1.
const DNS_ANSWER: &str = "hex: 0004 c0000201";
/// "May we speak TLS?" in the protocol of PostgreSQL; a server without it says N, whoever may log in.
const SSL_REQUEST: &str = "hex: 00000008 04d2162f";

/// A balancer over `server`, twice: once with this check, once with one that only connects, where `protocol` has that.
fn checked(protocol: &str, check: &str, server: &Program) -> L4lb {
    let timing = "interval = \"100ms\", timeout = \"1s\", rise = 2, fall = 2";
    let pool = |name: &str, check: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\nhealth_check = {{ {check}, {timing} }}\nbackend = [{{ address = \"{}\" }}]\n",
            server.addr
        )
    };
    let plain = if protocol == "udp" { check } else { "kind = \"tcp\"" };
    let listener =
        format!("[[listener]]\nname = \"in\"\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:0\"\npool = \"fitting\"\n");
    // where the API is; it needs a pool of its own
    let api = "[[listener]]\nname = \"api\"\nprotocol = \"http\"\nbind = \"127.0.0.1:0\"\npool = \"none\"\nadmin = true\n\
               [[pool]]\nname = \"none\"\n";
    let toml = format!("{listener}{api}{}{}", pool("fitting", check), pool("plain", plain));
    L4lb::start(command(&[]), &format!("[global]\nworkers = 1\nlog_level = \"debug\"\n{toml}"))
}

fn state(api: SocketAddr, pool: &str) -> String {
    let told = admin::json(&ask(api, admin::lb(&format!("/lb/backends?pool={pool}"))));
    let Value::String(state) = &told[0]["state"] else { panic!("no state in {told}") };
    state.clone()
}

/// The walk of a server through all that may happen to it. `hung`: what the log says of it while it hangs.
fn walk(why: &str, protocol: &str, check: &str, mut server: Program) {
    let lb = checked(protocol, check, &server);
    let api = lb.addr_of("api");
    let becomes = |wanted: &str, when: &str| {
        wait_until(&format!("{why} is {wanted}: {when}"), || state(api, "fitting") == wanted);
    };
    let says = |what: &str| {
        lb.wait_for_log(what, |line| line.contains("pool fitting") && line.contains("is down") && line.contains(what));
    };
    becomes("up", "it is well");
    server.signal(Signal::SIGSTOP);
    becomes("down", "it hangs");
    says("it did not answer in time");
    if protocol != "udp" {
        assert_eq!(state(api, "plain"), "up", "{why}: the kernel still accepts for it, so that only a question tells");
    }
    server.signal(Signal::SIGCONT);
    becomes("up", "it goes on");
    server.kill();
    becomes("down", "it was killed");
    says("refused");
    server.start_again();
    becomes("up", "it runs again");
    let failed = lb.log().iter().filter(|line| line.contains("pool fitting") && line.contains("is down")).count();
    assert_eq!(failed, 2, "{why}: it was found down for no reason: {:#?}", lb.log());
}

#[test]
fn a_dns_server_is_asked_for_a_name() {
    let check = format!("kind = \"udp\", send = \"{DNS_QUERY}\", expect = \"{DNS_ANSWER}\"");
    walk("unbound", "udp", &check, unbound());
}

#[test]
fn an_http_server_is_asked_for_a_page() {
    walk("nginx", "http", "kind = \"http\", path = \"/\", expect_status = \"200-299\"", nginx_alone(b""));
}

#[test]
fn redis_is_pinged() {
    walk("redis", "tcp", "kind = \"tcp\", send = \"PING\\r\\n\", expect = \"+PONG\"", redis());
}

#[test]
fn postgresql_is_asked_whether_it_speaks_tls() {
    walk("postgres", "tcp", &format!("kind = \"tcp\", send = \"{SSL_REQUEST}\", expect = \"N\""), postgres());
}

#[test]
fn an_answer_that_is_not_the_expected_one_is_no_sign_of_health() {
    let rows = [
        (
            "another address",
            "udp",
            format!("kind = \"udp\", send = \"{DNS_QUERY}\", expect = \"hex: 0004 c0000209\""),
            unbound(),
        ),
        (
            "a page that is not there",
            "http",
            "kind = \"http\", path = \"/nowhere\", expect_status = \"200-299\"".into(),
            nginx_alone(b""),
        ),
        (
            "an error in place of a greeting",
            "tcp",
            "kind = \"tcp\", send = \"WHAT\\r\\n\", expect = \"+PONG\"".into(),
            redis(),
        ),
    ];
    for (why, protocol, check, server) in rows {
        let lb = checked(protocol, &check, &server);
        wait_until(&format!("it is down: {why}"), || state(lb.addr_of("api"), "fitting") == "down");
    }
}
