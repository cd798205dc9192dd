use super::*;
use proptest::prelude::*;

type Fields<'a> = &'a [(&'a str, &'a [u8])];
/// Host, path, method, fields.
type Request<'a> = (&'a str, &'a str, &'a str, Fields<'a>);

/// The route that takes it, by the compiled form.
fn found(router: &Router, host: &str, path: &str, method: &str, fields: Fields<'_>) -> Option<usize> {
    router.find(&Facts { host, path, method, fields: fields.iter().copied() })
}

/// The route that takes it, by reading the rules one route after the other.
fn modelled(routes: &[Route], host: &str, path: &str, method: &str, fields: Fields<'_>) -> Option<usize> {
    let host = host.to_ascii_lowercase();
    routes.iter().position(|route| {
        let host_fits = route.host.as_ref().is_none_or(|it| match it.to_string().strip_prefix('*') {
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => host == it.to_string(),
        });
        let prefix_fits = route.path_prefix.as_deref().is_none_or(|prefix| {
            let inside = if prefix.ends_with('/') { prefix.to_owned() } else { format!("{prefix}/") };
            prefix == "/" || path == prefix || path.starts_with(&inside)
        });
        let header_fits = route.header.as_ref().is_none_or(|header| {
            fields.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case(&header.name) && header.value.as_deref().is_none_or(|it| it == *value)
            })
        });
        host_fits
            && prefix_fits
            && header_fits
            && route.path.as_deref().is_none_or(|it| it == path)
            && (route.methods.is_empty() || route.methods.iter().any(|it| it == method))
    })
}

fn host(text: &str) -> Route {
    Route { host: Some(text.parse().unwrap()), ..Route::default() }
}

fn path(text: &str) -> Route {
    Route { path: Some(text.to_owned()), ..Route::default() }
}

fn prefix(text: &str) -> Route {
    Route { path_prefix: Some(text.to_owned()), ..Route::default() }
}

fn methods(list: &[&str]) -> Route {
    Route { methods: list.iter().map(|method| (*method).to_owned()).collect(), ..Route::default() }
}

fn header(name: &str, value: Option<&str>) -> Route {
    let value = value.map(|value| value.as_bytes().to_vec());
    Route { header: Some(HeaderMatch { name: name.to_owned(), value }), ..Route::default() }
}

