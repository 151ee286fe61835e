//! The shapes of a load: sizes, times, priorities and arrivals, as words and as samples.
//!
//! In: an option's text, later a seeded random generator. Out: single values. Knows no protocol, no
//! clock and no sockets. Invariant: the same seed gives the same samples, and what `Display`
//! writes is what `FromStr` reads.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fastrand::Rng;
use ringgear::wire::Priority;
use serde::{Serialize, Serializer};

use crate::payload::STAMP_BYTES;

/// Largest payload: the protocol's 4 GiB less room for arguments.
pub const PAYLOAD_BYTES_MAX: usize = u32::MAX as usize - (64 << 10);

/// Exponential sizes are cut off at this many times their mean.
const EXPONENTIAL_CUT: usize = 64;

macro_rules! serialize_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
serialize_as_text!(Size, Span, WorkTime, PriorityMix);

/// Bytes of a payload: `64`, `1k`, `64..1024`, `exp:1k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Always the same.
    Fixed(usize),
    /// Any size between the two, both included, equally often.
    Uniform(usize, usize),
    /// Exponential with this mean, many small ones and a few large.
    Exponential(usize),
}

impl Size {
    /// Draws a size.
    pub fn sample(&self, rng: &mut Rng) -> usize {
        match *self {
            Self::Fixed(bytes) => bytes,
            Self::Uniform(min, max) => rng.usize(min..=max),
            Self::Exponential(mean) => {
                let cut = mean.saturating_mul(EXPONENTIAL_CUT).min(PAYLOAD_BYTES_MAX);
                whole(exponential(mean as f64, rng)).clamp(STAMP_BYTES, cut.max(STAMP_BYTES))
            }
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let checked = |bytes: usize| match bytes {
            ..STAMP_BYTES => Err(format!(
                "a payload has at least {STAMP_BYTES} bytes, which name its job and prove it whole"
            )),
            STAMP_BYTES..=PAYLOAD_BYTES_MAX => Ok(bytes),
            _ => Err(format!("a payload has at most {PAYLOAD_BYTES_MAX} bytes")),
        };
        if let Some(mean) = text.strip_prefix("exp:") {
            return Ok(Self::Exponential(checked(bytes(mean)?)?));
        }
        if let Some((min, max)) = text.split_once("..") {
            let (min, max) = (checked(bytes(min)?)?, checked(bytes(max)?)?);
            return if min <= max {
                Ok(Self::Uniform(min, max))
            } else {
                Err(format!("{min} is more than {max}"))
            };
        }
        Ok(Self::Fixed(checked(bytes(text)?)?))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(bytes) => write!(out, "{bytes}"),
            Self::Uniform(min, max) => write!(out, "{min}..{max}"),
            Self::Exponential(mean) => write!(out, "exp:{mean}"),
        }
    }
}

/// A length of time: `10s`, `5ms`, `200us`, `2m`, `0`; a bare number counts seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let seconds_per_unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" | "" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(format!("`{unit}` is no unit of time: use us, ms, s, m or h")),
        };
        let number: f64 = number.parse().map_err(|_| "expected a time such as 10s".to_owned())?;
        let time = Duration::try_from_secs_f64(number * seconds_per_unit)
            .map_err(|_| "that time is too long".to_owned())?;
        if time > Duration::from_secs(30 * 86400) {
            return Err("that time is too long".to_owned());
        }
        Ok(Self(time))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1000, "us"), (1, "ns")];
        match units.into_iter().find(|(unit_ns, _)| ns.is_multiple_of(*unit_ns)) {
            Some((unit_ns, unit)) if ns > 0 => write!(out, "{}{unit}", ns / unit_ns),
            _ => write!(out, "0"),
        }
    }
}

/// How long a worker works on a job: `0`, `5ms`, `exp:5ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkTime {
    /// Always the same; zero answers at once.
    Fixed(Span),
    /// Exponential with this mean.
    Exponential(Span),
}

impl WorkTime {
    /// Draws a time.
    pub fn sample(&self, rng: &mut Rng) -> Duration {
        match *self {
            Self::Fixed(span) => span.0,
            Self::Exponential(mean) => {
                Duration::from_secs_f64(exponential(mean.0.as_secs_f64(), rng))
            }
        }
    }
}

impl FromStr for WorkTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("exp:") {
            Some(mean) => Ok(Self::Exponential(mean.parse()?)),
            None => Ok(Self::Fixed(text.parse()?)),
        }
    }
}

impl fmt::Display for WorkTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(span) => write!(out, "{span}"),
            Self::Exponential(mean) => write!(out, "exp:{mean}"),
        }
    }
}

/// Weights of the three priorities: `high:normal:low`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriorityMix {
    weights: [u32; 3],
}

impl PriorityMix {
    /// Draws a priority.
    pub fn sample(&self, rng: &mut Rng) -> Priority {
        let [high, normal, low] = self.weights;
        if high == 0 && low == 0 {
            return Priority::Normal;
        }
        match rng.u32(0..high + normal + low) {
            n if n < high => Priority::High,
            n if n < high + normal => Priority::Normal,
            _ => Priority::Low,
        }
    }
}

impl FromStr for PriorityMix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || "expected three weights up to 1000000 such as 1:8:1".to_owned();
        let mut weights = [0; 3];
        let mut parts = text.split(':');
        for weight in &mut weights {
            *weight = parts.next().and_then(|part| part.parse().ok()).ok_or_else(problem)?;
        }
        let in_range = weights.iter().all(|&weight| weight <= 1_000_000);
        if parts.next().is_some() || weights == [0; 3] || !in_range {
            return Err(problem());
        }
        Ok(Self { weights })
    }
}

