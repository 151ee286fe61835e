//! What a line of the log is about.

/// The fields of a line of the log about a job or a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// The worker's name.
    pub(super) worker: &'a str,
    /// The instance's number.
    pub(super) instance: usize,
    /// The job's handle; empty between jobs.
    pub(super) handle: &'a str,
}
