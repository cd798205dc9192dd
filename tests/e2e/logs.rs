//! The log in a file: rotated by SIGUSR1 without a line lost, and kept where that fails.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::http::{Wire, get};
use crate::support::l4lb::command;
use crate::support::{L4lb, PATIENCE, Setup, wait_until};

/// l4lb that logs all to `file`, and where it listens. Every request is answered 404, which is a line with the client's
/// port in it.
fn logging_to(file: &Path) -> (L4lb, SocketAddr) {
    let toml = Setup::http("127.0.0.1:9")
        .global(&format!("workers = 2\nlog_level = \"debug\"\nlog_file = \"{}\"", file.display()))
        .toml();
    // nothing is routed
    let toml = toml.replacen("pool = \"out\"", "[[listener.route]]\nhost = \"nobody.example\"\npool = \"out\"", 1);
    let lb = L4lb::start_unheard(command(&[]), &toml);
    let mut addr = None;
    wait_until("it says where it listens", || {
        addr = read(file).lines().find_map(|line| line.split_once("listener in on ")?.1.trim().parse().ok());
        addr.is_some()
    });
    (lb, addr.expect("just waited for"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Asks once on a connection of its own; the port it came from.
fn ask(addr: SocketAddr) -> u16 {
    let mut wire = Wire::to(addr);
    let port = wire.stream.local_addr().expect("connected").port();
    assert_eq!(wire.ask(get("/")).status(), 404);
    port
}

fn mark(port: u16) -> String {
    format!("client 127.0.0.1:{port}: 404")
}

#[test]
fn sigusr1_begins_a_new_file_and_no_line_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, turns) = (dir.path().join("lb.log"), 8);
    let (lb, addr) = logging_to(&file);
    let old = |turn: usize| dir.path().join(format!("lb.log.{turn}"));
    let done = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = BTreeMap::new();
            let until = Instant::now() + 2 * PATIENCE;
            while !done.load(Ordering::Relaxed) && Instant::now() < until {
                *asked.entry(ask(addr)).or_insert(0) += 1;
            }
            asked
        });
        for turn in 0..turns {
            let before = ask(addr);
            wait_until("the line is there", || read(&file).contains(&mark(before)));
            fs::rename(&file, old(turn)).expect("it is ours");
            // what nobody has told it goes on into the file it has
            let between = ask(addr);
            wait_until("the renamed file goes on", || read(&old(turn)).contains(&mark(between)));
            assert!(!file.exists());
            lb.signal(Signal::SIGUSR1);
            wait_until("there is a new file, and it says so", || read(&file).contains("reopened"));
            let length = read(&old(turn)).len();
            let after = ask(addr);
            wait_until("new lines go to the new file", || read(&file).contains(&mark(after)));
            assert_eq!(read(&old(turn)).len(), length, "turn {turn}: nothing more goes to the old one");
        }
        done.store(true, Ordering::Relaxed);
        asking.join().expect("it has found nothing wrong")
    });
    assert!(asked.len() > turns, "only {} asked beside", asked.len());
    let last = ask(addr);
    wait_until("all is written", || read(&file).contains(&mark(last)));
    let all: String = (0..turns).map(|turn| read(&old(turn))).chain([read(&file)]).collect();
    for (port, times) in asked {
        // the kernel may give out a port twice, and one that asked here may have been one of the others above
        let found = all.matches(&mark(port)).count();
        assert!(found >= times, "of the {times} lines of port {port} there are {found}");
    }
    assert!(!all.contains("were lost"), "{all}");
}

#[test]
fn a_file_that_cannot_be_reopened_leaves_the_old_one_which_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let (folder, aside) = (dir.path().join("logs"), dir.path().join("aside"));
    fs::create_dir(&folder).expect("it is new");
    let (lb, addr) = logging_to(&folder.join("lb.log"));
    fs::rename(&folder, &aside).expect("they are ours");
    lb.signal(Signal::SIGUSR1);
    let old = aside.join("lb.log");
    wait_until("the old one says so", || read(&old).contains("cannot be reopened: No such file or directory"));
    let port = ask(addr);
    wait_until("the old one goes on", || read(&old).contains(&mark(port)));
    fs::create_dir(&folder).expect("it is gone");
    lb.signal(Signal::SIGUSR1);
    let new = folder.join("lb.log");
    wait_until("the next signal is heeded", || read(&new).contains("reopened"));
    let port = ask(addr);
    wait_until("new lines go to the new file", || read(&new).contains(&mark(port)));
}
