//! Thousands of backends are checked, each at its time, and what that costs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::admin;
use crate::support::http::ask;
use crate::support::l4lb::command;
use crate::support::{L4lb, note, proc, wait_until};

/// A listener at all addresses of this machine that counts, for each of a row of them, how many connections came there.
struct Crowd {
    port: u16,
    counts: Arc<[AtomicU32]>,
    stopping: Arc<AtomicBool>,
    listener: TcpListener,
    acceptors: Vec<JoinHandle<()>>,
}

/// The address number `n` of the row; all of 127.0.0.0/8 is this machine.
fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, (n / 250) as u8, (n % 250) as u8 + 1)
}

/// Where in the row an address is.
fn place(at: Ipv4Addr) -> usize {
    let [_, _, high, low] = at.octets();
    usize::from(high) * 250 + usize::from(low) - 1
}

impl Crowd {
    /// One that answers requests of HTTP, or only accepts.
    fn new(n: usize, http: bool) -> Crowd {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
        SockRef::from(&listener).listen(4096).expect("a listening socket may listen again");
        let port = listener.local_addr().expect("bound").port();
        let counts: Arc<[AtomicU32]> = (0..n).map(|_| AtomicU32::new(0)).collect();
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = || {
            let (listener, counts) = (listener.try_clone().expect("a descriptor is free"), counts.clone());
            let stopping = stopping.clone();
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    // who has left already has no address any more, and was there all the same
                    if let Ok(SocketAddr::V4(at)) = stream.local_addr() {
                        counts[place(*at.ip())].fetch_add(1, Ordering::Relaxed);
                    }
                    if http {
                        answer(stream);
                    }
                }
            })
        };
        let acceptors = (0..2).map(|_| acceptor()).collect();
        Crowd { port, counts, stopping, listener, acceptors }
    }

    fn counts(&self) -> Vec<u32> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // on Linux this wakes threads that wait in accept()
        let _ = SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
        for acceptor in self.acceptors.drain(..) {
            let _ = acceptor.join();
        }
    }
}

fn answer(mut stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut buf = [0; 1024];
    if stream.read(&mut buf).is_ok_and(|n| n > 0) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
}

/// A balancer over the whole crowd; `check` as in the file, without its braces.
fn checking(crowd: &Crowd, check: &str) -> L4lb {
    let one = |n: usize| format!("{{ address = \"{}:{}\" }}", address(n), crowd.port);
    let backends: Vec<String> = (0..crowd.counts.len()).map(one).collect();
    let toml = format!(
        "[global]\nworkers = 1\n[[listener]]\nname = \"in\"\nprotocol = \"http\"\nbind = \"127.0.0.1:0\"\npool = \"out\"\n\
         admin = true\n[[pool]]\nname = \"out\"\nhealth_check = {{ {check} }}\nbackend = [{}]\n",
        backends.join(", ")
    );
    L4lb::start(command(&[]), &toml)
}

/// How many backends of each state there are.
fn count_of(lb: &L4lb, state: &str) -> usize {
    let told = admin::json(&ask(lb.addr(), admin::lb("/lb/backends")));
    told.as_array().expect("a list").iter().filter(|backend| backend["state"] == state).count()
}

#[test]
fn each_of_five_hundred_is_checked_in_every_interval() {
    const MANY: usize = 500;
    for (http, check) in [(false, "kind = \"tcp\""), (true, "kind = \"http\"")] {
        let crowd = Crowd::new(MANY, http);
        let lb = checking(&crowd, &format!("{check}, interval = \"1s\", timeout = \"10s\""));
        wait_until("all are found up", || count_of(&lb, "up") == MANY);
        let (before, since) = (crowd.counts(), Instant::now());
        wait_until("each was checked three times more", || {
            crowd.counts().iter().zip(&before).all(|(now, before)| *now >= before + 3)
        });
        // an interval is a second, give or take a tenth; this machine may be late, but nothing makes checks come early
        let seconds = since.elapsed().as_secs_f64();
        let most = (seconds / 0.9).ceil() as u32 + 1;
        let counts: Vec<u32> = crowd.counts().iter().zip(&before).map(|(now, before)| now - before).collect();
        assert!(counts.iter().all(|count| *count <= most), "{check}: more than {most} in {seconds} s: {counts:?}");
        assert!(seconds > 1.8, "{check}: three intervals in {seconds} s");
        assert_eq!(count_of(&lb, "up"), MANY, "{check}");
    }
}

#[test]
#[ignore = "a figure of a release build on a quiet machine; run by name"]
fn what_five_thousand_backends_cost() {
    const MANY: usize = 5_000;
    const SPAN: Duration = Duration::from_secs(10);
    for (http, check) in [(false, "kind = \"tcp\""), (true, "kind = \"http\"")] {
        let crowd = Crowd::new(MANY, http);
        let lb = checking(&crowd, &format!("{check}, interval = \"2s\", timeout = \"1s\""));
        wait_until("all are found up", || count_of(&lb, "up") == MANY);
        let before = (crowd.counts(), proc::cpu_time_of(lb.pid(), "health"), proc::cpu_split(lb.pid()));
        let all = proc::cpu_time_over(lb.pid(), SPAN);
        let health = proc::cpu_time_of(lb.pid(), "health") - before.1;
        let (user, system) = proc::cpu_split(lb.pid());
        let counts: Vec<u32> = crowd.counts().iter().zip(&before.0).map(|(now, before)| now - before).collect();
        let checks: u32 = counts.iter().sum();
        let percent = |time: Duration| 100.0 * time.as_secs_f64() / SPAN.as_secs_f64();
        note(&format!(
            "{MANY} backends every 2 s, {check}: {checks} checks in 10 s, {} to {} of each backend; {:.1} % of a processor \
             (thread health {:.1} %), user {:.1} %, system {:.1} %; {:.1} us a check; {} KiB of memory",
            counts.iter().min().expect("some"),
            counts.iter().max().expect("some"),
            percent(all),
            percent(health),
            percent(user - before.2.0),
            percent(system - before.2.1),
            health.as_secs_f64() * 1e6 / f64::from(checks),
            proc::memory_kib(lb.pid()),
        ));
        assert!(counts.iter().all(|count| (3..=7).contains(count)), "{check}: {counts:?}");
        assert_eq!(count_of(&lb, "up"), MANY, "{check}");
    }
}
