//! Features: borrowed views going in, owned tensors coming out.

use half::{bf16, f16};
use ndarray::{ArrayBase, ArrayD, ArrayViewD, Data, Dimension, IxDyn};

use crate::container::Layout;
use crate::error::{Error, Result};

/// Most axes a feature may have.
pub const MAX_RANK: usize = 8;

/// Element type of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dtype {
    /// 32-bit IEEE 754.
    F32 = 0,
    /// 16-bit IEEE 754.
    F16 = 1,
    /// 16-bit brain float.
    Bf16 = 2,
    /// Signed byte.
    I8 = 3,
    /// Unsigned byte.
    U8 = 4,
}

impl Dtype {
    /// All element types, in the order of their codes in a stream.
    pub const ALL: [Dtype; 5] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::I8, Dtype::U8];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::I8 | Dtype::U8 => 1,
        }
    }

    /// Name as used by safetensors and by the command line: `f32`, `f16`, `bf16`, `i8`, `u8`.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::I8 => "i8",
            Dtype::U8 => "u8",
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Dtype> {
        Dtype::ALL.get(code as usize).copied()
    }

    pub(crate) fn from_name(name: &str) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

/// Which axes of a feature are what: one holds the channels, at most one the batch items, the
/// others are positions (the last one is the width, the one before it the height).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Axes {
    /// The axis of channels.
    pub channels: usize,
    /// The axis of independent items, if there is one.
    pub batch: Option<usize>,
}

impl Axes {
    /// The usual meaning of a rank: `[C]`, `[T, C]`, `[C, H, W]`, `[N, C, ...]`.
    pub fn default_for(rank: usize) -> Axes {
        match rank {
            0 | 1 | 3 => Axes { channels: 0, batch: None },
            2 => Axes { channels: 1, batch: None },
            _ => Axes { channels: 1, batch: Some(0) },
        }
    }

    pub(crate) fn check(self, rank: usize) -> Result<()> {
        if rank == 0 || rank > MAX_RANK {
            return Err(Error::invalid(format!("a feature has 1 to {MAX_RANK} axes, this one has {rank}")));
        }
        if self.channels >= rank || self.batch.is_some_and(|batch| batch >= rank || batch == self.channels) {
            let batch = self.batch.map_or("none".to_string(), |batch| batch.to_string());
            return Err(Error::invalid(format!(
                "axes out of place: channels {}, batch {batch}, in a feature with {rank} axes, 0 to {}",
                self.channels,
                rank - 1
            )));
        }
        Ok(())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// An element type that features may have: f32, [`half::f16`], [`half::bf16`], i8, u8.
pub trait Element: sealed::Sealed + Copy + 'static {
    /// The dtype of this type.
    const DTYPE: Dtype;
    /// The exact value as f32.
    fn to_f32(self) -> f32;
    /// The nearest value, ties to even, out-of-range values clamped (integers) or infinite (floats).
    fn from_f32(value: f32) -> Self;
    #[doc(hidden)]
    fn view<'a>(view: ArrayViewD<'a, Self>) -> ViewData<'a>;
    #[doc(hidden)]
    fn tensor(array: ArrayD<Self>) -> Feature;
    #[doc(hidden)]
    fn bytes(self) -> [u8; 4];
    #[doc(hidden)]
    fn from_bytes(bytes: [u8; 4]) -> Self;
}

macro_rules! element {
    ($type:ty, $variant:ident, $size:literal, $to:expr, $from:expr) => {
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$variant;
            #[inline]
            fn to_f32(self) -> f32 {
                ($to)(self)
            }
            #[inline]
            fn from_f32(value: f32) -> Self {
                ($from)(value)
            }
            fn view<'a>(view: ArrayViewD<'a, Self>) -> ViewData<'a> {
                ViewData::$variant(view)
            }
            fn tensor(array: ArrayD<Self>) -> Feature {
                Feature::$variant(array)
            }
            #[inline]
            fn bytes(self) -> [u8; 4] {
                let mut bytes = [0; 4];
                bytes[..$size].copy_from_slice(&self.to_le_bytes());
                bytes
            }
            #[inline]
            fn from_bytes(bytes: [u8; 4]) -> Self {
                let mut own = [0; $size];
                own.copy_from_slice(&bytes[..$size]);
                <$type>::from_le_bytes(own)
            }
        }
    };
}
element!(f32, F32, 4, |x: f32| x, |x: f32| x);
element!(f16, F16, 2, f16::to_f32, f16::from_f32);
element!(bf16, Bf16, 2, bf16::to_f32, bf16::from_f32);
element!(i8, I8, 1, f32::from, |x: f32| libm::rintf(x) as i8);
element!(u8, U8, 1, f32::from, |x: f32| libm::rintf(x) as u8);

