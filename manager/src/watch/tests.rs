//! Changes of files in a temporary folder, and the workers that are told.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// Events come in order, so that a change after those of a test ends the wait for them.
const END: &str = "end";
/// Long enough for any machine.
const DEADLINE: Duration = Duration::from_secs(20);

struct Fixture {
    _folder: TempDir,
    root: PathBuf,
    watch: Watch,
}

impl Fixture {
    /// Watches the patterns below a temporary folder, for worker `app`, and a file for the end.
    async fn new(folders: &[&str], patterns: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        for folder in folders {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        let mut watch = Watch { quiet: Duration::from_millis(30), ..Watch::default() };
        let below = |pattern: &&str| root.join(pattern).to_str().expect("UTF-8").to_owned();
        watch.set(vec![
            ("app".to_owned(), patterns.iter().map(below).collect()),
            (END.to_owned(), vec![below(&"end*")]),
        ]);
        let mut fixture = Self { _folder: folder, root, watch };
        // The folders are watched from here on.
        assert_eq!(fixture.told().await, [] as [&str; 0]);
        fixture
    }

    fn write(&self, path: &str) {
        fs::write(self.root.join(path), "text").expect("a file");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.root.join(from), self.root.join(to)).expect("a rename");
    }

    /// The workers that changes until now are told of.
    async fn told(&mut self) -> Vec<String> {
        if self.watch.survey.is_none() {
            self.write("end");
        } else {
            // Not before the first survey has ended.
            let survey = self.watch.survey.take().expect("a survey").await.expect("its end");
            self.watch.take(survey);
            self.write("end");
        }
        let mut told = Vec::new();
        loop {
            let changed = timeout(DEADLINE, self.watch.changed()).await;
            let worker = changed.expect("a change within the deadline");
            if worker == END {
                return told;
            }
            told.push(worker);
        }
    }
}

#[tokio::test]
async fn a_written_file_that_matches_is_told_and_others_are_not() {
    let mut fixture = Fixture::new(&["src/deep/er"], &["src/**/*.php"]).await;
    for path in ["src/.a.php.swp", "src/deep/4913", "src/deep/a.php~", "a.php"] {
        fixture.write(path);
    }
    assert_eq!(fixture.told().await, [] as [&str; 0]);
    fixture.write("src/deep/er/a.php");
    assert_eq!(fixture.told().await, ["app"]);
    fixture.write("src/a.php");
    assert_eq!(fixture.told().await, ["app"]);
}

#[tokio::test]
async fn changes_soon_after_each_other_are_told_once() {
    let mut fixture = Fixture::new(&["src"], &["src/*.php", "src/a*"]).await;
    for number in 0..20 {
        fixture.write(&format!("src/a{number}.php"));
    }
    assert_eq!(fixture.told().await, ["app"]);
}

#[tokio::test]
async fn renames_and_removals_are_changes() {
    let mut fixture = Fixture::new(&["src/sub"], &["src/**/*.php"]).await;
    fixture.write("src/new");
    assert_eq!(fixture.told().await, [] as [&str; 0]);
    // As editors save.
    fixture.rename("src/new", "src/a.php");
    assert_eq!(fixture.told().await, ["app"]);
    fs::remove_file(fixture.root.join("src/a.php")).expect("a file");
    assert_eq!(fixture.told().await, ["app"]);
}

