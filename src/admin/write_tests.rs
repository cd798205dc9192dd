//! What writes are read as, row by row.

use super::tests::{call, rules};
use super::*;
use crate::base::ids::ListenerId;
use crate::config::Address;
use crate::shared::order::{Added, Change, Order, Registered, Which};
use std::time::Duration;

/// The order of a write, or its status and detail.
fn order(line: &str, fields: &[(&str, &str)], body: &str) -> Result<Order, (u16, String)> {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let told = |answer: Answer| {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, body["detail"].as_str().unwrap().to_owned())
    };
    let asked = Asked {
        method,
        path,
        query,
        authority: "localhost",
        client: "127.0.0.1".parse().unwrap(),
        fields: fields.iter().map(|(name, value)| (*name, value.as_bytes())),
    };
    match decide(&asked, &rules(None)) {
        Decision::Write(form) => form.fill(body.as_bytes(), ListenerId(3)).map_err(told),
        Decision::Answer(answer) => Err(told(answer)),
        Decision::Ask { question, .. } => panic!("{question:?}"),
    }
}

fn change(line: &str, body: &str) -> Change {
    order(line, &[], body).unwrap_or_else(|refused| panic!("{line} {body}: {refused:?}")).change
}

fn which(id: &str, pool: Option<&str>) -> Which {
    Which { id: id.into(), pool: pool.map(str::to_owned) }
}

