//! Durations in Go's notation, which Kubernetes and Calico use: `90s`, `1h30m`, `1.5s`.

use std::time::Duration;

/// Units, the longer names first.
const UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// Reads a duration that is not negative; `None` if it is none.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let (unit, scale) = UNITS.iter().find(|(unit, _)| {
            // `m` must not take the first letter of `ms`.
            tail.strip_prefix(unit)
                .is_some_and(|after| !after.starts_with(|c: char| c.is_alphabetic()))
        })?;
        seconds += number.parse::<f64>().ok()? * scale;
        rest = tail.strip_prefix(unit)?;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for (text, millis) in
            [("90s", 90_000), ("1h30m", 5_400_000), ("1.5s", 1_500), ("15ms", 15), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "90", "s", "-1s", "1d", "1s2", "1..5s", "999999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
