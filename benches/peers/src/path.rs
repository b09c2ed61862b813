//! The whole path: f32 feature, quantised with one step, coded, decoded, f32 feature.

use std::{path::Path, time::Instant};

use crate::{
    bench::{Effort, median},
    coder::Coder,
    data::{Random, entropy, histogram, smooth_planes},
    npy,
    ours::sqnr,
};

/// Features of one shape, one plane per channel, and the step they are quantised with.
pub struct PathData {
    /// The name of the data.
    pub name: String,
    /// Channels, rows and columns.
    pub shape: [usize; 3],
    /// The features.
    pub features: Vec<Vec<f32>>,
    /// The step: about two bits per value at order 0.
    pub step: f32,
}

impl PathData {
    /// Finds the step.
    fn new(name: String, shape: [usize; 3], features: Vec<Vec<f32>>) -> PathData {
        let (mut low, mut high) = (1e-3f32, 1e3f32);
        let mut pixels = vec![0; shape.iter().product()];
        for _ in 0..30 {
            let middle = (low * high).sqrt();
            quantise(&features[0], middle, &mut pixels);
            if entropy(&histogram(&pixels)) > 2.0 {
                low = middle;
            } else {
                high = middle;
            }
        }
        PathData { name, shape, features, step: high }
    }

    /// Smooth made-up features of 64x112x112 whose channels differ in spread, after a ReLU.
    pub fn synthetic(count: usize) -> PathData {
        let shape = [64, 112, 112];
        let mut random = Random::new(3);
        let gains: Vec<f32> = (0..shape[0]).map(|_| (random.normal() * 0.7).exp() as f32).collect();
        let features = (0..count)
            .map(|_| {
                let mut planes = smooth_planes(shape, 0.95, &mut random);
                for (plane, gain) in planes.chunks_exact_mut(shape[1] * shape[2]).zip(&gains) {
                    plane.iter_mut().for_each(|v| *v = (*v * gain).max(0.0));
                }
                planes
            })
            .collect();
        PathData::new("made-up 64x112x112".into(), shape, features)
    }

    /// Reads a float32 file of [features, channels, rows, columns].
    pub fn read(path: &Path) -> Result<PathData, String> {
        let array = npy::read(path)?;
        let (npy::Values::F32(values), &[_, channels, rows, columns]) = (&array.values, &array.shape[..]) else {
            return Err(format!("{}: not float32 of rank 4", path.display()));
        };
        let features: Vec<_> = values.chunks_exact((channels * rows * columns).max(1)).map(<[f32]>::to_vec).collect();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if features.is_empty() {
            return Err(format!("{}: empty", path.display()));
        }
        Ok(PathData::new(format!("{name} {channels}x{rows}x{columns}"), [channels, rows, columns], features))
    }
}

/// A codec of f32 features.
pub trait PathCoder {
    /// What the table calls it.
    fn name(&self) -> String;
    /// Called once, before the features.
    fn prepare(&mut self, data: &PathData);
    /// Appends a stream to `out`, which is empty.
    fn encode(&mut self, feature: &[f32], out: &mut Vec<u8>);
    /// Decodes a stream.
    fn decode(&mut self, stream: &[u8], feature: &mut [f32]);
    /// True for the coders of this project.
    fn ours(&self) -> bool {
        false
    }
}

/// One row of the table.
pub struct PathRow {
    /// The data.
    pub data: String,
    /// The codec.
    pub coder: String,
    /// True for the coders of this project.
    pub ours: bool,
    /// Bytes of a stream, mean.
    pub bytes: f64,
    /// Values of a feature.
    pub values: f64,
    /// Bytes of f32 per second.
    pub encode: f64,
    /// Bytes of f32 per second.
    pub decode: f64,
}

/// Adding and subtracting this rounds to the nearest integer, ties to even, and compiles to plain vector instructions.
const MAGIC: f32 = 12_582_912.0;

/// To grey levels: 128 is zero.
fn quantise(values: &[f32], step: f32, pixels: &mut [u8]) {
    let inverse = 1.0 / step;
    for (pixel, &value) in pixels.iter_mut().zip(values) {
        let level = (value * inverse).clamp(-128.0, 127.0) + MAGIC;
        *pixel = (level.to_bits() as u8).wrapping_add(128);
    }
}

/// Back to values.
fn dequantise(pixels: &[u8], step: f32, values: &mut [f32]) {
    for (value, &pixel) in values.iter_mut().zip(pixels) {
        *value = (i32::from(pixel) - 128) as f32 * step;
    }
}

/// Quantises, and leaves the rest to a coder of bytes.
struct Bytes {
    coder: Box<dyn Coder>,
    step: f32,
    pixels: Vec<u8>,
}

impl PathCoder for Bytes {
    fn name(&self) -> String {
        self.coder.name()
    }

    fn prepare(&mut self, data: &PathData) {
        self.step = data.step;
        self.pixels.resize(data.shape.iter().product(), 0);
    }

    fn encode(&mut self, feature: &[f32], out: &mut Vec<u8>) {
        quantise(feature, self.step, &mut self.pixels);
        self.coder.encode(&self.pixels, out);
    }

