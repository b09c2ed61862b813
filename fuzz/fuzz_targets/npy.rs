//! Arbitrary bytes as a feature file of the command line: `.npy`, `.npz`, `.safetensors`. What is read is the same after
//! it was written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use narrows_fuzz::bits;

#[allow(dead_code)]
#[path = "../../src/bin/narrows/files/mod.rs"]
mod files;

/// What the files need of the command line.
mod output {
    pub fn is_pipe(path: &std::path::Path) -> bool {
        path.as_os_str() == "-"
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(arrays) = files::parse_all(bytes) else { return };
    for (name, feature) in arrays {
        for format in [files::Format::Npy, files::Format::Npz, files::Format::Safetensors] {
            // numpy has no bf16.
            let Ok(written) = files::to_bytes(&feature, format, name.as_deref().unwrap_or("feature")) else { continue };
            let back = files::parse_all(&written).expect("what was written is read");
            assert_eq!(back.len(), 1);
            assert_eq!(bits(&back[0].1), bits(&feature));
        }
    }
});
