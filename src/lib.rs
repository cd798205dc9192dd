//! l4lb: a load balancer for raw TCP, UDP and HTTP.
//!
//! The map of the house. A room may import only from floors below its own, never sideways or up;
//! `tests/floors.rs` reads the imports and holds that. `ls src` is the road of a connection.
//!
//! For programs that balance by themselves there is `client`, behind a feature of its own: `--no-default-features
//! --features client` builds that room and those below it that say no `proxy`. It is all that other crates may rely on, so
//! the others are hidden from its documentation.

// floor 8: the door
#[cfg(feature = "proxy")]
pub mod cli; // arguments, and the small programs behind the subcommands

// floor 7: the house. `app` alone knows every room below.
#[cfg(feature = "proxy")]
pub mod app; // takes sockets, starts threads, handles signals, joins

// floor 6: the threads
#[cfg(feature = "client")]
pub mod client; // the library: picking, checks and breakers inside somebody else's program
#[cfg(feature = "proxy")]
pub mod control; // the only writer of the snapshot: takes mail, builds, publishes
#[cfg(feature = "proxy")]
pub mod discovery; // the outside world (names in DNS) turned into mail for control
#[cfg(feature = "proxy")]
pub mod health; // looks after backends
#[cfg(feature = "proxy")]
pub mod worker; // one core, one `Poll`: wait, latch, step, run timers

// floor 5: life
#[cfg(feature = "proxy")]
pub mod session; // one client from its first byte to the account

// floor 4: the admin API
#[cfg(feature = "proxy")]
pub mod admin; // a request for /lb/*: who may ask it, and whom it is a question for

// floor 3: moving and reaching
#[cfg(feature = "proxy")]
pub mod relay; // moves bytes from a source to a sink by credit
#[cfg_attr(not(feature = "proxy"), doc(hidden))]
pub mod shared; // only what crosses threads: the snapshot, publishing it, mail
#[cfg(feature = "proxy")]
pub mod upstream; // connections to backends

// floor 2: meaning and sockets
#[cfg(feature = "proxy")]
pub mod config; // TOML as typed to `Config` as meant
#[cfg(feature = "proxy")]
pub mod link; // a socket as a byte stream: plain, or scripted for tests

// floor 1: pure. No sockets, no clock, no threads.
#[cfg_attr(not(feature = "proxy"), doc(hidden))]
pub mod balance; // picking a backend
#[cfg_attr(not(feature = "proxy"), doc(hidden))]
pub mod guard; // limits and the permits they give
#[cfg_attr(not(feature = "proxy"), doc(hidden))]
pub mod probe; // what a check sends and expects, and the verdict
#[cfg(feature = "proxy")]
pub mod route; // facts of a request to the route that takes it
#[cfg_attr(not(feature = "proxy"), doc(hidden))]
pub mod stats; // counters, and their text
#[cfg_attr(not(feature = "proxy"), doc(hidden))]
pub mod wire; // protocols: bytes to values and back

// floor 0: the ground
#[cfg_attr(not(feature = "proxy"), doc(hidden))]
pub mod base; // ids, slab, timer wheel, blocks
#[cfg(feature = "proxy")]
pub mod sys; // the kernel; the only room that may hold `unsafe`
