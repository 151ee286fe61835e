//! Samples in, medians with their spread out.

use indexmap::{IndexMap, IndexSet};

use crate::sample::{Sample, Status};

/// The middle of some measurements, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these values; `None` of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        let median = f64::midpoint(lower, upper);
        Some(Self { median, min, max })
    }
}

/// All samples of one contender at one point of one scenario.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) scenario: &'a str,
    /// What was measured within it.
    pub(crate) point: &'a str,
    pub(crate) contender: &'a str,
    samples: Vec<&'a Sample>,
}

impl<'a> Group<'a> {
    /// All groups, in the order in which they first occur.
    pub(crate) fn all(samples: &'a [Sample]) -> Vec<Self> {
        let mut groups: IndexMap<[&str; 3], Vec<&Sample>> = IndexMap::new();
        for sample in samples {
            let Sample { scenario, point, contender, .. } = sample;
            groups.entry([scenario, point, contender]).or_default().push(sample);
        }
        let groups = groups.into_iter();
        groups
            .map(|([scenario, point, contender], samples)| Self {
                scenario,
                point,
                contender,
                samples,
            })
            .collect()
    }

    /// Whether both are the same contender in the same scenario.
    pub(crate) fn is_of_same(&self, other: &Self) -> bool {
        (self.scenario, self.contender) == (other.scenario, other.contender)
    }

    /// A figure of the samples without faults.
    pub(crate) fn spread(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        let measured = self.samples.iter().filter(|sample| sample.status == Status::Ok);
        Spread::of(measured.filter_map(|sample| figure(sample)))
    }

    /// The median of a figure, as text.
    pub(crate) fn figure(
        &self,
        figure: impl Fn(&Sample) -> Option<f64>,
        text: fn(f64) -> String,
    ) -> Option<String> {
        self.spread(figure).map(|spread| text(spread.median))
    }

    /// Jobs a second.
    pub(crate) fn rate(&self) -> Option<Spread> {
        self.spread(|sample| Some(sample.jobs_per_second))
    }

    /// Server CPU per job, µs.
    pub(crate) fn cpu(&self) -> Option<Spread> {
        self.spread(|sample| sample.cpu_us_per_job)
    }

    /// Queued jobs or payload bytes.
    pub(crate) fn x(&self) -> Option<f64> {
        self.spread(|sample| sample.x).map(|x| x.median)
    }

    /// How many samples have the status.
    pub(crate) fn count(&self, status: Status) -> usize {
        self.samples.iter().filter(|sample| sample.status == status).count()
    }

    /// What the samples have to say besides figures, each thing once.
    pub(crate) fn notes(&self) -> Vec<&'a str> {
        let notes = self.samples.iter().map(|sample| &*sample.note);
        Vec::from_iter(notes.filter(|note| !note.is_empty()).collect::<IndexSet<&str>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64, min: f64, max: f64) -> Option<Spread> {
        Some(Spread { median, min, max })
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([7.0]), spread(7.0, 7.0, 7.0));
        assert_eq!(Spread::of([3.0, 1.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), spread(2.0, 1.0, 9.0));
        assert_eq!(Spread::of([4.0, 1.0, 3.0, 2.0]), spread(2.5, 1.0, 4.0));
    }

    #[test]
    fn failed_samples_are_counted_and_not_averaged() {
        let sample = |jobs_per_second, status| Sample {
            jobs_per_second,
            status,
            note: if status == Status::Failed { "lost 1".to_owned() } else { String::new() },
            ..Sample::default()
        };
        let samples = [
            sample(10.0, Status::Ok),
            sample(1000.0, Status::Failed),
            sample(12.0, Status::Ok),
            sample(1000.0, Status::Failed),
        ];
        let groups = Group::all(&samples);
        let [group] = &groups[..] else { panic!("{groups:?}") };
        let rate = group.spread(|sample| Some(sample.jobs_per_second));
        assert_eq!(rate, spread(11.0, 10.0, 12.0));
        assert_eq!((group.count(Status::Ok), group.count(Status::Failed)), (2, 2));
        assert_eq!(group.notes(), ["lost 1"]);
    }
}
