//! Watches files: glob patterns in, the names of workers whose files changed out.
//!
//! `pattern` reads the patterns, `survey` watches folders. Knows no instances.
//!
//! Invariant: a change is told one second after the last one of the same worker.

mod pattern;
mod survey;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::warn;

use self::pattern::Pattern;
use self::survey::{Survey, Use};

/// Time without a change after which the changes before are told.
const QUIET: Duration = Duration::from_secs(1);
/// Longest time that commands wait for their files to be watched.
const BEGINNING_MAX: Duration = Duration::from_secs(5);
/// Bytes of events that are read at a time; one with the longest name takes 272.
const BUFFER_BYTES: usize = 16 << 10;

/// The files of all workers.
pub struct Watch {
    /// As given.
    given: Vec<(String, Vec<String>)>,
    patterns: Arc<Vec<Pattern>>,
    /// For each pattern the workers that have it.
    workers: Vec<Vec<String>>,
    /// For each pattern whether a file matched it at the last look.
    matched: Vec<bool>,
    /// `None` while there are no patterns, or the kernel refuses.
    events: Option<EventStream<Vec<u8>>>,
    uses: HashMap<WatchDescriptor, Vec<Use>>,
    /// A survey under way. Events wait until it has ended, as it says what they mean.
    survey: Option<JoinHandle<Survey>>,
    /// The folders may be others than those watched.
    is_stale: bool,
    /// Changes that aren't told yet.
    pending: BTreeMap<String, Pending>,
    told: VecDeque<String>,
    quiet: Duration,
    has_warned: bool,
}

/// Changes of one worker.
#[derive(Clone, Copy, Debug)]
struct Pending {
    due: Instant,
    /// A file that matches changed; otherwise the next survey shows whether there is any.
    is_certain: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            given: Vec::new(),
            patterns: Arc::default(),
            workers: Vec::new(),
            matched: Vec::new(),
            events: None,
            uses: HashMap::new(),
            survey: None,
            is_stale: false,
            pending: BTreeMap::new(),
            told: VecDeque::new(),
            quiet: QUIET,
            has_warned: false,
        }
    }
}

