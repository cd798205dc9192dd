//! At a limit l4lb waits instead of failing, without a spin, and goes on by itself.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{
    Client, L4lb, Server, Setup, closed_without_data, connect, exchange, note, proc, raise_descriptor_limit, wait_until,
};

/// How long nothing may happen before we believe that nothing will.
const SILENCE: Duration = Duration::from_millis(500);

fn assert_no_spin(lb: &L4lb) {
    let cpu = proc::cpu_time_over(lb.pid(), Duration::from_secs(1));
    assert!(cpu < Duration::from_millis(100), "{cpu:?} of CPU time in a second in which nothing can be done");
}

/// An echo that tells the most connections it had at once, each of them over before its end can be seen.
fn counting(most: Arc<AtomicUsize>) -> Server {
    let inside = AtomicUsize::new(0);
    Server::new(move |stream| {
        let kept = stream.try_clone().expect("a descriptor is free");
        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        crate::support::server::echo(stream);
        inside.fetch_sub(1, Ordering::SeqCst);
        drop(kept);
    })
}

#[test]
fn beyond_max_connections_clients_wait_in_the_queue_and_are_served_when_one_leaves() {
    let listener = "max_connections = 2";
    let cases = [
        ("of the listener, one worker", "workers = 1", listener),
        ("of the listener, over two workers", "workers = 2", listener),
        ("of the process, one worker", "workers = 1\nmax_connections = 2", ""),
        ("of the process, over two workers", "workers = 2\nmax_connections = 2", ""),
        ("the smaller of both", "workers = 2\nmax_connections = 2", "max_connections = 5"),
    ];
    for (why, global, listener) in cases {
        let most = Arc::new(AtomicUsize::new(0));
        let server = counting(most.clone());
        let lb = Setup::to(server.addr).global(global).listener(listener).start();
        let (first, second) = (connect(lb.addr()), connect(lb.addr()));
        first.echo(b"first");
        second.echo(b"second");
        let mut waiting: Vec<TcpStream> = (0..4).map(|_| connect(lb.addr())).collect();
        for (i, stream) in waiting.iter_mut().enumerate() {
            stream.write_all(format!("waiting {i}").as_bytes()).expect("the kernel takes it");
        }
        for stream in &waiting {
            assert!(stream.is_silent_for(SILENCE / 4), "{why}: a client beyond the limit was served or closed");
        }
        assert_eq!(server.accepted(), 2, "{why}: what the backend sees");
        assert_no_spin(&lb);
        first.echo(b"those inside go on");
        second.echo(b"those inside go on");
        drop(first);
        drop(second);
        // any two of the four; each leaves its place to another one
        for i in 0..waiting.len() {
            let mut next = None;
            wait_until("one of the waiting is served", || {
                next = waiting.iter().position(|stream| !stream.is_silent_for(Duration::from_millis(5)));
                next.is_some()
            });
            let stream = waiting.remove(next.expect("just waited for"));
            let answer = stream.read_n(9);
            assert!(answer.starts_with(b"waiting "), "{why}: the {i}th was told {answer:?}");
            stream.echo(b"and it goes on");
        }
        assert_eq!(most.load(Ordering::SeqCst), 2, "{why}: the most at once");
        assert_eq!(exchange(lb.addr(), b"last"), b"last", "{why}: places come back");
    }
}

#[test]
fn one_listener_at_its_limit_does_not_hold_up_another() {
    let server = Server::echo();
    let file = format!(
        "[global]\nworkers = 2\n\
         [[listener]]\nname = \"full\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"out\"\nmax_connections = 1\n\
         [[listener]]\nname = \"free\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"out\"\n\
         [[pool]]\nname = \"out\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{}\" }}]\n",
        server.addr
    );
    let lb = L4lb::start(crate::support::l4lb::command(&[]), &file);
    let inside = connect(lb.addr_of("full"));
    inside.echo(b"the one");
    let outside = connect(lb.addr_of("full"));
    (&outside).write_all(b"x").expect("the kernel takes it");
    for _ in 0..20 {
        assert_eq!(exchange(lb.addr_of("free"), b"other"), b"other");
    }
    assert!(outside.is_silent_for(SILENCE));
    drop(inside);
    assert_eq!(outside.read_n(1), b"x");
}

