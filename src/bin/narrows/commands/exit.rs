//! `narrows exit`: a policy for early exits, and what it does beside simpler rules.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use narrows::Conditions;
use narrows::exit::{Outcome, Policy, Target, Weights};
use narrows::split::{Action, Measurements};
use serde_json::{Value, json};

use crate::conditions::{ConditionArgs, PowerArgs};
use crate::measured;
use crate::output::{self, note, print, print_json, write};
use crate::report::{align, wrap};
use crate::units::{bandwidth_text, seconds_text};

const EXAMPLES: &str = "\
Examples:
  narrows eval --model net.onnx --cut NAME --exit exit1 --exit exit2 --rows 1-2000 \\
      --measurements fit.json ...
  narrows eval --model net.onnx --cut NAME --exit exit1 --exit exit2 --rows 2001-3000 \\
      --measurements test.json ...
  narrows exit --fit-measurements fit.json --measurements test.json --out policy.json
  narrows exit ... --loss 1 --bandwidth 250k --round-trip 100ms --deadline 150ms
  narrows exit ... --target 0.9 --send \"narrows x1\" --weigh-energy 1

The policy answers at an exit when the expected gain in accuracy from continuing is not worth
its cost. It is fitted on one file of measurements and tested on another. Fit it on images that
the network was not trained on: on its training images, exits are overconfident.";

/// Fit a policy for early exits, and compare it with simpler rules.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Measurements to test the policy on (`narrows eval --exit NAME ... --measurements FILE`).
    #[arg(long, value_name = "FILE", help_heading = "Measurements")]
    measurements: PathBuf,
    /// Measurements of other images, to fit the policy to.
    #[arg(long, value_name = "FILE", help_heading = "Measurements")]
    fit_measurements: PathBuf,
    /// Coding that is sent if no exit answers, for example "narrows x1"; "local" continues on the device to the end of the
    /// network [default: the fastest coding of a cut that loses at most --loss; with --target, the coding of a cut whose policy
    /// reaches it at the least cost]. The losses of the coding and of the exits add up. --certainty is that of the policy for
    /// one coding: it does not cover the choice among codings.
    #[arg(long, value_name = "CODING", help_heading = "Policy")]
    send: Option<String>,
    /// Accuracy that exits may lose against never answering at one, in percentage points.
    #[arg(long, value_name = "POINTS", default_value_t = 0.5, conflicts_with = "target", help_heading = "Policy")]
    loss: f64,
    /// Accuracy to reach, 0 to 1, in place of --loss.
    #[arg(long, value_name = "SHARE", help_heading = "Policy")]
    target: Option<f64>,
    /// Certainty with which the target must hold on unseen images, 0.5 to 0.9999.
    #[arg(long, value_name = "P", default_value_t = 0.9, help_heading = "Policy")]
    certainty: f64,
    /// Cost of a second of delay.
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Policy")]
    weigh_delay: f64,
    /// Cost of a joule of the device's energy.
    #[arg(long, value_name = "X", default_value_t = 0.0, help_heading = "Policy")]
    weigh_energy: f64,
    /// Cost of a kilobyte sent.
    #[arg(long, value_name = "X", default_value_t = 0.0, help_heading = "Policy")]
    weigh_kilobyte: f64,
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten, next_help_heading = "Policy")]
    power: PowerArgs,
    /// File to write the policy to, for `narrows offload --exits`.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Print JSON in place of the tables.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Name of the rule that needs no server and no exits.
const WHOLE: &str = "whole network on the device";

/// One line of the table.
struct Row {
    name: String,
    policy: Policy,
    outcome: Outcome,
    /// Whether the target held on the images that it was fitted on, where it was fitted.
    met: Option<bool>,
}

impl Row {
    /// True if it is right as often as another at least, and sooner.
    fn beats(&self, other: &Row) -> bool {
        let (own, other) = (&self.outcome, &other.outcome);
        own.accuracy >= other.accuracy && own.mean.delay < other.mean.delay
    }
}

