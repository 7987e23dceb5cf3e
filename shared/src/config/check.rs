//! Whether sizes can be those of a network.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// Largest size of anything: far above every network there is, and low enough that products of two do not overflow.
pub(super) const MOST: usize = 1 << 20;

/// A setting that no network can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {found}, expected {expected}")]
pub struct ConfigError {
    /// Its name, with those of the parts that it lies in.
    pub setting: String,
    /// What the file says: `is 0`.
    pub found: String,
    /// What is possible.
    pub expected: String,
}

impl ConfigError {
    /// For a setting and its value.
    pub fn new(setting: &str, value: impl Display, expected: impl Display) -> Self {
        Self { setting: setting.to_owned(), found: format!("is {value}"), expected: expected.to_string() }
    }

    /// The same setting, seen from outside of `part`.
    pub fn within(self, part: &str) -> Self {
        Self { setting: format!("{part}.{}", self.setting), ..self }
    }
}

/// A size is at least 1.
pub(super) fn size(setting: &str, found: usize) -> Result<(), ConfigError> {
    within(setting, found, 1..=MOST)
}

pub(super) fn within(setting: &str, found: usize, range: RangeInclusive<usize>) -> Result<(), ConfigError> {
    match range.contains(&found) {
        true => Ok(()),
        false => Err(ConfigError::new(setting, found, format_args!("{} to {}", range.start(), range.end()))),
    }
}

/// The length of a list.
pub(super) fn entries(setting: &str, found: usize, range: RangeInclusive<usize>) -> Result<(), ConfigError> {
    let (start, end) = range.clone().into_inner();
    let expected = if start == end { start.to_string() } else { format!("{start} to {end}") };
    match range.contains(&found) {
        true => Ok(()),
        false => Err(ConfigError { setting: setting.to_owned(), found: format!("has {found} entries"), expected }),
    }
}

/// The first setting divides the second.
pub(super) fn divides((setting, found): (&str, usize), (of, whole): (&str, usize)) -> Result<(), ConfigError> {
    match found > 0 && whole.is_multiple_of(found) {
        true => Ok(()),
        false => Err(ConfigError::new(setting, found, format_args!("a divisor of {of}, {whole}"))),
    }
}

/// A width is a size, and its heads share it evenly.
pub(super) fn heads_of(width: (&str, usize), heads: (&str, usize)) -> Result<(), ConfigError> {
    size(width.0, width.1)?;
    divides(heads, width)
}
