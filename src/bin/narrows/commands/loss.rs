//! `narrows loss`: accuracy over a link that loses datagrams.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use narrows::datagram::{Assembler, Concealment, Datagrams};
use narrows::{Encoder, Feature, Profile, Quality};
use ndarray::ArrayD;
use serde_json::json;

use crate::args::{ImageArgs, load_profile};
use crate::fitting::progress_bar;
use crate::images::{Images, Rows};
use crate::lossy::LossyLink;
use crate::metrics::argmax;
use crate::model::{Cut, Network, Pool, stack};
use crate::normalize::{Normalize, NormalizeArgs};
use crate::output::{print, print_json};
use crate::report::align;
use crate::workers;

const EXAMPLES: &str = "\
Examples:
  narrows loss --model net.onnx --cut NAME --profile p.safetensors --images photos \\
      --labels labels.csv --rows 401-1000 --normalize imagenet
  narrows loss ... --bytes 100 --parts 16 --burst 4 --losses 0,0.2,0.4

A feature is sent as datagrams that decode alone. The table has the top-1 accuracy if a share of
the datagrams is lost, each on its own or in bursts (Gilbert and Elliott's model), with or without
one round of retransmission. Lost parts are concealed by the profile's means, by neighbouring
blocks, or by these with the feature's energy restored; `stream` is a stream in as many packets
that needs all of them. An image of which nothing arrives has no answer, which counts as wrong.";

/// Measure accuracy over a link that loses datagrams.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The network (.onnx).
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    model: PathBuf,
    /// Tensor at which to cut the network.
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    cut: String,
    /// Output of the network that is the answer [default: the first].
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    model_output: Option<String>,
    /// Profile of the cut.
    #[arg(short, long, value_name = "FILE", help_heading = "Network")]
    profile: PathBuf,
    #[command(flatten)]
    images: ImageArgs,
    /// Rows of the label file to measure on [default: all].
    #[arg(long, value_name = "A-B", value_parser = Rows::parse, help_heading = "Images")]
    rows: Option<Rows>,
    #[command(flatten)]
    normalize: NormalizeArgs,
    /// Step scale; smaller is finer.
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Link")]
    quality: f32,
    /// Largest datagram, in bytes.
    #[arg(long, value_name = "N", default_value_t = 1200, help_heading = "Link")]
    bytes: usize,
    /// Least number of datagrams per feature.
    #[arg(long, value_name = "N", default_value_t = 8, help_heading = "Link")]
    parts: usize,
    /// Each datagram also holds a copy of another part, coarser by a factor of three (1), nine (2) or twenty-seven (3).
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Link")]
    copies: u8,
    /// Loss rates to measure, 0 to below 0.99.
    #[arg(long, value_name = "X,X,...", value_delimiter = ',', help_heading = "Link",
        default_values_t = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])]
    losses: Vec<f64>,
    /// Mean length of a burst, in datagrams; 1 for none.
    #[arg(long, value_name = "X", default_value_t = 3.0, help_heading = "Link")]
    burst: f64,
    /// Loss rate between bursts.
    #[arg(long, value_name = "X", default_value_t = 0.0, help_heading = "Link")]
    between: f64,
    /// Random seed.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Link")]
    seed: u64,
    /// Worker threads [default: one per core].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Print the table as JSON.
    #[arg(long)]
    json: bool,
}

/// One way to lose and to make up for it.
#[derive(Debug, Clone, Copy)]
struct Case {
    loss: f64,
    /// Mean length of a burst; 1 for datagrams that are lost each on its own.
    burst: f64,
    /// Whether what is missing is sent once more.
    again: bool,
}

/// What came of the images.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    /// Right answers: by concealment, then of streams that need all packets.
    right: [usize; STREAM + 1],
    /// Those of the uncut network.
    same: [usize; STREAM + 1],
    bytes: usize,
}

/// The ways to conceal that are compared.
const CONCEALMENTS: [(&str, Concealment); STREAM] =
    [("means", Concealment::Means), ("neighbours", Concealment::Neighbours), ("restored", Concealment::Restored)];
/// Their number, and the place of the stream.
const STREAM: usize = 3;

struct Job<'a> {
    args: &'a Args,
    network: &'a Network,
    images: &'a dyn Images,
    normalize: Normalize,
    cut: &'a Cut,
    profile: Arc<Profile>,
    cases: Vec<Case>,
}

