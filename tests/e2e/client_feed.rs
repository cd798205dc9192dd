//! The library follows a running l4lb: what the admin API changes there holds here.

use std::time::Duration;

use l4lb::client::{Algorithm, Backend, Context, Feed, Following, Pool};

use crate::support::http::{Backend as Server, ask};
use crate::support::{PATIENCE, Setup, wait_until};

/// Who is picked for a hundred clients.
fn picks(pool: &Pool) -> Vec<String> {
    let of = |host: u8| Context::new().client_ip([127, 0, 0, host].into());
    (1..=100).map(|host| pool.pick(&of(host)).expect("one is there").backend().id().to_owned()).collect()
}

fn ids(pool: &Pool) -> Vec<String> {
    pool.backends().into_iter().map(|backend| backend.id).collect()
}

fn send(addr: std::net::SocketAddr, line: &str, body: &str) {
    let length = body.len();
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    let answer = ask(addr, request);
    assert!((200..300).contains(&answer.status()), "{line}: {}", answer.text());
}

/// Waits for answers to two more questions: the second was asked after this was called.
fn wait_for_answers(following: &Following) {
    let count = || {
        let status = following.status();
        status.updates + status.unchanged
    };
    let before = count();
    wait_until("it is asked again", || count() >= before + 2);
}

#[test]
fn a_pool_of_the_library_follows_the_admin_api() {
    let (one, two) = (Server::named("one"), Server::named("two"));
    let setup = Setup::http(one.addr()).listener("admin = true").pool("algorithm = \"ip_hash\"");
    let lb = setup.backend(format!("localhost:{}", two.addr().port())).start();
    let (first, second) = (one.addr().to_string(), format!("localhost:{}", two.addr().port()));
    let pool = Pool::builder("mine").algorithm(Algorithm::IpHash).build().unwrap();
    pool.register(Backend::new("own", ([192, 0, 2, 1], 80)).weight(0)).unwrap();
    let feed = Feed::new(lb.addr().to_string(), "out").interval(Duration::from_millis(20));
    let following = feed.follow(&pool).unwrap();
    assert!(following.wait(PATIENCE), "{:?}", following.status());

    assert_eq!(ids(&pool), ["own", &*first, &*second]);
    let named = pool.backends().into_iter().find(|backend| backend.id == second).unwrap();
    assert!(named.address.ip().is_loopback() && named.address.port() == two.addr().port(), "{named:?}");
    // The same ids, the same keys: the program serves this client by the backend that the library picks for it.
    let own = pool.pick(&Context::new().client_ip([127, 0, 0, 1].into())).unwrap().backend().id().to_owned();
    let served = ask(lb.addr(), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").text().to_owned();
    assert_eq!(own == first, served == "one", "{own} here, {served} there");

    // Nothing new is told as such, and costs no new table.
    let updates = following.status().updates;
    wait_for_answers(&following);
    let status = following.status();
    assert!(status.updates == updates && status.unchanged >= 2 && status.error.is_none(), "{status:?}");

    send(lb.addr(), &format!("POST /lb/backends/{first}/disable"), "");
    wait_until("one is disabled", || picks(&pool).iter().all(|id| *id == second));
    send(lb.addr(), &format!("POST /lb/backends/{first}/enable"), "");
    wait_until("and enabled", || picks(&pool).contains(&first));
    send(lb.addr(), &format!("PATCH /lb/backends/{second}"), "{\"weight\":0}");
    wait_until("two has weight 0", || picks(&pool).iter().all(|id| *id == first));
    send(
        lb.addr(),
        "POST /lb/backends/add",
        &format!("{{\"id\":\"new\",\"host\":\"127.0.0.1\",\"port\":{}}}", two.addr().port() ^ 1),
    );
    wait_until("there is a new one", || picks(&pool).contains(&"new".to_owned()));
    send(lb.addr(), "DELETE /lb/backends/new/remove", "");
    wait_until("it is removed", || !ids(&pool).contains(&"new".to_owned()));
    assert!(ids(&pool).contains(&"own".to_owned()), "what the program has registered itself stays");

    // Who does not answer changes nothing.
    drop(lb);
    wait_until("nobody answers", || following.status().failures > 0);
    assert!(following.status().error.is_some());
    assert_eq!(ids(&pool), ["own", &*first, &*second]);
    assert!(picks(&pool).iter().all(|id| *id == first));
}

#[test]
fn a_feed_that_is_dropped_changes_nothing_any_more_and_a_wrong_one_says_why() {
    let one = Server::named("one");
    let lb = Setup::http(one.addr()).listener("admin = true").start();
    let pool = Pool::builder("mine").build().unwrap();
    let feed = |pool: &str| Feed::new(format!("http://{}/", lb.addr()), pool).interval(Duration::from_millis(20));
    let following = feed("out").follow(&pool).unwrap();
    assert!(following.wait(PATIENCE));
    drop(following);
    send(lb.addr(), "POST /lb/backends/add", "{\"id\":\"new\",\"host\":\"127.0.0.1\",\"port\":9}");
    // Another feed of another pool has been told of it: the first one would have been.
    let other = Pool::builder("other").build().unwrap();
    let watching = feed("out").follow(&other).unwrap();
    wait_until("the other knows", || ids(&other).contains(&"new".to_owned()));
    wait_for_answers(&watching);
    assert_eq!(ids(&pool), [one.addr().to_string()]);

    let p = Pool::builder("p").build().unwrap();
    let wrong = feed("nothing").follow(&p).unwrap();
    wait_until("it is refused", || wrong.status().failures > 0);
    let error = wrong.status().error.unwrap_or_default();
    assert!(error.contains("404") && error.contains("the pools are out"), "{error}");
    for (address, why) in [("localhost", "no port"), ("a:1/x", "a path"), ("a b:1", "a blank")] {
        assert!(Feed::new(address, "p").follow(&p).is_err(), "{why}");
    }
    assert!(Feed::new("a:1", "p").token("a\r\nb").follow(&p).is_err(), "a line's end");
}
