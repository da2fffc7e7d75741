//! Durations as people write them in headers, variables and flags.

use std::time::Duration;

/// A century: what is said to take longer takes this. No time to which it is added overflows.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// `90s`, `1500ms`, `2m`, `1h`, `1d`; a bare `0` needs no unit.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "" if number == 0 => 1,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        "d" => 24 * 60 * 60 * 1_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis).map(|duration| duration.min(LONGEST))
}

/// As Go and the Gateway API write them: `1h2m3.5s`, without a sign; a bare `0` needs no unit. Go's hold 2^63 ns, and what is longer is
/// none of theirs.
pub fn parse_go(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut nanos) = (text, 0_f64);
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at_checked(unit)?;
        let length = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(length)?;
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * scale;
        rest = behind;
    }
    let is_gos = !text.is_empty() && nanos < i64::MAX as f64;
    if is_gos { Some(Duration::try_from_secs_f64(nanos / 1e9).ok()?.min(LONGEST)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [("0", 0), ("500ms", 500), ("1h2m3.5s", 3_723_500), (".5s", 500), ("1m", 60_000)] {
            assert_eq!(parse_go(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_go("2562047h"), Some(LONGEST));
        for bad in ["", "5", "-5s", "s", "1 s", "1d", "2562048h", "3000000000000000h", "99999999999999999999h"] {
            assert_eq!(parse_go(bad), None, "{bad}");
        }
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn durations_have_units() {
        let cases = [
            ("150ms", Some(ms(150))),
            (" 2s ", Some(ms(2_000))),
            ("3m", Some(ms(180_000))),
            ("1h", Some(ms(3_600_000))),
            ("1d", Some(ms(86_400_000))),
            ("18446744073709551615ms", Some(LONGEST)),
            ("0", Some(ms(0))),
            ("0s", Some(ms(0))),
            ("1", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("1s2", None),
            ("1 s", None),
            ("1y", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_longest_can_be_added_to_any_time() {
        let (now, epoch) = (std::time::Instant::now(), std::time::SystemTime::UNIX_EPOCH);
        assert!(now.checked_add(10 * LONGEST).is_some() && epoch.checked_add(10 * LONGEST).is_some());
    }
}