impl Watch {
    /// Watches these workers' patterns instead of those before. Changes of workers that stay and
    /// that weren't told yet will be.
    pub fn set(&mut self, given: Vec<(String, Vec<String>)>) {
        if given == self.given {
            return;
        }
        let mut patterns: Vec<Pattern> = Vec::new();
        let mut workers: Vec<Vec<String>> = Vec::new();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for (worker, texts) in &given {
            for text in texts {
                if let Some(number) = numbers.get(text.as_str()) {
                    workers[*number].push(worker.clone());
                    continue;
                }
                match Pattern::parse(text) {
                    Ok(pattern) => {
                        numbers.insert(text, patterns.len());
                        patterns.push(pattern);
                        workers.push(vec![worker.clone()]);
                    }
                    Err(error) => warn!(worker, "watch has no meaning: {error}; correct it"),
                }
            }
        }
        drop(numbers);
        self.pending.retain(|name, _| given.iter().any(|(worker, _)| worker == name));
        self.given = given;
        self.matched = vec![false; patterns.len()];
        self.patterns = Arc::new(patterns);
        self.workers = workers;
        self.is_stale = false;
        self.has_warned = false;
        if self.survey.take().is_some() {
            // It still adds watches, to descriptors that are given up here.
            self.events = None;
            self.uses.clear();
        }
        if self.patterns.is_empty() {
            self.events = None;
            self.uses.clear();
            return;
        }
        if self.events.is_none() {
            match Inotify::init()
                .and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER_BYTES]))
            {
                Ok(events) => self.events = Some(events),
                Err(error) => warn!(
                    "files can't be watched, so changes restart nothing: {error}; raise \
                     fs.inotify.max_user_instances with sysctl, then send SIGHUP"
                ),
            }
        }
        self.begin_survey();
    }

    /// Waits until the patterns that were set last are watched: changes from then on are told.
    /// Gives up on folders that take longer than `BEGINNING_MAX`; those are watched a while later.
    pub async fn begun(&mut self) {
        let Some(survey) = &mut self.survey else { return };
        if let Ok(ended) = timeout(BEGINNING_MAX, survey).await {
            self.survey = None;
            if let Ok(survey) = ended {
                self.take(survey);
            }
        }
    }

    /// Waits for a change, and returns the name of the worker whose files changed. May be dropped
    /// while it waits.
    pub async fn changed(&mut self) -> String {
        loop {
            if let Some(survey) = &mut self.survey {
                let survey = survey.await;
                self.survey = None;
                if let Ok(survey) = survey {
                    self.take(survey);
                }
            }
            if let Some(worker) = self.told.pop_front() {
                return worker;
            }
            let due = self.pending.values().map(|pending| pending.due).min();
            let Some(events) = &mut self.events else { return std::future::pending().await };
            let event = async { events.next().await };
            let at = due.unwrap_or_else(Instant::now);
            tokio::select! {
                event = event => self.received(event),
                () = tokio::time::sleep_until(at), if due.is_some() => self.tell(),
            }
        }
    }

    fn begin_survey(&mut self) {
        let Some(events) = &self.events else { return };
        let mut watches = events.watches();
        let patterns = Arc::clone(&self.patterns);
        self.is_stale = false;
        self.survey =
            Some(tokio::task::spawn_blocking(move || Survey::of(&patterns, &mut watches)));
    }

    /// Takes what a survey found; watches of before that it doesn't need end.
    fn take(&mut self, survey: Survey) {
        let before = std::mem::replace(&mut self.uses, survey.uses);
        if let Some(events) = &self.events {
            let mut watches = events.watches();
            for watch in before.into_keys().filter(|watch| !self.uses.contains_key(watch)) {
                // It fails for a folder that was removed, which ended its watch already.
                let _ = watches.remove(watch);
            }
        }
        self.matched = survey.matched;
        self.warn_once(survey.problem);
        for (workers, _) in self.workers.iter().zip(&self.matched).filter(|(_, matched)| **matched)
        {
            for worker in workers {
                if let Some(pending) = self.pending.get_mut(worker) {
                    pending.is_certain = true;
                }
            }
        }
        // What no file matches before and after is no change.
        let now = Instant::now();
        self.pending.retain(|_, pending| pending.is_certain || pending.due > now);
    }

    fn warn_once(&mut self, problem: Option<(std::path::PathBuf, io::Error)>) {
        let Some((folder, error)) = problem.filter(|_| !self.has_warned) else { return };
        self.has_warned = true;
        let remedy = if error.kind() == io::ErrorKind::StorageFull {
            "raise fs.inotify.max_user_watches with sysctl, then send SIGHUP"
        } else {
            "let the manager's user read it, or watch other folders"
        };
        let folder = folder.display();
        warn!("{folder} can't be watched, so changes there restart nothing: {error}; {remedy}");
    }

    /// Tells the workers that are due, after a survey if one is needed.
    fn tell(&mut self) {
        if self.is_stale {
            self.begin_survey();
            return;
        }
        let now = Instant::now();
        let due = |pending: &Pending| pending.due <= now;
        let told = self.pending.iter().filter(|(_, pending)| due(pending) && pending.is_certain);
        self.told.extend(told.map(|(worker, _)| worker.clone()));
        self.pending.retain(|_, pending| !due(pending));
    }

    fn received(&mut self, event: Option<io::Result<EventOwned>>) {
        let Some(Ok(event)) = event else {
            warn!("files are no longer watched; send SIGHUP after a change of a watch key");
            self.events = None;
            return;
        };
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            self.is_stale = true;
            for pattern in 0..self.patterns.len() {
                self.touch(pattern, true);
            }
            return;
        }
        if event.mask.contains(EventMask::IGNORED) {
            self.uses.remove(&event.wd);
            return;
        }
        let Some(name) = &event.name else { return };
        for used in self.uses.get(&event.wd).cloned().unwrap_or_default() {
            match used {
                Use::Way { pattern, name: entry } if entry == *name => {
                    self.is_stale = true;
                    let had_files = self.matched.get(pattern).copied().unwrap_or(false);
                    self.touch(pattern, had_files);
                }
                Use::Way { .. } => {}
                Use::Folder { pattern, path, depth } => {
                    self.changed_in(pattern, &path, depth, name, event.mask);
                }
            }
        }
    }

    /// An entry of a folder changed.
    fn changed_in(
        &mut self,
        number: usize,
        folder: &Path,
        depth: Option<usize>,
        name: &OsStr,
        mask: EventMask,
    ) {
        let path = folder.join(name);
        let patterns = Arc::clone(&self.patterns);
        let Some(pattern) = patterns.get(number) else { return };
        if !mask.contains(EventMask::ISDIR) {
            if pattern.matches(&path) {
                if let Some(matched) = self.matched.get_mut(number) {
                    *matched = true;
                }
                self.touch(number, true);
            }
            return;
        }
        if depth == Some(0) {
            return;
        }
        if mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) {
            let Some(events) = &self.events else { return };
            let mut survey = Survey { matched: vec![false; patterns.len()], ..Survey::default() };
            let below = (path.clone(), path, depth.map(|depth| depth - 1));
            survey.add_tree(number, pattern, below, &mut events.watches());
            for (watch, uses) in survey.uses {
                self.uses.entry(watch).or_default().extend(uses);
            }
            self.warn_once(survey.problem);
            if survey.matched[number] {
                self.touch(number, true);
            }
        } else if mask.contains(EventMask::MOVED_FROM) {
            // Its watches go with it; what was in it isn't known any more.
            self.is_stale = true;
            self.touch(number, true);
        }
    }

    /// A pattern's files changed, or may have.
    fn touch(&mut self, pattern: usize, is_certain: bool) {
        let due = Instant::now() + self.quiet;
        for worker in self.workers.get(pattern).into_iter().flatten() {
            let before = self.pending.get(worker).is_some_and(|pending| pending.is_certain);
            let pending = Pending { due, is_certain: is_certain || before };
            self.pending.insert(worker.clone(), pending);
        }
    }
}

#[cfg(test)]
mod tests;
