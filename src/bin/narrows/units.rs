//! Lengths of time as people write them.

use std::time::Duration;

/// Parses `150ms`, `2.5s`, `5m` or `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wanted = || format!("{text:?} is not a time; write for example 150ms, 2.5s or 5m");
    let (number, unit) = split(text).ok_or_else(wanted)?;
    let factor = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wanted()),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|_| wanted())
}

/// A number from 0 up, and the unit behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let unit = text.trim().trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.trim().strip_suffix(unit)?.parse().ok()?;
    number.is_finite().then_some((number, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(duration("2.5 s"), Ok(Duration::from_millis(2500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["", "5", "ms", "-1s", "1 fortnight", "1e400s", "."] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
