//! Bytes to values that cannot be malformed, and back: nobody else in the house parses or prints a protocol.
//!
//! Knows: formats and RFCs. Must not touch: sockets, the clock, threads, configuration; whoever holds the bytes calls us.
//! A decoder is given what has come so far and says what it is, that more is needed, or why it can be nothing.

pub mod forwarded;
pub mod handover;
pub mod http1;
pub mod proxy;
