//! All unsafe code of the package: 16-bit words that are bf16, and the element type that a DLPack capsule names.
//!
//! NumPy has no bf16. Words of 16 bits stand for it on the way to and from NumPy, without a copy.
#![allow(unsafe_code)]

use std::ffi::c_void;

use half::bf16;
use ndarray::ArrayViewD;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods};

/// The same memory as bf16.
pub fn words_as_bf16<'a>(words: &ArrayViewD<'a, u16>) -> ArrayViewD<'a, bf16> {
    let words = words.clone();
    // SAFETY: bf16 is a transparent wrapper of u16, for which every bit pattern is a value; shape and strides are those
    // of a valid view, and the new view borrows from the same `'a`.
    unsafe { words.raw_view().cast::<bf16>().deref_into_view() }
}

/// Element type in the terms of DLPack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ElementType {
    pub code: u8,
    pub bits: u8,
    pub lanes: u16,
}

impl ElementType {
    const fn new(code: u8, bits: u8) -> Self {
        ElementType { code, bits, lanes: 1 }
    }

    pub const I8: Self = Self::new(0, 8);
    pub const U8: Self = Self::new(1, 8);
    pub const U16: Self = Self::new(1, 16);
    pub const F16: Self = Self::new(2, 16);
    pub const F32: Self = Self::new(2, 32);
    pub const BF16: Self = Self::new(4, 16);
}

/// The first fields of `DLManagedTensor`, which have been the same in every version of that struct.
#[repr(C)]
struct Managed {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    rank: i32,
    element: ElementType,
}

/// The element type of the tensor in a capsule that nobody has consumed; `f` says what to put in its place.
///
/// # Errors
/// `ValueError` if it is not a capsule of this kind (`dltensor`), or was consumed.
pub fn retype(capsule: &Bound<'_, PyCapsule>, f: impl FnOnce(ElementType) -> ElementType) -> PyResult<ElementType> {
    let managed = capsule.pointer_checked(Some(c"dltensor"))?.cast::<Managed>();
    // SAFETY: a capsule of this name holds a `DLManagedTensor` by the DLPack protocol. Until it is consumed, which
    // changes its name, it belongs to the holder of the capsule, and that is this call: the interpreter is attached, and
    // the capsule was made for us. Fields are read and written one by one, so no reference to it is made.
    unsafe {
        let element = &raw mut (*managed.as_ptr()).element;
        let before = element.read();
        element.write(f(before));
        Ok(before)
    }
}
