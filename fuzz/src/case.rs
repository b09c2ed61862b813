//! A feature and how to encode it, made from the bytes of a fuzzer.

use arbitrary::{Arbitrary, Result, Unstructured};
use half::{bf16, f16};
use narrows::{Axes, Backend, Clip, Dtype, Encoder, Feature, FeatureView, Packed, Quality};
use ndarray::{ArrayD, IxDyn, ShapeBuilder};

use crate::{Fields, PROFILES, Patch};

/// Most elements of a feature.
const MOST: usize = 4096;

/// How a feature is encoded.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    /// With a golden profile, by its number.
    Profile(usize),
    Plain,
    Packed(Packed),
    Lossless,
}

/// Where the elements come from.
#[derive(Debug, Clone, Arbitrary)]
pub enum Values {
    /// These bit patterns, over and over: NaN, infinite and subnormal values among them.
    Bits(Vec<u8>),
    /// Skewed noise of a size of 2^exponent, zeros among it.
    Noise { seed: u32, exponent: i8 },
    /// A wave along each axis.
    Wave(u8),
}

/// A feature and how to encode it.
#[derive(Debug, Clone)]
pub struct Case {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Out of place now and then.
    pub axes: Axes,
    /// The first axis varies fastest in memory.
    pub fortran: bool,
    pub values: Values,
    pub method: Method,
    pub quality: Quality,
    pub chunks: Option<usize>,
    pub lanes: Option<usize>,
    pub rdo: bool,
    pub checksums: bool,
    /// More than one, mostly, only with a profile; out of range now and then.
    pub layers: usize,
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Case> {
        let method = match u.int_in_range(0..=5)? {
            0 => Method::Profile(u.int_in_range(0..=1)? * 2),
            1 => Method::Profile(1),
            2 => Method::Packed(Packed { bits: u.int_in_range(0..=9)?, clip: *u.choose(&[Clip::Aciq, Clip::MinMax])? }),
            3 => Method::Lossless,
            _ => Method::Plain,
        };
        let dtype = *u.choose(&Dtype::ALL)?;
        let rank = u.int_in_range(1..=8)?;
        let mut left = MOST;
        let mut shape = Vec::with_capacity(rank);
        for _ in 0..rank {
            let most = (*u.choose(&[1usize, 2, 3, 9, 40, 100])?).min(left);
            shape.push(u.int_in_range(0..=most)?);
            left /= shape[shape.len() - 1].max(1);
        }
        let channels = u.int_in_range(0..=rank * 8)? % rank + usize::from(u.ratio(1, 64)?);
        let batch = if u.arbitrary()? { Some(u.int_in_range(0..=rank)?) } else { None };
        if let (Method::Profile(number), Some(size)) = (method, shape.get_mut(channels))
            && !u.ratio(1, 32)?
        {
            *size = PROFILES[number].layout().channels();
        }
        let quality = match u.int_in_range(0..=7)? {
            0 => Quality::Bytes(usize::from(u.arbitrary::<u16>()?)),
            1 => Quality::Sqnr(f32::from(u.arbitrary::<i8>()?) / 2.0),
            2 => Quality::Scale(u.arbitrary()?),
            _ => Quality::Scale(f32::from(u.int_in_range(1..=64u8)?).powi(2) / 256.0),
        };
        let chunks = if u.arbitrary()? { Some(u.int_in_range(0..=12)?) } else { None };
        let lanes = if u.arbitrary()? { Some(*u.choose(&[1, 2, 4, 8, 16, 32, 0, 3, 64])?) } else { None };
        let (fortran, rdo, checksums, values) = (u.arbitrary()?, u.arbitrary()?, u.ratio(1, 4)?, u.arbitrary()?);
        let axes = Axes { channels, batch };
        let layers = match method {
            Method::Profile(_) => *u.choose(&[1, 2, 3, 4, 2, 3, 4, 0, 5])?,
            _ => 1 + usize::from(u.ratio(1, 64)?),
        };
        Ok(Case { dtype, shape, axes, fortran, values, method, quality, chunks, lanes, rdo, checksums, layers })
    }
}

impl Case {
    /// The feature.
    pub fn feature(&self) -> Feature {
        let mut at = 0usize;
        let mut state = match self.values {
            Values::Noise { seed, .. } => seed,
            _ => 0,
        };
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0
        };
        // Either the bits of the element or its value.
        let mut next = || {
            at += 1;
            match &self.values {
                Values::Bits(bytes) if bytes.is_empty() => Ok(0),
                Values::Bits(bytes) => {
                    let byte = |i: usize| bytes[(4 * at + i) % bytes.len()];
                    Ok(u32::from_le_bytes(std::array::from_fn(byte)))
                }
                Values::Noise { exponent, .. } => {
                    let (x, y) = (noise() - 0.5, noise());
                    Err(if y < 0.4 { 0.0 } else { x * x * x * f32::from(*exponent).exp2() })
                }
                Values::Wave(step) => Err((at as f32 * f32::from(*step) * 0.01).sin() * 20.0),
            }
        };
        let shape = IxDyn(&self.shape).set_f(self.fortran);
        match self.dtype {
            Dtype::F32 => ArrayD::from_shape_simple_fn(shape, || next().map_or_else(|x| x, f32::from_bits)).into(),
            Dtype::F16 => {
                ArrayD::from_shape_simple_fn(shape, || next().map_or_else(f16::from_f32, |b| f16::from_bits(b as u16)))
                    .into()
            }
            Dtype::Bf16 => {
                let make = || next().map_or_else(bf16::from_f32, |b| bf16::from_bits(b as u16));
                ArrayD::from_shape_simple_fn(shape, make).into()
            }
            Dtype::I8 => ArrayD::from_shape_simple_fn(shape, || next().map_or_else(|x| x as i8, |b| b as i8)).into(),
            Dtype::U8 => ArrayD::from_shape_simple_fn(shape, || next().map_or_else(|x| x as u8, |b| b as u8)).into(),
        }
    }

    /// A view of the feature with the axes of this case.
    pub fn view<'a>(&self, feature: &'a Feature) -> FeatureView<'a> {
        feature.view().with_axes(self.axes)
    }

    /// The encoder.
    pub fn encoder(&self, backend: Backend) -> Encoder {
        let encoder = match self.method {
            Method::Profile(number) => Encoder::with_profile(PROFILES[number].clone()),
            Method::Plain => Encoder::plain(),
            Method::Packed(packed) => Encoder::packed(packed),
            Method::Lossless => Encoder::lossless(),
        };
        let encoder = encoder.rdo(self.rdo).checksums(self.checksums).layers(self.layers).backend(backend);
        let encoder = self.chunks.into_iter().fold(encoder, Encoder::chunks);
        self.lanes.into_iter().fold(encoder, Encoder::lanes)
    }

    /// The stream, if the case can be encoded.
    pub fn stream(&self) -> Option<Vec<u8>> {
        self.encoder(Backend::Portable).encode(self.view(&self.feature()), self.quality).ok()
    }
}

/// Bytes to decode.
#[derive(Debug, Clone, Arbitrary)]
pub enum Input {
    /// As they are.
    Bytes(Vec<u8>),
    /// A stream of the encoder, changed.
    Patched(Case, Vec<Patch>),
}

impl Input {
    /// The bytes; nothing if the case cannot be encoded.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Input::Bytes(bytes) => Some(bytes.clone()),
            Input::Patched(case, patches) => {
                let mut fields = Fields::read(&case.stream()?);
                patches.iter().for_each(|patch| fields.apply(patch));
                Some(fields.write())
            }
        }
    }
}
