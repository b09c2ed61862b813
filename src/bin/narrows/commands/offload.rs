//! `narrows offload`: a device that classifies images with the help of a server.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use narrows::link::{Client, ClientOptions, Layer, Output, Retry, Tls};
use narrows::split::Action;
use narrows::{Conditions, Encoder, Profile, Quality};
use serde_json::json;

use crate::args::{BackendArgs, ImageArgs, load_profile};
use crate::conditions::PowerArgs;
use crate::device::{Adaptive, Device, Known, Policy, Setup, Summary, csv, table};
use crate::fitting::progress_bar;
use crate::images::Rows;
use crate::logs::LogArgs;
use crate::measured;
use crate::model::Network;
use crate::normalize::NormalizeArgs;
use crate::output::{self, note, print, print_json, write};
use crate::units;
use crate::wanted::{GoalArgs, Wanted};

const EXAMPLES: &str = "\
Examples:
  narrows offload --server http://edge:8001 --model net.onnx --cut NAME \\
      --profile p.safetensors --images photos --labels labels.csv --normalize imagenet
  # the image in place of the feature
  narrows offload ... --policy jpeg:75 --out run
  narrows offload ... --policy local --device-speed 0.1
  # images from one sheet of square tiles, row by row
  narrows offload ... --images sheet.png --labels classes.txt
  # replicas: if one is lost, the next one is asked
  narrows offload --server http://a:8001 --server http://b:8001 ...

A delay is the time from the moment at which an image is due to its answer. Bytes on the wire
are everything that is sent from the first image on, including gRPC, HTTP/2 and TLS, but not
TCP and IP. A lost server costs a retry, not an answer.";

/// Classify images through a server.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Address of the server, http://host:port or https://host:port; may be given several times, for
    /// replicas: each device starts with another one of them.
    #[arg(long, value_name = "URL", required = true, help_heading = "Server")]
    server: Vec<String>,
    /// Name of the model at the server [default: the name of the network's file]. With --cut, the model NAME@CUT is
    /// requested, so that a server of another cut refuses it. A name that contains @ is used unchanged.
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    name: Option<String>,
    /// Root certificate that the server's certificate is checked against (PEM); https needs it.
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    tls_ca: Option<PathBuf>,
    /// Name in the server's certificate, if it differs from the address.
    #[arg(long, value_name = "NAME", help_heading = "Server")]
    tls_name: Option<String>,
    /// Certificate of the device (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Server")]
    tls_cert: Option<PathBuf>,
    /// Private key of the device (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Server")]
    tls_key: Option<PathBuf>,
    /// Longest time to wait for an answer; also how long to wait for the server at the start.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "30s", help_heading = "Server")]
    timeout: Duration,
    /// Longest time to wait for one server before the next one is tried.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "5s", help_heading = "Server")]
    attempt: Duration,
    /// Most attempts for one answer; a server that is full and says when to come again is waited for
    /// until --timeout, unless this is 1.
    #[arg(long, value_name = "N", default_value_t = Retry::default().attempts, help_heading = "Server")]
    attempts: u32,
    /// The network (.onnx).
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    model: PathBuf,
    /// Tensor at which to cut the network.
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    cut: Option<String>,
    /// Profile of the cut; without one, the mode for any feature is used. Several may be given for policy adaptive.
    #[arg(short, long, value_name = "FILE", help_heading = "Network")]
    profile: Vec<PathBuf>,
    /// Output of the network that is the answer [default: the first].
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    model_output: Option<String>,
    #[command(flatten)]
    images: ImageArgs,
    /// Rows of the label file, for example 401-1000 [default: all].
    #[arg(long, value_name = "A-B", value_parser = Rows::parse, help_heading = "Images")]
    rows: Option<Rows>,
    #[command(flatten)]
    normalize: NormalizeArgs,
    /// What the device does: local (runs the whole network), fixed (runs the head, sends a stream), jpeg:Q, webp:Q or png
    /// (sends the image), or adaptive (whatever is best at the moment, by --measurements).
    #[arg(long, value_name = "NAME", value_parser = Policy::parse, default_value = "fixed", help_heading = "Device")]
    policy: Policy,
    /// Measurements of the network (`narrows eval --measurements FILE`).
    #[arg(long, value_name = "FILE", help_heading = "Policy adaptive")]
    measurements: Option<PathBuf>,
    /// Policy for the network's exits (`narrows exit --out FILE`).
    #[arg(long, value_name = "FILE", help_heading = "Policy adaptive")]
    exits: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Policy adaptive")]
    goal: GoalArgs,
    #[command(flatten, next_help_heading = "Policy adaptive")]
    power: PowerArgs,
    /// Allow sending images, for the server to run the whole network (`narrows serve --whole`).
    #[arg(long, help_heading = "Policy adaptive")]
    whole: bool,
    /// Step scale of streams; smaller is finer.
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Device")]
    quality: f32,
    /// Layers of a stream, 1 to 4, sent one after the other until the server answers.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Device")]
    layers: usize,
    /// Have the server answer early, before the last layer, once a class has this probability [default: the server's own].
    #[arg(long, value_name = "P", value_parser = units::probability, help_heading = "Device")]
    threshold: Option<f64>,
    /// How long to wait for the server's reply to a layer before the next one is sent.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "1s", help_heading = "Device")]
    patience: Duration,
    /// Time after which an answer is useless.
    #[arg(long, value_name = "TIME", value_parser = units::deadline, default_value = "150ms", help_heading = "Device")]
    deadline: f64,
    /// Time between images [default: each follows as soon as the previous one is answered].
    #[arg(long, value_name = "TIME", value_parser = units::duration, help_heading = "Device")]
    interval: Option<Duration>,
    /// Skip images whose deadline has passed before their turn comes, as a live camera does. They count as late and wrong.
    #[arg(long, requires = "interval", help_heading = "Device")]
    skip_late: bool,
    /// Speed of the emulated device relative to this machine, at most 1; its work is slowed down by waiting.
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Device")]
    device_speed: f64,
    #[command(flatten, next_help_heading = "Device")]
    backend: BackendArgs,
    /// Folder for requests.csv, with one line per image, and summary.json.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Print the summary as JSON in place of the table.
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    logs: LogArgs,
}

