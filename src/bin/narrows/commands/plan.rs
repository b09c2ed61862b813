//! `narrows plan`: where to cut, and what to send.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use narrows::split::{Action, Measurements};

use crate::conditions::{ConditionArgs, PowerArgs};
use crate::fitting::progress_bar;
use crate::measured;
use crate::measurements::join;
use crate::measuring::{Baseline, MeasureArgs, Setup};
use crate::model::{Cut, Network};
use crate::output::{self, note, print, print_json, write};
use crate::report::{PlanReport, delay_csv};
use crate::study::Study;
use crate::wanted::GoalArgs;

const EXAMPLES: &str = "\
Examples:
  narrows plan --measurements net.json --bandwidth 1M --round-trip 40ms --device-speed 0.2
  # the most answers that are right and in time
  narrows plan --measurements net.json --deadline 150ms
  # the least energy of the device
  narrows plan --measurements net.json --agreement 0.97 --goal energy
  # pick cuts, fit, measure, and keep plan/measurements.json
  narrows plan --model net.onnx --images photos --labels labels.csv --fit-rows 1-400 \\
      --rows 401-1000 --normalize imagenet --out plan

The network can run on the device alone, on the server with the input compressed, or cut in two.
The delay of each way is the work of both sides, the bytes over the bandwidth, a round trip and
the wait at the server. Bytes and answers are measured image by image; times are medians on one
thread, scaled by the speeds.";

/// Find the best cut and coding for given conditions; draw delay over bandwidth.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// File written by `eval --measurements` or `plan --out`; may be given several times, for cuts of one network
    /// measured on the same images.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "model",
        conflicts_with = "model",
        help_heading = "Network"
    )]
    measurements: Vec<PathBuf>,
    /// The network (.onnx), if it is to be measured first.
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    model: Option<PathBuf>,
    /// Tensor at which to cut the network; may be given several times [default: the smallest features at several depths].
    #[arg(long, value_name = "NAME", requires = "model", help_heading = "Network")]
    cut: Vec<String>,
    /// Number of cuts to pick if none is named.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64),
        help_heading = "Network")]
    cuts: u16,
    #[command(flatten)]
    measuring: MeasureArgs,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten, next_help_heading = "Wanted")]
    goal: GoalArgs,
    /// Required share of answers equal to the uncut network's, in place of accuracy, for example 0.97.
    #[arg(long, value_name = "SHARE", conflicts_with = "loss", help_heading = "Wanted")]
    agreement: Option<f64>,
    #[command(flatten, next_help_heading = "Wanted")]
    power: PowerArgs,
    /// Folder for plan.html, plan.csv, plan.json, curves.csv (delay over bandwidth), measurements.json and fitted profiles.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Print the plan as JSON in place of the tables.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Plans.
pub fn run(args: &Args) -> Result<()> {
    args.out.as_deref().map_or(Ok(()), output::check_folder)?;
    if let Some(bad) = args.agreement.filter(|share| !(0.0..=1.0).contains(share)) {
        bail!("--agreement takes a share from 0 to 1, not {bad}");
    }
    let flag = if args.cut.is_empty() { args.measuring.given() } else { Some("--cut") };
    if let (None, Some(flag)) = (&args.model, flag) {
        bail!("{flag} has no effect with --measurements, which say what was measured: use it with --model");
    }
    let power = args.power.power()?;
    let (measured, mut about) = match &args.model {
        Some(model) => measure(args, model)?,
        None => (read(&args.measurements)?, Vec::new()),
    };
    if let Some(folder) = &args.out {
        output::make_folder(folder)?;
        write(&folder.join("measurements.json"), &measured.to_json()?)?;
    }
    let unlabelled = measured.labels == measured.answers;
    let agreement = args.agreement.is_some() || unlabelled;
    if unlabelled && args.agreement.is_none() {
        about.push("The labels are the uncut network's own answers, as they are where none were given: accuracy is agreement with it.".into());
    }
    let measured = Arc::new(if agreement { measured.by_agreement() } else { measured });
    let wanted = args.agreement.unwrap_or(args.goal.accuracy(measured.accuracy(Action::Local)));
    let goal = args.goal.wanted(args.conditions.deadline.is_some()).goal(wanted);
    let study = Study::new(measured, args.conditions.conditions(), goal, power, wanted);
    let report = PlanReport { study, agreement, about };
    if let Some(folder) = &args.out {
        write(&folder.join("plan.csv"), report.csv().as_bytes())?;
        write(&folder.join("curves.csv"), delay_csv(&report.study).as_bytes())?;
        write(&folder.join("plan.json"), serde_json::to_string_pretty(&report.json())?.as_bytes())?;
        write(&folder.join("plan.html"), report.html().as_bytes())?;
    }
    if args.json {
        print_json(&report.json())?
    } else {
        print(report.text())?
    }
    if let Some(warning) = report.warning() {
        note(format!("warning: {warning}"));
    }
    if let Some(folder) = &args.out {
        note(format!("plan: {}", folder.join("plan.html").display()));
    }
    Ok(())
}

