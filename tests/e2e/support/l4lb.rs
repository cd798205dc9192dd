//! The real program: started with a file of its own, watched, asked to end, and held to exit code 0.

use std::ffi::{OsStr, OsString};
use std::fmt::{Display, Write as _};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{PATIENCE, wait_until};

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("L4LB").map_or_else(|| env!("CARGO_BIN_EXE_l4lb").into(), PathBuf::from)
}

/// A configuration with one listener and one pool, both named for what they are: `in` and `out`.
///
/// Health checks are off: the tests count what backends see.
#[derive(Clone, Debug)]
pub struct Setup {
    pub global: String,
    pub protocol: &'static str,
    pub bind: String,
    pub listener: String,
    pub pool: String,
    pub backends: String,
    /// What runs l4lb, itself with arguments before the program's path; empty: nothing.
    pub wrapper: Vec<OsString>,
}

impl Setup {
    /// Two workers, 127.0.0.1, no backend, a drain that does not outlast anyone's patience.
    pub fn new() -> Self {
        Setup {
            global: "workers = 2\nshutdown_timeout = \"5s\"\n".into(),
            protocol: "tcp",
            bind: "\"127.0.0.1:0\"".into(),
            listener: String::new(),
            pool: String::new(),
            backends: String::new(),
            wrapper: Vec::new(),
        }
    }

    /// The usual: everything goes to `address`.
    pub fn to(address: impl Display) -> Self {
        Setup::new().backend(address)
    }

    /// The same for HTTP.
    pub fn http(address: impl Display) -> Self {
        Setup { protocol: "http", ..Setup::to(address) }
    }

    /// The same for UDP.
    pub fn udp(address: impl Display) -> Self {
        Setup { protocol: "udp", ..Setup::to(address) }
    }

    /// Replaces what `[global]` says, wholly.
    pub fn global(mut self, lines: &str) -> Self {
        self.global = lines.into();
        self
    }

    pub fn listener(mut self, lines: &str) -> Self {
        self.listener = lines.into();
        self
    }

    pub fn bind(mut self, toml_value: &str) -> Self {
        self.bind = toml_value.into();
        self
    }

    pub fn pool(mut self, lines: &str) -> Self {
        self.pool = lines.into();
        self
    }

    pub fn backend(self, address: impl Display) -> Self {
        self.backend_with(address, "")
    }

    pub fn backend_with(mut self, address: impl Display, lines: &str) -> Self {
        write!(self.backends, "[[pool.backend]]\naddress = \"{address}\"\n{lines}\n").expect("a string grows");
        self
    }

    pub fn wrapped<S: Into<OsString>>(mut self, wrapper: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    pub fn toml(&self) -> String {
        let Setup { global, protocol, bind, listener, pool, backends, .. } = self;
        format!(
            "[global]\n{global}\n[[listener]]\nname = \"in\"\nprotocol = \"{protocol}\"\nbind = {bind}\npool = \"out\"\n{listener}\n\
             [[pool]]\nname = \"out\"\nhealth_check = {{ kind = \"none\" }}\n{pool}\n{backends}"
        )
    }

    pub fn start(self) -> L4lb {
        L4lb::start(command(&self.wrapper), &self.toml())
    }
}

/// The program, run by `wrapper` when there is one.
pub fn command(wrapper: &[OsString]) -> Command {
    let mut command = match wrapper {
        [] => Command::new(binary()),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(binary());
            command
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// What the process has written to standard error so far.
#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Log {
    fn read_from(self: Arc<Self>, source: impl Read + Send + 'static) {
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                self.lines.lock().expect("never poisoned").0.push(text);
                self.grown.notify_all();
                line.clear();
            }
            self.lines.lock().expect("never poisoned").1 = true;
            self.grown.notify_all();
        });
    }

    fn text(&self) -> String {
        self.lines.lock().expect("never poisoned").0.join("\n")
    }

    /// Waits until `enough` finds what it looks for; `None` when the process ends before, or it takes too long.
    fn wait<T>(&self, mut enough: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().expect("never poisoned");
        loop {
            if let Some(found) = enough(&lines.0) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                return None;
            }
            lines = self.grown.wait_timeout(lines, left).expect("never poisoned").0;
        }
    }
}

