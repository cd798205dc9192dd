//! A file that is read again while clients are served: what it changes holds, and nobody notices anything else.

use crate::support::http::{self, Wire, get};
use crate::support::ports::free_port;
use crate::support::udp::{UdpBackend, dial};
use crate::support::{Client, Ending, L4lb, Server, Setup, connect, exchange, note, wait_until};
use nix::sys::signal::Signal;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What each of `n` requests on connections of their own is answered.
fn answers(addr: SocketAddr, n: usize) -> Vec<String> {
    (0..n).map(|_| http::ask(addr, get("/")).text().to_owned()).collect()
}

#[test]
fn backends_come_and_go_and_what_is_open_goes_on() {
    let (one, two) = (Server::echo(), Server::named("two"));
    let with_one = Setup::to(one.addr);
    let l4lb = with_one.clone().start();
    let open = connect(l4lb.addr());
    open.echo(b"hello");
    let told = l4lb.reload(&Setup::to(two.addr).toml());
    let line = format!("reloaded: backends added: out/{}; backends removed: out/{}", two.addr, one.addr);
    assert_eq!(told, [line]);
    open.echo(b"still"); // what is open at the old one goes on
    assert_eq!(exchange(l4lb.addr(), b""), b"two", "new ones go to the new one");
    assert_eq!(one.accepted(), 1);
    assert_eq!(l4lb.reload(&with_one.toml()).len(), 1);
    connect(l4lb.addr()).echo(b"back");
    open.echo(b"and still");
}

#[test]
fn a_broken_file_changes_nothing_and_every_error_is_told() {
    let one = http::Backend::named("one");
    let setup = Setup::http(one.addr());
    let l4lb = setup.clone().start();
    let mut wire = Wire::to(l4lb.addr());
    assert_eq!(wire.ask(get("/")).text(), "one");
    let broken = setup.clone().pool("retries = -1").backend_with("127.0.0.1:1", "wieght = 1").toml();
    let told = l4lb.reload(&broken);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("reload: ") && told[0].contains("lb.toml:"), "{told:?}");
    assert!(told[0].contains("pool.out.retries") && told[1].contains("wieght"), "{told:?}");
    assert_eq!(told[2], "reload: nothing is changed");
    assert_eq!(wire.ask(get("/")).text(), "one", "on the same connection");
    assert_eq!(answers(l4lb.addr(), 2), ["one", "one"]);
    assert_eq!(l4lb.reload(&setup.toml()), ["reloaded: nothing has changed"]);
}

#[test]
fn without_a_file_there_is_nothing_to_read_again() {
    let one = http::Backend::named("one");
    let mut command = crate::support::l4lb::command(&[]);
    command.args(["--host", "127.0.0.1", "--port", "0", "--backend", &one.addr().to_string()]);
    let l4lb = L4lb::start_with_flags(command).expect("it starts");
    let told = l4lb.reload_as_it_is();
    assert_eq!(told[0], "reload: there is no file to read again: everything was said by flags");
    assert_eq!(told[1..], ["reload: nothing is changed"]);
    assert_eq!(answers(l4lb.addr(), 1), ["one"]);
}

#[test]
fn what_still_drains_after_drain_timeout_is_cut() {
    let (one, two) = (Server::echo(), Server::echo());
    let l4lb = Setup::to(one.addr).pool("drain_timeout = \"200ms\"").start();
    let open = connect(l4lb.addr());
    open.echo(b"hello");
    l4lb.reload(&Setup::to(two.addr).pool("drain_timeout = \"200ms\"").toml());
    assert_eq!(open.read_all(), (Vec::new(), Ending::Reset));
    connect(l4lb.addr()).echo(b"new");
}

#[test]
fn idle_connections_to_a_backend_that_left_are_closed() {
    let (one, two) = (http::Backend::named("one"), http::Backend::named("two"));
    let keep = "keepalive_timeout = \"1h\"";
    let l4lb = Setup::http(one.addr()).pool(keep).start();
    let mut wire = Wire::to(l4lb.addr());
    assert_eq!(wire.ask(get("/")).text(), "one");
    assert_eq!(one.open(), 1, "kept for the next");
    l4lb.reload(&Setup::http(two.addr()).pool(keep).toml());
    wait_until("the idle connection is closed", || one.open() == 0);
    assert_eq!(wire.ask(get("/")).text(), "two", "the client's connection stays");
}

