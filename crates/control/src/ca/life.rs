//! From when to when a certificate is valid, and when somebody should see to its successor.

use std::time::{Duration, SystemTime};
use x509_parser::{certificate::X509Certificate, time::ASN1Time};

/// Before the end of a certificate that people renew; `weft check` warns as early.
const AHEAD: Duration = Duration::from_secs(60 * 24 * 60 * 60);

#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) begin: SystemTime,
    pub(super) end: SystemTime,
}

impl Life {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let time =
            |time: ASN1Time| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0));
        let validity = certificate.validity();
        Self { begin: time(validity.not_before), end: time(validity.not_after) }
    }

    /// Some time ahead of its end; of one that lives briefly, which a program renews, in the last quarter of its life.
    pub(super) fn due(&self) -> SystemTime {
        let quarter = self.end.duration_since(self.begin).unwrap_or_default() / 4;
        self.end - quarter.min(AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_life_is_seen_to_days_ahead_and_a_brief_one_in_its_last_quarter() {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let day = Duration::from_secs(24 * 60 * 60);
        let due = |life: Duration| Life { begin, end: begin + life }.due().duration_since(begin).unwrap();
        assert_eq!(due(365 * day), 305 * day);
        assert_eq!(due(2 * day), 36 * Duration::from_secs(60 * 60));
        assert_eq!(due(Duration::ZERO), Duration::ZERO);
    }
}
