use super::*;
use crate::base::net::{Network, Networks};
use crate::base::secret::Secret;

/// A request that all is well with, but for what a row changes.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) query: Option<&'static str>,
    pub(super) host: &'static str,
    pub(super) client: &'static str,
    pub(super) fields: &'static [(&'static str, &'static str)],
}

pub(super) const GOOD: Call =
    Call { method: "GET", path: "/lb/stats", query: None, host: "127.0.0.1:8080", client: "127.0.0.1", fields: &[] };

pub(super) fn call(call: Call, rules: &Rules) -> Decision {
    let asked = Asked {
        method: call.method,
        path: call.path,
        query: call.query,
        authority: call.host,
        client: call.client.parse().unwrap(),
        fields: call.fields.iter().map(|(name, value)| (*name, value.as_bytes())),
    };
    decide(&asked, rules)
}

fn status(call_: Call, rules: &Rules) -> u16 {
    match call(call_, rules) {
        Decision::Ask { .. } | Decision::Write(_) => 200,
        Decision::Answer(answer) => {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert!(answer.problem && body["status"] == answer.status, "{body}");
            assert!(body["detail"].as_str().is_some_and(|detail| detail.len() > 20), "{body}: it says what to do");
            answer.status
        }
    }
}

pub(super) fn rules(token: Option<&str>) -> Rules {
    Rules {
        allow: ["127.0.0.0/8", "::1", "10.0.0.0/8"].iter().map(|net| net.parse::<Network>().unwrap()).collect(),
        hosts: vec!["lb.example.com".parse().unwrap(), "*.lb.test".parse().unwrap()],
        token: token.and_then(|token| Secret::new(token.as_bytes())),
    }
}

#[test]
fn without_a_token_address_host_and_origin_decide() {
    let post = Call { method: "POST", path: "/lb/backends", ..GOOD };
    let rows = [
        ("all is well", GOOD, 200),
        ("IPv6", Call { client: "::1", ..GOOD }, 200),
        ("IPv4 through IPv6", Call { client: "::ffff:127.0.0.1", ..GOOD }, 200),
        ("a network that is listed", Call { client: "10.2.3.4", ..GOOD }, 200),
        ("a stranger", Call { client: "192.0.2.1", ..GOOD }, 403),
        ("a stranger learns no path", Call { client: "192.0.2.1", path: "/lb/none", ..GOOD }, 403),
        ("localhost", Call { host: "LocalHost:8080", ..GOOD }, 200),
        ("an IPv6 literal", Call { host: "[::1]", ..GOOD }, 200),
        ("an IPv6 literal with a port", Call { host: "[2001:db8::1]:8080", ..GOOD }, 200),
        ("any IPv4 literal", Call { host: "192.0.2.9", ..GOOD }, 200),
        ("a name that is listed", Call { host: "LB.example.com:80", ..GOOD }, 200),
        ("with the root's dot", Call { host: "lb.example.com.", ..GOOD }, 200),
        ("a wildcard", Call { host: "a.lb.test", ..GOOD }, 200),
        ("not the wildcard's own name", Call { host: "lb.test", ..GOOD }, 421),
        ("nor nothing below it", Call { host: ".lb.test", ..GOOD }, 421),
        ("nor what only ends so", Call { host: "evillb.test", ..GOOD }, 421),
        ("another name", Call { host: "evil.example", ..GOOD }, 421),
        ("a name that begins like localhost", Call { host: "localhost.evil.example", ..GOOD }, 421),
        ("a name that begins like an address", Call { host: "127.0.0.1.evil.example", ..GOOD }, 421),
        ("no name: no browser", Call { host: "", ..GOOD }, 200),
        ("a write, of the wrong method here", post, 405),
        ("a write from its own page", Call { fields: &[("Origin", "http://127.0.0.1:8080")], ..post }, 405),
        ("behind TLS", Call { fields: &[("origin", "https://127.0.0.1:8080")], ..post }, 405),
        ("a write from another page", Call { fields: &[("Origin", "http://evil.example")], ..post }, 403),
        ("from another port", Call { fields: &[("Origin", "http://127.0.0.1:9090")], ..post }, 403),
        ("from nowhere", Call { fields: &[("Origin", "null")], ..post }, 403),
        ("from another site", Call { fields: &[("Sec-Fetch-Site", "cross-site")], ..post }, 403),
        (
            "reading from another page shows it nothing",
            Call { fields: &[("Origin", "http://evil.example")], ..GOOD },
            200,
        ),
    ];
    for (why, call, expected) in rows {
        assert_eq!(status(call, &rules(None)), expected, "{why}");
    }
    let nobody = Rules { allow: Networks::default(), ..rules(None) };
    assert_eq!(status(GOOD, &nobody), 403, "nobody is listed");
}

