//! HTTP requests to three servers, of which one dies and comes back:
//! `cargo run --no-default-features --features client --example client_http`
//!
//! The pool checks its servers in the background, so that calls stop going to the dead one, and it counts what is in flight.

#![allow(unreachable_pub, reason = "an example has no outside")]

mod servers;

use l4lb::client::{Algorithm, Backend, CircuitBreaker, Context, Health, HealthCheck, Pool};
use servers::{Calls, Server};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["one", "two", "three"];

/// Answers one request, whatever it is.
fn answer(mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut head = BufReader::new(client.try_clone()?).lines();
    while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")
}

/// One request: to the backend that is picked, and if it cannot be reached to another one, each once.
fn call(http: &ureq::Agent, pool: &Pool, calls: &mut Calls) -> Result<(), Box<dyn Error>> {
    let mut context = Context::new();
    loop {
        let lease = pool.pick(&context)?;
        let id = lease.backend().id().to_owned();
        match http.get(format!("http://{}/", lease.address())).call() {
            Ok(mut response) => {
                assert_eq!(response.body_mut().read_to_string()?, "hello\n");
                calls.count(&id, true);
                lease.success();
                return Ok(());
            }
            // It answered, so it is there, but it did not do its work.
            Err(ureq::Error::StatusCode(500..)) => lease.failure(),
            Err(_) => lease.unreachable(),
        }
        calls.count(&id, false);
        context = context.exclude(id);
    }
}

fn calls(http: &ureq::Agent, pool: &Pool, when: &str) -> Result<(), Box<dyn Error>> {
    let mut calls = Calls::default();
    for _ in 0..30 {
        call(http, pool, &mut calls)?;
    }
    calls.print(when);
    Ok(())
}

/// Waits until checks say this of the backend `id`.
fn wait(pool: &Pool, id: &str, health: Health) -> Result<(), Box<dyn Error>> {
    let due = Instant::now() + Duration::from_secs(30);
    while pool.backends().iter().any(|backend| backend.id == id && backend.health != health) {
        if Instant::now() > due {
            return Err(format!("{id} is not {health:?} in time").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut servers = [Server::start(any, answer)?, Server::start(any, answer)?, Server::start(any, answer)?];
    let backends = NAMES.iter().zip(&servers).map(|(id, server)| Backend::new(*id, server.address()));
    let pool = Pool::builder("web")
        .algorithm(Algorithm::LeastConnections)
        .backends(backends)
        .health_check(HealthCheck::http("/").interval(Duration::from_millis(200)).fall(2).rise(2))
        .circuit_breaker(CircuitBreaker::new().failure_threshold(5).timeout(Duration::from_secs(1)))
        .build()?;
    // Straight to the servers, whatever proxy the environment names.
    let http: ureq::Agent =
        ureq::Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(5))).build().into();

    calls(&http, &pool, "all are there")?;

    let address = servers[1].address();
    servers[1].die();
    calls(&http, &pool, "two has died")?;
    wait(&pool, "two", Health::Down)?;
    calls(&http, &pool, "checks have found two down")?;

    servers[1] = Server::start(address, answer)?;
    wait(&pool, "two", Health::Up)?;
    calls(&http, &pool, "two is back")?;
    Ok(())
}