/// Measures.
pub fn run(args: &Args) -> Result<()> {
    if args.images.labels.is_none() {
        bail!("name the label file with --labels FILE: without labels there is no accuracy to measure");
    }
    if let Some(bad) = args.losses.iter().find(|loss| !(0.0..0.99).contains(*loss)) {
        bail!("--losses takes shares from 0 to below 0.99, not {bad}");
    }
    if !(args.burst >= 1.0 && args.burst.is_finite()) {
        bail!("--burst takes a mean length of 1 or more, not {}", args.burst);
    }
    if !(0.0..1.0).contains(&args.between) {
        bail!("--between takes a share from 0 to below 1, not {}", args.between);
    }
    if let Some(bad) = args.losses.iter().find(|&&loss| LossyLink::new(loss, (args.burst, args.between), 0).is_none()) {
        let least = bad / (1.0 - bad);
        bail!(
            "bursts of {} on average cannot make up {bad} of all messages: --burst {least:.1} or more, or 1",
            args.burst
        );
    }
    let network = Network::load(&args.model, args.model_output.as_deref())?;
    let images = args.images.open_labelled(&network, args.rows)?;
    let cut = network.cut(&args.cut, images.size())?;
    let profile = load_profile(&args.profile)?;
    let bursts = if args.burst > 1.0 { vec![1.0, args.burst] } else { vec![1.0] };
    let each = |loss: &f64| {
        let loss = *loss;
        bursts.iter().flat_map(move |&burst| [false, true].map(|again| Case { loss, burst, again })).collect::<Vec<_>>()
    };
    let cases = args.losses.iter().flat_map(each).filter(|case| case.loss > 0.0 || (case.burst == 1.0 && !case.again));
    let job = Job {
        args,
        network: &network,
        images: &*images,
        normalize: args.normalize.resolve()?,
        cut: &cut,
        profile,
        cases: cases.collect(),
    };
    let tallies = job.run()?;
    report(args, &job.cases, &tallies, images.len())
}

impl Job<'_> {
    /// All images, on all workers.
    fn run(&self) -> Result<Vec<Tally>> {
        let bar = progress_bar();
        bar.set_length(self.images.len() as u64);
        let tallies = workers::share(
            workers::count(self.args.threads, self.images.len()),
            (self.images.len(), 1),
            || vec![Tally::default(); self.cases.len()],
            |image, _, tallies, pool| {
                self.image(image, pool, tallies)?;
                bar.inc(1);
                Ok(())
            },
        )?;
        bar.finish_and_clear();
        let mut sums = vec![Tally::default(); self.cases.len()];
        for tallies in tallies {
            for (sum, tally) in sums.iter_mut().zip(tallies) {
                for way in 0..=STREAM {
                    sum.right[way] += tally.right[way];
                    sum.same[way] += tally.same[way];
                }
                sum.bytes += tally.bytes;
            }
        }
        Ok(sums)
    }

    /// One image through all cases.
    fn image(&self, image: usize, pool: &Pool, tallies: &mut [Tally]) -> Result<()> {
        let batch = self.normalize.batch(&[self.images.pixels(image)?])?;
        let whole = self.network.run(&batch, &[self.cut], &[], pool)?;
        let (uncut, label) = (argmax(&whole.logits[0]), self.images.label(image));
        let feature = whole.features.first().context("the network gave no feature")?;
        let mut encoder = Encoder::with_profile(self.profile.clone());
        let Args { bytes, parts, copies, quality, .. } = *self.args;
        let options = Datagrams { number: image as u16, bytes, parts, copies };
        let sent = encoder.datagrams(feature, Quality::Scale(quality), &options)?;
        let (mut features, mut places) = (Vec::new(), Vec::new());
        let mut whole_streams = vec![false; self.cases.len()];
        for (number, (case, tally)) in self.cases.iter().zip(&mut *tallies).enumerate() {
            // The same chance for every image, whatever the number of workers, and whether parts are sent again or not.
            let (thousandths, bursts) = ((case.loss * 1000.0) as u64, u64::from(case.burst > 1.0));
            let seed = (self.args.seed << 40) ^ ((image as u64) << 12) ^ (thousandths << 1) ^ bursts;
            let link = LossyLink::new(case.loss, (case.burst, self.args.between), seed);
            let mut link = link.context("a link that cannot be")?;
            let arrived = through(&sent, case.again, &mut link, &mut tally.bytes);
            whole_streams[number] = arrived.len() == sent.len();
            if arrived.is_empty() {
                continue;
            }
            for (way, (_, concealment)) in CONCEALMENTS.into_iter().enumerate() {
                let mut assembler = Assembler::new(self.profile.clone());
                for &part in &arrived {
                    assembler.push(&sent[part])?;
                }
                let Feature::F32(restored) = assembler.take(options.number, concealment)? else {
                    bail!("the profile's features are not f32");
                };
                features.push(restored);
                places.push((number, way));
            }
        }
        // All in one batch, which the network likes best.
        let answers = if features.is_empty() { Vec::new() } else { self.answers(&features, pool)? };
        for (&(number, way), &answer) in places.iter().zip(&answers) {
            let mut count = |way: usize| {
                tallies[number].right[way] += usize::from(answer == label);
                tallies[number].same[way] += usize::from(answer == uncut);
            };
            count(way);
            if way == 0 && whole_streams[number] {
                count(STREAM);
            }
        }
        Ok(())
    }

    fn answers(&self, features: &[ArrayD<f32>], pool: &Pool) -> Result<Vec<usize>> {
        let batch = self.network.batch(features.len().min(32));
        let mut answers = Vec::new();
        for features in features.chunks(batch) {
            let logits = self.network.tail(&stack(features)?, self.cut, pool)?;
            answers.extend(logits.iter().map(|logits| argmax(logits)));
        }
        Ok(answers)
    }
}

