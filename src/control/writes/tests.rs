use super::*;
use crate::config;
use crate::shared::order::Tags;
use proptest::prelude::*;

const FILE: &str = r#"
    [[listener]]
    name = "l"
    bind = "127.0.0.1:80"
    protocol = "http"
    pool = "p"
    [[listener]]
    name = "m"
    bind = "127.0.0.1:81"
    protocol = "http"
    route = [{ pool = "q" }]
    [[pool]]
    name = "p"
    backend = [{ id = "one", address = "127.0.0.1:1" }, { id = "both", address = "127.0.0.1:2" }]
    [[pool]]
    name = "q"
    backend = [{ id = "both", address = "127.0.0.1:2" }]
"#;

fn state() -> State {
    State::new(config::parse(FILE, "test").unwrap(), Overlay::default()).0
}

fn order(change: Change) -> Order {
    Order { change, dry_run: false, only_if: None, listener: ListenerId(0) }
}

/// Nothing listens anywhere but at 127.0.0.1:80, and what is called `gone` is on its way out of pool p.
fn judge(state: &State, order: &Order) -> Result<Judged, Answer> {
    let bound: SocketAddr = "127.0.0.1:80".parse().unwrap();
    let own = |_, address: &Address| (*address == Address::Ip(bound)).then_some(bound);
    let listener = |id: ListenerId| Some(usize::from(id.0));
    state.judge(order, &World { own: &own, listener: &listener, leaving: &|_, pool, id| (pool, id) == ("p", "gone") })
}

fn told(answer: &Answer) -> (u16, String) {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    (answer.status, body["detail"].as_str().unwrap().to_owned())
}

fn which(id: &str, pool: Option<&str>) -> Which {
    Which { id: id.into(), pool: pool.map(str::to_owned) }
}

fn add(pool: Option<&str>, id: &str, address: &str) -> Change {
    let added = Added { address: Address::backend(address).unwrap(), weight: 1, max_connections: 0, backup: false };
    Change::Add { pool: pool.map(str::to_owned), id: id.into(), added }
}

