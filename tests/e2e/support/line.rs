//! A balancer that is replaced while it runs, by SIGUSR2, as often as a test likes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::l4lb::binary;
use super::{L4lb, wait_until};

/// A balancer that may be replaced, any number of times: its file, its own copy of the binary, and who serves now.
pub struct Line {
    pub lb: L4lb,
    /// The processes, the one that serves last.
    pub processes: Vec<u32>,
    dir: TempDir,
}

impl Line {
    /// Starts with a file of this text.
    pub fn start(toml: &str) -> Line {
        Self::start_with(toml, |_| ())
    }

    pub fn start_with(toml: &str, more: impl FnOnce(&mut Command)) -> Line {
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("l4lb");
        copy(&binary(), &program);
        std::fs::write(dir.path().join("lb.toml"), toml).expect("ours");
        let mut command = Command::new("./l4lb");
        command.args(["-c", "lb.toml"]).current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        more(&mut command);
        let lb = L4lb::start_with_flags(command).unwrap_or_else(|said| panic!("{toml}\nit said\n{said}"));
        let first = lb.pid();
        Line { lb, processes: vec![first], dir }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes its file anew, as a whole.
    pub fn write_file(&self, toml: &str) {
        std::fs::write(self.file("new.toml"), toml).expect("ours");
        std::fs::rename(self.file("new.toml"), self.file("lb.toml")).expect("ours");
    }

    /// How many reloads the log tells of.
    pub fn reloads(&self) -> usize {
        self.lb.log().iter().filter(|line| line.contains("reloaded: ")).count()
    }

    /// Has the one that serves read its file again; the line that tells what has changed.
    pub fn reload(&self) -> String {
        let told = || self.lb.log().into_iter().filter(|line| line.contains("reload")).map(|line| line + "\n");
        let is_over = |line: &String| line.contains("reloaded: ") || line.contains("reload: nothing is changed");
        let before = told().filter(is_over).count();
        self.signal(self.serving(), Signal::SIGHUP);
        let mut last = None;
        wait_until("the log tells of a reload", || {
            last = told().filter(is_over).nth(before);
            last.is_some()
        });
        last.filter(|line| line.contains("reloaded: ")).unwrap_or_else(|| panic!("{}", told().collect::<String>()))
    }

    pub fn serving(&self) -> u32 {
        *self.processes.last().expect("the first")
    }

    pub fn signal(&self, process: u32, signal: Signal) {
        kill(Pid::from_raw(process as i32), signal).unwrap_or_else(|e| panic!("{signal} to {process}: {e}"));
    }

    /// Replaces the one that serves; the new one.
    pub fn upgrade(&mut self) -> u32 {
        let nth = self.processes.len();
        let failures = |log: &[String]| log.iter().filter(|line| line.contains("upgrade has failed")).count();
        let failed = failures(&self.lb.log());
        self.signal(self.serving(), Signal::SIGUSR2);
        let mut next = None;
        wait_until("another process serves", || {
            let log = self.lb.log();
            assert_eq!(failures(&log), failed, "{}", log.join("\n"));
            next = log.iter().filter_map(|line| successor(line)).nth(nth - 1);
            next.is_some()
        });
        let next = next.expect("just waited for");
        self.processes.push(next);
        next
    }

    /// Asks for what must fail; the line that says so.
    pub fn fail_to_upgrade(&self) -> String {
        let failures = || self.lb.log().into_iter().filter(|line| line.contains("upgrade has failed"));
        let before = failures().count();
        self.signal(self.serving(), Signal::SIGUSR2);
        wait_until("the upgrade has failed", || failures().count() > before);
        failures().next_back().expect("just waited for")
    }

    /// Ends the one that serves, and waits for all.
    pub fn end(mut self) {
        self.end_all();
    }

    /// The same; what each process says of itself at its end.
    pub fn end_and_tell(mut self) -> Vec<String> {
        self.end_all();
        self.lb.wait_for_exit();
        let told = || self.lb.log().into_iter().filter(|line| line.contains(" served "));
        wait_until("each has told what it served", || told().count() >= self.processes.len());
        told().collect()
    }

    pub fn end_all(&mut self) {
        let last = self.serving();
        if !is_gone(last) {
            self.signal(last, Signal::SIGTERM);
        }
        for process in &self.processes {
            wait_until("a process has ended", || *process == self.lb.pid() || is_gone(*process));
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if thread::panicking() {
            // The first is ended, and its words are told, by who started it.
            for process in &self.processes[1..] {
                let _ = kill(Pid::from_raw(*process as i32), Signal::SIGKILL);
            }
        } else {
            self.end_all();
        }
    }
}

/// Puts a program of these bytes in the place of `file`, as a package manager does.
pub fn install(file: &Path, bytes: &[u8]) {
    let (text, fresh) = (file.with_extension("text"), file.with_extension("fresh"));
    std::fs::write(&text, bytes).expect("ours");
    copy(&text, &fresh);
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::rename(&fresh, file).expect("the same directory");
}

/// Not by this process: another test may be starting a program just then, which has what we write open for a moment, and
/// nobody can start a program that is open to be written.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg(from).arg(to).status().expect("every system has cp");
    assert!(done.success(), "{} cannot be copied to {}", from.display(), to.display());
}

/// The process that a line of the log says to serve now.
pub fn successor(line: &str) -> Option<u32> {
    let (before, _) = line.split_once(" serves in place of this one;")?;
    before.rsplit(' ').next()?.parse().ok()
}

/// Whether a process has ended; who its parent was may not have asked yet.
pub fn is_gone(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

/// The address of a listener, from the log: `start_with_flags` waits for the first alone.
pub fn addr_of(line: &Line, name: &str) -> SocketAddr {
    let mut found = None;
    let words = format!("listener {name} on ");
    wait_until("the listener has told its address", || {
        let log = line.lb.log();
        found = log.iter().find_map(|line| line.split_once(&words)?.1.split(' ').next()?.parse().ok());
        found.is_some()
    });
    found.expect("just waited for")
}
