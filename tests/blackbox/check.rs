//! Comparisons: what was due and what came in, a sentence about the difference out.
//!
//! Knows no jobs. Invariant: nothing is changed, and equal things never make a sentence.

use crate::conn::{Item, readable};
use crate::operations::Bytes;

/// One answer in the place of another.
pub(crate) fn difference(right: &Item, reply: &Item) -> String {
    format!("there should have come\n    {right:?}\nand there came\n    {reply:?}")
}

/// WORK_* packets: groups in their order, and in any order within a group.
pub(crate) fn compare_works(due: Vec<(u64, Item)>, came: Vec<Item>) -> Result<(), String> {
    let sentence = || {
        let due: Vec<&Item> = due.iter().map(|(_, item)| item).collect();
        format!("there should have come\n    {due:?}\nand there came\n    {came:?}")
    };
    let mut open: Vec<&(u64, Item)> = due.iter().collect();
    for item in &came {
        let group = open.first().map(|(group, _)| *group);
        let at = open.iter().position(|(other, right)| Some(*other) == group && right == item);
        match at {
            Some(at) => drop(open.remove(at)),
            None => return Err(sentence()),
        }
    }
    if open.is_empty() { Ok(()) } else { Err(sentence()) }
}

/// Rows in any order, of which so many may be missing or come twice.
pub(crate) fn compare_rows(
    due: Vec<Bytes>,
    came: Vec<Bytes>,
    unclear: usize,
) -> Result<(), String> {
    let (mut missing, mut more) = (sorted_rows(due), sorted_rows(came));
    more.retain(|row| match missing.iter().position(|other| other == row) {
        Some(at) => {
            missing.remove(at);
            false
        }
        None => true,
    });
    if missing.len() <= unclear && more.len() <= unclear {
        return Ok(());
    }
    let text = |rows: &[Bytes]| -> Vec<String> { rows.iter().map(|row| readable(row)).collect() };
    let (missing, more) = (text(&missing), text(&more));
    Err(format!("rows are missing: {missing:?}; rows that shouldn't be there: {more:?}"))
}

/// Functions of a worker's row are sorted, and so are the rows.
fn sorted_rows(mut rows: Vec<Bytes>) -> Vec<Bytes> {
    for row in &mut rows {
        let text = row.strip_suffix(b"\n").unwrap_or(row);
        let Some(at) = text.windows(2).rposition(|part| part == b" :") else { continue };
        let mut names: Vec<Bytes> =
            text[at + 2..].split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect();
        names.sort_unstable();
        *row = [&text[..at + 2], &names.join(&b' '), b"\n"].concat();
    }
    rows.sort_unstable();
    rows
}
