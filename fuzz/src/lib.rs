//! What the fuzz targets share: golden profiles, limits, structured features, patches to streams.

mod case;
mod fields;

use std::sync::{Arc, LazyLock};

use narrows::{Backend, Decoder, Error, Feature, Info, Layout, Limits, Profile};

pub use case::{Case, Input, Method, Values};
pub use fields::{Fields, Patch};

/// Enough bytes for every feature of a [`Case`], padding included.
pub const CASE_BYTES: u64 = 64 << 20;

/// The files of the golden profiles.
pub const PROFILE_FILES: [&[u8]; 3] = [
    include_bytes!("../../tests/vectors/waves.profile.safetensors"),
    include_bytes!("../../tests/vectors/rectified.profile.safetensors"),
    include_bytes!("../../tests/vectors/bursts.profile.safetensors"),
];

/// The golden profiles.
pub static PROFILES: LazyLock<[Arc<Profile>; 3]> =
    LazyLock::new(|| PROFILE_FILES.map(|file| Arc::new(Profile::from_bytes(file).expect("a golden profile"))));

/// Limits that keep one run short.
pub fn limits(output_bytes: u64) -> Limits {
    Limits { output_bytes, chunks: 1024, channels: 4096, ..Limits::default() }
}

/// A decoder with the golden profiles.
pub fn decoder(output_bytes: u64) -> Decoder {
    PROFILES.iter().cloned().fold(Decoder::new(), Decoder::profile).limits(limits(output_bytes))
}

/// Dtype, shape and bits of a feature: equal only if every bit is.
pub fn bits(feature: &Feature) -> (&'static str, Vec<usize>, Vec<u32>) {
    let bits = match feature {
        Feature::F32(array) => array.iter().map(|x| x.to_bits()).collect(),
        Feature::F16(array) => array.iter().map(|x| u32::from(x.to_bits())).collect(),
        Feature::Bf16(array) => array.iter().map(|x| u32::from(x.to_bits())).collect(),
        Feature::I8(array) => array.iter().map(|&x| u32::from(x as u8)).collect(),
        Feature::U8(array) => array.iter().map(|&x| u32::from(x)).collect(),
        other => panic!("no bits for {other:?}"),
    };
    (feature.dtype().name(), feature.shape().to_vec(), bits)
}

/// The layout that a readable header promises, if its profile is known.
pub fn promised(bytes: &[u8]) -> Option<Layout> {
    let info = Info::read(bytes).ok()?;
    let known = PROFILES.iter().find(|profile| Some(profile.hash()) == info.profile);
    info.layout.or(known.map(|profile| *profile.layout()))
}

/// Panics if a decoded feature is not what the header of its stream promises.
pub fn check_shape(bytes: &[u8], result: &Result<Feature, Error>) {
    if let Ok(feature) = result {
        let layout = promised(bytes).expect("a decoded stream has a header");
        assert_eq!((feature.dtype(), feature.shape()), (layout.dtype, &layout.shape()[..]));
    }
}

/// Decodes on every processor backend; panics unless all give the same feature or the same error.
pub fn decode_everywhere(bytes: &[u8], output_bytes: u64) -> Result<Feature, Error> {
    let decode = |backend: Backend| decoder(output_bytes).backend(backend).decode(bytes);
    let expected = decode(Backend::Portable);
    check_shape(bytes, &expected);
    for backend in Backend::available() {
        let result = decode(backend.clone());
        assert_eq!(result.as_ref().map(bits), expected.as_ref().map(bits), "{backend} differs from portable");
    }
    expected
}
