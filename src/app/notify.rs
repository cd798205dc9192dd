//! Tells the service manager how the process is (`NOTIFY_SOCKET`, sd_notify(3)). Where there is none, nobody is told.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Clients are served.
pub(super) fn ready() {
    tell("READY=1");
}

/// Clients are served, by this process in place of the one before it.
pub(super) fn ready_instead() {
    tell(&format!("MAINPID={}\nREADY=1", std::process::id()));
}

/// The configuration is about to be read anew; [`ready`] tells that it was. The manager wants the time, too, to know it from
/// an earlier one.
pub(super) fn reloading() {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let microseconds = time.map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000);
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
}

/// The last sessions end, and then the process.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

fn tell(words: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(socket.as_bytes(), words) {
        log::warn!("the service manager cannot be told {words:?}: {error}");
    }
}

fn send(name: &[u8], words: &str) -> io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_a_socket_with_a_path_and_one_without() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("l4lb-test-{}", std::process::id());
        let named = UnixDatagram::bind(&path).unwrap();
        let nameless = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, told) in [(&named, path.as_os_str().as_bytes()), (&nameless, format!("@{name}").as_bytes())] {
            send(told, "READY=1").unwrap();
            let mut words = [0; 64];
            let len = socket.recv(&mut words).unwrap();
            assert_eq!(&words[..len], b"READY=1");
        }
        assert!(send(b"/nowhere/at/all", "READY=1").is_err());
    }
}
