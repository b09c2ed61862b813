//! The interleaved rANS coder, its lanes in vectors.
//!
//! Decoding: a vector of states looks up its tokens, multiplies, and the lanes that fell below 2^16 take
//! the next words, spread over them by one expansion. Encoding, backwards, is the reverse: one
//! compression gathers the words of the lanes that must give one up. Groups with escapes, and the last
//! groups of a chunk, go through the portable code.

mod decode;
mod encode;

use fearless_simd::prelude::*;

use super::isa::Isa;
use crate::kernels::portable::{LOWEST, MAX_LANES};

pub(crate) use decode::rans_decode;
pub(crate) use encode::{Coded, Job, rans_encode, rans_index, tokens_of};
pub(in crate::kernels::simd) use encode::{advance, put_chunk};

/// One bit for each lane of the vector from lane `first` on that is below `count`.
#[inline(always)]
pub(super) fn active(count: usize, first: usize, width: usize) -> u64 {
    (1 << count.saturating_sub(first).min(width)) - 1
}

#[inline(always)]
pub(super) fn spill<S: Isa, const V: usize>(states: &[S::u32s; V]) -> [u32; MAX_LANES] {
    let mut own = [LOWEST; MAX_LANES];
    for (own, states) in own.chunks_exact_mut(S::u32s::LEN).zip(states) {
        states.store_slice(own);
    }
    own
}

#[inline(always)]
pub(super) fn fill<S: Isa, const V: usize>(simd: S, own: &[u32; MAX_LANES]) -> [S::u32s; V] {
    std::array::from_fn(
        #[inline(always)]
        |v| S::u32s::from_slice(simd, &own[v * S::u32s::LEN..][..S::u32s::LEN]),
    )
}
