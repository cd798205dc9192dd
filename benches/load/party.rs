//! The parties: l4lb and its peers as child processes, each configured by a file of `benches/peers/`.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::args::{Kind, Protocol};
use crate::datagram::SIZE;
use crate::measure::{Layout, family};
use crate::netns::Interrupt;

/// The file of a party, for a protocol; `direct` has none.
///
/// # Errors
/// Why it takes no part.
fn template(kind: Kind, protocol: Protocol) -> Result<Option<&'static str>, &'static str> {
    Ok(Some(match (kind, protocol) {
        (Kind::Direct, _) => return Ok(None),
        (Kind::Haproxy, Protocol::Tcp) => include_str!("../peers/haproxy.cfg"),
        (Kind::Haproxy, Protocol::Bulk) => include_str!("../peers/haproxy-bulk.cfg"),
        (Kind::Haproxy, Protocol::Udp) => return Err("it does not proxy UDP"),
        (Kind::Haproxy, Protocol::Http) => include_str!("../peers/haproxy-http.cfg"),
        (Kind::Nginx, Protocol::Tcp | Protocol::Bulk) => include_str!("../peers/nginx.conf"),
        (Kind::Nginx, Protocol::Udp) => include_str!("../peers/nginx-udp.conf"),
        (Kind::Nginx, Protocol::Http) => include_str!("../peers/nginx-http.conf"),
        (Kind::L4lb, Protocol::Tcp | Protocol::Bulk) => include_str!("../peers/l4lb.toml"),
        (Kind::L4lb, Protocol::Udp) => include_str!("../peers/l4lb-udp.toml"),
        (Kind::L4lb, Protocol::Http) => include_str!("../peers/l4lb-http.toml"),
    }))
}

/// A party that can be started on this machine.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Entrant {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    #[serde(skip)]
    program: PathBuf,
    /// nginx: the line that loads the stream module, where it is a separate file.
    #[serde(skip)]
    load_module: String,
}

impl Entrant {
    /// Looks for a party.
    ///
    /// # Errors
    /// What is missing, and where it might come from.
    pub(crate) fn find(kind: Kind) -> Result<Self, String> {
        let mut entrant = Self { kind, version: String::new(), program: PathBuf::new(), load_module: String::new() };
        match kind {
            Kind::Direct => "(client straight to backend)".clone_into(&mut entrant.version),
            Kind::L4lb => {
                entrant.program = PathBuf::from(env!("CARGO_BIN_EXE_l4lb"));
                entrant.version = version(&output(&entrant.program, "--version")?);
            }
            Kind::Haproxy => {
                entrant.program = on_path("haproxy")?;
                entrant.version = version(&output(&entrant.program, "-v")?);
            }
            Kind::Nginx => {
                entrant.program = on_path("nginx")?;
                let told = output(&entrant.program, "-V")?;
                entrant.version = version(&told);
                entrant.load_module = stream_module(&told)?;
            }
        }
        Ok(entrant)
    }

    /// Whether it knows the protocol at all.
    pub(crate) fn takes_part(&self, protocol: Protocol) -> bool {
        template(self.kind, protocol).is_ok()
    }
}

/// What a started party is told about its place.
pub(crate) struct Terms<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) workers: u16,
    pub(crate) port: u16,
    pub(crate) backend_port: u16,
    /// Client connections it must be able to hold.
    pub(crate) connections: u64,
    pub(crate) layout: &'a Layout,
    /// For configuration, pid file and log.
    pub(crate) directory: &'a Path,
}

/// A running party; ended when dropped.
pub(crate) struct Party {
    pub(crate) kind: Kind,
    /// Where clients go.
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    log: PathBuf,
}

