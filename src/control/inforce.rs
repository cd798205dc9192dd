//! The configuration in force, as `/lb/config` tells it: by the keys of the file, every one with its value, secrets left out.
//!
//! Knows: configurations and the overlay. Must not touch: anything that runs.

use crate::config::{
    Address, Admin, Backend, CheckKind, Config, Global, HealthCheck, HostMatch, LimitAlgorithm, Listener, OnDown, Pool,
    Protocol, RateLimit, Route, SendProxy, Serves, TcpOnDown,
};
use crate::control::answers::About;
use crate::control::render;
use crate::control::writes::backend_json;
use crate::shared::admin::Answer;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The answer to `/lb/config`.
pub(super) fn config(about: &About) -> Answer {
    let changes: Vec<Value> = about.overlay.entries().map(|(pool, id, entry)| change(pool, id, json!(entry))).collect();
    let mut told =
        json!({ "generation": about.edition, "config": whole(&about.config), "api": { "changes": changes } });
    if let Some(problem) = &about.problem {
        told["api"]["state_file_problem"] = json!(problem);
    }
    render::json(200, &told).about(about.edition)
}

fn change(pool: &str, id: &str, entry: Value) -> Value {
    let mut told = Map::new();
    told.insert("pool".into(), pool.into());
    told.insert("id".into(), id.into());
    if let Value::Object(fields) = entry {
        told.extend(fields);
    }
    Value::Object(told)
}

