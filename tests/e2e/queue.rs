//! The line before a pool whose backends are full: never more inside than may be, first come first served over all
//! workers, and nobody waits without an end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::admin;
use crate::support::http::{Wire, ask, ok};
use crate::support::l4lb::command;
use crate::support::{Ending, L4lb, PATIENCE, Server, Setup, wait_until};

const INSIDE: usize = 10;
const IN_LINE: usize = 100;
const CLIENTS: usize = 200;

/// A backend that takes a number from each client, and answers it only when it is let go.
struct Slow {
    server: Server,
    seen: Arc<Mutex<Seen>>,
    most: Arc<AtomicUsize>,
}

/// Who has come.
#[derive(Default)]
struct Seen {
    /// Their numbers, in the order they came.
    order: Vec<usize>,
    /// How those that are inside are told to go.
    gates: BTreeMap<usize, Sender<()>>,
}

impl Slow {
    fn new(http: bool) -> Slow {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let (tell, top) = (seen.clone(), most.clone());
        let server = Server::new(move |stream| {
            let mut wire = Wire::of(stream);
            while let Some(number) = number_of(&mut wire, http) {
                top.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let (gate, open) = channel();
                {
                    let mut seen = tell.lock().expect("never poisoned");
                    seen.order.push(number);
                    seen.gates.insert(number, gate);
                }
                let let_go = open.recv_timeout(PATIENCE).is_ok();
                // before the answer: the next one may come as soon as that is out
                now.fetch_sub(1, Ordering::SeqCst);
                if !let_go {
                    return;
                }
                wire.try_send(if http { ok("done") } else { b"done".to_vec() });
            }
        });
        Slow { server, seen, most }
    }

    /// Those who have come so far, in order.
    fn order(&self) -> Vec<usize> {
        self.seen.lock().expect("never poisoned").order.clone()
    }

    /// Lets the client with that number go, who must be inside.
    fn let_go(&self, number: usize) {
        let gate = self.seen.lock().expect("never poisoned").gates.remove(&number);
        gate.unwrap_or_else(|| panic!("{number} is not inside")).send(()).expect("its handler waits for it");
    }
}

/// What the client of a new request, or connection, calls itself; `None`: it has left.
fn number_of(wire: &mut Wire, http: bool) -> Option<usize> {
    if http {
        let request = wire.next_request()?;
        return Some(request.head.target().trim_start_matches('/').parse().expect("a number"));
    }
    let line = wire.until(b"\n").ok()?;
    Some(String::from_utf8(line).expect("text").trim().parse().expect("a number"))
}