    fn decode(&mut self, stream: &[u8], feature: &mut [f32]) {
        self.coder.decode(stream, &mut self.pixels);
        dequantise(&self.pixels, self.step, feature);
    }
}

/// JPEG-LS: quantises straight into the tiled image.
#[cfg(feature = "charls")]
#[derive(Default)]
struct JpegLs {
    grid: crate::peers::jpegls::Grid,
    step: f32,
    image: Vec<u8>,
}

#[cfg(feature = "charls")]
impl PathCoder for JpegLs {
    fn name(&self) -> String {
        "JPEG-LS, planes tiled".into()
    }

    fn prepare(&mut self, data: &PathData) {
        let [channels, rows, columns] = data.shape;
        self.grid = crate::peers::jpegls::Grid::new([rows, columns, channels]);
        self.step = data.step;
        self.image.resize(data.shape.iter().product(), 0);
    }

    fn encode(&mut self, feature: &[f32], out: &mut Vec<u8>) {
        self.grid.for_rows(feature.len(), |from, to, n| {
            quantise(&feature[from..from + n], self.step, &mut self.image[to..to + n]);
        });
        crate::ffi::charls::compress(&self.image, self.grid.width(), out);
    }

    fn decode(&mut self, stream: &[u8], feature: &mut [f32]) {
        crate::ffi::charls::uncompress(stream, &mut self.image);
        self.grid.for_rows(feature.len(), |to, from, n| {
            dequantise(&self.image[from..from + n], self.step, &mut feature[to..to + n]);
        });
    }
}

/// The codecs of this build: JPEG-LS, and the coders of bytes for which the path is more than a formality.
pub fn all(level: Option<&str>) -> Vec<Box<dyn PathCoder>> {
    let mut list: Vec<Box<dyn PathCoder>> = Vec::new();
    crate::ours::add_path(&mut list, level);
    #[cfg(feature = "charls")]
    list.push(Box::<JpegLs>::default());
    let wanted = [
        "htscodecs rANS 32x16 o0",
        "htscodecs rANS 32x16 o1",
        "htscodecs rANS 4x16 o1",
        "htscodecs adaptive o1",
        "zstd 1",
    ];
    for coder in crate::peers::all(level) {
        if wanted.contains(&coder.name().as_str()) {
            list.push(Box::new(Bytes { coder, step: 1.0, pixels: Vec::new() }));
        }
    }
    list
}

/// The rows of one data set: answers checked, then coders in turn.
pub fn measure(coders: &mut [Box<dyn PathCoder>], data: &PathData, effort: Effort) -> Vec<PathRow> {
    let values: usize = data.shape.iter().product();
    let mut wanted = vec![0.0; values];
    let mut pixels = vec![0; values];
    let mut all_streams = Vec::new();
    for coder in coders.iter_mut() {
        coder.prepare(data);
        let mut streams = Vec::new();
        for feature in &data.features {
            let mut stream = Vec::new();
            coder.encode(feature, &mut stream);
            stream.shrink_to_fit();
            let mut found = vec![0.0; values];
            coder.decode(&stream, &mut found);
            quantise(feature, data.step, &mut pixels);
            dequantise(&pixels, data.step, &mut wanted);
            if coder.ours() {
                // Its quality was found on the first feature.
                let (own, uniform) = (sqnr(feature, &found), sqnr(feature, &wanted));
                assert!(own > uniform - 0.5, "{} has {own} dB, the uniform step {uniform}", coder.name());
            } else {
                assert!(found == wanted, "{} gave back other values", coder.name());
            }
            streams.push(stream);
        }
        all_streams.push(streams);
    }
    let mut speeds = vec![[Vec::new(), Vec::new()]; coders.len()];
    let mut stream = Vec::with_capacity(values * 2);
    let mut feature = vec![0.0; values];
    for repeat in 0..effort.repeats {
        for ((coder, streams), speeds) in coders.iter_mut().zip(&all_streams).zip(&mut speeds) {
            let count = data.features.len();
            let turns = |run: &mut dyn FnMut(usize)| {
                let (mut done, start) = (0, Instant::now());
                while done == 0 || done < count && start.elapsed() < effort.turn {
                    run((repeat * 3 + done) % count);
                    done += 1;
                }
                (done * values * 4) as f64 / start.elapsed().as_secs_f64()
            };
            speeds[0].push(turns(&mut |i| {
                stream.clear();
                coder.encode(&data.features[i], &mut stream);
            }));
            speeds[1].push(turns(&mut |i| coder.decode(&streams[i], &mut feature)));
        }
    }
    let rows = coders.iter().zip(all_streams).zip(speeds);
    rows.map(|((coder, streams), [mut encode, mut decode])| PathRow {
        data: data.name.clone(),
        coder: coder.name(),
        ours: coder.ours(),
        bytes: streams.iter().map(Vec::len).sum::<usize>() as f64 / streams.len() as f64,
        values: values as f64,
        encode: median(&mut encode),
        decode: median(&mut decode),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_back_what_was_quantised() {
        let effort = Effort { repeats: 1, turn: std::time::Duration::ZERO };
        let mut data = PathData::synthetic(1);
        data.shape = [8, 112, 112];
        data.features[0].truncate(8 * 112 * 112);
        assert_eq!(measure(&mut all(None), &data, effort).len(), all(None).len());
    }
}
