//! Damages every golden stream and profile in every way that damage happens, and proves that the decoder stays whole: no
//! panic, memory within bounds, and damage to a payload noticed. It prints what it counted, the slowest decode included.
//!
//! `NARROWS_SWEEP=full` visits every byte of the profiles too, a few minutes; else every 29th.

#[path = "support/counting.rs"]
mod counting;

use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use counting::peak;
use narrows::{Decoder, Feature, Info, Limits, Mode, Profile};

/// The counter counts every thread: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What the sweep lets a stream decode to.
const OUTPUT: u64 = 1 << 20;

fn files(ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    paths.sort();
    paths
}

/// Changes at one place: each bit, 00 and FF, numbers at the limits of their types, bytes lost or doubled.
fn changes(bytes: &[u8], at: usize, visit: &mut dyn FnMut(&[u8])) {
    let mut bad = bytes.to_vec();
    for bit in 0..8 {
        bad[at] = bytes[at] ^ 1 << bit;
        visit(&bad);
    }
    for value in [0x00, 0xff] {
        bad[at] = value;
        visit(&bad);
    }
    for limit in
        [[0xff, 0xff, 0xff, 0xff, 0x0f], [0xff, 0xff, 0xff, 0x7f, 0], [0, 0, 0, 0x80, 0], [0x80, 0x80, 0x04, 0, 0]]
    {
        bad.copy_from_slice(bytes);
        for (place, value) in bad[at..].iter_mut().zip(limit) {
            *place = value;
        }
        visit(&bad);
    }
    // Bytes and words that are lost, doubled, in the wrong order, or came from nowhere.
    let (before, after) = bytes.split_at(at);
    let word = &after[..2.min(after.len())];
    visit(&[before, &after[1..]].concat());
    visit(&[before, &after[word.len()..]].concat());
    visit(&[before, word, after].concat());
    visit(&[before, &[0x5a], after].concat());
    if let [a, b, c, d, rest @ ..] = after {
        visit(&[before, &[*c, *d, *a, *b], rest].concat());
        visit(&[before, &[*b, *a, *d, *c], rest].concat());
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> usize {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= usize::from(byte & 127) << shift;
        if byte < 128 {
            break;
        }
    }
    value
}

/// Whether a stream has layers, those that were cut off included.
fn is_layered(bytes: &[u8]) -> bool {
    bytes[1] & 7 == 4 && bytes[12] & 0x18 != 0
}

/// The chunks of a stream, as ranges of its bytes, layer after layer; one in the modes that have no more.
fn chunks(bytes: &[u8], info: &Info) -> Vec<Range<usize>> {
    if is_layered(bytes) {
        let mut start = info.header_bytes;
        let mut chunks = Vec::new();
        for &end in info.layers.iter().filter(|&&end| end <= bytes.len()) {
            let lengths: Vec<usize> = (1..info.chunks).map(|_| varint(bytes, &mut start)).collect();
            for length in lengths {
                chunks.push(start..start + length);
                start += length;
            }
            chunks.push(start..end);
            start = end;
        }
        return chunks;
    }
    let mut at = if info.mode == Mode::Profile { 12 } else { 2 };
    let mut lengths = Vec::new();
    if info.chunks > 1 {
        let has_layout = bytes[at] & 1 != 0;
        at += 1;
        if has_layout {
            let rank = bytes[at] >> 4;
            at += 2;
            for _ in 0..rank {
                varint(bytes, &mut at);
            }
        }
        let count = varint(bytes, &mut at);
        lengths = (1..count).map(|_| varint(bytes, &mut at)).collect();
    }
    let mut start = info.header_bytes;
    if info.mode == Mode::Plain {
        let channels = info.layout.unwrap().channels();
        start += 5 + (channels * usize::from(bytes[start + 4])).div_ceil(8);
    }
    let mut chunks = Vec::new();
    for length in lengths {
        chunks.push(start..start + length);
        start += length;
    }
    chunks.push(start..bytes.len());
    chunks
}

/// Chunks in another order, twice, or not there.
fn shuffles(bytes: &[u8], info: &Info, visit: &mut dyn FnMut(&[u8])) {
    let chunks = chunks(bytes, info);
    let build = |order: &[usize]| {
        let mut out = bytes[..chunks[0].start].to_vec();
        for (place, &chunk) in order.iter().enumerate() {
            // Lengths that lie between two layers stay where they are.
            if place > 0 && place < chunks.len() {
                out.extend_from_slice(&bytes[chunks[place - 1].end..chunks[place].start]);
            }
            out.extend_from_slice(&bytes[chunks[chunk].clone()]);
        }
        out
    };
    let order: Vec<usize> = (0..chunks.len()).collect();
    for first in 0..chunks.len() {
        for second in first + 1..chunks.len() {
            let mut swapped = order.clone();
            swapped.swap(first, second);
            visit(&build(&swapped));
            let mut repeated = order.clone();
            repeated[second] = first;
            visit(&build(&repeated));
        }
        let without: Vec<_> = order.iter().copied().filter(|&chunk| chunk != first).collect();
        visit(&build(&without));
        visit(&build(&[&order[..], &[first]].concat()));
    }
}

#[derive(Default)]
struct Tally {
    decodes: u64,
    slowest: Duration,
    most: usize,
    /// Changes of payloads that have a check, and how many decoded to another feature.
    changed: u64,
    missed: u64,
}

impl Tally {
    fn decode<T>(&mut self, bytes: &[u8], body: impl FnOnce(&[u8]) -> T) -> T {
        let start = Instant::now();
        let (result, held) = peak(|| catch_unwind(AssertUnwindSafe(|| body(bytes))));
        self.decodes += 1;
        self.slowest = self.slowest.max(start.elapsed());
        self.most = self.most.max(held);
        let bound = (bytes.len() + OUTPUT as usize) * 5 / 4 + (8 << 20);
        assert!(held <= bound, "{held} bytes held for {bytes:02x?}");
        result.unwrap_or_else(|_| panic!("the panic above came from {bytes:02x?}"))
    }
}

#[test]
fn every_damaged_stream_is_decoded_or_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = Limits { output_bytes: OUTPUT, ..Limits::default() };
    let profiles = files(".profile.safetensors").into_iter().map(|path| Arc::new(Profile::load(path).unwrap()));
    let mut decoder = profiles.fold(Decoder::new().limits(limits), Decoder::profile);
    let mut tally = Tally::default();
    for path in files(".stream") {
        let bytes = fs::read(&path).unwrap();
        let info = Info::read(&bytes).unwrap();
        let good = decoder.decode(&bytes).unwrap();
        let payload = chunks(&bytes, &info)[0].start;
        let checked = info.checksums || (info.version > 1 && matches!(info.mode, Mode::Profile | Mode::Plain));
        let mut feature = decoder.decode(&bytes).unwrap();
        let mut visit = |bad: &[u8], in_payload: bool| {
            if bad == bytes {
                return;
            }
            let result = tally.decode(bad, |bad| decoder.decode_into(bad, &mut feature));
            if is_layered(&bytes) && bytes.starts_with(bad) && info.layers.contains(&bad.len()) {
                // No damage.
                result.unwrap_or_else(|error| panic!("{} to {}: {error}", path.display(), bad.len()));
            } else if checked && in_payload {
                tally.changed += 1;
                tally.missed += u64::from(result.is_ok() && !equal(&feature, &good));
            }
        };
        for end in 0..bytes.len() {
            visit(&bytes[..end], end >= payload);
        }
        for at in 0..bytes.len() {
            changes(&bytes, at, &mut |bad| visit(bad, at >= payload));
        }
        shuffles(&bytes, &info, &mut |bad| visit(bad, true));
    }
    println!(
        "{} decodes, the slowest in {:?}, {} bytes held at most; {} changed payloads, {} not noticed",
        tally.decodes, tally.slowest, tally.most, tally.changed, tally.missed
    );
    assert!(tally.decodes > 1_000_000, "{}", tally.decodes);
    // One in 2^16, and as much again.
    assert!(tally.missed <= tally.changed >> 15, "{} of {} not noticed", tally.missed, tally.changed);
}

/// Equal to the bit, NaN included.
fn equal(one: &Feature, two: &Feature) -> bool {
    match (one, two) {
        (Feature::F32(one), Feature::F32(two)) => one.iter().map(|x| x.to_bits()).eq(two.iter().map(|x| x.to_bits())),
        (one, two) => one == two,
    }
}

#[test]
fn every_damaged_profile_is_read_or_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let full = std::env::var("NARROWS_SWEEP").is_ok_and(|value| value == "full");
    let stride = if full { 1 } else { 29 };
    let mut tally = Tally::default();
    for path in files(".profile.safetensors") {
        let bytes = fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut visit = |bad: &[u8], at: usize| {
            let result = tally.decode(bad, Profile::from_bytes);
            // The hash covers the tensors.
            assert!(result.is_err() || bad == bytes || at < header, "byte {at} of {}", path.display());
        };
        for end in (0..bytes.len()).step_by(stride) {
            visit(&bytes[..end], end);
        }
        for at in (0..bytes.len()).step_by(stride) {
            changes(&bytes, at, &mut |bad| visit(bad, at));
        }
    }
    println!("{} profiles, the slowest in {:?}, {} bytes held at most", tally.decodes, tally.slowest, tally.most);
}