#[test]
fn a_request_that_is_under_way_is_answered_and_its_connection_is_not_kept() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let one = http::Backend::new(move |_| {
        let _ = wait.lock().expect("never poisoned").recv();
        http::ok("one")
    });
    let two = http::Backend::named("two");
    let keep = "keepalive_timeout = \"1h\"";
    let l4lb = Setup::http(one.addr()).pool(keep).start();
    let mut wire = Wire::to(l4lb.addr());
    wire.send(get("/"));
    wait_until("the request is there", || one.open() == 1);
    l4lb.reload(&Setup::http(two.addr()).pool(keep).toml());
    go.send(()).expect("it waits");
    assert_eq!(wire.response().text(), "one");
    wait_until("its connection is closed", || one.open() == 0);
    assert_eq!(wire.ask(get("/")).text(), "two");
}

#[test]
fn a_signal_while_it_drains_is_no_reload() {
    let one = Server::echo();
    let mut l4lb = Setup::to(one.addr).start();
    let open = connect(l4lb.addr());
    open.echo(b"hello");
    l4lb.signal(Signal::SIGTERM);
    l4lb.wait_for_log("that it drains", |line| line.contains("draining"));
    l4lb.signal(Signal::SIGHUP);
    open.echo(b"still");
    drop(open);
    assert!(l4lb.wait_for_exit().success());
}

/// A listener of that name, bound to `bind`, that leads to a pool of the same name with these backends.
fn listener(name: &str, protocol: &str, bind: impl Display, backends: &[SocketAddr]) -> String {
    let backends: Vec<String> = backends.iter().map(|at| format!("{{ address = \"{at}\" }}")).collect();
    format!(
        "[[listener]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nbind = \"{bind}\"\npool = \"{name}\"\n\
         [[pool]]\nname = \"{name}\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{}]\n",
        backends.join(", ")
    )
}

/// A file of these listeners.
fn file(listeners: &[&str]) -> String {
    format!("[global]\nworkers = 2\nshutdown_timeout = \"5s\"\n{}", listeners.concat())
}

fn start(listeners: &[&str]) -> L4lb {
    L4lb::start(crate::support::l4lb::command(&[]), &file(listeners))
}

fn refused(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_err()
}

/// A free address, where nobody listens.
fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

#[test]
fn listeners_come_and_go_and_their_clients_go_on() {
    let (echo, web, packets) = (Server::echo(), http::Backend::named("web"), UdpBackend::echo());
    let (tcp_at, web_at, udp_at) = (free(), free(), free());
    let stays = listener("stays", "tcp", "127.0.0.1:0", &[echo.addr]);
    let tcp = listener("tcp", "tcp", tcp_at, &[echo.addr]);
    let web = listener("web", "http", web_at, &[web.addr()]);
    let udp = listener("udp", "udp", udp_at, &[packets.addr]);
    let l4lb = start(&[&stays]);
    let stays_open = connect(l4lb.addr());
    stays_open.echo(b"hello");
    for round in 0..3 {
        let told = l4lb.reload(&file(&[&tcp, &stays, &web, &udp]));
        assert!(told[0].starts_with("reloaded: listeners added: tcp, web, udp; pools added"), "{told:?}");
        let open = connect(tcp_at);
        open.echo(b"hello");
        let (mut served, mut fresh) = (Wire::to(web_at), Wire::to(web_at));
        assert_eq!(served.ask(get("/")).text(), "web");
        let flow = dial(udp_at);
        let mut back = [0; 16];
        let mut ask = |flow: &UdpSocket, text: &[u8]| {
            flow.send(text).expect("it is there");
            let n = flow.recv(&mut back).expect("it answers");
            assert_eq!(&back[..n], text, "{round}");
        };
        ask(&flow, b"one");
        let told = l4lb.reload(&file(&[&stays]));
        assert!(told[0].starts_with("reloaded: listeners removed: tcp, web, udp; pools removed"), "{told:?}");
        // Those who are there go on; the one that was asked to stay leaves, and who has not asked yet may, once.
        open.echo(b"still");
        ask(&flow, b"two");
        served.expect_end("an idle connection is closed");
        let answer = fresh.ask(get("/"));
        assert_eq!((answer.text(), answer.head.closes()), ("web", true));
        wait_until("nobody listens there", || refused(tcp_at) && refused(web_at));
        open.echo(b"and still");
        ask(&flow, b"three");
        stays_open.echo(b"all the while");
        assert_eq!(packets.peers().len(), round + 1, "one session all along");
    }
}

