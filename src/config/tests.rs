//! What a file means, key by key. What is wrong with one: tests/config_errors.rs.

mod limits;
mod pools;

use super::keys::{Key, Preset, SECTIONS, Scope, Section, TOP, Takes};
use super::*;

/// The least that is a configuration, with a header for every section that has one.
const LEAST: &str = "
[global]
[admin]
[[listener]]
name = 'web'
bind = '127.0.0.1:8080'
protocol = 'tcp'
pool = 'api'
[[pool]]
name = 'api'
[[pool.backend]]
address = '127.0.0.1:8001'
";

/// [`LEAST`] for HTTP.
const HTTP: &str = "
[[listener]]
name = 'web'
bind = '127.0.0.1:8080'
protocol = 'http'
pool = 'api'
[[pool]]
name = 'api'
[[pool.backend]]
address = '127.0.0.1:8001'
";

/// [`LEAST`] for UDP.
const UDP: &str = "
[[listener]]
name = 'web'
bind = '127.0.0.1:8080'
protocol = 'udp'
pool = 'api'
[[pool]]
name = 'api'
[[pool.backend]]
address = '127.0.0.1:8001'
";

/// [`LEAST`], as HTTP or UDP where `key` is for that, with a route where `section` is of one, and with the algorithm or
/// the kind of check that `key` is for.
fn least(section: &Section, key: &Key) -> String {
    let in_route = ["[[listener.route]]", "header"].contains(&section.title);
    let check =
        |lines: &str| LEAST.replace("[[pool.backend]]", &format!("[pool.{}]\n{lines}[[pool.backend]]", section.title));
    let limit = |lines: &str| {
        let before = if section.title == "pool.rate_limit" { "[[pool.backend]]" } else { "[[pool]]" };
        LEAST.replace(before, &format!("[{}]\n{lines}{before}", section.title))
    };
    match key.scope {
        _ if in_route => HTTP.replace("[[pool]]", "[[listener.route]]\npool = 'api'\n[[pool]]"),
        _ if section.title == "circuit_breaker" => check(""),
        Scope::CheckHttp | Scope::Checked => check("kind = 'http'\n"),
        Scope::CheckBytes => check("kind = 'udp'\nsend = 'x'\n"),
        Scope::Any if section.title == "health_check" => check("send = 'x'\n"),
        Scope::Hashing | Scope::ConsistentHash => {
            LEAST.replace("name = 'api'", "name = 'api'\nalgorithm = 'consistent_hash'")
        }
        Scope::TokenBucket | Scope::Buckets => limit("algorithm = 'token_bucket'\n"),
        Scope::LeakyBucket => limit("algorithm = 'leaky_bucket'\n"),
        Scope::SlidingWindow => limit("algorithm = 'sliding_window'\nkey = 'all'\nmax_requests = 1\nwindow = '1s'\n"),
        Scope::Any if section.title.ends_with(".rate_limit") => limit(""),
        Scope::Any | Scope::Connections => LEAST.to_owned(),
        Scope::Http | Scope::HttpOrProxied => HTTP.to_owned(),
    }
}

/// [`least`] with `key = value` in `section`, in place of the line for the same key.
fn with(section: &Section, key: &Key, value: &str) -> String {
    let least = least(section, key);
    let more = if value.contains("sliding_window") { "\nmax_requests = 1\nwindow = '1s'" } else { "" };
    let line = format!("{} = {value}{more}", key.name);
    let old = format!("{} =", key.name);
    let before = match section.title {
        "Top level" => return format!("{line}\n{least}"),
        "health_check" if line.contains("http") || line.contains("none") => {
            return with(section, key, "1").replace("kind = 1", &line).replace("send = 'x'\n", "");
        }
        "health_check" => "[pool.health_check]",
        "circuit_breaker" => "[pool.circuit_breaker]",
        "listener.rate_limit" => "[listener.rate_limit]",
        "pool.rate_limit" => "[pool.rate_limit]",
        "header" => return least.replace("[[pool]]", &format!("[listener.route.header]\n{line}\n[[pool]]")),
        "[[pool]]" if key.name == "backend" => {
            return format!("{}{line}\n", least.split("[[pool.backend]]").next().expect("a part"));
        }
        title => title,
    };
    let mut text = String::new();
    for part in least.split_inclusive('\n') {
        let here = text.lines().rfind(|line| line.starts_with('[')) == Some(before);
        if !(here && part.starts_with(&old)) {
            text.push_str(part);
        }
        if part.trim_end() == before {
            text.push_str(&format!("{line}\n"));
        }
    }
    text
}

