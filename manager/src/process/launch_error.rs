//! Why a command couldn't be started: a step and what the kernel said in, a sentence out.
//!
//! Invariant: each sentence has its cause and a remedy.

use nix::errno::Errno;
use thiserror::Error;

/// What a new process does before it runs its command, and the manager for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[expect(missing_docs, reason = "`name` says it")]
pub enum Step {
    Descriptors = 1,
    Process,
    Group,
    Nice,
    Groups,
    GroupId,
    UserId,
    Directory,
    Redirect,
    Parent,
    Execute,
    Watch,
}

impl Step {
    const ALL: [Self; 12] = [
        Self::Descriptors,
        Self::Process,
        Self::Group,
        Self::Nice,
        Self::Groups,
        Self::GroupId,
        Self::UserId,
        Self::Directory,
        Self::Redirect,
        Self::Parent,
        Self::Execute,
        Self::Watch,
    ];

    /// The step with this number.
    #[must_use]
    pub(super) fn of_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|&step| step as i32 == number)
    }

    /// What is done in it.
    fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "opening its pipes",
            Self::Process => "creating its process",
            Self::Group => "creating its process group",
            Self::Nice => "setting its niceness",
            Self::Groups => "setting its groups",
            Self::GroupId => "setting its group",
            Self::UserId => "setting its user",
            Self::Directory => "changing to its directory",
            Self::Redirect => "redirecting its descriptors",
            Self::Parent => "binding its life to the manager's",
            Self::Execute => "executing it",
            Self::Watch => "watching its process",
        }
    }

    fn remedy(self, cause: Errno) -> &'static str {
        match (self, cause) {
            (_, Errno::EMFILE | Errno::ENFILE) => {
                "allow the manager more descriptors (ulimit -n, LimitNOFILE=)"
            }
            (_, Errno::ENOMEM) => "free memory, or run fewer processes",
            (_, Errno::EAGAIN) => "allow more processes (ulimit -u, TasksMax=)",
            (Self::Nice, _) => "run the manager as root for a negative `nice`, or leave it out",
            (Self::Groups | Self::GroupId | Self::UserId, _) => {
                "run the manager as root, or leave out `user` and `group`"
            }
            (Self::Directory, Errno::EACCES) => "let the worker's user enter `directory`",
            (Self::Directory, _) => "create `directory`, or give another one",
            (Self::Execute, Errno::ENOENT) => {
                "install it (or the interpreter in its first line), or correct `command` or PATH"
            }
            (Self::Execute, Errno::EACCES) => {
                "make the file executable and its folders accessible for the worker's user"
            }
            (Self::Execute, Errno::ENOEXEC) => {
                "let a script begin with #! and its interpreter, or take a program for this machine"
            }
            (Self::Execute, Errno::ETXTBSY) => {
                "replace programs by renaming, and don't write to one that runs"
            }
            (Self::Execute, Errno::E2BIG) => "shorten `command` or `environment`",
            (Self::Execute, _) => "correct `command`",
            _ => "try again, and look at the kernel's log",
        }
    }
}

/// Why a command couldn't be started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot start {program}: {} failed: {}; {remedy}", .step.name(), .cause.desc())]
pub struct LaunchError {
    /// The program, as the file names it.
    pub program: String,
    /// What was being done.
    pub step: Step,
    /// What the kernel said.
    pub cause: Errno,
    /// What to do about it.
    pub remedy: &'static str,
}

impl LaunchError {
    pub(super) fn new(program: &str, step: Step, cause: Errno) -> Self {
        Self { program: program.to_owned(), step, cause, remedy: step.remedy(cause) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_has_cause_and_remedy() {
        let error = LaunchError::new("convert", Step::Execute, Errno::ENOENT);
        assert_eq!(
            error.to_string(),
            "cannot start convert: executing it failed: No such file or directory; install it \
             (or the interpreter in its first line), or correct `command` or PATH"
        );
    }

    #[test]
    fn steps_have_numbers() {
        for step in Step::ALL {
            assert_eq!(Step::of_number(step as i32), Some(step));
        }
        assert_eq!(Step::of_number(0), None);
    }
}
