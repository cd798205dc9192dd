//! Which backend a UDP session goes to, and that it stays there; exactly, over the whole process with two workers.

use std::net::UdpSocket;
use std::sync::Mutex;
use std::thread;

use crate::support::udp::{Datagrams, UdpBackend, dial};
use crate::support::{L4lb, Setup, raise_descriptor_limit};

const NAMES: [char; 3] = ['a', 'b', 'c'];

fn three() -> [UdpBackend; 3] {
    NAMES.map(UdpBackend::named)
}

/// An address that no other test sends to: a late datagram for somebody who had the port before would begin a session,
/// and take a turn.
const ALONE: &str = "\"127.0.77.1:0\"";

fn over([a, b, c]: &[UdpBackend; 3]) -> Setup {
    Setup::udp(a.addr).backend(b.addr).backend(c.addr).bind(ALONE)
}

/// `n` clients, one after the other, each with an answer; and who gave it.
fn in_turn(lb: &L4lb, n: usize) -> (Vec<UdpSocket>, String) {
    (0..n)
        .map(|_| {
            let client = dial(lb.addr());
            let name = client.who();
            (client, name)
        })
        .unzip()
}

fn count(name: char, among: &str) -> usize {
    among.chars().filter(|found| *found == name).count()
}

#[test]
fn a_session_stays_with_its_backend_and_the_next_client_gets_the_next_one() {
    let backends = three();
    let lb = over(&backends).start();
    let (clients, names) = in_turn(&lb, 9);
    assert_eq!(names, "abcabcabc", "round robin in the order of the file");
    for round in 0..5 {
        let again: String = clients.iter().map(Datagrams::who).collect();
        assert_eq!(again, names, "round {round}: a client was moved to another backend");
    }
    for backend in &backends {
        assert_eq!(backend.received(), 18);
        assert_eq!(backend.peers().len(), 3, "a session has one address towards its backend, and shares it with none");
    }
}

#[test]
fn three_hundred_sessions_opened_at_once_give_each_backend_exactly_a_hundred() {
    raise_descriptor_limit();
    let backends = three();
    let lb = &over(&backends).start();
    // All stay open to the end: the port of one that has gone may be given to another, who then is the same client.
    let all = Mutex::new((Vec::new(), String::new()));
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let (clients, names) = in_turn(lb, 30);
                let mut all = all.lock().expect("never poisoned");
                all.0.extend(clients);
                all.1.push_str(&names);
            });
        }
    });
    let (_clients, names) = all.into_inner().expect("never poisoned");
    assert_eq!(NAMES.map(|name| count(name, &names)), [100; 3], "by what clients were told");
    assert_eq!(backends.each_ref().map(UdpBackend::received), [100; 3], "by what backends saw");
}

#[test]
fn weights_five_one_one_are_exact_in_every_round_and_spread_out_in_it() {
    let [a, b, c] = &three();
    let lb = Setup { protocol: "udp", ..Setup::new() }
        .bind(ALONE)
        .pool("algorithm = \"weighted_round_robin\"")
        .backend_with(a.addr, "weight = 5")
        .backend_with(b.addr, "weight = 1")
        .backend_with(c.addr, "weight = 1")
        .start();
    let (clients, names) = in_turn(&lb, 28);
    for start in (0..28).step_by(7) {
        let round = &names[start..start + 7];
        assert_eq!(NAMES.map(|name| count(name, round)), [5, 1, 1], "round {round} of {names}");
    }
    assert!(!names.contains("aaaaa"), "{names}");
    let again: String = clients.iter().map(Datagrams::who).collect();
    assert_eq!(again, names, "weights are for sessions: one that exists is not moved");
}

#[test]
fn the_same_client_at_two_listeners_has_two_sessions() {
    let [a, b, c] = &three();
    let listener =
        |name| format!("[[listener]]\nname = \"{name}\"\nprotocol = \"udp\"\nbind = \"127.0.0.1:0\"\npool = \"out\"\n");
    let backends = [a, b, c].map(|backend| format!("{{ address = \"{}\" }}", backend.addr)).join(", ");
    let toml = format!(
        "[global]\nworkers = 2\n{}{}[[pool]]\nname = \"out\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{backends}]\n",
        listener("one"),
        listener("two")
    );
    let lb = L4lb::start(crate::support::l4lb::command(&[]), &toml);
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.set_read_timeout(Some(crate::support::PATIENCE)).expect("not zero");
    let mut names = String::new();
    for name in ["one", "two", "one", "two"] {
        client.send_to(b"?", lb.addr_of(name)).expect("sent");
        let mut answer = [0; 16];
        let (n, from) = client.recv_from(&mut answer).expect("an answer");
        assert_eq!((n, from), (2, lb.addr_of(name)), "the answer comes from the listener that was asked");
        names.push(answer[0].into());
    }
    assert_eq!(names, "abab");
}

#[test]
fn it_runs_from_flags_alone() {
    let [a, b, _] = &three();
    for _ in 0..5 {
        let port = crate::support::ports::free_port();
        let mut command = crate::support::l4lb::command(&[]);
        command.args(["--host", "127.0.0.1", "--protocol", "udp", "--port", &port.to_string()]);
        command.args(["--backend", &a.addr.to_string(), "--backend", &b.addr.to_string()]);
        let Ok(lb) = L4lb::start_with_flags(command) else {
            continue; // somebody was faster at this port
        };
        assert_eq!(lb.addr().port(), port);
        assert_eq!(in_turn(&lb, 4).1, "abab");
        return;
    }
    panic!("it started on none of five free ports");
}
