//! What is coded: made-up symbols of known entropy, and symbols of real features.

use std::path::Path;

use crate::npy;

/// A pseudo-random generator (SplitMix64): the same numbers on every machine.
pub struct Random(u64);

impl Random {
    /// Starts the sequence named by `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of about a standard normal distribution (a sum of twelve uniform ones).
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// Messages of one kind and size, and what is known of them.
pub struct Case {
    /// The data set.
    pub data: String,
    /// The nominal size of a message, for the table.
    pub size: String,
    /// Rows, columns and channels, for features.
    pub shape: Option<[usize; 3]>,
    /// The messages, all of the same length. Features lie channels-last.
    pub messages: Vec<Vec<u8>>,
    /// The same messages with one plane per channel; empty without a shape.
    pub planar: Vec<Vec<u8>>,
    /// Other symbols of the same source: tables known in advance are made from these.
    pub training: Vec<u8>,
}

impl Case {
    /// Symbols in all messages.
    pub fn symbols(&self) -> usize {
        self.messages.iter().map(Vec::len).sum()
    }

    /// The largest symbol of messages and training: a known table needs an entry for every symbol up to it.
    pub fn largest(&self) -> u8 {
        self.messages.iter().chain([&self.training]).flatten().copied().max().unwrap_or(0)
    }

    /// Bits of all messages at the order-0 entropy of each message's own histogram.
    pub fn entropy_bits(&self) -> f64 {
        self.messages.iter().map(|m| entropy(&histogram(m)) * m.len() as f64).sum()
    }
}

/// Counts the symbols; four partial counts, so that equal neighbours do not wait for each other.
pub fn histogram(symbols: &[u8]) -> [u32; 256] {
    let mut part = [[0u32; 256]; 4];
    let mut quads = symbols.chunks_exact(4);
    for quad in &mut quads {
        for (part, &symbol) in part.iter_mut().zip(quad) {
            part[usize::from(symbol)] += 1;
        }
    }
    for &symbol in quads.remainder() {
        part[0][usize::from(symbol)] += 1;
    }
    std::array::from_fn(|s| part.iter().map(|p| p[s]).sum())
}

/// The entropy of a histogram, in bits per symbol.
pub fn entropy(counts: &[u32; 256]) -> f64 {
    let total: f64 = counts.iter().map(|&c| f64::from(c)).sum();
    counts.iter().filter(|&&c| c > 0).map(|&c| f64::from(c) * (total / f64::from(c)).log2()).sum::<f64>() / total
}

/// The share of symbols that are zero whatever the scale.
const INFLATION: f64 = 0.25;

/// Zero-inflated half-Laplacian symbols: zero with probability 1/4, otherwise the whole part of the magnitude of a
/// Laplacian value, so that P(k) is proportional to exp(-k / scale), cut at 255.
///
/// The scale is solved by bisection for the wanted entropy, and symbols are drawn by Walker's alias method.
pub struct HalfLaplacian {
    /// (threshold of 24 bits, the other symbol) for every slot.
    slots: [(u32, u8); 256],
}

impl HalfLaplacian {
    /// The source of this entropy, in bits per symbol.
    pub fn new(bits: f64) -> HalfLaplacian {
        let (mut low, mut high) = (0.01f64, 200.0f64);
        for _ in 0..100 {
            let middle = (low * high).sqrt();
            let h: f64 = -probabilities(middle).iter().filter(|&&p| p > 0.0).map(|p| p * p.log2()).sum::<f64>();
            if h < bits {
                low = middle;
            } else {
                high = middle;
            }
        }
        let p = probabilities(low);
        let mut left = p.map(|p| p * 256.0);
        let mut slots: [(u32, u8); 256] = std::array::from_fn(|s| (1 << 24, s as u8));
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..256).partition(|&s| left[s] < 1.0);
        while let (Some(s), Some(&l)) = (small.pop(), large.last()) {
            slots[s] = ((left[s] * f64::from(1 << 24)) as u32, l as u8);
            left[l] -= 1.0 - left[s];
            if left[l] < 1.0 {
                large.pop();
                small.push(l);
            }
        }
        HalfLaplacian { slots }
    }

