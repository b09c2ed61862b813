//! Mode `Packed`: every element in the same few bits, so that the size is known before the feature is.

use crate::container::{Head, Header, Reader};
use crate::error::{Error, Result};
use crate::kernels::portable::{pack, power_of_two, to_int, unpack};
use crate::plain;
use crate::tensor::{Element, Feature, FeatureView, ViewData, with_array};

/// How the range of a packed feature is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Clip {
    /// The range that minimises the expected squared error of a Laplacian with the feature's mean and
    /// mean absolute deviation (ACIQ: Banner et al., 2019); one-sided if no element is negative.
    #[default]
    Aciq,
    /// From the smallest to the largest finite element.
    MinMax,
}

/// Fixed-length coding: `bits` for every element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packed {
    /// Bits of an element, 1 to 8.
    pub bits: u8,
    /// How the range is chosen.
    pub clip: Clip,
}

impl Packed {
    /// Payload bytes of a feature of this many elements, after a header of at most 53 bytes and before a checksum, if there is one.
    pub fn payload_bytes(self, elements: usize) -> usize {
        (elements * usize::from(self.bits)).div_ceil(8)
    }
}

/// Bytes of the range in front of the elements: width, exponent, two limits.
const RANGE_BYTES: usize = 6;

pub(crate) fn encode(
    packed: &Packed,
    view: &FeatureView<'_>,
    header: &Header,
    (source, fields): (&mut Vec<f32>, &mut Vec<u8>),
    out: &mut Vec<u8>,
) -> Result<()> {
    if !(1..=8).contains(&packed.bits) {
        return Err(Error::invalid(format!("packed elements have 1 to 8 bits, not {}", packed.bits)));
    }
    source.clear();
    with_array!(ViewData, view.data(), array => source.extend(array.iter().map(|x| x.to_f32())));
    let (low, high) = match packed.clip {
        Clip::MinMax => min_max(source),
        Clip::Aciq => aciq(source, u32::from(packed.bits)),
    };
    let exponent = plain::exponent([low, high].into_iter());
    let scale = power_of_two(exponent);
    let (low, high) = (to_int(low, scale), to_int(high, scale));
    let quantizer = Affine::new(low, high, packed.bits);
    fields.clear();
    fields.extend(source.iter().map(|&x| quantizer.field(to_int(x, scale))));
    header.write(out);
    let start = out.len();
    out.push(packed.bits);
    out.push(exponent as i8 as u8);
    out.extend_from_slice(&low.to_le_bytes());
    out.extend_from_slice(&high.to_le_bytes());
    pack(fields, u32::from(packed.bits), out);
    Head::seal(header, start, out);
    Ok(())
}

pub(crate) fn decode(bytes: &[u8], header: &Header, reader: Reader<'_>, feature: &mut Feature) -> Result<()> {
    let mut reader = Head::unseal(bytes, header, reader)?;
    let layout = header.layout.ok_or(Error::corrupt("a packed stream has no shape", 1))?;
    let offset = reader.offset();
    let [bits, exponent, l0, l1, h0, h1] = reader.array::<RANGE_BYTES>("the range")?;
    let (exponent, low, high) = (i32::from(exponent as i8), i16::from_le_bytes([l0, l1]), i16::from_le_bytes([h0, h1]));
    if !(1..=8).contains(&bits) || !(-126..=126).contains(&exponent) || low > high {
        return Err(Error::corrupt("the width, the exponent or the range of a packed stream", offset));
    }
    if header.chunks != 1 {
        return Err(Error::corrupt("a packed stream has one chunk", offset));
    }
    let elements = layout.elements()?;
    let length = Packed { bits, clip: Clip::MinMax }.payload_bytes(elements);
    let bytes = reader.take(length, "the packed elements")?;
    if !reader.rest().is_empty() {
        return Err(Error::corrupt("bytes left over after the packed elements", reader.offset()));
    }
    let quantizer = Affine::new(low, high, bits);
    let scale = power_of_two(-exponent);
    let mut values = [0.0f32; 256];
    for (field, value) in values.iter_mut().enumerate().take(1 << bits) {
        *value = f32::from(quantizer.value(field as i32)) * scale;
    }
    feature.reshape(&layout);
    with_array!(Feature, feature, array => {
        if let Some(out) = array.as_slice_mut() {
            let mut fields = [0u8; 512];
            // 512 fields fill whole bytes at every width.
            for (out, bytes) in out.chunks_mut(512).zip(bytes.chunks(64 * usize::from(bits))) {
                unpack(bytes, u32::from(bits), &mut fields[..out.len()]);
                for (value, &field) in out.iter_mut().zip(&fields) {
                    *value = Element::from_f32(values[usize::from(field)]);
                }
            }
        }
    });
    Ok(())
}

