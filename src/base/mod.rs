//! The ground everything stands on: names for numbers, time as ticks, and the containers a worker lives in.
//!
//! Knows: nothing of the rest. Must not touch: sockets, threads, configuration; no clock is read here except by
//! [`time::Clock`], which is handed down, and by [`time::nanos`], which links ask for their network's time; and nothing of
//! the machine but the addresses of its interfaces (`machine`).

pub mod blocks;
pub mod exit;
pub mod ids;
#[cfg(feature = "proxy")]
pub mod machine;
#[cfg(feature = "proxy")]
pub mod net;
pub mod pipes;
pub mod secret;
pub mod slab;
pub mod time;
pub mod wheel;