    /// Draws a message.
    pub fn message(&self, length: usize, random: &mut Random) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 1);
        while out.len() < length {
            let bits = random.next();
            for bits in [bits as u32, (bits >> 32) as u32] {
                let slot = bits >> 24;
                let (threshold, other) = self.slots[slot as usize];
                out.push(if bits & 0xff_ffff < threshold { slot as u8 } else { other });
            }
        }
        out.truncate(length);
        out
    }
}

/// The distribution at one scale.
fn probabilities(scale: f64) -> [f64; 256] {
    let weight: [f64; 256] = std::array::from_fn(|k| (-(k as f64) / scale).exp());
    let total: f64 = weight.iter().sum();
    std::array::from_fn(|k| (1.0 - INFLATION) * weight[k] / total + if k == 0 { INFLATION } else { 0.0 })
}

/// "4 KiB" and the like.
pub fn size_name(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

/// How many messages of a size a run goes through: at least 64 of them, or 32 MiB together.
pub fn pool(length: usize, quick: bool) -> usize {
    let bytes = if quick { 2 << 20 } else { 16 << 20 };
    (bytes / length).max(64).min((32 << 20) / length)
}

/// Messages of the half-Laplacian source.
pub fn synthetic(bits: f64, length: usize, count: usize) -> Case {
    let source = HalfLaplacian::new(bits);
    let mut random = Random::new(bits.to_bits() ^ (length as u64).rotate_left(17));
    let training = source.message(1 << 20, &mut random);
    let messages = (0..count).map(|_| source.message(length, &mut random)).collect();
    let data = format!("half-Laplacian, {bits} bits");
    Case { data, size: size_name(length), shape: None, messages, planar: Vec::new(), training }
}

/// Symbols of many features of one shape, channels-last.
pub struct Features {
    /// The file's name without its ending.
    pub name: String,
    /// Rows, columns and channels of one feature.
    pub shape: [usize; 3],
    /// One vector of mapped symbols for each feature.
    pub features: Vec<Vec<u8>>,
}

/// Signed to unsigned: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4. What does not fit a byte becomes 255, for all alike.
pub fn zigzag(symbol: i32) -> u8 {
    ((symbol << 1) ^ (symbol >> 31)).clamp(0, 255) as u8
}

impl Features {
    /// Reads a file of [rows, columns, channels] or [features, rows, columns, channels].
    pub fn read(path: &Path) -> Result<Features, String> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let array = npy::read(path)?;
        let shape: [usize; 3] = match array.shape.len() {
            3 | 4 => std::array::from_fn(|i| array.shape[array.shape.len() - 3 + i]),
            rank => return Err(format!("{}: rank {rank}, not 3 or 4", path.display())),
        };
        let values = array.integers().ok_or_else(|| format!("{}: not int8 or int16", path.display()))?;
        let length = shape.iter().product::<usize>().max(1);
        let features = values.chunks_exact(length).map(|f| f.iter().map(|&v| zigzag(v)).collect()).collect();
        Ok(Features { name, shape, features })
    }

    /// Made-up features that are smooth along rows and columns, for tests.
    #[cfg(test)]
    pub fn smooth(shape: [usize; 3], count: usize) -> Features {
        let mut random = Random::new(7);
        let features = (0..count)
            .map(|_| {
                let planes = smooth_planes([shape[2], shape[0], shape[1]], 0.9, &mut random);
                let symbols: Vec<u8> = planes.iter().map(|v| zigzag((v * 2.0).round() as i32)).collect();
                channels_last(&symbols, shape)
            })
            .collect();
        Features { name: "smooth".into(), shape, features }
    }

    /// Messages of about `length` symbols: a square corner where a feature is larger, whole features below each other
    /// where it is smaller. The last quarter of the features is the training set and gives no message.
    pub fn case(&self, length: usize, limit: usize) -> Option<Case> {
        let [rows, columns, channels] = self.shape;
        let (train, test) = {
            let test = (self.features.len() * 3).div_ceil(4);
            (&self.features[test..], &self.features[..test])
        };
        let one = rows * columns * channels;
        let side = ((length / channels) as f64).sqrt() as usize;
        let (shape, per_message) = if side < rows.min(columns) {
            ([side, side, channels], 1)
        } else {
            let k = (length / one).max(1);
            ([k * rows, columns, channels], k)
        };
        let messages: Vec<Vec<u8>> = test
            .chunks_exact(per_message)
            .take(limit)
            .map(|features| {
                let all = features.concat();
                let row = columns * channels;
                all.chunks_exact(row).take(shape[0]).flat_map(|r| &r[..shape[1] * channels]).copied().collect()
            })
            .collect();
        if messages.is_empty() || side == 0 {
            return None;
        }
        let planar = messages.iter().map(|m| planar(m, shape)).collect();
        let training = train.iter().take(1 + (4 << 20) / one).flatten().copied().collect();
        Some(Case {
            data: format!("features {}", self.name),
            size: size_name(length),
            shape: Some(shape),
            messages,
            planar,
            training,
        })
    }
}