#[test]
fn with_a_token_the_token_decides() {
    const RIGHT: (&str, &str) = ("Authorization", "Bearer s3cr3t");
    let rows: [(&str, Call, u16); 14] = [
        ("the token", Call { fields: &[RIGHT], ..GOOD }, 200),
        ("schemes have no case", Call { fields: &[("authorization", "bearer s3cr3t")], ..GOOD }, 200),
        ("more blanks", Call { fields: &[("Authorization", "Bearer   s3cr3t")], ..GOOD }, 200),
        ("none", GOOD, 401),
        ("another", Call { fields: &[("Authorization", "Bearer s3cr3")], ..GOOD }, 401),
        ("a longer one", Call { fields: &[("Authorization", "Bearer s3cr3ts3cr3t")], ..GOOD }, 401),
        ("nothing behind the scheme", Call { fields: &[("Authorization", "Bearer ")], ..GOOD }, 401),
        ("the scheme alone", Call { fields: &[("Authorization", "Bearer")], ..GOOD }, 401),
        ("another scheme", Call { fields: &[("Authorization", "Basic s3cr3t")], ..GOOD }, 401),
        ("two", Call { fields: &[RIGHT, RIGHT], ..GOOD }, 401),
        ("the address still counts", Call { fields: &[RIGHT], client: "192.0.2.1", ..GOOD }, 403),
        ("any Host: no page knows the token", Call { fields: &[RIGHT], host: "evil.example", ..GOOD }, 200),
        ("and any origin", Call { fields: &[RIGHT, ("Origin", "http://x")], method: "POST", ..GOOD }, 405),
        ("a path is told to nobody without it", Call { path: "/lb/none", ..GOOD }, 401),
    ];
    for (why, call, expected) in rows {
        assert_eq!(status(call, &rules(Some("s3cr3t"))), expected, "{why}");
    }
    let Decision::Answer(answer) = call(GOOD, &rules(Some("s3cr3t"))) else { panic!("it asks") };
    assert_eq!(answer.fields, [("WWW-Authenticate", "Bearer realm=\"l4lb\"")]);
}

#[test]
fn paths_and_methods_are_those_of_the_table() {
    let ask = |question| Decision::Ask { question, unless: None };
    let backends = |pool: Option<&str>| ask(Question::Backends { pool: pool.map(str::to_owned) });
    let asks = [
        ("health", Call { path: "/lb/health", ..GOOD }, ask(Question::Health)),
        ("stats", GOOD, ask(Question::Stats)),
        ("HEAD is GET", Call { method: "HEAD", ..GOOD }, ask(Question::Stats)),
        ("backends", Call { path: "/lb/backends", ..GOOD }, backends(None)),
        ("of a pool", Call { path: "/lb/backends", query: Some("pool=a%20b"), ..GOOD }, backends(Some("a b"))),
        ("another parameter", Call { path: "/lb/backends", query: Some("_=1"), ..GOOD }, backends(None)),
    ];
    for (why, asked, expected) in asks {
        assert_eq!(call(asked, &rules(None)), expected, "{why}");
    }
    let rows = [
        ("no such path", Call { path: "/lb/none", ..GOOD }, 404),
        ("nothing at the top", Call { path: "/lb", ..GOOD }, 404),
        ("nor below it", Call { path: "/lb/", ..GOOD }, 404),
        ("a slash too many", Call { path: "/lb/stats/", ..GOOD }, 404),
        ("another case", Call { path: "/LB/stats", ..GOOD }, 404),
        ("none of ours, where nothing else is served", Call { path: "/", ..GOOD }, 404),
        ("POST", Call { method: "POST", ..GOOD }, 405),
        ("DELETE", Call { method: "DELETE", ..GOOD }, 405),
        ("OPTIONS", Call { method: "OPTIONS", ..GOOD }, 405),
        ("methods have a case", Call { method: "get", ..GOOD }, 405),
        ("a pool twice", Call { path: "/lb/backends", query: Some("pool=a&pool=b"), ..GOOD }, 400),
        ("no escape", Call { path: "/lb/backends", query: Some("pool=%"), ..GOOD }, 400),
    ];
    for (why, call, expected) in rows {
        assert_eq!(status(call, &rules(None)), expected, "{why}");
    }
    let Decision::Answer(answer) = call(Call { method: "PUT", ..GOOD }, &rules(None)) else { panic!("it asks") };
    assert_eq!(answer.fields, [("Allow", "GET, HEAD")]);
}

#[test]
fn the_paths_of_the_api_are_whole_parts() {
    for (path, expected) in [
        ("/lb", true),
        ("/lb/", true),
        ("/lb/stats", true),
        ("/lbx", false),
        ("/", false),
        ("/x/lb/stats", false),
        ("*", false),
    ] {
        assert_eq!(is_ours(path), expected, "{path}");
    }
}