#[doc(hidden)]
#[derive(Debug, Clone)]
pub enum ViewData<'a> {
    F32(ArrayViewD<'a, f32>),
    F16(ArrayViewD<'a, f16>),
    Bf16(ArrayViewD<'a, bf16>),
    I8(ArrayViewD<'a, i8>),
    U8(ArrayViewD<'a, u8>),
}

/// A borrowed feature: any dtype, rank 1 to 8, any memory order, with its [`Axes`].
///
/// ```
/// use ndarray::Array4;
/// use narrows::FeatureView;
///
/// let feature = Array4::<f32>::zeros((1, 14, 14, 80)); // channels last
/// let view = FeatureView::from(&feature).channel_axis(3);
/// assert_eq!(view.shape(), [1, 14, 14, 80]);
/// assert_eq!(view.channels(), 80);
/// ```
#[derive(Debug, Clone)]
pub struct FeatureView<'a> {
    data: ViewData<'a>,
    axes: Axes,
}

impl<'a, T: Element, S: Data<Elem = T>, D: Dimension> From<&'a ArrayBase<S, D>> for FeatureView<'a> {
    /// A view with the axes that are usual for its rank, see [`Axes::default_for`].
    fn from(array: &'a ArrayBase<S, D>) -> Self {
        FeatureView { axes: Axes::default_for(array.ndim()), data: T::view(array.view().into_dyn()) }
    }
}

impl<'a> From<&'a Feature> for FeatureView<'a> {
    fn from(feature: &'a Feature) -> Self {
        feature.view()
    }
}

/// Runs one body for whichever dtype a view or a feature has.
macro_rules! with_array {
    ($enum:ident, $value:expr, $array:ident => $body:expr) => {
        match $value {
            $enum::F32($array) => $body,
            $enum::F16($array) => $body,
            $enum::Bf16($array) => $body,
            $enum::I8($array) => $body,
            $enum::U8($array) => $body,
        }
    };
}
pub(crate) use with_array;

impl<'a> FeatureView<'a> {
    /// The same view with its channels on another axis; a batch axis in its place is dropped.
    pub fn channel_axis(mut self, axis: usize) -> Self {
        self.axes.channels = axis;
        if self.axes.batch == Some(axis) {
            self.axes.batch = None;
        }
        self
    }

    /// The same view with another batch axis, or none.
    pub fn batch_axis(mut self, axis: Option<usize>) -> Self {
        self.axes.batch = axis;
        self
    }

    /// The same view with these axes.
    pub fn with_axes(mut self, axes: Axes) -> Self {
        self.axes = axes;
        self
    }

    /// Length of each axis.
    pub fn shape(&self) -> &[usize] {
        with_array!(ViewData, &self.data, array => array.shape())
    }

    /// Which axis is what.
    pub fn axes(&self) -> Axes {
        self.axes
    }

    /// Number of channels (0 if the channel axis is out of place).
    pub fn channels(&self) -> usize {
        self.shape().get(self.axes.channels).copied().unwrap_or(0)
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        match self.data {
            ViewData::F32(_) => Dtype::F32,
            ViewData::F16(_) => Dtype::F16,
            ViewData::Bf16(_) => Dtype::Bf16,
            ViewData::I8(_) => Dtype::I8,
            ViewData::U8(_) => Dtype::U8,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn data(&self) -> &ViewData<'a> {
        &self.data
    }

    pub(crate) fn checked(&self) -> Result<()> {
        self.axes.check(self.shape().len())
    }
}

/// A decoded feature: it owns its elements, in standard (row-major) order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Feature {
    /// 32-bit IEEE 754.
    F32(ArrayD<f32>),
    /// 16-bit IEEE 754.
    F16(ArrayD<f16>),
    /// 16-bit brain float.
    Bf16(ArrayD<bf16>),
    /// Signed byte.
    I8(ArrayD<i8>),
    /// Unsigned byte.
    U8(ArrayD<u8>),
}

impl<T: Element> From<ArrayD<T>> for Feature {
    fn from(array: ArrayD<T>) -> Self {
        T::tensor(array)
    }
}

impl Feature {
    /// A view of this feature with the usual axes of its rank.
    pub fn view(&self) -> FeatureView<'_> {
        with_array!(Feature, self, array => FeatureView::from(array))
    }

    /// Length of each axis.
    pub fn shape(&self) -> &[usize] {
        with_array!(Feature, self, array => array.shape())
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.view().dtype()
    }

    /// The values as f32, exactly.
    pub fn to_f32(&self) -> ArrayD<f32> {
        with_array!(Feature, self, array => array.mapv(Element::to_f32))
    }

    /// Makes it one of this layout, keeping its memory if it is one.
    pub(crate) fn reshape(&mut self, layout: &Layout) {
        let shape = layout.padded_shape();
        let shape = &shape[..layout.dims().len()];
        // Arrays that are not in standard order are not ours.
        let standard = with_array!(Feature, &*self, array => array.is_standard_layout());
        if self.dtype() != layout.dtype || self.shape() != shape || !standard {
            // The old one goes before the new one comes.
            *self = Feature::zeros(layout.dtype, &[0]);
            *self = Feature::zeros(layout.dtype, shape);
        }
    }

    /// Fills it with zeros.
    pub(crate) fn clear(&mut self) {
        with_array!(Feature, self, array => array.fill(Element::from_f32(0.0)));
    }

    pub(crate) fn zeros(dtype: Dtype, shape: &[usize]) -> Feature {
        let dim = IxDyn(shape);
        match dtype {
            Dtype::F32 => Feature::F32(ArrayD::zeros(dim)),
            Dtype::F16 => Feature::F16(ArrayD::from_elem(dim, f16::ZERO)),
            Dtype::Bf16 => Feature::Bf16(ArrayD::from_elem(dim, bf16::ZERO)),
            Dtype::I8 => Feature::I8(ArrayD::zeros(dim)),
            Dtype::U8 => Feature::U8(ArrayD::zeros(dim)),
        }
    }
}