/// A running l4lb. When it goes out of scope it is asked to end, and must do so cleanly.
pub struct L4lb {
    child: Child,
    log: Arc<Log>,
    listeners: Vec<(String, SocketAddr)>,
    ended: Option<ExitStatus>,
    killed: bool,
    dir: Option<TempDir>,
}

impl L4lb {
    /// Starts `command` with `-c` and a file of this text, and waits until every listener has told its address.
    pub fn start(command: Command, toml: &str) -> L4lb {
        Self::attempt(command, toml).unwrap_or_else(|said| panic!("l4lb did not start with\n{toml}\nit said\n{said}"))
    }

    /// The same where a failure is nothing strange: the file names a port that somebody else may have taken.
    ///
    /// # Errors
    /// What the program said, when it ended instead.
    pub fn attempt(mut command: Command, toml: &str) -> Result<L4lb, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("lb.toml");
        std::fs::write(&file, toml).expect("the file can be written");
        command.arg("-c").arg(&file);
        let expected = binds(toml);
        let complete = |told: &[(String, SocketAddr)]| {
            expected.iter().all(|(name, n)| told.iter().filter(|(told, _)| told == name).count() >= *n)
        };
        Self::launch(command, Some(dir), complete)
    }

    /// Starts `command` with `-c` and a file of this text, which sends the log elsewhere: waits for nothing, and knows no
    /// address.
    pub fn start_unheard(mut command: Command, toml: &str) -> L4lb {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("lb.toml");
        std::fs::write(&file, toml).expect("the file can be written");
        command.arg("-c").arg(&file);
        Self::launch(command, Some(dir), |_| true).expect("nothing is waited for")
    }

    /// Starts `command` as it is, and waits until a listener has told its address.
    ///
    /// # Errors
    /// What the program said, when it ended instead.
    pub fn start_with_flags(command: Command) -> Result<L4lb, String> {
        Self::launch(command, None, |told| !told.is_empty())
    }

    fn launch(
        mut command: Command,
        dir: Option<TempDir>,
        complete: impl Fn(&[(String, SocketAddr)]) -> bool,
    ) -> Result<L4lb, String> {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        drop(command); // and with it what it passes on
        let log = Arc::new(Log::default());
        log.clone().read_from(child.stderr.take().expect("piped"));
        let up = log.wait(|lines| Some(addresses(lines)).filter(|told| complete(told)));
        let Some(listeners) = up else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(log.text());
        };
        Ok(L4lb { child, log, listeners, ended: None, killed: false, dir })
    }

    /// Where the first listener is.
    pub fn addr(&self) -> SocketAddr {
        self.listeners[0].1
    }

    /// Where the listener `name` is.
    pub fn addr_of(&self, name: &str) -> SocketAddr {
        self.listeners.iter().find(|(told, _)| told == name).unwrap_or_else(|| panic!("no listener {name}")).1
    }

    /// All addresses, in the order told.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(_, addr)| *addr).collect()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines.lock().expect("never poisoned").0.clone()
    }

    /// Waits until a line of the log is as `wanted` says.
    pub fn wait_for_log(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let found = self.log.wait(|lines| lines.iter().any(|line| wanted(line)).then_some(()));
        assert!(found.is_some(), "the log does not say {what}:\n{}", self.log.text());
    }

    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "l4lb has ended already");
        kill(Pid::from_raw(self.pid() as i32), signal).expect("it is our child and still there");
    }

    /// Ends it as a crash does: by SIGKILL, at once.
    pub fn kill(mut self) {
        self.killed = true;
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Writes its file anew, as a whole.
    pub fn write_file(&self, toml: &str) {
        let dir = self.dir.as_ref().expect("it was started with a file").path();
        std::fs::write(dir.join("new.toml"), toml).expect("the file can be written");
        std::fs::rename(dir.join("new.toml"), dir.join("lb.toml")).expect("and takes the place of the other");
    }

    /// The lines of the log so far that tell how a reload went, without the time.
    pub fn reloads(&self) -> Vec<String> {
        let told = |line: String| Some(line[line.find("reload")?..].to_owned());
        self.log().into_iter().filter_map(told).collect()
    }

    /// Reloads with `toml`, and returns what the log says of it: a line, or every error.
    pub fn reload(&self, toml: &str) -> Vec<String> {
        self.write_file(toml);
        self.reload_as_it_is()
    }

    /// Reloads its file, and returns what the log says of it.
    pub fn reload_as_it_is(&self) -> Vec<String> {
        let before = self.reloads().len();
        self.signal(Signal::SIGHUP);
        let is_over = |line: &String| line.starts_with("reloaded") || line.contains("nothing is changed");
        wait_until("the log tells of a reload", || self.reloads()[before..].iter().any(is_over));
        self.reloads().split_off(before)
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        wait_until("l4lb has ended", || {
            self.ended = self.child.try_wait().expect("it is our child");
            self.ended.is_some()
        });
        self.ended.expect("just waited for")
    }

    pub fn is_running(&mut self) -> bool {
        self.ended = self.ended.or_else(|| self.child.try_wait().expect("it is our child"));
        self.ended.is_none()
    }
}

