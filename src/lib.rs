//! ringgear: the Gearman job server for Linux hosts that have outgrown `gearmand`.
//!
//! ```text
//! socket ─ io/{uring,epoll} ─▶ frame ─▶ packet ─▶ session ─▶ engine ◀── timer
//!                                                              │ effects
//! socket ◀─ io/{uring,epoll} ◀─ outbox ◀── packet ◀────────────┘
//! ```
