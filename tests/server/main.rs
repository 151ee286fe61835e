//! Tests against real server processes over real sockets: every ringgear driver, and Debian's gearmand
//! where the behaviours agree. One binary, so that it is linked once.

mod harness;
mod limits;
mod transcripts;
mod wire;
