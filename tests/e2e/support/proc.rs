//! A process as it looks from outside: descriptors, memory, CPU time, and how full its sockets are.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use super::{poll_until, wait_until_still};

/// How many descriptors the process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").count()
}

/// How many of its descriptors are ends of pipes.
pub fn pipes(pid: u32) -> usize {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs").flatten();
    all.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"))).count()
}

/// How many descriptors the process has open once its start is over: threads may still open some of their own
/// just after the first address was told.
pub fn settled_descriptors(pid: u32) -> usize {
    wait_until_still("it opens nothing more", Duration::from_millis(200), || descriptors(pid))
}

/// Waits until the process has `n` descriptors open again.
pub fn wait_for_descriptors(pid: u32, n: usize) {
    let mut now = 0;
    let back = poll_until(|| {
        now = descriptors(pid);
        now == n
    });
    assert!(back, "{now} descriptors are open, and {n} were at the start");
}

/// Resident memory in KiB that is its own, not shared pages of files (proc(5), `RssAnon`).
pub fn memory_kib(pid: u32) -> u64 {
    status_kib(pid, "RssAnon:")
}

/// The most memory that was resident at any time, in KiB (proc(5), `VmHWM`).
pub fn peak_kib(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    line.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB")
}

/// CPU time of all threads so far, from the scheduler's own figures (nanoseconds, not ticks).
pub fn cpu_time(pid: u32) -> Duration {
    cpu_time_where(pid, |_| true)
}

/// The same of the threads with this name.
pub fn cpu_time_of(pid: u32, name: &str) -> Duration {
    cpu_time_where(pid, |thread| thread == name)
}

/// CPU time of all threads so far, in the program and in the kernel (proc(5), `utime` and `stime`; to the hundredth).
pub fn cpu_split(pid: u32) -> (Duration, Duration) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, behind_name) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let field =
        |n: usize| behind_name.split(' ').nth(n).and_then(|text| text.parse::<u64>().ok()).expect("a number of ticks");
    (Duration::from_millis(field(11) * 10), Duration::from_millis(field(12) * 10))
}

fn cpu_time_where(pid: u32, wanted: impl Fn(&str) -> bool) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let nanos = threads.flatten().filter_map(|thread| {
        let name = fs::read_to_string(thread.path().join("comm")).ok()?;
        if !wanted(name.trim_end()) {
            return None;
        }
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// How often its threads have gone to sleep so far, and been woken (proc(5), `voluntary_ctxt_switches`).
pub fn wake_ups(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let switches = threads.flatten().filter_map(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse::<u64>().ok()
    });
    switches.sum()
}

/// CPU time the process uses over `span`. The one measurement that has to let time pass.
pub fn cpu_time_over(pid: u32, span: Duration) -> Duration {
    let before = cpu_time(pid);
    std::thread::sleep(span);
    cpu_time(pid).saturating_sub(before)
}

/// What waits in the two queues of a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Queues {
    /// Sent and not yet acknowledged by the peer, in bytes.
    pub unacknowledged: u64,
    /// Received and not yet read, in bytes.
    pub unread: u64,
}

/// The queues of the connected socket with these addresses, in our network namespace.
pub fn queues(local: SocketAddr, peer: SocketAddr) -> Option<Queues> {
    let mut found = sockets().filter(|socket| socket.local == hex(local) && socket.peer == hex(peer));
    found.next().map(|socket| socket.queues)
}

/// What all connections of the server at `local` have received and not read, in bytes.
pub fn unread_at(local: SocketAddr) -> u64 {
    const LISTENS: &str = "0A";
    let served = sockets().filter(|socket| socket.local == hex(local) && socket.state != LISTENS);
    served.map(|socket| socket.queues.unread).sum()
}

/// A row of proc_net_tcp.
struct Row {
    local: String,
    peer: String,
    state: String,
    queues: Queues,
}

/// An IPv4 address as the table writes it.
fn hex(addr: SocketAddr) -> String {
    let SocketAddr::V4(addr) = addr else { panic!("only IPv4 is looked up") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port())
}

fn sockets() -> impl Iterator<Item = Row> {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let row = |line: &str| {
        let mut fields = line.split_whitespace().skip(1).map(str::to_owned);
        let (local, peer, state, both) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (tx, rx) = both.split_once(':')?;
        let bytes = |hex| u64::from_str_radix(hex, 16).ok();
        Some(Row { local, peer, state, queues: Queues { unacknowledged: bytes(tx)?, unread: bytes(rx)? } })
    };
    table.lines().filter_map(row).collect::<Vec<_>>().into_iter()
}

#[test]
fn queues_tells_what_a_peer_has_not_read() {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (server, _) = listener.accept().expect("accepts");
    client.write_all(&[0; 1000]).expect("fits");
    super::wait_until("the bytes are there", || {
        queues(server.local_addr().expect("bound"), server.peer_addr().expect("connected"))
            == Some(Queues { unacknowledged: 0, unread: 1000 })
    });
}
