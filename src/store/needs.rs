//! What a store reaches outside of this process: the choice of a database in, files and ports out.
//!
//! For the sandbox, which keeps everything else from being reached. Knows no sandbox.
//!
//! Invariant: what is opened or connected to while the server runs is named here.

use std::path::PathBuf;

/// Files, ports and names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files that are written, each with others that are made and removed beside it.
    pub written: Vec<PathBuf>,
    /// Files that are read anew at times; renaming may replace them.
    pub read: Vec<PathBuf>,
    /// TCP ports to connect to.
    pub ports: Vec<u16>,
    /// Whether hosts are looked up by their names.
    pub looks_up_hosts: bool,
    /// Whether the operating system's CA certificates are read.
    pub reads_system_roots: bool,
}
