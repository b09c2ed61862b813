//! `narrows.raw`: the entropy coder without a container.

use narrows::raw::IndexedCoder;
use narrows::raw::bank::Bank;
use narrows::raw::token::TOKENS;
use ndarray::{ArrayD, ArrayViewD, CowArray, IxDyn};
use numpy::{PyArray, PyArrayDyn, PyReadonlyArray2, PyReadonlyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::{OrRaise, invalid};
use crate::pool::Pool;
use crate::{backend, input};

/// Codes integers under tables that the caller names one by one, for models that predict the scale of every symbol. What it
/// writes is no stream: who decodes it must know the tables and the shape.
///
/// Any int32 can be coded under any table. Threads may share a coder: each call takes a worker of its own, and the GIL is
/// released meanwhile.
///
/// :param bank: the tables, uint16 of shape [104, 32]: a row of 12-bit frequencies of the 32 tokens each, which sums to 4096;
///     the built-in ones if there are none, table k of which is for symbols of a scale of about ``2 ** ((k - 30) / 8)``
/// :param lanes: interleaved states: 1, 2, 4, 8, 16 or 32; the default costs about 1 % of the bytes
/// :param backend: one of :func:`narrows.backends`; the bytes are the same everywhere
/// :raises Corrupt: the bank is not one
/// :raises InvalidInput: the bank has another shape, or the lanes are others
/// :raises BackendError: this machine does not have the backend
#[pyclass(module = "narrows.raw", frozen)]
pub struct SymbolCoder {
    pool: Pool<IndexedCoder>,
}

#[pymethods]
impl SymbolCoder {
    #[new]
    #[pyo3(signature = (bank=None, *, lanes=None, backend=None))]
    fn new(
        py: Python<'_>,
        bank: Option<PyReadonlyArray2<'_, u16>>,
        lanes: Option<usize>,
        backend: Option<&str>,
    ) -> PyResult<SymbolCoder> {
        let bank = match bank {
            None => Bank::builtin(),
            Some(bank) => {
                let row = |row: ndarray::ArrayView1<'_, u16>| <[u16; TOKENS]>::try_from(row.to_vec());
                let rows: Result<Vec<_>, _> = bank.as_array().rows().into_iter().map(row).collect();
                let rows = rows.map_err(|_| invalid(py, "a table has 32 frequencies"))?;
                Bank::new(rows).or_raise(py)?
            }
        };
        let mut coder = IndexedCoder::new(bank, &backend::of(py, backend)?).or_raise(py)?;
        if let Some(lanes) = lanes {
            if !lanes.is_power_of_two() || lanes > 32 {
                return Err(invalid(py, "lanes must be 1, 2, 4, 8, 16 or 32"));
            }
            coder = coder.lanes(lanes);
        }
        Ok(SymbolCoder { pool: Pool::new(coder) })
    }

    /// Codes symbols, in the order of their array.
    ///
    /// :param symbols: int32
    /// :param tables: uint8 of the same shape, the row of the bank for each symbol
    /// :raises InvalidInput: the shapes differ, or a table is not in the bank
    fn encode<'py>(
        &self,
        py: Python<'py>,
        symbols: PyReadonlyArrayDyn<'py, i32>,
        tables: PyReadonlyArrayDyn<'py, u8>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (symbols, tables) = (symbols.as_array(), tables.as_array());
        if symbols.shape() != tables.shape() {
            return Err(invalid(py, "symbols and tables must have one shape"));
        }
        let (symbols, tables) = (in_order(symbols), in_order(tables));
        let mut out = Vec::new();
        py.detach(|| self.pool.with(|coder| coder.encode(slice(&symbols), slice(&tables), &mut out))).or_raise(py)?;
        Ok(PyBytes::new(py, &out))
    }

    /// The symbols again, an int32 array of the shape of ``tables``.
    ///
    /// :param data: what :meth:`encode` gave, bytes or anything else with the buffer protocol
    /// :param tables: as for :meth:`encode`
    /// :raises Corrupt, Truncated: bytes that no encoder makes for these tables
    /// :raises InvalidInput: a table is not in the bank
    fn decode<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
        tables: PyReadonlyArrayDyn<'py, u8>,
    ) -> PyResult<Bound<'py, PyArrayDyn<i32>>> {
        let data = input::bytes(data)?;
        let (data, tables) = (data.as_bytes(), in_order(tables.as_array()));
        let mut symbols = ArrayD::zeros(IxDyn(tables.shape()));
        let out = symbols.as_slice_mut().unwrap_or(&mut []);
        py.detach(|| self.pool.with(|coder| coder.decode(data, slice(&tables), out))).or_raise(py)?;
        Ok(PyArray::from_owned_array(py, symbols))
    }
}

/// The array itself, or a copy whose memory is in order.
fn in_order<T: Clone>(array: ArrayViewD<'_, T>) -> CowArray<'_, T, IxDyn> {
    if array.is_standard_layout() { array.into() } else { array.as_standard_layout().into_owned().into() }
}

fn slice<'a, T: Clone>(array: &'a CowArray<'_, T, IxDyn>) -> &'a [T] {
    array.as_slice().unwrap_or(&[])
}
