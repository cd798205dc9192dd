//! What a pool says of choosing and surviving: algorithms and what they hash, checks, breakers, queues.

use super::*;

/// [`LEAST`] with these lines in its pool.
fn pool(lines: &str) -> String {
    LEAST.replace("name = 'api'", &format!("name = 'api'\n{lines}"))
}

fn read(text: &str) -> Pool {
    parse(text, "t").unwrap_or_else(|errors| panic!("{errors}\nin\n{text}")).pools.remove(0)
}

#[test]
fn every_key_of_choosing_and_surviving_arrives() {
    let lines = "algorithm = 'consistent_hash'\nhash_key = 'header:X-Tenant'\nhash_balance = 1.25\nqueue = 100\n\
                 queue_timeout = '3s'\nslow_start = '20s'\npanic_threshold = 0.5\ntcp_on_down = 'close'\n\
                 circuit_breaker = { failure_threshold = 7, success_threshold = 2, timeout = '30s' }\n\
                 health_check = { kind = 'http', path = '/up?x=1', host = 'a.test:81', interval = '10ms', timeout = '5s', \
                 rise = 1, fall = 9, expect_status = '200-299', initial = 'down' }";
    let told = read(&HTTP.replace("name = 'api'", &format!("name = 'api'\n{lines}")));
    let expected = Pool {
        algorithm: Algorithm::ConsistentHash,
        hash_key: HashKey::Header("x-tenant".to_owned()),
        hash_balance: Some(1.25),
        queue: 100,
        queue_timeout: Duration::from_secs(3),
        slow_start: Duration::from_secs(20),
        panic_threshold: 0.5,
        tcp_on_down: TcpOnDown::Close,
        circuit_breaker: Some(CircuitBreaker {
            failure_threshold: 7,
            success_threshold: 2,
            timeout: Duration::from_secs(30),
        }),
        health_check: HealthCheck {
            kind: CheckKind::Http {
                path: "/up?x=1".to_owned(),
                host: Some("a.test:81".to_owned()),
                expect_status: (200, 299),
            },
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(5),
            rise: 1,
            fall: 9,
            initially_up: false,
        },
        backends: told.backends.clone(),
        ..Pool::new("api")
    };
    assert_eq!(told, expected);
}

#[test]
fn tables_left_empty_take_every_default() {
    let told = read(&pool("circuit_breaker = {}\nhealth_check = {}"));
    let breaker = CircuitBreaker { failure_threshold: 5, success_threshold: 3, timeout: Duration::from_secs(60) };
    assert_eq!((told.circuit_breaker, told.health_check), (Some(breaker), HealthCheck::default()));
}

#[test]
fn every_kind_of_check_arrives() {
    let http = |path: &str, host: Option<&str>, expect_status| CheckKind::Http {
        path: path.to_owned(),
        host: host.map(str::to_owned),
        expect_status,
    };
    let rows = [
        ("none", "kind = 'none'", CheckKind::None),
        ("tcp", "kind = 'tcp'", CheckKind::Tcp { send: vec![], expect: vec![] }),
        ("tcp where nothing is said", "rise = 1", CheckKind::Tcp { send: vec![], expect: vec![] }),
        ("send alone", "send = 'x'", CheckKind::Tcp { send: b"x".to_vec(), expect: vec![] }),
        ("a banner", "kind = 'tcp', expect = '220'", CheckKind::Tcp { send: vec![], expect: b"220".to_vec() }),
        (
            "a question and its answer",
            "kind = 'tcp', send = \"PING\\r\\n\", expect = '+PONG'",
            CheckKind::Tcp { send: b"PING\r\n".to_vec(), expect: b"+PONG".to_vec() },
        ),
        (
            "bytes",
            "kind = 'udp', send = 'hex:00 FF', expect = 'hex:81'",
            CheckKind::Udp { send: vec![0, 255], expect: vec![0x81] },
        ),
        ("any answer", "kind = 'udp', send = 'x'", CheckKind::Udp { send: b"x".to_vec(), expect: vec![] }),
        ("http", "kind = 'http'", http("/health", None, (200, 399))),
        ("one status", "kind = 'http', expect_status = 204", http("/health", None, (204, 204))),
        ("one in quotes", "kind = 'http', expect_status = '204'", http("/health", None, (204, 204))),
        ("a host", "kind = 'http', path = '/', host = 'A.test'", http("/", Some("A.test"), (200, 399))),
    ];
    for (why, lines, expected) in rows {
        let told = read(&pool(&format!("health_check = {{ {lines} }}")));
        assert_eq!(told.health_check.kind, expected, "{why}");
    }
}

