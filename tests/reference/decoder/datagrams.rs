//! Datagrams: the parts of a feature, of which none is lost.

use std::collections::HashMap;

use super::Kind::{Corrupt, ProfileMismatch, Unsupported};
use super::layers::{Index, put_block};
use super::pixels::pixels;
use super::symbols::group;
use super::{DTYPES, Decoded, Layout, Profile, Reader, Result, crc32, refuse_if};

/// The header of a datagram, and its states and words.
struct Part<'a> {
    q: i64,
    k: usize,
    parts: usize,
    c: i64,
    lanes: usize,
    layout: Layout,
    seed: u32,
    body: Reader<'a>,
}

fn part<'a>(datagram: &'a [u8], Profile(own, p): &Profile) -> Result<Part<'a>> {
    let mut body = Reader(datagram);
    refuse_if(body.uint(1)? != 0xf8, Corrupt)?;
    let flags = body.uint(1)?;
    let (_, hash, q) = (body.uint(2)?, body.uint(2)?, body.int(2)?);
    let (k, parts, c) = (body.uint(1)? as usize, body.uint(1)? as usize, flags as i64 >> 4 & 3);
    refuse_if(flags >> 6 > 0, Unsupported)?;
    refuse_if(flags & 7 > 5 || k >= parts || (c > 0 && parts == 1), Corrupt)?;
    refuse_if(hash != p["hash"][0] as u64 & 0xffff, ProfileMismatch)?;
    let layout = if flags & 8 == 0 { own.clone() } else { body.layout()? };
    refuse_if(layout.sides[3] != own.sides[3], Corrupt)?;
    let mut head = datagram[..datagram.len() - body.0.len()].to_vec();
    head[1] &= !7;
    head.extend(p["hash"][0].to_le_bytes());
    Ok(Part { q, k, parts, c, lanes: 1 << (flags & 7), layout, seed: crc32(&head), body })
}

/// Decodes all datagrams of a feature, and compares the copies with what they are copies of.
pub fn feature(datagrams: &[Vec<u8>], profile: &Profile) -> Result<Decoded> {
    let (p, first) = (&profile.1, part(datagrams.first().ok_or(Corrupt)?, profile)?);
    let Part { q, parts, c, layout, .. } = &first;
    let ([planes, height, width, components], h, w) = (layout.sides, p["block"][0] as u64, p["block"][1] as u64);
    let (high, wide) = (height.div_ceil(h), width.div_ceil(w));
    let blocks = if layout.elements == 0 { 0 } else { planes * high * wide };
    let fine = Index::new(profile, *q);
    let coarse: Vec<Index> = (1..=*c).map(|l| Index::new(profile, (q + 51 * l).min(32_767))).collect();
    // The block, number among the active channels, and table of each symbol of a part.
    let table = |level: i64| &p["bank"][level as usize * 32..][..32];
    let of = |k: usize| {
        let prime = |a: &usize| (2..=*parts).all(|d| !a.is_multiple_of(d) || !parts.is_multiple_of(d));
        let a = ((3 * parts).div_ceil(8).max(1)..).find(prime).unwrap_or(1);
        let b = (parts / 4).max(1);
        let channels = (0..blocks).flat_map(|block| (0..fine.active.len()).map(move |i| (block, i)));
        let k_of = move |(block, i)| (i + (block % wide) as usize * a + (block / wide % high) as usize * b) % parts;
        channels.filter(move |&place| k_of(place) == k).map(|place| (place, table(fine.active[place.1].1)))
    };
    let copy = |(place, _): ((u64, usize), _)| {
        let own = coarse.iter().map(|index| index.place(fine.active[place.1].0).map(|at| index.active[at].1));
        Some((place, table(*own.collect::<Option<Vec<_>>>()?.last()?)))
    };
    let (mut symbols, mut copies) = (HashMap::new(), vec![]);
    for datagram in datagrams {
        let Part { k, lanes, seed, mut body, .. } = part(datagram, profile)?;
        let own: Vec<_> = of(k).collect();
        let places: Vec<_> = own.iter().copied().chain(of((k + (parts / 2).max(1)) % parts).filter_map(copy)).collect();
        let used = if places.is_empty() { 0 } else { lanes };
        let state = |_| Ok((body.uint(2)? << 16 | body.uint(2)?) as u32);
        let mut states = (0..used).map(state).collect::<Result<Vec<_>>>()?;
        refuse_if(states.iter().any(|&x| x < 65_536), Corrupt)?;
        let mut all: Vec<i64> = vec![];
        for places in places.chunks(lanes) {
            let coded: Vec<_> = places.iter().map(|&(_, table)| (table, None)).collect();
            all.extend(group(&coded, &mut states, &mut body)?);
        }
        for (lane, &x) in states.iter().enumerate() {
            let own = all.iter().enumerate().filter(|(n, _)| n % lanes == lane);
            let add = |sum: u32, (n, &symbol)| sum.wrapping_add((2 * n as u32 + 1).wrapping_mul(symbol as u32));
            refuse_if(x != 65_536 + (own.fold(seed, add).wrapping_mul(2_654_435_761) >> 16), Corrupt)?;
        }
        refuse_if(!body.0.is_empty(), Corrupt)?;
        let mut all = places.iter().map(|place| place.0).zip(all);
        symbols.extend(all.by_ref().take(own.len()));
        copies.extend(all);
    }
    let nearest = |symbol: i64| (0..*c).fold(symbol, |symbol, _| (symbol as f64 / 3.0).round() as i64);
    refuse_if(copies.iter().any(|(place, copy)| nearest(symbols[place]) != *copy), Corrupt)?;
    let (dtype, size) = DTYPES[layout.dtype];
    let mut bytes = vec![0; layout.elements as usize * size];
    for block in 0..blocks {
        let row: Vec<i64> = (0..fine.active.len()).map(|i| symbols[&(block, i)]).collect();
        let pixels = pixels(profile, *q, components as usize, &fine, &row);
        put_block(profile, layout, (block / wide, block % wide), &pixels, &mut bytes);
    }
    Ok(Decoded { dtype, shape: layout.shape.iter().map(|&n| n as usize).collect(), bytes })
}
