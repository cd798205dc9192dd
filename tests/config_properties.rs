//! Whatever the text, the parser ends with a configuration or with errors that a person can find in it.

use std::fs;
use std::path::Path;

use l4lb::config::{self, CheckKind, ConfigError, Protocol};
use proptest::prelude::*;

/// The files of a folder of this project that end in .toml.
fn texts(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&path).unwrap_or_else(|why| panic!("{folder}: {why}"));
    let files = entries.map(|entry| entry.expect("it can be listed").path());
    let files = files.filter(|file| file.extension().is_some_and(|end| end == "toml"));
    let texts: Vec<String> = files.map(|file| fs::read_to_string(file).expect("it is text")).collect();
    assert!(!texts.is_empty(), "{folder} has no .toml file");
    texts
}

/// Parses, and holds what is promised for every text.
fn hold(text: &str) -> Result<(), TestCaseError> {
    let errors = match config::parse(text, "t") {
        Ok(config) => {
            prop_assert!(!config.listeners.is_empty());
            for (at, pool) in config.pools.iter().enumerate() {
                let uses = |l: &&config::Listener| l.pool == Some(at) || l.routes.iter().any(|route| route.pool == at);
                let mut users = config.listeners.iter().filter(uses);
                let by_request = pool.hash_key != config::HashKey::ClientIp;
                prop_assert!(!by_request || pool.algorithm.is_hashing(), "what nobody reads");
                prop_assert!(!by_request || users.clone().count() > 0, "nobody has requests");
                prop_assert!(!by_request || users.all(|user| user.protocol == Protocol::Http), "not all are requests");
                if let CheckKind::Udp { send, .. } = &pool.health_check.kind {
                    prop_assert!(!send.is_empty(), "nothing to send");
                }
            }
            for listener in &config.listeners {
                let pools = listener.pool.into_iter().chain(listener.routes.iter().map(|route| route.pool));
                let pools: Vec<usize> = pools.collect();
                prop_assert!(!pools.is_empty(), "nowhere to go");
                prop_assert!(pools.iter().all(|pool| *pool < config.pools.len()), "a pool that is not there");
                let whole = listener.protocol == Protocol::Http || listener.pool.is_some();
                prop_assert!(whole && (listener.protocol == Protocol::Http || listener.routes.is_empty()));
                prop_assert!(!listener.binds.is_empty());
            }
            return Ok(());
        }
        Err(errors) => errors,
    };
    let lines: Vec<usize> = text.split('\n').map(|line| line.chars().count()).collect();
    let mut last = (1, 1);
    let mut count = 0;
    for error in &errors {
        let ConfigError::At { at, .. } = error else {
            return Err(TestCaseError::fail(format!("no place: {error}")));
        };
        let inside = at.line >= 1 && at.line <= lines.len() && at.column >= 1;
        prop_assert!(inside && at.column <= lines[at.line - 1] + 1, "outside the text: {}", error);
        prop_assert!((at.line, at.column) >= last, "out of order: {}", errors);
        last = (at.line, at.column);
        let told = error.to_string();
        prop_assert!(!told.chars().any(char::is_control), "more than a line: {:?}", told);
        prop_assert!(told.contains("; ") || told.ends_with('?'), "no fix: {}", told);
        count += 1;
    }
    prop_assert!(count > 0, "an error without an error");
    prop_assert_eq!(errors.to_string().split('\n').count(), count);
    Ok(())
}

