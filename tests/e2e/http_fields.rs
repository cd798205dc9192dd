//! What a backend is told about the way a request came, and which fields stay behind.

use crate::support::http::{Backend, Head, Wire, ask};
use crate::support::{L4lb, Setup};

/// The head that reaches the backend when these field lines are sent.
fn told(lb: &L4lb, backend: &Backend, fields: &str) -> Head {
    let answer = ask(lb.addr(), format!("GET /x HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n"));
    assert_eq!(answer.status(), 200, "{fields}: {answer:?}");
    backend.only().head
}

#[test]
fn a_stranger_is_not_believed() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).start();
    let head = told(
        &lb,
        &backend,
        "X-Forwarded-For: 1.2.3.4\r\nX-FORWARDED-PROTO: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
         X-Forwarded-Prefix: /admin\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n",
    );
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(head.get("x-forwarded-host"), Some("example.com"));
    assert_eq!(head.get("host"), Some("example.com"));
    for gone in ["x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "forwarded"] {
        assert_eq!(head.get(gone), None, "{gone}");
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_appended_to() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).listener("trusted_proxies = [\"127.0.0.0/8\"]").start();
    let head = told(
        &lb,
        &backend,
        "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2, 192.0.2.3\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: public.example\r\n",
    );
    assert_eq!(head.get("x-forwarded-for"), Some("192.0.2.1, 192.0.2.2, 192.0.2.3, 127.0.0.1"));
    assert_eq!(head.get("x-forwarded-proto"), Some("https"));
    assert_eq!(head.get("x-forwarded-host"), Some("public.example"));
    let head = told(&lb, &backend, "");
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(head.get("x-forwarded-proto"), Some("http"));
    assert_eq!(head.get("x-forwarded-host"), Some("example.com"));
}

#[test]
fn a_network_that_is_not_ours_is_not_trusted() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).listener("trusted_proxies = [\"10.0.0.0/8\", \"::1/128\"]").start();
    let head = told(&lb, &backend, "X-Forwarded-For: 10.0.0.1\r\n");
    assert_eq!(head.get("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn fields_for_one_hop_stay_on_it() {
    let backend = Backend::new(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: X-Secret, keep-alive\r\nX-Secret: s\r\nKeep-Alive: 5\r\n\
          Proxy-Connection: x\r\nTE: x\r\nUpgrade: h2c\r\nX-Kept: k\r\n\r\n"
            .to_vec()
    });
    let lb = Setup::http(backend.addr()).start();
    let mut client = Wire::to(lb.addr());
    let answer = client.ask(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Secret, keep-alive\r\nconnection: X-Other\r\nX-Secret: s\r\n\
         x-other: o\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nX-Kept: k\r\n\r\n",
    );
    let seen = backend.only().head;
    for (side, head) in [("request", &seen), ("response", &answer.head)] {
        for gone in ["x-secret", "x-other", "keep-alive", "proxy-connection", "te", "upgrade", "connection"] {
            assert_eq!(head.get(gone), None, "{side}: {gone}");
        }
        assert_eq!(head.get("x-kept"), Some("k"), "{side}");
    }
}

#[test]
fn a_connection_field_cannot_take_away_what_matters() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).start();
    let mut client = Wire::to(lb.addr());
    client.ask(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Host, Content-Length, Cookie, Authorization, X-Forwarded-For, \
         X-Forwarded-Proto, X-Forwarded-Host, Via\r\nCookie: c\r\nAuthorization: z\r\nVia: 1.1 front\r\n\
         Content-Length: 5\r\n\r\nhello",
    );
    let seen = backend.only();
    assert_eq!(seen.text(), "hello");
    let expected = [
        ("host", "a"),
        ("content-length", "5"),
        ("cookie", "c"),
        ("authorization", "z"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a"),
        ("via", "1.1 front, 1.1 l4lb"),
    ];
    for (name, value) in expected {
        assert_eq!(seen.head.get(name), Some(value), "{name}");
    }
}

