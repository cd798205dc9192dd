//! Codecs: bytes to values that can not be malformed, and back. Whoever needs to know what bytes mean asks here.
//!
//! Knows: formats. Must not touch: sockets, the clock, routes, backends. A decoder is given what has come so far and says
//! what it is, that more is needed, or why it can be nothing; each has a fuzz target.

pub mod forwarded;
pub mod proxy;
