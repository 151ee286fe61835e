//! What statements must not have, so that other engines than PostgreSQL take them.
//!
//! Looks at the text of all statements but those that only PostgreSQL gets: upgrades of tables from
//! before partitions, and the import of gearmand's. Specification: docs/cluster.md.

use super::change::Change;
use super::schema::SCHEMA;
use super::{commit, load, members, partitions, record};

/// Every statement that all engines get.
fn statements() -> Vec<&'static str> {
    let mut all = vec![SCHEMA];
    all.extend(Change::ALL.map(Change::sql));
    all.extend(commit::STATEMENTS);
    all.extend(load::STATEMENTS);
    all.extend(members::STATEMENTS);
    all.extend(partitions::STATEMENTS);
    all.extend(record::STATEMENTS);
    all
}

/// How often one of these words begins a modification.
fn modifications(sql: &str) -> usize {
    ["INSERT INTO ", "UPDATE ringgear_", "DELETE FROM "]
        .iter()
        .map(|it| sql.matches(it).count())
        .sum()
}

#[test]
fn they_need_neither_table_locks_nor_notifications_nor_the_databases_clock() {
    for sql in statements() {
        let text = sql.to_uppercase();
        let words: Vec<&str> = text.split(|it: char| !it.is_alphanumeric() && it != '_').collect();
        for word in ["LOCK", "LISTEN", "NOTIFY", "NOW", "CURRENT_TIMESTAMP", "CLOCK_TIMESTAMP"] {
            assert!(!words.contains(&word), "{word} in {sql}");
        }
        for words in ["FOR SHARE", "FOR UPDATE", "SKIP LOCKED", "ON COMMIT", "SET STORAGE"] {
            assert!(!text.contains(words), "{words} in {sql}");
        }
    }
}

#[test]
fn each_changes_one_table_once() {
    for sql in statements().into_iter().filter(|sql| *sql != SCHEMA) {
        assert!(modifications(sql) <= 1, "{sql}");
    }
}

#[test]
fn each_that_concerns_jobs_begins_with_their_partition() {
    for sql in statements().into_iter().filter(|sql| *sql != SCHEMA) {
        let concerns = sql.contains("ringgear_job") || sql.contains("ringgear_dead");
        let is_keyed =
            ["partition = $1", "partition = ANY ($1)", "(partition, ", ".partition = p."]
                .iter()
                .any(|key| sql.contains(key));
        assert!(!concerns || is_keyed, "{sql}");
    }
}
