//! The text command `cluster`: what is known of the partitions of the database in, their rows out.
//!
//! All servers of a database list the same partitions. Knows no database.
//!
//! Invariant: a row for each partition, in the order of their numbers.

use std::time::Instant;

use super::columns::{age, name, number, text};
use crate::cluster::view::{Known, View};

/// The names of the columns.
pub(super) const TITLES: &str = "ID\tSTATE\tNAME\tADDRESS\tGENERATION\tAGE\tJOBS";

/// Appends the rows; none without a database that has partitions.
pub(super) fn write(view: Option<&View>, now_ms: u64, out: &mut Vec<u8>) {
    if let Some(view) = view {
        let now = view.at_core_time(now_ms);
        view.read().partitions.iter().for_each(|known| row(known, now, out));
    }
    text(out, &[b".\n"]);
}

fn row(known: &Known, now: Option<Instant>, out: &mut Vec<u8>) {
    let partition = &known.partition;
    number(out, partition.id);
    text(out, &[b"\t", partition.state.name().as_bytes(), b"\t"]);
    name(out, partition.name.as_bytes());
    out.push(b'\t');
    name(out, partition.address.as_bytes());
    out.push(b'\t');
    number(out, partition.generation);
    out.push(b'\t');
    let since_beat = now.and_then(|now| known.age(now));
    age(out, since_beat.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)));
    out.push(b'\t');
    number(out, partition.jobs);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::three_partitions;

    #[test]
    fn a_line_a_partition_with_seven_columns() {
        let now = Instant::now();
        let rows = |view: Option<&View>, now_ms| {
            let mut out = Vec::new();
            write(view, now_ms, &mut out);
            String::from_utf8(out).unwrap()
        };
        let view = three_partitions(now);
        let owned = "0\towned\tweb-1\tweb-1.example:4730\t3";
        let offered = "1\toffered\tweb-2\t-\t7";
        let free = "2\tfree\t-\t-\t1\t-\t0\n";
        let before = rows(Some(&view), 9000);
        assert_eq!(before, format!("{owned}\t-\t12\n{offered}\t-\t5\n{free}.\n"));
        view.set_cores_began(now);
        let at_once = rows(Some(&view), 0);
        assert_eq!(at_once, format!("{owned}\t0.4\t12\n{offered}\t2.5\t5\n{free}.\n"));
        let later = rows(Some(&view), 1100);
        assert_eq!(later, format!("{owned}\t1.5\t12\n{offered}\t3.6\t5\n{free}.\n"));
        assert_eq!(rows(Some(&View::default()), 0), ".\n");
        assert_eq!(rows(None, 0), ".\n");
        assert_eq!(TITLES.split('\t').count(), free.split('\t').count());
    }
}
