//! Kubernetes' quantities: `100m`, `1.5`, `250Mi`, `1e3`.

use std::str::FromStr;

/// An amount, in thousandths of a millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

const NANO: i128 = 1_000_000_000;
/// What a suffix multiplies with: numerator, denominator.
const SUFFIXES: [(&str, i128, i128); 16] = [
    ("", 1, 1),
    ("n", 1, NANO),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", NANO, 1),
    ("T", 1_000 * NANO, 1),
    ("P", 1_000_000 * NANO, 1),
    ("E", NANO * NANO, 1),
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no quantity, such as 100m, 1.5 or 250Mi")]
pub(crate) struct InvalidQuantity(String);

impl Quantity {
    /// Thousandths of a unit, rounded up.
    pub(crate) fn thousandths(self) -> u32 {
        Self(self.0.saturating_mul(1_000)).ceil()
    }

    /// Whole units, rounded up.
    pub(crate) fn ceil(self) -> u32 {
        let whole = self.0.div_euclid(NANO) + i128::from(self.0.rem_euclid(NANO) > 0);
        u32::try_from(whole.max(0)).unwrap_or(u32::MAX)
    }
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).ok_or_else(|| InvalidQuantity(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Nine digits stand for what a nano can tell apart.
    if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.len() > 9 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let (numerator, denominator) = match suffix.strip_prefix(['e', 'E']).filter(|e| !e.is_empty() && *e != "i") {
        Some(exponent) => {
            let exponent: i32 = exponent.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
        None => SUFFIXES.iter().find(|(s, ..)| *s == suffix).map(|(_, n, d)| (*n, *d))?,
    };
    digits.checked_mul(NANO)?.checked_mul(numerator)?.checked_div(denominator.checked_mul(scale)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_kubernetes() {
        for (text, ceil) in [
            ("100m", 1),
            ("1", 1),
            ("1.5", 2),
            ("0", 0),
            ("2000m", 2),
            ("2001m", 3),
            (".5", 1),
            ("1e1", 10),
            ("1E1", 10),
            ("1k", 1000),
            ("1Ki", 1024),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().ceil(), ceil, "{text}");
        }
        let bytes = |text: &str| text.parse::<Quantity>().unwrap();
        assert!(bytes("250Mi") > bytes("250M") && bytes("1Ei") > bytes("1E"));
        for bad in ["", "m", "1 m", "1mm", "-1", "one", "1.2.3", "1e", "9999999999999999999"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }
}
