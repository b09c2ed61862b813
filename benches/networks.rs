//! What the analysis and synthesis networks of profiles cost on one core: multiply-accumulates, parameters and
//! milliseconds on every backend of this machine.
//!
//! ```sh
//! cargo bench --bench networks -- net.profile.safetensors
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use narrows::raw::Networks;
use narrows::{Backend, Feature, Level, Profile};
use ndarray::{ArrayD, IxDyn};

/// Median time of a call in milliseconds.
fn time(mut body: impl FnMut()) -> f64 {
    body();
    let mut times: Vec<f64> = (0..31)
        .map(|_| {
            let start = Instant::now();
            body();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn measure(path: &str) {
    let profile = Arc::new(Profile::load(path).expect("a profile"));
    let [analysis, synthesis] = profile.cost(profile.layout()).map(Option::unwrap_or_default);
    let shape = profile.layout().shape();
    println!("{path}: {shape:?}");
    for (name, cost) in [("analysis", analysis), ("synthesis", synthesis)] {
        println!("  {name}: {:.2} M multiply-accumulates, {} parameters", cost.macs as f64 / 1e6, cost.parameters);
    }
    let feature = Feature::F32(ArrayD::from_shape_fn(IxDyn(&shape), |at| {
        ((0..shape.len()).map(|axis| (at[axis] * (axis + 2)) as f32).sum::<f32>() * 0.7).sin() * 3.0
    }));
    let levels = Level::ALL.into_iter().filter(|level| level.is_available()).map(Backend::Simd);
    for backend in [Backend::Portable].into_iter().chain(levels) {
        let mut networks = Networks::new(profile.clone(), &backend).expect("a backend of this machine");
        let latent = networks.analyse(&feature, 0).expect("a feature").to_vec();
        let forward = time(|| drop(networks.analyse(&feature, 0)));
        let backward = time(|| drop(networks.synthesise(&latent, 0)));
        let rate = |macs: u64, time: f64| macs as f64 / time / 1e6;
        println!(
            "  {:<10} analysis {forward:7.3} ms, {:6.2} G/s; synthesis {backward:7.3} ms, {:6.2} G/s",
            backend.to_string(),
            rate(analysis.macs, forward),
            rate(synthesis.macs, backward)
        );
    }
}

fn main() {
    // Cargo's test run only wants to know that it starts.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/bottleneck.safetensors");
    let mut paths: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if paths.is_empty() {
        paths.push(own.to_string_lossy().into_owned());
    }
    paths.iter().for_each(|path| measure(path));
}