fn told(text: &str) -> Vec<String> {
    match parse(text, "t") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_least_takes_every_default() {
    let config = parse(LEAST, "t").expect("it is whole");
    let address: Address = "127.0.0.1:8001".parse().expect("an address");
    let expected = Config {
        global: Global::default(),
        admin: Admin::default(),
        listeners: vec![Listener {
            name: "web".to_owned(),
            binds: vec!["127.0.0.1:8080".parse().expect("an address")],
            protocol: Protocol::Tcp,
            serves: Serves::default(),
            pool: Some(0),
            routes: Vec::new(),
            idle_timeout: Duration::from_secs(600),
            max_connections: 0,
            max_per_client: 0,
            rate_limit: None,
            http: Http::default(),
            accept_proxy: false,
            trusted_proxies: Vec::new(),
            socket: SocketOptions::default(),
        }],
        pools: vec![Pool {
            name: "api".to_owned(),
            algorithm: Algorithm::RoundRobin,
            hash_key: HashKey::ClientIp,
            hash_balance: None,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(30),
            retries: 1,
            retry_budget: 0.2,
            keepalive: 64,
            keepalive_timeout: Duration::from_secs(4),
            send_proxy: SendProxy::Off,
            udp_responses: 0,
            udp_requests: 0,
            udp_on_down: OnDown::Reselect,
            queue: 0,
            queue_timeout: Duration::from_secs(5),
            slow_start: Duration::ZERO,
            panic_threshold: 0.0,
            tcp_on_down: TcpOnDown::Keep,
            drain_timeout: Duration::ZERO,
            health_check: HealthCheck {
                kind: CheckKind::Tcp { send: Vec::new(), expect: Vec::new() },
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                rise: 2,
                fall: 3,
                initially_up: true,
            },
            circuit_breaker: None,
            rate_limit: None,
            backends: vec![Backend::new("127.0.0.1:8001", address)],
        }],
    };
    assert_eq!(config, expected);
}

#[test]
fn the_least_of_http_takes_every_default() {
    let config = parse(HTTP, "t").expect("it is whole");
    let expected = Listener {
        name: "web".to_owned(),
        binds: vec!["127.0.0.1:8080".parse().expect("an address")],
        protocol: Protocol::Http,
        serves: Serves::default(),
        pool: Some(0),
        routes: Vec::new(),
        idle_timeout: Duration::from_secs(60),
        max_connections: 0,
        max_per_client: 0,
        rate_limit: None,
        http: Http {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            request_timeout: None,
            tunnel_timeout: Duration::from_secs(3600),
            max_header_size: 16_384,
            max_body_size: None,
        },
        accept_proxy: false,
        trusted_proxies: Vec::new(),
        socket: SocketOptions::default(),
    };
    assert_eq!(config.listeners, [expected]);
}

#[test]
fn every_key_of_http_arrives() {
    let text = "
[[listener]]
name = 'web'
bind = '127.0.0.1:80'
protocol = 'http'
idle_timeout = '5s'
header_timeout = '1s'
body_timeout = '2s'
request_timeout = '1m'
tunnel_timeout = '2h'
max_header_size = '48KiB'
max_body_size = '1.5MiB'
accept_proxy = true
trusted_proxies = ['10.0.0.0/8', '::1', '::ffff:192.0.2.7']
[[listener.route]]
host = 'API.example.com'
path = '/v1/status'
path_prefix = '/v1'
method = ['GET', 'HEAD', 'GET']
header = { name = 'X-Canary', value = 'Yes' }
pool = 'b'
[[listener.route]]
host = '*.Example.com'
method = 'PURGE'
header = { name = 'x-any' }
pool = 'a'
[[listener.route]]
pool = 'b'
[[pool]]
name = 'a'
response_timeout = '3s'
retry_budget = 0.5
keepalive = 0
keepalive_timeout = '50ms'
send_proxy = 'v1'
[[pool]]
name = 'b'
retry_budget = 1
send_proxy = 'v2'
";
    let config = parse(text, "t").expect("it is whole");
    let text = |text: &str| Some(text.to_owned());
    let routes = vec![
        Route {
            host: Some(HostMatch::Exact("api.example.com".to_owned())),
            path: text("/v1/status"),
            path_prefix: text("/v1"),
            methods: vec!["GET".to_owned(), "HEAD".to_owned()],
            header: Some(("x-canary".to_owned(), text("Yes"))),
            pool: 1,
        },
        Route {
            host: Some(HostMatch::Suffix(".example.com".to_owned())),
            path: None,
            path_prefix: None,
            methods: vec!["PURGE".to_owned()],
            header: Some(("x-any".to_owned(), None)),
            pool: 0,
        },
        Route { host: None, path: None, path_prefix: None, methods: Vec::new(), header: None, pool: 1 },
    ];
    let listener = Listener {
        name: "web".to_owned(),
        binds: vec!["127.0.0.1:80".parse().expect("an address")],
        protocol: Protocol::Http,
        serves: Serves::default(),
        pool: None,
        routes,
        idle_timeout: Duration::from_secs(5),
        max_connections: 0,
        max_per_client: 0,
        rate_limit: None,
        http: Http {
            header_timeout: Duration::from_secs(1),
            body_timeout: Duration::from_secs(2),
            request_timeout: Some(Duration::from_secs(60)),
            tunnel_timeout: Duration::from_secs(7200),
            max_header_size: 49_152,
            max_body_size: Some(1_572_864),
        },
        accept_proxy: true,
        trusted_proxies: ["10.0.0.0/8", "::1/128", "192.0.2.7/32"].map(|n| n.parse().expect("a network")).to_vec(),
        socket: SocketOptions::default(),
    };
    assert_eq!(config.listeners, [listener]);
    let first = Pool {
        response_timeout: Duration::from_secs(3),
        retry_budget: 0.5,
        keepalive: 0,
        keepalive_timeout: Duration::from_millis(50),
        send_proxy: SendProxy::V1,
        ..Pool::new("a")
    };
    let second = Pool { retry_budget: 1.0, send_proxy: SendProxy::V2, ..Pool::new("b") };
    assert_eq!(config.pools, [first, second]);
}

#[test]
fn a_proxy_header_is_waited_for_on_tcp_too() {
    let text = LEAST.replace("'tcp'", "'tcp'\naccept_proxy = true\nheader_timeout = '3s'");
    let config = parse(&text, "t").expect("it is whole");
    assert!(config.listeners[0].accept_proxy);
    assert_eq!(config.listeners[0].http, Http { header_timeout: Duration::from_secs(3), ..Http::default() });
}

#[test]
fn the_least_of_udp_takes_every_default() {
    let config = parse(UDP, "t").expect("it is whole");
    let expected = Listener {
        binds: vec!["127.0.0.1:8080".parse().expect("an address")],
        pool: Some(0),
        idle_timeout: Duration::from_secs(30),
        ..Listener::new("web", Protocol::Udp)
    };
    assert_eq!(config.listeners, [expected]);
    assert_eq!(config.pools[0].health_check.kind, CheckKind::None);
}

#[test]
fn every_key_of_udp_arrives() {
    let pool = "name = 'api'\nudp_responses = 1\nudp_requests = 2\nudp_on_down = 'keep'";
    let listener = "'udp'\nidle_timeout = '5s'\nmax_connections = 7\nmax_per_client = 3";
    let text = UDP.replace("'udp'", listener).replace("name = 'api'", pool);
    let config = parse(&text, "t").expect("it is whole");
    let told = &config.listeners[0];
    assert_eq!((told.idle_timeout.as_secs(), told.max_connections, told.max_per_client), (5, 7, 3));
    let told = &config.pools[0];
    assert_eq!((told.udp_responses, told.udp_requests, told.udp_on_down), (1, 2, OnDown::Keep));
}

#[test]
fn a_key_is_an_error_where_it_would_do_nothing() {
    let listener = SECTIONS.iter().find(|section| section.title == "[[listener]]").expect("it is there");
    let mut seen = 0;
    for key in listener.now().filter(|key| key.scope != Scope::Any) {
        let (http, tcp, udp) = match key.scope {
            Scope::Http => (None, Some("is only for http, and this listener is tcp"), Some("listener is udp")),
            Scope::HttpOrProxied => (None, Some("this tcp listener takes none"), Some("only for http and tcp")),
            Scope::Connections => (None, None, Some("is only for http and tcp, and this listener is udp")),
            other => panic!("{other:?} is of no listener"),
        };
        for (protocol, expected) in [("'http'", http), ("'tcp'", tcp), ("'udp'", udp)] {
            let Some(expected) = expected else { continue };
            let text = ["'http'", "'tcp'", "'udp'"]
                .iter()
                .fold(with(listener, key, "1979-05-27"), |text, other| text.replace(other, protocol));
            let told = told(&text);
            let place = format!("{}: is", key.name);
            assert!(told.len() == 1 && told[0].contains(&place), "{} on {protocol}: {told:?}", key.name);
            assert!(told[0].contains(expected) && told[0].contains("; leave it out"), "{protocol}: {told:?}");
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} keys: is the table whole?");
}

#[test]
fn every_key_arrives() {
    let text = "
version = 1
[global]
workers = 3
log_level = 'trace'
log_file = '/var/log/l4lb.log'
max_connections = 1000
shutdown_timeout = '0s'
shutdown_delay = '1500ms'
user = 'www'
group = 'web'
cpu_affinity = true
spin = '50us'
[[listener]]
name = 'first'
bind = 'localhost:1'
protocol = 'tcp'
pool = 'b'
[[listener]]
name = 'web'
bind = ['127.0.0.1:0', '[::1]:8080']
protocol = 'tcp'
pool = 'a'
idle_timeout = '1h'
max_connections = 5
congestion_control = 'bbr'
defer_accept = true
tcp_fastopen = true
[[pool]]
name = 'a'
[[pool]]
name = 'b'
algorithm = 'weighted_round_robin'
connect_timeout = '250ms'
retries = 0
health_check = { kind = 'none' }
backend = [
  { id = 'one', address = 'db.example:5432', weight = 256, max_connections = 7, backup = true, disabled = true },
  { address = '[::1]:5432', weight = 0 },
]
";
    let config = parse(text, "t").expect("it is whole");
    let global = Global {
        workers: 3,
        log_level: log::LevelFilter::Trace,
        log_file: Some("/var/log/l4lb.log".into()),
        log_file_at: Some(Spot { file: "t".into(), line: 6, column: 12, key: "global.log_file".to_owned() }),
        max_connections: 1000,
        shutdown_timeout: Duration::ZERO,
        shutdown_delay: Duration::from_millis(1500),
        user: Some("www".to_owned()),
        user_at: Some(Spot { file: "t".into(), line: 10, column: 8, key: "global.user".to_owned() }),
        group: Some("web".to_owned()),
        group_at: Some(Spot { file: "t".into(), line: 11, column: 9, key: "global.group".to_owned() }),
        cpu_affinity: true,
        spin: Duration::from_micros(50),
    };
    assert_eq!(config.global, global);
    assert_eq!(config.listeners[0].pool, Some(1), "pools are found by name");
    let web = Listener {
        name: "web".to_owned(),
        binds: ["127.0.0.1:0", "[::1]:8080"].map(|a| a.parse().expect("an address")).to_vec(),
        pool: Some(0),
        idle_timeout: Duration::from_secs(3600),
        max_connections: 5,
        socket: SocketOptions { congestion_control: Some("bbr".to_owned()), defer_accept: true, tcp_fastopen: true },
        ..Listener::new("", Protocol::Tcp)
    };
    assert_eq!(config.listeners[1], web);
    assert_eq!(config.pools[0], Pool::new("a"), "a pool may be empty");
    let second = Pool {
        name: "b".to_owned(),
        algorithm: Algorithm::WeightedRoundRobin,
        connect_timeout: Duration::from_millis(250),
        retries: 0,
        health_check: HealthCheck::none(),
        backends: vec![
            Backend {
                weight: 256,
                max_connections: 7,
                backup: true,
                disabled: true,
                ..Backend::new("one", Address::Name { host: "db.example".to_owned(), port: 5432 })
            },
            Backend { weight: 0, ..Backend::new("[::1]:5432", "[::1]:5432".parse().expect("an address")) },
        ],
        ..Pool::new("")
    };
    assert_eq!(config.pools[1], second);
}

#[test]
fn what_looks_odd_and_is_none_the_worse() {
    let cases = [
        ("a pool that nobody uses", format!("{LEAST}[[pool]]\nname = 'b'\n")),
        ("only backups", LEAST.replace("address =", "backup = true\naddress =")),
        ("every backend disabled", LEAST.replace("address =", "disabled = true\naddress =")),
        ("one id in two pools", format!("{LEAST}[[pool]]\nname = 'b'\nbackend = [{{ address = '127.0.0.1:8001' }}]\n")),
        ("one name for a listener and a pool", LEAST.replace("'web'", "'api'")),
        (
            "udp and tcp at one address",
            format!("{UDP}[[listener]]\nname = 'twin'\nbind = '127.0.0.1:8080'\nprotocol = 'tcp'\npool = 'api'\n"),
        ),
        (
            "udp to where we take tcp",
            format!(
                "{UDP}[[listener]]\nname = 't'\nbind = '0.0.0.0:8001'\nprotocol = 'tcp'\npool = 'b'\n[[pool]]\nname = 'b'\n"
            ),
        ),
        (
            "tcp to where we take udp",
            format!(
                "{LEAST}[[listener]]\nname = 'u'\nbind = '127.0.0.1:8001'\nprotocol = 'udp'\npool = 'b'\n[[pool]]\nname = 'b'\n"
            ),
        ),
        ("keys of udp for others", LEAST.replace("[[pool]]", "[[pool]]\nudp_requests = 1")),
        ("both families", LEAST.replace("'127.0.0.1:8080'", "['0.0.0.0:8080', '[::]:8080']")),
        ("a byte order mark", format!("\u{feff}{LEAST}")),
        ("lines as on Windows", LEAST.replace('\n', "\r\n")),
        ("names in any script", LEAST.replace("'api'", "'größe 7?'")),
        ("dotted keys", LEAST.replace("[global]", "global.workers = 1")),
        ("a number for a fraction", LEAST.replace("'api'\n[[pool.b", "'api'\nretry_budget = 0x1\n[[pool.b")),
        ("only a route", HTTP.replace("pool = 'api'", "route = [{ pool = 'api' }]")),
        ("a route for everything, and a pool", HTTP.replace("[[pool]]", "[[listener.route]]\npool = 'api'\n[[pool]]")),
        ("no routes, and a pool", HTTP.replace("pool = 'api'", "pool = 'api'\nroute = []")),
        (
            "one condition twice",
            HTTP.replace("pool = 'api'", "route = [{ path = '/', pool = 'api' }, { path = '/', pool = 'api' }]"),
        ),
        ("whole numbers in any base", LEAST.replace("[global]", "[global]\nworkers = 0x10\nmax_connections = 1_000")),
    ];
    for (why, text) in cases {
        assert_eq!(told(&text), [""; 0], "{why}");
    }
}

#[test]
fn an_own_address_is_a_loop_behind_a_wildcard_with_its_port_and_transport() {
    let own = ["192.0.2.2", "2001:db8::2"].map(|ip| ip.parse().expect("an address"));
    let both = "['0.0.0.0:8001', '[::]:8001']";
    let beside = "['127.0.0.1:8001', '[::]:8001']";
    let cases = [
        ("every IPv4 address", "'0.0.0.0:8001'", "tcp", "192.0.2.2:8001", true),
        ("another port", "'0.0.0.0:8002'", "tcp", "192.0.2.2:8001", false),
        ("another machine", "'0.0.0.0:8001'", "tcp", "192.0.2.3:8001", false),
        ("another transport", "'0.0.0.0:8001'", "udp", "192.0.2.2:8001", false),
        ("IPv6 at IPv4", "'0.0.0.0:8001'", "tcp", "[2001:db8::2]:8001", false),
        ("every address", "'[::]:8001'", "tcp", "[2001:db8::2]:8001", true),
        ("IPv4 at every address", "'[::]:8001'", "tcp", "192.0.2.2:8001", true),
        ("mapped", "'[::]:8001'", "tcp", "[::ffff:192.0.2.2]:8001", true),
        ("the usual pair", both, "tcp", "192.0.2.2:8001", true),
        ("one IPv4 address, so that [::] takes none", beside, "tcp", "192.0.2.2:8001", false),
        ("and that one", beside, "tcp", "127.0.0.1:8001", true),
        ("one address", "'192.0.2.2:8001'", "tcp", "192.0.2.2:8001", true),
        ("another own one", "'127.0.0.1:8001'", "tcp", "192.0.2.2:8001", false),
    ];
    for (why, bind, protocol, backend, expected) in cases {
        let more = format!("[[listener]]\nname = 'l'\nbind = {bind}\nprotocol = '{protocol}'\npool = 'idle'\n");
        let text = format!("{}{more}[[pool]]\nname = 'idle'\n", LEAST.replace("127.0.0.1:8001", backend));
        let told = parse_on(&own, &text, "t").map_err(|errors| errors.to_string()).err().unwrap_or_default();
        assert_eq!(told.contains("is our own listener.l.bind"), expected, "{why}: {told}");
        assert!(expected || told.is_empty(), "{why}: {told}");
    }
}

#[test]
fn a_file_is_checked_for_this_machine() {
    let Some(own) = own_addresses().into_iter().find(|ip| !ip.is_loopback()) else { return };
    let text = LEAST.replace("'127.0.0.1:8080'", "['0.0.0.0:8001', '[::]:8001']");
    let text = text.replace("127.0.0.1:8001", &std::net::SocketAddr::new(own, 8001).to_string());
    let path = std::env::temp_dir().join(format!("l4lb-own-{}.toml", std::process::id()));
    std::fs::write(&path, text).expect("it can be written");
    let told = load(&path).expect_err("it is a loop").to_string();
    std::fs::remove_file(&path).expect("it can be removed");
    assert!(told.contains("is our own listener.web.bind"), "{told}");
}

#[test]
fn every_key_is_read_or_refused() {
    let mut seen = 0;
    for section in SECTIONS {
        for key in section.keys {
            // The sections themselves are in LEAST as headers.
            if std::ptr::eq(section, &TOP) && matches!(key.takes, Takes::Table(_) | Takes::Tables(_)) {
                continue;
            }
            // No key takes a date: whoever does not complain has not looked.
            let text = with(section, key, "1979-05-27");
            let expected = match key.takes {
                Takes::NotYet => format!("{}: is not supported yet; leave it out", key.name),
                _ => format!("{}: is a date or time; write {}", key.name, key.takes),
            };
            let told = told(&text);
            assert!(
                told.iter().any(|line| line.ends_with(&expected)),
                "{} {}: {told:?}\n{text}",
                section.title,
                key.name
            );
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} keys: is the table whole?");
}

#[test]
fn the_defaults_that_are_told_are_those_that_hold() {
    let mut seen = 0;
    for section in SECTIONS {
        for key in section.now() {
            let Preset::Value(value) = key.default else {
                continue;
            };
            let usual = parse(&least(section, key), "t").expect("it is whole");
            let text = with(section, key, value);
            assert_eq!(parse(&text, "t").ok().as_ref(), Some(&usual), "{} = {value}", key.name);
            seen += 1;
        }
    }
    assert!(seen > 25, "only {seen} defaults: is the table whole?");
}

#[test]
fn the_ends_of_every_range_are_inside_it() {
    for section in SECTIONS {
        for key in section.now() {
            let Some(range) = key.takes.range() else {
                continue;
            };
            let (low, high) = range.split_once(" to ").expect("it has two ends");
            let quote = if matches!(key.takes, Takes::Duration(_) | Takes::Size(_)) { "\"" } else { "" };
            for end in [low, high] {
                let text = with(section, key, &format!("{quote}{end}{quote}"));
                assert_eq!(told(&text), [""; 0], "{} = {end}", key.name);
            }
        }
    }
}

#[test]
fn words_of_the_table_are_words_of_the_reader() {
    for section in SECTIONS {
        for key in section.now() {
            let Takes::OneOf { now, later } = &key.takes else {
                continue;
            };
            for word in *now {
                let text = with(section, key, &format!("'{word}'"));
                assert_eq!(told(&text), [""; 0], "{} = {word}", key.name);
            }
            for word in *later {
                let text = with(section, key, &format!("'{word}'"));
                let told = told(&text).join("\n");
                assert!(told.contains("is not supported yet"), "{} = {word}: {told}", key.name);
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_line() {
    let folder = std::env::temp_dir().join(format!("l4lb-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("it can be made");
    let binary = folder.join("binary.toml");
    std::fs::write(&binary, b"a = 1\n\xff\xfe").expect("it can be written");
    let large = folder.join("large.toml");
    let file = std::fs::File::create(&large).expect("it can be made");
    file.set_len(LARGEST + 1).expect("it can be sparse");
    let cases = [
        (folder.join("absent.toml"), "; check the path"),
        (folder.clone(), "; name a file in it"),
        (binary, ":2:1: there is a byte that is not UTF-8; save the file as UTF-8 text"),
        (large, ": is larger than 16777216 bytes; is it the right file?"),
    ];
    for (path, end) in cases {
        let told = load(&path).expect_err("it is no configuration").to_string();
        assert!(told.starts_with(&format!("{}:", path.display())), "{told}");
        assert!(told.ends_with(end) && !told.contains('\n'), "{told}");
    }
    std::fs::remove_dir_all(&folder).expect("it can be removed");
}

#[test]
fn who_may_call_the_admin_api_and_where() {
    let text = HTTP.replace("pool = 'api'", "pool = 'api'\nadmin = true");
    let text = format!(
        "[admin]\nlisten = '[::1]:0'\nallow = ['::ffff:10.0.0.0/104']\nhosts = ['lb.example', '*.lb.example']\n{text}"
    );
    let config = parse(&text, "t").expect("it is whole");
    assert_eq!(config.admin.allow, ["10.0.0.0/8".parse().expect("a network")]);
    let hosts = [HostMatch::Exact("lb.example".to_owned()), HostMatch::Suffix(".lb.example".to_owned())];
    assert_eq!(config.admin.hosts, hosts);
    let [web, own] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
    assert_eq!((web.serves, own.serves), (Serves::Both, Serves::Admin));
    assert_eq!((own.binds.len(), own.pool, own.protocol), (1, None, Protocol::Http));
    assert_eq!(config.admin.token, None);
    let nobody = parse(&HTTP.replace("[[listener]]", "admin = { allow = [] }\n[[listener]]"), "t");
    assert_eq!(nobody.expect("it is whole").admin.allow, [], "nobody at all");
}

#[test]
fn a_token_is_read_from_its_file_and_from_nowhere_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("good"), "s3cr3t\n").expect("written");
    std::fs::write(path("empty"), "\n").expect("written");
    let load = |token: &str| {
        let text = format!("[admin]\ntoken_file = '{token}'\n{HTTP}");
        std::fs::write(path("lb.toml"), text).expect("written");
        super::load(Path::new(&path("lb.toml")))
    };
    let token = load(&path("good")).expect("it is whole").admin.token.expect("there is one");
    assert!(token.secret.is(b"s3cr3t"));
    assert!(!format!("{token:?}").contains("s3cr3t"), "it is never printed");
    for (why, name, expected) in [
        ("missing", "missing", "lb.toml:2:14: admin.token_file: "),
        ("missing", "missing", "No such file"),
        ("empty", "empty", "holds no token"),
        ("a folder", "", "cannot be read"),
    ] {
        let told = load(&path(name)).expect_err(why).to_string();
        assert!(told.contains(expected), "{why}: {told}");
    }
    // A text that is no file could not say what a relative path is relative to; and no token is not any token.
    let text = format!("[admin]\ntoken_file = '{}'\n{HTTP}", path("good"));
    assert!(told(&text).join("").contains("cannot be read"));
}

#[test]
fn a_pipe_is_not_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&*pipe, Path::new("/dev/zero")] {
        let told = load_again(path).unwrap_err().to_string();
        assert!(told.ends_with("it is a pipe or a device; name a regular file"), "{told}");
    }
    let file = place.path().join("lb.toml");
    std::fs::write(&file, format!("{HTTP}\n[admin]\ntoken_file = {pipe:?}\n")).unwrap();
    let told = load(&file).unwrap_err().to_string();
    assert!(told.contains("it is a pipe or a device"), "{told}");
    let start = std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&pipe, HTTP).unwrap());
        load(&pipe)
    });
    assert_eq!(start.unwrap().listeners.len(), 1, "but the start may come through one");
}

#[test]
fn a_name_has_an_end() {
    for (length, is_good) in [(255, true), (256, false)] {
        let text = HTTP.replace("'api'", &format!("'{}'", "x".repeat(length)));
        assert_eq!(parse(&text, "test").is_ok(), is_good, "{length}");
    }
}
