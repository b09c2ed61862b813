//! How a feature's axes become planes of rows and columns with channels last.

use std::ops::Range;

use crate::container::Layout;
use crate::kernels::Kernels;
use crate::kernels::portable::{power_of_two, to_int};
use crate::kernels::simd::{dispatch, feature_to_int, int_to_feature};
use crate::tensor::{Element, FeatureView, MAX_RANK, ViewData, with_array};
use ndarray::ArrayViewD;

/// Positions whose channels are brought together, or apart, at a time.
const TILE: usize = 16;

/// A feature as planes x height x width x channels. The last axis that is neither channels nor batch
/// is the width, the one before it the height, all others (batch first) are folded into planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub planes: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Items of the batch axis (1 without one).
    pub items: usize,
    /// Axes in the order planes..., height, width, channels.
    order: [usize; MAX_RANK],
    rank: usize,
}

impl Grid {
    pub fn new(layout: &Layout) -> Grid {
        let dims = layout.dims();
        let size = |axis: usize| dims[axis] as usize;
        let mut order = [0; MAX_RANK];
        let mut count = 0;
        let batch = layout.axes.batch;
        let positions = (0..dims.len()).filter(|&axis| axis != layout.axes.channels && Some(axis) != batch);
        for axis in batch.into_iter().chain(positions) {
            order[count] = axis;
            count += 1;
        }
        order[count] = layout.axes.channels;
        let first = usize::from(batch.is_some());
        let width = if count > first { size(order[count - 1]) } else { 1 };
        let height = if count > first + 1 { size(order[count - 2]) } else { 1 };
        let planes = order[..count.saturating_sub(2).max(first)].iter().map(|&axis| size(axis)).product();
        Grid {
            planes,
            height,
            width,
            channels: size(layout.axes.channels),
            items: batch.map_or(1, size),
            order,
            rank: dims.len(),
        }
    }

    /// The same positions with one channel each.
    pub fn single_channel(self) -> Grid {
        Grid { channels: 1, ..self }
    }

    /// Planes of another size, for what a network makes of these.
    pub fn with_planes(self, (height, width): (usize, usize), channels: usize) -> Grid {
        Grid { height, width, channels, ..self }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.planes * self.plane_len()
    }

