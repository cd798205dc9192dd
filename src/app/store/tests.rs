//! Sockets that are opened, taken over and moved.

use super::*;

/// What was opened: for each worker, sockets of both kinds, with the place of their listener.
struct Sockets {
    by_worker: Vec<Vec<(usize, TcpListener)>>,
    udp_by_worker: Vec<Vec<(usize, UdpSocket)>>,
    bound: Vec<Bound>,
    _store: Store,
}

fn opened(config: &Config, workers: usize, passed: Vec<Passed>) -> Result<Sockets, BindError> {
    let mut store = Store::new(workers, ToldBy::File);
    let wants = Store::wants(config, ToldBy::File)?;
    let change = store.change(config, wants, (passed, Vec::new()), false)?;
    let mut sockets = Sockets { by_worker: Vec::new(), udp_by_worker: Vec::new(), bound: change.bound, _store: store };
    for order in change.moves.orders {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for Opened { listener, transport, socket, .. } in order.open {
            match transport {
                Transport::Tcp => tcp.push((listener, socket.into())),
                Transport::Udp => udp.push((listener, socket.into())),
            }
        }
        sockets.by_worker.push(tcp);
        sockets.udp_by_worker.push(udp);
    }
    Ok(sockets)
}

use std::net::{TcpListener, UdpSocket};

/// A UDP listener on `bind`, and whatever else.
fn config(bind: &str, rest: &str) -> Config {
    let text = format!(
        "[[listener]]\nname = 'dns'\nbind = '{bind}'\nprotocol = 'udp'\npool = 'p'\n{rest}\n[[pool]]\nname = 'p'\n"
    );
    config::parse(&text, "test").unwrap()
}

fn passed(shared: bool) -> (Passed, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_port(shared).unwrap();
    socket.set_reuse_address(shared).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (Passed { transport: Transport::Udp, socket }, address)
}

/// How many datagrams of 64 clients come to each socket.
fn spread(sockets: &[&UdpSocket], address: SocketAddr) -> Vec<usize> {
    const CLIENTS: usize = 64;
    for _ in 0..CLIENTS {
        let bind = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(bind).unwrap().send_to(b"hello", address).unwrap();
    }
    let mut come = vec![0; sockets.len()];
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while come.iter().sum::<usize>() < CLIENTS {
        assert!(std::time::Instant::now() < until, "only {come:?} have come");
        for (socket, come) in sockets.iter().zip(&mut come) {
            *come += std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok()).count();
        }
    }
    come
}

fn of(sockets: &Sockets) -> Vec<&UdpSocket> {
    sockets.udp_by_worker.iter().flatten().map(|(_, socket)| socket).collect()
}

#[test]
fn each_worker_has_a_udp_socket_and_the_kernel_spreads_clients() {
    let sockets = opened(&config("127.0.0.1:0", ""), 3, Vec::new()).unwrap();
    assert!(sockets.udp_by_worker.iter().all(|own| own.len() == 1 && own[0].0 == 0));
    assert!(sockets.by_worker.iter().all(Vec::is_empty));
    let [Bound { address, protocol: config::Protocol::Udp, .. }] = sockets.bound[..] else {
        panic!("{:?}", sockets.bound)
    };
    let come = spread(&of(&sockets), address);
    assert!(come.iter().all(|some| *some > 0), "{come:?}: one gets nothing");
}

#[test]
fn a_udp_address_that_somebody_has_is_not_shared() {
    for shared in [false, true] {
        let (theirs, address) = passed(shared);
        for workers in [1, 2] {
            let error = opened(&config(&address.to_string(), ""), workers, Vec::new()).err();
            let told = error.map(|error| error.to_string()).unwrap_or_default();
            let words = format!("listener dns: cannot listen on {address}: Address already in use");
            assert!(told.starts_with(&words), "{told:?}, shared {shared}");
        }
        drop(theirs);
    }
}

#[test]
fn a_tcp_listener_can_have_the_same_address() {
    let twin = |bind: &str| format!("[[listener]]\nname = 'twin'\nbind = '{bind}'\nprotocol = 'tcp'\npool = 'p'");
    // What is free over UDP may be taken over TCP, by whoever runs beside this.
    let tries = std::iter::repeat_with(|| {
        let (theirs, address) = passed(false);
        drop(theirs);
        let address = address.to_string();
        Some((opened(&config(&address, &twin(&address)), 2, Vec::new()).ok()?, address))
    });
    let (sockets, address) = tries.take(100).flatten().next().expect("one of a hundred ports is free");
    assert_eq!(sockets.bound[0].address, sockets.bound[1].address);
    drop(sockets);
    // Over UDP [::] takes IPv4 as well, whatever TCP binds.
    let port = address.rsplit(':').next().unwrap();
    let config = config(&format!("[::]:{port}"), &twin(&format!("127.0.0.1:{port}")));
    let sockets = opened(&config, 1, Vec::new()).unwrap();
    assert_eq!(spread(&of(&sockets), address.parse().unwrap()), [64]);
}