/// Fits and measures.
pub fn run(args: &Args) -> Result<()> {
    args.out.as_deref().map_or(Ok(()), output::check)?;
    let (fit, test) = (measured::load(&args.fit_measurements)?, measured::load(&args.measurements)?);
    if test.exits.is_empty() {
        bail!("{} has no exits: measure with `narrows eval --exit NAME`", args.measurements.display());
    }
    measured::check_pair(&fit, &test)?;
    let conditions = args.conditions.conditions();
    let weights = Weights {
        delay: args.weigh_delay,
        energy: args.weigh_energy,
        bytes: args.weigh_kilobyte / 1000.0,
        power: args.power.power()?,
    };
    let target = args.target.map_or(Target::loss(args.loss / 100.0), Target::accuracy).certainty(args.certainty);
    let action = chosen(args, &fit, weights, &conditions, target)?;
    let rows = rows(&fit, &test, action, weights, &conditions, target)?;
    let moved = moved(&rows[0].policy, &test, action, &conditions)?;
    if let Some(path) = &args.out {
        write(path, rows[0].policy.to_json().as_bytes())?;
    }
    let sent = fit.name(action);
    if args.json {
        return print_json(&report(&rows, &moved, &test, &sent, &conditions));
    }
    let target = match args.target {
        Some(share) => format!("accuracy {share}"),
        None => format!("at most {} points below always going on", args.loss),
    };
    print(text(&rows, &moved, &fit, &test, &sent, &target, args.certainty, &conditions).trim_end())?;
    if rows[0].met == Some(false) {
        let in_time = if conditions.deadline.is_finite() { " and in time" } else { "" };
        let what = match rows[0].policy.price() {
            Some(_) => format!("answers at an exit only where that is right{in_time} as often as what comes after it"),
            None => "never answers at an exit".into(),
        };
        note(format!("warning: the target does not hold on the images of the fit: the policy {what}"));
    }
    if let Some(better) = rows.iter().find(|row| row.name == WHOLE).filter(|row| row.beats(&rows[0])) {
        let [own, policy] = [&better.outcome, &rows[0].outcome]
            .map(|outcome| format!("accuracy {:.4} in {}", outcome.accuracy, seconds_text(outcome.mean.delay)));
        note(format!("note: under these conditions the {WHOLE} is better, {own}; the policy has {policy}"));
    }
    if let Some(path) = &args.out {
        note(format!("policy: {}", path.display()));
    }
    Ok(())
}

/// What is done where no exit answers.
fn chosen(
    args: &Args,
    fit: &Measurements,
    weights: Weights,
    conditions: &Conditions,
    target: Target,
) -> Result<Action> {
    if let Some(name) = &args.send {
        return measured::named(fit, name);
    }
    // An accuracy is that of coding and exits together: which coding allows for the cheapest policy, its fit says.
    if args.target.is_some() {
        let mut best: Option<(f64, Action)> = None;
        for action in fit.actions().filter(|action| matches!(action, Action::Split { .. })) {
            let (samples, route) = fit.exit_samples(action).zip(fit.exit_route(action)).context("no such action")?;
            let policy = Policy::fit(&samples, route, weights, conditions, target)?;
            let cost = policy.evaluate(&samples, conditions)?.cost;
            if policy.evidence().met && best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, action));
            }
        }
        if let Some((_, action)) = best {
            return Ok(action);
        }
    }
    let accuracy = args.target.unwrap_or(fit.accuracy(Action::Local) - args.loss / 100.0);
    let cuts = fit.actions().filter(|action| matches!(action, Action::Split { .. }));
    measured::fastest(fit, cuts, conditions, accuracy)
        .context("no cut was measured: name what is sent with --send, or measure with `eval --cut NAME`")
}

/// The policy, then what it is compared with, all measured on the test images.
fn rows(
    fit: &Measurements,
    test: &Measurements,
    action: Action,
    weights: Weights,
    conditions: &Conditions,
    target: Target,
) -> Result<Vec<Row>> {
    let none = "no such action";
    let (samples, route) = fit.exit_samples(action).zip(fit.exit_route(action)).context(none)?;
    let seen = test.exit_samples(action).context(none)?;
    let whole = test.exit_samples(Action::Local).context(none)?;
    let direct = |action| fit.direct_route(action).context(none);
    let fits = [
        ("priced (the policy)", Policy::fit(&samples, route.clone(), weights, conditions, target)?),
        ("one threshold", Policy::single_threshold(&samples, route.clone(), weights, conditions, target)?),
        ("max probability", Policy::max_probability(&samples, route.clone(), weights, conditions, target)?),
        ("entropy (BranchyNet)", Policy::entropy(&samples, route.clone(), weights, conditions, target)?),
    ];
    let mut rows = Vec::new();
    for (name, policy) in fits {
        let outcome = policy.evaluate(&seen, conditions)?;
        rows.push(Row { name: name.into(), met: Some(policy.evidence().met), policy, outcome });
    }
    let mut plain = |name: String, policy: Policy, samples| -> Result<()> {
        let policy = policy.weighing(weights)?;
        let outcome = policy.evaluate(samples, conditions)?;
        rows.push(Row { name, policy, outcome, met: None });
        Ok(())
    };
    if action != Action::Local {
        plain("always offload".into(), Policy::never(fit.classes, direct(action)?)?, &seen)?;
    }
    let local = Policy::never(fit.classes, direct(Action::Local)?)?;
    plain(WHOLE.into(), local, &whole)?;
    for (i, exit) in fit.exits.iter().enumerate() {
        // Earlier exits need not be computed then.
        let mut route = route.clone();
        route.exits[..i].fill(narrows::exit::Stage { seconds: 0.0, extra: 0.0 });
        plain(format!("always {}", exit.name), Policy::always(i, fit.classes, route)?, &seen)?;
    }
    Ok(rows)
}

