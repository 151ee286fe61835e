//! What the server reaches outside of its memory: options in, files and ports for the sandbox out.
//!
//! Names what is opened while the server runs; what is opened before it is in its sandbox needs no
//! mention. Touches no kernel.
//!
//! Invariant: a file that SIGHUP opens anew, or that is removed at the end, is named here.

use super::options::Options;
use crate::io::Endpoint;
use crate::io::sandbox::Reach;
use crate::store::open;

impl Options {
    /// Files and ports that must stay within reach.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        if let Ok(Some(choice)) = self.store_choice() {
            reach.open_store(open::needs(&choice));
        }
        if !["stderr", "none"].contains(&&*self.log_file) {
            reach.write_beside(&self.log_file);
        }
        if let Some(path) = self.pid_file.as_ref().filter(|path| !path.is_empty()) {
            reach.write_beside(path);
        }
        if let Some(path) = &self.access_file {
            reach.read_beside(path);
        }
        if self.access_file.is_some() || self.serves_http() {
            // Rules name users, and so do lists.
            reach.look_users_up();
        }
        for path in self.functions_file.as_deref().into_iter().chain(self.configuration_path()) {
            reach.read_beside(path);
        }
        for path in self.tls_files() {
            reach.read_beside(path);
        }
        if let Some(path) = &self.http_token_file {
            reach.read_beside(path);
        }
        for spec in self.listen_specs().iter().chain(&self.http) {
            if let Endpoint::Unix(path) = &spec.endpoint {
                reach.write_beside(path);
            }
        }
        if self.syslog {
            reach.log_to_syslog();
        }
        if self.coredump {
            reach.dump_core();
        }
        reach
    }
}
