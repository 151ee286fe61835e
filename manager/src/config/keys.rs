//! The names of all keys.

/// Keys of the top level.
pub const KEYS: [&str; 4] = ["servers", "http", "tls", "worker"];
/// Keys of `[tls]`.
pub const TLS_KEYS: [&str; 3] = ["ca", "certificate", "key"];
/// Keys of `[[worker]]`.
pub const WORKER_KEYS: [&str; 22] = [
    "name",
    "functions",
    "command",
    "mode",
    "count",
    "timeout",
    "max-jobs",
    "max-age",
    "splay",
    "memory-max",
    "result-max",
    "stop-wait",
    "backoff",
    "user",
    "group",
    "directory",
    "umask",
    "nice",
    "environment",
    "clear-environment",
    "watch",
    "stderr",
];