/// Runs the network over the images, and says of what the measurements are.
fn measure(args: &Args, model: &Path) -> Result<(Measurements, Vec<String>)> {
    let measuring = &args.measuring;
    if !measuring.profile.is_empty() && measuring.profile.len() != args.cut.len() {
        bail!("{} cuts and {} profiles: give one profile for each --cut", args.cut.len(), measuring.profile.len());
    }
    let setup = Setup::open(measuring, model, args.out.as_deref(), |network, size| {
        if args.cut.is_empty() {
            return pick(network, size, usize::from(args.cuts));
        }
        args.cut.iter().map(|name| network.cut(name, size)).collect()
    })?;
    if setup.profiles.iter().all(Option::is_none) {
        note(
            "note: narrows runs without profiles, in its mode for any feature; --fit-rows fits some, many times smaller",
        );
    }
    let job = setup.job(measuring, &[Baseline::Jpeg, Baseline::Webp, Baseline::Png]);
    let bar = progress_bar();
    bar.set_message("measuring");
    let measured = job.run(&bar)?;
    Ok((setup.measurements(measuring, &job, &measured)?, vec![setup.about(measuring)]))
}

/// The smallest feature map of each of `count` parts of the network's depth, the last of several that are equally small:
/// what comes later has been through more of the network and takes fewer bytes.
fn pick(network: &Network, size: (usize, usize), count: usize) -> Result<Vec<Cut>> {
    let maps: Vec<Cut> = network.cuts(size)?.into_iter().filter(is_map).collect();
    if maps.is_empty() {
        bail!("the network has no feature map at which it could be cut; `narrows inspect` lists its tensors");
    }
    let parts = count.min(maps.len());
    let part = |i: usize| &maps[i * maps.len() / parts..(i + 1) * maps.len() / parts];
    let smallest = |maps: &[Cut]| maps.iter().rev().min_by_key(|cut| cut.elements()).cloned();
    Ok((0..parts).filter_map(|i| smallest(part(i))).collect())
}

/// A map has channels and more than one position.
fn is_map(cut: &Cut) -> bool {
    cut.shape.len() >= 3 && cut.shape[2..].iter().product::<usize>() > 1
}

/// Reads files of measurements, and joins those of one network.
fn read(paths: &[PathBuf]) -> Result<Measurements> {
    let (first, rest) = paths.split_first().context("name a file of measurements with --measurements FILE")?;
    let mut all = measured::load(first)?;
    for path in rest {
        let other = measured::load(path)?;
        if (&all.model, &all.output) != (&other.model, &other.output) {
            bail!(
                "{} is of {}, output {}, and {} of {}, output {}: give files of one network and answer",
                first.display(),
                all.model,
                all.output,
                path.display(),
                other.model,
                other.output
            );
        }
        if (&all.labels, &all.answers) != (&other.labels, &other.answers) {
            bail!("{} and {} were measured on different images", first.display(), path.display());
        }
        if all.machine != other.machine {
            bail!(
                "times of {} are of {}, those of {} of {}",
                first.display(),
                all.machine,
                path.display(),
                other.machine
            );
        }
        all.whole = all.whole.min(other.whole);
        for coding in other.inputs {
            if !all.inputs.iter().any(|own| (&own.codec, &own.setting) == (&coding.codec, &coding.setting)) {
                all.inputs.push(coding);
            }
        }
        // What the first file has keeps its order, which is the network's; what is new is placed by its time.
        for cut in other.cuts {
            match all.cuts.iter().any(|own| own.name == cut.name) {
                true => join(&mut all.cuts, cut),
                false => place(&mut all.cuts, cut, |cut| cut.head),
            }
        }
        for exit in other.exits {
            if !all.exits.iter().any(|own| own.name == exit.name) {
                place(&mut all.exits, exit, |exit| exit.seconds - exit.extra);
            }
        }
    }
    Ok(all)
}

/// Puts something before the first of a list that takes longer; the others stay as they are.
fn place<T>(all: &mut Vec<T>, new: T, seconds: impl Fn(&T) -> f64) {
    let before = all.iter().position(|one| seconds(one) > seconds(&new)).unwrap_or(all.len());
    all.insert(before, new);
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn what_is_new_is_placed_and_the_rest_keeps_its_order() {
        let mut all = vec![1.0, 4.0, 3.9, 8.0];
        [0.5, 3.95, 9.0].into_iter().for_each(|new| place(&mut all, new, |one| *one));
        assert_eq!(all, [0.5, 1.0, 3.95, 4.0, 3.9, 8.0, 9.0]);
    }
}
