//! Glob patterns of files: text in, where to look and what matches out.
//!
//! Touches no files, but for the working folder that a relative pattern is below.
//!
//! Invariant: a file that matches lies in `base`, or at most `depth` folders below it.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// A pattern, split into the folder where it begins and what matches.
#[derive(Debug)]
pub(super) struct Pattern {
    glob: GlobMatcher,
    /// The part without wildcards: a folder, or for a pattern without any the file itself.
    pub(super) base: PathBuf,
    /// Folders between `base` and a file; `None` = any number.
    pub(super) depth: Option<usize>,
    /// Whether there are wildcards.
    pub(super) is_glob: bool,
}

impl Pattern {
    /// Reads a pattern: `*`, `?`, `[…]` and `{…,…}` within a name, `**` for any folders.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, globset::Error> {
        let text = if text.starts_with('/') {
            text.to_owned()
        } else {
            let folder = std::env::current_dir().unwrap_or_default();
            format!("{}/{text}", globset::escape(&folder.to_string_lossy()))
        };
        let glob = GlobBuilder::new(&text).literal_separator(true).build()?.compile_matcher();
        let names: Vec<&str> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let has_wildcard = |name: &str| name.contains(['*', '?', '[', '{', '\\']);
        let fixed = names.iter().position(|name| has_wildcard(name)).unwrap_or(names.len());
        let (base, rest) = names.split_at(fixed);
        let is_deep = rest.iter().any(|name| name.contains("**") || name.contains('{'));
        Ok(Self {
            glob,
            base: Path::new("/").join(base.join("/")),
            depth: (!is_deep).then(|| rest.len().saturating_sub(1)),
            is_glob: !rest.is_empty(),
        })
    }

    /// Whether a file is meant.
    pub(super) fn matches(&self, path: &Path) -> bool {
        self.glob.is_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_begins_at_its_last_folder_without_wildcards() {
        for (text, base, depth) in [
            ("/srv/app/**/*.php", "/srv/app", None),
            ("/srv/app/*.php", "/srv/app", Some(0)),
            ("/srv/*/etc/*.ini", "/srv", Some(2)),
            ("/srv//./app/?.php", "/srv/app", Some(0)),
            ("/srv/{a,b/c}/x", "/srv", None),
            ("/*", "/", Some(0)),
            ("/etc/app.ini", "/etc/app.ini", Some(0)),
        ] {
            let pattern = Pattern::parse(text).expect(text);
            assert_eq!((pattern.base.as_path(), pattern.depth), (Path::new(base), depth), "{text}");
        }
    }

    #[test]
    fn a_star_stays_within_a_name() {
        let pattern = Pattern::parse("/srv/*/x.php").expect("a pattern");
        assert!(pattern.matches(Path::new("/srv/a/x.php")));
        assert!(!pattern.matches(Path::new("/srv/a/b/x.php")));
        let pattern = Pattern::parse("/srv/**/x.php").expect("a pattern");
        assert!(pattern.matches(Path::new("/srv/x.php")));
        assert!(pattern.matches(Path::new("/srv/a/b/x.php")));
    }
}