#[test]
fn backends_of_udp_alone_are_not_connected_to() {
    let twin = "[[listener]]\nname = 'twin'\nbind = '127.0.0.1:8080'\nprotocol = 'tcp'\npool = 'api'\n[[pool]]";
    let route =
        "[[listener]]\nname = 'w'\nbind = '127.0.0.1:8080'\nprotocol = 'http'\nroute = [{ pool = 'api' }]\n[[pool]]";
    let cases = [
        ("udp alone", UDP.to_owned(), HealthCheck::none()),
        (
            "udp twice",
            UDP.replace("[[pool]]", &twin.replace("8080", "8081").replace("tcp", "udp")),
            HealthCheck::none(),
        ),
        ("udp and tcp", UDP.replace("[[pool]]", twin), HealthCheck::default()),
        ("udp and a route", UDP.replace("[[pool]]", route), HealthCheck::default()),
        ("tcp", LEAST.to_owned(), HealthCheck::default()),
        ("nobody", LEAST.replace("[[pool]]", "[[pool]]\nname = 'idle'\n[[pool]]"), HealthCheck::default()),
    ];
    for (why, text, expected) in cases {
        let config = parse(&text, "t").unwrap_or_else(|errors| panic!("{why}: {errors}"));
        assert_eq!(config.pools[0].health_check, expected, "{why}");
    }
}

#[test]
fn each_algorithm_arrives_with_what_it_hashes() {
    for algorithm in Algorithm::ALL {
        assert_eq!(Algorithm::named(algorithm.name()), Some(algorithm));
        for (text, all_http) in [(LEAST, false), (UDP, false), (HTTP, true)] {
            let line = format!("name = 'api'\nalgorithm = '{algorithm}'");
            let told = read(&text.replace("name = 'api'", &line));
            let uri = algorithm == Algorithm::ConsistentHash && all_http;
            let key = if uri { HashKey::Uri } else { HashKey::ClientIp };
            assert_eq!((told.algorithm, told.hash_key), (algorithm, key), "{text}");
        }
    }
}

#[test]
fn what_is_hashed_is_what_all_traffic_has() {
    let also = |protocol: &str, text: &str| {
        let other =
            format!("[[listener]]\nname = 'also'\nbind = '127.0.0.1:9'\nprotocol = '{protocol}'\npool = 'api'\n");
        format!("{text}{other}")
    };
    let routed = HTTP.replace("pool = 'api'", "route = [{ path = '/a', pool = 'api' }, { pool = 'api' }]");
    let bad = |part: &'static str| Err(part);
    let rows = [
        ("http", HTTP.to_owned(), "hash_key = 'path'", Ok(HashKey::Path)),
        ("a cookie", HTTP.to_owned(), "hash_key = 'cookie:Id'", Ok(HashKey::Cookie("Id".to_owned()))),
        ("only routes", routed.clone(), "hash_key = 'uri'", Ok(HashKey::Uri)),
        ("only routes, nothing said", routed.clone(), "", Ok(HashKey::Uri)),
        ("http twice", also("http", HTTP), "hash_key = 'uri'", Ok(HashKey::Uri)),
        (
            "http and tcp",
            also("tcp", HTTP),
            "hash_key = 'uri'",
            bad("listener \"also\", which uses this pool too, is tcp"),
        ),
        (
            "http and udp",
            also("udp", &routed),
            "hash_key = 'path'",
            bad("listener \"also\", which uses this pool too, is udp"),
        ),
        ("tcp alone", LEAST.to_owned(), "hash_key = 'header:x'", bad("no http listener uses this pool")),
        ("udp alone", UDP.to_owned(), "hash_key = 'cookie:x'", bad("no http listener uses this pool")),
        (
            "nobody",
            LEAST.replace("[[pool]]", "[[pool]]\nname = 'b'\n[[pool]]").replace("pool = 'api'", "pool = 'b'"),
            "hash_key = 'uri'",
            bad("no http listener uses this pool"),
        ),
        ("http and tcp, nothing said", also("tcp", HTTP), "", Ok(HashKey::ClientIp)),
        ("the client everywhere", also("tcp", HTTP), "hash_key = 'client_ip'", Ok(HashKey::ClientIp)),
        ("the client, though all is http", HTTP.to_owned(), "hash_key = 'client_ip'", Ok(HashKey::ClientIp)),
    ];
    for (why, text, line, expected) in rows {
        let text = text.replace("name = 'api'", &format!("name = 'api'\nalgorithm = 'consistent_hash'\n{line}"));
        match expected {
            Ok(key) => {
                let config = parse(&text, "t").unwrap_or_else(|errors| panic!("{why}: {errors}"));
                let pool = config.pools.iter().find(|pool| pool.name == "api").expect(why);
                assert_eq!(pool.hash_key, key, "{why}");
            }
            Err(part) => {
                let told = told(&text);
                assert!(told.len() == 1 && told[0].contains(part), "{why}: {told:?}");
            }
        }
    }
}

#[test]
fn what_is_not_known_of_a_listener_is_no_fault_of_a_pool() {
    let hashed = LEAST.replace("name = 'api'", "name = 'api'\nalgorithm = 'maglev'\nhash_key = 'uri'");
    let rows = [
        ("its protocol", hashed.replace("'tcp'", "'htpt'"), 1),
        ("its pool", hashed.replace("pool = 'api'", "pool = 'apo'"), 1),
        ("a line of it", hashed.replace("protocol = 'tcp'", "protocol = "), 1),
    ];
    for (why, text, expected) in rows {
        let told = told(&text);
        assert!(told.len() == expected && !told[0].contains("hash_key"), "{why}: {told:?}");
    }
}

