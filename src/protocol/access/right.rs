//! The rights that an access list gives: one, or a set of them.
//!
//! Names in, sets out. Knows neither rules nor peers.
//!
//! Invariant: the names and their order are those of the file, the log and `stats`.

use std::fmt;

/// A right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// To submit jobs of a function, and to ask for their state.
    Submit,
    /// To run jobs of a function.
    Work,
    /// To see a function and its jobs.
    Observe,
    /// To change a function and its jobs.
    Admin,
}

/// Number of rights.
pub const RIGHTS: usize = Right::ALL.len();

impl Right {
    /// All of them, in the order of the file's format.
    pub const ALL: [Self; 4] = [Self::Submit, Self::Work, Self::Observe, Self::Admin];

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Work => "work",
            Self::Observe => "observe",
            Self::Admin => "admin",
        }
    }

    /// The right of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.name() == name)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Whether a right is in the set.
    #[must_use]
    pub fn contains(self, right: Right) -> bool {
        self.0 & Self::bit(right) != 0
    }

    /// The rights that a rule gives with these: admin implies observe.
    #[must_use]
    pub fn with_implied(self) -> Self {
        let implied = if self.contains(Right::Admin) { Self::bit(Right::Observe) } else { 0 };
        Self(self.0 | implied)
    }

    const fn bit(right: Right) -> u8 {
        1 << right as u8
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |bits, right| bits | Self::bit(right)))
    }
}

/// The names, with a blank between them.
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Right::ALL.into_iter().filter(|&right| self.contains(right)).map(Right::name);
        f.write_str(&names.collect::<Vec<_>>().join(" "))
    }
}
