//! What the vectors of `fearless_simd` cannot say: gathers and products of pairs.

#![allow(unsafe_code)]

use fearless_simd::prelude::*;

/// An instruction set with the operations that the kernels need beyond `fearless_simd`'s.
pub(crate) trait Isa: Simd {
    /// Whether gathers are instructions.
    const GATHERS: bool = false;

    /// `table[index & (table.len() - 1)]` for every lane. The table is not empty.
    #[inline(always)]
    fn gather(self, table: &[u32], index: Self::u32s) -> Self::u32s {
        look_up(self, table, index)
    }

    /// The byte at `index & (table.len() - 4)` for every lane: the last three bytes of a table of
    /// 2^n + 3 bytes are padding.
    #[inline(always)]
    fn gather_bytes(self, table: &[u8], index: Self::u32s) -> Self::u32s {
        look_up_bytes(self, table, index)
    }

    /// Writes the low halves of the lanes in `need`, in order, to end at `words[top]`; returns where they
    /// begin. Up to a vector of words before that is overwritten.
    #[inline(always)]
    fn push_words(self, words: &mut [u16], top: usize, lanes: Self::u32s, need: Self::mask32s) -> usize {
        let width = Self::u32s::LEN;
        let number = need.to_bitmask().count_ones() as usize;
        let right = Self::mask32s::from_bitmask(self, ((1 << number) - 1) << (width - number));
        let ordered = (lanes & 0xffff).compress(need).expand(right);
        let narrow: Self::u16s = ordered.narrow(ordered);
        words[top - width..top].copy_from_slice(&narrow.as_slice()[..width]);
        top - number
    }

    /// The lanes as f32, to nearest.
    #[inline(always)]
    fn to_float(self, lanes: Self::u32s) -> Self::f32s {
        lanes.to_float()
    }

    /// `a[2i] * b[2i] + a[2i + 1] * b[2i + 1]` for every lane i of the result.
    fn pair_products(self, a: Self::i16s, b: Self::i16s) -> Self::i32s;
}

/// What [`Isa::gather`] does, one lane at a time.
#[inline(always)]
pub(crate) fn look_up<S: Simd>(simd: S, table: &[u32], index: S::u32s) -> S::u32s {
    let mask = table.len() - 1;
    S::u32s::from_fn(simd, |lane| table[index[lane] as usize & mask])
}

