//! How far a run is: steps with the times that they should take in, "n of m" and the time left out.
//!
//! What steps really took corrects the times of those to come: a step that was made before takes as
//! long again, the others as much longer or shorter as all so far did. Knows no clock.

use std::collections::HashMap;

/// Seconds that the estimates are trusted like as many that were measured: the first steps alone
/// say little.
const TRUSTED_S: f64 = 10.0;

/// What makes two steps alike: a scenario and a contender.
type Kind = (&'static str, &'static str);

/// Steps that were made, and those that are to come.
pub(crate) struct Progress {
    /// Each with its estimate in seconds.
    steps: Vec<(Kind, f64)>,
    /// How many were made.
    done: usize,
    estimated_s: f64,
    measured_s: f64,
    last_s: HashMap<Kind, f64>,
}

impl Progress {
    /// Of steps in the order in which they are made.
    pub(crate) fn new(steps: Vec<(Kind, f64)>) -> Self {
        Self { steps, done: 0, estimated_s: 0.0, measured_s: 0.0, last_s: HashMap::new() }
    }

    /// The next step was of this kind and took so long.
    pub(crate) fn finish(&mut self, kind: Kind, seconds: f64) {
        let Some(step) = self.steps[self.done..].iter().position(|step| step.0 == kind) else {
            return;
        };
        self.steps.swap(self.done, self.done + step);
        self.estimated_s += self.steps[self.done].1;
        self.measured_s += seconds;
        self.last_s.insert(kind, seconds);
        self.done += 1;
    }

    fn left_s(&self) -> f64 {
        let factor = (self.measured_s + TRUSTED_S) / (self.estimated_s + TRUSTED_S);
        let left = self.steps[self.done..].iter();
        left.fold(0.0, |sum, (kind, estimate)| {
            sum + self.last_s.get(kind).copied().unwrap_or(estimate * factor)
        })
    }

    /// `12 of 180, 4 min left`
    pub(crate) fn line(&self) -> String {
        format!("{} of {}, {} left", self.done, self.steps.len(), span(self.left_s()))
    }

    /// What is to come, before the first step.
    pub(crate) fn plan(&self) -> String {
        format!("{} measurements, about {}", self.steps.len(), span(self.left_s()))
    }
}

/// How long something takes, with the two units that fit: `40 s`, `4 min`, `2 h 10 min`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub(crate) fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        _ if seconds < 90.0 => format!("{seconds:.0} s"),
        ..60 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Kind = ("steady", "a");
    const B: Kind = ("steady", "b");
    const C: Kind = ("deep", "a");

    #[test]
    fn times_that_were_measured_correct_those_to_come() {
        let mut progress = Progress::new(vec![(A, 10.0), (B, 10.0), (C, 100.0), (A, 10.0)]);
        assert_eq!(progress.plan(), "4 measurements, about 2 min");
        progress.finish(A, 30.0);
        // Twice as slow as it should be, for what isn't known yet; as before for what is.
        assert!((progress.left_s() - (20.0 + 200.0 + 30.0)).abs() < 1e-9);
        assert_eq!(progress.line(), "1 of 4, 4 min left");
        progress.finish(C, 1.0);
        progress.finish(B, 1.0);
        assert_eq!(progress.line(), "3 of 4, 30 s left");
        progress.finish(("none", "a"), 1.0);
        progress.finish(A, 31.0);
        assert_eq!(progress.line(), "4 of 4, 0 s left");
    }

    #[test]
    fn times_are_as_coarse_as_they_are_long() {
        assert_eq!([0.4, 89.0, 91.0, 3540.0].map(span), ["0 s", "89 s", "2 min", "59 min"]);
        assert_eq!([3600.0, 7801.0].map(span), ["1 h 0 min", "2 h 10 min"]);
    }
}
