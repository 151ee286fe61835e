//! Commits: chunks and fences in, one transaction out.
//!
//! A transaction begins with a fence for each partition: an `UPDATE` of its row that fails unless
//! the generation is this server's. It is the partition's beat, too. All statements of a chunk are
//! sent together, and take one round trip. Knows no operations.
//!
//! Invariant: a transaction is committed only if all of its fences have held, and the row's lock
//! keeps other servers from taking a partition over before the transaction ends.

use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::change::{Change, Chunk, Parameter};
use super::error::SessionError;
use super::partitions::column;
use super::session::{
    ANSWER_TIMEOUT, Question, Session, answer, answers, limit, statement_timeout,
};
use crate::cluster::partition::PartitionId;

/// Size above which a transaction sets a longer time limit at the server.
const SHORT_BYTES_MAX: usize = 1 << 20;

/// Fails with a division by zero if the partition isn't this server's any more: the statements that
/// were sent with it fail, too.
const FENCE: &str = "\
WITH fence AS (
    UPDATE ringgear_partition SET beat = beat + 1, jobs = coalesce($3, jobs)
    WHERE partition = $1 AND generation = $2 RETURNING 1)
SELECT 1 / count(*) FROM fence";

/// All statements, for the test of what they must not have.
#[cfg(test)]
pub(super) const STATEMENTS: [&str; 1] = [FENCE];

/// What a transaction needs to be let through for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) partition: PartitionId,
    pub(super) generation: i64,
    /// Number of jobs in it, for others to read; `None` = not known yet.
    pub(super) jobs: Option<u64>,
}

/// What has become of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fenced<T> {
    /// It is committed.
    Done(T),
    /// Nothing is committed: this partition is another server's.
    Lost(PartitionId),
}

/// The prepared statements of commits.
pub(super) struct Statements {
    fence: Statement,
    /// In the order of `Change::ALL`.
    changes: Vec<Statement>,
}

/// Parameters of `FENCE`.
pub(super) struct FenceParameters(i32, i64, Option<i64>);

impl FenceParameters {
    pub(super) fn references(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.0, &self.1, &self.2]
    }
}

impl Fence {
    pub(super) fn parameters(&self) -> FenceParameters {
        let jobs = self.jobs.map(u64::cast_signed);
        FenceParameters(column(self.partition), self.generation, jobs)
    }
}

pub(super) async fn prepare_fence(session: &Session) -> Result<Statement, SessionError> {
    let types = [Type::INT4, Type::INT8, Type::INT8];
    answer(ANSWER_TIMEOUT, session.client.prepare_typed(FENCE, &types)).await
}

/// Prepares the statements of commits.
pub(super) async fn prepare(session: &Session) -> Result<Statements, SessionError> {
    let fence = prepare_fence(session).await?;
    let mut questions: Vec<Question<'_, Statement>> = Vec::new();
    for change in Change::ALL {
        let sql = if session.is_postgresql { change.sql_for_postgresql() } else { change.sql() };
        questions.push(Box::pin(session.client.prepare_typed(sql, change.types())));
    }
    let prepared = answers(ANSWER_TIMEOUT, questions).await?;
    let changes = prepared.into_iter().collect::<Result<_, _>>().map_err(SessionError::Error)?;
    Ok(Statements { fence, changes })
}

/// The partition, if the answer to its fence says that it is lost.
pub(super) fn fenced<T>(
    fence: &Fence,
    answered: Option<Result<T, tokio_postgres::Error>>,
) -> Result<Option<PartitionId>, SessionError> {
    match answered {
        Some(Err(error)) if error.code() == Some(&SqlState::DIVISION_BY_ZERO) => {
            Ok(Some(fence.partition))
        }
        Some(Err(error)) => Err(SessionError::Error(error)),
        _ => Ok(None),
    }
}