#[test]
fn each_condition_means_what_it_says() {
    let canary: Fields<'_> = &[("Host", b"a"), ("X-Canary", b"0"), ("x-canary", b"1")];
    let cases: [(&str, Route, Request<'_>, bool); 53] = [
        ("no condition takes everything", Route::default(), ("", "*", "OPTIONS", &[]), true),
        ("a host", host("a.com"), ("a.com", "/", "GET", &[]), true),
        ("a host in another case", host("A.com"), ("a.COM", "/", "GET", &[]), true),
        ("another host", host("a.com"), ("b.com", "/", "GET", &[]), false),
        ("a host is not its subdomains", host("a.com"), ("x.a.com", "/", "GET", &[]), false),
        ("no host is no host", host("a.com"), ("", "/", "GET", &[]), false),
        ("IPv6", host("[0::1]"), ("[::1]", "/", "GET", &[]), true),
        ("IPv6 in upper case", host("[fd00::a]"), ("[FD00::A]", "/", "GET", &[]), true),
        ("IPv4", host("192.0.2.1"), ("192.0.2.1", "/", "GET", &[]), true),
        ("one label below", host("*.a.com"), ("x.a.com", "/", "GET", &[]), true),
        ("in another case", host("*.A.com"), ("X.a.COM", "/", "GET", &[]), true),
        ("two labels below", host("*.a.com"), ("y.x.a.com", "/", "GET", &[]), true),
        ("not itself", host("*.a.com"), ("a.com", "/", "GET", &[]), false),
        ("an empty label is none", host("*.a.com"), (".a.com", "/", "GET", &[]), false),
        ("the dot counts", host("*.a.com"), ("xa.com", "/", "GET", &[]), false),
        ("below a top level", host("*.com"), ("y.x.a.com", "/", "GET", &[]), true),
        ("what ends alike", host("*.a.com"), ("x.aa.com", "/", "GET", &[]), false),
        ("a path", path("/status"), ("", "/status", "GET", &[]), true),
        ("a path is whole", path("/status"), ("", "/status/", "GET", &[]), false),
        ("a path is not a prefix", path("/status"), ("", "/status/x", "GET", &[]), false),
        ("case counts in a path", path("/status"), ("", "/Status", "GET", &[]), false),
        ("the root alone", path("/"), ("", "/", "GET", &[]), true),
        ("the root alone is not all", path("/"), ("", "/x", "GET", &[]), false),
        ("a prefix is itself", prefix("/v1"), ("", "/v1", "GET", &[]), true),
        ("a prefix and a slash", prefix("/v1"), ("", "/v1/", "GET", &[]), true),
        ("below a prefix", prefix("/v1"), ("", "/v1/x/y", "GET", &[]), true),
        ("a segment is whole", prefix("/v1"), ("", "/v1x", "GET", &[]), false),
        ("a segment is whole, with more behind", prefix("/v1"), ("", "/v1x/v1/", "GET", &[]), false),
        ("a prefix is in front", prefix("/v1"), ("", "/x/v1", "GET", &[]), false),
        ("case counts in a prefix", prefix("/v1"), ("", "/V1/x", "GET", &[]), false),
        ("a prefix of two segments", prefix("/v1/a"), ("", "/v1/a/b", "GET", &[]), true),
        ("half of it", prefix("/v1/a"), ("", "/v1", "GET", &[]), false),
        ("with a slash: below it", prefix("/v1/"), ("", "/v1/x", "GET", &[]), true),
        ("with a slash: that too", prefix("/v1/"), ("", "/v1/", "GET", &[]), true),
        ("with a slash: not without", prefix("/v1/"), ("", "/v1", "GET", &[]), false),
        ("the root is everything", prefix("/"), ("", "/x", "GET", &[]), true),
        ("everything", prefix("/"), ("", "*", "OPTIONS", &[]), true),
        ("a method", methods(&["GET", "HEAD"]), ("", "/", "HEAD", &[]), true),
        ("another method", methods(&["GET", "HEAD"]), ("", "/", "POST", &[]), false),
        ("GET is not HEAD", methods(&["GET"]), ("", "/", "HEAD", &[]), false),
        ("case counts in a method", methods(&["GET"]), ("", "/", "get", &[]), false),
        ("a field is there", header("x-canary", None), ("", "/", "GET", canary), true),
        ("a field is not there", header("x-other", None), ("", "/", "GET", canary), false),
        ("no fields", header("x-canary", None), ("", "/", "GET", &[]), false),
        ("a value", header("x-CANARY", Some("0")), ("", "/", "GET", canary), true),
        ("a second field of that name", header("X-Canary", Some("1")), ("", "/", "GET", canary), true),
        ("no such value", header("x-canary", Some("01")), ("", "/", "GET", canary), false),
        ("a value of another field", header("x-canary", Some("a")), ("", "/", "GET", canary), false),
        ("an empty value", header("x", Some("")), ("", "/", "GET", &[("x", b"")]), true),
        ("an empty value is one", header("x", None), ("", "/", "GET", &[("x", b"")]), true),
        (
            "path and prefix",
            Route { path_prefix: prefix("/v1").path_prefix, ..path("/v1/x") },
            ("", "/v1/x", "GET", &[]),
            { true },
        ),
        (
            "path and prefix that exclude each other",
            Route { path_prefix: prefix("/v1").path_prefix, ..path("/v2") },
            { ("", "/v2", "GET", &[]) },
            false,
        ),
        (
            "all but one",
            Route { methods: methods(&["PUT"]).methods, ..host("a.com") },
            ("a.com", "/", "GET", &[]),
            false,
        ),
    ];
    for (why, route, (host, path, method, fields), expected) in cases {
        let router = Router::build(vec![route.clone()]);
        assert_eq!(found(&router, host, path, method, fields).is_some(), expected, "{why}");
        assert_eq!(modelled(&[route], host, path, method, fields).is_some(), expected, "{why}: the model");
    }
}

#[test]
fn the_first_one_in_the_file_wins_however_special_another_is() {
    let routes = vec![
        Route { path_prefix: prefix("/v1").path_prefix, ..host("*.com") },
        host("a.com"),
        prefix("/v1/x"),
        path("/v1/x/y"),
        prefix("/v1"),
        Route::default(),
        host("b.org"),
    ];
    let router = Router::build(routes.clone());
    let cases = [
        ("a wildcard before the exact host", "a.com", "/v1/x", Some(0)),
        ("the exact host, the prefix does not fit", "a.com", "/v2", Some(1)),
        ("a prefix before the exact path", "", "/v1/x/y", Some(2)),
        ("a shorter prefix when the longer does not fit", "", "/v1/z", Some(4)),
        ("all before a host that comes later", "b.org", "/", Some(5)),
    ];
    for (why, host, path, expected) in cases {
        assert_eq!(found(&router, host, path, "GET", &[]), expected, "{why}");
        assert_eq!(modelled(&routes, host, path, "GET", &[]), expected, "{why}: the model");
    }
    assert_eq!((router.len(), router.is_empty(), router.route(4)), (7, false, &prefix("/v1")));
    assert!(Router::default().is_empty());
    assert_eq!(found(&Router::build(Vec::new()), "a.com", "/", "GET", &[]), None, "no routes");
}

#[test]
fn long_and_odd_requests_find_what_short_ones_do() {
    let routes = vec![prefix(&format!("/{}", "a".repeat(100))), host("*.a.b.c.d.com"), prefix("/v1")];
    let router = Router::build(routes.clone());
    let (long, longer) = (format!("/{}/x", "a".repeat(100)), format!("/{}/x", "a".repeat(101)));
    let deep = format!("/v1{}", "/".repeat(8000));
    let labels = "x.".repeat(120);
    let hosts = ["", ".", "..", "x.a.b.c.d.com", &format!("{labels}a.b.c.d.com"), &"x".repeat(300), "ä.a.b.c.d.com"];
    for host in hosts {
        for path in ["", "*", "/", "//", &long, &longer, &deep, &long[..101], &long[..102]] {
            let expected = modelled(&routes, host, path, "GET", &[]);
            assert_eq!(found(&router, host, path, "GET", &[]), expected, "{host:?} {path:?}");
        }
    }
    let too_long = format!("{}a.b.c.d.com", "x.".repeat(130));
    assert_eq!(found(&router, &too_long, "/", "GET", &[]), None, "a host over 253 bytes is nobody's");
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(texts)
}

const HOSTS: &[&str] = &["a.com", "b.com", "x.a.com", "y.x.a.com", "com", "[::1]", "10.0.0.1"];
const WILD: &[&str] = &["*.a.com", "*.com", "*.x.a.com", "*.1"];
const PATHS: &[&str] =
    &["/", "/a", "/a/", "/a/b", "/a//b", "/ab", "/a/b/c", "/A", "/b", "//", "/a/b/c/d/e/f/g/h/i/j/k"];
const METHODS: &[&str] = &["GET", "HEAD", "POST", "get"];
const NAMES: &[&str] = &["x", "X", "y-z", "Y-Z", "host"];
const VALUES: &[&str] = &["", "1", "2", "one"];

/// Conditions from few texts, each given now and then, so that routes stand in each other's way.
fn any_route() -> impl Strategy<Value = Route> {
    let maybe = prop::option::weighted(0.4, prop_oneof![one_of(HOSTS), one_of(WILD)]);
    let fields = prop::option::weighted(0.25, (one_of(NAMES), prop::option::of(one_of(VALUES))));
    let paths = (prop::option::weighted(0.3, one_of(PATHS)), prop::option::weighted(0.4, one_of(PATHS)));
    let some_methods = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(one_of(METHODS), 1..3)];
    (maybe, paths, some_methods, fields, any::<u16>()).prop_map(|(host, paths, methods, fields, target)| Route {
        host: host.map(|text| text.parse().unwrap()),
        path: paths.0.map(str::to_owned),
        path_prefix: paths.1.map(str::to_owned),
        methods: methods.into_iter().map(str::to_owned).collect(),
        header: fields.map(|(name, value)| HeaderMatch {
            name: name.to_owned(),
            value: value.map(|value| value.as_bytes().to_vec()),
        }),
        target,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_compiled_router_finds_what_reading_all_routes_does(
        routes in prop::collection::vec(any_route(), 0..30),
        requests in prop::collection::vec((
            prop_oneof![8 => one_of(HOSTS), 1 => Just(""), 1 => Just("X.A.COM"), 1 => Just(".com")],
            prop_oneof![8 => one_of(PATHS), 1 => Just("*"), 1 => Just("/a/b/c/x")],
            one_of(METHODS),
            prop::collection::vec((one_of(NAMES), one_of(VALUES)), 0..4),
        ), 1..12),
    ) {
        let router = Router::build(routes.clone());
        for (host, path, method, fields) in requests {
            let fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, value.as_bytes())).collect();
            let expected = modelled(&routes, host, path, method, &fields);
            prop_assert_eq!(found(&router, host, path, method, &fields), expected, "{} {}", host, path);
        }
    }
}
