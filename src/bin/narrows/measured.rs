//! Measurement files as commands read them, and codings by name.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use narrows::Conditions;
use narrows::exit::Power;
use narrows::split::{Coding, Cut, Measurements};

use crate::files;

/// Reads a measurement file.
pub fn load(path: &Path) -> Result<Measurements> {
    let bytes = files::read_bytes(path)?;
    let measurements = Measurements::from_json(&bytes).with_context(|| format!("measurements {}", path.display()))?;
    if measurements.images() == 0 {
        bail!("measurements {}: no images; `narrows eval --measurements FILE` writes them", path.display());
    }
    Ok(measurements)
}

/// Two files of one network: same exits, cuts and codings, in the same order, and no image in both.
pub fn check_pair(fit: &Measurements, test: &Measurements) -> Result<()> {
    let exits = |m: &Measurements| m.exits.iter().map(|exit| exit.name.clone()).collect::<Vec<_>>();
    let codings = |m: &Measurements| all(m).into_iter().map(|way| way.name()).collect::<Vec<_>>();
    if exits(fit) != exits(test) || codings(fit) != codings(test) || fit.classes != test.classes {
        bail!("the two measurement files differ in exits, cuts or codecs: measure both with the same command");
    }
    let key = |m: &Measurements, image: usize| -> Vec<u32> {
        let logits = m.exits.iter().flat_map(|exit| &exit.logits[image]).map(|x| x.to_bits());
        logits.chain([m.labels[image], m.confidence[image].to_bits()]).collect()
    };
    let known: HashSet<Vec<u32>> = (0..fit.images()).map(|image| key(fit, image)).collect();
    let both = (0..test.images()).filter(|&image| known.contains(&key(test, image))).count();
    if both > 0 {
        bail!("{both} images are in both measurement files: fit on other images than you measure on");
    }
    Ok(())
}

/// A way to send: the input or the feature at a cut, in a coding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way<'a> {
    /// The number of the cut, and the cut; `None` if the input is sent.
    pub cut: Option<(usize, &'a Cut)>,
    /// The number of the coding there, and the coding.
    pub coding: (usize, &'a Coding),
}

impl<'a> Way<'a> {
    /// `narrows x1 @ cut` or `JPEG q75`.
    pub fn name(&self) -> String {
        let coding = self.coding.1;
        let name = format!("{} {}", coding.codec, coding.setting).trim_end().to_string();
        self.cut.map_or(name.clone(), |(_, cut)| format!("{name} @ {}", cut.name))
    }

    /// Mean seconds to the answer, exits left out.
    pub fn delay(&self, measurements: &Measurements, conditions: &Conditions) -> f64 {
        let route = measurements.direct_route(self.cut.map(|(_, cut)| cut), Some(self.coding.1));
        route.at_rest(conditions, &Power::default()).delay
    }
}

/// All ways to send.
pub fn all(measurements: &Measurements) -> Vec<Way<'_>> {
    let inputs = measurements.inputs.iter().enumerate().map(|coding| Way { cut: None, coding });
    let cuts = measurements.cuts.iter().enumerate();
    let features =
        cuts.flat_map(|cut| cut.1.codings.iter().enumerate().map(move |coding| Way { cut: Some(cut), coding }));
    inputs.chain(features).collect()
}

/// The way of this name; the name of the cut may be left out where it is clear. The error lists all.
pub fn named<'a>(measurements: &'a Measurements, name: &str) -> Result<Way<'a>> {
    let ways = all(measurements);
    let short = |way: &Way<'_>| format!("{} {}", way.coding.1.codec, way.coding.1.setting).trim_end().to_string();
    let exact: Vec<&Way<'_>> = ways.iter().filter(|way| way.name() == name).collect();
    let near: Vec<&Way<'_>> = ways.iter().filter(|way| short(way) == name).collect();
    match (&exact[..], &near[..]) {
        ([way], _) | ([], [way]) => Ok(**way),
        _ => {
            let names: Vec<String> = ways.iter().map(Way::name).collect();
            let what = if near.len() > 1 { "is measured at several cuts" } else { "is not measured" };
            bail!("`{name}` {what}; there are: {}", names.join(", "))
        }
    }
}

/// The fastest way at which the accuracy is reached, the most accurate one if none reaches it.
pub fn fastest<'a>(
    measurements: &Measurements,
    ways: impl IntoIterator<Item = Way<'a>>,
    conditions: &Conditions,
    accuracy: f64,
) -> Option<Way<'a>> {
    let right = |way: &Way<'_>| way.coding.1.share_of(&measurements.labels);
    let ways: Vec<Way<'a>> = ways.into_iter().collect();
    let delay = |way: &Way<'_>| way.delay(measurements, conditions);
    let enough = ways.iter().filter(|way| right(way) >= accuracy);
    let fast = enough.min_by(|a, b| delay(a).total_cmp(&delay(b)));
    fast.or_else(|| ways.iter().max_by(|a, b| right(a).total_cmp(&right(b)))).copied()
}
