//! The symbols of a feature, for whoever checks another implementation.

use ndarray::ArrayD;

use crate::bottleneck::{Bottleneck, Planes};
use crate::container::Layout;
use crate::error::Result;
use crate::geometry::Grid;
use crate::kernels::Kernels;
use crate::limits::Limits;
use crate::plan::Plan;
use crate::profile::Profile;
use crate::quality::scale_index;
use crate::tensor::FeatureView;
use crate::transform::{self, Blocks, Quantized, TransformScratch};

impl Profile {
    /// The symbols of a feature at a step scale (as [`Quality::Scale`](crate::Quality::Scale)): `[planes, block rows, block columns, coder
    /// channels]`, 0 where a coder channel is silent. An encoder codes these symbols, but for what its rate decisions
    /// lower (none if the profile has no Lagrangian, or `rdo(false)`): for checking another implementation.
    ///
    /// # Errors
    /// `InvalidInput` if the feature does not fit the profile, or the scale is no positive number.
    pub fn symbols<'a>(&self, feature: impl Into<FeatureView<'a>>, scale: f32) -> Result<ArrayD<i32>> {
        let view = feature.into();
        view.checked()?;
        let layout = Layout::new(view.dtype(), view.axes(), view.shape())?;
        layout.elements()?;
        self.check_channels(&layout)?;
        let index = scale_index(scale)?;
        let feature = Grid::new(&layout);
        let planes = Planes { feature, latent: self.latent(&feature, &Limits::UNBOUNDED)? };
        let grid = planes.latent;
        let kernels = Kernels::best();
        let (mut bottleneck, mut values) = (Bottleneck::default(), Vec::new());
        bottleneck.take(&view, &planes, self, (&mut values, &mut Vec::new()), kernels);
        bottleneck.analyse(&planes, self, index, &mut values, kernels)?;
        let mut plan = Plan::default();
        plan.set(self, index);
        let blocks = Blocks::new(&grid, self.block());
        // Every symbol is written.
        let mut symbols = vec![0; blocks.count() * plan.active.len()];
        let sink = Quantized { plan: &plan, symbols: &mut symbols };
        transform::forward(self, &grid, 0..blocks.rows, &values, sink, &mut TransformScratch::default(), kernels);
        let channels = self.coder_channels();
        let mut all = ArrayD::zeros(vec![grid.planes, blocks.plane_rows, blocks.columns, channels]);
        if let Some(all) = all.as_slice_mut()
            && !plan.active.is_empty()
        {
            for (all, symbols) in all.chunks_exact_mut(channels).zip(symbols.chunks_exact(plan.active.len())) {
                for (&channel, &symbol) in plan.active.iter().zip(symbols) {
                    all[channel as usize] = symbol;
                }
            }
        }
        Ok(all)
    }
}
