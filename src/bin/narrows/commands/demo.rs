//! `narrows demo`: the whole chain on a built-in network and images.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use narrows::Profile;

use crate::args::{BackendArgs, backend_text};
use crate::bd::{BytesAt, bytes_at};
use crate::codecs::{FeatureCodec, ImageCodec};
use crate::commands::eval::picture;
use crate::fitting::progress_bar;
use crate::images::{Images, Sheet, sheet_labels};
use crate::measure::Job;
use crate::model::Network;
use crate::normalize::Preset;
use crate::output::{self, note, print, print_json, thousands, write};
use crate::report::{Measure, Report, Series, wrap};

const NETWORK: &[u8] = include_bytes!("../../../../demo/network.onnx");
const IMAGES: &[u8] = include_bytes!("../../../../demo/test_images.png");
const LABELS: &str = include_str!("../../../../demo/test_labels.txt");
const PROFILE: &[u8] = include_bytes!("../../../../demo/profile.safetensors");
const BOTTLENECK: &[u8] = include_bytes!("../../../../demo/bottleneck.safetensors");
/// Side of the images.
const SIDE: u32 = 32;
/// The network's tensor at which it is cut.
const CUT: &str = "stage3.0.out";
/// Its output that is the answer.
const OUTPUT: &str = "logits";

/// Run the whole chain on a built-in network and 1,000 images.
///
/// A small convolutional network for CIFAR-10 is cut in two. Every one of 1,000 test images goes
/// through the head, the encoder, the decoder and the tail, beside PNG, JPEG and WebP of the image
/// itself. The table lists bytes, times and accuracy of each; the page has plots.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to write the page with the plots to.
    #[arg(long, value_name = "FILE", default_value = "narrows-demo.html")]
    out: PathBuf,
    /// In place of the demo, write the network, its profiles, the images and their labels to this folder, to try the other
    /// commands on.
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// Worker threads [default: one per core].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print the report as JSON in place of the table.
    #[arg(long)]
    json: bool,
}

/// Runs the demo.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    if let Some(folder) = &args.export {
        return export(folder);
    }
    output::check(&args.out)?;
    let backend = args.backend.open()?;
    let network = Network::from_bytes(NETWORK.to_vec(), Some(OUTPUT)).context("the built-in network")?;
    let images = Sheet::open(IMAGES, sheet_labels(LABELS)?, SIDE, None)?;
    let cut = network.cut(CUT, (SIDE as usize, SIDE as usize))?;
    let profile = Arc::new(Profile::from_bytes(PROFILE).context("the built-in profile")?);
    let bottleneck = Arc::new(Profile::from_bytes(BOTTLENECK).context("the built-in bottleneck")?);
    let mut image_codecs = vec![ImageCodec::Raw, ImageCodec::Png];
    image_codecs.extend([5, 10, 20, 30, 50, 75, 90, 95].map(ImageCodec::Jpeg));
    image_codecs.extend([1, 5, 10, 20, 40, 70, 90].map(ImageCodec::WebP));
    let mut codecs = vec![FeatureCodec::raw_f32(), FeatureCodec::lossless(), FeatureCodec::packed(4, false)];
    let scales = [0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0];
    for profile in [&profile, &bottleneck] {
        codecs.extend(scales.map(|scale| FeatureCodec::narrows(Some(profile), scale, true)));
    }
    let codecs = codecs.into_iter().map(|codec| codec.on(&backend)).collect();
    let job = Job {
        network: &network,
        images: &images,
        normalize: Preset::Cifar10.normalize(),
        image_codecs,
        cuts: vec![(cut.clone(), codecs)],
        exits: Vec::new(),
        threads: args.threads,
    };
    let bar = progress_bar();
    bar.set_message("classifying");
    let measured = job.run(&bar)?;
    let report = Report {
        title: "narrows demo: a CIFAR-10 network, cut in two".into(),
        about: vec![
            format!(
                "Each image goes through the head to the feature at {CUT}, {} numbers; the feature is encoded, sent, \
                 decoded, and classified by the tail.",
                thousands(cut.elements() as u64)
            ),
            "Or the image itself is compressed and sent, and the whole network classifies what comes out.".into(),
            format!(
                "The profile was fitted on training images, without training; the bottleneck was trained on them, with \
                 the network as it is. Backend: {}.",
                backend_text(&backend)
            ),
        ],
        images: images.len(),
        top1: measured.top1,
        points: measured.points,
        pictures: [&profile, &bottleneck]
            .into_iter()
            .filter_map(|profile| picture(&job, &cut, Some(profile), true, &backend).transpose())
            .collect::<Result<_>>()?,
    };
    write(&args.out, report.html().as_bytes())?;
    if args.json {
        return print_json(&report.json());
    }
    print(format!("{}\n\n{}", report.text(), wrap(&take_away(&report))))?;
    note(format!("\n{} written, {:.1} s in all", args.out.display(), start.elapsed().as_secs_f64()));
    Ok(())
}

