//! Tables of numbers from CSV files.

use crate::error::{Error, Result};

/// Most lines that are read.
const MAX_LINES: usize = 1_000_000;

/// Reads a table of numbers under a header: the columns of these names, in this order; those from `required` on may be
/// missing. Without a header, a first line of numbers, the columns are in this order too. Every row has a value for each column
/// that is there, and comes with the number of its line.
///
/// # Errors
/// `InvalidInput` that names the line and the column, from 1, of what is not as it should be; `LimitExceeded` beyond a
/// million lines.
pub fn read(text: &str, names: &[&str], required: usize) -> Result<Vec<(usize, Vec<f64>)>> {
    let wanted = || names.join(",");
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    let mut lines = lines.peekable();
    let &(top, first) = lines.peek().ok_or_else(|| Error::invalid(format!("empty; the header is {}", wanted())))?;
    let mut header: Vec<&str> = first.split(',').map(str::trim).collect();
    let bare = header.iter().all(|cell| cell.parse::<f64>().is_ok());
    if bare && (required..=names.len()).contains(&header.len()) {
        header = names[..header.len()].to_vec();
    } else {
        lines.next();
    }
    if let Some(column) = header.iter().position(|name| !names.contains(name)) {
        let name = header[column];
        return Err(Error::invalid(format!(
            "line {top}, column {}: `{name}`; the first line is the header, {}",
            column + 1,
            wanted()
        )));
    }
    let mut places = Vec::new();
    for (i, name) in names.iter().enumerate() {
        match header.iter().position(|other| other == name) {
            Some(place) => places.push(place),
            None if i < required => {
                return Err(Error::invalid(format!("line {top}: no column `{name}`; the header is {}", wanted())));
            }
            None => break,
        }
    }
    if header.len() != places.len() {
        return Err(Error::invalid(format!("line {top}: a column twice; the header is {}", wanted())));
    }
    let mut rows = Vec::new();
    for (line, text) in lines {
        if rows.len() == MAX_LINES {
            return Err(Error::LimitExceeded {
                what: "lines of a trace",
                needed: line as u64,
                limit: MAX_LINES as u64,
            });
        }
        let cells: Vec<&str> = text.split(',').map(str::trim).collect();
        if cells.len() != header.len() {
            return Err(Error::invalid(format!("line {line}: {} values for {} columns", cells.len(), header.len())));
        }
        let number = |&place: &usize| {
            let (cell, column) = (cells[place], place + 1);
            let value = cell.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
            value
                .ok_or_else(|| Error::invalid(format!("line {line}, column {column}: `{cell}` is no number from 0 up")))
        };
        rows.push((line, places.iter().map(number).collect::<Result<Vec<f64>>>()?));
    }
    if rows.is_empty() {
        return Err(Error::invalid(format!("line {top}: no lines after the header")));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["seconds", "bits_per_second", "round_trip_seconds"];

    #[test]
    fn columns_are_found_by_name() {
        let read = |text: &str| read(text, &NAMES, 2).unwrap();
        let two = |second: usize, third: usize| [(second, vec![0.0, 1e6]), (third, vec![2.0, 5.0])];
        assert_eq!(read("seconds,bits_per_second\n0,1e6\n\n 2 , 5 \r\n"), two(2, 4));
        assert_eq!(read("\u{feff}0,1e6\n2,5\n"), two(1, 2));
        assert_eq!(read("0,9,.04\n"), [(1, vec![0.0, 9.0, 0.04])]);
        assert_eq!(read("round_trip_seconds,seconds,bits_per_second\n.04,0,9\n"), [(2, vec![0.0, 9.0, 0.04])]);
    }

    #[test]
    fn errors_name_line_and_column() {
        for (text, words) in [
            ("", "the header is seconds,bits_per_second,round_trip_seconds"),
            ("time,bits_per_second\n", "line 1, column 1: `time`"),
            ("time,bits_per_second\n", "the first line is the header, seconds,bits_per_second"),
            ("0\n1\n", "the first line is the header"),
            ("0,1\n1,2,3\n", "line 2: 3 values for 2 columns"),
            ("seconds\n0\n", "line 1: no column `bits_per_second`"),
            ("\n\nseconds\n0\n", "line 3: no column `bits_per_second`"),
            ("\ntime,bits_per_second\n", "line 2, column 1: `time`"),
            ("\nseconds,seconds,bits_per_second\n0,0,1\n", "line 2: a column twice"),
            ("\nseconds,bits_per_second\n", "line 2: no lines"),
            ("seconds,bits_per_second\n0,1\n1\n", "line 3: 1 values for 2 columns"),
            ("seconds,bits_per_second\n0,1\n1,fast\n", "line 3, column 2: `fast`"),
            ("seconds,bits_per_second\n0,1\n\n1,-2\n", "line 4, column 2: `-2`"),
            ("bits_per_second,seconds\n1,0\n1,inf\n", "line 3, column 2: `inf`"),
            ("seconds,bits_per_second\n0,NaN\n", "line 2, column 2"),
        ] {
            let error = read(text, &NAMES, 2).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
