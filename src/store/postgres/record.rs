//! The record about handles, and the blocks of sequence numbers: `ringgear_cluster` and
//! `ringgear_block`.
//!
//! Knows their columns, not the meaning of the record (`namespace`).
//!
//! Invariant: a block is given to one partition, and its row is written together with the number of
//! the next one.

use std::ops::Range;

use tokio_postgres::types::{ToSql, Type};

use super::commit::{self, Fence, Fenced};
use super::error::SessionError;
use super::partitions::column;
use super::session::{ANSWER_TIMEOUT, Question, Session, answer, answers};
use crate::cluster::blocks::{BLOCK_BITS, block_of, sequences};
use crate::cluster::partition::PartitionId;
use crate::store::StoreError;
use crate::store::namespace::{BLOCK, Record};

/// Blocks that are reserved at once.
pub(super) const BLOCKS: u64 = BLOCK >> BLOCK_BITS;

/// The record. Numbers above 2^63 are negative in the tables, and larger than all others.
const READ: &str = "\
WITH number (number) AS (
    SELECT (SELECT max(number) FROM ringgear_job j WHERE j.partition = p.partition)
    FROM ringgear_partition p UNION ALL
    SELECT (SELECT max(number) FROM ringgear_dead d WHERE d.partition = p.partition)
    FROM ringgear_partition p UNION ALL
    SELECT (SELECT max(number) FROM ringgear_job j WHERE j.partition = p.partition AND number < 0)
    FROM ringgear_partition p UNION ALL
    SELECT (SELECT max(number) FROM ringgear_dead d WHERE d.partition = p.partition AND number < 0)
    FROM ringgear_partition p)
SELECT prefix, next_block, coalesce(
    (SELECT max(number) FROM number WHERE number < 0),
    (SELECT max(number) FROM number))
FROM ringgear_cluster";

/// Prefixes in tables of this version, and of those from the second on.
const PREFIXES: [&str; 2] =
    ["SELECT prefix FROM ringgear_cluster", "SELECT handle_prefix FROM ringgear_owner"];

const SET_PREFIX: &str = "UPDATE ringgear_cluster SET prefix = $1 WHERE prefix IS NULL";

/// Takes blocks from `$1` on, or later ones.
const TAKE: &str = "\
UPDATE ringgear_cluster SET next_block = greatest(next_block, $1) + $2
RETURNING next_block, prefix";

/// Notes the blocks that `TAKE` has taken in the same transaction.
const NOTE: &str = "\
INSERT INTO ringgear_block (block, partition)
SELECT next_block - block, $2 FROM ringgear_cluster, generate_series(1, $1) AS block";

/// The next block never decreases, even if this server knows of an earlier one.
const RAISE: &str = "\
UPDATE ringgear_cluster SET next_block = $1 WHERE next_block < $1";

const NOTE_AGAIN: &str = "\
INSERT INTO ringgear_block (block, partition) SELECT block, $2 FROM unnest($1::int8[]) AS block
ON CONFLICT (block) DO NOTHING";

const COUNT_OTHERS: &str = "\
SELECT count(*) FROM ringgear_block WHERE block = ANY ($1) AND partition <> $2";

const BLOCKS_ABOVE: &str = "\
SELECT block, partition FROM ringgear_block WHERE block > $1 ORDER BY block";

/// All statements, for the test of what they must not have.
#[cfg(test)]
pub(super) const STATEMENTS: [&str; 8] =
    [READ, SET_PREFIX, TAKE, NOTE, RAISE, NOTE_AGAIN, COUNT_OTHERS, BLOCKS_ABOVE];

/// Reads the record.
pub(super) async fn read(session: &Session) -> Result<Record, SessionError> {
    let row = answer(ANSWER_TIMEOUT, session.client.query_one(READ, &[])).await?;
    let next_block: i64 = row.get(1);
    let mark = sequences(0..next_block.cast_unsigned()).end;
    let last = row.get::<_, Option<i64>>(2).map(i64::cast_unsigned);
    Ok(Record { prefix: row.get(0), mark: Some(mark), last })
}

/// Reads the prefix of handles, also in tables of an earlier version.
pub(super) async fn peek(session: &Session) -> Record {
    for sql in PREFIXES {
        let row = answer(ANSWER_TIMEOUT, session.client.query_typed_opt(sql, &[])).await;
        if let Ok(Some(row)) = row {
            return Record { prefix: row.get(0), ..Record::default() };
        }
    }
    Record::default()
}

/// Records the prefix of handles unless there is one.
pub(super) async fn set_prefix(session: &Session, prefix: &[u8]) -> Result<(), SessionError> {
    session.forget_warning();
    answer(ANSWER_TIMEOUT, session.client.execute(SET_PREFIX, &[&prefix])).await?;
    session.check_warning()
}

