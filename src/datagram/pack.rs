//! Symbols to datagrams.

use crate::container::Layout;
use crate::datagram::header::Header;
use crate::datagram::{Datagrams, MAX_PARTS, Spread};
use crate::entropy::bank::COST_ONE_BIT;
use crate::error::{Error, Result};
use crate::kernels::portable::{CheckSums, MAX_LANES, RansScratch, rans_encode};
use crate::plan;
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
    let levels: Vec<u8> = plan::levels(profile, quality).collect();
    let layout = (*layout != profile.layout).then_some(*layout);
    let limit = options.bytes.min(usize::from(u16::MAX));
    let mut parts = options.parts;
    loop {
        let header =
            Header { lanes: 1, feature: options.number, profile: profile.hash as u16, quality, part: 0, parts, layout };
        let longest = pack_parts(profile, header, (blocks, symbols), &levels, out);
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
fn pack_parts(
    profile: &Profile,
    header: Header,
    (blocks, symbols): (&Blocks, &[i32]),
    levels: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    out.clear();
    let spread = Spread::new(header.parts, blocks);
    let channels = levels.len();
    let (mut own, mut tables, mut scratch) = (Vec::new(), Vec::new(), RansScratch::default());
    let mut longest = 0;
    for part in 0..header.parts {
        own.clear();
        tables.clear();
        for (block, symbols) in symbols.chunks_exact(channels.max(1)).enumerate() {
            for channel in spread.channels(part, block, channels) {
                own.push(symbols[channel]);
                tables.push(levels[channel]);
            }
        }
        let cost = own.iter().zip(&tables).map(|(&symbol, &table)| u64::from(profile.bank.cost(table, symbol)));
        let worth = cost.sum::<u64>() / u64::from(COST_ONE_BIT * 8) / BYTES_PER_LANE;
        let lanes = 1 << worth.clamp(1, MAX_LANES as u64).ilog2();
        let header = Header { part, lanes, ..header };
        let start = out.len();
        out.extend_from_slice(&[0; 2]);
        header.write(out);
        if !own.is_empty() {
            let mut sums = CheckSums::default();
            sums.add_all(&own, own.len());
            let ends = sums.end_states(lanes, Some(header.seed(profile.hash)));
            rans_encode(&own, &tables, own.len(), &ends[..lanes], &profile.bank, &mut scratch, out);
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