    /// Height and width of a plane.
    pub fn plane(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Number of elements of a plane.
    pub fn plane_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Strides of (the axes of planes, height, width, channels) in a row-major tensor.
    fn strides(&self, dims: &[usize]) -> ([usize; MAX_RANK], usize) {
        let mut row_major = [1; MAX_RANK];
        for axis in (0..dims.len().saturating_sub(1)).rev() {
            row_major[axis] = row_major[axis + 1] * dims[axis + 1];
        }
        let mut strides = [0; MAX_RANK];
        for (stride, &axis) in strides.iter_mut().zip(&self.order[..self.rank]) {
            *stride = row_major[axis];
        }
        (strides, self.rank)
    }

    /// Calls `visit(offset of channel 0 in a row-major tensor, position)` for every position of a range, in raster order;
    /// returns the stride of the channels.
    #[inline(always)]
    fn positions(&self, dims: &[usize], range: Range<usize>, mut visit: impl FnMut(usize, usize)) -> usize {
        let (strides, rank) = self.strides(dims);
        let axes = rank - 1;
        let (mut index, mut offset) = self.place(dims, range.start);
        for position in range {
            visit(offset, position);
            for axis in (0..axes).rev() {
                index[axis] += 1;
                offset += strides[axis];
                if index[axis] < dims[self.order[axis]] {
                    break;
                }
                offset -= strides[axis] * index[axis];
                index[axis] = 0;
            }
        }
        strides[axes]
    }

    /// Where a position is along each axis, and its offset in a row-major tensor.
    fn place(&self, dims: &[usize], mut position: usize) -> ([usize; MAX_RANK], usize) {
        let (strides, rank) = self.strides(dims);
        let (mut index, mut offset) = ([0; MAX_RANK], 0);
        for axis in (0..rank - 1).rev() {
            let size = dims[self.order[axis]].max(1);
            index[axis] = position % size;
            position /= size;
            offset += strides[axis] * index[axis];
        }
        (index, offset)
    }

    /// All positions, or none if they have no channels.
    pub fn filled(&self) -> Range<usize> {
        0..if self.channels == 0 { 0 } else { self.planes * self.height * self.width }
    }

    /// Copies a view into `out`, channels last, through `convert`.
    pub fn gather<T: Element, U>(&self, view: &ArrayViewD<'_, T>, out: &mut [U], convert: impl Fn(T) -> U) {
        if let Some(slice) = view.as_slice() {
            let dims = view.shape();
            let (strides, rank) = self.strides(dims);
            let step = strides[rank - 1];
            let channels = self.channels;
            self.tiles(dims, |offset, position, length| {
                let rows = &mut out[position * channels..][..length * channels];
                for channel in 0..channels {
                    let values = &slice[offset + channel * step..][..length];
                    for (row, &value) in rows.chunks_exact_mut(channels).zip(values) {
                        row[channel] = convert(value);
                    }
                }
            });
            return;
        }
        let mut permuted = view.view();
        // Bring the axes into order one swap at a time: no list of axes is allocated.
        let mut at = [0; MAX_RANK];
        for (axis, slot) in at.iter_mut().enumerate() {
            *slot = axis;
        }
        for target in 0..self.rank {
            let source = (target..self.rank).find(|&i| at[i] == self.order[target]).unwrap_or(target);
            permuted.swap_axes(target, source);
            at.swap(target, source);
        }
        for (value, &x) in out.iter_mut().zip(permuted.iter()) {
            *value = convert(x);
        }
    }

    /// Length of the longest runs of positions that lie side by side, in positions, or 0.
    fn run(&self, strides: &[usize], axes: usize) -> usize {
        let mut run = 1;
        for (axis, size) in [(axes.wrapping_sub(1), self.width), (axes.wrapping_sub(2), self.height)] {
            // Axes that the grid does not have count as one position.
            if axis < axes && size > 1 && strides[axis] != run {
                break;
            }
            run *= size;
        }
        run
    }

    /// Calls `visit(offset, position, length)` for every few positions that lie side by side, channels apart: as many as
    /// keep what is read and written of them in a cache.
    fn tiles(&self, dims: &[usize], mut visit: impl FnMut(usize, usize, usize)) {
        let (strides, rank) = self.strides(dims);
        let run = self.run(&strides, rank - 1).max(1);
        self.positions(dims, self.filled(), |offset, position| {
            if position.is_multiple_of(run) {
                for first in (0..run).step_by(TILE) {
                    visit(offset + first, position + first, TILE.min(run - first));
                }
            }
        });
    }

    /// As [`gather`](Self::gather), to integers. `tile` is scratch.
    pub fn gather_int<T: Element>(
        &self,
        view: &ArrayViewD<'_, T>,
        out: &mut [i16],
        scale: f32,
        tile: &mut Vec<i16>,
        kernels: Kernels,
    ) {
        let (Kernels::Simd { level, .. }, Some(slice)) = (kernels, view.as_slice()) else {
            return self.gather(view, out, |x| to_int(x.to_f32(), scale));
        };
        if out.is_empty() {
            return;
        }
        let (strides, rank) = self.strides(view.shape());
        let (channels, stride) = (self.channels, strides[rank - 1]);
        if stride == 1 && channels > 1 {
            let row = |offset: usize, out: &mut [i16]| {
                for (integer, &value) in out.iter_mut().zip(&slice[offset..]) {
                    *integer = to_int(value.to_f32(), scale);
                }
            };
            dispatch!(level, _simd => {
                self.positions(view.shape(), self.filled(), #[inline(always)] |offset, position| {
                    row(offset, &mut out[position * channels..][..channels]);
                });
            });
            return;
        }
        let run = self.run(&strides, rank - 1).max(1);
        self.positions(view.shape(), self.filled(), |offset, position| {
            if position.is_multiple_of(run) {
                let out = &mut out[position * channels..][..run * channels];
                let values = &slice[offset..];
                dispatch!(level, simd => feature_to_int(simd, values, stride, channels, scale, out, tile));
            }
        });
    }

    /// Copies channels-last values into a row-major tensor of this shape.
    pub fn scatter<T: Copy>(&self, values: &[T], dims: &[usize], out: &mut [T]) {
        self.scatter_with(values, dims, out, |value| value);
    }

    /// As [`scatter`](Self::scatter), through `convert`.
    pub fn scatter_with<T: Copy, U>(&self, values: &[T], dims: &[usize], out: &mut [U], convert: impl Fn(T) -> U) {
        let (strides, rank) = self.strides(dims);
        let (stride, channels) = (strides[rank - 1], self.channels);
        self.tiles(dims, |offset, position, length| {
            let rows = &values[position * channels..][..length * channels];
            for channel in 0..channels {
                let out = &mut out[offset + channel * stride..][..length];
                for (out, row) in out.iter_mut().zip(rows.chunks_exact(channels)) {
                    *out = convert(row[channel]);
                }
            }
        });
    }

