//! Wall time as Calico writes it. The allocator is given a clock; nothing else reads one.

use std::fmt;
use std::sync::Arc;

/// Nanoseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct UnixNanos(pub u64);

/// Where wall time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixNanos + Send + Sync>);

impl Clock {
    /// Reads time from a function.
    pub fn new(now: impl Fn() -> UnixNanos + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Reads the machine's clock.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the clock, for drivers"
    )]
    pub fn system() -> Self {
        Self::new(|| std::time::SystemTime::now().into())
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> UnixNanos {
        (self.0)()
    }
}

impl From<std::time::SystemTime> for UnixNanos {
    /// Times before 1970 are 1970.
    fn from(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

const SECOND: u64 = 1_000_000_000;

impl UnixNanos {
    /// Formats as RFC 3339 with seconds, as Kubernetes writes times.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let (date, time) = self.date_and_time();
        format!("{date}T{time}Z")
    }

    /// Formats as Go prints a UTC time, which is what Calico puts into the attribute `timestamp`.
    #[must_use]
    pub fn go_string(self) -> String {
        let (date, time) = self.date_and_time();
        let fraction = format!("{:09}", self.0 % SECOND);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{date} {time}{point}{fraction} +0000 UTC")
    }

    /// Reads an RFC 3339 time in UTC, without its fraction.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.splitn(3, '-').map(str::parse::<u64>);
        let mut time = time.split('.').next()?.splitn(3, ':').map(str::parse::<u64>);
        let part = |parts: &mut dyn Iterator<Item = Result<u64, _>>| parts.next()?.ok();
        let (year, month, day) = (part(&mut date)?, part(&mut date)?, part(&mut date)?);
        let (hour, minute, second) = (part(&mut time)?, part(&mut time)?, part(&mut time)?);
        let days = days_from_civil(year, month, day)?;
        Some(Self((((days * 24 + hour) * 60 + minute) * 60 + second) * SECOND))
    }

    fn date_and_time(self) -> (String, String) {
        let seconds = self.0 / SECOND;
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
        let date = format!("{year:04}-{month:02}-{day:02}");
        (date, format!("{hour:02}:{minute:02}:{:02}", seconds % 60))
    }
}

/// Days since 1970-01-01 to a date, by Howard Hinnant's algorithm (years counted from March).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_kubernetes_and_go_write_them() {
        let time = UnixNanos(1_790_000_000_120_000_000);
        assert_eq!(time.rfc3339(), "2026-09-21T14:13:20Z");
        assert_eq!(time.go_string(), "2026-09-21 14:13:20.12 +0000 UTC");
        assert_eq!(
            UnixNanos::parse_rfc3339(&time.rfc3339()),
            Some(UnixNanos(1_790_000_000 * SECOND))
        );
        assert_eq!(UnixNanos(0).go_string(), "1970-01-01 00:00:00 +0000 UTC");
        for day in 0..60_000 {
            let time = UnixNanos(day * 86_400 * SECOND);
            assert_eq!(UnixNanos::parse_rfc3339(&time.rfc3339()), Some(time));
        }
        assert_eq!(UnixNanos::parse_rfc3339("yesterday"), None);
    }
}