/// The parts that arrive, once all were sent and, perhaps, what was missing once more; counts the bytes.
fn through(sent: &[Vec<u8>], again: bool, link: &mut LossyLink, bytes: &mut usize) -> Vec<usize> {
    let mut arrived = Vec::new();
    let mut missing: Vec<usize> = (0..sent.len()).collect();
    for round in 0..if again { 2 } else { 1 } {
        // Who has got nothing of a feature does not know that there is one.
        if round > 0 && arrived.is_empty() {
            break;
        }
        *bytes += missing.iter().map(|&part| sent[part].len()).sum::<usize>();
        let (lost, here) = missing.into_iter().partition(|_| link.loses());
        missing = lost;
        arrived.extend::<Vec<usize>>(here);
    }
    arrived
}

fn report(args: &Args, cases: &[Case], tallies: &[Tally], images: usize) -> Result<()> {
    let share = |count: usize| count as f64 / images.max(1) as f64;
    if args.json {
        let by_name = |counts: &[usize; STREAM + 1]| {
            let names = CONCEALMENTS.iter().map(|way| way.0).chain(["stream"]);
            names
                .zip(counts)
                .map(|(name, &count)| (name.to_string(), json!(share(count))))
                .collect::<serde_json::Map<_, _>>()
        };
        let rows = cases.iter().zip(tallies).map(|(case, tally)| {
            json!({
                "loss": case.loss, "burst": case.burst, "sent_again": case.again, "bytes": share(tally.bytes),
                "top1": by_name(&tally.right), "agreement": by_name(&tally.same),
            })
        });
        return print_json(&json!({ "images": images, "scale": args.quality, "rows": rows.collect::<Vec<_>>() }));
    }
    let names = || ["stream"].into_iter().chain(CONCEALMENTS.iter().map(|way| way.0));
    let mut head: Vec<String> = ["lost", "how", "sent again", "bytes"].map(str::to_string).into();
    head.extend(names().map(|name| format!("top-1: {name}")));
    head.extend(names().map(|name| format!("agree: {name}")));
    let mut rows = vec![head];
    for (case, tally) in cases.iter().zip(tallies) {
        let mut row = vec![
            format!("{:.0} %", 100.0 * case.loss),
            if case.burst > 1.0 { format!("bursts of {}", case.burst) } else { "each alone".into() },
            if case.again { "once" } else { "no" }.into(),
            format!("{:.0}", share(tally.bytes)),
        ];
        for counts in [tally.right, tally.same] {
            row.push(format!("{:.3}", share(counts[STREAM])));
            row.extend(counts[..STREAM].iter().map(|&count| format!("{:.3}", share(count))));
        }
        rows.push(row);
    }
    print(format!(
        "{images} images, step scale {}, datagrams of at most {} bytes, at least {} a feature, {}; top-1, and agreement with \
         the uncut network\n\n{}",
        args.quality,
        args.bytes,
        args.parts,
        match args.copies {
            0 => "no copies".to_string(),
            copies => format!("copies {} times coarser", 3u32.pow(copies.into())),
        },
        align(&rows, 3).trim_end()
    ))
}
