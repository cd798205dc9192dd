//! Which backend a connection goes to, exactly, over the whole process: every test runs with two workers.

use std::sync::Mutex;
use std::thread;

use crate::support::ports::Refusing;
use crate::support::{L4lb, Server, Setup, exchange};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn three() -> [Server; 3] {
    NAMES.map(Server::named)
}

/// Who answers `n` connections, one after the other.
fn in_turn(lb: &L4lb, n: usize) -> String {
    (0..n).map(|_| who(lb)).collect()
}

/// Who answers a connection; `-` when it is closed without an answer.
fn who(lb: &L4lb) -> String {
    let name = String::from_utf8(exchange(lb.addr(), b"")).expect("a name");
    if name.is_empty() { "-".into() } else { name }
}

fn count(of: &str, among: &str) -> usize {
    among.matches(of).count()
}

#[test]
fn round_robin_takes_each_in_turn_in_the_order_of_the_file() {
    let [a, b, c] = &three();
    let lb = Setup::to(a.addr).backend(b.addr).backend(c.addr).start();
    assert_eq!(in_turn(&lb, 12), "abcabcabcabc");
}

#[test]
fn round_robin_over_three_hundred_connections_at_once_gives_each_exactly_a_hundred() {
    let servers = &three();
    let [a, b, c] = servers;
    let lb = &Setup::to(a.addr).backend(b.addr).backend(c.addr).start();
    let names = Mutex::new(String::new());
    thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| {
                let mine = in_turn(lb, 10);
                names.lock().expect("never poisoned").push_str(&mine);
            });
        }
    });
    let names = names.into_inner().expect("never poisoned");
    assert_eq!(NAMES.map(|name| count(name, &names)), [100, 100, 100], "by what clients were told");
    assert_eq!([a, b, c].map(Server::accepted), [100, 100, 100], "by what backends saw");
}

#[test]
fn weights_five_one_one_are_exact_in_every_round_and_spread_out_in_it() {
    let [a, b, c] = &three();
    let lb = Setup::new()
        .pool("algorithm = \"weighted_round_robin\"")
        .backend_with(a.addr, "weight = 5")
        .backend_with(b.addr, "weight = 1")
        .backend_with(c.addr, "weight = 1")
        .start();
    let sequence = in_turn(&lb, 28);
    for start in (0..28).step_by(7) {
        let round = &sequence[start..start + 7];
        assert_eq!(NAMES.map(|name| count(name, round)), [5, 1, 1], "round {round} of {sequence}");
    }
    // not smooth would be five in a row and the other two behind each other
    assert!(!sequence.contains("aaaaa"), "{sequence}");
    assert!(!sequence.contains("bc") && !sequence.contains("cb"), "{sequence}");
}

#[test]
fn weighted_connections_at_once_are_shared_exactly_too() {
    let [a, b, c] = &three();
    let lb = &Setup::new()
        .pool("algorithm = \"weighted_round_robin\"")
        .backend_with(a.addr, "weight = 3")
        .backend_with(b.addr, "weight = 2")
        .backend_with(c.addr, "weight = 1")
        .start();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| in_turn(lb, 15));
        }
    });
    assert_eq!([a, b, c].map(Server::accepted), [150, 100, 50]);
}

#[test]
fn who_takes_no_new_work_gets_none() {
    let round_robin = "algorithm = \"round_robin\"";
    let weighted = "algorithm = \"weighted_round_robin\"";
    let cases = [
        ("weight 0 takes no new work, even where weights are not heeded", round_robin, "weight = 0", "acacac"),
        ("weight 0 takes no new work", weighted, "weight = 0", "acacac"),
        ("disabled takes no new work", round_robin, "disabled = true", "acacac"),
        ("disabled takes no new work by weight either", weighted, "disabled = true", "acacac"),
        ("a backup is used only when no other is up", round_robin, "backup = true", "acacac"),
        ("a backup is used only when no other is up, by weight", weighted, "backup = true", "acacac"),
        ("weights are not heeded by round_robin", round_robin, "weight = 200", "abcabc"),
    ];
    for (why, pool, second, expected) in cases {
        let [a, b, c] = &three();
        let lb = Setup::new().pool(pool).backend(a.addr).backend_with(b.addr, second).backend(c.addr).start();
        assert_eq!(in_turn(&lb, 6), expected, "{why}");
    }
}

#[test]
fn a_backup_serves_when_all_others_are_out() {
    let refusing = Refusing::new();
    let cases = [
        ("the only other one is disabled", "127.0.0.1:9".to_string(), "disabled = true"),
        ("the only other one has weight 0", "127.0.0.1:9".to_string(), "weight = 0"),
        ("the only other one refuses", refusing.addr.to_string(), ""),
        ("the only other one has a name that does not resolve", "nowhere.invalid:9".to_string(), ""),
    ];
    for (why, first, lines) in cases {
        let backup = Server::named("b");
        let lb = Setup::new().backend_with(first, lines).backend_with(backup.addr, "backup = true").start();
        assert_eq!(in_turn(&lb, 4), "bbbb", "{why}");
    }
}

#[test]
fn a_pool_without_anyone_to_take_work_closes_the_connection_at_once() {
    let a = Server::named("a");
    let cases = [
        ("no backend is allowed, and serves nobody", Setup::new()),
        ("the only one is disabled", Setup::new().backend_with(a.addr, "disabled = true")),
        ("the only one has weight 0", Setup::new().backend_with(a.addr, "weight = 0")),
    ];
    for (why, setup) in cases {
        let lb = setup.start();
        let asked = std::time::Instant::now();
        assert!(crate::support::closed_without_data(lb.addr()), "{why}");
        assert!(asked.elapsed().as_secs() < 1, "{why}: closed only after {:?}", asked.elapsed());
    }
    assert_eq!(a.accepted(), 0);
}
