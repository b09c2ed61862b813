//! Proves, value by value, what `feature_to_int` is on every backend of this machine: all 2^32 bit patterns of an f32
//! are compared with the exact product in f64, rounded half to even and clamped; NaN and subnormals are 0.
//! `tools/all_floats.sh` runs it; `NARROWS_SCALES` says at how many scales (default 3).

use std::time::Instant;

use narrows::Backend;
use narrows::raw::{feature_to_int, portable};

/// Exponents of the scales, the telling ones first: halves, subnormal products, overflow to infinity.
const EXPONENTS: [i32; 8] = [0, -126, 120, 10, -10, 126, 40, -60];
/// Values at a time: not a whole number of tiles.
const BLOCK: usize = (1 << 16) - 5;

/// The definition, written in another way than the kernel. The product of two f32 is exact in f64.
fn expected(bits: u32, scale: f64) -> i16 {
    let (exponent, mantissa) = (bits >> 23 & 255, bits & 0x7f_ffff);
    if exponent == 0 || exponent == 255 && mantissa != 0 {
        return 0;
    }
    let product = f64::from(f32::from_bits(bits)) * scale;
    product.round_ties_even().clamp(-32_768.0, 32_767.0) as i16
}

/// Compares the patterns `patterns` and returns how many values were equal on all backends.
fn compare(patterns: std::ops::Range<u64>, scale: f32, backends: &[Backend], buffers: &mut Buffers) -> u64 {
    let Buffers { values, wanted, integers } = buffers;
    let mut start = patterns.start;
    while start < patterns.end {
        let count = BLOCK.min((patterns.end - start) as usize);
        for (i, (value, wanted)) in values.iter_mut().zip(wanted.iter_mut()).enumerate().take(count) {
            let bits = (start + i as u64) as u32;
            *value = f32::from_bits(bits);
            *wanted = expected(bits, f64::from(scale));
        }
        let (values, wanted, integers) = (&values[..count], &wanted[..count], &mut integers[..count]);
        for backend in backends {
            integers.fill(i16::MIN + 1);
            feature_to_int(backend, values, scale, integers).unwrap();
            if integers != wanted {
                let at = (0..count).find(|&i| integers[i] != wanted[i]).unwrap();
                let (got, wanted, bits) = (integers[at], wanted[at], values[at].to_bits());
                panic!("{backend}: {bits:#010x} at scale {scale:e} gives {got}, not {wanted}");
            }
        }
        start += count as u64;
    }
    patterns.end - patterns.start
}

struct Buffers {
    values: Vec<f32>,
    wanted: Vec<i16>,
    integers: Vec<i16>,
}

impl Buffers {
    fn new() -> Buffers {
        Buffers { values: vec![0.0; BLOCK], wanted: vec![0; BLOCK], integers: vec![0; BLOCK] }
    }
}

#[test]
#[ignore = "minutes: tools/all_floats.sh"]
fn every_f32_becomes_the_exact_integer() {
    let scales = std::env::var("NARROWS_SCALES").map_or(3, |count| count.parse::<usize>().unwrap());
    let backends = Backend::available();
    let names: Vec<_> = backends.iter().map(Backend::name).collect();
    let mut buffers = Buffers::new();
    assert!((1..=EXPONENTS.len()).contains(&scales), "1 to {} scales", EXPONENTS.len());
    for exponent in &EXPONENTS[..scales] {
        let started = Instant::now();
        let equal = compare(0..1 << 32, 2f32.powi(*exponent), &backends, &mut buffers);
        assert_eq!(equal, 1 << 32);
        println!(
            "scale 2^{exponent}: {equal} values equal on {} ({:.1} s)",
            names.join(", "),
            started.elapsed().as_secs_f64()
        );
    }
}

#[test]
fn patterns_around_every_exponent_become_the_exact_integer() {
    let backends = Backend::available();
    let mut buffers = Buffers::new();
    for exponent in EXPONENTS {
        for high in 0..512u64 {
            let start = high << 23;
            compare(start.saturating_sub(300)..start + 300, 2f32.powi(exponent), &backends, &mut buffers);
        }
    }
}

#[test]
fn halves_go_to_even_and_what_is_no_number_is_zero() {
    let scale = 0.25;
    let values = [2.0, 6.0, 10.0, -2.0, -6.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-40, 131_066.0, 131_071.0];
    let wanted = [0, 2, 2, 0, -2, 0, 32_767, -32_768, 0, 32_766, 32_767];
    for (value, wanted) in values.into_iter().zip(wanted) {
        assert_eq!(expected(value.to_bits(), scale), wanted, "{value}");
        assert_eq!(portable::to_int(value, scale as f32), wanted, "{value}");
    }
    for backend in Backend::available() {
        let mut integers = vec![7; values.len()];
        feature_to_int(&backend, &values, scale as f32, &mut integers).unwrap();
        assert_eq!(integers, wanted, "{backend}");
        assert!(feature_to_int(&backend, &values, 1.0, &mut integers[1..]).is_err());
    }
}