/// Planes of unit variance whose neighbours are correlated by `rho`, channel by channel.
pub fn smooth_planes([channels, rows, columns]: [usize; 3], rho: f64, random: &mut Random) -> Vec<f32> {
    let fresh = 1.0 - rho * rho;
    let mut out = Vec::with_capacity(channels * rows * columns);
    for _ in 0..channels {
        let start = out.len();
        for y in 0..rows {
            for x in 0..columns {
                let at = |dy: usize, dx: usize| f64::from(out[start + (y - dy) * columns + x - dx]);
                let value = match (y, x) {
                    (0, 0) => random.normal(),
                    (0, _) => rho * at(0, 1) + fresh.sqrt() * random.normal(),
                    (_, 0) => rho * at(1, 0) + fresh.sqrt() * random.normal(),
                    _ => rho * at(0, 1) + rho * at(1, 0) - rho * rho * at(1, 1) + fresh * random.normal(),
                };
                out.push(value as f32);
            }
        }
    }
    out
}

/// From channels-last to one plane per channel.
pub fn planar(symbols: &[u8], [rows, columns, channels]: [usize; 3]) -> Vec<u8> {
    let positions = rows * columns;
    (0..channels * positions).map(|i| symbols[i % positions * channels + i / positions]).collect()
}

/// From one plane per channel to channels-last.
#[cfg(test)]
pub fn channels_last(planes: &[u8], [rows, columns, channels]: [usize; 3]) -> Vec<u8> {
    let positions = rows * columns;
    (0..channels * positions).map(|i| planes[i % channels * positions + i / channels]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_has_the_entropy_it_says() {
        for bits in [0.5, 1.0, 2.0, 4.0] {
            let found = entropy(&histogram(&synthetic(bits, 1 << 20, 1).messages[0]));
            assert!((found / bits - 1.0).abs() < 0.01, "{found} for {bits}");
        }
    }

    #[test]
    fn layouts_undo_each_other() {
        let shape = [3, 4, 5];
        let symbols: Vec<u8> = (0..60).collect();
        assert_eq!(channels_last(&planar(&symbols, shape), shape), symbols);
    }

    #[test]
    fn pools_are_never_small() {
        for length in [4 << 10, 64 << 10, 1 << 20, 16 << 20] {
            for quick in [false, true] {
                let count = pool(length, quick);
                assert!(count >= 64 || count * length >= 32 << 20);
            }
        }
    }
}
