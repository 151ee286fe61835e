//! The peers' side of TLS: what they say in, records out; records of the shard in, what they hold
//! out. Records are as random as their keys, so only plaintext takes part in a run.
//!
//! Invariant: a chunk of records is reported as sent when what was in it is.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::{Arc, LazyLock};

use ringgear::engine::{ConnId, Now};
use ringgear::shard::{Listener, Service as _, Settings, Shard};
use ringgear::wire::outbox::Chunk;
use ringgear::wire::tls::TlsServer;
use rustls::{ClientConfig, ClientConnection};

use crate::tls_pair;

/// The number of the listener that speaks TLS.
pub(crate) const LISTENER: u16 = 1;

/// Certificate and key take longer to make than a run.
static CONFIGS: LazyLock<(Arc<TlsServer>, Arc<ClientConfig>)> = LazyLock::new(tls_pair::configs);

/// Settings of a server with a listener that speaks TLS beside a plain one.
pub(crate) fn settings(settings: Settings) -> Settings {
    let listener = |speaks_tls| Listener { name: None, speaks_tls };
    Settings {
        tls: Some(Arc::clone(&CONFIGS.0)),
        listeners: [listener(false), listener(true)].into(),
        // The state of TLS counts, and is more than the smallest memories have.
        memory_bytes_max: 1 << 30,
        ..settings
    }
}

struct Client {
    session: ClientConnection,
    /// Chunks whose content was handed out, the oldest first.
    taken: VecDeque<Chunk>,
}

/// Peers that speak TLS.
#[derive(Default)]
pub(crate) struct TlsPeers(BTreeMap<ConnId, Client>);

impl TlsPeers {
    /// A peer and the shard, which has it as `local`, greet each other.
    pub(crate) fn connect(&mut self, conn: ConnId, local: ConnId, shard: &mut Shard, now: Now) {
        let mut session = tls_pair::client(&CONFIGS.1);
        session.set_buffer_limit(None);
        while session.is_handshaking() || session.wants_write() {
            let mut records = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut records).unwrap();
            }
            shard.received(local, &records, now);
            while let Some((chunk, _)) = shard.take(local) {
                assert!(read(&mut session, chunk.as_ref()).is_empty());
                shard.sent(local, chunk, now);
            }
        }
        self.0.insert(conn, Client { session, taken: VecDeque::new() });
    }

    pub(crate) fn disconnect(&mut self, conn: ConnId) {
        self.0.remove(&conn);
    }

    /// What a peer says, as it arrives.
    pub(crate) fn said(&mut self, conn: ConnId, bytes: &[u8]) -> Option<Vec<u8>> {
        let session = &mut self.0.get_mut(&conn)?.session;
        session.writer().write_all(bytes).unwrap();
        let mut records = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut records).unwrap();
        }
        Some(records)
    }

    /// What is in a chunk for a peer.
    pub(crate) fn open(&mut self, conn: ConnId, chunk: Chunk) -> Chunk {
        let Some(client) = self.0.get_mut(&conn) else { return chunk };
        let content = read(&mut client.session, chunk.as_ref());
        client.taken.push_back(chunk);
        Chunk::Packets(content)
    }

    /// The chunk whose content has been sent.
    pub(crate) fn sent(&mut self, conn: ConnId, chunk: Chunk) -> Chunk {
        let client = self.0.get_mut(&conn);
        client.and_then(|client| client.taken.pop_front()).unwrap_or(chunk)
    }
}

/// The plaintext of records.
fn read(session: &mut ClientConnection, records: &[u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    tls_pair::open(session, records, &mut plaintext);
    plaintext
}