#[test]
fn an_address_that_goes_to_another_listener_loses_nobody() {
    let (one, two) = (Server::named("one"), Server::named("two"));
    let at = free();
    let first = listener("first", "tcp", at, &[one.addr]);
    let second = listener("second", "tcp", at, &[two.addr]);
    let l4lb = start(&[&first]);
    assert_eq!(exchange(at, b""), b"one");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !stop.load(Relaxed) {
                        let said = exchange(at, b"");
                        assert!(said == b"one" || said == b"two", "{said:?}");
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        for _ in 0..5 {
            assert_eq!(l4lb.reload(&file(&[&second])).len(), 1);
            assert_eq!(exchange(at, b""), b"two");
            assert_eq!(l4lb.reload(&file(&[&first])).len(), 1);
            assert_eq!(exchange(at, b""), b"one");
        }
        stop.store(true, Relaxed);
        let served: usize = clients.into_iter().map(|client| client.join().expect("all were served")).sum();
        assert!(served > 10, "only {served}");
    });
}

#[test]
fn a_listener_that_moves_is_at_its_new_address_and_not_at_the_old() {
    let echo = Server::echo();
    let (was, is) = (free(), free());
    let l4lb = start(&[&listener("in", "tcp", was, &[echo.addr])]);
    let open = connect(was);
    open.echo(b"hello");
    assert_eq!(l4lb.reload(&file(&[&listener("in", "tcp", is, &[echo.addr])])), ["reloaded: listeners changed: in"]);
    connect(is).echo(b"here");
    wait_until("nobody listens there", || refused(was));
    open.echo(b"still");
}

#[test]
fn what_cannot_be_bound_changes_nothing_at_all() {
    let (echo, taken) = (Server::echo(), free());
    let theirs = TcpListener::bind(taken).expect("it was free");
    let stays = listener("stays", "tcp", "127.0.0.1:0", &[echo.addr]);
    let l4lb = start(&[&stays]);
    let (could, bad) = (free(), listener("bad", "tcp", taken, &[echo.addr]));
    let good = listener("good", "tcp", could, &[echo.addr]);
    let told = l4lb.reload(&file(&[&good, &bad]));
    assert!(told[0].contains("listener bad: cannot listen on") && told[0].contains("in use"), "{told:?}");
    assert_eq!(told[1..], ["reload: nothing is changed"]);
    assert!(refused(could), "not even what could be had");
    connect(l4lb.addr()).echo(b"as before");
    drop(theirs);
    assert_eq!(l4lb.reload(&file(&[&good, &bad])).len(), 1);
    connect(taken).echo(b"now it can");
}

#[test]
fn under_load_a_reload_costs_nobody_anything() {
    let webs = [http::Backend::named("a"), http::Backend::named("b")];
    let echoes = [Server::echo(), Server::echo()];
    let packets = [UdpBackend::echo(), UdpBackend::echo()];
    let (web_at, tcp_at, udp_at) = (free(), free(), free());
    // The second backend of each comes and goes, and so does a listener beside them.
    let with = |n: usize, more: &str| {
        let web: Vec<_> = webs[..n].iter().map(http::Backend::addr).collect();
        let tcp: Vec<_> = echoes[..n].iter().map(|server| server.addr).collect();
        let udp: Vec<_> = packets[..n].iter().map(|server| server.addr).collect();
        let listeners = [listener("web", "http", web_at, &web), listener("tcp", "tcp", tcp_at, &tcp)];
        file(&[&listeners[0], &listeners[1], &listener("udp", "udp", udp_at, &udp), more])
    };
    let beside = listener("beside", "tcp", free(), &[echoes[0].addr]);
    let l4lb = L4lb::start(crate::support::l4lb::command(&[]), &with(2, ""));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let go_on = || !stop.load(Relaxed);
        let kept = scope.spawn(move || {
            let (mut wire, mut n) = (Wire::to(web_at), 0);
            while go_on() {
                assert_eq!(wire.ask(get("/")).status(), 200);
                n += 1;
            }
            n
        });
        let fresh = scope.spawn(move || {
            let mut n = 0;
            while go_on() {
                assert_eq!(http::ask(web_at, get("/")).status(), 200);
                connect(tcp_at).echo(b"hello");
                n += 1;
            }
            n
        });
        let long = scope.spawn(move || {
            let (stream, mut n) = (connect(tcp_at), 0);
            while go_on() {
                stream.echo(b"hello");
                n += 1;
            }
            n
        });
        let flow = scope.spawn(move || {
            let (flow, mut n, mut back) = (dial(udp_at), 0_u64, [0; 16]);
            while go_on() {
                let text = n.to_le_bytes();
                flow.send(&text).expect("it is there");
                assert_eq!(flow.recv(&mut back).expect("none is lost"), 8);
                assert_eq!(back[..8], text);
                n += 1;
            }
            n
        });
        for round in 0..20 {
            let more = if round % 2 == 0 { &*beside } else { "" };
            let told = l4lb.reload(&with(1 + round % 2, more));
            assert_eq!(told.iter().filter(|line| line.starts_with("reloaded")).count(), 1, "{told:?}");
        }
        stop.store(true, Relaxed);
        let done = [kept, fresh, long, flow].map(|client| client.join().expect("nothing failed"));
        assert!(done.iter().all(|n| *n > 20), "{done:?}");
    });
}

