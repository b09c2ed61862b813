//! Proves that the tables and constants printed in FORMAT.md are the ones in the code.

use narrows::raw::bank::Bank;

fn format() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/FORMAT.md");
    std::fs::read_to_string(path).expect("FORMAT.md is readable")
}

#[test]
fn the_printed_bank_is_the_built_in_one() {
    let text = format();
    let rows: Vec<Vec<u16>> = text
        .lines()
        .filter_map(|line| line.trim_start().split_once(": "))
        .filter(|(index, _)| index.parse::<usize>().is_ok())
        .map(|(_, row)| row.split_whitespace().map(|n| n.parse().unwrap()).collect())
        .collect();
    let bank = Bank::builtin();
    assert_eq!(rows.len(), bank.frequencies().len());
    for (row, table) in rows.iter().zip(bank.frequencies()) {
        assert_eq!(row[0], table[0]);
        for class in 1..16 {
            assert_eq!((row[class], row[class]), (table[2 * class - 1], table[2 * class]));
        }
    }
}

#[test]
fn the_printed_mantissas_are_the_ones_in_use() {
    let text = format();
    let mantissas: Vec<String> =
        (0..32).map(|i| (2048.0 * 2f64.powf(f64::from(i) / 32.0)).round().to_string()).collect();
    for line in mantissas.chunks(16).map(|line| line.join(" ")) {
        assert!(text.lines().any(|printed| printed.trim() == line), "{line}");
    }
}