#[test]
fn a_udp_socket_passed_on_is_taken_and_the_other_workers_join_it() {
    for (workers, shared) in [(1, false), (3, false), (3, true)] {
        let (theirs, address) = passed(shared);
        let early = UdpSocket::bind("127.0.0.1:0").unwrap();
        early.send_to(b"early", address).unwrap();
        let sockets = opened(&config(&address.to_string(), ""), workers, vec![theirs]).unwrap();
        assert_eq!(sockets.bound[0].address, address);
        let all = of(&sockets);
        assert_eq!(all.len(), workers);
        let mut first = [0; 16];
        assert_eq!(all[0].recv(&mut first).unwrap(), 5, "what came before the start is still there");
        let come = spread(&all, address);
        assert!(come.iter().all(|some| *some > 0), "{come:?}: one gets nothing");
    }
}

#[test]
fn what_is_passed_on_over_the_other_transport_is_not_taken() {
    // The port is free over UDP only: another try where somebody has it over TCP.
    let sockets = (0..20).find_map(|_| {
        let (theirs, address) = passed(false);
        let text = format!(
            "listener = [{{ name = 't', bind = '{address}', protocol = 'tcp', pool = 'p' }}]\npool = [{{ name = 'p' }}]"
        );
        opened(&config::parse(&text, "test").unwrap(), 1, vec![theirs]).ok()
    });
    let sockets = sockets.unwrap();
    assert_eq!((sockets.by_worker[0].len(), sockets.udp_by_worker[0].len()), (1, 0));
}

/// A listener of each name, protocol and address, and a pool for all.
fn listeners(all: &[(&str, &str, &str)]) -> Config {
    let mut text = "[[pool]]\nname = 'p'\n".to_owned();
    for (name, protocol, bind) in all {
        text.push_str(&format!(
            "[[listener]]\nname = '{name}'\nprotocol = '{protocol}'\nbind = '{bind}'\npool = 'p'\n"
        ));
    }
    config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}"))
}

/// Which numbers are opened, renamed (to which listener) and closed, by the first worker; all are told the same.
type Told = (Vec<u32>, Vec<(u32, usize)>, Vec<u32>);

fn told(change: &Change) -> Told {
    let of = |order: &Listen<usize>| -> Told {
        let open = order.open.iter().map(|opened| opened.id.0).collect();
        let rename = order.rename.iter().map(|(id, to)| (id.0, *to)).collect();
        (open, rename, order.close.iter().map(|id| id.0).collect())
    };
    let all: Vec<Told> = change.moves.orders.iter().map(of).collect();
    assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
    all[0].clone()
}

fn again(store: &mut Store, all: &[(&str, &str, &str)]) -> Result<Change, BindError> {
    store.again(&listeners(all), false).expect("it is not over")
}

#[test]
fn sockets_stay_with_their_address_and_go_with_the_listener() {
    let mut store = Store::new(2, ToldBy::File);
    let first = again(&mut store, &[("a", "tcp", "127.0.0.1:0"), ("b", "udp", "127.0.0.1:0")]).unwrap();
    let at: Vec<String> = first.bound.iter().map(|bound| bound.address.to_string()).collect();
    let (a, b) = (&*at[0], &*at[1]);
    assert_eq!(told(&first), (vec![0, 1], vec![], vec![]));
    type Row<'a> = (&'a str, Vec<(&'a str, &'a str, &'a str)>, Told);
    let rows: Vec<Row<'_>> = vec![
        ("as it was", vec![("a", "tcp", "127.0.0.1:0"), ("b", "udp", "127.0.0.1:0")], (vec![], vec![], vec![])),
        ("in another order", vec![("b", "udp", "127.0.0.1:0"), ("a", "tcp", "127.0.0.1:0")], (vec![], vec![], vec![])),
        ("by the address that it has got", vec![("a", "tcp", a), ("b", "udp", b)], (vec![], vec![], vec![])),
        ("another speaks there", vec![("a", "http", a), ("b", "udp", b)], (vec![], vec![(0, 0)], vec![])),
        ("of another name", vec![("b", "udp", b), ("c", "tcp", a)], (vec![], vec![(0, 1)], vec![])),
        ("the datagrams go", vec![("c", "tcp", a)], (vec![], vec![], vec![1])),
        ("and come back in time", vec![("c", "tcp", a), ("b", "udp", b)], (vec![], vec![(1, 1)], vec![])),
        ("one more", vec![("c", "tcp", a), ("b", "udp", b), ("d", "tcp", "127.0.0.1:0")], (vec![2], vec![], vec![])),
        ("less one", vec![("b", "udp", b), ("d", "tcp", "127.0.0.1:0")], (vec![], vec![], vec![0])),
        (
            "port 0 of another is another",
            vec![("b", "udp", b), ("e", "tcp", "127.0.0.1:0")],
            (vec![3], vec![], vec![2]),
        ),
    ];
    for (why, next, expected) in rows {
        assert_eq!(told(&again(&mut store, &next).unwrap()), expected, "{why}");
    }
}