/// A client that has said its number. Its answer comes later, or its end.
fn come(to: SocketAddr, http: bool, number: usize) -> Wire {
    let mut wire = Wire::to(to);
    wire.send(if http { format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n") } else { format!("{number}\n") });
    wire
}

/// What a client was told at last: served, or sent away.
fn outcome(mut wire: Wire, http: bool) -> bool {
    if http {
        let status = wire.response().status();
        assert!(status == 200 || status == 503, "{status}");
        return status == 200;
    }
    let (answer, ending) = match wire.until(b"done") {
        Ok(answer) => (answer, Ending::Clean),
        Err(cut) => cut,
    };
    assert!(answer.is_empty() || ending == Ending::Clean, "cut after {answer:?}");
    answer == b"done"
}

fn balancer(slow: &Slow, timeout: &str) -> L4lb {
    let setup = Setup::new()
        .pool(&format!("queue = {IN_LINE}\nqueue_timeout = \"{timeout}\""))
        .backend_with(slow.server.addr, &format!("max_connections = {INSIDE}"));
    let web =
        "[[listener]]\nname = \"web\"\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\npool = \"out\"\nadmin = true\n";
    L4lb::start(command(&[]), &(setup.toml() + web))
}

/// A counter of the pool.
fn counted(lb: &L4lb, what: &str) -> u64 {
    let told = admin::json(&ask(lb.addr_of("web"), admin::lb("/lb/stats")));
    told["pools"]["out"][what].as_u64().unwrap_or_else(|| panic!("no {what} in {told}"))
}

/// How many have begun and not ended: inside, or in line.
fn active(lb: &L4lb) -> u64 {
    counted(lb, "active")
}

/// How many were sent away.
fn refused(lb: &L4lb) -> u64 {
    counted(lb, "refused")
}

/// Lets `n` clients come one after the other, each when the one before has been taken in.
fn queue_up(lb: &L4lb, http: bool, n: usize) -> Vec<Wire> {
    let to = lb.addr_of(if http { "web" } else { "in" });
    let one = |number: usize| {
        let wire = come(to, http, number);
        wait_until("it is inside or in line", || active(lb) == number as u64 + 1);
        wire
    };
    (0..n).map(one).collect()
}

#[test]
fn of_two_hundred_ten_are_inside_a_hundred_wait_in_order_and_the_rest_is_sent_away() {
    for (why, http) in [("http", true), ("tcp", false)] {
        let slow = Slow::new(http);
        let lb = balancer(&slow, "10m");
        let inside_and_waiting = queue_up(&lb, http, INSIDE + IN_LINE);
        wait_until("the backend has all it may have", || slow.order().len() == INSIDE);
        // the rest all at once: there is no order among those that nobody has room for
        let to = lb.addr_of(if http { "web" } else { "in" });
        let came = Instant::now();
        let rest: Vec<Wire> = (INSIDE + IN_LINE..CLIENTS).map(|number| come(to, http, number)).collect();
        for wire in rest {
            assert!(!outcome(wire, http), "{why}: one was served that nobody had room for");
        }
        assert!(came.elapsed() < PATIENCE / 2, "{why}: they were sent away only after {:?}", came.elapsed());
        assert_eq!(slow.order().len(), INSIDE, "{why}: nobody has left, so nobody may have come");
        // one leaves, one comes
        for (number, wire) in inside_and_waiting.into_iter().enumerate() {
            slow.let_go(number);
            assert!(outcome(wire, http), "{why}: {number} waited and was not served");
            let next = INSIDE + number;
            if next < INSIDE + IN_LINE {
                wait_until("the next one has come", || slow.order().len() > next);
                assert_eq!(slow.order()[next], next, "{why}: in the order they came, whichever worker had them");
            }
        }
        assert_eq!(slow.order().len(), INSIDE + IN_LINE, "{why}");
        assert_eq!(slow.most.load(Ordering::SeqCst), INSIDE, "{why}: the most at once");
        wait_until("all have left", || active(&lb) == 0);
    }
}

#[test]
fn two_hundred_at_once_are_served_or_sent_away_and_never_too_many_are_inside() {
    for (why, http) in [("http", true), ("tcp", false)] {
        let slow = Slow::new(http);
        let lb = balancer(&slow, "10m");
        let to = lb.addr_of(if http { "web" } else { "in" });
        let mut clients: Vec<_> = (0..CLIENTS).map(|number| Some(come(to, http, number))).collect();
        wait_until("the rest was sent away", || refused(&lb) == (CLIENTS - INSIDE - IN_LINE) as u64);
        for served in 0..INSIDE + IN_LINE {
            wait_until("there is a next one", || slow.order().len() > served);
            let number = slow.order()[served];
            slow.let_go(number);
            let wire = clients[number].take().expect("nobody comes twice");
            assert!(outcome(wire, http), "{why}: {number} was inside and was not served");
        }
        assert!(clients.into_iter().flatten().all(|wire| !outcome(wire, http)), "{why}: the rest was sent away");
        assert_eq!((slow.order().len(), slow.most.load(Ordering::SeqCst)), (INSIDE + IN_LINE, INSIDE), "{why}");
    }
}

#[test]
fn nobody_waits_longer_than_queue_timeout() {
    const TIMEOUT: Duration = Duration::from_millis(1500);
    for (why, http) in [("http", true), ("tcp", false)] {
        let slow = Slow::new(http);
        let lb = balancer(&slow, "1500ms");
        let to = lb.addr_of(if http { "web" } else { "in" });
        let inside = queue_up(&lb, http, INSIDE);
        wait_until("the backend has all it may have", || slow.order().len() == INSIDE);
        let come = |number| (Instant::now(), come(to, http, number));
        let waiting: Vec<_> = (INSIDE..INSIDE + IN_LINE).map(come).collect();
        for (number, (came, wire)) in waiting.into_iter().enumerate() {
            assert!(!outcome(wire, http), "{why}: nobody has left");
            // each is read after those before it, so the bound from above is for all of them together
            let took = came.elapsed();
            assert!(took >= TIMEOUT - Duration::from_millis(10), "{why}: {number} was sent away after {took:?}");
            assert!(took < TIMEOUT + PATIENCE / 3, "{why}: {number} waited for {took:?}");
        }
        assert_eq!(slow.order().len(), INSIDE, "{why}");
        (0..INSIDE).for_each(|number| slow.let_go(number));
        assert!(inside.into_iter().all(|wire| outcome(wire, http)), "{why}: those inside are none of it");
    }
}
