//! What `rate_limit` says, of a listener and of a pool.

use super::*;

/// Configurations with this limit in the listener and in the pool, for HTTP.
fn both(limit: &str) -> Config {
    let text = HTTP.replace("name = 'web'", &format!("name = 'web'\nrate_limit = {limit}"));
    let text = text.replace("name = 'api'", &format!("name = 'api'\nrate_limit = {limit}"));
    parse(&text, "t").unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

#[test]
fn every_kind_of_limit_arrives() {
    let header = LimitKey::Header("x-api-key".to_owned());
    let second = Duration::from_secs(1);
    let rows = [
        (
            "tokens",
            "{ algorithm = 'token_bucket', key = 'all', capacity = 7, refill_rate = 0.5 }",
            LimitAlgorithm::TokenBucket { capacity: 7, refill_rate: 0.5 },
            LimitKey::All,
        ),
        (
            "a whole number of them a second",
            "{ algorithm = 'token_bucket', key = 'client_ip', capacity = 1, refill_rate = 1000000 }",
            LimitAlgorithm::TokenBucket { capacity: 1, refill_rate: 1e6 },
            LimitKey::ClientIp,
        ),
        (
            "a window for each key",
            "{ algorithm = 'sliding_window', key = 'header:X-Api-Key', max_requests = 10_000, window = '1s' }",
            LimitAlgorithm::SlidingWindow { max_requests: 10_000, window: second },
            header,
        ),
        (
            "a window for all may be larger",
            "{ algorithm = 'sliding_window', key = 'all', max_requests = 1_000_000, window = '1s' }",
            LimitAlgorithm::SlidingWindow { max_requests: 1_000_000, window: second },
            LimitKey::All,
        ),
        (
            "a queue",
            "{ algorithm = 'leaky_bucket', key = 'client_ip', capacity = 9, leak_rate = 2.5 }",
            LimitAlgorithm::LeakyBucket { capacity: 9, leak_rate: 2.5 },
            LimitKey::ClientIp,
        ),
    ];
    for (why, typed, algorithm, key) in rows {
        let (config, expected) = (both(typed), Some(RateLimit { algorithm, key }));
        assert_eq!((&config.listeners[0].rate_limit, &config.pools[0].rate_limit), (&expected, &expected), "{why}");
    }
}

#[test]
fn what_is_left_out_is_as_the_manual_shows_it() {
    let config = both("{}");
    let tokens = LimitAlgorithm::TokenBucket { capacity: 100, refill_rate: 10.0 };
    let leaky = LimitAlgorithm::LeakyBucket { capacity: 100, leak_rate: 5.0 };
    let limit = |algorithm, key| Some(RateLimit { algorithm, key });
    assert_eq!(config.listeners[0].rate_limit, limit(tokens, LimitKey::ClientIp));
    assert_eq!(config.pools[0].rate_limit, limit(leaky, LimitKey::All));
    let config = parse(LEAST, "t").expect("it is whole");
    assert_eq!((&config.listeners[0].rate_limit, &config.pools[0].rate_limit), (&None, &None), "off by itself");
}

#[test]
fn a_table_of_its_own_is_read_too() {
    let text = LEAST.replace("[[pool]]", "[listener.rate_limit]\ncapacity = 3\n[[pool]]");
    let config = parse(&text, "t").expect("it is whole");
    let algorithm = LimitAlgorithm::TokenBucket { capacity: 3, refill_rate: 10.0 };
    assert_eq!(config.listeners[0].rate_limit, Some(RateLimit { algorithm, key: LimitKey::ClientIp }));
}

#[test]
fn one_client_may_be_limited_whatever_it_speaks() {
    for text in [LEAST, HTTP, UDP] {
        let text = text.replace("name = 'web'", "name = 'web'\nmax_per_client = 3");
        assert_eq!(parse(&text, "t").expect("it is whole").listeners[0].max_per_client, 3);
    }
}
