//! What l4lb promises, shown on the real program: each test starts the binary with a file of its own and
//! talks to it over sockets, as a client and as a backend would.
//!
//! A test's name is the promise. Nothing here knows the inside of l4lb; the only contract is the command
//! line, the file, the log line that names an address, and what happens on the wire.
//! `L4LB=/some/l4lb` runs the same tests against another binary.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod support;

mod account;
mod admin;
mod backpressure;
mod bulk;
mod changes;
mod checks;
mod choosing;
#[cfg(feature = "client")]
mod client_feed;
mod drain;
mod ends;
mod exits;
mod failover;
mod http_backends;
mod http_bulk;
mod http_fields;
mod http_flow;
mod http_life;
mod http_programs;
mod http_proxy_header;
mod http_refusals;
mod http_routes;
mod http_timeouts;
mod http_upgrade;
mod kills;
mod life;
mod limits;
mod logs;
mod many_checks;
mod names;
mod picking;
mod programs;
mod queue;
mod rate_limits;
mod reload;
mod retries;
mod scale;
mod seams;
mod silence;
mod sockets;
mod state;
mod stats;
mod transfer;
mod udp_addresses;
mod udp_datagrams;
mod udp_down;
mod udp_life;
mod udp_limits;
mod udp_picking;
mod udp_programs;
mod udp_sessions;
mod udp_stats;
mod upgrade;
mod urgent;
mod writes;
