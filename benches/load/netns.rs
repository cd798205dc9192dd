//! Where the run takes place: a network namespace of its own, so that the machine's congestion control, ports and
//! sockets in TIME_WAIT do not weigh in. The harness makes it, runs itself again inside, and removes it at the end,
//! however that comes: a panic and the usual signals included.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Inside the namespace the harness is started with this word and the namespace's name before its own arguments.
pub(crate) const INSIDE: &str = "role:inside";
/// Allowed everywhere, and cheap on loopback: the machine's default may be one that hides the proxy (BBR does).
pub(crate) const CONGESTION: &str = "reno";

/// What is set in the namespace, each with its reason.
const SETTINGS: [(&str, &str, &str); 5] = [
    ("net/ipv4/tcp_congestion_control", CONGESTION, "the same for everybody"),
    ("net/core/somaxconn", "65535", "no connection is refused for a short queue"),
    ("net/ipv4/ip_local_port_range", "10240 65535", "ports for many short connections; the harness listens below"),
    ("net/ipv4/tcp_tw_reuse", "1", "a port in TIME_WAIT may be used again after a second"),
    ("net/ipv4/tcp_max_tw_buckets", "1048576", "TIME_WAIT is never cut short, which would end in resets"),
];

/// Set by SIGINT, SIGTERM and SIGHUP.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn watch() -> Result<Self, String> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(|err| format!("signals: {err}"))?;
        }
        Ok(Self(flag))
    }

    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets `time` pass, in slices, so that a signal ends it.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        loop {
            if self.came() {
                return Err("interrupted".to_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

/// The place of the run, as told with the result.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Place {
    /// `None`: plain loopback.
    pub(crate) namespace: Option<String>,
    /// What the kernel uses for sockets that ask for nothing.
    pub(crate) congestion_control: String,
    /// What was set, and what could not be.
    pub(crate) settings: Vec<String>,
}

impl Place {
    /// Inside a namespace: sets what is to be set, and looks whether it took.
    pub(crate) fn namespace(name: &str) -> Result<Self, String> {
        let mut settings = Vec::new();
        for (key, value, why) in SETTINGS {
            let path = format!("/proc/sys/{key}");
            let name = key.replace('/', ".");
            match fs::write(&path, value) {
                Ok(()) => settings.push(format!("{name} = {value} ({why})")),
                Err(err) if key.ends_with("tcp_congestion_control") => {
                    return Err(format!("{path}: {err}"));
                }
                Err(err) => settings.push(format!("{name} stays as it is: {err}")),
            }
        }
        Ok(Self { namespace: Some(name.to_owned()), congestion_control: system_congestion(), settings })
    }

    /// The machine's own loopback.
    pub(crate) fn loopback() -> Self {
        Self { namespace: None, congestion_control: system_congestion(), settings: Vec::new() }
    }

    /// A directory for what this run writes; not yet there.
    pub(crate) fn directory(&self) -> PathBuf {
        std::env::temp_dir().join(self.namespace.clone().unwrap_or_else(own_name))
    }

    /// What the load's own sockets have to ask for, where the system's default cannot be changed.
    pub(crate) fn congestion_of_load(&self) -> Option<&'static str> {
        (self.namespace.is_none() && self.congestion_control != CONGESTION).then_some(CONGESTION)
    }

    /// `count` TCP ports of 127.0.0.1 that are free, and for UDP most probably too. In a namespace of our own nobody else takes any, and those below
    /// the local range are never a connection's; elsewhere the kernel is asked.
    pub(crate) fn free_ports(&self, count: usize, first: u16) -> Result<Vec<u16>, String> {
        if self.namespace.is_some() {
            return Ok((0..count as u16).map(|index| first + index).collect());
        }
        let all = || -> std::io::Result<Vec<u16>> {
            let open: Vec<std::net::TcpListener> =
                (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
            open.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
        };
        all().map_err(|err| format!("no free ports: {err}"))
    }
}

fn system_congestion() -> String {
    let path = "/proc/sys/net/ipv4/tcp_congestion_control";
    fs::read_to_string(path).map_or_else(|err| format!("unknown ({err})"), |text| text.trim().to_owned())
}

/// The name of this run's namespace and directory.
fn own_name() -> String {
    format!("l4lb-bench-{}", std::process::id())
}

/// Removes the namespace, and ends what still runs in it, when dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    fn create() -> Result<Self, String> {
        let name = own_name();
        ip(&["netns", "add", &name])?;
        let made = Self { name }; // from here on it is removed on every way out
        ip(&["-n", &made.name, "link", "set", "lo", "up"])?;
        // Whether one may enter it, too.
        ip(&["netns", "exec", &made.name, "true"])?;
        Ok(made)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The run removes its directory itself, unless it was killed.
        let _ = fs::remove_dir_all(std::env::temp_dir().join(&self.name));
        // Only what was started in it runs in it. All this may fail harmlessly when nothing is left.
        for pid in ip(&["netns", "pids", &self.name]).unwrap_or_default().split_ascii_whitespace() {
            if let Ok(pid) = pid.parse() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if let Err(why) = ip(&["netns", "del", &self.name]) {
            eprintln!("the namespace {} stays behind: {why}; remove it with `ip netns del`", self.name);
        }
    }
}

/// Runs `inside` in a namespace of its own by starting this program again in it; on plain loopback where that is not
/// permitted.
pub(crate) fn supervise(arguments: &[String], inside: impl FnOnce(Place) -> ExitCode) -> ExitCode {
    let _alone = match alone() {
        Ok(lock) => lock,
        Err(why) => {
            eprintln!("load: {why}");
            return ExitCode::FAILURE;
        }
    };
    let namespace = match Namespace::create() {
        Ok(namespace) => namespace,
        Err(why) => {
            let place = Place::loopback();
            eprintln!(
                "no network namespace ({why}): running on plain loopback, where others' traffic and settings weigh in; \
                 congestion control {}",
                place.congestion_control
            );
            return inside(place);
        }
    };
    match reexecute(&namespace, arguments) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Waits until no other run of the harness is under way on this machine: two would measure each other.
fn alone() -> Result<Option<Flock<File>>, String> {
    let path = std::env::temp_dir().join("l4lb-bench.lock");
    // Somebody else's file that we may not open must not keep us from measuring.
    let Ok(mut file) = OpenOptions::new().create(true).truncate(false).write(true).open(&path) else { return Ok(None) };
    let interrupt = Interrupt::watch()?;
    let mut told = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((back, nix::Error::EWOULDBLOCK)) => file = back,
            Err(_) => return Ok(None),
        }
        if !told {
            eprintln!("another run of the harness is under way; waiting for it to end");
            told = true;
        }
        interrupt.sleep(Duration::from_millis(200))?;
    }
}

