//! Where the kernels run.

use std::fmt;

pub use crate::kernels::simd::Level;

/// The environment variable that may lower [`Backend::detect`]'s choice.
pub const BACKEND_VARIABLE: &str = "NARROWS_BACKEND";

/// Where the kernels run. Every backend writes the same bytes and decodes to the same features.
///
/// Which should I use? What [`Backend::detect`] gives, which encoders and decoders use unless they are
/// told otherwise. The others are for tests, benches and comparisons.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Backend {
    /// Plain scalar Rust: the definition of every byte.
    Portable,
    /// SIMD instructions.
    Simd(Level),
    /// A GPU, for the modes `Profile` and `Plain` (the others stay on the processor). It is never chosen by itself:
    /// [`Encoder::gpu`](crate::Encoder::gpu) leaves small features to the processor.
    #[cfg(feature = "gpu")]
    Gpu(crate::gpu::Device),
}

impl Backend {
    /// The fastest processor backend of this machine, or a lower one if the environment variable
    /// `NARROWS_BACKEND` names one (`portable`, `sse4.2`, `avx2`, `avx512`, `neon`, `wasm128`). Other
    /// values, and those of a higher level than the machine's, are ignored.
    pub fn detect() -> Backend {
        static DETECTED: std::sync::OnceLock<Backend> = std::sync::OnceLock::new();
        let detect = || {
            let best = Level::detect();
            let wanted = std::env::var(BACKEND_VARIABLE).unwrap_or_default();
            if wanted == Backend::Portable.name() {
                return Backend::Portable;
            }
            let lowered = Level::available().find(|level| level.name() == wanted).or(best);
            lowered.map_or(Backend::Portable, Backend::Simd)
        };
        DETECTED.get_or_init(detect).clone()
    }

    /// The SIMD backend of a level, if this machine has it.
    pub fn simd(level: Level) -> Option<Backend> {
        level.is_available().then_some(Backend::Simd(level))
    }

    /// Every processor backend of this machine, from the slowest to the fastest.
    pub fn available() -> Vec<Backend> {
        [Backend::Portable].into_iter().chain(Level::available().map(Backend::Simd)).collect()
    }

    /// The backend of a name, if this machine has it.
    pub fn from_name(name: &str) -> Option<Backend> {
        Backend::available().into_iter().find(|backend| backend.name() == name)
    }

    /// Name as used by the command line and by `NARROWS_BACKEND`.
    pub fn name(&self) -> &'static str {
        match self {
            Backend::Portable => "portable",
            Backend::Simd(level) => level.name(),
            #[cfg(feature = "gpu")]
            Backend::Gpu(_) => "gpu",
        }
    }
}

impl PartialEq for Backend {
    /// Equal kinds; all GPUs count as equal.
    fn eq(&self, other: &Backend) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Backend {}

impl Default for Backend {
    fn default() -> Self {
        Backend::detect()
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