/// Pieces that files are made of, so that random text gets past the first line.
fn piece() -> impl Strategy<Value = String> {
    let known = [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        " = ",
        ".",
        ",",
        "\n",
        "\r\n",
        "#",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "\\",
        " ",
        "version",
        "global",
        "listener",
        "pool",
        "backend",
        "pool.backend",
        "health_check",
        "name",
        "bind",
        "id",
        "address",
        "weight",
        "idle_timeout",
        "\"5s\"",
        "\"127.0.0.1:80\"",
        "1",
        "-1",
        "1e9",
        "0x7fffffffffffffffff",
        "true",
        "nan",
        "1979-05-27",
        "\n[[listener]]\n",
        "\n[[pool]]\n",
        "\n[[pool.backend]]\n",
        "name = \"a\"\n",
        "pool = \"a\"\n",
        "bind = \"127.0.0.1:80\"\n",
        "protocol = \"tcp\"\n",
        "protocol = \"http\"\n",
        "protocol = \"udp\"\n",
        "\n[[listener.route]]\n",
        "path_prefix",
        "method = [\"GET\"]\n",
        "trusted_proxies = [\"::1\"]\n",
        "\"/v1\"",
        "\"16KiB\"",
        "algorithm = \"maglev\"\n",
        "algorithm = \"consistent_hash\"\n",
        "hash_key = \"uri\"\n",
        "hash_key = \"cookie:a\"\n",
        "hash_balance = 1.25\n",
        "circuit_breaker = {}\n",
        "\n[pool.health_check]\n",
        "kind = \"http\"\n",
        "kind = \"udp\"\n",
        "send = \"hex:00\"\n",
        "rise = 1\n",
        "\u{feff}",
        "ä",
        "\u{1f600}",
        "\0",
    ];
    prop_oneof![8 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,4}"]
}

/// A file of the project with pieces put in, taken out and doubled.
fn mutated() -> impl Strategy<Value = String> {
    let mut originals = texts("config");
    originals.extend(texts("tests/broken"));
    let edit = (any::<prop::sample::Index>(), 0..40_usize, piece());
    (prop::sample::select(originals), prop::collection::vec(edit, 1..6)).prop_map(|(text, edits)| {
        let mut text: Vec<char> = text.chars().collect();
        for (at, take, put) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + take.saturating_sub(20)).min(text.len());
            let mut put: Vec<char> = put.chars().collect();
            if take < 5 {
                put = text[start..(start + 50).min(text.len())].to_vec();
            }
            text.splice(start..end, put);
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_told_in_order(text in any::<String>()) {
        hold(&text)?;
    }

    #[test]
    fn any_pieces_are_told_in_order(pieces in prop::collection::vec(piece(), 0..60)) {
        hold(&pieces.concat())?;
    }

    #[test]
    fn any_mutated_file_is_told_in_order(text in mutated()) {
        hold(&text)?;
    }

    #[test]
    fn any_text_as_a_value_is_told(
        key in "idle_timeout|bind|name|pool|congestion_control|max_body_size|route\\.(host|path|method|header\\.name|header\\.value)",
        value in "\\PC{0,30}|[0-9a-zM. :\\[\\]-]{0,40}|[0-9a-c*./:\\[\\]?#]{0,12}",
    ) {
        let text = format!("[[listener]]\nprotocol = 'http'\n{key} = {}\n", toml::Value::from(value));
        hold(&text)?;
    }

    #[test]
    fn any_text_as_a_value_of_a_pool_is_told(
        key in "hash_key|health_check\\.(path|host|expect_status|send|interval|kind)|circuit_breaker\\.timeout|queue_timeout",
        value in "\\PC{0,30}|(hex|header|cookie):[0-9a-zA-Z -]{0,20}|[0-9-]{0,9}|[a-c*./:\\[\\]?#0-9]{0,12}",
        kind in "http|udp|tcp|none",
        protocol in "http|tcp|udp",
    ) {
        let kind = if key == "health_check.kind" { String::new() } else { format!("health_check.kind = '{kind}'\n") };
        let text = format!(
            "[[listener]]\nname = 'l'\nbind = '[::1]:1'\nprotocol = '{protocol}'\npool = 'p'\n\
             [[pool]]\nname = 'p'\nalgorithm = 'maglev'\n{kind}{key} = {}\n",
            toml::Value::from(value)
        );
        hold(&text)?;
    }

    #[test]
    fn any_text_as_a_proxy_is_told(value in "\\PC{0,30}|[0-9a-f./:\\[\\]]{0,24}") {
        let text = format!("[[listener]]\nprotocol = 'http'\ntrusted_proxies = [{}]\n", toml::Value::from(value));
        hold(&text)?;
    }
}

#[test]
fn every_example_is_a_configuration() {
    for text in texts("config") {
        if let Err(errors) = config::parse(&text, "config/*.toml") {
            panic!("{errors}\nin\n{text}");
        }
    }
}