fn reexecute(namespace: &Namespace, arguments: &[String]) -> Result<ExitCode, String> {
    let interrupt = Interrupt::watch()?;
    let itself = std::env::current_exe().map_err(|err| format!("cannot find this program: {err}"))?;
    let child = Command::new("ip")
        .args(["netns", "exec", &namespace.name])
        .arg(itself)
        .args([INSIDE, &namespace.name])
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|err| format!("cannot start the run: {err}"))?;
    let mut child = KillOnDrop(child);
    let mut told: Option<Instant> = None;
    loop {
        if let Some(status) = child.0.try_wait().map_err(|err| format!("cannot wait for the run: {err}"))? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        match told {
            None if interrupt.came() => {
                // A signal from a terminal reached the child already; one by `kill` did not. Twice does no harm.
                let _ = kill(Pid::from_raw(child.0.id() as i32), Signal::SIGTERM);
                told = Some(Instant::now());
            }
            Some(when) if when.elapsed() > Duration::from_secs(15) => {
                return Err("the run does not end; it is killed".to_owned());
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(arguments: &[&str]) -> Result<String, String> {
    let told = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let told = told.map_err(|err| format!("ip: {err}"))?;
    if told.status.success() {
        return Ok(String::from_utf8_lossy(&told.stdout).into_owned());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&told.stderr).trim()))
}