/// Writes what the demo is made of as files: network.onnx, profile.safetensors, bottleneck.safetensors, images/0001.png and
/// so on, and labels.csv.
fn export(folder: &Path) -> Result<()> {
    output::check_folder(folder)?;
    let images = Sheet::open(IMAGES, sheet_labels(LABELS)?, SIDE, None)?;
    let pictures = folder.join("images");
    output::make_folder(&pictures)?;
    let mut labels = String::from("file,label\n");
    for i in 0..images.len() {
        let name = format!("{:04}.png", i + 1);
        write(&pictures.join(&name), &ImageCodec::Png.encode(&images.pixels(i)?)?)?;
        labels += &format!("{name},{}\n", images.label(i));
    }
    write(&folder.join("labels.csv"), labels.as_bytes())?;
    for (name, bytes) in
        [("network.onnx", NETWORK), ("profile.safetensors", PROFILE), ("bottleneck.safetensors", BOTTLENECK)]
    {
        write(&folder.join(name), bytes)?;
    }
    note(format!(
        "{}: network.onnx (cut {CUT}, output {OUTPUT}, --normalize cifar10), two profiles, {} images, labels.csv",
        folder.display(),
        images.len()
    ));
    Ok(())
}

/// The main results: bytes at the accuracy that narrows has at scale 1, without training and with it.
fn take_away(report: &Report) -> String {
    ["narrows", "narrows trained"].map(|codec| take_away_of(report, codec)).join(" ")
}

fn take_away_of(report: &Report, codec: &str) -> String {
    let series = report.series();
    let narrows = series.iter().find(|series| series.codec == codec && series.cut.is_some());
    let Some(point) = narrows.and_then(|series| series.points.iter().find(|point| point.setting == "x1")) else {
        return String::new();
    };
    let own = point.bytes.mean;
    let mut text = format!(
        "At top-1 {:.3} (uncut: {:.3}) {codec} sends {} bytes an image",
        point.top1,
        report.top1,
        thousands(own.round() as u64)
    );
    for name in ["JPEG", "WebP"] {
        let Some(other) = series.iter().find(|series| series.codec == name) else { continue };
        let curve = other.curve(Measure::Top1);
        let largest = curve.iter().map(|point| point.0).fold(0.0, f64::max);
        text += &match bytes_at(&curve, point.top1) {
            BytesAt::About(bytes) | BytesAt::AtMost(bytes) => {
                format!("; {name} needs {} ({:.1} times as many)", thousands(bytes.round() as u64), bytes / own)
            }
            BytesAt::OutOfReach => {
                format!("; {name} does not get there with {}", thousands(largest.round() as u64))
            }
        };
    }
    let name = narrows.map(Series::name).unwrap_or_default();
    for comparison in report.comparisons().iter().filter(|c| c.measure == Measure::Top1 && c.test == name) {
        if let Some(percent) = comparison.bd.and_then(|bd| bd.percent) {
            text += &format!("; BD-rate {percent:+.0} % against {}", comparison.reference);
        }
    }
    text + "."
}
