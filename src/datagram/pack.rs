//! Symbols to datagrams.

use crate::container::Layout;
use crate::datagram::contents::{Contents, Place};
use crate::datagram::header::Header;
use crate::datagram::{Datagrams, MAX_COPIES, MAX_PARTS};
use crate::entropy::bank::COST_ONE_BIT;
use crate::error::{Error, Result};
use crate::kernels::portable::{CheckSums, MAX_LANES, RansScratch, rans_encode};
use crate::profile::Profile;
use crate::transform::Blocks;

/// Payload bytes that a lane of a datagram must be worth.
const BYTES_PER_LANE: u64 = 300;

/// Writes the datagrams of a feature, each behind its length in two bytes, with as few parts as `options` allow.
/// `symbols` are those of the active channels of each block.
///
/// # Errors
/// `InvalidInput` for options out of range, `LimitExceeded` if 255 datagrams cannot hold the feature.
pub(crate) fn pack(
    (profile, quality): (&Profile, i16),
    layout: &Layout,
    (blocks, symbols): (&Blocks, &[i32]),
    options: &Datagrams,
    out: &mut Vec<u8>,
) -> Result<()> {
    if !(1..=MAX_PARTS).contains(&options.parts) {
        return Err(Error::invalid(format!("a feature has 1 to {MAX_PARTS} parts, not {}", options.parts)));
    }
    if options.copies > MAX_COPIES {
        let Datagrams { copies, .. } = options;
        return Err(Error::invalid(format!("copies are coarser by 3, 9 or 27 (1, 2, 3; 0 for none), not {copies}")));
    }
    let layout = (*layout != profile.layout).then_some(*layout);
    let limit = options.bytes.min(usize::from(u16::MAX));
    let mut parts = options.parts;
    loop {
        // The only part is nobody's copy.
        let copies = if parts > 1 { options.copies } else { 0 };
        let header = Header {
            lanes: 1,
            feature: options.number,
            profile: profile.hash as u16,
            quality,
            part: 0,
            parts,
            copies,
            layout,
        };
        let contents = Contents::new(profile, quality, (parts, copies), blocks);
        let longest = pack_parts(profile, header, &contents, symbols, out);
        if longest <= limit {
            return Ok(());
        }
        if parts == MAX_PARTS {
            return Err(Error::LimitExceeded {
                what: "bytes of a datagram",
                needed: longest as u64,
                limit: limit as u64,
            });
        }
        // At least so many are needed, and one more than now.
        parts = (parts * longest).div_ceil(limit.max(1)).clamp(parts + 1, MAX_PARTS);
    }
}

/// Writes all parts, and gives the length of the longest.
fn pack_parts(profile: &Profile, header: Header, contents: &Contents, symbols: &[i32], out: &mut Vec<u8>) -> usize {
    out.clear();
    let (mut coded, mut tables, mut scratch) = (Vec::new(), Vec::new(), RansScratch::default());
    let mut longest = 0;
    for part in 0..header.parts {
        coded.clear();
        tables.clear();
        let symbol = |place: &Place| symbols[place.block * contents.channels() + place.channel];
        for place in contents.own(part) {
            coded.push(symbol(&place));
            tables.push(place.table);
        }
        for place in contents.copies(part) {
            coded.push(contents.coarse(symbol(&place)));
            tables.push(place.table);
        }
        let cost = coded.iter().zip(&tables).map(|(&symbol, &table)| u64::from(profile.bank.cost(table, symbol)));
        let worth = cost.sum::<u64>() / u64::from(COST_ONE_BIT * 8) / BYTES_PER_LANE;
        let lanes = 1 << worth.clamp(1, MAX_LANES as u64).ilog2();
        let header = Header { part, lanes, ..header };
        let start = out.len();
        out.extend_from_slice(&[0; 2]);
        header.write(out);
        if !coded.is_empty() {
            let mut sums = CheckSums::default();
            sums.add_all(&coded, coded.len());
            let ends = sums.end_states(lanes, Some(header.seed(profile.hash)));
            rans_encode(&coded, &tables, coded.len(), &ends[..lanes], &profile.bank, &mut scratch, out);
        }
        let length = out.len() - start - 2;
        out[start..start + 2].copy_from_slice(&(length as u16).to_le_bytes());
        longest = longest.max(length);
    }
    longest
}

/// The datagrams that [`pack`] wrote.
pub(crate) fn split(mut packed: &[u8]) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    while let Some((&length, rest)) = packed.split_first_chunk::<2>() {
        let (datagram, rest) = rest.split_at(usize::from(u16::from_le_bytes(length)).min(rest.len()));
        datagrams.push(datagram.to_vec());
        packed = rest;
    }
    datagrams
}
