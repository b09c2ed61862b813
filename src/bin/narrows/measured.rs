//! Measurement files as commands read them, and actions by name.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use narrows::Conditions;
use narrows::split::{Action, Measurements};

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
    let actions = |m: &Measurements| m.actions().map(|action| m.name(action)).collect::<Vec<_>>();
    if exits(fit) != exits(test) || actions(fit) != actions(test) || fit.classes != test.classes {
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

/// The action of this name; the name of the cut may be left out where it is clear. The error lists all.
pub fn named(measured: &Measurements, name: &str) -> Result<Action> {
    let matching = |of: &dyn Fn(Action) -> bool| measured.actions().filter(|&action| of(action)).collect::<Vec<_>>();
    let exact = matching(&|action| measured.name(action) == name);
    let short = |action| measured.name(action).split(" @ ").next().unwrap_or_default().to_string();
    let near = matching(&|action| short(action) == name);
    match (&exact[..], &near[..]) {
        ([action], _) | ([], [action]) => Ok(*action),
        _ => {
            let names: Vec<String> = measured.actions().map(|action| measured.name(action)).collect();
            let what = if near.len() > 1 { "is measured at several cuts" } else { "is not measured" };
            bail!("`{name}` {what}; there are: {}", names.join(", "))
        }
    }
}

/// Seconds that an action takes on the average image, exits left out.
pub fn delay(measured: &Measurements, action: Action, conditions: &Conditions) -> f64 {
    let bytes = measured.coding(action).map_or(0.0, |coding| coding.mean_bytes());
    measured.work(action).map_or(f64::INFINITY, |work| work.delay(bytes, conditions))
}

/// The fastest action at which the accuracy is reached, as measured; else the most accurate one.
pub fn fastest(
    measured: &Measurements,
    actions: impl Iterator<Item = Action>,
    conditions: &Conditions,
    accuracy: f64,
) -> Option<Action> {
    let actions: Vec<Action> = actions.collect();
    let seconds = |action: &Action| delay(measured, *action, conditions);
    let right = |action: &Action| measured.accuracy(*action);
    let enough = actions.iter().filter(|action| right(action) >= accuracy);
    let most = || actions.iter().max_by(|a, b| right(a).total_cmp(&right(b)));
    enough.min_by(|a, b| seconds(a).total_cmp(&seconds(b))).or_else(most).copied()
}
