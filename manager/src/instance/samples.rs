//! Workers for unit tests: a name in, settings with the file's defaults out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Mode, Stderr, Worker};

/// A worker of mode `lines` without limits, whose command is `true`.
pub(crate) fn worker(name: &str) -> Worker {
    Worker {
        name: name.to_owned(),
        functions: vec![name.to_owned()],
        command: vec!["true".to_owned()],
        mode: Mode::Lines,
        count: 1,
        timeout: None,
        max_jobs: 0,
        max_age: None,
        splay: 0.0,
        memory_max: None,
        result_max: 64 << 20,
        stop_wait: Duration::from_secs(60),
        backoff: (Duration::from_secs(1), Duration::from_secs(60)),
        user: None,
        group: None,
        directory: None,
        umask: None,
        nice: 0,
        environment: BTreeMap::new(),
        clear_environment: false,
        watch: Vec::new(),
        stderr: Stderr::Log,
    }
}
