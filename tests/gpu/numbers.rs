//! Odd numbers on the edge between floats and integers.

use super::*;

#[test]
fn edges_of_the_numbers() {
    // NaN, infinities, subnormals, zeros of both signs, ties, the largest and the least.
    let hard: Vec<f32> = [
        0,
        1,
        0x7f_ffff,
        0x80_0000,
        0x3f00_0000,
        0x3fc0_0000,
        0x4020_0000,
        0x46ff_fe00,
        0x46ff_ff00,
        0x4700_0000,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7f80_0001,
        0x7fc0_0000,
    ]
    .into_iter()
    .flat_map(|bits: u32| [f32::from_bits(bits), f32::from_bits(bits | 1 << 31)])
    .collect();
    let mixed = ArrayD::from_shape_fn(IxDyn(&[6, 8, 8]), |at| {
        let i = (at[0] * 8 + at[1]) * 8 + at[2];
        if i % 3 == 0 { hard[i / 3 % hard.len()] } else { noise(9, i) }
    });
    let halves =
        ArrayD::from_shape_fn(IxDyn(&[256, 16, 16]), |at| f16::from_bits((at[0] * 256 + at[1] * 16 + at[2]) as u16));
    let finite = halves.mapv(|x| if x.is_finite() { x } else { f16::ZERO });
    for device in devices() {
        assert!(device.probe().unwrap());
        // The software driver is exact, so that the float instructions are what the first device tests.
        assert!(!device.info().name.contains("llvmpipe") || !devices()[0].info().integer_floats);
        let waves = profile("waves");
        for scale in [0.01, 1.0] {
            check(&device, None, (&mixed).into(), Quality::Scale(scale), DEFAULT);
            check(&device, Some(&waves), (&mixed).into(), Quality::Scale(scale), DEFAULT);
            check(&device, None, (&finite).into(), Quality::Scale(scale), DEFAULT);
        }
        // Every f16 there is, at the finest steps, so that nothing hides a wrong integer.
        check(&device, None, (&halves).into(), Quality::Scale(0.004), Options { chunks: Some(16), ..DEFAULT });
        let six = halves.as_slice().unwrap()[..65_532].to_vec();
        let six = ArrayD::from_shape_vec(IxDyn(&[6, 127, 86]), six).unwrap();
        check(&device, Some(&waves), (&six).into(), Quality::Scale(0.004), Options { chunks: Some(8), ..DEFAULT });
    }
}

#[test]
fn integers_become_halves_as_on_the_cpu() {
    for device in devices() {
        let mut decoder = gpu::Decoder::new(&device);
        for exponent in [-3, -2, -1, 0, 3, 9, 10, 13, 20, 24, 25, 26, 30, 39, 40] {
            // A few large numbers among zeros, so that steps are finer than the numbers.
            let feature = ArrayD::from_shape_fn(IxDyn(&[16, 64, 64]), |at| {
                let i = at[0] * 4096 + at[1] * 64 + at[2];
                let int = match i % 701 {
                    0 => 32_767 - (i / 701) as i32 % 50,
                    1 => (noise(3, i) * 16_000.0) as i32,
                    2 => (i / 701) as i32 - 40,
                    _ => 0,
                };
                int as f32 * 2f32.powi(-exponent)
            });
            let stream =
                cpu_encoder(None, Options { chunks: Some(16), ..DEFAULT }).encode(&feature, Quality::Scale(0.004));
            let stream = stream.unwrap();
            let expected = cpu_decoder(None).decode(&stream).unwrap().to_f32().mapv(f16::from_f32);
            let target = FeatureBuffer::new(buffer(&device, &[0; 2 * 65_536]), &[16, 64, 64], Dtype::F16);
            decoder.decode_into(&stream, &target).unwrap();
            let expected: Vec<u8> = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert!(contents(&device, &target.buffer) == expected, "{exponent}");
        }
    }
}
