//! What the vectors of `fearless_simd` cannot say: gathers and products of pairs.

#![allow(unsafe_code)]

use fearless_simd::prelude::*;

/// An instruction set with the operations that the kernels need beyond `fearless_simd`'s.
pub(crate) trait Isa: Simd {
    /// Whether gathers are instructions.
    const GATHERS: bool = false;
    /// Whether a float product and a sum are one instruction.
    const FUSED: bool = false;

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
    S::u32s::from_fn(
        simd,
        #[inline(always)]
        |lane| table[index[lane] as usize & mask],
    )
}

/// [`Isa::gather`] if gathers pay, else [`look_up`].
#[inline(always)]
pub(crate) fn table_at<S: Isa, const GATHER: bool>(simd: S, table: &[u32], index: S::u32s) -> S::u32s {
    if GATHER { simd.gather(table, index) } else { look_up(simd, table, index) }
}

/// What [`Isa::gather_bytes`] does, one lane at a time.
#[inline(always)]
pub(crate) fn look_up_bytes<S: Simd>(simd: S, table: &[u8], index: S::u32s) -> S::u32s {
    let mask = table.len() - 4;
    S::u32s::from_fn(
        simd,
        #[inline(always)]
        |lane| u32::from(table[index[lane] as usize & mask]),
    )
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
    use fearless_simd::{
        i16x8, i16x16, i16x32, i32x4, i32x8, i32x16, kernel, mask32x8, mask32x16, u16x8, u32x8, u32x16,
    };

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
        fn push_words_avx512(
            _simd: Avx512,
            words: &mut [u16],
            top: usize,
            lanes: u32x16<Avx512>,
            need: mask32x16<Avx512>,
        ) -> usize {
            let need: u16 = need.into();
            let ordered = _mm256_maskz_compress_epi16(need, _mm512_cvtepi32_epi16(lanes.into()));
            let number = need.count_ones() as usize;
            let out = &mut words[top - number..top];
            // SAFETY: the mask has as many lanes as `out` has words.
            unsafe {
                _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), (1u32 << number).wrapping_sub(1) as u16, ordered)
            };
            top - number
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
        const FUSED: bool = true;

        #[inline(always)]
        fn gather(self, table: &[u32], index: Self::u32s) -> Self::u32s {
            gather_avx512(self, table, index)
        }

        #[inline(always)]
        fn gather_bytes(self, table: &[u8], index: Self::u32s) -> Self::u32s {
            gather_bytes_avx512(self, table, index)
        }

        #[inline(always)]
        fn push_words(self, words: &mut [u16], top: usize, lanes: Self::u32s, need: Self::mask32s) -> usize {
            push_words_avx512(self, words, top, lanes, need)
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

    /// For each set of eight lanes: which lane comes in which place if they stand at the end, in order.
    static TO_THE_END: [[u8; 8]; 256] = {
        let mut all = [[0; 8]; 256];
        let mut set = 0;
        while set < 256 {
            let (mut place, mut lane) = (8, 8);
            while lane > 0 {
                lane -= 1;
                if set >> lane & 1 == 1 {
                    place -= 1;
                    all[set][place] = lane as u8;
                }
            }
            set += 1;
        }
        all
    };

    kernel!(
        #[inline(always)]
        fn order_words_avx2(simd: Avx2, lanes: u32x8<Avx2>, need: mask32x8<Avx2>) -> (u16x8<Avx2>, usize) {
            let set = need.to_bitmask() as usize & 255;
            let places = _mm256_cvtepu8_epi32(_mm_set_epi64x(0, i64::from_le_bytes(TO_THE_END[set])));
            let ordered = _mm256_permutevar8x32_epi32(lanes.into(), places);
            let low = _mm256_and_si256(ordered, _mm256_set1_epi32(0xffff));
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(low, low));
            (_mm256_castsi256_si128(packed).simd_into(simd), set.count_ones() as usize)
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
        const FUSED: bool = true;

        #[inline(always)]
        fn gather(self, table: &[u32], index: Self::u32s) -> Self::u32s {
            gather_avx2(self, table, index)
        }

        #[inline(always)]
        fn gather_bytes(self, table: &[u8], index: Self::u32s) -> Self::u32s {
            gather_bytes_avx2(self, table, index)
        }

        #[inline(always)]
        fn push_words(self, words: &mut [u16], top: usize, lanes: Self::u32s, need: Self::mask32s) -> usize {
            let (ordered, number) = order_words_avx2(self, lanes, need);
            ordered.store_slice(&mut words[top - 8..top]);
            top - number
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
        const FUSED: bool = true;

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