/// A uniform quantiser whose first and last level are the ends of an integer range.
#[derive(Debug, Clone, Copy)]
struct Affine {
    low: i32,
    range: i32,
    top: i32,
    multiplier: u32,
}

impl Affine {
    fn new(low: i16, high: i16, bits: u8) -> Affine {
        let range = i32::from(high) - i32::from(low);
        let top = (1 << bits) - 1;
        Affine { low: i32::from(low), range, top, multiplier: ((top as u32) << 16) / range.max(1) as u32 }
    }

    fn field(&self, value: i16) -> u8 {
        let above = (i32::from(value) - self.low).clamp(0, self.range) as u32;
        ((above * self.multiplier + (1 << 15)) >> 16).min(self.top as u32) as u8
    }

    fn value(&self, field: i32) -> i16 {
        (self.low + (field * self.range + self.top / 2) / self.top) as i16
    }
}

fn min_max(values: &[f32]) -> (f32, f32) {
    let finite = values.iter().filter(|x| x.is_finite());
    let (low, high) = finite.fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    if low > high { (0.0, 0.0) } else { (low, high) }
}

/// The ACIQ range: t = alpha / b solves t e^t = 3 * 4^bits for a Laplacian of mean absolute deviation
/// b; one-sided data count as having one bit more.
fn aciq(values: &[f32], bits: u32) -> (f32, f32) {
    let (low, high) = min_max(values);
    let finite = || values.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x));
    let count = finite().count().max(1) as f64;
    let one_sided = low >= 0.0;
    let mean = if one_sided { 0.0 } else { finite().sum::<f64>() / count };
    let deviation = finite().map(|x| (x - mean).abs()).sum::<f64>() / count;
    let levels = f64::from(1u32 << bits);
    let target = 3.0 * levels * levels * if one_sided { 4.0 } else { 1.0 };
    let mut t = libm::log(target);
    for _ in 0..20 {
        t -= (t + libm::log(t) - libm::log(target)) / (1.0 + 1.0 / t);
    }
    let alpha = t * deviation;
    let (start, end) = if one_sided { (0.0, alpha) } else { (mean - alpha, mean + alpha) };
    // The levels are the centres of the bins, so the first and last lie half a bin inside.
    let inset = if one_sided { 0.0 } else { alpha / levels };
    let (start, end) = ((start + inset) as f32, (end - inset) as f32);
    let (start, end) = (start.max(low), end.min(high));
    if start > end { (low, high) } else { (start, end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_range_are_levels() {
        for bits in 1..=8 {
            for (low, high) in [(-32_768, 32_767), (0, 1), (-5, 250), (7, 7)] {
                let quantizer = Affine::new(low, high, bits);
                assert_eq!(quantizer.value(i32::from(quantizer.field(low))), low);
                assert_eq!(quantizer.value(i32::from(quantizer.field(high))), high);
                let step = f64::from(i32::from(high) - i32::from(low)) / f64::from(quantizer.top);
                for value in (i32::from(low)..=i32::from(high)).step_by(97) {
                    let error = i32::from(quantizer.value(i32::from(quantizer.field(value as i16)))) - value;
                    assert!(f64::from(error.abs()) <= step / 2.0 + 1.5, "{bits} {value} {error}");
                }
            }
        }
    }

    #[test]
    fn aciq_reproduces_the_published_ratios() {
        // alpha / b for Laplacian data, Banner et al. 2019, table 1 of the code: 2.83, 3.89, 5.03 for 2, 3, 4 bits.
        let values: Vec<f32> = (0..100_001)
            .map(|i| {
                let u = (f64::from(i) + 0.5) / 100_001.0 - 0.5;
                (-u.signum() * (1.0 - 2.0 * u.abs()).ln()) as f32
            })
            .collect();
        for (bits, ratio) in [(2, 2.83), (3, 3.89), (4, 5.03)] {
            let (low, high) = aciq(&values, bits);
            let inset = 1.0 - 1.0 / f32::powi(2.0, bits as i32);
            assert!((high / inset - ratio).abs() < 0.02 && (low / inset + ratio).abs() < 0.02, "{bits} {low} {high}");
        }
    }
}
