//! What connections may do: asked once for each packet and each text line, where it came in and
//! before it is routed to the core that handles it.
//!
//! Requests in, verdicts of the access list out; refusals are answered, counted and noted. What
//! names a job only is decided by the job's core, by the permissions that travel there. Without a
//! list every connection may do everything.
//!
//! Invariant: each connection of this core has permissions by the core's list, if there is one,
//! and no ability that they forbid.

use std::sync::Arc;

use tracing::{Level, enabled, info};

use super::Shard;
use super::connections::Access;
use super::cores::Core;
use super::denials::Refused;
use super::driver::Origin;
use super::job_log::PEERS;
use super::remote::message::{Message, Question};
use super::settings::Settings;
use crate::engine::{ConnId, Now, numbers};
use crate::protocol::access::{AccessList, Denial, Peer, Permissions, Right, Scope, User, Verdict};
use crate::protocol::admin::{self, Demand};
use crate::protocol::peer_address::{PeerAddress, UnixPeer};
use crate::protocol::session;
use crate::wire::text::c_string;
use crate::wire::{Request, Response};

/// At the gate.
impl Shard {
    /// Whether a connection may have a packet handled. If not, it has the answer already.
    #[inline]
    pub(super) fn may_request(&mut self, conn: ConnId, request: &Request<'_>, now: Now) -> bool {
        self.connections[conn].access().is_none() || self.decide_request(conn, request, now)
    }

    #[inline(never)]
    fn decide_request(&mut self, conn: ConnId, request: &Request<'_>, now: Now) -> bool {
        match *request {
            Request::Submit(ref submit) => {
                // The function's worker submits jobs of the reducer in its own name.
                let reducer = Some(submit.reducer).filter(|name| !name.is_empty());
                let mut functions = [submit.function].into_iter().chain(reducer);
                functions.all(|function| self.may_submit(conn, function, now))
            }
            // A refused registration isn't answered: no worker expects an answer.
            Request::CanDo { function } | Request::CanDoTimeout { function, .. } => {
                self.may(conn, Right::Work, Scope::Function(function), now)
            }
            Request::GetStatus { handle } => {
                let may = self.may_ask_status(conn, handle, now);
                if !may {
                    self.push(conn, &session::status(handle, None), now);
                }
                may
            }
            Request::GetStatusUnique { unique } if self.settings.cores.count == 1 => {
                let access = self.permissions(conn);
                self.ask_all(conn, Question::StatusUnique { unique: unique.into(), access }, now);
                false
            }
            _ => true,
        }
    }

    fn may_submit(&mut self, conn: ConnId, function: &[u8], now: Now) -> bool {
        let may = self.may(conn, Right::Submit, Scope::Function(function), now);
        if !may && let Some(permissions) = self.permissions(conn) {
            let (peer, right) = (permissions.peer(), Right::Submit);
            let text = Denial { peer, right, function: Some(function) }.text();
            self.push(conn, &Response::PermissionDenied { text: &text }, now);
            self.count_refused(function, numbers::Refused::Access);
        }
        may
    }

    /// Counts a submission that is refused here, at the core of its function.
    pub(super) fn count_refused(&mut self, function: &[u8], why: numbers::Refused) {
        let owner = self.settings.cores.owner_of(function);
        if owner == self.settings.cores.own {
            self.engine.refuse(function, why);
        } else {
            self.outgoing.send(owner, Message::Refused { function: function.into(), why });
        }
    }

    /// Whether a connection may have a text line handled. If not, it has the answer already.
    pub(super) fn may_say(&mut self, conn: ConnId, line: &[u8], now: Now) -> bool {
        let Some(permissions) = self.permissions(conn) else { return true };
        let (right, scope) = match admin::demand(line, &self.settings.handles) {
            Demand::None => return true,
            Demand::Some(right) if permissions.may_some(right) => return true,
            Demand::Some(right) => (right, Scope::AllFunctions),
            Demand::Right(right, scope) => (right, scope),
        };
        let may = self.may(conn, right, scope, now);
        if !may {
            let function = match scope {
                Scope::Function(function) => Some(function),
                Scope::AllFunctions => None,
            };
            let denial = Denial { peer: permissions.peer(), right, function };
            self.push_text(conn, denial.line(), now);
        }
        may
    }

    fn may(&mut self, conn: ConnId, right: Right, scope: Scope<'_>, now: Now) -> bool {
        let Some(access) = self.connections[conn].access_mut() else { return true };
        let verdict = access.may(right, scope);
        let function = match scope {
            Scope::Function(function) => Some(function),
            Scope::AllFunctions => None,
        };
        self.count_verdict(conn, verdict, right, function, now)
    }

    /// Counts a verdict, and notes a refusal. Returns whether it is allowed.
    fn count_verdict(
        &mut self,
        conn: ConnId,
        verdict: Verdict,
        right: Right,
        function: Option<&[u8]>,
        now: Now,
    ) -> bool {
        let Some(permissions) = self.permissions(conn) else { return true };
        // A proxy's may be of a list that this core has replaced, or doesn't have yet.
        if self.access_list.as_ref().is_some_and(|list| Arc::ptr_eq(list, permissions.list())) {
            self.hits.count(verdict);
        }
        if !verdict.is_allowed {
            let peer = self.connections[conn].origin.peer;
            let refused = Refused::new(permissions.peer(), right, function, now);
            self.denials.note(refused, peer, now);
        }
        verdict.is_allowed
    }

