//! Families of metrics with their samples, in either text format.
//!
//! Names, labels and numbers in, text out by way of an encoder that knows the formats. Knows
//! nothing of what the numbers mean.
//!
//! Invariant: all samples of a family stand together, behind its help and type.

use std::fmt::Error;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::accept::Format;

/// Labels of a sample: names and values.
pub type Labels<'l, const N: usize> = [(&'static str, &'l str); N];

/// The labels of a sample without any.
pub const PLAIN: Labels<'static, 0> = [];

/// A histogram's numbers.
#[derive(Debug)]
pub struct Histogram {
    /// The sum of all observations.
    pub sum: f64,
    /// Observations by bucket, not summed up, with each bucket's upper end.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// A histogram of buckets that end at `bounds`, each in `unit` parts of one, and one that has
    /// no end.
    pub fn new<T: Copy + Into<f64>>(bounds: &[T], unit: f64, buckets: &[u64], sum: f64) -> Self {
        let ends = bounds.iter().map(|&bound| bound.into() / unit).chain([f64::INFINITY]);
        Self { sum, buckets: ends.zip(buckets.iter().copied()).collect() }
    }
}

/// Writes families.
#[derive(Debug)]
pub struct Families<'a> {
    pub(super) encoder: DescriptorEncoder<'a>,
    pub(super) format: Format,
}

impl Families<'_> {
    /// A counter; `name` is without `_total`.
    ///
    /// # Errors
    /// If the text can't be written.
    pub fn counter<'l, V: EncodeCounterValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l, N>, V)>,
    ) -> Result<(), Error> {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        each(&mut family, samples, |mut sample, value| {
            sample.encode_counter(&value, None::<&Exemplar<NoLabelSet, f64>>)
        })
    }

    /// A counter beside a gauge `name`; `name` is without `_total`. For OpenMetrics both would be
    /// one family, so that there it is a family of unknown type with the counter's name.
    ///
    /// # Errors
    /// If the text can't be written.
    pub fn counter_beside_gauge<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l, N>, u64)>,
    ) -> Result<(), Error> {
        if self.format == Format::Text {
            return self.counter(name, help, samples);
        }
        let name = format!("{name}_total");
        let mut family = self.encoder.encode_descriptor(&name, help, None, MetricType::Unknown)?;
        each(&mut family, samples, |mut sample, value| sample.encode_gauge(&value))
    }

    /// A gauge.
    ///
    /// # Errors
    /// If the text can't be written.
    pub fn gauge<'l, V: EncodeGaugeValue, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l, N>, V)>,
    ) -> Result<(), Error> {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        each(&mut family, samples, |mut sample, value| sample.encode_gauge(&value))
    }

    /// A histogram.
    ///
    /// # Errors
    /// If the text can't be written.
    pub fn histogram<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'l, N>, Histogram)>,
    ) -> Result<(), Error> {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        each(&mut family, samples, |mut sample, Histogram { sum, buckets }| {
            let count = buckets.iter().map(|&(_, count)| count).sum();
            sample.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }

    /// What is told by labels alone; `name` is without `_info`.
    ///
    /// # Errors
    /// If the text can't be written.
    pub fn info<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: Labels<'_, N>,
    ) -> Result<(), Error> {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Info)?;
        family.encode_info(&labels)
    }
}

fn each<'l, V, const N: usize>(
    family: &mut MetricEncoder<'_>,
    samples: impl IntoIterator<Item = (Labels<'l, N>, V)>,
    encode: impl Fn(MetricEncoder<'_>, V) -> Result<(), Error>,
) -> Result<(), Error> {
    for (labels, value) in samples {
        encode(family.encode_family(&labels)?, value)?;
    }
    Ok(())
}