fn register(id: &str, address: &str) -> Change {
    let (address, ttl) = (Address::backend(address).unwrap(), Duration::from_secs(10));
    Change::Register {
        pool: "p".into(),
        id: id.into(),
        registered: Registered { address, weight: 1, ttl, check: None },
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_a_way_out() {
    let mut state = state();
    let first = judge(&state, &order(add(Some("p"), "added", "127.0.0.1:3"))).unwrap();
    state.put(first.next.unwrap());
    let rows = [
        ("an id that is there", add(Some("p"), "one", "127.0.0.1:9"), 409, "pool \"p\" has a backend \"one\" already"),
        ("an address that is there", add(Some("p"), "x", "127.0.0.1:1"), 409, "127.0.0.1:1 is backend \"one\" of pool"),
        ("the same, mapped", add(Some("p"), "x", "[::ffff:127.0.0.1]:1"), 409, "is backend \"one\""),
        ("our own address", add(Some("p"), "x", "127.0.0.1:80"), 400, "host, port: 127.0.0.1:80 is where l4lb itself"),
        (
            "no such pool",
            add(Some("x"), "x", "127.0.0.1:9"),
            400,
            "pool: there is no pool \"x\"; write one of \"p\", \"q\"",
        ),
        ("nobody", Change::Disable(which("x", None)), 404, "there is no backend \"x\" in any pool"),
        ("nobody there", Change::Disable(which("one", Some("q"))), 404, "there is no backend \"one\" in pool \"q\""),
        ("no such pool to look in", Change::Disable(which("one", Some("x"))), 404, "there is no pool \"x\""),
        ("on its way out", Change::Enable(which("gone", None)), 404, "is being removed, and drains; add it again"),
        ("the same in its pool", Change::Weight(which("gone", Some("p")), 2), 404, "\"gone\" of pool \"p\" is being"),
        (
            "not in that pool",
            Change::Drain(which("gone", Some("q"))),
            404,
            "there is no backend \"gone\" in pool \"q\"",
        ),
        ("two of them", Change::Drain(which("both", None)), 409, "in each of the pools \"p\", \"q\"; say which"),
        ("two of them to remove", Change::Remove { which: which("both", None), wait: None }, 409, "say which"),
        ("nobody to remove", Change::Remove { which: which("x", None), wait: None }, 404, "there is no backend"),
        ("an id of the file", register("one", "127.0.0.1:9"), 409, "the configuration file has a backend \"one\""),
        ("an id that was added", register("added", "127.0.0.1:3"), 409, "an operator has added a backend \"added\""),
        ("an address that is taken", register("s", "127.0.0.1:1"), 409, "is backend \"one\""),
        ("our own", register("s", "127.0.0.1:80"), 400, "is where l4lb itself listens"),
        (
            "a pool that is not there",
            Change::Deregister { pool: "x".into(), id: "s".into() },
            404,
            "there is no pool \"x\"",
        ),
        ("who never registered", Change::Deregister { pool: "p".into(), id: "s".into() }, 404, "there is no backend"),
        (
            "one of the file",
            Change::Deregister { pool: "p".into(), id: "one".into() },
            409,
            "has not registered itself; use DELETE /lb/backends/ID/remove",
        ),
    ];
    for (why, change, status, expected) in rows {
        let refused = told(&judge(&state, &order(change)).expect_err(why));
        assert!(refused.0 == status && refused.1.contains(expected), "{why}: {refused:?}");
    }
    let nowhere = Order { listener: ListenerId(1), ..order(add(None, "x", "127.0.0.1:9")) };
    let (status, detail) = told(&judge(&state, &nowhere).unwrap_err());
    assert!(status == 400 && detail.contains("pool: is missing; write one of \"p\", \"q\""), "{detail}");
}

/// Does `change`; its reply, and whether it changed anything.
fn done(state: &mut State, change: Change) -> (Reply, bool) {
    let judged = judge(state, &order(change)).unwrap();
    let changes = judged.next.is_some();
    if let Some(next) = judged.next {
        let edition = state.edition;
        state.put(next);
        assert_eq!(state.edition, edition + 1, "each change is an edition");
    }
    (judged.reply, changes)
}

#[test]
fn what_can_be_done_is_done_once() {
    let mut state = state();
    let backend = |status, pool: &str, id: &str| Reply::Backend { status, pool: pool.into(), id: id.into() };
    let removed = |pool: &str, id: &str| Reply::Removed { pool: pool.into(), id: id.into(), wait: None };
    let remove = |id: &str| Change::Remove { which: which(id, None), wait: None };
    let rows = [
        ("to the listener's pool", add(None, "x", "127.0.0.1:9"), backend(201, "p", "x"), true),
        ("disabled", Change::Disable(which("x", None)), backend(200, "p", "x"), true),
        ("again", Change::Disable(which("x", None)), backend(200, "p", "x"), false),
        ("enabled", Change::Enable(which("x", Some("p"))), backend(200, "p", "x"), true),
        ("one of two", Change::Drain(which("both", Some("q"))), backend(200, "q", "both"), true),
        ("a weight", Change::Weight(which("one", None), 9), backend(200, "p", "one"), true),
        ("removed", remove("one"), removed("p", "one"), true),
        ("on its way out already", remove("gone"), removed("p", "gone"), false),
        ("registered", register("s", "127.0.0.1:7"), backend(201, "p", "s"), true),
        ("renewed", register("s", "127.0.0.1:7"), backend(200, "p", "s"), false),
        ("moved", register("s", "127.0.0.1:8"), backend(200, "p", "s"), true),
        ("its old address is free", add(Some("p"), "y", "127.0.0.1:7"), backend(201, "p", "y"), true),
        ("gone", Change::Deregister { pool: "p".into(), id: "s".into() }, removed("p", "s"), true),
        ("and again there", register("s", "127.0.0.1:8"), backend(201, "p", "s"), true),
    ];
    for (why, change, reply, changes) in rows {
        assert_eq!(done(&mut state, change), (reply, changes), "{why}");
    }
    let over = || ["s", "x", "one"].map(|id| ("p".to_owned(), id.to_owned())).to_vec();
    assert_eq!(state.expire(over()), over()[..1], "only what has registered can be over");
    assert_eq!(state.expire(over()), [], "it is over once");
    assert!(state.config.pools[0].backends.iter().any(|backend| backend.id == "x"));
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let state = state();
    let told = |change| {
        let judged = judge(&state, &Order { dry_run: true, ..order(change) }).unwrap();
        assert!(judged.next.is_none() && judged.renewed.is_none());
        let Reply::Told(value) = judged.reply else { panic!("{:?}", judged.reply) };
        value
    };
    let weight = told(Change::Weight(which("one", None), 7));
    assert_eq!((&weight["dry_run"], &weight["changes"]), (&json!(true), &json!(true)));
    assert_eq!((&weight["before"]["weight"], &weight["after"]["weight"]), (&json!(1), &json!(7)));
    let added = told(add(None, "x", "127.0.0.1:9"));
    assert_eq!((&added["before"], &added["after"]["address"]), (&Value::Null, &json!("127.0.0.1:9")));
    assert_eq!(told(Change::Remove { which: which("one", None), wait: None })["after"], Value::Null);
    assert_eq!(told(Change::Enable(which("one", None)))["changes"], false);
    assert_eq!(told(register("s", "127.0.0.1:9"))["after"]["id"], "s");
    let refused = judge(&state, &Order { dry_run: true, ..order(add(None, "one", "127.0.0.1:9")) });
    assert_eq!(refused.unwrap_err().status, 409, "it is checked all the same");
}

#[test]
fn what_was_based_on_another_configuration_is_refused() {
    let mut state = state();
    let tags = |edition: u64| Some(Tags::Of(vec![(edition.to_string(), false)]));
    let first = Order { only_if: tags(state.edition), ..order(Change::Disable(which("one", None))) };
    let next = judge(&state, &first).unwrap().next.unwrap();
    state.put(next);
    let refused = judge(&state, &first).unwrap_err();
    assert_eq!((refused.status, refused.generation), (412, Some(state.edition)), "two at once: the second is told");
    let again = Order { only_if: tags(state.edition), ..first.clone() };
    assert!(judge(&state, &again).is_ok());
    assert!(judge(&state, &Order { only_if: Some(Tags::Any), ..first }).is_ok());
}

/// Whether a configuration is as one that was read from a file must be.
fn is_valid(config: &Config) -> Result<(), String> {
    for pool in &config.pools {
        for (at, backend) in pool.backends.iter().enumerate() {
            if let Some(fault) = Backend::fault_of_id(&backend.id) {
                return Err(format!("{}: {fault}", backend.id));
            }
            let same =
                |other: &&Backend| other.id == backend.id || other.address.canonical() == backend.address.canonical();
            if let Some(other) = pool.backends[..at].iter().find(same) {
                return Err(format!("{backend:?} and {other:?}"));
            }
            if backend.weight > 256 || backend.address.port() == 80 {
                return Err(format!("{backend:?}"));
            }
        }
    }
    Ok(())
}

fn changes() -> impl Strategy<Value = Change> {
    let ids = || prop::sample::select(vec!["one", "both", "a", "b"]);
    let pools = || prop::sample::select(vec!["p", "q"]);
    let ports = || 1_u16..5;
    let of = |id: &str, pool: &str| which(id, Some(pool));
    prop_oneof![
        (pools(), ids(), ports()).prop_map(|(pool, id, port)| add(Some(pool), id, &format!("127.0.0.1:{port}"))),
        (ids(), ports()).prop_map(|(id, port)| register(id, &format!("127.0.0.1:{port}"))),
        (pools(), ids()).prop_map(move |(pool, id)| Change::Remove { which: of(id, pool), wait: None }),
        (pools(), ids()).prop_map(move |(pool, id)| Change::Disable(of(id, pool))),
        (pools(), ids()).prop_map(move |(pool, id)| Change::Enable(of(id, pool))),
        (pools(), ids()).prop_map(move |(pool, id)| Change::Drain(of(id, pool))),
        (pools(), ids(), 0_u16..=256).prop_map(move |(pool, id, weight)| Change::Weight(of(id, pool), weight)),
        (pools(), ids()).prop_map(|(pool, id)| Change::Deregister { pool: pool.into(), id: id.into() }),
    ]
}

/// A file that differs from the first: other ids, other addresses, another pool.
fn files() -> impl Strategy<Value = Config> {
    let backends = || prop::collection::btree_map(prop::sample::select(vec!["one", "both", "a", "c"]), 1_u16..5, 0..4);
    (backends(), prop::sample::select(vec!["p", "r"])).prop_map(|(backends, name)| {
        let mut config = config::parse(&FILE.replace("\"p\"", &format!("{name:?}")), "test").unwrap();
        config.pools[0].backends.clear();
        for (id, port) in backends {
            let address = Address::backend(&format!("127.0.0.1:{port}")).unwrap();
            if config.pools[0].backends.iter().all(|other| other.address != address) {
                config.pools[0].backends.push(Backend::new(id, address));
            }
        }
        config
    })
}

#[derive(Clone, Debug)]
enum Step {
    Write(Change),
    Reload(Box<Config>, bool),
    Restart,
    /// All of these that have registered are over.
    Expire(Vec<&'static str>),
}

proptest! {
    #[test]
    fn whatever_is_written_and_reloaded_the_configuration_is_valid(
        steps in prop::collection::vec(
            prop_oneof![
                8 => changes().prop_map(Step::Write),
                1 => (files(), any::<bool>()).prop_map(|(file, discard)| Step::Reload(Box::new(file), discard)),
                1 => Just(Step::Restart),
                1 => prop::sample::subsequence(vec!["one", "both", "a", "b"], 0..4).prop_map(Step::Expire),
            ],
            0..40,
        )
    ) {
        let mut state = state();
        for step in steps {
            match step {
                Step::Write(change) => {
                    let before = state.clone();
                    if let Ok(Judged { next: Some(next), .. }) = judge(&state, &order(change)) {
                        state.put(next);
                        prop_assert_ne!(&*state.config, &*before.config, "an edition that changes nothing");
                    }
                }
                Step::Reload(file, discard) => {
                    state = state.reloaded(*file, discard).0;
                    prop_assert!(!discard || state.overlay.is_empty());
                }
                Step::Expire(ids) => {
                    let over: Vec<_> = ids.iter().map(|id| ("p".to_owned(), (*id).to_owned())).collect();
                    for (pool, id) in state.expire(over) {
                        prop_assert!(state.overlay.registered(&pool, &id).is_none());
                    }
                }
                Step::Restart => {
                    let overlay = Overlay::from_bytes(&state.overlay.to_bytes());
                    prop_assert_eq!(overlay.as_ref(), Ok(&*state.overlay));
                    let (again, dropped) = State::new(Config::clone(&state.file), overlay.unwrap());
                    prop_assert!(dropped.is_empty(), "{:?}", dropped);
                    prop_assert_eq!(&*again.config, &*state.config, "a restart changes nothing");
                }
            }
            prop_assert_eq!(is_valid(&state.config), Ok(()));
            let (config, dropped) = state.overlay.over(&state.file);
            prop_assert!(dropped.is_empty() && config == *state.config, "what is in force is what there is: {:?}", dropped);
        }
    }
}
