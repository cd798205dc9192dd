//! Backends that are killed under load: whoever had no byte of an answer yet is served by another one, and what could
//! not be saved is counted by its cause.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::admin;
use crate::support::http::{ask, get};
use crate::support::programs::{Program, backend, nginx_alone};
use crate::support::{PATIENCE, Pattern, Server, Setup, connect, note};

/// How a request ended, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The whole of a backend's answer.
    Served,
    /// A part of one: it had begun when its backend died.
    CutShort,
    /// An answer that l4lb made itself, with this status.
    Refused(u16),
    /// The connection ended without a byte.
    NoByte,
}

/// A client that asks again and again over one connection, and opens another where that has ended.
pub struct Asker {
    to: SocketAddr,
    stream: Option<TcpStream>,
}

impl Asker {
    pub fn new(to: SocketAddr) -> Self {
        Asker { to, stream: None }
    }

    /// Asks for `path` once.
    pub fn ask(&mut self, path: &str) -> End {
        let mut stream = self.stream.take().unwrap_or_else(|| connect(self.to));
        if stream.write_all(get(path).as_bytes()).is_err() {
            return End::NoByte;
        }
        let (end, stays) = read_answer(&mut stream);
        self.stream = stays.then_some(stream);
        end
    }
}

/// Reads one answer; how it ended, and whether another request may follow.
fn read_answer(stream: &mut TcpStream) -> (End, bool) {
    let mut answer = Vec::new();
    let mut buf = vec![0; 64 * 1024];
    // Where the answer ends, once its head has come.
    let mut whole = None;
    loop {
        match stream.read(&mut buf) {
            Ok(n) if n > 0 => answer.extend_from_slice(&buf[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no answer within {PATIENCE:?}; there is {:?}", String::from_utf8_lossy(&answer))
            }
            _ if answer.is_empty() => return (End::NoByte, false),
            _ => return (End::CutShort, false),
        }
        let head_end = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let Some((at, head)) = head_end.map(|at| (at, String::from_utf8_lossy(&answer[..at]).to_lowercase())) else {
            continue;
        };
        let status: u16 = head.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status line");
        let length = || head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse::<usize>().ok();
        let whole = *whole.get_or_insert_with(|| at + length().expect("these answers tell their length"));
        if answer.len() >= whole {
            assert_eq!(answer.len(), whole, "more than the answer came");
            let end = if status == 200 { End::Served } else { End::Refused(status) };
            return (end, !head.contains("connection: close"));
        }
    }
}

/// Sets its flag when it goes out of scope, also when something failed before.
pub struct Finally<'a>(pub &'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Kills one of `victims` after the other, one a second, and starts it again at once, while there is a client for each of
/// `paths`. How requests ended, by their paths, and how many retries that took.
fn under_kills(
    kills: usize,
    victims: &mut [Program],
    others: &[SocketAddr],
    paths: &[&'static str],
) -> (BTreeMap<(&'static str, End), usize>, u64) {
    let setup = Setup { protocol: "http", ..Setup::new() }.listener("admin = true").pool("retries = 2");
    let backends = victims.iter().map(|victim| victim.addr).chain(others.iter().copied());
    let lb = backends.fold(setup, |setup, addr| setup.backend(addr)).start();
    let (over, ends) = (AtomicBool::new(false), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        let _over = Finally(&over);
        for path in paths {
            scope.spawn(|| {
                let mut asker = Asker::new(lb.addr());
                while !over.load(Ordering::SeqCst) {
                    *ends.lock().expect("never poisoned").entry((*path, asker.ask(path))).or_insert(0) += 1;
                    // the rate of a busy client, not all that the machine has
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        for number in 0..kills {
            thread::sleep(Duration::from_secs(1));
            let victim = &mut victims[number % victims.len()];
            victim.kill();
            victim.start_again();
        }
    });
    let told = admin::json(&ask(lb.addr(), admin::lb("/lb/stats")));
    (ends.into_inner().expect("never poisoned"), told["pools"]["out"]["retries"].as_u64().expect("a count"))
}

/// Fails unless all were served but those whose answers had begun; tells the rest by cause.
fn assert_none_lost(why: &str, kills: usize, (ends, retries): (BTreeMap<(&str, End), usize>, u64)) {
    let count = |wanted: &dyn Fn(End) -> bool| -> usize {
        ends.iter().filter(|((_, end), _)| wanted(*end)).map(|(_, count)| count).sum()
    };
    let (served, cut) = (count(&|end| end == End::Served), count(&|end| end == End::CutShort));
    let lost = count(&|end| matches!(end, End::Refused(_) | End::NoByte));
    note(&format!(
        "{kills} kills in as many seconds, {why}: {served} requests served, {cut} cut short, {lost} lost; {retries} retries"
    ));
    assert_eq!(lost, 0, "{why}: {ends:?}");
    assert!(served > 20 * kills, "{why}: hardly anything was asked: {ends:?}");
    assert!(retries > 0, "{why}: no kill was felt, so nothing is shown: {ends:?}");
}

fn one_of_three_is_killed_every_second(kills: usize) {
    let mut victims = [backend(), backend(), backend()];
    let ends = under_kills(kills, &mut victims, &[], &["/"; 8]);
    assert_none_lost("one of three in turn", kills, ends);
}

fn long_answers_are_cut_and_no_others(kills: usize) {
    let file = Pattern { seed: 61 }.bytes(0, 30_000_000);
    let mut victims = [nginx_alone(&file), nginx_alone(&file), nginx_alone(&file)];
    // An answer is under way at a kill by chance, and may be whole in our buffers then.
    let cut = (0..4).find_map(|_| {
        let ends = under_kills(kills, &mut victims, &[], &["/", "/", "/", "/", "/file", "/file", "/file"]);
        let cut: usize = ends.0.iter().filter(|((_, end), _)| *end == End::CutShort).map(|(_, count)| count).sum();
        assert_none_lost("one of three nginx in turn, long answers among them", kills, ends);
        (cut > 0).then_some(cut)
    });
    assert!(cut.is_some(), "no answer had begun at any kill, so nothing is shown");
}

fn one_is_killed_and_another_accepts_and_resets(kills: usize) {
    let mut victims = [backend()];
    let steady = backend();
    let resets = Server::new(|stream: TcpStream| {
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    });
    let ends = under_kills(kills, &mut victims, &[resets.addr, steady.addr], &["/"; 8]);
    assert_none_lost("one killed, one that accepts and resets, one well", kills, ends);
    assert!(resets.accepted() > 0, "nobody came to the one that resets, so nothing is shown");
}

#[test]
fn one_of_three_killed_every_second_costs_no_request() {
    one_of_three_is_killed_every_second(5);
}

#[test]
fn a_kill_cuts_answers_that_have_begun_and_no_others() {
    long_answers_are_cut_and_no_others(5);
}

#[test]
fn one_killed_and_one_that_accepts_and_resets_cost_no_request() {
    one_is_killed_and_another_accepts_and_resets(5);
}

#[test]
#[ignore = "takes a minute and a half; run by name"]
fn thirty_seconds_of_kills_cost_no_request() {
    one_of_three_is_killed_every_second(30);
    long_answers_are_cut_and_no_others(30);
    one_is_killed_and_another_accepts_and_resets(30);
}