#[test]
fn nothing_is_opened_or_closed_where_not_all_can_be() {
    let (theirs, taken) = passed(false);
    let taken = taken.to_string();
    let mut store = Store::new(2, ToldBy::File);
    let was = [("a", "tcp", "127.0.0.1:0")];
    let first = again(&mut store, &was).unwrap();
    let next = [("c", "tcp", "127.0.0.1:0"), ("b", "udp", &*taken)];
    let error = again(&mut store, &next).err().expect("it is taken").to_string();
    assert!(error.starts_with(&format!("listener b: cannot listen on {taken}: Address already in use")), "{error}");
    assert_eq!(told(&again(&mut store, &was).unwrap()), (vec![], vec![], vec![]), "as if nothing had been");
    drop(theirs);
    assert!(store.again(&listeners(&next), true).expect("it is not over").is_ok(), "it could be done");
    assert!(std::net::UdpSocket::bind(&*taken).is_ok(), "and was not");
    assert_eq!(told(&again(&mut store, &next).unwrap()).2, [0]);
    drop(first);
}

#[test]
fn what_is_closed_is_closed_when_its_workers_have() {
    let mut store = Store::new(2, ToldBy::File);
    let mut first = again(&mut store, &[("a", "tcp", "127.0.0.1:0"), ("b", "udp", "127.0.0.1:0")]).unwrap();
    let (a, b) = (first.bound[0].address, first.bound[1].address);
    let mut orders = std::mem::take(&mut first.moves.orders);
    again(&mut store, &[("x", "tcp", "127.0.0.1:0")]).unwrap();
    let flows = orders[0].open[1].flows.clone();
    for order in &mut orders {
        order.open.remove(0);
    }
    assert!(std::net::TcpStream::connect(a).is_err(), "the workers had the last descriptors");
    // Datagrams stay until no flow lives, and until all workers know.
    let flow = flows.take();
    store.held[1].closing = Some(Instant::now() - CLOSES);
    assert!(store.silent().is_empty());
    drop(flow);
    assert_eq!(store.silent(), [SocketId(1)]);
    assert!(store.silent().is_empty(), "told once");
    drop((orders, flows));
    assert!(UdpSocket::bind(b).is_ok());
}

#[test]
fn options_that_have_changed_are_set_where_the_sockets_are() {
    let mut store = Store::new(2, ToldBy::File);
    let config = |more: &str| {
        // The second one is told last.
        let one = |name: &str, more: &str| {
            format!("[[listener]]\nname = '{name}'\nprotocol = 'tcp'\nbind = '127.0.0.1:0'\npool = 'p'\n{more}\n")
        };
        let (first, second) = more.split_once('|').unwrap_or((more, ""));
        let text = format!("{}{}[[pool]]\nname = 'p'", one("a", first), one("b", second));
        config::parse(&text, "test").unwrap()
    };
    let names = |store: &Store| -> Vec<String> {
        let name = |socket: &Socket| {
            let bytes = socket.tcp_congestion().unwrap();
            String::from_utf8(bytes.into_iter().take_while(|byte| *byte != 0).collect()).unwrap()
        };
        store.held[0].kept.iter().map(name).collect()
    };
    let _first = store.again(&config(""), false).unwrap().unwrap();
    let usual = names(&store);
    assert!(store.again(&config("congestion_control = 'reno'"), true).unwrap().is_ok());
    assert_eq!(names(&store), usual, "it was only asked");
    let _second = store.again(&config("congestion_control = 'reno'\ndefer_accept = true"), false).unwrap().unwrap();
    assert_eq!(names(&store), ["reno", "reno"]);
    let wrong = config("congestion_control = 'cubic'|congestion_control = 'none-such'");
    let error = store.again(&wrong, false).unwrap().err().expect("there is none");
    assert!(error.to_string().contains("none-such"), "{error}");
    assert_eq!(names(&store), ["reno", "reno"], "as it was");
    let _third = store.again(&config(""), false).unwrap().unwrap();
    assert_eq!(names(&store), usual, "the system's again");
}

#[test]
fn two_addresses_of_one_port_can_follow_each_other() {
    let mut store = Store::new(2, ToldBy::File);
    let first = again(&mut store, &[("a", "tcp", "127.0.0.1:0")]).unwrap();
    let port = first.bound[0].address.port();
    let second = again(&mut store, &[("a", "tcp", &format!("0.0.0.0:{port}"))]).unwrap();
    assert_eq!(told(&second), (vec![1], vec![], vec![0]));
}
