//! Are this adapter's floats exact? Thousands of hard cases, compared with the portable kernels.

use crate::error::Result;
use crate::kernels::gpu::device::Device;
use crate::kernels::gpu::recorder::{Recorder, words_of};
use crate::kernels::portable::power_of_two;
use crate::kernels::portable::to_int;

/// An f32 by its bits, and an exponent.
fn cases() -> Vec<(u32, i32)> {
    let mut cases = Vec::new();
    let exponents = [-126, -100, -20, -3, -1, 0, 1, 4, 11, 14, 24, 40, 100, 126];
    for exponent in exponents {
        // Around every tie and every edge of i16, as x * 2^exponent.
        for whole in [0, 1, 2, 3, 127, 4095, 4096, 16_383, 16_384, 32_766, 32_767, 32_768, 65_535, 65_536] {
            for quarter in 0..4 {
                let target = (whole as f32 + quarter as f32 / 4.0).to_bits() as i32;
                let power = target >> 23;
                if target == 0 || !(1..255).contains(&(power - exponent)) {
                    continue;
                }
                for near in -2..=2 {
                    let bits = (target - (exponent << 23) + near) as u32;
                    cases.push((bits, exponent));
                    cases.push((bits | 1 << 31, exponent));
                }
            }
        }
        // Zeros, subnormals, the least normals, the largest, infinities, NaN.
        for bits in [0, 1, 2, 0x7f_ffff, 0x80_0000, 0x80_0001, 0x7f7f_ffff, 0x7f80_0000, 0x7f80_0001, 0x7fc0_0000] {
            cases.push((bits, exponent));
            cases.push((bits | 1 << 31, exponent));
        }
    }
    let mut state = 1u32;
    for i in 0..2048 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        cases.push((state ^ state >> 15, exponents[i % exponents.len()]));
    }
    cases
}

/// Whether this device's edge between floats and integers gives what the portable kernels give.
pub(crate) fn edges_are_exact(device: &Device) -> Result<bool> {
    Ok(first_difference(device, &cases())?.is_none())
}

/// The first of some cases of which this device makes something else than the portable kernels do.
pub(crate) fn first_difference(device: &Device, cases: &[(u32, i32)]) -> Result<Option<(u32, i32)>> {
    device.guarded(|| {
        let inputs: Vec<u32> = cases.iter().flat_map(|&(bits, exponent)| [bits, exponent as u32]).collect();
        let inputs = device.upload("probe", &inputs)?;
        let count = cases.len();
        let mut recorder = Recorder::new(device);
        let uniform = recorder.uniform(&[(count as u32).to_le_bytes().to_vec(), vec![0; 12]].concat())?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        let outputs = device.buffer("probed", 8 * count, usage)?;
        recorder.run("probe", 32, &uniform, &[(1, &inputs), (2, &outputs)], (count.div_ceil(64) as u32, 1, 1))?;
        let answers = recorder.finish(&[(&outputs, 8 * count)])?;
        let words = words_of(&answers[0]);
        let differs = |&(&(bits, exponent), answer): &(&(u32, i32), &[u32])| {
            let scale = power_of_two(exponent);
            let int = i32::from(to_int(f32::from_bits(bits), scale)) as u32;
            let float = (f32::from(bits as u16 as i16) * scale).to_bits();
            answer != [int, float]
        };
        Ok(cases.iter().zip(words.chunks_exact(2)).find(differs).map(|(case, _)| *case))
    })
}
