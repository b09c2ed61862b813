//! Makes Rust of the protocol's messages (feature `link`); without the feature it does nothing.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "link")]
    link()?;
    Ok(())
}

/// `protox` reads the .proto files, so that no `protoc` has to be installed.
#[cfg(feature = "link")]
fn link() -> Result<(), Box<dyn std::error::Error>> {
    const PROTOS: [&str; 2] = ["src/link/inference.proto", "src/link/health.proto"];
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["src/link"])?;
    tonic_prost_build::configure()
        .codec_path("crate::link::wire::BoundedCodec")
        .bytes(".inference")
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
