//! Profiles made of random numbers within the limits of FORMAT.md, as files, for what no fitted profile has.

use std::collections::BTreeMap;

use hmac_sha256::Hash;
use safetensors::tensor::{Dtype, TensorView};

/// A small generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    /// At least 0, below 1.
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    fn many(&mut self, n: usize, low: i64, high: i64) -> Vec<i64> {
        (0..n).map(|_| self.between(low, high)).collect()
    }
}

/// The orthonormal DCT-II, a row per frequency.
fn dct(side: usize, shift: i64) -> Vec<i64> {
    let value = |at: usize| {
        let (u, x, n) = ((at / side) as f64, (at % side) as f64, side as f64);
        let norm = if at < side { (1.0 / n).sqrt() } else { (2.0 / n).sqrt() };
        (norm * (std::f64::consts::PI * u * (x + 0.5) / n).cos() * f64::from(1 << shift)).round() as i64
    };
    (0..side * side).map(value).collect()
}

/// A table: frequencies of 32 tokens that sum to 4096, some 0, that of token 31 not.
fn table(random: &mut Random) -> Vec<i64> {
    let steepness = 0.2 + random.uniform() * 2.0;
    let mut f: Vec<i64> = (0..32)
        .map(|token: i32| {
            let weight = (-steepness * token as f32 / 2.0).exp() * 2000.0 * random.uniform();
            if random.below(6) == 0 { 0 } else { weight as i64 }
        })
        .collect();
    f[31] = random.between(1, 60);
    let sum: i64 = f.iter().sum();
    f.iter_mut().for_each(|f| *f = *f * 4000 / sum.max(4000));
    f[31] += 1;
    f[random.below(8)] += 4096 - f.iter().sum::<i64>();
    f
}

/// The file of a profile.
pub fn random(seed: u64) -> Vec<u8> {
    let mut r = Random(seed);
    let context = seed % 3;
    let [h, w] = [0; 2].map(|_| if seed % 4 < 2 { 1 } else { [1, 2, 3, 4, 8][r.below(5)] });
    let c = [1, 3, 6, 17, 40][r.below(5)];
    let (bands, anchors) = (h * w, 1 + r.below(4));
    let (n, matrices) = (bands * c, if r.below(2) == 0 { 0 } else { 1 + r.below(bands.min(3)) });
    let map = if context == 1 { 8 } else { 0 };
    let first = r.between(-150, 0);
    // A channel matrix that mostly keeps its components, at 14 bits, below the bounds on rows and columns.
    let mut matrix = || {
        let cell = |at: usize| r.between(-800, 800) + if at.is_multiple_of(c + 1) { 12_000 } else { 0 };
        (0..c * c).map(cell).collect::<Vec<_>>()
    };
    let matrix_pairs: Vec<_> = (0..matrices).map(|_| (matrix(), matrix())).collect();
    let forward = matrix_pairs.iter().flat_map(|pair| pair.0.clone()).collect();
    let inverse = matrix_pairs.iter().flat_map(|pair| pair.1.clone()).collect();
    let (ch, hh, ww, k, g) = (c, h, w, anchors, matrices);
    let range = (0..c).flat_map(|_| [r.between(-9000, -1), r.between(0, 9000)]).collect();
    // Version 2: without networks, with gains.
    let gains = seed % 5 < 2;
    let mut tensors: Vec<(&str, Dtype, Vec<usize>, Vec<i64>)> = vec![
        ("anchor", Dtype::I16, vec![k], (0..k as i64).map(|a| first + 70 * a).collect()),
        ("band_matrix", Dtype::U8, vec![if g > 0 { bands } else { 0 }], {
            let count = if g > 0 { bands } else { 0 };
            (0..count).map(|_| r.below(g.max(1)) as i64).collect()
        }),
        ("bank", Dtype::U16, vec![104, 32], (0..104).flat_map(|_| table(&mut r)).collect()),
        ("context_offset", Dtype::I8, vec![8], r.many(8, -30, 30)),
        ("dct.columns", Dtype::I16, vec![ww, ww], dct(ww, 13)),
        ("dct.rows", Dtype::I16, vec![hh, hh], dct(hh, 14)),
        (
            "level",
            Dtype::U8,
            vec![k, n],
            r.many(k * n, 0, 103).iter().map(|l| if l % 5 == 0 { 0 } else { *l }).collect(),
        ),
        ("map", Dtype::U8, vec![k, n, map], r.many(k * n * map, 0, 103)),
        ("matrix.forward", Dtype::I16, vec![g, ch, ch], forward),
        ("matrix.inverse", Dtype::I16, vec![g, ch, ch], inverse),
        ("mean", Dtype::I32, vec![n], r.many(n, -2000, 2000)),
        ("offset", Dtype::U8, vec![104, 3], r.many(104 * 3, 0, 15)),
        ("range", Dtype::I16, vec![ch, 2], range),
        ("step", Dtype::U16, vec![n], r.many(n, 100, 420)),
    ];
    let mut version = ("", "", "", 1);
    let exponent = r.between(-2, 9);
    let latent = format!(r#""latent_exponent":{exponent},"#);
    if gains {
        version = (r#""analysis":null,"#, &latent, r#""synthesis":null,"#, 2);
        tensors.extend([
            ("analysis.constants", Dtype::I32, vec![0], vec![]),
            ("analysis.values", Dtype::F32, vec![0], vec![]),
            ("analysis.weights", Dtype::I8, vec![0], vec![]),
            ("gain", Dtype::I16, vec![k * n], r.many(k * n, -90, 90)),
            ("synthesis.values", Dtype::F16, vec![0], vec![]),
        ]);
        tensors.sort_by_key(|tensor| tensor.0);
    }
    let (analysis, latent, synthesis, version) = version;
    let shifts = (0..g).map(|_| format!("14,{}", r.between(12, 15))).collect::<Vec<_>>().join(",");
    let scalars = format!(
        r#"{{{analysis}"batch_axis":0,"channel_axis":1,"context":{context},"dct_shifts":[14,13],"dtype":"{}","exponent":{exponent},"lambda":{},{latent}"matrix_shifts":[{shifts}],"rounding":{},"shape":[1,{c},{},{}],{synthesis}"version":{version}}}"#,
        ["f32", "f16", "bf16", "i8", "u8"][r.below(5)],
        r.between(0, 900),
        r.between(0, 128),
        r.between(1, 12),
        r.between(1, 12),
    );
    let mut hash = Hash::new();
    hash.update(&scalars);
    let mut views = BTreeMap::new();
    let bytes: Vec<(Vec<u8>, _)> = tensors
        .into_iter()
        .map(|(name, dtype, shape, values)| {
            let size = dtype.size();
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()[..size].to_vec()).collect();
            hash.update(name);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
            (bytes, (name, dtype, shape))
        })
        .collect();
    for (bytes, (name, dtype, shape)) in &bytes {
        views.insert(*name, TensorView::new(*dtype, shape.clone(), bytes).expect("tensor"));
    }
    let hash = u64::from_le_bytes(hash.finalize()[..8].try_into().expect("eight bytes"));
    let text = format!(r#"{{"hash":"{hash:016x}","notes":"made of random numbers","profile":{scalars}}}"#);
    let metadata = std::collections::HashMap::from([("narrows".to_string(), text)]);
    safetensors::serialize(views, &Some(metadata)).expect("file")
}