#[test]
fn keys_of_hashing_are_errors_where_nothing_is_hashed() {
    for algorithm in Algorithm::ALL {
        let told = |line: &str| told(&pool(&format!("algorithm = '{algorithm}'\n{line}"))).join("\n");
        let hashes = ["ip_hash", "consistent_hash", "maglev"].contains(&algorithm.name());
        let key = told("hash_key = 'client_ip'");
        assert_eq!(key.is_empty(), hashes, "{key}");
        assert!(
            hashes || key.contains(&format!("is only for algorithms that hash, and {algorithm} does not")),
            "{key}"
        );
        let balance = told("hash_balance = 2");
        assert_eq!(balance.is_empty(), algorithm.name() == "consistent_hash", "{balance}");
    }
    let told = told(&pool("algorithm = 'ip_hash'\nhash_key = 'uri'")).join("\n");
    assert!(told.contains("\"uri\" is not what ip_hash hashes"), "{told}");
}

#[test]
fn balance_is_off_or_at_least_the_mean() {
    let rows = [
        ("0", Ok(None)),
        ("0.0", Ok(None)),
        ("1", Ok(Some(1.0))),
        ("1.25", Ok(Some(1.25))),
        ("0.99", Err("0.99 is neither 0 nor inside 1.0 to 1000.0")),
        ("-1", Err("neither 0 nor inside")),
        ("inf", Err("neither 0 nor inside")),
        ("nan", Err("neither 0 nor inside")),
        ("'1.25'", Err("is text in quotes; write 0 or a number from 1.0 to 1000.0")),
    ];
    for (typed, expected) in rows {
        let text = pool(&format!("algorithm = 'consistent_hash'\nhash_balance = {typed}"));
        match expected {
            Ok(balance) => assert_eq!(read(&text).hash_balance, balance, "{typed}"),
            Err(part) => {
                let told = told(&text);
                assert!(told.len() == 1 && told[0].contains(part), "{typed}: {told:?}");
            }
        }
    }
}

#[test]
fn a_key_of_another_kind_of_check_is_an_error() {
    let section = SECTIONS.iter().find(|section| section.title == "health_check").expect("it is there");
    let mut seen = 0;
    for key in section.now().filter(|key| key.name != "kind") {
        let kinds: &[&str] = match key.scope {
            Scope::CheckHttp => &["http"],
            Scope::CheckBytes => &["tcp", "udp"],
            Scope::Checked => &["http", "tcp", "udp"],
            other => panic!("{other:?} is of no check"),
        };
        for kind in ["http", "tcp", "udp", "none", ""] {
            let kind_line = if kind.is_empty() { String::new() } else { format!("kind = '{kind}'\n") };
            let send = if kind == "udp" && key.name != "send" { "send = 'x'\n" } else { "" };
            // No key takes a date: whoever looks at it complains.
            let text = LEAST.replace(
                "[[pool.backend]]",
                &format!("[pool.health_check]\n{kind_line}{send}{} = 1979-05-27\n[[pool.backend]]", key.name),
            );
            let told = told(&text);
            assert_eq!(told.len(), 1, "{} of {kind:?}: {told:?}", key.name);
            let fits = kinds.contains(&if kind.is_empty() { "tcp" } else { kind });
            let (fit, misfit) = (told[0].contains("is a date or time"), told[0].contains("is only for kind"));
            let misfit = misfit || told[0].contains("means that there are no checks");
            assert_eq!((fit, misfit), (fits, !fits), "{} of {kind:?}: {told:?}", key.name);
            seen += 1;
        }
    }
    assert!(seen >= 50, "only {seen}: is the table whole?");
}

#[test]
fn a_check_of_udp_says_what_it_sends() {
    let of =
        |text: &str, check: &str| told(&text.replace("name = 'api'", &format!("name = 'api'\nhealth_check = {check}")));
    let missing = "send: is missing; write text in quotes, or bytes such as \"hex:0d0a\"";
    let kindless = "kind: is missing, and only udp listeners use this pool";
    let rows = [
        ("nothing", UDP, "{ kind = 'udp' }", missing),
        ("only what is expected", LEAST, "{ kind = 'udp', expect = 'x' }", missing),
        ("an empty datagram", UDP, "{ kind = 'udp', send = '' }", "send: is empty; write text"),
        ("empty bytes", UDP, "{ kind = 'udp', send = 'hex:' }", "send: is empty; write text"),
        ("no kind", UDP, "{ interval = '1s' }", kindless),
        ("nothing at all", UDP, "{}", kindless),
    ];
    for (why, text, check, part) in rows {
        let told = of(text, check);
        assert!(told.len() == 1 && told[0].contains(part), "{why}: {told:?}");
    }
    assert_eq!(of(UDP, "{ kind = 'tcp' }"), [""; 0], "a server may take both");
}
