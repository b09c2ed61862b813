//! Prints what was measured.

use std::fmt::Write;

use crate::{bench::Row, path::PathRow};

/// A peer rivals a coder if its streams are at most this much larger.
const RIVAL: f64 = 1.01;

/// The speed as a share of the fastest peer that compresses at least about as well, or a dash where there is none.
fn ratio<'a>(own: (usize, f64, f64), peers: impl Iterator<Item = (usize, f64, f64)> + 'a) -> String {
    let (index, bytes, speed) = own;
    let best = peers.filter(|&(i, b, _)| i != index && b <= bytes * RIVAL).map(|(_, _, s)| s).fold(0.0, f64::max);
    if best > 0.0 { format!("{:.2}", speed / best) } else { "-".into() }
}

/// The table of the symbol coders; the rows of one case lie together.
pub fn symbols(rows: &[Row]) -> String {
    let mut out = String::from(
        "| data | message | coder | bits/symbol | over entropy | encode M/s | decode M/s \
         | encode ratio | decode ratio |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for (i, row) in rows.iter().enumerate() {
        let peers = |speed: fn(&Row) -> f64| {
            let same = move |r: &&Row| !r.ours && (&r.data, &r.size) == (&row.data, &row.size);
            let list = rows.iter().enumerate().filter(move |(_, r)| same(r));
            ratio((i, row.bits, speed(row)), list.map(move |(j, r)| (j, r.bits, speed(r))))
        };
        let coder = if row.ours { format!("**{}**", row.coder) } else { row.coder.clone() };
        let (encode, decode) = (peers(|r| r.encode), peers(|r| r.decode));
        writeln!(
            out,
            "| {} | {} | {coder} | {:.3} | {:+.2} % | {:.0} | {:.0} | {encode} | {decode} |",
            row.data,
            row.size,
            row.bits,
            row.over * 100.0,
            row.encode / 1e6,
            row.decode / 1e6,
        )
        .expect("a string grows");
    }
    out
}

/// The table of the whole path.
pub fn path(rows: &[PathRow]) -> String {
    let mut out = String::from(
        "| feature | coder | bytes | bits/value | encode GB/s | decode GB/s | encode ratio | decode ratio |\n\
         |---|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for (i, row) in rows.iter().enumerate() {
        let peers = |speed: fn(&PathRow) -> f64| {
            let list = rows.iter().enumerate().filter(|(_, r)| !r.ours && r.data == row.data);
            ratio((i, row.bytes, speed(row)), list.map(|(j, r)| (j, r.bytes, speed(r))))
        };
        let coder = if row.ours { format!("**{}**", row.coder) } else { row.coder.clone() };
        let (encode, decode) = (peers(|r| r.encode), peers(|r| r.decode));
        writeln!(
            out,
            "| {} | {coder} | {:.0} | {:.3} | {:.2} | {:.2} | {encode} | {decode} |",
            row.data,
            row.bytes,
            row.bytes * 8.0 / row.values,
            row.encode / 1e9,
            row.decode / 1e9,
        )
        .expect("a string grows");
    }
    out
}
