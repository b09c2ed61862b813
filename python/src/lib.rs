//! The Python package of `narrows`: the extension module `narrows._narrows`.
//!
//! Each class and function has a file of its own. `input.rs` and `output.rs` are the border between Python's memory and
//! features; `reinterpret.rs` holds all unsafe code.

mod axes;
mod backend;
mod decoder;
mod encoder;
mod error;
mod fit;
mod info;
mod input;
mod limits;
mod output;
mod pool;
mod profile;
mod raw;
mod reinterpret;
mod tensor;

use pyo3::prelude::*;

#[pymodule]
mod _narrows {
    #[pymodule_export]
    use super::backend::backends;
    #[pymodule_export]
    use super::decoder::Decoder;
    #[pymodule_export]
    use super::encoder::Encoder;
    #[pymodule_export]
    use super::fit::fit;
    #[pymodule_export]
    use super::info::info;
    #[pymodule_export]
    use super::limits::Limits;
    #[pymodule_export]
    use super::profile::Profile;
    #[pymodule_export]
    use super::raw::SymbolCoder;
    #[pymodule_export]
    use super::tensor::Tensor;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
