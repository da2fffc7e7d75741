//! Lists of ports, as annotations and flags write them.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// A list of ports and ascending ranges: `25,587,4000-4100`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortRanges(Vec<RangeInclusive<u16>>);

/// A text that is no list of ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} is not a port: {reason}")]
pub struct InvalidPorts {
    entry: String,
    reason: &'static str,
}

/// Most entries that a list of ports may have.
const MAX_ENTRIES: usize = 1024;

impl PortRanges {
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|r| r.contains(&port))
    }

    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    /// Each port once, ascending.
    pub fn numbers(&self) -> Vec<u16> {
        self.merged().0.into_iter().flatten().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same ports, ascending and without overlap, ranges that touch joined.
    #[must_use]
    pub fn merged(&self) -> Self {
        let mut sorted: Vec<_> =
            self.0.iter().filter(|range| !range.is_empty()).map(|r| (*r.start(), *r.end())).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        merged.into_iter().map(|(first, last)| first..=last).collect()
    }
}

impl FromIterator<u16> for PortRanges {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        Self(ports.into_iter().map(|p| p..=p).collect())
    }
}

impl FromIterator<RangeInclusive<u16>> for PortRanges {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Self {
        Self(ranges.into_iter().collect())
    }
}

impl Extend<RangeInclusive<u16>> for PortRanges {
    fn extend<I: IntoIterator<Item = RangeInclusive<u16>>>(&mut self, ranges: I) {
        self.0.extend(ranges);
    }
}

impl FromStr for PortRanges {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        entries(text)?.into_iter().map(range).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The entries of such a list, which are not looked at.
///
/// # Errors
/// There are too many.
pub fn entries(text: &str) -> Result<Vec<&str>, InvalidPorts> {
    let entries: Vec<&str> = text.split(',').map(str::trim).filter(|e| !e.is_empty()).take(MAX_ENTRIES + 1).collect();
    match entries.get(MAX_ENTRIES) {
        Some(entry) => Err(invalid(entry, "a list has at most 1024 entries")),
        None => Ok(entries),
    }
}

/// One port or an ascending range.
///
/// # Errors
/// It is neither.
pub fn range(entry: &str) -> Result<RangeInclusive<u16>, InvalidPorts> {
    let port = |text: &str| match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(invalid(entry, "a port is a number from 1 to 65535")),
    };
    match entry.split_once('-') {
        None => port(entry).map(|p| p..=p),
        Some((first, last)) => match (port(first)?, port(last)?) {
            (first, last) if first <= last => Ok(first..=last),
            _ => Err(invalid(entry, "a range ascends")),
        },
    }
}

fn invalid(entry: &str, reason: &'static str) -> InvalidPorts {
    InvalidPorts { entry: entry.chars().take(64).collect(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged() {
        let merged = |ranges: &[RangeInclusive<u16>]| ranges.iter().cloned().collect::<PortRanges>().merged().0;
        #[expect(clippy::reversed_empty_ranges, reason = "it is left out")]
        let empty = 9..=8;
        assert_eq!(merged(&[90..=100, 1..=5, 6..=6, 95..=99, empty, 65535..=65535]), [1..=6, 90..=100, 65535..=65535]);
        assert_eq!(merged(&[0..=65535, 80..=80]), [0..=65535]);
    }

    #[test]
    fn ranges_are_numbers() {
        let list: PortRanges = "4001-4003,25,4000-4002,65535".parse().unwrap();
        assert_eq!(list.numbers(), [25, 4000, 4001, 4002, 4003, 65535]);
        assert_eq!("1-65535,".repeat(1024).parse::<PortRanges>().unwrap().numbers().len(), 65535);
    }
}
