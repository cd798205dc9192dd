//! Bytes to values that cannot be malformed, and back: nobody else in the house parses or prints a protocol.
//!
//! Knows: RFCs. Must not touch: sockets, the clock, threads, configuration; whoever holds the bytes calls us.

pub mod http1;