#[test]
fn what_is_counted_of_the_unchanged_is_not_lost() {
    let web = http::Backend::named("web");
    let admin = "admin = true";
    let setup = Setup::http(web.addr()).listener(admin);
    let l4lb = setup.clone().start();
    assert_eq!(answers(l4lb.addr(), 3), ["web"; 3]);
    let requests = || {
        let stats = http::ask(l4lb.addr(), "GET /lb/stats HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let stats: serde_json::Value = serde_json::from_str(stats.text()).expect("JSON");
        let of = |path: &str| stats.pointer(path).and_then(serde_json::Value::as_u64);
        (of("/listeners/in/requests"), of("/pools/out/requests"))
    };
    assert_eq!(requests(), (Some(3), Some(3)));
    l4lb.reload(&setup.clone().pool("retries = 3").backend("127.0.0.1:1").toml());
    assert_eq!(requests(), (Some(3), Some(3)));
    assert_eq!(l4lb.reload(&setup.global("workers = 3\nlog_level = \"debug\"\n").toml()).len(), 1);
    let told = l4lb.reloads().pop().expect("it was told");
    assert!(told.ends_with("; takes effect at the next restart: global.workers"), "{told}");
    http::ask(l4lb.addr(), get("/none"));
    assert_eq!(requests(), (Some(4), Some(4)));
}

#[test]
fn ten_thousand_backends_are_reloaded_and_clients_hardly_notice() {
    const ALL: u32 = 10_000;
    // One server has all of 127.0.0.0/8.
    let server = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = server.local_addr().expect("bound").port();
    let _echo = Server::on(server, crate::support::server::echo);
    let backends = |range: std::ops::Range<u32>, more: &str| -> String {
        let at = |n: u32| Ipv4Addr::from(0x7f00_0001 + n);
        let one = |n: u32| format!("[[pool.backend]]\nid = \"b{n}\"\naddress = \"{}:{port}\"\n{more}\n", at(n));
        range.map(one).collect()
    };
    let file = |algorithm: &str, backends: &str| {
        format!(
            "[global]\nworkers = 2\n[[listener]]\nname = \"in\"\nprotocol = \"tcp\"\nbind = \"127.0.0.1:0\"\npool = \"out\"\n\
             [[pool]]\nname = \"out\"\nalgorithm = \"{algorithm}\"\nhealth_check = {{ kind = \"none\" }}\n{backends}"
        )
    };
    let first = file("round_robin", &backends(0..ALL, ""));
    let l4lb = L4lb::start(crate::support::l4lb::command(&[]), &first);
    let stop = AtomicBool::new(false);
    let (longest, times) = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (stream, mut longest, mut n) = (connect(l4lb.addr()), Duration::ZERO, 0);
            while !stop.load(Relaxed) {
                let began = Instant::now();
                stream.echo(b"hello");
                if n % 8 == 0 {
                    connect(l4lb.addr()).echo(b"hello");
                }
                longest = longest.max(began.elapsed());
                n += 1;
            }
            longest
        });
        let steps = [
            ("each weight", file("weighted_round_robin", &backends(0..ALL, "weight = 2"))),
            ("half of them", file("weighted_round_robin", &backends(ALL / 2..ALL * 3 / 2, "weight = 2"))),
            ("to least_connections", file("least_connections", &backends(ALL / 2..ALL * 3 / 2, ""))),
            ("nothing", file("least_connections", &backends(ALL / 2..ALL * 3 / 2, ""))),
        ];
        let times = steps.map(|(why, toml)| {
            l4lb.write_file(&toml);
            let began = Instant::now();
            assert_eq!(l4lb.reload_as_it_is().len(), 1, "{why}");
            format!("{why}: {:?}", began.elapsed())
        });
        stop.store(true, Relaxed);
        (client.join().expect("nothing failed"), times)
    });
    note(&format!("10,000 backends reloaded, {}; longest pause of a client {longest:?}", times.join(", ")));
    assert!(longest < Duration::from_secs(2), "a client waited for {longest:?}");
}
