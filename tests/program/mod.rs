//! Runs the real binary and the scripts: to their end, or in the background until the test is done with them.
//! Whatever does not come within [`LIMIT`] fails the test instead of hanging it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// Far more than anything here takes, on a busy machine too.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

const BINARY: &str = env!("CARGO_BIN_EXE_l4lb");

/// The folder of the project; programs run in it.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root()).env("L4LB", BINARY).stdin(Stdio::null());
    command
}

/// Runs l4lb to its end: exit code, standard output, standard error.
pub(crate) fn run(args: &[&str]) -> (i32, String, String) {
    finish(command(BINARY, args))
}

/// Runs a line as if pasted into bash; L4LB in its environment is the binary.
pub(crate) fn shell(line: &str) -> (i32, String, String) {
    finish(command("bash", &["-c", line]))
}

fn finish(mut command: Command) -> (i32, String, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (id, (tell, told)) = (child.id(), mpsc::channel());
    thread::spawn(move || tell.send(child.wait_with_output()));
    let Ok(output) = told.recv_timeout(LIMIT) else {
        signal(id, "KILL");
        panic!("{command:?} does not end");
    };
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &id.to_string()]).status().unwrap();
    assert!(sent.success(), "kill -s {name} {id}");
}

/// `NAME listening on ADDRESS`.
pub(crate) fn address(line: &str) -> SocketAddr {
    let address = line.split_once(" listening on ").unwrap_or_else(|| panic!("no address in {line:?}")).1;
    address.parse().unwrap()
}

/// A program in the background; ended when it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts l4lb.
    pub(crate) fn start(args: &[&str]) -> Running {
        Running::spawn(command(BINARY, args))
    }

    /// Starts a script of scripts/.
    pub(crate) fn script(name: &str, args: &[&str]) -> Running {
        Running::spawn(command(root().join("scripts").join(name).to_str().unwrap(), args))
    }

    /// Starts a line as if pasted into bash; L4LB in its environment is the binary.
    pub(crate) fn bash(line: &str) -> Running {
        Running::spawn(command("bash", &["-c", line]))
    }

    /// Starts l4lb and waits for the line that tells where it listens.
    pub(crate) fn listening(args: &[&str]) -> (Running, SocketAddr) {
        let running = Running::start(args);
        let address = address(&running.line());
        (running, address)
    }

    fn spawn(mut command: Command) -> Running {
        // Standard error is that of the test: shown when it fails.
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Running { child, lines }
    }

    /// The next line of its standard output.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("a line of output")
    }

    /// Waits until nobody writes to its standard output any more.
    pub(crate) fn rest(&self) {
        let until = Instant::now() + LIMIT;
        while self.lines.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok() {}
        assert!(Instant::now() < until, "something still writes");
    }

    /// Sends a signal and waits for the end: the exit code.
    pub(crate) fn end(&mut self, name: &str) -> i32 {
        signal(self.child.id(), name);
        self.wait()
    }

    /// Waits for the end: the exit code, or -1 when a signal ended it.
    pub(crate) fn wait(&mut self) -> i32 {
        let (id, (done, over)) = (self.child.id(), mpsc::channel::<()>());
        let guard = thread::spawn(move || {
            if over.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                signal(id, "KILL");
            }
        });
        let status = self.child.wait().unwrap();
        drop(done);
        guard.join().unwrap();
        status.code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Not KILL: a script ends what it has started.
            let _ = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
            self.wait();
        }
    }
}
