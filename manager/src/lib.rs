//! ringgear-manager: runs commands as Gearman workers, for any language, from one file.
//!
//! ```text
//! file ─▶ config ─▶ supervisor ─▶ instance (a task each) ─▶ gearman: jobs from the servers
//!          SIGHUP, watch ─▶│               └▶ process: the command, in a group of its own
//! ```
//!
//! An instance takes jobs and runs each by a command, or keeps a command running that is a worker
//! itself. All run on one thread. A module never imports one before it in this list: `signals`,
//! `source`, `machine`, `supervisor`, `instance`, `gearman`, `process`, `counters`, `config`.

pub mod config;
pub mod counters;
pub mod dry_run;
pub mod gearman;
pub mod http;
pub mod instance;
pub mod machine;
pub mod manual;
pub mod options;
pub mod process;
pub mod service;
pub mod signals;
pub mod source;
pub mod supervisor;
pub mod watch;
