//! Looks after backends: for now one look at the start, so that one that is down is known, and said, before its first
//! client comes.
//!
//! Knows: addresses and the live state of backends. Must not touch: workers, sessions, the configuration file.

use crate::base::time::Clock;
use crate::shared::backend::BackendState;
use crossbeam_channel::unbounded;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Connects under way at once.
const AT_ONCE: usize = 16;

/// A backend to look at.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its pool, for the log.
    pub pool: Arc<str>,
    /// Its id, for the log.
    pub id: Arc<str>,
    /// Where it is.
    pub addresses: Arc<[SocketAddr]>,
    /// How long a connect may take.
    pub timeout: Duration,
    /// What is known of it.
    pub state: Arc<BackendState>,
}

/// Connects once to each of `targets`, on a thread of its own; one that cannot be reached is said and set aside.
///
/// # Errors
/// No thread can be started.
pub fn look_once(targets: Vec<Target>, clock: Clock) -> io::Result<()> {
    if targets.is_empty() {
        return Ok(());
    }
    thread::Builder::new().name("health".into()).spawn(move || look(targets, clock))?;
    Ok(())
}

fn look(targets: Vec<Target>, clock: Clock) {
    let (put, take) = unbounded();
    for target in targets {
        // The channel lives as long as this function, and has no bound.
        let _ = put.send(target);
    }
    drop(put);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(take.len()) {
            scope.spawn(|| {
                for target in &take {
                    if let Err(error) = reach(&target) {
                        log::warn!("pool {}: backend {} is down: {error}", target.pool, target.id);
                        target.state.failed(clock.now());
                    }
                }
            });
        }
    });
}

fn reach(target: &Target) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address that can be used");
    for address in &*target.addresses {
        match TcpStream::connect_timeout(address, target.timeout) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::BackendSlot;
    use crate::base::time::Tick;
    use std::net::TcpListener;

    #[test]
    fn one_that_refuses_is_set_aside_and_one_that_accepts_is_not() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let target = |addresses: Vec<SocketAddr>| Target {
            pool: "p".into(),
            id: "b".into(),
            addresses: addresses.into(),
            timeout: Duration::from_secs(5),
            state: BackendState::new(BackendSlot(0), 0, 0),
        };
        let open = open.local_addr().unwrap();
        let rows = [
            ("it accepts", target(vec![open]), false),
            ("its second address accepts", target(vec![refusing, open]), false),
            ("it refuses", target(vec![refusing]), true),
            ("its name does not resolve", target(Vec::new()), true),
        ];
        look(rows.iter().map(|(_, target, _)| target.clone()).collect(), Clock::start());
        for (why, target, aside) in rows {
            assert_eq!(target.state.is_aside(Tick(0)), aside, "{why}");
        }
    }
}