impl Party {
    /// Starts it, and waits until it accepts, or answers datagrams.
    pub(crate) fn start(entrant: &Entrant, terms: &Terms<'_>, interrupt: &Interrupt) -> Result<Self, String> {
        let name = entrant.kind.name();
        let Some(template) = template(entrant.kind, terms.protocol)? else {
            let address = SocketAddr::from(([127, 0, 0, 1], terms.backend_port));
            return Ok(Self { kind: entrant.kind, address, child: None, log: PathBuf::new() });
        };
        let config = terms.directory.join(format!("{name}.conf"));
        let log = terms.directory.join(format!("{name}.log"));
        let told = template
            .replace("@PORT@", &terms.port.to_string())
            .replace("@BACKEND_PORT@", &terms.backend_port.to_string())
            .replace("@WORKERS@", &terms.workers.to_string())
            .replace("@MAXCONN@", &terms.connections.to_string())
            .replace("@DESCRIPTORS@", &(2 * terms.connections + 64).to_string())
            .replace("@LOAD_MODULE@", &entrant.load_module)
            .replace("@DIR@", &terms.directory.display().to_string());
        fs::write(&config, told).map_err(|err| format!("{}: {err}", config.display()))?;
        let errors = File::create(&log).map_err(|err| format!("{}: {err}", log.display()))?;
        let mut command = Command::new(&entrant.program);
        match entrant.kind {
            Kind::Nginx => command.arg("-p").arg(terms.directory).arg("-c").arg(&config),
            Kind::Haproxy => command.arg("-db").arg("-f").arg(&config),
            Kind::L4lb | Kind::Direct => command.arg("-c").arg(&config),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = Layout::on(&terms.layout.proxy, || {
            command.spawn().map_err(|err| format!("cannot start {}: {err}", entrant.program.display()))
        })?;
        let address = SocketAddr::from(([127, 0, 0, 1], terms.port));
        let mut party = Self { kind: entrant.kind, address, child: Some(child), log };
        party.wait_until_it_works(terms.protocol, interrupt)?;
        Ok(party)
    }

    fn wait_until_it_works(&mut self, protocol: Protocol, interrupt: &Interrupt) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            self.alive()?;
            let works = match protocol {
                Protocol::Udp => answers_datagrams(self.address),
                Protocol::Tcp | Protocol::Bulk | Protocol::Http => {
                    TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok()
                }
            };
            if works {
                return Ok(());
            }
            if Instant::now() > end {
                let what = if protocol == Protocol::Udp { "answer datagrams" } else { "accept" };
                return Err(format!("does not {what} after 10 s{}", self.last_words()));
            }
            interrupt.sleep(Duration::from_millis(10))?;
        }
    }

    /// Fails when the process has ended.
    pub(crate) fn alive(&mut self) -> Result<(), String> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        match child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("ended by itself ({status}){}", self.last_words())),
            Err(err) => Err(err.to_string()),
        }
    }

    /// All its processes; none for `direct`.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.child.as_ref().map(|child| family(child.id())).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join(" / ");
        if last.is_empty() { String::new() } else { format!("; it said: {last}") }
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        let family = self.pids();
        let Some(child) = &mut self.child else { return };
        let tell = |pid: u32, signal| kill(Pid::from_raw(pid as i32), signal);
        let _ = tell(child.id(), Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Not yet reaped, so these ids are still theirs.
        for pid in family {
            let _ = tell(pid, Signal::SIGKILL);
        }
        let _ = child.wait();
    }
}

/// Whether a datagram comes back. What is not there yet refuses it, or lets it be lost.
fn answers_datagrams(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((address.ip(), 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.connect(address)?;
        socket.send(&[0; SIZE])?;
        socket.recv(&mut [0; SIZE])
    };
    ask().is_ok_and(|count| count == SIZE)
}

/// The line that loads nginx's stream module, empty where it is built in.
fn stream_module(configure: &str) -> Result<String, String> {
    let words: Vec<&str> = configure.split_ascii_whitespace().collect();
    if words.contains(&"--with-stream") {
        return Ok(String::new());
    }
    let missing = "nginx has no stream module (Debian and Ubuntu: apt install libnginx-mod-stream)";
    if !words.contains(&"--with-stream=dynamic") {
        return Err(missing.to_owned());
    }
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)).map(PathBuf::from);
    let prefix = value("--prefix=").unwrap_or_else(|| PathBuf::from("/usr/local/nginx"));
    let file = value("--modules-path=").unwrap_or_else(|| prefix.join("modules")).join("ngx_stream_module.so");
    if file.is_file() { Ok(format!("load_module {};", file.display())) } else { Err(missing.to_owned()) }
}

/// A program of PATH; `sbin` directories are looked into as well, where daemons are and PATH often does not go.
pub(crate) fn on_path(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(more).map(|directory| directory.join(name));
    found.into_iter().find(|file| file.is_file()).ok_or_else(|| format!("{name} is not installed (not on PATH)"))
}

fn output(program: &Path, argument: &str) -> Result<String, String> {
    let told = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    let told = told.map_err(|err| format!("{}: {err}", program.display()))?;
    Ok(String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr))
}

/// The first word of the first line that has a digit and a dot: `2.6.12-1`, `1.22.1`.
fn version(told: &str) -> String {
    let mut words = told.lines().next().unwrap_or_default().split([' ', '/']);
    let found = words.find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'));
    found.unwrap_or("of unknown version").to_owned()
}
