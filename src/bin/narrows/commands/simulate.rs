//! `narrows simulate`: a fleet of devices and its servers on changing links.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use narrows::Conditions;
use narrows::exit::Target;
use narrows::simulate::{
    Adaptive, Arrivals, Generator, Link, Prices, Scenario, Steps, Strategy, Trace, load_from_csv, simulate,
};
use narrows::split::{Action, Measurements};

use crate::conditions::{ConditionArgs, PowerArgs};
use crate::output::{self, note, print, print_json, thousands, write};
use crate::report::FleetReport;
use crate::units::{self, bandwidth_text, seconds_text};
use crate::wanted::{GoalArgs, Wanted};
use crate::{files, measured};

const EXAMPLES: &str = "\
Examples:
  narrows simulate --measurements test.json --fit-measurements fit.json --deadline 150ms \\
      --device-speed 0.1
  narrows simulate ... --link lte --bandwidth 1M --devices 5000 --servers 8 --out report
  narrows simulate ... --trace drop.csv --same-time --strategy \"JPEG q75\" --strategy adaptive
  narrows simulate ... --load others.csv --rate 2 --seconds 60s

Every request is an image of --measurements, with its measured bytes, answers and times
(`narrows eval --exit NAME ... --measurements FILE`). Adaptive strategies plan, and answer at
exits, from the other images of --fit-measurements and from what each device has observed of
its own link.

A device knows of link and server only what replies told it. One that answers locally sends the
stream of an image now and then, to see whether link or server have improved: after a second,
then after twice as long each time nothing has changed.

Traces are CSV: `seconds,bits_per_second` or `seconds,bits_per_second,round_trip_seconds`, from
second 0; loads are `seconds,load`, the share of the servers' time that others take. Each line
holds until the next one. The last line says when the trace repeats, and has the values of the
first: `0,1000000`, `30,100000`, `45,1000000`, `80,1000000` is a tenth for 15 seconds of every
80. (A trace of `narrows shape` does not repeat: its last line holds for ever.)

Not modelled: what a radio draws after a transfer while it stays connected; of LoRa, that
devices share the channel, preamble and header of each packet of at most 255 bytes (some 20
symbols, the time of 12 to 25 bytes), receive windows, and duty cycles. The LoRa link is thus the
best that such a radio could do.";

/// A kind of link that is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Constant --bandwidth and --round-trip.
    Constant,
    /// Cellular: a Brownian motion of the rate (Winstein et al. 2013) with --bandwidth as its mean, down for an eighth of the
    /// time.
    Lte,
    /// Wireless LAN: --bandwidth at best, with bad periods and handovers.
    Wifi,
    /// LoRa at 500 kHz: 37.5 kbit/s down to 1.2 kbit/s, rates of its own and not --bandwidth. Not modelled: a channel that the
    /// fleet shares, headers, receive windows, duty cycles.
    Lora,
}

/// Simulate a fleet of devices and its servers on changing links.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Measurements of the images that are requested.
    #[arg(long, value_name = "FILE", help_heading = "Measurements")]
    measurements: PathBuf,
    /// Measurements of other images, for adaptive strategies to plan with.
    #[arg(long, value_name = "FILE", help_heading = "Measurements")]
    fit_measurements: Option<PathBuf>,
    /// What devices do; may be given several times. A measured coding ("JPEG q75"); local; adaptive, which plans for
    /// --goal, or adaptive-delay, adaptive-energy, adaptive-accuracy; an adaptive one with +fallback, which gives the last
    /// exit's answer at the deadline [default: local, the fastest JPEG, WebP, other codec of a cut and narrows that lose at
    /// most --loss, adaptive and adaptive+fallback].
    #[arg(long, value_name = "NAME", help_heading = "Strategies")]
    strategy: Vec<String>,
    #[command(flatten, next_help_heading = "Strategies")]
    goal: GoalArgs,
    /// Number of devices.
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = "Fleet")]
    devices: usize,
    /// Requests per second of each device.
    #[arg(long, value_name = "X", default_value_t = 0.5, help_heading = "Fleet")]
    rate: f64,
    /// Make requests at regular times in place of random ones.
    #[arg(long, help_heading = "Fleet")]
    periodic: bool,
    /// Number of servers; requests are distributed round-robin.
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "Fleet")]
    servers: usize,
    /// Requests that a server runs at the same time, each on one core.
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Fleet")]
    workers: usize,
    /// Simulated time during which requests are made.
    #[arg(long, value_name = "TIME", value_parser = units::seconds, default_value = "600s", help_heading = "Fleet")]
    seconds: f64,
    /// Time at the start that is not counted.
    #[arg(long, value_name = "TIME", value_parser = units::seconds, default_value = "10s", help_heading = "Fleet")]
    warm_up: f64,
    /// Kind of link.
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Kind::Constant, help_heading = "Link")]
    link: Kind,
    /// Trace of the link in place of a kind and --bandwidth (CSV); its round trips, if it has some, in place of --round-trip.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["link", "bandwidth"], help_heading = "Link")]
    trace: Option<PathBuf>,
    /// Start all devices at the same point of the trace, in place of each at its own.
    #[arg(long, requires = "trace", help_heading = "Link")]
    same_time: bool,
    /// Load of the servers by others (CSV).
    #[arg(long, value_name = "FILE", help_heading = "Link")]
    load: Option<PathBuf>,
    /// Link that does not change, or around which a kind is drawn; what devices assume at first; deadline and speeds.
    #[command(flatten)]
    conditions: ConditionArgs,
    #[command(flatten, next_help_heading = "Costs")]
    power: PowerArgs,
    /// Price of a server per hour. Reports give the cost of all servers, and of the share of them that was used.
    #[arg(long, value_name = "X", default_value_t = 0.2, help_heading = "Costs")]
    price_server_hour: f64,
    /// Price per gigabyte sent.
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Costs")]
    price_gigabyte: f64,
    /// Random seed.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Fleet")]
    seed: u64,
    /// Folder for simulation.csv, simulation.json and simulation.html.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Print JSON in place of the table.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Simulates.
