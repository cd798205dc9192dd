//! `user` and `group`: root binds, and somebody else serves.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::{Group, User, geteuid};

use crate::support::http::{Backend, ask, get};
use crate::support::l4lb::{binary, command, run_command_to_end};
use crate::support::udp::{Datagrams, UdpBackend, dial};
use crate::support::{L4lb, Server, Setup, exchange, note, wait_until};

/// What binding a port below 1024 takes, as a bit of the sets in /proc (capabilities(7)).
const NET_BIND_SERVICE: u64 = 1 << 10;

/// Who is not root anywhere; `None` where the tests cannot become anybody.
pub fn nobody() -> Option<User> {
    if !geteuid().is_root() {
        note("not run as root: changing the user is not shown");
        return None;
    }
    Some(User::from_name("nobody").expect("users can be looked up").expect("every system has nobody"))
}

/// The fields of `/proc/PID/task/*/status`, by thread.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let status = |path: PathBuf| fs::read_to_string(path.join("status")).ok();
    let fields = |text: String| {
        let field = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        text.lines().filter_map(field).collect()
    };
    tasks.filter_map(|task| status(task.ok()?.path())).map(fields).collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}

fn set(thread: &BTreeMap<String, String>, name: &str) -> u64 {
    u64::from_str_radix(&thread[name], 16).expect("a set")
}

/// The groups that `id` tells of a user.
fn groups_of(user: &User) -> Vec<u32> {
    let out = Command::new("id").args(["-G", &user.name]).output().expect("every system has id");
    let mut groups = numbers(&String::from_utf8(out.stdout).expect("numbers"));
    groups.sort_unstable();
    groups
}

/// HTTP, TCP and UDP on one address each, as `user`; the addresses are told by a function, since others may have them.
fn as_user(
    global: &str,
    address: impl Fn() -> SocketAddr,
    (web, raw, dns): (SocketAddr, SocketAddr, SocketAddr),
) -> L4lb {
    let mut said = String::new();
    for _ in 0..20 {
        let mut toml = format!("[global]\nworkers = 2\nshutdown_timeout = \"5s\"\n{global}\n");
        for (name, protocol, backend) in [("web", "http", web), ("raw", "tcp", raw), ("dns", "udp", dns)] {
            let bind = address();
            toml += &format!(
                "[[listener]]\nname = \"{name}\"\nbind = \"{bind}\"\nprotocol = \"{protocol}\"\npool = \"{name}\"\n\
                 [[pool]]\nname = \"{name}\"\nhealth_check = {{ kind = \"none\" }}\nbackend = [{{ address = \"{backend}\" }}]\n"
            );
        }
        match L4lb::attempt(command(&[]), &toml) {
            Ok(lb) => return lb,
            Err(why) => said = why,
        }
    }
    panic!("it started at none of twenty addresses; at last it said\n{said}");
}

#[test]
fn every_thread_is_the_user_and_keeps_at_most_the_right_to_low_ports() {
    let Some(user) = nobody() else { return };
    let (web, raw, dns) = (Backend::echoing_targets(), Server::echo(), UdpBackend::echo());
    let low = || SocketAddr::from((Ipv4Addr::new(127, random(1, 250), random(1, 250), 1), u16::from(random(20, 250))));
    let high = || SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let daemon = Group::from_name("daemon").expect("groups can be looked up");
    let mut rows = vec![
        ("high ports", &high as &dyn Fn() -> SocketAddr, String::new(), 0, user.gid),
        ("low ports", &low, String::new(), NET_BIND_SERVICE, user.gid),
    ];
    if let Some(daemon) = &daemon {
        rows.push(("a group of its own", &high, "group = \"daemon\"".to_owned(), 0, daemon.gid));
    }
    for (why, address, more, kept, gid) in rows {
        let lb = as_user(&format!("user = \"nobody\"\n{more}"), address, (web.addr(), raw.addr, dns.addr));
        for _ in 0..5 {
            assert_eq!(ask(lb.addr_of("web"), get("/x")).text(), "/x", "{why}");
            assert_eq!(exchange(lb.addr_of("raw"), b"tcp"), b"tcp", "{why}");
            dial(lb.addr_of("dns")).echo(b"udp");
        }
        let threads = threads(lb.pid());
        assert!(threads.len() >= 5, "{why}: {} threads", threads.len());
        let mut groups = groups_of(&user);
        groups.retain(|group| *group != user.gid.as_raw());
        groups.push(gid.as_raw());
        groups.sort_unstable();
        for thread in &threads {
            let name = &thread["Name"];
            assert_eq!(numbers(&thread["Uid"]), [user.uid.as_raw(); 4], "{why}: {name}");
            assert_eq!(numbers(&thread["Gid"]), [gid.as_raw(); 4], "{why}: {name}");
            assert_eq!(numbers(&thread["Groups"]), groups, "{why}: {name}");
            for which in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                let has = set(thread, which);
                // the thread of the log is older than the change, and needs nothing
                let expected = if name == "log" { 0 } else { kept };
                assert_eq!(has, expected, "{why}: {which} of {name}");
            }
        }
    }
}