/// What the policy does at other bandwidths than it was fitted for.
fn moved(policy: &Policy, test: &Measurements, action: Action, conditions: &Conditions) -> Result<Vec<(f64, Outcome)>> {
    if action == Action::Local {
        return Ok(Vec::new());
    }
    let samples = test.exit_samples(action).context("no such action")?;
    let at = |factor: f64| {
        let bandwidth = conditions.bandwidth * factor;
        Ok((bandwidth, policy.evaluate(&samples, &Conditions { bandwidth, ..*conditions })?))
    };
    [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0].into_iter().map(at).collect()
}

/// The columns of every table after the first.
fn head(test: &Measurements) -> Vec<String> {
    let exits = test.exits.iter().map(|exit| format!("at {}", exit.name));
    let first = ["accuracy".to_string(), "at an exit".into()];
    first.into_iter().chain(exits).chain(["bytes", "ms", "mJ", "in time"].map(str::to_string)).collect()
}

fn cells(outcome: &Outcome) -> Vec<String> {
    let share = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut cells = vec![format!("{:.4}", outcome.accuracy), share(outcome.local())];
    cells.extend(outcome.answered.iter().copied().map(share));
    let mean = &outcome.mean;
    cells.extend([
        format!("{:.1}", mean.bytes),
        format!("{:.2}", 1e3 * mean.delay),
        format!("{:.2}", 1e3 * mean.energy),
    ]);
    cells.push(share(outcome.in_time));
    cells
}

#[allow(clippy::too_many_arguments)]
fn text(
    rows: &[Row],
    moved: &[(f64, Outcome)],
    fit: &Measurements,
    test: &Measurements,
    sent: &str,
    target: &str,
    certainty: f64,
    conditions: &Conditions,
) -> String {
    let policy = &rows[0].policy;
    let temperatures: Vec<String> =
        (0..policy.exits()).map(|exit| format!("{:.2}", policy.temperature(exit))).collect();
    let deadline = match conditions.deadline {
        deadline if deadline.is_finite() => format!("deadline {}", seconds_text(deadline)),
        _ => "no deadline".into(),
    };
    let about = format!(
        "{}: fitted on {} images, measured on {} others. Target: {target}, certainty {certainty}. Where no exit answers: \
         {sent}. {}, {} round trip, {deadline}, device speed {}, server speed {}. Temperatures {}.",
        fit.model,
        fit.images(),
        test.images(),
        bandwidth_text(conditions.bandwidth),
        seconds_text(conditions.round_trip),
        conditions.device_speed,
        conditions.server_speed,
        temperatures.join(", "),
    );
    let first = |name: &str| std::iter::once(name.to_string()).chain(head(test)).collect::<Vec<_>>();
    let mut table = vec![first("rule")];
    table.extend(rows.iter().map(|row| std::iter::once(row.name.clone()).chain(cells(&row.outcome)).collect()));
    let mut text = format!("{}\n\n{}", wrap(&about), align(&table, 1));
    if !moved.is_empty() {
        let mut table = vec![first("the policy at")];
        let row = |(bandwidth, outcome): &(f64, Outcome)| {
            std::iter::once(bandwidth_text(*bandwidth)).chain(cells(outcome)).collect()
        };
        table.extend(moved.iter().map(row));
        text += &format!("\n{}", align(&table, 1));
    }
    text
}

fn report(rows: &[Row], moved: &[(f64, Outcome)], test: &Measurements, sent: &str, conditions: &Conditions) -> Value {
    let outcome = |outcome: &Outcome| {
        json!({
            "accuracy": outcome.accuracy,
            // Where nothing is sent, the end of the network is on the device too.
            "on_device": if outcome.mean.bytes > 0.0 { outcome.local() } else { 1.0 },
            "at_exits": outcome.answered,
            "bytes": outcome.mean.bytes,
            "delay_s": outcome.mean.delay,
            "energy_j": outcome.mean.energy,
            "cost": outcome.cost,
            "in_time": outcome.in_time,
            "right_in_time": outcome.right_in_time,
        })
    };
    let row = |row: &Row| json!({ "rule": row.name, "target_met": row.met, "outcome": outcome(&row.outcome) });
    let policy = &rows[0].policy;
    json!({
        "model": test.model,
        "images": test.images(),
        "exits": test.exits.iter().map(|exit| &exit.name).collect::<Vec<_>>(),
        "sent": sent,
        "bandwidth": conditions.bandwidth,
        "round_trip_s": conditions.round_trip,
        "deadline_s": conditions.deadline.is_finite().then_some(conditions.deadline),
        "temperatures": (0..policy.exits()).map(|exit| policy.temperature(exit)).collect::<Vec<_>>(),
        "price": policy.price(),
        "rules": rows.iter().map(row).collect::<Vec<_>>(),
        "at_bandwidths": moved.iter().map(|(bits, seen)| json!({ "bandwidth": bits, "outcome": outcome(seen) })).collect::<Vec<_>>(),
    })
}