#[test]
fn via_grows_both_ways() {
    let backend = Backend::new(|_| b"HTTP/1.1 200 OK\r\nVia: 1.1 inner\r\nContent-Length: 0\r\n\r\n".to_vec());
    let lb = Setup::http(backend.addr()).start();
    let answer = ask(lb.addr(), "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 one\r\nVia: 1.1 two\r\n\r\n");
    assert_eq!(backend.only().head.get("via"), Some("1.0 one, 1.1 two, 1.1 l4lb"));
    assert_eq!(answer.head.get("via"), Some("1.1 inner, 1.1 l4lb"));
}

#[test]
fn a_request_that_goes_round_is_ended() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).start();
    for (times, status) in [(5, 200), (6, 502)] {
        let via = vec!["1.1 l4lb"; times].join(", ");
        let answer = ask(lb.addr(), format!("GET / HTTP/1.1\r\nHost: a\r\nVia: {via}\r\n\r\n"));
        assert_eq!(answer.status(), status, "{times} times");
    }
    assert_eq!(backend.take_seen().len(), 1);
}

#[test]
fn two_balancers_that_point_at_each_other_end_it() {
    // the first one's address is known only when it runs, so that the second is found by a port of our choice
    let port = crate::support::ports::free_port();
    let first = Setup::http(format!("127.0.0.1:{port}")).start();
    let second = Setup::http(first.addr()).bind(&format!("\"127.0.0.1:{port}\"")).start();
    assert_eq!(ask(second.addr(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 502);
}

#[test]
fn the_host_of_an_absolute_target_counts() {
    let backend = Backend::named("b");
    let lb = Setup::http(backend.addr()).start();
    let rows = [
        (
            "it replaces an equal one as it is written",
            "GET http://EXAMPLE.com:80/a?b HTTP/1.1\r\nHost: example.com\r\n",
            "/a?b",
            "EXAMPLE.com:80",
        ),
        ("no path", "GET http://example.com HTTP/1.1\r\nHost: example.com\r\n", "/", "example.com"),
        ("only a query", "GET http://example.com?q HTTP/1.1\r\nHost: example.com\r\n", "/?q", "example.com"),
        ("HTTP/1.0 without Host", "GET http://example.com/x HTTP/1.0\r\n", "/x", "example.com"),
    ];
    for (why, request, target, host) in rows {
        assert_eq!(ask(lb.addr(), format!("{request}\r\n")).status(), 200, "{why}");
        let head = backend.only().head;
        assert_eq!((head.target(), head.get("host")), (target, Some(host)), "{why}");
        assert_eq!(head.get("x-forwarded-host"), Some(host), "{why}");
    }
}

#[test]
fn everything_else_passes_as_it_was_sent() {
    const FIELDS: [(&str, &str); 7] = [
        ("Accept", "*/*;q=0.1, text/html"),
        ("Cookie", "a=b; c=d"),
        ("Authorization", "Basic eDp5"),
        ("X-Weird", "  inner  spaces\tand tabs".trim_ascii()),
        ("If-None-Match", "\"e\""),
        ("Range", "bytes=0-5"),
        ("Content-Type", "text/plain; charset=\"x\""),
    ];
    let backend = Backend::new(|request| {
        let known = |(name, _): &&(String, String)| FIELDS.iter().any(|(known, _)| known == name);
        let back: String =
            request.head.fields.iter().filter(known).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let line = "HTTP/1.1 299 Fine, thank you\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n";
        format!("{line}{back}\r\n").into_bytes()
    });
    let lb = Setup::http(backend.addr()).start();
    let fields: String = FIELDS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let answer = ask(lb.addr(), format!("GET /a/../b/%7Ex;y?z=1&&%00 HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let seen = backend.only().head;
    assert_eq!(seen.target(), "/a/../b/%7Ex;y?z=1&&%00", "as it was sent");
    assert_eq!(answer.head.line, "HTTP/1.1 299 Fine, thank you");
    assert_eq!(answer.head.all("set-cookie").collect::<Vec<_>>(), ["a=b", "c=d"], "each on its own line");
    for (name, value) in FIELDS {
        assert_eq!((seen.get(name), answer.head.get(name)), (Some(value), Some(value)), "{name}");
    }
}
