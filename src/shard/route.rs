//! Which cores handle a request or a text line.
//!
//! A request in, a route out: this core, the owner of the function or the job, or all of them.
//! Knows where functions and jobs are, and nothing of connections or messages.
//!
//! Invariant: with one core every route is `Here`.

use super::cores::{Core, Cores};
use crate::engine::handle::Handles;
use crate::protocol::admin::{self, Scope};
use crate::wire::Request;
use crate::wire::text::c_string;

/// Where something is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// On this core.
    Here,
    /// On the core that owns the function or the job.
    Owner(Core),
    /// On every core, and the answers are joined.
    AllCores,
    /// On the cores of a worker's functions, by what its home knows of them.
    WorkersCores,
}

/// What a route depends on beside the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Router<'a> {
    pub(super) cores: Cores,
    pub(super) handles: &'a Handles,
    /// The server takes no more jobs.
    pub(super) is_draining: bool,
    /// The connection is a worker with functions of several cores.
    pub(super) is_multi_core: bool,
}

impl Router<'_> {
    /// Where a request is handled.
    #[inline]
    pub(super) fn route(&self, request: &Request<'_>) -> Route {
        if self.cores.count == 1 {
            return Route::Here;
        }
        match *request {
            // Refused here, as the owner may have ended.
            Request::Submit(_) if self.is_draining => Route::Here,
            Request::Submit(ref submit) => self.to(Some(self.cores.owner_of(submit.function))),
            Request::CanDo { function }
            | Request::CanDoTimeout { function, .. }
            | Request::CantDo { function } => self.to(Some(self.cores.owner_of(function))),
            Request::Work(ref work) => self.to(self.owner_of_handle(work.handle)),
            Request::GetStatus { handle } => self.to(self.owner_of_handle(handle)),
            Request::GetStatusUnique { .. } => Route::AllCores,
            Request::ResetAbilities => Route::WorkersCores,
            Request::GrabJob(_) | Request::PreSleep if self.is_multi_core => Route::WorkersCores,
            _ => Route::Here,
        }
    }

    /// Where a text line is handled.
    pub(super) fn route_line(&self, line: &[u8]) -> Route {
        if self.cores.count == 1 {
            return Route::Here;
        }
        match admin::scope(line) {
            Scope::Any => Route::Here,
            Scope::Function(name) => self.to(Some(self.cores.owner_of(name))),
            Scope::Job(handle) => self.to(self.owner_of_handle(handle)),
            Scope::All => Route::AllCores,
        }
    }

    /// The core that has the job; `None` for a handle of no job of this server.
    fn owner_of_handle(&self, handle: &[u8]) -> Option<Core> {
        let number = self.handles.number(c_string(handle))?;
        Some(self.cores.owner_of_job(number))
    }

    fn to(&self, owner: Option<Core>) -> Route {
        owner.filter(|&owner| owner != self.cores.own).map_or(Route::Here, Route::Owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::handle::{job_number, slot};
    use crate::wire::{Command, Header, Magic, Payload};

    /// A function that a core of three owns.
    fn function(core: Core) -> String {
        let cores = Cores { own: 0, count: 3 };
        let mut names = (0..).map(|number| format!("f{number}"));
        names.find(|name| cores.owner_of(name.as_bytes()) == core).unwrap()
    }

    fn route(router: &Router<'_>, command: Command, body: &[u8]) -> Route {
        let body_bytes = u32::try_from(body.len()).unwrap();
        let header = Header { magic: Magic::Request, command, body_bytes };
        router.route(&Request::parse(header, Payload::borrowed(body)).unwrap())
    }

    #[test]
    fn requests_go_to_the_owner_of_their_function_or_job() {
        use Command as C;
        let handles = Handles::default();
        let cores = Cores { own: 0, count: 3 };
        let router = Router { cores, handles: &handles, is_draining: false, is_multi_core: false };
        for core in 0..3 {
            let expected = if core == 0 { Route::Here } else { Route::Owner(core) };
            let name = function(core);
            let submit = format!("{name}\0\0payload");
            assert_eq!(route(&router, C::SubmitJob, submit.as_bytes()), expected);
            let draining = Router { is_draining: true, ..router };
            assert_eq!(route(&draining, C::SubmitJob, submit.as_bytes()), Route::Here);
            for command in [C::CanDo, C::CantDo] {
                assert_eq!(route(&router, command, name.as_bytes()), expected);
            }
            let handle = handles.text(job_number(7, slot(name.as_bytes())));
            let handle = handle.as_ref();
            assert_eq!(route(&router, C::GetStatus, handle), expected);
            assert_eq!(route(&router, C::WorkFail, handle), expected);
            let line = [b"cancel job ", handle].concat();
            assert_eq!(router.route_line(&line), expected);
            assert_eq!(router.route_line(format!("maxqueue {name} 3").as_bytes()), expected);
        }
    }

    #[test]
    fn what_no_core_knows_alone_goes_to_all_and_the_rest_stays() {
        use Command as C;
        let handles = Handles::default();
        let cores = Cores { own: 1, count: 3 };
        let router = Router { cores, handles: &handles, is_draining: false, is_multi_core: false };
        assert_eq!(route(&router, C::GetStatusUnique, b"key"), Route::AllCores);
        assert_eq!(router.route_line(b"drop function f"), Route::AllCores);
        assert_eq!(route(&router, C::ResetAbilities, b""), Route::WorkersCores);
        assert_eq!(route(&router, C::GrabJob, b""), Route::Here);
        let worker = Router { is_multi_core: true, ..router };
        assert_eq!(route(&worker, C::GrabJob, b""), Route::WorkersCores);
        assert_eq!(route(&worker, C::PreSleep, b""), Route::WorkersCores);
        assert_eq!(route(&router, C::GetStatus, b"no handle"), Route::Here);
        assert_eq!(route(&router, C::EchoReq, b"x"), Route::Here);
        assert_eq!(router.route_line(b"status"), Route::Here);
        let alone = Router { cores: Cores::default(), ..worker };
        for command in [C::GetStatusUnique, C::GrabJob, C::ResetAbilities] {
            assert_eq!(route(&alone, command, b""), Route::Here);
        }
    }
}