#[test]
fn a_backend_at_max_connections_passes_the_next_one_on_and_nobody_left_closes() {
    let (a, b) = (Server::new(tell_and_echo(b'a')), Server::new(tell_and_echo(b'b')));
    let lb =
        Setup::new().backend_with(a.addr, "max_connections = 1").backend_with(b.addr, "max_connections = 2").start();
    let mut inside: Vec<_> = (0..3)
        .map(|_| {
            let stream = connect(lb.addr());
            let name = stream.read_n(1)[0];
            (name, stream)
        })
        .collect();
    inside.sort_by_key(|(name, _)| *name);
    let names: Vec<u8> = inside.iter().map(|(name, _)| *name).collect();
    assert_eq!(String::from_utf8_lossy(&names), "abb", "three places for three");
    for _ in 0..3 {
        assert!(closed_without_data(lb.addr()), "there is no fourth place, and no queue");
    }
    drop(inside.remove(0));
    let mut next = None;
    wait_until("the place is free again", || {
        let stream = connect(lb.addr());
        let (mut first, mut reader) = ([0], &stream);
        let served = std::io::Read::read(&mut reader, &mut first).is_ok_and(|n| n == 1);
        next = served.then_some((first[0], stream));
        next.is_some()
    });
    let (name, stream) = next.expect("just waited for");
    assert_eq!(name, b'a', "the place that became free");
    stream.echo(b"and it is a real one");
    inside[0].1.echo(b"the others go on");
    wait_until("there are one and two", || (a.open(), b.open()) == (1, 2));
}

fn tell_and_echo(name: u8) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |mut stream| {
        let _ = stream.write_all(&[name]);
        crate::support::server::echo(stream);
    }
}

/// Opens `n` clients, each with a message under way.
fn crowd(lb: &L4lb, n: usize) -> Vec<TcpStream> {
    let come = |i| {
        let stream = connect(lb.addr());
        // a client may have been closed already where there is no descriptor for its backend
        let _ = (&stream).write_all(format!("{i:04}").as_bytes());
        stream
    };
    (0..n).map(come).collect()
}

fn warnings(lb: &L4lb) -> Vec<String> {
    lb.log().into_iter().filter(|line| line.to_uppercase().contains("WARN")).collect()
}

#[test]
fn without_a_limit_of_its_own_the_descriptor_limit_makes_clients_wait() {
    raise_descriptor_limit();
    let server = Server::echo();
    for workers in [1, 2] {
        let lb = Setup::to(server.addr)
            .global(&format!("workers = {workers}\nshutdown_timeout = \"5s\""))
            .wrapped(["prlimit", "--nofile=200:200"])
            .start();
        let mut clients = crowd(&lb, 200);
        let served = |stream: &TcpStream| !stream.is_silent_for(Duration::from_millis(1));
        // not the first: it may wait at one worker while the clients of the other take all places
        wait_until("some are served", || clients.iter().any(served));
        lb.wait_for_log("that accepting pauses", |line| line.to_uppercase().contains("WARN"));
        assert_no_spin(&lb);
        let warned = warnings(&lb);
        assert_eq!(warned.len(), 1, "one warning for one pause: {warned:#?}");
        let inside = clients.iter().filter(|stream| served(stream)).count();
        assert!((20..=100).contains(&inside), "{inside} of 200 are inside with 200 descriptors for two each");
        // everyone gets his turn as others leave
        for round in 0..200 {
            let mut next = None;
            wait_until("one of the waiting is served", || {
                next = clients.iter().position(served);
                next.is_some()
            });
            let stream = clients.remove(next.expect("just waited for"));
            let answer = stream.read_n(4);
            assert!(answer.iter().all(u8::is_ascii_digit), "client {round} was told {answer:?}");
        }
        let warned = warnings(&lb);
        assert!(warned.len() <= 3, "{} warnings for one crowd, the last: {:?}", warned.len(), warned.last());
        note(&format!("{inside} clients at once fit into 200 descriptors with {workers} worker(s)"));
        let mut lb = lb;
        assert!(lb.is_running());
    }
}

#[test]
fn out_of_descriptors_it_pauses_with_a_warning_and_goes_on_by_itself() {
    raise_descriptor_limit();
    let server = Server::echo();
    // a max_connections that the descriptor limit cannot hold: the kernel says EMFILE
    let lb = Setup::to(server.addr)
        .global("workers = 1\nmax_connections = 5000\nshutdown_timeout = \"5s\"")
        .wrapped(["prlimit", "--nofile=100:100"])
        .start();
    for round in 0..3 {
        let clients = crowd(&lb, 150);
        let answered = |stream: &TcpStream| !stream.is_silent_for(Duration::from_millis(1));
        wait_until("some are served or refused", || clients.iter().any(answered));
        lb.wait_for_log("that accepting pauses", |line| line.to_uppercase().contains("WARN"));
        assert_no_spin(&lb);
        drop(clients);
        wait_until("it goes on by itself", || {
            let stream = connect(lb.addr());
            (&stream).write_all(b"x").is_ok() && {
                let mut answer = [0];
                std::io::Read::read(&mut &stream, &mut answer).is_ok_and(|n| n == 1)
            }
        });
        let warned = warnings(&lb);
        assert!(warned.len() <= 10 * (round + 1), "{} lines in {} rounds: {warned:#?}", warned.len(), round + 1);
    }
}
