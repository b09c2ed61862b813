//! Makes Rust of the protocol's messages (feature `link`); without the feature it does nothing.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "link")]
    link()?;
    Ok(())
}

/// `protox` reads the .proto file, so that no `protoc` has to be installed.
#[cfg(feature = "link")]
fn link() -> Result<(), Box<dyn std::error::Error>> {
    const PROTO: &str = "src/link/inference.proto";
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["src/link"])?;
    tonic_prost_build::configure()
        .codec_path("crate::link::wire::BoundedCodec")
        .bytes(".inference")
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
