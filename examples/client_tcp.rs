//! Connections to three servers, of which one dies and comes back:
//! `cargo run --no-default-features --features client --example client_tcp`
//!
//! The pool checks nobody. It learns from the calls alone: a connection that is refused sets its server aside for a second,
//! and the call goes to another one.

#![allow(unreachable_pub, reason = "an example has no outside")]

mod servers;

use l4lb::client::{Algorithm, Backend, Context, Pool};
use servers::{Calls, Server};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// Sends back what comes.
fn echo(mut client: TcpStream) -> io::Result<()> {
    io::copy(&mut client.try_clone()?, &mut client)?;
    Ok(())
}

/// One call: to the backend that is picked, and if it does not answer to another one, each once.
fn call(pool: &Pool, calls: &mut Calls) -> Result<(), Box<dyn Error>> {
    let mut context = Context::new();
    loop {
        let mut lease = pool.pick(&context)?;
        let id = lease.backend().id().to_owned();
        let Ok(mut stream) = TcpStream::connect_timeout(&lease.address(), Duration::from_secs(2)) else {
            calls.count(&id, false);
            lease.unreachable();
            context = context.exclude(id);
            continue;
        };
        // What took time until now is the backend's doing; what follows may take as long as it likes.
        lease.answered();
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert_eq!(answer, "hello");
        calls.count(&id, true);
        lease.success();
        return Ok(());
    }
}

fn calls(pool: &Pool, when: &str) -> Result<(), Box<dyn Error>> {
    let mut calls = Calls::default();
    for _ in 0..30 {
        call(pool, &mut calls)?;
    }
    calls.print(when);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut servers = [Server::start(any, echo)?, Server::start(any, echo)?, Server::start(any, echo)?];
    let backends = NAMES.iter().zip(&servers).map(|(id, server)| Backend::new(*id, server.address()));
    let pool = Pool::builder("echo").algorithm(Algorithm::RoundRobin).backends(backends).build()?;

    calls(&pool, "all are there")?;

    let address = servers[1].address();
    servers[1].die();
    calls(&pool, "two has died")?;
    calls(&pool, "two is set aside")?;

    servers[1] = Server::start(address, echo)?;
    let due = Instant::now() + Duration::from_secs(30);
    while pool.backends().iter().any(|backend| backend.set_aside) && Instant::now() < due {
        thread::sleep(Duration::from_millis(20));
    }
    calls(&pool, "two is back")?;
    Ok(())
}