pub fn run(args: &Args) -> Result<()> {
    args.out.as_deref().map_or(Ok(()), output::check_folder)?;
    let test = measured::load(&args.measurements)?;
    let fit = match &args.fit_measurements {
        Some(path) => {
            let fit = measured::load(path)?;
            measured::check_pair(&fit, &test)?;
            Some(Arc::new(fit))
        }
        None => None,
    };
    let scenario = scenario(args)?;
    let strategies = strategies(args, &test, fit.as_ref(), &scenario)?;
    let mut outcomes = Vec::new();
    for (name, strategy) in strategies {
        outcomes.push((name, simulate(&test, &scenario, &strategy)?));
    }
    let link = match (&args.trace, args.link.to_possible_value()) {
        (Some(path), _) => format!("trace {}", file_name(path)),
        (None, kind) => kind.map_or(String::new(), |kind| kind.get_name().to_string()),
    };
    let about = about(args, &test, &scenario);
    let report = FleetReport { model: test.model.clone(), about, link, scenario, outcomes };
    if let Some(folder) = &args.out {
        output::make_folder(folder)?;
        write(&folder.join("simulation.csv"), report.csv().as_bytes())?;
        write(&folder.join("simulation.json"), serde_json::to_string_pretty(&report.json())?.as_bytes())?;
        write(&folder.join("simulation.html"), report.html().as_bytes())?;
    }
    if args.json {
        print_json(&report.json())?
    } else {
        print(report.text())?
    }
    if let Some(folder) = &args.out {
        note(format!("simulation: {}", folder.join("simulation.html").display()));
    }
    Ok(())
}

fn scenario(args: &Args) -> Result<Scenario> {
    let ConditionArgs { bandwidth, round_trip, .. } = args.conditions;
    if args.link == Kind::Lora && bandwidth != Conditions::default().bandwidth {
        bail!("--bandwidth says nothing of --link lora, whose rates are those of its spreading factors: leave it out");
    }
    let drawn = |generator| Link::drawn(generator, round_trip, args.seed);
    let link = match (&args.trace, args.link) {
        (Some(path), _) => {
            let trace = Trace::from_csv(&text(path)?, round_trip).with_context(|| path.display().to_string())?;
            if args.same_time { Link::same(trace) } else { Link::shifted(trace) }
        }
        (None, Kind::Constant) => Link::same(Trace::constant(bandwidth, round_trip)),
        (None, Kind::Lte) => drawn(Generator::Lte { bandwidth })?,
        (None, Kind::Wifi) => drawn(Generator::Wifi { bandwidth })?,
        (None, Kind::Lora) => drawn(Generator::Lora)?,
    };
    let load = match &args.load {
        Some(path) => load_from_csv(&text(path)?).with_context(|| path.display().to_string())?,
        None => Steps::constant(0.0),
    };
    Ok(Scenario {
        devices: args.devices,
        servers: args.servers,
        workers: args.workers,
        seconds: args.seconds,
        warm_up: args.warm_up,
        rate: args.rate,
        arrivals: if args.periodic { Arrivals::Periodic } else { Arrivals::Poisson },
        link,
        load,
        deadline: args.conditions.deadline.unwrap_or(f64::INFINITY),
        device_speed: args.conditions.device_speed,
        server_speed: args.conditions.server_speed,
        power: args.power.power()?,
        prices: Prices { server_hour: args.price_server_hour, gigabyte: args.price_gigabyte },
        seed: args.seed,
    })
}

fn text(path: &Path) -> Result<String> {
    String::from_utf8(files::read_bytes(path)?).with_context(|| format!("{} is no text", path.display()))
}

