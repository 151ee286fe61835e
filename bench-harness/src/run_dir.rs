//! Folders of results: what a run is called, and where it goes. Results are never overwritten.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Folders that are tried before giving up.
const FOLDERS_MAX: usize = 100;

/// A new folder, as it was asked for or else in `results/`, by day and name; one that holds `mark`
/// is taken.
pub(crate) fn fresh(asked: Option<&Path>, name: &str, mark: &str) -> Result<PathBuf> {
    let usual = || Path::new("results").join(format!("{}-{name}", today()));
    let wanted = asked.map_or_else(usual, Path::to_owned);
    let numbered = (2..=FOLDERS_MAX).map(|number| {
        let name = wanted.file_name().unwrap_or_default().to_string_lossy().into_owned();
        wanted.with_file_name(format!("{name}-{number}"))
    });
    let mut folders = std::iter::once(wanted.clone()).chain(numbered);
    let Some(folder) = folders.find(|folder| !folder.join(mark).exists()) else {
        bail!("{} and its successors are taken", wanted.display());
    };
    let context = || format!("can't make the folder {}", folder.display());
    std::fs::create_dir_all(&folder).with_context(context)?;
    Ok(folder)
}

/// Today, UTC.
pub(crate) fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// This run's command line, as it could be typed again.
pub(crate) fn command_line() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p bench-harness -- {}", arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let asked = root.path().join("mine");
        assert_eq!(fresh(Some(&asked), "", "a.csv").unwrap(), asked);
        assert_eq!(fresh(Some(&asked), "", "a.csv").unwrap(), asked, "nothing was written yet");
        std::fs::write(asked.join("a.csv"), "").unwrap();
        assert_eq!(fresh(Some(&asked), "", "a.csv").unwrap(), root.path().join("mine-2"));
    }
}