impl fmt::Display for PriorityMix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [high, normal, low] = self.weights;
        write!(out, "{high}:{normal}:{low}")
    }
}

/// Moments at which something is due, with exponential gaps (a Poisson process) or even ones.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals {
    gap_mean_ns: f64,
    even: bool,
    next_ns: f64,
    burst: u32,
    /// How many more are due at the next moment.
    burst_left: u32,
}

impl Arrivals {
    /// The first arrivals after `now_ns`, `per_second` of them.
    #[must_use]
    pub fn from(now_ns: u64, per_second: f64, even: bool) -> Self {
        let gap_mean_ns = 1e9 / per_second;
        let next_ns = now_ns as f64 + gap_mean_ns;
        Self { gap_mean_ns, even, next_ns, burst: 1, burst_left: 1 }
    }

    /// As many per second, but so many at a time.
    #[must_use]
    pub fn in_bursts(self, burst: u32) -> Self {
        let gap_mean_ns = self.gap_mean_ns * f64::from(burst);
        Self { gap_mean_ns, burst, burst_left: burst, ..self }
    }

    /// When the next one is due.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        whole(self.next_ns) as u64
    }

    /// Moves on to the one after it, which does not depend on when this one was dealt with.
    pub fn advance(&mut self, rng: &mut Rng) {
        if self.burst_left > 1 {
            self.burst_left -= 1;
            return;
        }
        self.burst_left = self.burst;
        self.next_ns +=
            if self.even { self.gap_mean_ns } else { exponential(self.gap_mean_ns, rng) };
    }
}

fn exponential(mean: f64, rng: &mut Rng) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn whole(value: f64) -> usize {
    value as usize
}

/// Bytes with an optional factor: `64`, `1k`, `16M`, `1g`.
fn bytes(text: &str) -> Result<usize, String> {
    let problem = || format!("expected bytes such as 64, 1k or 64..1024 instead of `{text}`");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err(problem()),
    };
    number.parse().ok().and_then(|n: usize| n.checked_mul(factor)).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_alike() {
        for text in ["64", "64..1024", "exp:1024"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("1k".parse(), Ok(Size::Fixed(1024)));
        assert_eq!("exp:1k".parse(), Ok(Size::Exponential(1024)));
        assert_eq!("64MiB".parse(), Ok(Size::Fixed(64 << 20)));
        for text in ["", "x", "64..", "100..50", "8", "5g", "exp:", "-1", "64q"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn samples_keep_to_their_shape() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..10_000 {
            assert!((64..=1024).contains(&Size::Uniform(64, 1024).sample(&mut rng)));
            let bytes = Size::Exponential(1024).sample(&mut rng);
            assert!((STAMP_BYTES..=64 << 10).contains(&bytes));
        }
        let total: usize = (0..20_000).map(|_| Size::Exponential(1024).sample(&mut rng)).sum();
        assert!((950..1100).contains(&(total / 20_000)), "{total}");
    }

    #[test]
    fn times_are_read_and_written_alike() {
        for text in ["0", "10s", "5ms", "200us", "1500ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("2".parse(), Ok(Span(Duration::from_secs(2))));
        assert_eq!("1.5s".parse(), Ok(Span(Duration::from_millis(1500))));
        assert_eq!("exp:5ms".parse::<WorkTime>().unwrap().to_string(), "exp:5ms");
        for text in ["", "s", "5 s", "5x", "-1s", "exp:", "900000h"] {
            assert!(text.parse::<WorkTime>().is_err(), "{text}");
        }
    }

    #[test]
    fn priorities_come_in_their_proportions() {
        let mix: PriorityMix = "1:2:1".parse().unwrap();
        let mut rng = Rng::with_seed(7);
        let mut counts = [0_u32; 3];
        for _ in 0..40_000 {
            counts[mix.sample(&mut rng) as usize] += 1;
        }
        assert!(counts[0].abs_diff(10_000) < 500, "{counts:?}");
        assert!(counts[1].abs_diff(20_000) < 500, "{counts:?}");
        for text in ["", "1:1", "0:0:0", "1:1:1:1", "a:1:1", "1000001:0:0"] {
            assert!(text.parse::<PriorityMix>().is_err(), "{text}");
        }
    }

    #[test]
    fn arrivals_keep_their_rate_however_late_they_are_dealt_with() {
        let mut rng = Rng::with_seed(3);
        for even in [true, false] {
            let mut arrivals = Arrivals::from(0, 1000.0, even);
            let mut count = 0_u32;
            while arrivals.due_ns() < 20_000_000_000 {
                count += 1;
                arrivals.advance(&mut rng);
            }
            assert!(count.abs_diff(20_000) < 600, "{count}");
        }
    }

    #[test]
    fn bursts_are_due_at_once_and_keep_the_rate() {
        let mut rng = Rng::with_seed(3);
        let mut arrivals = Arrivals::from(0, 1000.0, true).in_bursts(4);
        let mut due_ms = Vec::new();
        for _ in 0..9 {
            due_ms.push(arrivals.due_ns() / 1_000_000);
            arrivals.advance(&mut rng);
        }
        assert_eq!(due_ms, [1, 1, 1, 1, 5, 5, 5, 5, 9]);
    }

    #[test]
    fn the_same_seed_gives_the_same_load() {
        let draw = || {
            let mut rng = Rng::with_seed(42);
            let size: Size = "exp:1k".parse().unwrap();
            (0..100).map(|_| size.sample(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }
}