/// The strategies by their names.
fn strategies(
    args: &Args,
    test: &Measurements,
    fit: Option<&Arc<Measurements>>,
    scenario: &Scenario,
) -> Result<Vec<(String, Strategy)>> {
    let names = if args.strategy.is_empty() { usual(args, test, fit, scenario) } else { args.strategy.clone() };
    let mut strategies = Vec::new();
    for name in names {
        let Some((wanted, falls_back)) = adaptive(args, &name) else {
            let action = measured::named(test, &name)?;
            strategies.push((test.name(action), Strategy::Fixed { action, exits: None }));
            continue;
        };
        let Some(fit) = fit else {
            bail!("{name} plans by other images than it is simulated with: name their file with --fit-measurements");
        };
        let goal = wanted.goal(args.goal.accuracy(fit.accuracy(Action::Local)));
        let target = Target::loss(args.goal.loss / 100.0);
        let adaptive = Adaptive::fit(fit, scenario.power, goal, target, first(args, scenario))?;
        strategies.push((name, Strategy::Adaptive(Box::new(adaptive.falling_back(falls_back)))));
    }
    Ok(strategies)
}

/// What an adaptive strategy of this name looks for, and whether it falls back on its last exit.
fn adaptive(args: &Args, name: &str) -> Option<(Wanted, bool)> {
    let (name, falls_back) = name.strip_suffix("+fallback").map_or((name, false), |name| (name, true));
    let wanted = match name.strip_prefix("adaptive")? {
        "" => args.goal.wanted(args.conditions.deadline.is_some()),
        goal => Wanted::from_str(goal.strip_prefix('-')?, false).ok()?,
    };
    Some((wanted, falls_back))
}

/// What devices assume before they have seen anything: the mean of the links.
fn first(args: &Args, scenario: &Scenario) -> Conditions {
    let (bandwidth, round_trip) = (scenario.link.mean_bandwidth(), scenario.link.mean_round_trip());
    Conditions { bandwidth, round_trip, ..args.conditions.conditions() }
}

/// The strategies if none is named.
fn usual(args: &Args, test: &Measurements, fit: Option<&Arc<Measurements>>, scenario: &Scenario) -> Vec<String> {
    // Settings are chosen on the images that are not simulated, if there are any.
    let known = fit.map_or(test, Arc::as_ref);
    let accuracy = args.goal.accuracy(known.accuracy(Action::Local));
    let first = first(args, scenario);
    let codec = |action: Action| known.coding(action).map_or("", |coding| coding.codec.as_str());
    let fastest = |of: &dyn Fn(Action) -> bool| {
        let actions = known.actions().filter(|&action| of(action));
        measured::fastest(known, actions, &first, accuracy).map(|action| known.name(action))
    };
    let cut = |action: Action| matches!(action, Action::Split { .. });
    let mut names = vec!["local".to_string()];
    names.extend(fastest(&|action| codec(action) == "JPEG"));
    names.extend(fastest(&|action| codec(action) == "WebP"));
    names.extend(fastest(&|action| cut(action) && !codec(action).starts_with("narrows")));
    names.extend(fastest(&|action| cut(action) && codec(action).starts_with("narrows")));
    if fit.is_some() {
        names.push("adaptive".into());
        if scenario.deadline.is_finite() && !test.exits.is_empty() {
            names.push("adaptive+fallback".into());
        }
    }
    names
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn about(args: &Args, test: &Measurements, scenario: &Scenario) -> Vec<String> {
    let again = |steps: &Steps| match steps.period() {
        period if period.is_finite() => format!(", again after {}", seconds_text(period)),
        _ => String::new(),
    };
    let link = match (&args.trace, args.link) {
        (Some(path), _) => format!("trace {}{}", file_name(path), again(&scenario.link.first().bandwidth)),
        (None, Kind::Constant) => "link that does not change".into(),
        (None, Kind::Lte) => "LTE links".into(),
        (None, Kind::Wifi) => "WiFi links".into(),
        (None, Kind::Lora) => "LoRa links, each with the channel for itself, without headers or duty cycle".into(),
    };
    let down = match scenario.link.down() {
        0.0 => String::new(),
        share => format!(", down for {:.1} % of the time", 100.0 * share),
    };
    let load = args.load.as_ref().map_or(String::new(), |path| {
        let (mean, load) = (100.0 * scenario.load.mean(), &scenario.load);
        format!(" Others take {mean:.1} % of the servers ({}{}).", file_name(path), again(load))
    });
    let deadline = match scenario.deadline {
        deadline if deadline.is_finite() => format!("deadline {}", seconds_text(deadline)),
        _ => "no deadline".into(),
    };
    let arrivals = if args.periodic { "by a clock" } else { "at random" };
    vec![
        format!(
            "{} devices, {} requests a second each, {arrivals}, for {}; {} servers of {} workers.{load}",
            thousands(scenario.devices as u64),
            scenario.rate,
            seconds_text(scenario.seconds),
            scenario.servers,
            scenario.workers
        ),
        format!(
            "{link}, mean {}{down}, {} round trip; {deadline}; device speed {}, server speed {}; seed {}.",
            bandwidth_text(scenario.link.mean_bandwidth()),
            seconds_text(scenario.link.mean_round_trip()),
            scenario.device_speed,
            scenario.server_speed,
            scenario.seed
        ),
        format!("Requests are the {} images measured on: {}.", thousands(test.images() as u64), test.machine),
    ]
}
