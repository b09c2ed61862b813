//! Errors of the library as the exceptions of `narrows._errors`.

use narrows::Error;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The exception of an error: same kind, same message, same fields.
pub fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let make = || -> PyResult<PyErr> {
        let fields = PyDict::new(py);
        let name = match error {
            Error::InvalidInput(_) => "InvalidInput",
            Error::Corrupt { what, offset } => {
                fields.set_item("what", what)?;
                fields.set_item("offset", offset)?;
                "Corrupt"
            }
            Error::Truncated { what, offset } => {
                fields.set_item("what", what)?;
                fields.set_item("offset", offset)?;
                "Truncated"
            }
            Error::Unsupported { what } => {
                fields.set_item("what", what)?;
                "Unsupported"
            }
            Error::LimitExceeded { what, needed, limit } => {
                fields.set_item("what", what)?;
                fields.set_item("needed", needed)?;
                fields.set_item("limit", limit)?;
                "LimitExceeded"
            }
            Error::ProfileMismatch { stream, given } => {
                fields.set_item("stream", hex(*stream))?;
                fields.set_item("given", given.map(hex))?;
                "ProfileMismatch"
            }
            Error::Backend(_) => "BackendError",
            _ => "Error",
        };
        let class = py.import("narrows._errors")?.getattr(name)?;
        Ok(PyErr::from_value(class.call((error.to_string(),), Some(&fields))?))
    };
    make().unwrap_or_else(|failure| failure)
}

/// `InvalidInput`, for what is wrong on this side of the library.
pub fn invalid(py: Python<'_>, message: impl Into<String>) -> PyErr {
    exception(py, &Error::InvalidInput(message.into().into()))
}

/// A profile's hash as people and the command line write it.
pub fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Results of the library as results of Python.
pub trait OrRaise<T> {
    /// The value, or the exception of the error.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for narrows::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, &error))
    }
}
