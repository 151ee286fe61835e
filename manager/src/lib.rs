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
//! `options`, `source`, `machine`, `dry_run`, `manual`, `signals` and `service` are the program
//! around that: what it is asked for, and what it hears and says.
//!
//! A module never imports one before it in this list: `signals`, `source`, `machine`, `supervisor`,
//! `instance`, `gearman` and `process`, `counters`, `config`.

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
