//! What ran, where and when.

use std::time::{SystemTime, UNIX_EPOCH};

/// The processor's name, as far as the system tells.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|l| l.split(':').next().is_some_and(|k| k.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let Some(name) = field("model name") else { return std::env::consts::ARCH.into() };
    let number = |name| field(name).unwrap_or_default();
    let simd = ["avx2", "avx512f", "avx512vbmi"];
    let flags = number("flags");
    let simd: Vec<&str> = simd.into_iter().filter(|s| flags.split(' ').any(|f| f == *s)).collect();
    format!("{name} (family {} model {}; {})", number("cpu family"), number("model"), simd.join(" "))
}

/// Today, in UTC (Howard Hinnant's `civil_from_days`).
pub fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + u64::from(month <= 2))
}

/// The versions of the peers in this build.
pub fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let names = ["constriction", "lz4_flex", "pco", "zstd", "zstd-sys"];
    #[allow(unused_mut)]
    let mut list: Vec<String> = names
        .into_iter()
        .filter_map(|name| {
            let version = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?.1.split('"').next()?;
            Some(format!("{name} {version}"))
        })
        .collect();
    #[cfg(feature = "htscodecs")]
    list.push(format!("htscodecs {}", crate::ffi::htscodecs::version()));
    #[cfg(feature = "charls")]
    list.push(format!("charls {}", crate::ffi::charls::version()));
    list.join(", ")
}