impl Drop for L4lb {
    fn drop(&mut self) {
        if self.killed {
            return;
        }
        if std::thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            eprintln!("l4lb said:\n{}", self.log.text());
            return;
        }
        if self.is_running() {
            self.signal(Signal::SIGTERM);
        }
        let until = Instant::now() + PATIENCE;
        while self.is_running() {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("l4lb did not end {PATIENCE:?} after SIGTERM; it said\n{}", self.log.text());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = self.ended.expect("it is not running");
        let log = self.log.text();
        assert!(status.success(), "l4lb ended with {status}; it said\n{log}");
        assert!(!log.contains("panicked"), "l4lb panicked; it said\n{log}");
    }
}

/// A run with these arguments that is expected to end by itself: its exit code and what it wrote to standard error.
pub fn run_to_end<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> (Option<i32>, String) {
    run_command_to_end(Command::new(binary()).args(args).stdin(Stdio::null()).stdout(Stdio::null()))
}

/// A run that is expected to end by itself: its exit code and what it wrote to standard error.
pub fn run_command_to_end(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let log = Arc::new(Log::default());
    log.clone().read_from(child.stderr.take().expect("piped"));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    log.wait(|_| None::<()>);
    (status.code(), log.text())
}

/// How many addresses each listener of the file binds, at least.
fn binds(toml: &str) -> Vec<(String, usize)> {
    let table: toml::Table = toml.parse().unwrap_or_else(|e| panic!("the test's own file is wrong: {e}\n{toml}"));
    let listeners = table["listener"].as_array().expect("an array of tables");
    let bind = |l: &toml::Value| l["bind"].as_array().map_or(1, Vec::len);
    listeners.iter().map(|l| (l["name"].as_str().expect("a name").to_owned(), bind(l))).collect()
}

/// The listeners that the log names, in its order, each address once.
fn addresses(lines: &[String]) -> Vec<(String, SocketAddr)> {
    let mut told = Vec::new();
    for line in lines {
        let parsed = line.split_once("listener ").and_then(|(_, rest)| {
            let (name, rest) = rest.split_once(" on ")?;
            let address = rest.split_whitespace().next()?.trim_end_matches([',', ';', '.']);
            Some((name.trim_matches(['"', '`', '\'']).to_owned(), address.parse().ok()?))
        });
        if let Some(parsed) = parsed.filter(|parsed| !told.contains(parsed)) {
            told.push(parsed);
        }
    }
    told
}