#[tokio::test]
async fn folders_that_appear_later_are_watched() {
    let mut fixture = Fixture::new(&["src", "other/lib"], &["src/**/*.php"]).await;
    fs::create_dir_all(fixture.root.join("src/a/b")).expect("folders");
    assert_eq!(fixture.told().await, [] as [&str; 0]);
    fixture.write("src/a/b/x.php");
    assert_eq!(fixture.told().await, ["app"]);
    // With a file in it already.
    fixture.write("other/lib/y.php");
    fixture.rename("other", "src/other");
    assert_eq!(fixture.told().await, ["app"]);
    fixture.write("src/other/lib/y.php");
    assert_eq!(fixture.told().await, ["app"]);
    // And gone again.
    fixture.rename("src/other", "other");
    assert_eq!(fixture.told().await, ["app"]);
    fixture.write("other/lib/z.php");
    assert_eq!(fixture.told().await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_base_that_appears_later_is_watched() {
    let mut fixture = Fixture::new(&["srv"], &["srv/app/src/**/*.php"]).await;
    fs::create_dir_all(fixture.root.join("srv/app")).expect("folders");
    assert_eq!(fixture.told().await, [] as [&str; 0]);
    fs::create_dir_all(fixture.root.join("srv/app/src/sub")).expect("folders");
    fixture.write("srv/app/src/sub/a.php");
    assert_eq!(fixture.told().await, ["app"]);
    fixture.write("srv/app/src/sub/a.php");
    assert_eq!(fixture.told().await, ["app"]);
}

#[tokio::test]
async fn a_deployment_that_switches_a_link_is_a_change() {
    let mut fixture =
        Fixture::new(&["releases/41/src", "releases/42/src"], &["current/src/**/*.php"]).await;
    fixture.write("releases/41/src/a.php");
    fixture.write("releases/42/src/a.php");
    symlink("releases/41", fixture.root.join("current")).expect("a link");
    assert_eq!(fixture.told().await, ["app"]);
    symlink("releases/42", fixture.root.join("next")).expect("a link");
    fixture.rename("next", "current");
    assert_eq!(fixture.told().await, ["app"]);
    // The new release is watched, and the old one isn't.
    fixture.write("releases/41/src/a.php");
    assert_eq!(fixture.told().await, [] as [&str; 0]);
    fixture.write("releases/42/src/a.php");
    assert_eq!(fixture.told().await, ["app"]);
}

#[tokio::test]
async fn a_file_behind_links_is_watched_through_them() {
    let mut fixture = Fixture::new(&["map/1", "map/2"], &["map/app.ini"]).await;
    fixture.write("map/1/app.ini");
    fixture.write("map/2/app.ini");
    symlink("1", fixture.root.join("map/data")).expect("a link");
    symlink("data/app.ini", fixture.root.join("map/app.ini")).expect("a link");
    assert_eq!(fixture.told().await, ["app"]);
    symlink("2", fixture.root.join("map/next")).expect("a link");
    fixture.rename("map/next", "map/data");
    assert_eq!(fixture.told().await, ["app"]);
    fixture.write("map/2/app.ini");
    assert_eq!(fixture.told().await, ["app"]);
}

#[tokio::test]
async fn an_overflow_of_the_queue_counts_as_a_change_of_all() {
    let mut fixture = Fixture::new(&["src/a"], &["src/**/*.php"]).await;
    let watch = fixture.watch.uses.keys().next().expect("a watch").clone();
    let overflow = EventOwned { wd: watch, mask: EventMask::Q_OVERFLOW, cookie: 0, name: None };
    fixture.watch.received(Some(Ok(overflow)));
    let worker = timeout(DEADLINE, fixture.watch.changed()).await;
    assert_eq!(worker.expect("a change"), "app");
}

#[tokio::test]
async fn new_patterns_replace_those_before_and_lose_no_change() {
    let mut fixture = Fixture::new(&["old", "new"], &["old/*.php"]).await;
    fixture.watch.touch(0, true);
    let pattern = |text: &str| fixture.root.join(text).to_str().expect("UTF-8").to_owned();
    let given = vec![
        ("app".to_owned(), vec![pattern("new/*.php")]),
        (END.to_owned(), vec![pattern("end*")]),
    ];
    fixture.watch.set(given);
    assert_eq!(fixture.told().await, ["app"]);
    fixture.write("old/a.php");
    assert_eq!(fixture.told().await, [] as [&str; 0]);
    fixture.write("new/a.php");
    assert_eq!(fixture.told().await, ["app"]);
}