    /// What the access list says of a connection; `None` without a list.
    pub(super) fn permissions(&self, conn: ConnId) -> Option<Arc<Permissions>> {
        self.connections[conn].access().map(|access| Arc::clone(access.permissions()))
    }
}

/// At the core of a job.
impl Shard {
    /// Whether a connection, or the one that a proxy stands for, may ask for the state of a job. A
    /// job of another core is that core's to decide about.
    pub(super) fn may_ask_status(&mut self, conn: ConnId, handle: &[u8], now: Now) -> bool {
        let Some(permissions) = self.permissions(conn) else { return true };
        let Some(function) = self.function_of_handle(handle) else { return true };
        let verdict = permissions.status_verdict(&function);
        self.count_verdict(conn, verdict, Right::Observe, Some(&function), now)
    }

    /// Whether a connection may have a line about a job of this core handled.
    ///
    /// # Errors
    /// The reply to a refusal.
    pub(super) fn may_name_job(
        &mut self,
        conn: ConnId,
        line: &[u8],
        now: Now,
    ) -> Result<(), Vec<u8>> {
        let Some(permissions) = self.permissions(conn) else { return Ok(()) };
        let admin::Scope::Job(handle) = admin::scope(line) else { return Ok(()) };
        let Some(function) = self.function_of_handle(handle) else { return Ok(()) };
        let right = Right::Admin;
        let verdict = permissions.may(right, Scope::Function(&function));
        if self.count_verdict(conn, verdict, right, Some(&function), now) {
            return Ok(());
        }
        // The peer has named no function, and isn't told which it is.
        Err(Denial { peer: permissions.peer(), right, function: None }.line())
    }

    /// The function of a job, or of a dead letter, of this core.
    fn function_of_handle(&self, handle: &[u8]) -> Option<Vec<u8>> {
        let number = self.settings.handles.number(c_string(handle))?;
        self.function_of_number(number).map(<[u8]>::to_vec)
    }
}

/// Lists that come and change.
impl Shard {
    /// Uses another access list from now on, here and on all other cores. To be called on one core.
    pub fn set_access_list(&mut self, list: &Arc<AccessList>, now: Now) {
        for core in self.others_and_http() {
            self.outgoing.send(core, Message::Access(Arc::clone(list)));
        }
        self.use_access_list(Arc::clone(list), now);
    }

    /// All other cores, and the thread for HTTP if there is one.
    pub(super) fn others_and_http(&self) -> impl Iterator<Item = Core> + use<> {
        let Settings { cores, has_http, .. } = self.settings;
        cores.others().chain(has_http.then(|| cores.http()))
    }

    pub(super) fn use_access_list(&mut self, list: Arc<AccessList>, now: Now) {
        self.access_list = Some(list);
        self.hits.clear();
        let conns: Vec<ConnId> = self.connections.iter_local().map(|(conn, _)| conn).collect();
        for conn in conns {
            self.admit(conn);
            self.introduce_anew(conn);
        }
        self.deliver(None, now);
    }

    /// Looks up what a connection of this core may do, and takes away what it may not.
    pub(super) fn admit(&mut self, conn: ConnId) {
        let Some(list) = &self.access_list else { return };
        let connection = &mut self.connections[conn];
        let Origin { peer, listener, .. } = connection.origin;
        let listener = self.settings.listeners.get(usize::from(listener));
        let listener = listener.and_then(|listener| listener.name.clone());
        let known = match peer {
            PeerAddress::Ip(address) => Peer::at(address.ip()),
            PeerAddress::Unix(UnixPeer { uid, .. }) => {
                let name = (self.settings.user_name)(uid);
                let user = name.map_or(User::Id(uid), |name| User::Both(uid, name));
                Peer { user: Some(user), ..Peer::default() }
            }
        };
        let certificate = connection.transport.certificate.clone();
        let peer = Peer { listener, certificate, ..known };
        let permissions = Arc::new(Permissions::of(list, &peer));
        self.connections.set_access(conn, Some(Access::new(Arc::clone(&permissions))));
        let is_forbidden =
            |function: &&[u8]| !permissions.may(Right::Work, Scope::Function(function)).is_allowed;
        let here = self.engine.functions_of(conn).filter(is_forbidden).map(Box::from);
        let here: Vec<Box<[u8]>> = here.collect();
        for function in here {
            self.engine.revoke(conn, &function);
            self.log_revoked(conn, &function);
        }
        let remote = self.connections[conn].remote();
        let elsewhere = remote.into_iter().flat_map(|remote| remote.functions());
        let elsewhere: Vec<Box<[u8]>> = elsewhere.filter(is_forbidden).map(Box::from).collect();
        for function in elsewhere {
            self.log_revoked(conn, &function);
            self.revoke_at_owner(conn, function);
        }
    }

    fn log_revoked(&self, conn: ConnId, function: &[u8]) {
        if enabled!(target: PEERS, Level::INFO)
            && let Some(peer) = self.peer_name(conn)
        {
            let function = function.escape_ascii();
            info!(
                target: PEERS, conn = conn.number(), %peer, %function,
                "function withdrawn: the access list doesn't allow it any more"
            );
        }
    }
}
