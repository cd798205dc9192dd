//! Real servers and the tools that drive them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use super::l4lb::binary;
use super::ports::free_port;
use super::{PATIENCE, wait_until};

/// A server program with its own directory, ended by its id when it goes out of scope.
pub struct Program {
    pub addr: SocketAddr,
    child: Child,
    stop: Signal,
    /// Starts it at this port, with this directory; `None` when that does not work.
    attempt: Attempt,
    dir: TempDir,
}

type Attempt = Box<dyn FnMut(u16, &Path) -> Option<Child> + Send>;

impl Program {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("it is our child");
    }

    /// Ends it without a warning, and waits until nothing is left of it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("it is our child");
    }

    /// Starts it again after [`Program::kill`], with the same directory at the same port.
    pub fn start_again(&mut self) {
        // what it left behind may bar the way for a moment
        wait_until("it runs again", || {
            let started = (self.attempt)(self.addr.port(), self.dir.path());
            started.map(|child| self.child = child).is_some()
        });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return; // its id may be another's by now
        }
        let _ = kill(Pid::from_raw(self.child.id() as i32), self.stop);
        // one that was stopped ends only once it goes on
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGCONT);
        let until = Instant::now() + Duration::from_secs(10);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts a program that cannot tell its port: on one that is free, on another when that was taken meanwhile.
fn start(name: &str, stop: Signal, attempt: impl FnMut(u16, &Path) -> Option<Child> + Send + 'static) -> Program {
    let mut attempt: Attempt = Box::new(attempt);
    for _ in 0..10 {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("it is ours");
        let port = free_port();
        if let Some(child) = attempt(port, dir.path()) {
            return Program { addr: SocketAddr::from(([127, 0, 0, 1], port)), child, stop, attempt, dir };
        }
    }
    panic!("{name} did not start on any of ten ports");
}

/// Waits until the child says `ready` in `output`; kills it when it ends or is silent instead.
fn ready_when_it_says(ready: &'static str, mut child: Child, output: impl Read + Send + 'static) -> Option<Child> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|n| n > 0) {
            if line.contains(ready) {
                let _ = tell.send(());
            }
            line.clear(); // and go on reading, so that the program can go on writing
        }
    });
    match told.recv_timeout(PATIENCE) {
        Ok(()) => Some(child),
        Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {
            let _ = child.kill();
            let _ = child.wait();
            None
        }
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null());
    command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}; scripts/test installs what is missing"))
}

/// A redis that keeps nothing on disk.
pub fn redis() -> Program {
    start("redis-server", Signal::SIGTERM, |port, dir| {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(dir).args(["--tcp-backlog", "1024"]).stdout(Stdio::piped());
        let mut child = spawn(&mut command);
        let output = child.stdout.take().expect("piped");
        ready_when_it_says("Ready to accept connections", child, output)
    })
}

/// Where the programs of PostgreSQL are: on PATH, or in Debian's directory of the newest version.
pub fn postgres_bin(name: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = debian.map(|entry| entry.path().join("bin").join(name)).filter(|p| p.exists()).collect();
    found.sort_by_key(|path| path.components().rev().nth(2).and_then(|v| v.as_os_str().to_str()?.parse::<u32>().ok()));
    found.pop().unwrap_or_else(|| name.into())
}

/// A fresh PostgreSQL cluster; its superuser is `l4lb`, everyone is trusted.
pub fn postgres() -> Program {
    start("postgres", Signal::SIGINT, |port, dir| {
        let data = dir.join("data");
        let is_new = std::fs::create_dir(&data).is_ok();
        // postgres refuses to run as root
        let as_user = |program: &str| {
            if !geteuid().is_root() {
                return Command::new(postgres_bin(program));
            }
            let named = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
            let user = named.expect("a user besides root");
            for path in [dir, &data] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("we are root");
            }
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)]);
            command.arg("--clear-groups").arg("--").arg(postgres_bin(program));
            command
        };
        if is_new {
            let mut initdb = as_user("initdb");
            initdb.args(["--no-sync", "--auth=trust", "--username=l4lb", "--encoding=UTF8", "--locale=C", "-D"]);
            run(initdb.arg(&data).current_dir(dir));
        }
        let mut command = as_user("postgres");
        command.arg("-D").arg(&data).current_dir(dir).stderr(Stdio::piped());
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=16MB", "logging_collector=off"] {
            command.args(["-c", setting]);
        }
        command.args(["-c", &format!("port={port}"), "-c"]).arg(format!("unix_socket_directories={}", dir.display()));
        let mut child = spawn(&mut command);
        let output = child.stderr.take().expect("piped");
        ready_when_it_says("database system is ready to accept connections", child, output)
    })
}

/// An nginx with a page of its own: `/` answers `hello`, and `/file` with what `file` holds; PUT below `/up/`.
pub fn nginx(file: &[u8]) -> Program {
    nginx_with(file, "worker_processes 1")
}

/// The same as one process, so that a signal to it stops or ends all of it.
pub fn nginx_alone(file: &[u8]) -> Program {
    nginx_with(file, "master_process off")
}

