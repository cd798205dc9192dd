use super::*;
use crate::config;

const FILE: &str = r#"
    [[listener]]
    name = "l"
    bind = "127.0.0.1:80"
    protocol = "tcp"
    pool = "p"
    [[pool]]
    name = "p"
    [[pool.backend]]
    id = "one"
    address = "127.0.0.1:1"
    weight = 2
    [[pool.backend]]
    id = "two"
    address = "name.test:2"
    disabled = true
    [[pool]]
    name = "q"
    health_check = { kind = "none" }
"#;

fn file() -> Config {
    config::parse(FILE, "test").unwrap()
}

fn added(address: &str) -> Added {
    Added { address: Address::backend(address).unwrap(), weight: 1, max_connections: 0, backup: false }
}

fn registered(address: &str, check: Option<&str>) -> Registered {
    let check = check.map(|url| url.parse().unwrap());
    Registered { address: Address::backend(address).unwrap(), weight: 1, ttl: Duration::from_secs(10), check }
}

/// The backends of all pools in a word each, and what is dropped.
fn over(overlay: &Overlay, file: &Config) -> (String, Vec<(String, Why)>) {
    let (config, dropped) = overlay.over(file);
    let word = |backend: &Backend| {
        let mut word = format!("{}@{}*{}", backend.id, backend.address, backend.weight);
        for (what, is) in [
            (" backup", backend.backup),
            (" disabled", backend.disabled),
            (" draining", backend.draining),
            (" checked", backend.check.is_some()),
        ] {
            word += if is { what } else { "" };
        }
        word
    };
    let pools = config.pools.iter().map(|pool| pool.backends.iter().map(word).collect::<Vec<_>>().join(", "));
    (pools.collect::<Vec<_>>().join(" | "), dropped.into_iter().map(|dropped| (dropped.id, dropped.why)).collect())
}

const ALONE: &str = "one@127.0.0.1:1*2, two@name.test:2*1 disabled | ";

#[test]
fn each_change_is_of_single_fields() {
    type Change = fn(&mut Overlay, &Config);
    let rows: [(&str, &[Change], &str); 16] = [
        ("nothing", &[], ALONE),
        ("a weight", &[|o, f| o.set_weight(f, "p", "one", 5)], "one@127.0.0.1:1*5, two@name.test:2*1 disabled | "),
        ("disabled", &[|o, f| o.disable(f, "p", "one")], "one@127.0.0.1:1*2 disabled, two@name.test:2*1 disabled | "),
        ("draining", &[|o, f| o.drain(f, "p", "one")], "one@127.0.0.1:1*2 draining, two@name.test:2*1 disabled | "),
        (
            "enabled is neither",
            &[|o, f| o.disable(f, "p", "one"), |o, f| o.drain(f, "p", "one"), |o, f| o.enable(f, "p", "one")],
            ALONE,
        ),
        ("enabled against the file", &[|o, f| o.enable(f, "p", "two")], "one@127.0.0.1:1*2, two@name.test:2*1 | "),
        ("removed", &[|o, f| o.remove(f, "p", "one")], "two@name.test:2*1 disabled | "),
        (
            "added behind the file's",
            &[|o, f| o.add(f, "p", "a", &added("127.0.0.1:3"))],
            "one@127.0.0.1:1*2, two@name.test:2*1 disabled, a@127.0.0.1:3*1 | ",
        ),
        (
            "changes of what was added",
            &[
                |o, f| o.add(f, "q", "a", &added("127.0.0.1:3")),
                |o, f| o.set_weight(f, "q", "a", 7),
                |o, f| o.drain(f, "q", "a"),
            ],
            "one@127.0.0.1:1*2, two@name.test:2*1 disabled | a@127.0.0.1:3*7 draining",
        ),
        (
            "added and removed",
            &[
                |o, f| o.add(f, "q", "a", &added("127.0.0.1:3")),
                |o, f| o.drain(f, "q", "a"),
                |o, f| o.remove(f, "q", "a"),
            ],
            ALONE,
        ),
        (
            "removed and added elsewhere",
            &[|o, f| o.remove(f, "p", "one"), |o, f| o.add(f, "p", "one", &added("127.0.0.1:3"))],
            "two@name.test:2*1 disabled, one@127.0.0.1:3*1 | ",
        ),
        (
            "and removed again",
            &[
                |o, f| o.remove(f, "p", "one"),
                |o, f| o.add(f, "p", "one", &added("127.0.0.1:3")),
                |o, f| o.remove(f, "p", "one"),
            ],
            "two@name.test:2*1 disabled | ",
        ),
        (
            "its address is free then",
            &[|o, f| o.remove(f, "p", "one"), |o, f| o.add(f, "p", "new", &added("127.0.0.1:1"))],
            "two@name.test:2*1 disabled, new@127.0.0.1:1*1 | ",
        ),
        (
            "registered, with a check",
            &[|o, f| o.register(f, "q", "s", &registered("127.0.0.1:3", Some("http://127.0.0.1/")))],
            "one@127.0.0.1:1*2, two@name.test:2*1 disabled | s@127.0.0.1:3*1 checked",
        ),
        (
            "registered elsewhere keeps what an operator said",
            &[
                |o, f| o.register(f, "q", "s", &registered("127.0.0.1:3", None)),
                |o, f| o.set_weight(f, "q", "s", 9),
                |o, f| o.register(f, "q", "s", &registered("127.0.0.1:4", None)),
            ],
            "one@127.0.0.1:1*2, two@name.test:2*1 disabled | s@127.0.0.1:4*9",
        ),
        (
            "one id in two pools",
            &[|o, f| o.add(f, "q", "one", &added("127.0.0.1:1"))],
            "one@127.0.0.1:1*2, two@name.test:2*1 disabled | one@127.0.0.1:1*1",
        ),
    ];
    for (why, changes, expected) in rows {
        let mut overlay = Overlay::default();
        changes.iter().for_each(|change| change(&mut overlay, &file()));
        assert_eq!(over(&overlay, &file()), (expected.to_owned(), Vec::new()), "{why}");
        assert_eq!(Overlay::from_bytes(&overlay.to_bytes()), Ok(overlay), "{why}: it survives being written");
    }
}