#[test]
fn paths_and_bodies_are_read_as_what_they_say() {
    let at = |text: &str| Address::backend(text).unwrap();
    let added = |address: &str| Added { address: at(address), weight: 1, max_connections: 0, backup: false };
    let add = |pool: Option<&str>, id: &str, added| Change::Add { pool: pool.map(str::to_owned), id: id.into(), added };
    let registered = |weight, ttl, check: Option<&str>| Change::Register {
        pool: "web".into(),
        id: "s1".into(),
        registered: Registered {
            address: at("10.0.0.7:80"),
            weight,
            ttl: Duration::from_millis(ttl),
            check: check.map(|url| url.parse().unwrap()),
        },
    };
    const ADD: &str = "POST /lb/backends/add";
    const REGISTER: &str = "POST /lb/services/web/register";
    let rows = [
        ("the least", ADD, r#"{"host":"10.0.0.7","port":80}"#, add(None, "10.0.0.7:80", added("10.0.0.7:80"))),
        ("a name", ADD, r#"{"host":"localhost","port":80}"#, add(None, "localhost:80", added("localhost:80"))),
        ("IPv6", ADD, r#"{"host":"::1","port":80}"#, add(None, "[::1]:80", added("[::1]:80"))),
        ("IPv6 as in a URL", ADD, r#"{"host":"[::1]","port":80}"#, add(None, "[::1]:80", added("[::1]:80"))),
        (
            "everything",
            ADD,
            r#"{"id":"b","pool":"web","host":"a","port":1,"weight":256,"max_connections":9,"backup":true}"#,
            add(Some("web"), "b", Added { weight: 256, max_connections: 9, backup: true, ..added("a:1") }),
        ),
        ("weight 0", ADD, r#"{"host":"a","port":1,"weight":0}"#, add(None, "a:1", Added { weight: 0, ..added("a:1") })),
        ("remove", "DELETE /lb/backends/b1/remove", "", Change::Remove { which: which("b1", None), wait: None }),
        (
            "remove and wait",
            "DELETE /lb/backends/b1/remove?wait=30s&pool=a",
            "",
            Change::Remove { which: which("b1", Some("a")), wait: Some(Duration::from_secs(30)) },
        ),
        ("enable", "POST /lb/backends/b1/enable", "", Change::Enable(which("b1", None))),
        ("an empty object", "POST /lb/backends/b1/enable", " {} ", Change::Enable(which("b1", None))),
        (
            "an id that is an address",
            "POST /lb/backends/127.0.0.1:80/disable",
            "",
            Change::Disable(which("127.0.0.1:80", None)),
        ),
        ("an id that is escaped", "POST /lb/backends/%5B::1%5D:80/drain", "", Change::Drain(which("[::1]:80", None))),
        (
            "a blank in it, and a plus",
            "POST /lb/backends/a%20b+c/drain?pool=x%20y+z",
            "",
            Change::Drain(which("a b+c", Some("x y z"))),
        ),
        ("a percent in it", "POST /lb/backends/100%25/drain", "", Change::Drain(which("100%", None))),
        ("weight", "PATCH /lb/backends/b1", r#"{"weight":5}"#, Change::Weight(which("b1", None), 5)),
        ("register", REGISTER, r#"{"id":"s1","host":"10.0.0.7","port":80}"#, registered(1, 10_000, None)),
        (
            "register with everything",
            REGISTER,
            r#"{"id":"s1","host":"10.0.0.7","port":80,"weight":3,"ttl":"250ms","health_check_url":"http://10.0.0.7:81/up"}"#,
            registered(3, 250, Some("http://10.0.0.7:81/up")),
        ),
        ("deregister", "DELETE /lb/services/web/s1", "", Change::Deregister { pool: "web".into(), id: "s1".into() }),
        ("reload", "POST /lb/reload", "", Change::Reload { discard: false }),
        ("reload, and let go", "POST /lb/reload?discard=api&dry_run=true", "", Change::Reload { discard: true }),
    ];
    for (why, line, body, expected) in rows {
        assert_eq!(change(line, body), expected, "{why}");
    }
    let body = r#"{"id":"s1","host":"Svc.test.","port":80,"health_check_url":"http://svc.TEST/up"}"#;
    assert!(matches!(change(REGISTER, body), Change::Register { .. }), "hosts have no case");
    assert_eq!(order("POST /lb/reload", &[], "").unwrap().listener, ListenerId(3));
}

#[test]
fn a_dry_run_and_what_it_is_based_on_are_read() {
    let read = |query: &str, fields: &[(&str, &str)]| order(&format!("POST /lb/reload{query}"), fields, "").unwrap();
    assert!(!read("", &[]).dry_run && !read("?dry_run=false", &[]).dry_run);
    assert!(read("?dry_run=true", &[]).dry_run);
    assert_eq!(read("", &[]).only_if, None);
    assert_eq!(read("", &[("if-match", "\"7\"")]).only_if, Some(Tags::Of(vec![("7".into(), false)])));
    assert_eq!(read("", &[("If-Match", "*")]).only_if, Some(Tags::Any));
    assert_eq!(read("", &[("If-None-Match", "\"7\"")]).only_if, None, "that is for reading");
}

#[test]
fn what_cannot_be_meant_is_refused_and_says_where() {
    const ADD: &str = "POST /lb/backends/add";
    const REGISTER: &str = "POST /lb/services/web/register";
    let registering = |more: &str| format!(r#"{{"id":"s","host":"a","port":1,{more}}}"#);
    let rows: Vec<(&str, &str, String, &str)> = [
        ("nothing", ADD, "", "host: is missing"),
        ("no JSON", ADD, "host=a&port=1", "the body is no JSON object"),
        ("half of it", ADD, "{\"host\":", "the body is no JSON object"),
        ("two of them", ADD, "{} {}", "the body is no JSON object"),
        ("a list", ADD, "[]", "the body is no JSON object"),
        ("not UTF-8 is no JSON either", ADD, "\u{1}", "the body is no JSON object"),
        ("no port", ADD, r#"{"host":"a"}"#, "port: is missing"),
        ("a port as text", ADD, r#"{"host":"a","port":"80"}"#, "port: is text; write a whole number from 1 to 65535"),
        ("port 0", ADD, r#"{"host":"a","port":0}"#, "port: 0 is no whole number from 1 to 65535"),
        ("a port too large", ADD, r#"{"host":"a","port":65536}"#, "port: 65536 is no"),
        ("a port below zero", ADD, r#"{"host":"a","port":-1}"#, "port: -1 is no"),
        ("a part of a port", ADD, r#"{"host":"a","port":1.5}"#, "port: 1.5 is no"),
        ("a host that is a number", ADD, r#"{"host":7,"port":1}"#, "host: is a number; write text"),
        ("an empty host", ADD, r#"{"host":"","port":1}"#, "host: is empty"),
        ("a host with a port", ADD, r#"{"host":"a:1","port":1}"#, "host: \"a:1\" is no address"),
        ("a URL", ADD, r#"{"host":"http://a","port":1}"#, "host: "),
        ("no machine", ADD, r#"{"host":"0.0.0.0","port":1}"#, "host: \"0.0.0.0:1\" is no single machine"),
        ("nearly IPv4", ADD, r#"{"host":"127.1","port":1}"#, "host: \"127.1:1\" is no IPv4 address"),
        ("a blank", ADD, r#"{"host":"a b","port":1}"#, "host: "),
        ("too heavy", ADD, r#"{"host":"a","port":1,"weight":257}"#, "weight: 257 is no whole number from 0 to 256"),
        ("a weight of null", ADD, r#"{"host":"a","port":1,"weight":null}"#, "weight: is null"),
        ("backup as text", ADD, r#"{"host":"a","port":1,"backup":"yes"}"#, "backup: is text; write true or false"),
        ("a slip", ADD, r#"{"hots":"a","port":1}"#, "\"hots\": is no field; did you mean \"host\"?"),
        ("another field", ADD, r#"{"host":"a","port":1,"zone":"x"}"#, "\"zone\": is no field; the fields are host,"),
        ("a field twice", ADD, r#"{"host":"a","port":1,"port":2}"#, "port: is there twice"),
        ("a word that is taken", ADD, r#"{"id":"add","host":"a","port":1}"#, "id: \"add\" is no id: that word"),
        ("the other one", REGISTER, r#"{"id":"register","host":"a","port":1}"#, "id: \"register\" is no id"),
        ("a slash", ADD, r#"{"id":"a/b","host":"a","port":1}"#, "id: \"a/b\" is no id: there is a \"/\""),
        ("a dot segment", ADD, r#"{"id":"..","host":"a","port":1}"#, "id: \"..\" is no id"),
        ("a line's end", ADD, r#"{"id":"a\nb","host":"a","port":1}"#, "id: \"a\\nb\" is no id: there is a control"),
        (
            "a body where none belongs",
            "POST /lb/backends/b/disable",
            r#"{"weight":5}"#,
            "\"weight\": is no field; there is none here",
        ),
        ("no weight", "PATCH /lb/backends/b", "{}", "weight: is missing"),
        ("what cannot be patched", "PATCH /lb/backends/b", r#"{"weight":5,"id":"c"}"#, "\"id\": is no field"),
        ("no id", REGISTER, r#"{"host":"a","port":1}"#, "id: is missing"),
        (
            "another parameter",
            "POST /lb/backends/b/disable?wait=1s",
            "",
            "\"wait\": is no parameter here; leave it out",
        ),
        ("a parameter twice", "POST /lb/backends/b/disable?pool=a&pool=b", "", "there twice"),
        ("neither true nor false", "POST /lb/reload?dry_run=1", "", "dry_run: \"1\" is neither true nor false"),
        ("what cannot be let go", "POST /lb/reload?discard=file", "", "discard: \"file\" cannot be let go; write api"),
        ("a wait without a unit", "DELETE /lb/backends/b/remove?wait=30", "", "wait: "),
        ("a wait for a day", "DELETE /lb/backends/b/remove?wait=24h", "", "wait: \"24h\" is out of range"),
        ("no escape", "POST /lb/backends/%zz/disable", "", "malformed escape"),
    ]
    .map(|(why, line, body, expected)| (why, line, body.to_owned(), expected))
    .into_iter()
    .chain([
        ("a ttl of a day and more", REGISTER, registering(r#""ttl":"25h""#), "ttl: \"25h\" is out of range"),
        ("no ttl at all", REGISTER, registering(r#""ttl":"0s""#), "ttl: \"0s\" is out of range"),
        ("a ttl that is a number", REGISTER, registering(r#""ttl":10"#), "ttl: is a number; write text, as in \"10s\""),
        (
            "another host",
            REGISTER,
            registering(r#""health_check_url":"http://b/""#),
            "health_check_url: its host is \"b\"; write \"a\"",
        ),
        ("no http", REGISTER, registering(r#""health_check_url":"https://a/""#), "health_check_url: "),
    ])
    .collect();
    for (why, line, body, expected) in rows {
        match order(line, &[], &body) {
            Err((400, detail)) => assert!(detail.contains(expected), "{why}: {detail}"),
            other => panic!("{why}: {other:?}"),
        }
    }
    let (status, detail) = order("POST /lb/reload", &[("If-Match", "7")], "").unwrap_err();
    assert!(status == 400 && detail.starts_with("If-Match: write what ETag said"), "{detail}");
}

#[test]
fn each_path_has_its_method() {
    let rows = [
        ("/lb/backends/add", "POST"),
        ("/lb/backends/b1", "PATCH"),
        ("/lb/backends/b1/remove", "DELETE"),
        ("/lb/backends/b1/enable", "POST"),
        ("/lb/backends/b1/disable", "POST"),
        ("/lb/backends/b1/drain", "POST"),
        ("/lb/services/web/register", "POST"),
        ("/lb/services/web/s1", "DELETE"),
        ("/lb/reload", "POST"),
        ("/lb/config", "GET, HEAD"),
    ];
    for (path, allow) in rows {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let asked = super::tests::Call { method, path, ..super::tests::GOOD };
            let decision = call(asked, &rules(None));
            if allow.split(", ").any(|one| one == method) {
                assert!(!matches!(decision, Decision::Answer(_)), "{method} {path}: {decision:?}");
                continue;
            }
            let Decision::Answer(answer) = decision else { panic!("{method} {path}: {decision:?}") };
            assert_eq!((answer.status, &answer.fields[..]), (405, &[("Allow", allow)][..]), "{method} {path}");
        }
    }
    for path in
        ["/lb/backends/", "/lb/backends//disable", "/lb/backends/b/stop", "/lb/services/web", "/lb/backends/b/drain/x"]
    {
        let asked = super::tests::Call { method: "POST", path, ..super::tests::GOOD };
        assert!(matches!(call(asked, &rules(None)), Decision::Answer(Answer { status: 404, .. })), "{path}");
    }
}

#[test]
fn an_id_has_an_end() {
    let of = |length: usize| format!(r#"{{"host":"10.0.0.7","port":80,"id":"{}"}}"#, "x".repeat(length));
    for line in ["POST /lb/backends/add", "POST /lb/services/web/register"] {
        assert!(order(line, &[], &of(255)).is_ok(), "{line}");
        let (status, detail) = order(line, &[], &of(256)).unwrap_err();
        assert!(status == 400 && detail.contains("is longer than 255 bytes; write a shorter one"), "{line}: {detail}");
    }
}