/// A number from the first up to the second; tests that run beside each other should not choose alike.
fn random(from: u8, to: u8) -> u8 {
    use std::hash::{BuildHasher, RandomState};
    let hash = RandomState::new().hash_one(std::process::id()) % u64::from(to - from);
    from + u8::try_from(hash).expect("it is below")
}

#[test]
fn the_log_belongs_to_the_user_and_can_be_reopened() {
    let Some(user) = nobody() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    chown(dir.path(), Some(user.uid.as_raw()), None).expect("we are root");
    let file = dir.path().join("lb.log");
    let global = format!("workers = 1\nuser = \"nobody\"\nlog_file = \"{}\"", file.display());
    let lb = L4lb::start_unheard(command(&[]), &Setup::to("127.0.0.1:9").global(&global).toml());
    let says = |what: &str| fs::read_to_string(&file).is_ok_and(|text| text.contains(what));
    wait_until("it listens", || says("listener in on "));
    assert_eq!(fs::metadata(&file).expect("it is there").uid(), user.uid.as_raw(), "it was made for the user");
    fs::rename(&file, dir.path().join("old.log")).expect("it is there");
    lb.signal(Signal::SIGUSR1);
    wait_until("it is reopened", || says("reopened"));
    assert_eq!(fs::metadata(&file).expect("it is there").uid(), user.uid.as_raw());
}

#[test]
fn a_log_that_was_there_keeps_its_owner() {
    let Some(_) = nobody() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("lb.log");
    fs::write(&file, "before\n").expect("it is ours");
    let global = format!("workers = 1\nuser = \"nobody\"\nlog_file = \"{}\"", file.display());
    let lb = L4lb::start_unheard(command(&[]), &Setup::to("127.0.0.1:9").global(&global).toml());
    let says = |what: &str| fs::read_to_string(&file).is_ok_and(|text| text.contains(what));
    wait_until("it listens", || says("listener in on "));
    assert_eq!(fs::metadata(&file).expect("it is there").uid(), 0, "it may be anything, and is not given away");
    lb.signal(Signal::SIGUSR1);
    wait_until("it cannot be opened any more, and goes on", || says("cannot be reopened: Permission denied"));
}

#[test]
fn who_is_not_root_can_only_be_who_it_is() {
    let Some(user) = nobody() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("it is ours");
    let (program, file) = (dir.path().join("l4lb"), dir.path().join("lb.toml"));
    fs::copy(binary(), &program).expect("there is room for it");
    let as_nobody = |name: &str| {
        let toml = Setup::to("127.0.0.1:9").global(&format!("workers = 1\nuser = \"{name}\"")).toml();
        fs::write(&file, toml).expect("it is ours");
        let mut command = Command::new(&program);
        command.arg("-c").arg(&file).uid(user.uid.as_raw()).gid(user.gid.as_raw());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    let lb = L4lb::start_with_flags(as_nobody("nobody")).expect("it is nobody already");
    assert!(threads(lb.pid()).iter().all(|thread| numbers(&thread["Uid"]) == [user.uid.as_raw(); 4]));
    drop(lb);
    let (code, said) = run_command_to_end(&mut as_nobody("root"));
    assert_eq!(code, Some(1), "it said\n{said}");
    for part in ["lb.toml:3:8: global.user: ", "Operation not permitted", "start l4lb as root"] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
}

#[test]
fn a_user_and_a_group_that_are_not_there_are_told_with_their_places() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("lb.toml");
    let global = "workers = 1\nuser = \"no-such-user\"\ngroup = \"no-such-group\"";
    fs::write(&file, Setup::to("127.0.0.1:9").global(global).toml()).expect("it is ours");
    let (mut run, mut check) = (Command::new(binary()), Command::new(binary()));
    for command in [&mut run, check.arg("check")] {
        command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let (code, said) = run_command_to_end(command);
        assert_eq!(code, Some(1), "it said\n{said}");
        for (place, what) in [("3:8: global.user", "user"), ("4:9: global.group", "group")] {
            let line = format!("lb.toml:{place}: there is no {what} \"no-such-{what}\" on this machine; ");
            assert!(said.contains(&line), "{line:?} is missing in\n{said}");
        }
    }
}
