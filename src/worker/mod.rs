//! One core, one `Poll`: wait, latch, step, run timers.
//!
//! Knows: links, sessions and when to run them. Must not touch: configuration, signals, anything that blocks.
//! [`core::Core`] is the worker without the kernel: the simulator runs it over scripted links. [`thread::Worker`] is the
//! loop around it, with the poll, the listening sockets and the mailbox.

pub mod core;
pub mod door;
mod hand;
pub mod thread;