fn nginx_with(file: &[u8], processes: &'static str) -> Program {
    let file = file.to_vec();
    start("nginx", Signal::SIGTERM, move |port, dir| {
        std::fs::write(dir.join("file"), &file).expect("the directory is ours");
        // its workers are another user's when we are root
        std::fs::create_dir_all(dir.join("up")).expect("the directory is ours");
        std::fs::set_permissions(dir.join("up"), PermissionsExt::from_mode(0o777)).expect("it is ours");
        let here = dir.display();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\n{processes};\npid {here}/pid;\nerror_log {here}/error.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n{temp}access_log off;\nkeepalive_requests 1000000;\nserver {{\nlisten 127.0.0.1:{port};\n\
             add_header x-port {port};\nlocation = / {{ return 200 \"hello\"; }}\nlocation = /file {{ root {here}; }}\n\
             location /up/ {{ root {here}; dav_methods PUT; client_max_body_size 100m; }}\n}}\n}}\n"
        );
        std::fs::write(dir.join("nginx.conf"), config).expect("the directory is ours");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(dir.join("nginx.conf")).arg("-p").arg(dir).stderr(Stdio::null());
        let mut child = spawn(&mut command);
        let mut up = false;
        wait_until("nginx answers or ends", || {
            up = nginx_answers(port);
            up || child.try_wait().expect("it is our child").is_some()
        });
        up.then_some(child)
    })
}

/// An application on aiohttp, in Debian's python3: what `app.py` says.
pub fn aiohttp() -> Program {
    start("aiohttp", Signal::SIGTERM, |port, dir| {
        std::fs::write(dir.join("app.py"), include_str!("app.py")).expect("the directory is ours");
        std::fs::write(dir.join("file"), super::Pattern { seed: 61 }.bytes(0, 3_000_000)).expect("the same");
        // the one that has Debian's packages, whatever else is on PATH
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-I", "-u"]).arg(dir.join("app.py")).arg(port.to_string()).current_dir(dir);
        let mut child = spawn(command.stdout(Stdio::piped()));
        let output = child.stdout.take().expect("piped");
        ready_when_it_says("Running on", child, output)
    })
}

/// A DNS server that knows a zone of its own, `test.`, and asks nobody.
pub fn unbound() -> Program {
    start("unbound", Signal::SIGTERM, start_unbound)
}

fn start_unbound(port: u16, dir: &Path) -> Option<Child> {
    let here = dir.display();
    let config = format!(
        "server:\nverbosity: 1\ninterface: 127.0.0.1\nport: {port}\ndo-daemonize: no\ndo-ip6: no\n\
         use-syslog: no\nlogfile: \"\"\nchroot: \"\"\nusername: \"\"\ndirectory: \"{here}\"\npidfile: \"{here}/pid\"\n\
         num-threads: 1\nmodule-config: \"iterator\"\nlocal-zone: \"test.\" static\n\
         local-data: \"h0.test. 60 IN A 192.0.2.1\"\nlocal-data: \"h1.test. 60 IN A 192.0.2.2\"\n\
         local-data: 'h2.test. 60 IN TXT \"a text of some length\"'\nremote-control:\ncontrol-enable: no\n"
    );
    std::fs::write(dir.join("unbound.conf"), config).expect("the directory is ours");
    let mut command = Command::new("unbound");
    command.arg("-d").arg("-c").arg(dir.join("unbound.conf")).stderr(Stdio::piped());
    let mut child = spawn(&mut command);
    let output = child.stderr.take().expect("piped");
    ready_when_it_says("start of service", child, output)
}

/// An iperf3 server: TCP for what it agrees with its client, UDP for the stream, at one port.
pub fn iperf3() -> Program {
    start("iperf3", Signal::SIGTERM, |port, _| {
        let mut command = Command::new("iperf3");
        command.args(["--server", "--bind", "127.0.0.1", "--port", &port.to_string(), "--forceflush"]);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let output = child.stdout.take().expect("piped");
        ready_when_it_says("Server listening", child, output)
    })
}

/// The example backend that l4lb brings along, over HTTP.
pub fn backend() -> Program {
    start("l4lb backend", Signal::SIGTERM, |port, _| {
        let mut command = Command::new(binary());
        command.args(["backend", "--port", &port.to_string()]);
        // when its port is taken it says so and ends
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let output = child.stdout.take().expect("piped");
        ready_when_it_says("listening on", child, output)
    })
}

/// Whether it is our nginx that answers there.
fn nginx_answers(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(&format!("x-port: {port}")))
}

/// Runs a tool to its end, which must be a success; what it wrote to standard output and standard error.
pub fn run(command: &mut Command) -> (String, String) {
    run_with_input(command, b"")
}

/// The same, with something to read on standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> (String, String) {
    // `timeout` bounds it, so that a stream that stalls ends the test and not the patience of a person
    let mut bounded = Command::new("timeout");
    bounded.arg("120").arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        bounded.current_dir(dir);
    }
    bounded.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = bounded.spawn().unwrap_or_else(|e| panic!("{bounded:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("it is our child")
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{out}\n{err}", output.status);
    (out, err)
}
