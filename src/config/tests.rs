//! What a file means, key by key. What is wrong with one: tests/config_errors.rs.

use super::keys::{Preset, SECTIONS, Section, TOP, Takes};
use super::*;

/// The least that is a configuration, with a header for every section that has one.
const LEAST: &str = "
[global]
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

/// [`LEAST`] with `line` in `section`, in place of the line for the same key.
fn with(section: &Section, key: &str, line: &str) -> String {
    let old = LEAST.lines().find(|old| old.starts_with(&format!("{key} =")));
    let in_pool = section.title == "[[pool]]";
    let header = if section.title == "health_check" { "[[pool.backend]]" } else { section.title };
    let before = match section.title {
        "Top level" => return format!("{line}\n{LEAST}"),
        "health_check" => {
            return LEAST.replace(header, &format!("[pool.health_check]\n{line}\n{header}"));
        }
        title => title,
    };
    let mut text = String::new();
    for part in LEAST.split_inclusive('\n') {
        let here = text.lines().rfind(|line| line.starts_with('[')) == Some(before);
        let replaced = here && old.is_some_and(|old| part.trim_end() == old);
        if !replaced {
            text.push_str(part);
        }
        if part.trim_end() == before && !(in_pool && key == "backend") {
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
        listeners: vec![Listener {
            name: "web".to_owned(),
            binds: vec!["127.0.0.1:8080".parse().expect("an address")],
            protocol: Protocol::Tcp,
            pool: 0,
            idle_timeout: Duration::from_secs(600),
            max_connections: 0,
            socket: SocketOptions::default(),
        }],
        pools: vec![Pool {
            name: "api".to_owned(),
            algorithm: Algorithm::RoundRobin,
            connect_timeout: Duration::from_secs(2),
            retries: 1,
            health_check: HealthCheck::Tcp,
            backends: vec![Backend {
                id: "127.0.0.1:8001".to_owned(),
                address,
                weight: 1,
                max_connections: 0,
                backup: false,
                disabled: false,
            }],
        }],
    };
    assert_eq!(config, expected);
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
        max_connections: 1000,
        shutdown_timeout: Duration::ZERO,
        cpu_affinity: true,
        spin: Duration::from_micros(50),
    };
    assert_eq!(config.global, global);
    assert_eq!(config.listeners[0].pool, 1, "pools are found by name");
    let web = Listener {
        name: "web".to_owned(),
        binds: ["127.0.0.1:0", "[::1]:8080"].map(|a| a.parse().expect("an address")).to_vec(),
        protocol: Protocol::Tcp,
        pool: 0,
        idle_timeout: Duration::from_secs(3600),
        max_connections: 5,
        socket: SocketOptions { congestion_control: Some("bbr".to_owned()), defer_accept: true, tcp_fastopen: true },
    };
    assert_eq!(config.listeners[1], web);
    assert_eq!(config.pools[0], Pool::new("a"), "a pool may be empty");
    let second = Pool {
        name: "b".to_owned(),
        algorithm: Algorithm::WeightedRoundRobin,
        connect_timeout: Duration::from_millis(250),
        retries: 0,
        health_check: HealthCheck::None,
        backends: vec![
            Backend {
                id: "one".to_owned(),
                address: Address::Name { host: "db.example".to_owned(), port: 5432 },
                weight: 256,
                max_connections: 7,
                backup: true,
                disabled: true,
            },
            Backend {
                id: "[::1]:5432".to_owned(),
                address: "[::1]:5432".parse().expect("an address"),
                weight: 0,
                max_connections: 0,
                backup: false,
                disabled: false,
            },
        ],
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
        ("both families", LEAST.replace("'127.0.0.1:8080'", "['0.0.0.0:8080', '[::]:8080']")),
        ("a byte order mark", format!("\u{feff}{LEAST}")),
        ("lines as on Windows", LEAST.replace('\n', "\r\n")),
        ("names in any script", LEAST.replace("'api'", "'größe 7?'")),
        ("dotted keys", LEAST.replace("[global]", "global.workers = 1")),
        ("whole numbers in any base", LEAST.replace("[global]", "[global]\nworkers = 0x10\nmax_connections = 1_000")),
    ];
    for (why, text) in cases {
        assert_eq!(told(&text), [""; 0], "{why}");
    }
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
            let mut text = with(section, key.name, &format!("{} = 1979-05-27", key.name));
            if key.name == "backend" {
                text = LEAST.split("[[pool.backend]]").next().expect("a part").to_owned() + "backend = 1979-05-27\n";
            }
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
    let usual = parse(LEAST, "t").expect("it is whole");
    let mut seen = 0;
    for section in SECTIONS {
        for key in section.now() {
            let Preset::Value(value) = key.default else {
                continue;
            };
            let text = with(section, key.name, &format!("{} = {value}", key.name));
            assert_eq!(parse(&text, "t").ok().as_ref(), Some(&usual), "{} = {value}", key.name);
            seen += 1;
        }
    }
    assert!(seen > 15, "only {seen} defaults: is the table whole?");
}

#[test]
fn the_ends_of_every_range_are_inside_it() {
    for section in SECTIONS {
        for key in section.now() {
            let (Takes::Integer(_) | Takes::Duration(_)) = key.takes else {
                continue;
            };
            let range = key.takes.range().expect("it has one");
            let (low, high) = range.split_once(" to ").expect("it has two ends");
            let quote = if matches!(key.takes, Takes::Duration(_)) { "\"" } else { "" };
            for end in [low, high] {
                let text = with(section, key.name, &format!("{} = {quote}{end}{quote}", key.name));
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
                let text = with(section, key.name, &format!("{} = '{word}'", key.name));
                assert_eq!(told(&text), [""; 0], "{} = {word}", key.name);
            }
            for word in *later {
                let text = with(section, key.name, &format!("{} = '{word}'", key.name));
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
