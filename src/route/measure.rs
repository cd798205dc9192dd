//! What finding a route costs. No test: the figures are for reading, and mean something in a release build only.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use super::{Facts, HeaderMatch, Route, Router};

const FIELDS: [(&str, &[u8]); 8] = [
    ("Host", b"host7.example.com"),
    ("User-Agent", b"curl/8.5.0"),
    ("Accept", b"*/*"),
    ("Accept-Encoding", b"gzip, br"),
    ("Cookie", b"session=0123456789abcdef"),
    ("X-Request-Id", b"0123456789abcdef"),
    ("x-tenant", b"tenant7"),
    ("Connection", b"keep-alive"),
];

#[test]
#[ignore = "a measurement: cargo test --release --lib route::measure -- --ignored --nocapture"]
fn finding_a_route() {
    let mut told = String::new();
    for (shape, make) in SHAPES {
        for count in [1, 10, 1000] {
            let router = Router::build((0..count).map(make).collect());
            let hosts: Vec<String> = (0..count).map(|i| format!("host{i}.example.com")).collect();
            let paths: Vec<String> = (0..count).map(|i| format!("/api/service{i}/v1/items/12345")).collect();
            let rounds = 1_000_000;
            let mut hits = 0;
            let start = Instant::now();
            for round in 0..rounds {
                let at = round * 7 % count;
                let fields = FIELDS.iter().copied();
                let facts = Facts { host: &hosts[at], path: &paths[at], method: "GET", fields };
                hits += usize::from(router.find(black_box(&facts)).is_some());
            }
            let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(rounds).expect("it is small"));
            writeln!(told, "{shape:<34} {count:>5} routes {each:>7.0} ns {hits:>8} hits").expect("it is text");
        }
    }
    print!("{told}");
}

type Shape = (&'static str, fn(usize) -> Route);

const SHAPES: [Shape; 5] = [
    ("an exact host each", |i| Route { host: format!("host{i}.example.com").parse().ok(), ..Route::default() }),
    ("a prefix each", |i| Route { path_prefix: Some(format!("/api/service{i}")), ..Route::default() }),
    ("host and prefix and method each", |i| Route {
        host: format!("host{i}.example.com").parse().ok(),
        path_prefix: Some(format!("/api/service{i}")),
        methods: vec!["GET".to_owned(), "HEAD".to_owned()],
        ..Route::default()
    }),
    ("hosts, wildcards, paths, prefixes", |i| match i % 4 {
        0 => {
            Route { host: format!("host{i}.example.com").parse().ok(), path: Some("/x".to_owned()), ..Route::default() }
        }
        1 => Route { host: format!("*.h{i}.example.com").parse().ok(), ..Route::default() },
        2 => Route { path: Some(format!("/api/service{i}/v1/items/12345")), ..Route::default() },
        _ => Route { path_prefix: Some(format!("/api/service{i}/v1")), ..Route::default() },
    }),
    ("a header value each", |i| Route {
        header: Some(HeaderMatch { name: "X-Tenant".to_owned(), value: Some(format!("tenant{i}").into_bytes()) }),
        ..Route::default()
    }),
];