fn whole(config: &Config) -> Value {
    let own = config.listeners.iter().find(|listener| listener.serves == Serves::Admin);
    let listeners = config.listeners.iter().filter(|listener| listener.serves != Serves::Admin);
    json!({
        "global": global(&config.global),
        "admin": admin(&config.admin, own.and_then(|listener| listener.binds.first())),
        "listener": listeners.map(|one| listener(one, config)).collect::<Vec<_>>(),
        "pool": config.pools.iter().map(pool).collect::<Vec<_>>(),
    })
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn global(global: &Global) -> Value {
    json!({
        "workers": global.workers,
        "log_level": global.log_level.to_string().to_ascii_lowercase(),
        "log_file": global.log_file,
        "max_connections": global.max_connections,
        "shutdown_timeout": duration(global.shutdown_timeout),
        "shutdown_delay": duration(global.shutdown_delay),
        "user": global.user,
        "group": global.group,
        "cpu_affinity": global.cpu_affinity,
        "spin": duration(global.spin),
    })
}

fn admin(admin: &Admin, listen: Option<&Address>) -> Value {
    json!({
        "listen": listen.map(Address::to_string),
        "allow": texts(&admin.allow),
        "hosts": admin.hosts.iter().map(host).collect::<Vec<_>>(),
        // What is in it stays there.
        "token_file": admin.token.as_ref().map(|token| &token.file),
        "state_file": admin.state_file,
    })
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

fn host(host: &HostMatch) -> String {
    match host {
        HostMatch::Exact(name) => name.clone(),
        HostMatch::Suffix(name) => format!("*{name}"),
    }
}

fn listener(listener: &Listener, config: &Config) -> Value {
    let name_of = |pool: usize| config.pools.get(pool).map(|pool| pool.name.as_str());
    let (http, socket) = (&listener.http, &listener.socket);
    let mut told = json!({
        "name": listener.name,
        "bind": texts(&listener.binds),
        "protocol": listener.protocol.to_string(),
        "pool": listener.pool.and_then(name_of),
        "idle_timeout": duration(listener.idle_timeout),
        "max_connections": listener.max_connections,
        "max_per_client": listener.max_per_client,
    });
    let mut add = |more: Value| {
        if let (Value::Object(told), Value::Object(more)) = (&mut told, more) {
            told.extend(more);
        }
    };
    add(limited(listener.rate_limit.as_ref()));
    if listener.protocol == Protocol::Udp {
        return told;
    }
    add(json!({
        "accept_proxy": listener.accept_proxy,
        "congestion_control": socket.congestion_control,
        "defer_accept": socket.defer_accept,
        "tcp_fastopen": socket.tcp_fastopen,
    }));
    if listener.protocol == Protocol::Http || listener.accept_proxy {
        add(json!({ "header_timeout": duration(http.header_timeout) }));
    }
    if listener.protocol == Protocol::Http {
        add(json!({
            "admin": listener.serves == Serves::Both,
            "body_timeout": duration(http.body_timeout),
            "request_timeout": duration(http.request_timeout.unwrap_or_default()),
            "tunnel_timeout": duration(http.tunnel_timeout),
            "max_header_size": http.max_header_size,
            "max_body_size": http.max_body_size.unwrap_or(0),
            "trusted_proxies": texts(&listener.trusted_proxies),
            "route": listener.routes.iter().map(|one| route(one, name_of(one.pool))).collect::<Vec<_>>(),
        }));
    }
    told
}

/// `rate_limit`, where there is one.
fn limited(limit: Option<&RateLimit>) -> Value {
    let Some(RateLimit { algorithm, key }) = limit else { return json!({}) };
    let (name, key) = (algorithm.name(), key.to_string());
    let told = match *algorithm {
        LimitAlgorithm::TokenBucket { capacity, refill_rate } => {
            json!({ "algorithm": name, "key": key, "capacity": capacity, "refill_rate": refill_rate })
        }
        LimitAlgorithm::SlidingWindow { max_requests, window } => {
            json!({ "algorithm": name, "key": key, "max_requests": max_requests, "window": duration(window) })
        }
        LimitAlgorithm::LeakyBucket { capacity, leak_rate } => {
            json!({ "algorithm": name, "key": key, "capacity": capacity, "leak_rate": leak_rate })
        }
    };
    json!({ "rate_limit": told })
}

fn route(route: &Route, pool: Option<&str>) -> Value {
    let Route { host: asked, path, path_prefix, methods, header, pool: _ } = route;
    let mut told = Map::new();
    let mut add = |key: &str, value: Option<Value>| {
        told.extend(value.map(|value| (key.to_owned(), value)));
    };
    add("host", asked.as_ref().map(|asked| json!(host(asked))));
    add("path", path.as_ref().map(|path| json!(path)));
    add("path_prefix", path_prefix.as_ref().map(|path| json!(path)));
    add("method", (!methods.is_empty()).then(|| json!(methods)));
    add("header", header.as_ref().map(|(name, value)| json!({ "name": name, "value": value })));
    add("pool", Some(json!(pool)));
    Value::Object(told)
}

fn pool(pool: &Pool) -> Value {
    let mut told = json!({
        "name": pool.name,
        "algorithm": pool.algorithm.to_string(),
        "hash_balance": pool.hash_balance.unwrap_or(0.0),
        "connect_timeout": duration(pool.connect_timeout),
        "response_timeout": duration(pool.response_timeout),
        "retries": pool.retries,
        "retry_budget": pool.retry_budget,
        "queue": pool.queue,
        "queue_timeout": duration(pool.queue_timeout),
        "keepalive": pool.keepalive,
        "keepalive_timeout": duration(pool.keepalive_timeout),
        "send_proxy": match pool.send_proxy {
            SendProxy::Off => "off",
            SendProxy::V1 => "v1",
            SendProxy::V2 => "v2",
        },
        "slow_start": duration(pool.slow_start),
        "panic_threshold": pool.panic_threshold,
        "tcp_on_down": match pool.tcp_on_down {
            TcpOnDown::Keep => "keep",
            TcpOnDown::Close => "close",
        },
        "drain_timeout": duration(pool.drain_timeout),
        "udp_responses": pool.udp_responses,
        "udp_requests": pool.udp_requests,
        "udp_on_down": match pool.udp_on_down {
            OnDown::Reselect => "reselect",
            OnDown::Keep => "keep",
        },
        "health_check": health_check(&pool.health_check),
        "backend": pool.backends.iter().map(backend).collect::<Vec<_>>(),
    });
    if pool.algorithm.is_hashing() {
        told["hash_key"] = json!(pool.hash_key.to_string());
    }
    if let Some(breaker) = &pool.circuit_breaker {
        told["circuit_breaker"] = json!({
            "failure_threshold": breaker.failure_threshold,
            "success_threshold": breaker.success_threshold,
            "timeout": duration(breaker.timeout),
        });
    }
    if let (Value::Object(told), Value::Object(limit)) = (&mut told, limited(pool.rate_limit.as_ref())) {
        told.extend(limit);
    }
    told
}

fn backend(backend: &Backend) -> Value {
    backend_json(backend)
}

fn health_check(check: &HealthCheck) -> Value {
    let bytes = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with("hex:") && !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.iter().fold("hex:".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    };
    let mut told = match &check.kind {
        CheckKind::None => return json!({ "kind": "none" }),
        CheckKind::Tcp { send, expect } => json!({ "kind": "tcp", "send": bytes(send), "expect": bytes(expect) }),
        CheckKind::Udp { send, expect } => json!({ "kind": "udp", "send": bytes(send), "expect": bytes(expect) }),
        CheckKind::Http { path, host, expect_status: (from, to) } => {
            json!({ "kind": "http", "path": path, "host": host, "expect_status": format!("{from}-{to}") })
        }
    };
    told["interval"] = json!(duration(check.interval));
    told["timeout"] = json!(duration(check.timeout));
    told["rise"] = json!(check.rise);
    told["fall"] = json!(check.fall);
    told["initial"] = json!(if check.initially_up { "up" } else { "down" });
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{SECTIONS, Takes};

    /// Says something about everything, so that nothing is left out because it is off.
    const FILE: &str = r#"
        [[listener]]
        name = "web"
        bind = ["127.0.0.1:80", "[::1]:80"]
        protocol = "http"
        pool = "a"
        admin = true
        max_per_client = 7
        rate_limit = { algorithm = "sliding_window", key = "header:X-Key", max_requests = 5, window = "1500ms" }
        [[listener.route]]
        host = "*.example.com"
        path = "/y/x"
        path_prefix = "/y"
        method = ["GET"]
        header = { name = "x-canary", value = "1" }
        pool = "b"
        [[listener]]
        name = "dns"
        bind = "127.0.0.1:53"
        protocol = "udp"
        pool = "c"
        [[pool]]
        name = "a"
        algorithm = "consistent_hash"
        health_check = { kind = "http" }
        circuit_breaker = {}
        rate_limit = { algorithm = "leaky_bucket", capacity = 3, leak_rate = 0.5 }
        backend = [{ address = "127.0.0.1:1" }]
        [[pool]]
        name = "b"
        health_check = { kind = "tcp", send = "PING", expect = "hex:00" }
        [[pool]]
        name = "c"
        rate_limit = { algorithm = "token_bucket" }
    "#;

    fn told(file: &str) -> Value {
        whole(&crate::config::parse(file, "test").unwrap())
    }

    #[test]
    fn every_key_of_the_file_is_told() {
        let told = told(FILE);
        let keys = keys_of(&told);
        let due = SECTIONS.iter().flat_map(|section| section.keys).filter(|key| key.takes != Takes::NotYet);
        let missing = due.map(|key| key.name).filter(|name| *name != "version" && !keys.iter().any(|key| key == name));
        let missing: Vec<&str> = missing.collect();
        assert!(missing.is_empty(), "{missing:?} are keys of the file, and not in {told}");
    }

    fn keys_of(value: &Value) -> Vec<String> {
        match value {
            Value::Object(map) => {
                map.iter().flat_map(|(key, value)| [vec![key.clone()], keys_of(value)].concat()).collect()
            }
            Value::Array(list) => list.iter().flat_map(keys_of).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn values_are_told_as_they_would_be_written() {
        let told = told(FILE);
        let rows = [
            ("an address", "/listener/0/bind/1", json!("[::1]:80")),
            ("a pool by its name", "/listener/0/pool", json!("a")),
            ("a route's too", "/listener/0/route/0/pool", json!("b")),
            ("a wildcard", "/listener/0/route/0/host", json!("*.example.com")),
            ("a duration", "/listener/0/idle_timeout", json!("1m")),
            ("no limit", "/listener/0/request_timeout", json!("0s")),
            ("how many of a client", "/listener/0/max_per_client", json!(7)),
            ("a limit by rate", "/listener/0/rate_limit/max_requests", json!(5)),
            ("its time", "/listener/0/rate_limit/window", json!("1s 500ms")),
            ("whose", "/listener/0/rate_limit/key", json!("header:x-key")),
            ("that of a pool", "/pool/0/rate_limit/algorithm", json!("leaky_bucket")),
            ("its rate", "/pool/0/rate_limit/leak_rate", json!(0.5)),
            ("one that says nothing", "/pool/2/rate_limit/capacity", json!(100)),
            ("what is hashed", "/pool/0/hash_key", json!("uri")),
            ("statuses", "/pool/0/health_check/expect_status", json!("200-399")),
            ("bytes that are text", "/pool/1/health_check/send", json!("PING")),
            ("bytes that are none", "/pool/1/health_check/expect", json!("hex:00")),
            ("no checks", "/pool/2/health_check", json!({ "kind": "none" })),
            ("a backend", "/pool/0/backend/0/id", json!("127.0.0.1:1")),
        ];
        for (why, place, expected) in rows {
            assert_eq!(told.pointer(place), Some(&expected), "{why}: {told}");
        }
        assert_eq!(told.pointer("/listener/1/rate_limit"), None, "what is off is not told");
    }
}
