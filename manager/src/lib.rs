//! ringgear-manager: runs commands as Gearman workers, for any language, from one file.
//!
//! ```text
//! file ─▶ config ─▶ supervisor ─▶ instance (a task each) ─▶ gearman: jobs from the servers
//!          SIGHUP, watch ─▶│               └▶ process: the command, in a group of its own
//! ```
//!
//! An instance of mode `exec` or `lines` is a Gearman worker that runs each job by a command; one
//! of mode `gearman` keeps a command alive that is a worker itself. All run on one thread.
//!
//! A module never imports one before it in this list: `supervisor`, `instance`, `gearman` and
//! `process`, `counters`, `config`.

pub mod config;
pub mod counters;
pub mod gearman;
pub mod http;
pub mod instance;
pub mod options;
pub mod process;
pub mod supervisor;
pub mod watch;
