//! What l4lb says and how it exits when it cannot do what it is asked.

use std::ffi::OsStr;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::support::l4lb::{command, run_to_end};
use crate::support::ports::Refusing;
use crate::support::{Client, Ending, L4lb, Server, Setup, closed_without_data, connect};

/// Runs l4lb with a file of this text, which must end by itself; exit code and standard error.
fn run_with(toml: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("lb.toml");
    std::fs::write(&file, toml).expect("ours");
    run_to_end([OsStr::new("-c"), file.as_os_str()])
}

/// Somebody who already listens, with or without SO_REUSEPORT.
fn occupied(reuse_port: bool) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(reuse_port).expect("Linux has it");
    socket.set_reuse_address(true).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(16).expect("it can listen");
    let addr = socket.local_addr().expect("bound").as_socket().expect("an IP address");
    (socket, addr)
}

#[test]
fn an_address_that_cannot_be_bound_is_named_with_the_reason_and_exit_code_3() {
    let (_plain, taken) = occupied(false);
    let (_sharing, shared) = occupied(true);
    let elsewhere: SocketAddr = "192.0.2.1:8080".parse().expect("an address");
    let cases = [
        ("another process listens there", taken, "in use"),
        ("another process listens there and would share", shared, "in use"),
        ("it is no address of this machine", elsewhere, "assign"),
    ];
    for (why, addr, reason) in cases {
        for workers in [1, 2] {
            let setup = Setup::to("127.0.0.1:9").global(&format!("workers = {workers}"));
            let (code, said) = run_with(&setup.bind(&format!("\"{addr}\"")).toml());
            assert_eq!(code, Some(3), "{why}, {workers} worker(s); it said\n{said}");
            assert!(said.contains(&addr.to_string()), "{why}: {addr} is not named in\n{said}");
            assert!(said.to_lowercase().contains(reason), "{why}: no reason in\n{said}");
        }
    }
}

#[test]
fn one_address_of_several_that_cannot_be_bound_is_enough_for_exit_code_3() {
    let (_plain, taken) = occupied(false);
    let (code, said) = run_with(&Setup::to("127.0.0.1:9").bind(&format!("[\"127.0.0.1:0\", \"{taken}\"]")).toml());
    assert_eq!(code, Some(3), "it said\n{said}");
    assert!(said.contains(&taken.to_string()), "{taken} is not named in\n{said}");
}

#[test]
fn its_own_listener_cannot_be_taken_by_a_second_l4lb() {
    let server = Server::echo();
    let lb = Setup::to(server.addr).start();
    let second = Setup::to("127.0.0.1:9").bind(&format!("\"{}\"", lb.addr()));
    let (code, said) = run_with(&second.toml());
    assert_eq!(code, Some(3), "it said\n{said}");
    for _ in 0..20 {
        assert_eq!(crate::support::exchange(lb.addr(), b"x"), b"x", "the first one loses nothing by it");
    }
}

#[test]
fn an_address_is_free_again_as_soon_as_l4lb_has_ended() {
    // the backend ends first, so that l4lb does at its listener: the connections in TIME-WAIT are its own, and must
    // not keep the address (SO_REUSEADDR, socket(7))
    let server = Server::new(|mut stream: TcpStream| stream.write_all(b"bye").expect("the client reads"));
    let lb = Setup::to(server.addr).start();
    let addr = lb.addr();
    let ask = || {
        let stream = connect(addr);
        assert_eq!(stream.read_all(), (b"bye".to_vec(), Ending::Clean));
    };
    (0..10).for_each(|_| ask());
    drop(lb);
    let _again = Setup::to(server.addr).bind(&format!("\"{addr}\"")).start();
    ask();
}

#[test]
fn a_wrong_file_is_exit_code_1_with_every_error_at_its_line() {
    let toml = Setup::to("127.0.0.1:9").listener("idle_timeuot = \"5s\"").pool("retries = -1").toml();
    let line = |of: &str| toml.lines().position(|line| line.contains(of)).expect("it is there") + 1;
    let (code, said) = run_with(&toml);
    assert_eq!(code, Some(1), "it said\n{said}");
    for (what, at) in [("idle_timeuot", line("idle_timeuot")), ("retries", line("retries"))] {
        let place = format!("lb.toml:{at}:");
        assert!(
            said.lines().any(|l| l.contains(&place) && l.contains(what)),
            "{what} is not told at {place} in\n{said}"
        );
    }
    assert!(said.contains("idle_timeout"), "the nearest known key is not told in\n{said}");
}

#[test]
fn a_wrong_argument_is_exit_code_2() {
    for args in [&["--no-such-flag"][..], &["--port", "many"], &["check"], &["no-such-command"]] {
        let (code, said) = run_to_end(args);
        assert_eq!(code, Some(2), "{args:?}: it said\n{said}");
    }
}

#[test]
fn check_tells_by_its_exit_code_whether_a_file_is_right() {
    for (why, toml, expected) in [
        ("right", Setup::to("127.0.0.1:9").toml(), 0),
        ("wrong", Setup::to("127.0.0.1:9").pool("algorithm = \"chance\"").toml(), 1),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("lb.toml");
        std::fs::write(&file, toml).expect("ours");
        let (code, said) = run_to_end(["check".as_ref(), "-c".as_ref(), file.as_os_str()]);
        assert_eq!(code, Some(expected), "{why}; it said\n{said}");
    }
}

#[test]
fn with_its_backend_down_at_the_start_it_runs_and_says_so() {
    let down = Refusing::new();
    let mut lb = Setup::to(down.addr).start();
    assert!(closed_without_data(lb.addr()), "there is nobody to serve");
    let addr = down.addr.to_string();
    lb.wait_for_log("that the backend is down", |line| line.contains(&addr) && !line.contains("listener "));
    assert!(lb.is_running());
    let _up = Server::on(down.listen(), crate::support::server::echo);
    assert_eq!(crate::support::exchange(lb.addr(), b"x"), b"x", "and it serves as soon as the backend is there");
}

#[test]
fn it_runs_from_flags_alone() {
    let server = Server::named("a");
    for _ in 0..5 {
        let port = crate::support::ports::free_port();
        let mut command = command(&[]);
        command.args(["--host", "127.0.0.1", "--protocol", "tcp", "--port", &port.to_string()]);
        command.args(["--backend", &server.addr.to_string()]);
        let Ok(lb) = L4lb::start_with_flags(command) else {
            continue; // somebody was faster at this port
        };
        assert_eq!(lb.addr().port(), port);
        assert_eq!(crate::support::exchange(lb.addr(), b""), b"a");
        return;
    }
    panic!("it started on none of five free ports");
}
