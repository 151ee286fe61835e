//! Which folders to watch for patterns: patterns in, inotify watches and what each is for out.
//!
//! Reads folders, so it runs beside the manager's thread. Watches each folder before it is read, so
//! that no file is missed.
//!
//! Invariant: each symbolic link and each folder on the way to a pattern's base is watched in its
//! parent, as far as the way exists.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use inotify::{WatchDescriptor, WatchMask, Watches};

use super::pattern::Pattern;

/// Links that may be followed on the way to one folder, as the kernel has it.
const LINKS_MAX: usize = 40;

/// What a watched folder is watched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The entry with this name is on the way to the pattern's base.
    Way {
        /// Number of the pattern.
        pattern: usize,
        /// The entry.
        name: OsString,
    },
    /// Its entries may match the pattern.
    Folder {
        /// Number of the pattern.
        pattern: usize,
        /// The folder, by the path that the pattern has.
        path: PathBuf,
        /// Levels of folders below that matter; `None` = all.
        depth: Option<usize>,
    },
}

/// What is watched.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Uses of each watch.
    pub(super) uses: HashMap<WatchDescriptor, Vec<Use>>,
    /// For each pattern whether a file matches it.
    pub(super) matched: Vec<bool>,
    /// The first folder that couldn't be watched, and why.
    pub(super) problem: Option<(PathBuf, io::Error)>,
}

impl Survey {
    /// Watches all that the patterns need.
    pub(super) fn of(patterns: &[Pattern], watches: &mut Watches) -> Self {
        let mut survey = Self { matched: vec![false; patterns.len()], ..Self::default() };
        for (number, pattern) in patterns.iter().enumerate() {
            survey.add_pattern(number, pattern, watches);
        }
        survey
    }

    fn add_pattern(&mut self, number: usize, pattern: &Pattern, watches: &mut Watches) {
        let mut steps = Vec::new();
        let mut end = walk_to(&pattern.base, |folder, name| {
            steps.push((folder.to_owned(), name.to_owned()));
        });
        for (folder, name) in steps {
            self.add(&folder, Use::Way { pattern: number, name }, watches);
        }
        // A step may have changed before it was watched.
        if end.is_some() {
            end = walk_to(&pattern.base, |_, _| {});
        }
        match end {
            Some(folder) if pattern.is_glob => {
                let base = (folder, pattern.base.clone(), pattern.depth);
                self.add_tree(number, pattern, base, watches);
            }
            Some(_) => self.set_matched(number),
            None => {}
        }
    }

    /// Watches a folder, by its path and the one that the pattern has, and those below.
    pub(super) fn add_tree(
        &mut self,
        number: usize,
        pattern: &Pattern,
        root: (PathBuf, PathBuf, Option<usize>),
        watches: &mut Watches,
    ) {
        let mut folders = vec![root];
        while let Some((folder, path, depth)) = folders.pop() {
            let used = Use::Folder { pattern: number, path: path.clone(), depth };
            self.add(&folder, used, watches);
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let entry_path = path.join(entry.file_name());
                // A link to a folder isn't followed below the base: it may lead in a circle.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    if depth != Some(0) {
                        let below = depth.map(|depth| depth - 1);
                        folders.push((entry.path(), entry_path, below));
                    }
                } else if pattern.matches(&entry_path) {
                    self.set_matched(number);
                }
            }
        }
    }

    fn add(&mut self, folder: &Path, used: Use, watches: &mut Watches) {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::EXCL_UNLINK
            | WatchMask::ONLYDIR;
        match watches.add(folder, mask) {
            Ok(watch) => {
                let uses = self.uses.entry(watch).or_default();
                if !uses.contains(&used) {
                    uses.push(used);
                }
            }
            // It was removed meanwhile, which its parent's watch tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => {
                self.problem.get_or_insert_with(|| (folder.to_owned(), error));
            }
        }
    }

    fn set_matched(&mut self, number: usize) {
        if let Some(matched) = self.matched.get_mut(number) {
            *matched = true;
        }
    }
}

/// Follows an absolute path from the root, links included. Calls `step` with each folder, by its
/// real path, and the name that is looked up in it. Returns the real path, if all of it exists.
fn walk_to(path: &Path, mut step: impl FnMut(&Path, &OsStr)) -> Option<PathBuf> {
    fn push_names(path: &Path, names: &mut Vec<OsString>) {
        let meant =
            |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
        names.extend(path.components().rev().filter(meant).map(|part| part.as_os_str().to_owned()));
    }
    let mut names = Vec::new();
    push_names(path, &mut names);
    let mut folder = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = names.pop() {
        if name == ".." {
            folder.pop();
            continue;
        }
        step(&folder, &name);
        let next = folder.join(&name);
        if fs::symlink_metadata(&next).ok()?.is_symlink() {
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            let target = fs::read_link(&next).ok()?;
            if target.is_absolute() {
                folder = PathBuf::from("/");
            }
            push_names(&target, &mut names);
        } else {
            folder = next;
        }
    }
    Some(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_link_and_folder_on_the_way_is_a_step() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().canonicalize().expect("a path");
        fs::create_dir_all(root.join("releases/42/src")).expect("folders");
        symlink("releases/latest", root.join("current")).expect("a link");
        symlink("../releases/42", root.join("releases/latest")).expect("a link");
        let mut steps = Vec::new();
        let end = walk_to(&root.join("current/src"), |folder, name| {
            if let Ok(below) = folder.strip_prefix(&root) {
                steps.push(format!("{}:{}", below.display(), name.display()));
            }
        });
        assert_eq!(end, Some(root.join("releases/42/src")));
        let expected = [
            ":current",
            ":releases",
            "releases:latest",
            ":releases",
            "releases:42",
            "releases/42:src",
        ];
        assert_eq!(steps, expected);

        symlink("round", root.join("round")).expect("a link");
        assert_eq!(walk_to(&root.join("round"), |_, _| {}), None);
        assert_eq!(walk_to(&root.join("none/further"), |_, _| {}), None);
    }
}
