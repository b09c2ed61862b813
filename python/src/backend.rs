//! Backends by name.

use narrows::{Backend, Error};
use pyo3::prelude::*;

use crate::error::exception;

/// Names of the backends of this machine, from the slowest to the fastest; every one writes the same bytes.
///
/// Encoders and decoders use the last processor backend unless told otherwise, or the one that the environment variable
/// ``NARROWS_BACKEND`` names. ``"gpu"`` is among them if the package was built with the feature ``gpu`` and there is a GPU.
#[pyfunction]
pub fn backends(py: Python<'_>) -> Vec<&'static str> {
    py.detach(|| {
        let names = Backend::available().into_iter().map(|backend| backend.name());
        names.chain(gpu().is_ok().then_some("gpu")).collect()
    })
}

/// The backend of a name, or the default.
pub fn of(py: Python<'_>, name: Option<&str>) -> PyResult<Backend> {
    let result = match name {
        None => Ok(Backend::detect()),
        Some("gpu") => py.detach(gpu),
        Some(name) => Backend::from_name(name).ok_or_else(|| {
            let names: Vec<_> = Backend::available().iter().map(Backend::name).collect();
            Error::Backend(format!("this machine has no backend {name}; it has {}", names.join(", ")).into())
        }),
    };
    result.map_err(|error| exception(py, &error))
}

#[cfg(feature = "gpu")]
fn gpu() -> narrows::Result<Backend> {
    use std::sync::OnceLock;
    static DEVICE: OnceLock<narrows::Result<narrows::gpu::Device>> = OnceLock::new();
    DEVICE.get_or_init(narrows::gpu::Device::request).clone().map(Backend::Gpu)
}

#[cfg(not(feature = "gpu"))]
fn gpu() -> narrows::Result<Backend> {
    Err(Error::Backend("the package was built without the feature gpu".into()))
}