#[test]
fn what_is_as_in_the_file_leaves_no_entry() {
    type Change = fn(&mut Overlay, &Config);
    let rows: [(&str, &[Change]); 6] = [
        ("its weight", &[|o, f| o.set_weight(f, "p", "one", 2)]),
        ("there and back", &[|o, f| o.set_weight(f, "p", "one", 3), |o, f| o.set_weight(f, "p", "one", 2)]),
        ("disabled as the file has it", &[|o, f| o.disable(f, "p", "two")]),
        ("enabled as the file has it", &[|o, f| o.disable(f, "p", "one"), |o, f| o.enable(f, "p", "one")]),
        (
            "removed and added as it was",
            &[
                |o, f| o.remove(f, "p", "one"),
                |o, f| o.add(f, "p", "one", &Added { weight: 2, ..added("127.0.0.1:1") }),
            ],
        ),
        (
            "registered and gone",
            &[
                |o, f| o.register(f, "q", "s", &registered("127.0.0.1:3", None)),
                |o, f| o.disable(f, "q", "s"),
                |o, f| o.remove(f, "q", "s"),
            ],
        ),
    ];
    for (why, changes) in rows {
        let mut overlay = Overlay::default();
        changes.iter().for_each(|change| change(&mut overlay, &file()));
        assert!(overlay.is_empty(), "{why}: {overlay:?}");
    }
}

