//! Names the C libraries to link, and does nothing else.

/// Prints one link line for each library whose feature is on.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["htscodecs", "charls"] {
        if std::env::var_os(format!("CARGO_FEATURE_{}", name.to_uppercase())).is_some() {
            println!("cargo:rustc-link-lib={name}");
        }
    }
}