/// Applies all chunks in one transaction and returns the number of changed rows.
///
/// # Errors
/// `SessionError`; after a refusal the transaction has ended, and the session is usable.
pub(super) async fn apply(
    session: &Session,
    statements: &Statements,
    fences: &[Fence],
    chunks: &[Chunk<'_>],
) -> Result<Fenced<u64>, SessionError> {
    session.forget_warning();
    let none = [Chunk::default()];
    let chunks = if chunks.is_empty() { &none } else { chunks };
    let longest = chunks.iter().map(|chunk| chunk.bytes).max().unwrap_or_default();
    let mut changed = 0;
    for (at, chunk) in chunks.iter().enumerate() {
        let begins = at == 0;
        let ends = at + 1 == chunks.len();
        let begin = if begins { begin(session, longest) } else { String::new() };
        let fences = if begins { fences } else { &[] };
        let flight = Flight { begin, fences, chunk, ends };
        match flight.send(session, statements).await {
            Ok(Fenced::Done(rows)) => changed += rows,
            // Its COMMIT, if it was sent, has rolled everything back.
            lost_or_failed => {
                let is_open = match &lost_or_failed {
                    Ok(_) => !ends,
                    Err(error) => !ends && error.is_refusal(),
                };
                if is_open {
                    session.run(ANSWER_TIMEOUT, "ROLLBACK").await?;
                }
                return lost_or_failed;
            }
        }
    }
    session.check_warning()?;
    Ok(Fenced::Done(changed))
}

/// The statements that begin a transaction.
fn begin(session: &Session, bytes: usize) -> String {
    // Elsewhere a setting that is refused would end the transaction.
    if bytes > SHORT_BYTES_MAX && session.is_postgresql {
        format!("BEGIN; {}", statement_timeout("LOCAL", limit(bytes)))
    } else {
        "BEGIN".to_owned()
    }
}

/// What is sent together.
struct Flight<'a> {
    /// The statements that begin the transaction; may be empty.
    begin: String,
    fences: &'a [Fence],
    chunk: &'a Chunk<'a>,
    /// Whether it ends the transaction.
    ends: bool,
}

impl Flight<'_> {
    async fn send(
        &self,
        session: &Session,
        statements: &Statements,
    ) -> Result<Fenced<u64>, SessionError> {
        let client = &session.client;
        let fences: Vec<_> = self.fences.iter().map(Fence::parameters).collect();
        let fences: Vec<_> = fences.iter().map(FenceParameters::references).collect();
        let partition = column(self.chunk.partition);
        let changes: Vec<(&Statement, Vec<Parameter<'_>>)> = self
            .chunk
            .statements()
            .into_iter()
            .filter_map(|(change, mut parameters)| {
                if change.is_of_partition() {
                    parameters.insert(0, &partition);
                }
                Some((statements.changes.get(change as usize)?, parameters))
            })
            .collect();
        let mut questions: Vec<Question<'_, u64>> = Vec::new();
        if !self.begin.is_empty() {
            questions.push(Box::pin(async { client.batch_execute(&self.begin).await.map(|()| 0) }));
        }
        let first_fence = questions.len();
        for parameters in &fences {
            questions.push(Box::pin(async {
                client.execute(&statements.fence, parameters).await.map(|_| 0)
            }));
        }
        for (statement, parameters) in &changes {
            questions.push(Box::pin(client.execute(*statement, parameters)));
        }
        if self.ends {
            questions.push(Box::pin(async { client.batch_execute("COMMIT").await.map(|()| 0) }));
        }
        let mut changed = 0;
        let answers = answers(limit(self.chunk.bytes), questions).await?;
        for (at, answered) in answers.into_iter().enumerate() {
            let fence = at.checked_sub(first_fence).and_then(|at| self.fences.get(at));
            match (fence, answered) {
                (_, Ok(rows)) => changed += rows,
                (Some(fence), answered) => {
                    let lost = fenced(fence, Some(answered))?;
                    return Ok(Fenced::Lost(lost.unwrap_or(fence.partition)));
                }
                (None, Err(error)) => return Err(SessionError::Error(error)),
            }
        }
        Ok(Fenced::Done(changed))
    }
}
