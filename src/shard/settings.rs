//! The settings of a shard: given when it is made, and never changed.
//!
//! Limits, names and what the cores share. Knows no options and no files.
//!
//! Invariant: all cores of a server have the same settings but for `cores.own` and `engine`.

use std::sync::Arc;

use crate::cluster::view::View;
use crate::engine;
use crate::engine::handle::Handles;
use crate::protocol::access::AccessList;
use crate::protocol::admin::Identity;
use crate::protocol::log_level::FixedLevel;
use crate::shard::cores::Cores;
use crate::shard::dead_drops::DeadDropLog;
use crate::shard::remote::urgency::Urgency;
use crate::wire::buffer_pool::BufferPool;
use crate::wire::tls::TlsServer;

/// The settings of a shard.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For the engine.
    pub engine: engine::Settings,
    /// Job numbers ⇄ handles.
    pub handles: Handles,
    /// Version and process, as text commands report them.
    pub identity: Identity,
    /// Whether connections get exceptions without asking for them.
    pub exceptions: bool,
    /// Largest body of a packet.
    pub body_bytes_max: usize,
    /// Most memory for jobs and for what is on its way.
    pub memory_bytes_max: usize,
    /// Buffers of large bodies that are free again; the cores share them.
    pub buffer_pool: BufferPool,
    /// Outbox limit per connection, checked before each packet is appended.
    pub outbox_bytes_max: usize,
    /// Most connections, all cores together.
    pub connections_max: usize,
    /// Most connections of this core.
    pub core_connections_max: usize,
    /// Which core this is.
    pub cores: Cores,
    /// Priorities of queued jobs of each core; the cores share it.
    pub urgency: Urgency,
    /// Lines about dead letters that were dropped; the cores share it.
    pub dead_drops: DeadDropLog,
    /// Whether there is a thread for HTTP, which messages call `Cores::http`.
    pub has_http: bool,
    /// What is known of the partitions of a store that several servers may use.
    pub cluster: Option<Arc<View>>,
    /// Whether other servers are active beside this one: then it drains without an error for any
    /// client, as they go on elsewhere.
    pub has_other_servers: bool,
    /// The access list at the start; `None` allows everything.
    pub access_list: Option<Arc<AccessList>>,
    /// TLS at the start, if a listener speaks it.
    pub tls: Option<Arc<TlsServer>>,
    /// How long a TLS handshake may take, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// Most TLS handshakes of a core that aren't finished.
    pub handshakes_max: usize,
    /// The name of a user of this host by its number, if it has one; called once for each
    /// connection by a Unix socket, and only with an access list.
    pub user_name: fn(u32) -> Option<Box<str>>,
    /// The listeners that connections come to.
    pub listeners: Arc<[Listener]>,
    /// Submissions in a row to one other core after which a client moves there; workers do at once.
    /// 0 = neither moves.
    pub move_after: u32,
}

/// A listener, as the shard knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// How `--listen` names it; none for loopback without `--listen`.
    pub name: Option<Arc<str>>,
    /// Whether its connections speak TLS.
    pub speaks_tls: bool,
}

impl Default for Settings {
    /// What tests and benches want: room for everything, nothing random.
    fn default() -> Self {
        Self {
            engine: engine::Settings::default(),
            handles: Handles::default(),
            identity: Identity { version: "0.1", log_level: Arc::new(FixedLevel("ERROR")), pid: 1 },
            exceptions: false,
            body_bytes_max: 1 << 30,
            memory_bytes_max: 1 << 30,
            buffer_pool: BufferPool::new(1 << 30),
            outbox_bytes_max: 1 << 30,
            connections_max: 1 << 20,
            core_connections_max: 1 << 20,
            cores: Cores::default(),
            urgency: Urgency::default(),
            dead_drops: DeadDropLog::default(),
            has_http: false,
            cluster: None,
            has_other_servers: false,
            access_list: None,
            tls: None,
            handshake_timeout_ms: 5000,
            handshakes_max: 1024,
            user_name: |_| None,
            listeners: Arc::default(),
            move_after: 0,
        }
    }
}