/// Takes `count` blocks for the fence's partition, none of them before `from`; their sequence
/// numbers.
///
/// # Errors
/// `SessionError::Warned` if that may not survive a failover; with a sentence, if handles have
/// another prefix by now.
pub(super) async fn reserve(
    session: &Session,
    fence: &Fence,
    (prefix, from, count): (Option<&[u8]>, u64, u64),
) -> Result<Fenced<Range<u64>>, SessionError> {
    // A block that has begun before `from` may be another partition's.
    let (first, count) = (from.div_ceil(first_of(1)).cast_signed(), count.cast_signed());
    let types = [Type::INT8, Type::INT8];
    let client = &session.client;
    let take = answer(ANSWER_TIMEOUT, client.prepare_typed(TAKE, &types)).await?;
    let types = [Type::INT8, Type::INT4];
    let note = answer(ANSWER_TIMEOUT, client.prepare_typed(NOTE, &types)).await?;
    let fence_statement = commit::prepare_fence(session).await?;
    let (fence_parameters, home) = (fence.parameters(), column(fence.partition));
    let take_parameters: [&(dyn ToSql + Sync); 2] = [&first, &count];
    let note_parameters: [&(dyn ToSql + Sync); 2] = [&count, &home];
    session.forget_warning();
    session.run(ANSWER_TIMEOUT, "BEGIN").await?;
    let fence_references = fence_parameters.references();
    let questions: Vec<Question<'_, Vec<tokio_postgres::Row>>> = vec![
        Box::pin(client.query(&fence_statement, &fence_references)),
        Box::pin(client.query(&take, &take_parameters)),
        Box::pin(client.query(&note, &note_parameters)),
    ];
    let mut answers = answers(ANSWER_TIMEOUT, questions).await?.into_iter();
    let fenced = commit::fenced(fence, answers.next())?;
    if let Some(partition) = fenced {
        session.run(ANSWER_TIMEOUT, "ROLLBACK").await?;
        return Ok(Fenced::Lost(partition));
    }
    let mut rows = Vec::new();
    for answered in answers {
        match answered {
            Ok(found) => rows.extend(found),
            Err(error) => {
                let error = SessionError::Error(error);
                if error.is_refusal() {
                    session.run(ANSWER_TIMEOUT, "ROLLBACK").await?;
                }
                return Err(error);
            }
        }
    }
    let taken = rows.first().map(|row| (row.get::<_, i64>(0), row.get::<_, Option<Vec<u8>>>(1)));
    let Some((end, recorded)) = taken else {
        session.run(ANSWER_TIMEOUT, "ROLLBACK").await?;
        return Err(SessionError::Explained(StoreError::Unusable(format!(
            "the table ringgear_cluster in {} has lost its row: restore it from a backup",
            session.place
        ))));
    };
    if let (Some(prefix), Some(recorded)) = (prefix, recorded)
        && prefix != recorded
    {
        session.run(ANSWER_TIMEOUT, "ROLLBACK").await?;
        return Err(SessionError::Explained(StoreError::Unusable(format!(
            "handles of the jobs in {} start with \"{}\" by now, and this server's with \"{}\": \
             start it again",
            session.place,
            recorded.escape_ascii(),
            prefix.escape_ascii()
        ))));
    }
    session.commit(ANSWER_TIMEOUT).await?;
    let end = end.cast_unsigned();
    Ok(Fenced::Done(sequences(end.saturating_sub(count.cast_unsigned())..end)))
}

/// Blocks above this one, with their partitions; all if it is `None`.
pub(super) async fn blocks(
    session: &Session,
    above: Option<u64>,
) -> Result<Vec<(u64, PartitionId)>, SessionError> {
    let above = above.map_or(-1, u64::cast_signed);
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&above, Type::INT8)];
    let rows =
        answer(ANSWER_TIMEOUT, session.client.query_typed(BLOCKS_ABOVE, &parameters)).await?;
    let block = |row: &tokio_postgres::Row| {
        (row.get::<_, i64>(0).cast_unsigned(), row.get::<_, i32>(1).cast_unsigned())
    };
    Ok(rows.iter().map(block).collect())
}

/// Writes again what a failover may have undone: the prefix, the next block, and the blocks of this
/// partition. `false` if one of them is another partition's by now.
pub(super) async fn write_again(
    session: &Session,
    prefix: Option<&[u8]>,
    partition: PartitionId,
    blocks: &[u64],
) -> Result<bool, SessionError> {
    if let Some(prefix) = prefix {
        set_prefix(session, prefix).await.or_else(unless_warned)?;
    }
    let Some(last) = blocks.last() else { return Ok(true) };
    let (next, partition) = ((last + 1).cast_signed(), column(partition));
    let blocks: Vec<i64> = blocks.iter().map(|block| block.cast_signed()).collect();
    answer(ANSWER_TIMEOUT, session.client.execute(RAISE, &[&next])).await?;
    let parameters: [&(dyn ToSql + Sync); 2] = [&blocks, &partition];
    answer(ANSWER_TIMEOUT, session.client.execute(NOTE_AGAIN, &parameters)).await?;
    let row = answer(ANSWER_TIMEOUT, session.client.query_one(COUNT_OTHERS, &parameters)).await?;
    // The next commit that the replica confirms includes this one.
    session.forget_warning();
    Ok(row.get::<_, i64>(0) == 0)
}

fn unless_warned(error: SessionError) -> Result<(), SessionError> {
    if matches!(error, SessionError::Warned(_)) { Ok(()) } else { Err(error) }
}

/// The first sequence number of a block.
pub(super) fn first_of(block: u64) -> u64 {
    sequences(block..block + 1).start
}

/// The blocks of a range of sequence numbers.
pub(super) fn blocks_of(sequences: &Range<u64>) -> Range<u64> {
    block_of(sequences.start)..block_of(sequences.end)
}
