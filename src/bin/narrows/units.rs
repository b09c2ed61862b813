//! Times, bandwidths and speeds as people write and read them.

use std::time::Duration;

/// Parses `150ms`, `2.5s`, `5m` or `1h` as [`seconds`].
pub fn duration(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds(text)?).map_err(|_| format!("{text:?} is too long a time"))
}

/// Parses `40ms`, `0.5s`, `200us`, `5m` or `1h`; 0 needs no unit.
pub fn seconds(text: &str) -> Result<f64, String> {
    // Divided where it is a part of a second: 200us is then the number that 0.0002s is.
    let units = [
        ("ms", 1e3),
        ("us", 1e6),
        ("µs", 1e6),
        ("s", 1.0),
        ("min", 1.0 / 60.0),
        ("m", 1.0 / 60.0),
        ("h", 1.0 / 3600.0),
    ];
    let text = text.trim();
    let found = units.iter().find_map(|&(unit, parts)| Some((text.strip_suffix(unit)?, parts)));
    let (number, parts) = found.unwrap_or((text, if text == "0" { 1.0 } else { f64::NAN }));
    let value = number.trim().parse::<f64>().ok().map(|value| value / parts);
    let wanted = || format!("{text:?} is no time; write it with its unit, for example 150ms, 2.5s or 5m");
    value.filter(|value| value.is_finite() && *value >= 0.0).ok_or_else(wanted)
}

/// Parses a time within which answers are of use: [`seconds`] above 0.
pub fn deadline(text: &str) -> Result<f64, String> {
    let value = seconds(text)?;
    if value > 0.0 { Ok(value) } else { Err(format!("{text:?} is no deadline: nothing is answered in no time")) }
}

/// Parses `37.5k`, `1M`, `1Mbit`, `2.5Mbit/s`, `64000`: bits a second.
pub fn bandwidth(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let number = number.strip_suffix("bit").or(text.strip_suffix("bps")).unwrap_or(text).trim_end();
    let (number, factor) = match number.chars().last() {
        Some('k' | 'K') => (&number[..number.len() - 1], 1e3),
        Some('M') => (&number[..number.len() - 1], 1e6),
        Some('G') => (&number[..number.len() - 1], 1e9),
        _ => (number, 1.0),
    };
    let value = number.trim().parse::<f64>().ok().map(|value| value * factor);
    let wanted = || format!("{text:?} is no bandwidth; write bits a second, for example 37.5k or 1M");
    value.filter(|value| value.is_finite() && *value > 0.0).ok_or_else(wanted)
}

/// Parses a factor above 0.
pub fn speed(text: &str) -> Result<f64, String> {
    let value = text.trim().parse::<f64>().ok();
    let wanted = || format!("{text:?} is no speed; write a factor above 0, for example 0.2");
    value.filter(|value| value.is_finite() && *value > 0.0).ok_or_else(wanted)
}

/// Parses a number above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| format!("{text:?} is no number above 0"))
}

/// Parses a probability.
pub fn probability(text: &str) -> Result<f64, String> {
    let value = text.trim().parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| format!("{text:?} is no probability; write a number from 0 to 1, for example 0.9"))
}

/// Parses percentage points, 0 or more.
pub fn points(text: &str) -> Result<f64, String> {
    let value = text.trim().parse::<f64>().ok();
    let wanted = || format!("{text:?} is not 0 or more percentage points, for example 0.5");
    value.filter(|value| value.is_finite() && *value >= 0.0).ok_or_else(wanted)
}

/// A bandwidth for people: `37.5 kbit/s`.
pub fn bandwidth_text(bits: f64) -> String {
    let (value, unit) = match bits {
        _ if bits >= 0.9995e9 => (bits / 1e9, "Gbit/s"),
        _ if bits >= 0.9995e6 => (bits / 1e6, "Mbit/s"),
        _ if bits >= 0.9995e3 => (bits / 1e3, "kbit/s"),
        _ => (bits, "bit/s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A time for people: `12.3 ms`.
pub fn seconds_text(seconds: f64) -> String {
    match seconds {
        _ if seconds == f64::INFINITY => "never".into(),
        _ if seconds >= 0.9995 => format!("{} s", three_digits(seconds)),
        _ if seconds >= 0.9995e-3 || seconds == 0.0 => format!("{} ms", three_digits(seconds * 1e3)),
        _ => format!("{} µs", three_digits(seconds * 1e6)),
    }
}

/// Three digits that count, without needless zeros: `1230`, `12.3`, `0.123`.
fn three_digits(value: f64) -> String {
    let digits = if value <= 0.0 { 0 } else { (2 - value.log10().floor() as i32).clamp(0, 6) as usize };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_and_times_are_read_and_written() {
        let read = ["37.5k", "1Mbit", "2.5 Mbit/s", "64000", "1G", "300bps"].map(|text| bandwidth(text).unwrap());
        assert_eq!(read, [37_500.0, 1e6, 2.5e6, 64_000.0, 1e9, 300.0]);
        let read = ["40ms", "0.5s", "200us", "0", "1 s", "5m", "2min", "1h"].map(|text| seconds(text).unwrap());
        assert_eq!(read, [0.04, 0.5, 0.0002, 0.0, 1.0, 300.0, 120.0, 3600.0]);
        assert_eq!(duration("150ms"), Ok(Duration::from_millis(150)));
        for bad in ["", "fast", "1T", "-1M", "0", "M", "µ"] {
            assert!(bandwidth(bad).is_err(), "{bad:?}");
        }
        assert_eq!((points("0.5"), points("0")), (Ok(0.5), Ok(0.0)));
        assert_eq!((positive("1e-3"), probability("0"), probability("1")), (Ok(0.001), Ok(0.0), Ok(1.0)));
        assert!(["0", "-1", "NaN", "inf", ""].into_iter().all(|bad| positive(bad).is_err() && speed(bad).is_err()));
        assert!(["-0.1", "1.1", "NaN", ""].into_iter().all(|bad| probability(bad).is_err()));
        assert_eq!((deadline("1ms"), deadline("0").is_err(), deadline("0ms").is_err()), (Ok(0.001), true, true));
        assert!(["-1", "NaN", "1%", ""].into_iter().all(|bad| points(bad).is_err()));
        for bad in ["", "40", "ms", "-1ms", "infs", "1 fortnight", "1e400s", "."] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            [37_500.0, 1e6, 123_456_789.0, 999.96].map(bandwidth_text),
            ["37.5 kbit/s", "1 Mbit/s", "123 Mbit/s", "1 kbit/s"]
        );
        assert_eq!([0.04, 1.234, 0.000_056_7, 0.0].map(seconds_text), ["40 ms", "1.23 s", "56.7 µs", "0 ms"]);
        assert_eq!(seconds_text(f64::INFINITY), "never");
    }
}
