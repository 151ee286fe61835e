//! What connections to the one server of a run leave behind, for those that resume their sessions.
//!
//! The library's own store has 8 tickets for each server, fewer than the connections that are
//! opened at a time. Invariant: no more than `tickets_max` are kept, the latest.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

#[derive(Debug, Default)]
struct Held {
    group: Option<NamedGroup>,
    /// Of TLS 1.2; it may be resumed any number of times.
    session: Option<Tls12ClientSessionValue>,
    /// Of TLS 1.3; each is used once.
    tickets: VecDeque<Tls13ClientSessionValue>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tickets {
    held: Mutex<Held>,
    tickets_max: usize,
}

impl Tickets {
    pub(super) fn new(tickets_max: usize) -> Self {
        Self { held: Mutex::default(), tickets_max }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.held().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.held().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.held().session = Some(session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.held().session.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.held().session = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut held = self.held();
        if held.tickets.len() == self.tickets_max {
            held.tickets.pop_front();
        }
        held.tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.held().tickets.pop_back()
    }
}