/// Classifies.
pub fn run(args: &Args) -> Result<()> {
    args.logs.start()?;
    args.out.as_deref().map_or(Ok(()), output::check_folder)?;
    if !(args.device_speed > 0.0 && args.device_speed <= 1.0) {
        bail!("--device-speed {}: it is above 0 and at most 1", args.device_speed);
    }
    if args.policy == Policy::Fixed && args.cut.is_none() {
        bail!("--policy fixed: name the tensor at which the network is cut with --cut NAME");
    }
    let network = Network::load(&args.model, args.model_output.as_deref())?;
    let images = args.images.open_labelled(&network, args.rows)?;
    let size = images.size();
    let cut = args.cut.as_deref().map(|cut| network.cut(cut, size)).transpose()?;
    let profiles = args.profile.iter().map(|path| load_profile(path)).collect::<Result<Vec<Arc<Profile>>>>()?;
    let encoder = match profiles.as_slice() {
        [] => Encoder::plain(),
        [profile] => Encoder::with_profile(profile.clone()),
        _ if args.policy != Policy::Adaptive => bail!("several profiles are for policy adaptive"),
        [profile, ..] => Encoder::with_profile(profile.clone()),
    };
    let adaptive = match args.policy {
        Policy::Adaptive => Some(Adaptive::new(known(args, profiles)?, &network, size)?),
        _ => None,
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => args.model.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let whole = format!("{name}.whole");
    let models = match &cut {
        // The adaptive one sends features of several cuts, and the server goes by the profiles that they name.
        Some(cut) if args.policy == Policy::Fixed && !name.contains('@') => [format!("{name}@{}", cut.name), whole],
        _ => [name, whole],
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let client = {
        let _within = runtime.enter();
        client(args)?
    };
    let setup = Setup {
        network,
        cut,
        normalize: args.normalize.resolve()?,
        encoder: encoder.layers(args.layers).backend(args.backend.open()?),
        quality: Quality::Scale(args.quality),
        client,
        servers: args.server.join(", "),
        models,
        speed: args.device_speed,
        layers: Layer { threshold: args.threshold, patience: args.patience },
    };
    let labelled = args.images.labels.is_some();
    let mut device = Device::new(setup, images.as_ref(), labelled, runtime).adaptive(adaptive);
    let bar = progress_bar();
    bar.set_length(images.len() as u64);
    let stale = args.skip_late.then(|| Duration::try_from_secs_f64(args.deadline).unwrap_or(Duration::MAX));
    let records = device.run(args.policy, (args.interval, stale), &mut |_| bar.inc(1))?;
    bar.finish_and_clear();
    if records.is_empty() && images.len() > 0 {
        bail!("interrupted before the first image was answered");
    }
    let name = match args.policy {
        Policy::Adaptive => match args.goal.wanted(true) {
            Wanted::Delay => "adaptive, least delay".into(),
            Wanted::Energy => "adaptive, least energy".into(),
            Wanted::Accuracy => "adaptive, accuracy".into(),
        },
        policy => policy.to_string(),
    };
    let summary = Summary::new(name, &records, args.deadline);
    if let Some(folder) = &args.out {
        output::make_folder(folder)?;
        write(&folder.join("requests.csv"), csv(&records).as_bytes())?;
        let all = json!({ "deadline_seconds": args.deadline, "summary": summary.json() });
        write(&folder.join("summary.json"), serde_json::to_string_pretty(&all)?.as_bytes())?;
    }
    if args.json {
        print_json(&summary.json())?;
    } else {
        print(table(std::slice::from_ref(&summary)))?;
    }
    if let Some(error) = records.iter().find_map(|record| record.error.as_ref()) {
        note(format!("{} images without an answer; the first: {error}", summary.lost));
    }
    if summary.lost > 0 {
        bail!("{} of {} images have no answer", summary.lost, summary.images);
    }
    if records.len() < images.len() {
        bail!("interrupted after {} of {} images", records.len(), images.len());
    }
    Ok(())
}

/// What policy adaptive goes by.
fn known(args: &Args, profiles: Vec<Arc<Profile>>) -> Result<Known> {
    let path = args.measurements.as_deref();
    let path =
        path.context("--policy adaptive: name what `narrows eval --measurements FILE` wrote with --measurements")?;
    let measured = measured::load(path)?;
    let exits = match &args.exits {
        Some(path) => {
            let bytes = crate::files::read_bytes(path)?;
            Some(narrows::exit::Policy::from_json(&bytes).with_context(|| format!("policy {}", path.display()))?)
        }
        None => None,
    };
    let conditions = Conditions { deadline: args.deadline, device_speed: args.device_speed, ..Conditions::default() };
    let goal = args.goal.wanted(true).goal(args.goal.accuracy(measured.accuracy(Action::Local)));
    let power = args.power.power()?;
    Ok(Known { measured, exits, profiles, images: args.whole, goal, power, conditions })
}

fn client(args: &Args) -> Result<Client> {
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let identity = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        _ => None,
    };
    let root = args.tls_ca.as_ref().map(read).transpose()?;
    if let (None, Some(server)) = (&root, args.server.iter().find(|server| server.starts_with("https:"))) {
        bail!("--server {server}: https needs --tls-ca FILE, the root of the server's certificate");
    }
    let options = ClientOptions {
        servers: args.server.clone(),
        tls: Tls { root, name: args.tls_name.clone(), identity },
        retry: Retry { attempts: args.attempts, ..Retry::default() },
        attempt: args.attempt,
        timeout: args.timeout,
        // Process ids are the same on many devices.
        seed: RandomState::new().build_hasher().finish(),
        outputs: vec![Output::Class],
    };
    Ok(Client::new(options)?)
}
