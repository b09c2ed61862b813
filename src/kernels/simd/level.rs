//! Instruction sets, found at run time.

use std::fmt;

/// A SIMD instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// WebAssembly's 128-bit vectors; there if the program was compiled with `simd128`.
    Wasm128,
    /// 64-bit Arm's 128-bit vectors.
    Neon,
    /// x86-64-v2: 128-bit vectors.
    Sse42,
    /// x86-64-v3: 256-bit vectors.
    Avx2,
    /// 512-bit vectors with the extensions of Ice Lake and later.
    Avx512,
}

impl Level {
    /// All levels, in ascending order.
    pub const ALL: [Level; 5] = [Level::Wasm128, Level::Neon, Level::Sse42, Level::Avx2, Level::Avx512];

    /// The best level of this machine.
    pub fn detect() -> Option<Level> {
        Level::ALL.into_iter().rev().find(|level| level.is_available())
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        self.token().is_some()
    }

    /// The levels of this machine, in ascending order.
    pub fn available() -> impl Iterator<Item = Level> {
        Level::ALL.into_iter().filter(|level| level.is_available())
    }

    /// Name as used by the command line and by `NARROWS_BACKEND`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Wasm128 => "wasm128",
            Level::Neon => "neon",
            Level::Sse42 => "sse4.2",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    /// Proof that the machine has it.
    pub(crate) fn token(self) -> Option<fearless_simd::Level> {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        {
            use fearless_simd::Level as Token;
            let machine = Token::new();
            match self {
                Level::Sse42 => machine.as_sse4_2().map(Token::Sse4_2),
                Level::Avx2 => machine.as_avx2().map(Token::Avx2),
                Level::Avx512 => machine.as_avx512().map(Token::Avx512),
                _ => None,
            }
        }
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
        {
            let machine = fearless_simd::Level::new();
            let native = match self {
                Level::Neon => cfg!(target_arch = "aarch64"),
                Level::Wasm128 => cfg!(target_arch = "wasm32"),
                _ => false,
            };
            (native && !machine.is_fallback()).then_some(machine)
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