/// What [`Isa::gather_bytes`] does, one lane at a time.
#[inline(always)]
pub(crate) fn look_up_bytes<S: Simd>(simd: S, table: &[u8], index: S::u32s) -> S::u32s {
    let mask = table.len() - 4;
    S::u32s::from_fn(simd, |lane| u32::from(table[index[lane] as usize & mask]))
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod x86 {
    use super::Isa;
    #[cfg(target_arch = "x86")]
    use core::arch::x86::*;
    #[cfg(target_arch = "x86_64")]
    use core::arch::x86_64::*;
    use fearless_simd::prelude::*;
    use fearless_simd::x86::{Avx2, Avx512, Sse4_2};
    use fearless_simd::{i16x8, i16x16, i16x32, i32x4, i32x8, i32x16, kernel, u32x8, u32x16};

    kernel!(
        #[inline(always)]
        fn gather_avx512(simd: Avx512, table: &[u32], index: u32x16<Avx512>) -> u32x16<Avx512> {
            let index = _mm512_and_si512(index.into(), _mm512_set1_epi32(table.len() as i32 - 1));
            // SAFETY: every index is at most `table.len() - 1`.
            unsafe { _mm512_i32gather_epi32::<4>(index, table.as_ptr().cast()) }.simd_into(simd)
        }
    );

    kernel!(
        #[inline(always)]
        fn gather_bytes_avx512(simd: Avx512, table: &[u8], index: u32x16<Avx512>) -> u32x16<Avx512> {
            let index = _mm512_and_si512(index.into(), _mm512_set1_epi32(table.len() as i32 - 4));
            // SAFETY: four bytes from every index on are within the table, the index being at most `table.len() - 4`.
            let words = unsafe { _mm512_i32gather_epi32::<1>(index, table.as_ptr().cast()) };
            _mm512_and_si512(words, _mm512_set1_epi32(255)).simd_into(simd)
        }
    );

    kernel!(
        #[inline(always)]
        fn pair_products_avx512(simd: Avx512, a: i16x32<Avx512>, b: i16x32<Avx512>) -> i32x16<Avx512> {
            _mm512_madd_epi16(a.into(), b.into()).simd_into(simd)
        }
    );

    impl Isa for Avx512 {
        const GATHERS: bool = true;

        #[inline(always)]
        fn gather(self, table: &[u32], index: Self::u32s) -> Self::u32s {
            gather_avx512(self, table, index)
        }

        #[inline(always)]
        fn gather_bytes(self, table: &[u8], index: Self::u32s) -> Self::u32s {
            gather_bytes_avx512(self, table, index)
        }

        #[inline(always)]
        fn pair_products(self, a: Self::i16s, b: Self::i16s) -> Self::i32s {
            pair_products_avx512(self, a, b)
        }
    }

    kernel!(
        #[inline(always)]
        fn gather_avx2(simd: Avx2, table: &[u32], index: u32x8<Avx2>) -> u32x8<Avx2> {
            let index = _mm256_and_si256(index.into(), _mm256_set1_epi32(table.len() as i32 - 1));
            // SAFETY: every index is at most `table.len() - 1`.
            unsafe { _mm256_i32gather_epi32::<4>(table.as_ptr().cast(), index) }.simd_into(simd)
        }
    );

    kernel!(
        #[inline(always)]
        fn gather_bytes_avx2(simd: Avx2, table: &[u8], index: u32x8<Avx2>) -> u32x8<Avx2> {
            let index = _mm256_and_si256(index.into(), _mm256_set1_epi32(table.len() as i32 - 4));
            // SAFETY: four bytes from every index on are within the table, the index being at most `table.len() - 4`.
            let words = unsafe { _mm256_i32gather_epi32::<1>(table.as_ptr().cast(), index) };
            _mm256_and_si256(words, _mm256_set1_epi32(255)).simd_into(simd)
        }
    );

    kernel!(
        #[inline(always)]
        fn pair_products_avx2(simd: Avx2, a: i16x16<Avx2>, b: i16x16<Avx2>) -> i32x8<Avx2> {
            _mm256_madd_epi16(a.into(), b.into()).simd_into(simd)
        }
    );

    impl Isa for Avx2 {
        const GATHERS: bool = true;

        #[inline(always)]
        fn gather(self, table: &[u32], index: Self::u32s) -> Self::u32s {
            gather_avx2(self, table, index)
        }

        #[inline(always)]
        fn gather_bytes(self, table: &[u8], index: Self::u32s) -> Self::u32s {
            gather_bytes_avx2(self, table, index)
        }

        #[inline(always)]
        fn pair_products(self, a: Self::i16s, b: Self::i16s) -> Self::i32s {
            pair_products_avx2(self, a, b)
        }
    }

    kernel!(
        #[inline(always)]
        fn pair_products_sse4_2(simd: Sse4_2, a: i16x8<Sse4_2>, b: i16x8<Sse4_2>) -> i32x4<Sse4_2> {
            _mm_madd_epi16(a.into(), b.into()).simd_into(simd)
        }
    );

    impl Isa for Sse4_2 {
        #[inline(always)]
        fn pair_products(self, a: Self::i16s, b: Self::i16s) -> Self::i32s {
            pair_products_sse4_2(self, a, b)
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::Isa;
    use core::arch::aarch64::*;
    use fearless_simd::aarch64::Neon;
    use fearless_simd::prelude::*;
    use fearless_simd::{i16x8, i32x4, kernel};

    kernel!(
        #[inline(always)]
        fn pair_products_neon(simd: Neon, a: i16x8<Neon>, b: i16x8<Neon>) -> i32x4<Neon> {
            let (a, b): (int16x8_t, int16x8_t) = (a.into(), b.into());
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vpaddq_s32(low, vmull_high_s16(a, b)).simd_into(simd)
        }
    );

    impl Isa for Neon {
        #[inline(always)]
        fn pair_products(self, a: Self::i16s, b: Self::i16s) -> Self::i32s {
            pair_products_neon(self, a, b)
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32 {
    use super::Isa;
    use core::arch::wasm32::{i32x4_dot_i16x8, v128};
    use fearless_simd::prelude::*;
    use fearless_simd::wasm32::WasmSimd128;

    impl Isa for WasmSimd128 {
        #[inline(always)]
        fn pair_products(self, a: Self::i16s, b: Self::i16s) -> Self::i32s {
            let (a, b): (v128, v128) = (a.into(), b.into());
            i32x4_dot_i16x8(a, b).simd_into(self)
        }
    }
}
