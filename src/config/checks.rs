//! The part of a pool that is about failing backends, key by key: how they are checked, and their breaker.

use super::error::Fault;
use super::health::{CheckKind, CircuitBreaker, HealthCheck};
use super::keys::Scope;
use super::reader::{Open, Reader};

/// `health_check`, and whether it says its kind; without one it is a check by TCP.
pub(super) fn health_check(r: &mut Reader<'_>, t: &Open<'_>) -> (HealthCheck, bool) {
    let kind = r.choice(t, "kind");
    let told = r.has(t, "kind");
    // A kind that could not be read may be any; so may one that stands on a line that could not be.
    let sure = if told { kind.is_some() } else { !r.partial() };
    let kind = kind.unwrap_or("tcp");
    if sure {
        r.misplaced(t, |scope| {
            let of = match (scope, kind) {
                (Scope::CheckHttp, "tcp" | "udp" | "none") => "kind \"http\"",
                (Scope::CheckBytes, "http" | "none") => "kinds \"tcp\" and \"udp\"",
                (Scope::Checked, "none") => "checks",
                _ => return None,
            };
            Some(match (of, told) {
                ("checks", _) => Fault::NoCheck,
                (_, true) => Fault::OtherKind { of, kind },
                (_, false) => Fault::NoKind { of },
            })
        });
    }
    let mut check = HealthCheck::default();
    let reads = |kinds: &[&str]| !sure || kinds.contains(&kind);
    let (mut path, mut host, mut status) = (None, None, None);
    if reads(&["http"]) {
        path = r.check_path(t, "path");
        host = r.check_host(t, "host");
        status = r.statuses(t, "expect_status");
    }
    let (mut send, mut expect) = (None, None);
    if reads(&["tcp", "udp"]) {
        send = r.bytes(t, "send");
        expect = r.bytes(t, "expect");
    }
    if reads(&["http", "tcp", "udp"]) {
        check.interval = r.duration(t, "interval").unwrap_or(check.interval);
        check.timeout = r.duration(t, "timeout").unwrap_or(check.timeout);
        check.rise = r.integer(t, "rise").unwrap_or(check.rise);
        check.fall = r.integer(t, "fall").unwrap_or(check.fall);
        check.initially_up = r.choice(t, "initial") != Some("down");
    }
    let (send, expect) = (send.unwrap_or_default(), expect.unwrap_or_default());
    check.kind = match kind {
        "none" => CheckKind::None,
        "tcp" => CheckKind::Tcp { send, expect },
        "udp" => {
            r.demand(t, "send");
            CheckKind::Udp { send, expect }
        }
        "http" => CheckKind::Http {
            path: path.unwrap_or_else(|| "/health".to_owned()),
            host,
            expect_status: status.unwrap_or((200, 399)),
        },
        other => unreachable!("{other} is in the table of keys, but not read"),
    };
    (check, told)
}

/// `circuit_breaker`.
pub(super) fn circuit_breaker(r: &mut Reader<'_>, t: &Open<'_>) -> CircuitBreaker {
    let usual = CircuitBreaker::default();
    CircuitBreaker {
        failure_threshold: r.integer(t, "failure_threshold").unwrap_or(usual.failure_threshold),
        success_threshold: r.integer(t, "success_threshold").unwrap_or(usual.success_threshold),
        timeout: r.duration(t, "timeout").unwrap_or(usual.timeout),
    }
}