    /// Converts channels-last values of a range of positions into a row-major tensor of this shape. `tile` is scratch.
    pub fn scatter_int<T: Element>(
        &self,
        values: &[i16],
        positions: Range<usize>,
        (dims, out): (&[usize], &mut [T]),
        scale: f32,
        tile: &mut Vec<i16>,
        kernels: Kernels,
    ) {
        let (strides, rank) = self.strides(dims);
        let (channels, stride, start) = (self.channels, strides[rank - 1], positions.start);
        if positions.is_empty() || channels == 0 {
            return;
        }
        let Kernels::Simd { level, .. } = kernels else {
            self.positions(dims, positions, |offset, position| {
                let from = &values[(position - start) * channels..][..channels];
                for (channel, &value) in from.iter().enumerate() {
                    out[offset + channel * stride] = T::from_f32(f32::from(value) * scale);
                }
            });
            return;
        };
        if stride == 1 && channels > 1 {
            dispatch!(level, _simd => {
                self.positions(dims, positions, #[inline(always)] |offset, position| {
                    let from = &values[(position - start) * channels..][..channels];
                    for (value, &integer) in out[offset..][..channels].iter_mut().zip(from) {
                        *value = T::from_f32(f32::from(integer) * scale);
                    }
                });
            });
            return;
        }
        let run = self.run(&strides, rank - 1).max(1);
        let mut position = start;
        while position < positions.end {
            let length = (run - position % run).min(positions.end - position);
            let from = &values[(position - start) * channels..][..length * channels];
            let out = &mut out[self.place(dims, position).1..];
            dispatch!(level, simd => int_to_feature(simd, from, channels, scale, out, stride, tile));
            position += length;
        }
    }
}

/// A feature's values times 2^exponent as integers, channels last. `tile` is scratch.
pub(crate) fn gather_int(
    view: &FeatureView<'_>,
    grid: &Grid,
    exponent: i32,
    values: &mut Vec<i16>,
    tile: &mut Vec<i16>,
    kernels: Kernels,
) {
    // Every value is written.
    values.resize(grid.len(), 0);
    let scale = power_of_two(exponent);
    with_array!(ViewData, view.data(), array => grid.gather_int(array, values, scale, tile, kernels));
}

/// A feature's values, channels last.
pub(crate) fn gather_f32(view: &FeatureView<'_>, grid: &Grid, values: &mut Vec<f32>) {
    values.clear();
    values.resize(grid.len(), 0.0);
    with_array!(ViewData, view.data(), array => grid.gather(array, values, |x| x.to_f32()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Axes, Dtype};
    use ndarray::{ArrayD, IxDyn};

    #[test]
    fn every_axis_order_comes_back() {
        let shape = [2, 3, 4, 5];
        let count = shape.iter().product::<usize>();
        let array = ArrayD::from_shape_vec(IxDyn(&shape), (0..count).map(|i| i as f32).collect()).unwrap();
        for channels in 0..4 {
            for batch in [None, Some(0), Some(1), Some(3)] {
                if batch == Some(channels) {
                    continue;
                }
                let layout = Layout::new(Dtype::F32, Axes { channels, batch }, &shape).unwrap();
                let grid = Grid::new(&layout);
                assert_eq!(grid.len(), count);
                let mut values = vec![0.0; count];
                grid.gather(&array.view(), &mut values, |x| x);
                let mut back = vec![0.0; count];
                let integers: Vec<i16> = values.iter().map(|&x| x as i16).collect();
                // In parts, as decoding does.
                let positions = count / grid.channels;
                for kernels in [Kernels::Portable, Kernels::best()] {
                    back.fill(0.0);
                    for start in (0..positions).step_by(5) {
                        let (part, tile) = (start..positions.min(start + 5), &mut Vec::new());
                        let from = &integers[part.start * grid.channels..part.end * grid.channels];
                        grid.scatter_int(from, part, (&shape, &mut back), 1.0, tile, kernels);
                    }
                    assert_eq!(back, array.as_slice().unwrap());
                }
                // A view in another memory order gives the same values.
                let mut reversed = ArrayD::zeros(IxDyn(&[5, 4, 3, 2]));
                reversed.assign(&array.t());
                let mut again = vec![0.0; count];
                grid.gather(&reversed.t(), &mut again, |x| x);
                assert_eq!(again, values);
            }
        }
    }

    #[test]
    fn ranks_from_one_to_eight_have_a_grid() {
        let grid = |shape: &[usize]| {
            let grid = Grid::new(&Layout::new(Dtype::U8, Axes::default_for(shape.len()), shape).unwrap());
            (grid.planes, grid.height, grid.width, grid.channels)
        };
        assert_eq!(grid(&[7]), (1, 1, 1, 7));
        assert_eq!(grid(&[5, 7]), (1, 1, 5, 7));
        assert_eq!(grid(&[7, 2, 3]), (1, 2, 3, 7));
        assert_eq!(grid(&[4, 7, 2, 3]), (4, 2, 3, 7));
        assert_eq!(grid(&[4, 7, 3]), (1, 7, 3, 4));
        assert_eq!(grid(&[2, 3, 4, 5, 6, 7, 8, 9]), (2 * 4 * 5 * 6 * 7, 8, 9, 3));
        assert_eq!(grid(&[0, 3, 2, 2]), (0, 2, 2, 3));
    }
}
