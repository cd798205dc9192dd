//! Listening sockets that somebody else has opened and passed on (sd_listen_fds(3)).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::support::l4lb::{binary, run_command_to_end};
use crate::support::{Client, L4lb, Server, Setup, exchange, note, ports, wait_until};

/// l4lb with up to two sockets as descriptors 3 and 4, told by environment as systemd does.
fn passing(sockets: Vec<TcpListener>, listen_pid: &str) -> Command {
    let n = sockets.len();
    let script = format!(
        "exec 3<&0 4>&1 </dev/null >/dev/null; [ {n} -ge 2 ] || exec 4>&-; LISTEN_PID={listen_pid} LISTEN_FDS={n} exec \"$0\" \"$@\""
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(binary());
    let mut sockets = sockets.into_iter().map(OwnedFd::from);
    command.stdin(sockets.next().map_or_else(Stdio::null, Stdio::from));
    command.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
    command
}

fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

#[test]
fn a_passed_socket_is_taken_by_the_listener_with_its_address() {
    for workers in [1, 2] {
        let server = Server::named("a");
        let (socket, addr) = listening();
        // it comes before l4lb has started, and is served nevertheless: that is what passing sockets is for
        let early = crate::support::connect(addr);
        let setup = Setup::to(server.addr).global(&format!("workers = {workers}\nshutdown_timeout = \"5s\""));
        let lb = L4lb::start(passing(vec![socket], "$$"), &setup.bind(&format!("\"{addr}\"")).toml());
        assert_eq!(lb.addr(), addr);
        assert_eq!(early.read_n(1), b"a", "{workers} worker(s)");
        drop(early);
        for _ in 0..20 {
            assert_eq!(exchange(addr, b""), b"a", "{workers} worker(s)");
        }
    }
}

#[test]
fn each_of_two_passed_sockets_finds_its_listener() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let (first, first_addr) = listening();
    let (second, second_addr) = listening();
    let pool = |name: &str, backend: SocketAddr, bind: SocketAddr| {
        format!(
            "[[listener]]\nname = \"{name}\"\nprotocol = \"tcp\"\nbind = \"{bind}\"\npool = \"{name}\"\n\
             [[pool]]\nname = \"{name}\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{backend}\" }}]\n"
        )
    };
    // the file names them in the other order: the address decides
    let toml = format!("{}{}", pool("two", b.addr, second_addr), pool("one", a.addr, first_addr));
    let lb = L4lb::start(passing(vec![first, second], "$$"), &toml);
    for _ in 0..5 {
        assert_eq!(exchange(first_addr, b""), b"a");
        assert_eq!(exchange(second_addr, b""), b"b");
    }
    drop(lb);
}

#[test]
fn sockets_meant_for_another_process_are_not_touched() {
    let server = Server::named("a");
    let (socket, addr) = listening();
    let toml = Setup::to(server.addr).bind(&format!("\"{addr}\"")).toml();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("lb.toml");
    std::fs::write(&file, toml).expect("ours");
    // LISTEN_PID is some other process: the address is simply taken
    let mut command = passing(vec![socket.try_clone().expect("a descriptor is free")], "1");
    let (code, said) = run_command_to_end(command.arg("-c").arg(&file));
    assert_eq!(code, Some(3), "it said\n{said}");
}

#[test]
fn systemd_socket_activate_starts_it_with_the_first_connection() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        note("left out: systemd-socket-activate is not installed");
        return;
    }
    let server = Server::named("a");
    let port = ports::free_port();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let toml = Setup::to(server.addr).bind(&format!("\"{addr}\"")).toml();
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(addr.to_string()).arg(binary()).stdin(Stdio::null());
    // l4lb runs, and tells its address, when somebody has come
    let first = std::thread::spawn(move || {
        let mut first = None;
        wait_until("the activator listens", || {
            first = TcpStream::connect(addr).ok();
            first.is_some()
        });
        first.expect("just waited for").read_n(1)
    });
    let lb = L4lb::start(command, &toml);
    assert_eq!(first.join().expect("it was served"), b"a");
    for _ in 0..5 {
        assert_eq!(exchange(addr, b""), b"a");
    }
    drop(lb);
}