#[test]
fn what_has_no_place_over_a_file_is_dropped_and_told() {
    let mut overlay = Overlay::default();
    let before = file();
    overlay.set_weight(&before, "p", "one", 5);
    overlay.remove(&before, "p", "two");
    overlay.add(&before, "p", "a", &added("127.0.0.1:3"));
    overlay.add(&before, "p", "b", &added("127.0.0.1:4"));
    overlay.disable(&before, "p", "b");
    overlay.register(&before, "p", "s", &registered("127.0.0.1:5", None));
    let drop = |pairs: &[(&str, Why)]| pairs.iter().map(|(id, why)| ((*id).to_owned(), *why)).collect::<Vec<_>>();
    let rows = [
        (
            "as it was",
            FILE.to_owned(),
            "one@127.0.0.1:1*5, a@127.0.0.1:3*1, b@127.0.0.1:4*1 disabled, s@127.0.0.1:5*1 | ",
            drop(&[]),
        ),
        (
            "backends have left",
            FILE.replace("\"one\"", "\"uno\"").replace("\"two\"", "\"due\""),
            "uno@127.0.0.1:1*2, due@name.test:2*1 disabled, a@127.0.0.1:3*1, b@127.0.0.1:4*1 disabled, s@127.0.0.1:5*1 | ",
            drop(&[("one", Why::NoBackend), ("two", Why::NoBackend)]),
        ),
        (
            "what was added is in the file",
            FILE.replace("id = \"two\"\n    address = \"name.test:2\"", "id = \"b\"\n    address = \"127.0.0.1:9\""),
            "one@127.0.0.1:1*5, b@127.0.0.1:9*1 disabled, a@127.0.0.1:3*1, s@127.0.0.1:5*1 | ",
            drop(&[("b", Why::InFile), ("two", Why::NoBackend)]),
        ),
        (
            "its address is another's",
            FILE.replace("127.0.0.1:1\"", "127.0.0.1:3\""),
            "one@127.0.0.1:3*5, b@127.0.0.1:4*1 disabled, s@127.0.0.1:5*1 | ",
            drop(&[("a", Why::Address)]),
        ),
        (
            "its address is ours",
            FILE.replace("127.0.0.1:80", "0.0.0.0:3"),
            "one@127.0.0.1:1*5, b@127.0.0.1:4*1 disabled, s@127.0.0.1:5*1 | ",
            drop(&[("a", Why::OwnListener)]),
        ),
        (
            "the pool has left",
            FILE.replace("\"p\"", "\"r\""),
            ALONE,
            drop(&["a", "b", "one", "s", "two"].map(|id| (id, Why::NoPool))),
        ),
    ];
    for (why, text, expected, dropped) in rows {
        let next = config::parse(&text, "test").unwrap();
        assert_eq!(over(&overlay, &next), (expected.to_owned(), dropped), "{why}");
        let mut left = overlay.clone();
        left.forget(&overlay.over(&next).1, &next);
        assert_eq!(over(&left, &next), (expected.to_owned(), Vec::new()), "{why}: and then it is gone");
    }
}

#[test]
fn what_the_file_says_by_now_is_let_go() {
    let mut overlay = Overlay::default();
    overlay.set_weight(&file(), "p", "one", 5);
    let next = config::parse(&FILE.replace("weight = 2", "weight = 5"), "test").unwrap();
    overlay.forget(&[], &next);
    assert!(overlay.is_empty(), "{overlay:?}");
}

#[test]
fn bytes_that_are_no_overlay_are_refused() {
    let whole = |entry: &str| format!(r#"{{"version":1,"pools":{{"p":{{"x":{entry}}}}}}}"#);
    let rows = [
        ("nothing", String::new(), "EOF"),
        ("half", r#"{"version":1,"#.into(), "EOF"),
        ("another version", r#"{"version":2}"#.into(), "version 2 is not known"),
        ("no version", "{}".into(), "version"),
        ("another field", r#"{"version":1,"x":1}"#.into(), "unknown field"),
        ("another field of a backend", whole(r#"{"x":1}"#), "unknown field"),
        ("too heavy", whole(r#"{"weight":300}"#), "pool p, backend x: weight: 300"),
        ("no id", r#"{"version":1,"pools":{"p":{"a/b":{"weight":3}}}}"#.into(), "no id"),
        (
            "no address",
            whole(r#"{"added":{"address":"x","weight":1,"max_connections":0,"backup":false}}"#),
            "address: \"x\" has no port",
        ),
        ("no ttl", whole(r#"{"registered":{"address":"a:1","weight":1,"ttl":"0s"}}"#), "ttl"),
        (
            "no URL",
            whole(r#"{"registered":{"address":"a:1","weight":1,"ttl":"1s","health_check_url":"x"}}"#),
            "health_check_url",
        ),
    ];
    for (why, text, expected) in rows {
        let error = Overlay::from_bytes(text.as_bytes()).expect_err(why);
        assert!(error.contains(expected), "{why}: {error}");
    }
    assert_eq!(Overlay::from_bytes(b"{\"version\":1}"), Ok(Overlay::default()));
}
