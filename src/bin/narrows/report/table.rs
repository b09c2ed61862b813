//! Aligned text for a terminal.

use crate::metrics::Point;
use crate::output::thousands;
use crate::report::{Report, TARGETS, bd_note, bd_text, bytes_at_text};

/// The whole report as text.
pub fn text(report: &Report) -> String {
    let mut text = format!("{}\n{}\n", report.title, wrap(&report.about.join(" ")));
    text += &format!("{} images, top-1 of the uncut network {:.4}\n", report.images, report.top1);
    for (cut, points) in by_cut(&report.points) {
        let heading = cut.map_or("sent: the input".to_string(), |cut| format!("sent: the feature at {cut}"));
        text += &format!("\n{heading}\n{}", points_table(&points));
    }
    let targets = report.targets();
    if !targets.is_empty() {
        let mut rows = vec![vec!["bytes at agreement".to_string()]];
        rows[0].extend(TARGETS.map(|target| format!("{target:.2}")));
        for (name, bytes) in targets {
            rows.push(std::iter::once(name).chain(bytes.into_iter().map(bytes_at_text)).collect());
        }
        text += &format!("\n{}", align(&rows, 1));
    }
    let comparisons = report.comparisons();
    if !comparisons.is_empty() {
        let mut rows = vec![["BD-rate", "against", "by", "bytes", "over"].map(str::to_string).to_vec()];
        let note = bd_note(&comparisons);
        for comparison in comparisons {
            let (percent, range) = bd_text(comparison.bd);
            rows.push(vec![
                comparison.test,
                comparison.reference.to_string(),
                comparison.measure.name().to_string(),
                percent,
                range,
            ]);
        }
        text += &format!("\n{}", align(&rows, 3));
        text += note.unwrap_or_default();
    }
    text.trim_end().to_string()
}

/// Points in runs of one cut.
fn by_cut(points: &[Point]) -> Vec<(Option<&str>, Vec<&Point>)> {
    let mut groups: Vec<(Option<&str>, Vec<&Point>)> = Vec::new();
    for point in points {
        let cut = point.cut.as_deref();
        match groups.last_mut() {
            Some((last, group)) if *last == cut => group.push(point),
            _ => groups.push((cut, vec![point])),
        }
    }
    groups
}

/// The head of the table of points, and each point as its cells.
pub const COLUMNS: [&str; 11] =
    ["codec", "bytes", "std", "p99", "max", "bits/el", "top-1", "agree", "KL", "enc µs", "dec µs"];

/// The cells of one point.
pub fn cells(point: &Point) -> Vec<String> {
    vec![
        point.name(),
        bytes_text(point.bytes.mean),
        thousands(point.bytes.std.round() as u64),
        thousands(point.bytes.p99 as u64),
        thousands(point.bytes.max as u64),
        format!("{:.3}", point.bits_per_element),
        format!("{:.4}", point.top1),
        format!("{:.4}", point.agreement),
        if point.divergence == 0.0 { "0".into() } else { format!("{:.4}", point.divergence) },
        thousands(point.encode.round() as u64),
        thousands(point.decode.round() as u64),
    ]
}

/// Mean bytes: one digit after the point where that is worth reading.
fn bytes_text(bytes: f64) -> String {
    if bytes < 1000.0 && bytes.fract() > 0.0 { format!("{bytes:.1}") } else { thousands(bytes.round() as u64) }
}

fn points_table(points: &[&Point]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_string).to_vec()];
    rows.extend(points.iter().map(|point| cells(point)));
    align(&rows, 1)
}

/// Text in lines of at most 100 characters.
pub fn wrap(text: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let own = word.chars().count();
        if length > 0 && length + 1 + own > 100 {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines += word;
        length += own;
    }
    lines
}

/// Rows as lines: the first `left` columns to the left, the others to the right.
pub fn align(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from("  ");
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            if column < left {
                line += &format!("{cell:<width$}  ");
            } else {
                line += &format!("{cell:>width$}  ");
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_broken_between_words() {
        let wrapped = wrap(&"word ".repeat(50));
        assert_eq!(wrapped.lines().map(str::len).collect::<Vec<_>>(), [99, 99, 49]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_string(), "1".into()], vec!["bcd".to_string(), "µ10".into()]];
        assert_eq!(align(&rows, 1), "  a      1\n  bcd  µ10\n");
    }
}
