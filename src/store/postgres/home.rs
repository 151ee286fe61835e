//! Finds a home: a session in, a partition for new jobs out.
//!
//! Knows no jobs.
//!
//! Invariant: a home was free, or is new.

use super::error::SessionError;
use super::partitions::{self, Owner, Tenure};
use super::session::Session;
use crate::cluster::partition::{PartitionId, State};
use crate::store::StoreError;

/// How often other servers may be faster.
const ATTEMPTS_MAX: usize = 20;

/// A partition that this server has got, with its generation and the owner before.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) partition: PartitionId,
    pub(super) generation: i64,
    pub(super) before: Tenure,
}

/// Takes a free partition, or makes one.
pub(super) async fn take(session: &Session, owner: &Owner) -> Result<Taken, SessionError> {
    for _ in 0..ATTEMPTS_MAX {
        let readings = partitions::read(session, &mut false).await?;
        for reading in readings.iter().filter(|it| it.partition.state == State::Free) {
            let taken = partitions::adopt(session, &reading.partition, owner).await?;
            if let Some(generation) = taken {
                let partition = reading.partition.id;
                return Ok(Taken { partition, generation, before: Tenure::of(&reading.partition) });
            }
        }
        let partition = readings.last().map_or(0, |last| last.partition.id + 1);
        let generation = 1;
        if partitions::create(session, partition, generation, owner).await? {
            return Ok(Taken { partition, generation, before: Tenure::default() });
        }
    }
    Err(SessionError::Explained(StoreError::Unavailable(format!(
        "other servers have taken all free partitions in {}: try again",
        session.place
    ))))
}
