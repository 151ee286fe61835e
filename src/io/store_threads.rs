//! The threads of the store: what the store has in, recovered shards, the threads and each core's
//! link to them out.
//!
//! One thread commits, the other watches the partitions of a store that has some. Knows neither
//! sockets nor the engine.
//!
//! Invariant: shards have what the store has, and numbers for new jobs, before a thread runs.

use std::io::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::IoError;
use super::cores::mesh::CoreWaker;
use super::host::clock::Clock;
use super::host::signals::Leaving;
use super::member::{Member, MemberSender, MemberSettings, member_channel};
use super::recovery::recover;
use super::store_link::{MemberLink, OutcomeSender, StoreLink, outcome_channel};
use crate::cluster::view::View;
use crate::shard::cores::{Core, Cores};
use crate::shard::{Settings, Shard};
use crate::store::health::StoreHealth;
use crate::store::lease_state::LeaseState;
use crate::store::members::Members;
use crate::store::own_pauses::OwnPauses;
use crate::store::writer::{self, Writer};
use crate::store::{Store, StoreError};

/// How long the thread that watches may take to end; it has nothing to write.
const MEMBER_GRACE: Duration = Duration::from_millis(500);

/// What the threads are started with.
pub(super) struct StoreSettings<'a> {
    pub(super) settings: &'a Settings,
    /// How long a background job may wait for a store that fails.
    pub(super) timeout: Duration,
    pub(super) health: Arc<StoreHealth>,
    /// Whether other servers may be active at the same time.
    pub(super) is_cluster: bool,
    /// Which signals to end have come.
    pub(super) leaving: Arc<Leaving>,
    /// Bytes that jobs may still take.
    pub(super) memory_left: Box<dyn Fn() -> usize + Send>,
}

/// The threads of a store.
pub(super) struct StoreThreads {
    writer: Writer,
    member: Option<Member>,
}

impl StoreThreads {
    /// Writes what was handed over, and ends the threads. The cores have ended.
    pub(super) fn stop(self, within: Duration) {
        let Self { writer, member } = self;
        // Other servers get the partitions as soon as all is written.
        member.iter().for_each(Member::begin_stop);
        writer.stop(within);
        if let Some(member) = member {
            member.stop(MEMBER_GRACE);
        }
    }
}

impl StoreSettings<'_> {
    /// Takes back what the store has, reserves job numbers, and starts the threads; returns them
    /// and each core's link to them.
    pub(super) fn start(
        self,
        mut store: Box<dyn Store>,
        members: Option<Box<dyn Members>>,
        shards: &mut [Shard],
        wakers: &[CoreWaker],
        clock: &Clock,
    ) -> Result<(StoreThreads, Vec<StoreLink>), IoError> {
        let Self { settings, timeout, health, is_cluster, leaving, memory_left } = self;
        let pauses = recover(store.as_mut(), shards, clock)?;
        let prefix: Box<[u8]> = settings.handles.prefix().into();
        let first = settings.engine.first_sequence;
        let before = Instant::now();
        let (sequences, needs_sequences) = reserve(store.as_mut(), &prefix, first)?;
        shards.iter_mut().for_each(|shard| shard.set_sequences(sequences.clone()));
        let (cores, mark) = (shards.len(), sequences.end);
        let lease = store.lease().map(|it| Arc::new(LeaseState::new(it, cores, clock.began())));
        if let Some(lease) = lease.as_ref().filter(|_| !needs_sequences) {
            // The reservation was a beat: the server isn't suspended when it begins.
            lease.note_beat(before);
        }
        let view = settings.cluster.clone().unwrap_or_default();
        let own_pauses = Arc::<OwnPauses>::default();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            wakers.iter().take(cores).map(|waker| outcome_channel(waker.clone())).unzip();
        let writer = Writer::start(
            store,
            writer::Settings {
                cores,
                timeout,
                prefix,
                mark,
                needs_sequences,
                health,
                lease: lease.clone(),
                view: Arc::clone(&view),
                pauses: Arc::clone(&own_pauses),
            },
            report_to(senders.clone()),
        )?;
        let (requests, to_member) = member_channel();
        let link = |core: Core, receiver| {
            let member = lease.clone().map(|lease| member_link(lease, &view, &requests));
            StoreLink::new(core, receiver, &writer, mark, member)
        };
        let links = receivers.into_iter().enumerate();
        let links = links.map(|(core, receiver)| link(core, receiver)).collect();
        let start = |(members, lease)| -> Result<Member, Error> {
            let settings = MemberSettings {
                members,
                lease,
                view: Arc::clone(&view),
                writer: writer.sender(),
                cores: Cores { own: 0, count: cores },
                is_cluster,
                own_pauses,
                pauses,
                memory_left,
                is_leaving: Box::new(move || leaving.is_any()),
            };
            Member::start(settings, (requests.clone(), to_member), report_to(senders))
        };
        let member = members.zip(lease.clone()).map(start).transpose()?;
        Ok((StoreThreads { writer, member }, links))
    }
}

fn report_to(senders: Vec<OutcomeSender>) -> impl Fn(Core, writer::Outcome) + Send + 'static {
    move |core, outcome| senders[core].send(outcome)
}

fn member_link(lease: Arc<LeaseState>, view: &Arc<View>, requests: &MemberSender) -> MemberLink {
    let (view, requests) = (Arc::clone(view), requests.clone());
    MemberLink { lease, view, requests, is_suspended: false }
}

/// Reserves job numbers from `first` on. Returns them, and whether none could be reserved: a
/// server starts with a store that can't be written to, so that the jobs in it can be worked off,
/// but no job gets a number until the store can.
fn reserve(
    store: &mut dyn Store,
    prefix: &[u8],
    first: u64,
) -> Result<(Range<u64>, bool), StoreError> {
    match store.reserve(prefix, first) {
        Ok(sequences) => Ok((sequences, false)),
        Err(StoreError::Unavailable(reason)) => {
            warn!(
                reason,
                "no job numbers can be reserved: submissions are refused until the store can write"
            );
            Ok((first..first, true))
        }
        Err(error) => Err(error),
    }
}
