//! The GPU decoder against the portable one, on the software driver: the same feature or the same error for any bytes.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use narrows::Backend;
use narrows::gpu::{self, Device};
use narrows_fuzz::{Input, PROFILES, bits, decoder, limits};

/// Largest feature, in bytes.
const MOST: u64 = 1 << 16;

static DEVICE: LazyLock<Device> = LazyLock::new(|| Device::software().expect("a software Vulkan driver"));

fuzz_target!(|input: Input| {
    let Some(bytes) = input.bytes() else { return };
    let expected = decoder(MOST).backend(Backend::Portable).decode(&bytes);
    let gpu = PROFILES.iter().cloned().fold(gpu::Decoder::new(&DEVICE), gpu::Decoder::profile);
    let result = gpu.limits(limits(MOST)).decode(&bytes);
    assert_eq!(result.as_ref().map(bits), expected.as_ref().map(bits), "the GPU differs from portable");
});
