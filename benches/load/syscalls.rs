//! Counts a proxy's system calls by the kernel's tracepoints. strace would stop the proxy at each call and so change
//! how it batches; a tracepoint only counts.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::figures::perf_counts;

const ALL: &str = "raw_syscalls:sys_enter";
/// What a proxy may call while it works. Not simply all: switching several hundred tracepoints on and off takes the
/// kernel many seconds on a busy machine. Patterns, since names differ between architectures.
const EACH: [&str; 28] = [
    "accept*",
    "bind",
    "brk",
    "clock_*",
    "close",
    "connect",
    "epoll_*",
    "fcntl",
    "futex*",
    "getsock*",
    "io_uring_*",
    "ioctl",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "p*poll",
    "pipe*",
    "read*",
    "recv*",
    "send*",
    "setsockopt",
    "shutdown",
    "socket*",
    "splice",
    "timerfd_*",
    "write*",
];

/// System calls per unit of work.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Syscalls {
    pub(crate) per_unit: f64,
    /// By name, from a second window; those below 0.005 are left out.
    pub(crate) by_name: BTreeMap<String, f64>,
}

/// Two windows, one for the sum and one for the single calls, since more tracepoints cost more time.
/// `units` lets a window pass and tells how many units were done in it.
pub(crate) fn count(
    pids: &[u32],
    directory: &Path,
    units: &mut dyn FnMut() -> Result<f64, String>,
) -> Result<Syscalls, String> {
    let (counts, done) = window(ALL, pids, directory, units)?;
    let all = counts.get(ALL).ok_or("perf counted nothing")?;
    let per_unit = *all as f64 / done;
    let patterns = EACH.map(|pattern| format!("syscalls:sys_enter_{pattern}"));
    let (counts, done) = window(&patterns.join(","), pids, directory, units)?;
    let by_name = counts.into_iter().filter_map(|(event, count)| {
        let per_unit = count as f64 / done;
        let name = event.strip_prefix("syscalls:sys_enter_")?.to_owned();
        (per_unit >= 0.005).then_some((name, per_unit))
    });
    let mut by_name: BTreeMap<String, f64> = by_name.collect();
    let others = per_unit - by_name.values().sum::<f64>();
    if others > 0.05 * per_unit {
        by_name.insert("others".to_owned(), others);
    }
    Ok(Syscalls { per_unit, by_name })
}

fn window(
    events: &str,
    pids: &[u32],
    directory: &Path,
    units: &mut dyn FnMut() -> Result<f64, String>,
) -> Result<(BTreeMap<String, u64>, f64), String> {
    let mut perf = Perf::start(events, pids, directory)?;
    perf.order("enable")?;
    let done = units()?;
    perf.order("disable")?;
    if done == 0.0 {
        return Err("no unit of work was done while perf counted".to_owned());
    }
    Ok((perf.finish()?, done))
}

/// `perf stat`, told over named pipes when to count, so that its window is exactly ours.
struct Perf {
    child: Child,
    orders: File,
    answers: File,
    output: std::path::PathBuf,
}

impl Perf {
    fn start(events: &str, pids: &[u32], directory: &Path) -> Result<Self, String> {
        let pipe = |name: &str| -> Result<(String, File), String> {
            let path = directory.join(name);
            let _ = fs::remove_file(&path); // of the window before
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|err| format!("{}: {err}", path.display()))?;
            // Open both ways: neither side waits for the other.
            let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path);
            Ok((path.display().to_string(), file.map_err(|err| format!("{}: {err}", path.display()))?))
        };
        let (orders_path, orders) = pipe("perf-orders")?;
        let (answers_path, answers) = pipe("perf-answers")?;
        let output = directory.join("perf.csv");
        let log = File::create(directory.join("perf.log")).map_err(|err| format!("perf.log: {err}"))?;
        let list: Vec<String> = pids.iter().map(u32::to_string).collect();
        let child = Command::new("perf")
            .args(["stat", "-x", ";", "-D", "-1", "-e", events, "-p", &list.join(",")])
            .arg(format!("--control=fifo:{orders_path},{answers_path}"))
            .arg("-o")
            .arg(&output)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|err| format!("perf cannot be started ({err})"))?;
        Ok(Self { child, orders, answers, output })
    }

    /// Gives an order and waits until perf has obeyed it.
    fn order(&mut self, order: &str) -> Result<(), String> {
        writeln!(self.orders, "{order}").map_err(|err| format!("perf: {err}"))?;
        let end = Instant::now() + Duration::from_secs(20);
        let mut buffer = [0; 64];
        while Instant::now() < end {
            match self.answers.read(&mut buffer) {
                Ok(count) if count > 0 => return Ok(()),
                Err(err) if err.kind() != ErrorKind::WouldBlock => {
                    return Err(format!("perf: {err}"));
                }
                _ => {}
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let said = fs::read_to_string(self.output.with_file_name("perf.log")).unwrap_or_default();
                return Err(format!("perf ended ({status}): {}", said.trim().replace('\n', " / ")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(format!("perf does not answer to {order:?}"))
    }

    fn finish(mut self) -> Result<BTreeMap<String, u64>, String> {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT); // how one ends perf stat
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if self.child.try_wait().map_err(|err| format!("perf: {err}"))?.is_some() {
                let text = fs::read_to_string(&self.output).map_err(|err| format!("perf's output: {err}"))?;
                return Ok(perf_counts(&text));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("perf does not end".to_owned())
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
