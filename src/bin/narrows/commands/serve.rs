//! `narrows serve`: tails of a network behind gRPC.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use narrows::Profile;
use narrows::link::{Bounds, Identity, Model, Server};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::load_profile;
use crate::logs::LogArgs;
use crate::model::{Cut, Network};
use crate::normalize::NormalizeArgs;
use crate::output::{INTERRUPTED, print};
use crate::tails::{CutTail, Whole};
use crate::units;

const EXAMPLES: &str = "\
Examples:
  narrows serve --model net.onnx --cut NAME --profile p.safetensors \\
      --listen 0.0.0.0:8001 --metrics 0.0.0.0:9001
  narrows serve --model net.onnx --cut NAME --profile p.safetensors --whole --normalize imagenet
  narrows serve ... --tls-cert server.pem --tls-key server.key --tls-client-ca devices.pem

The protocol is version 2 of the Open Inference Protocol over gRPC. The model NAME (the file's
name, or --name) takes streams in a BYTES tensor `stream` or features in an FP32 tensor
`feature`; NAME.whole takes JPEG, PNG or WebP in a BYTES tensor `image`, or inputs in an FP32
tensor `x`. Outputs are `logits` and `class`. With several cuts, NAME selects the cut by the
profile that a stream names; NAME@CUT is one particular cut.

Once the server listens, it prints one line on standard output: `listening ADDR`, or
`listening ADDR metrics ADDR`. On SIGTERM or SIGINT it reports that it is not ready, finishes
the requests in flight, and exits; a second signal ends it at once.";

/// Serve the tail of a network over gRPC (Open Inference Protocol).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The network (.onnx).
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    model: PathBuf,
    /// Tensor at which the network is cut; may be given several times.
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    cut: Vec<String>,
    /// Profile of the streams; may be given several times. Each serves the cuts whose features have its shape.
    #[arg(short, long, value_name = "FILE", help_heading = "Network")]
    profile: Vec<PathBuf>,
    /// Output of the network that is the answer [default: the first].
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    model_output: Option<String>,
    /// Name of the model in requests [default: the name of the file].
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    name: Option<String>,
    /// Also serve the whole network, for clients that send images; needs --normalize.
    #[arg(long, help_heading = "Network")]
    whole: bool,
    /// Height and width of the input, if the network leaves them open.
    #[arg(long, value_name = "HxW", value_parser = size, help_heading = "Network")]
    size: Option<(usize, usize)>,
    #[command(flatten)]
    normalize: NormalizeArgs,
    /// Address to serve gRPC on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8001", help_heading = "Addresses")]
    listen: SocketAddr,
    /// Address to serve /metrics, /livez and /readyz on, over HTTP.
    #[arg(long, value_name = "ADDR", help_heading = "Addresses")]
    metrics: Option<SocketAddr>,
    /// Certificate chain of the server (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "TLS")]
    tls_cert: Option<PathBuf>,
    /// Private key of the server (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    tls_key: Option<PathBuf>,
    /// Root certificate that client certificates are checked against; clients then need one (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    tls_client_ca: Option<PathBuf>,
    #[command(flatten)]
    bounds: BoundArgs,
    /// Answer layered streams early, before the last layer, once a class has this probability.
    #[arg(long, value_name = "P", value_parser = units::probability, default_value_t = 0.9, help_heading = "Limits")]
    threshold: f64,
    #[command(flatten)]
    logs: LogArgs,
}

/// Bounds of the server.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct BoundArgs {
    /// Largest message, in bytes.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().message)]
    max_message: usize,
    /// Largest message on a streaming call, in bytes, and most bytes of all layers kept for one call.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().layers)]
    max_call_message: usize,
    /// Most items in one request and in one run of the tail.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().batch)]
    max_batch: usize,
    /// Most requests that are being received, waiting or running.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().requests)]
    max_requests: usize,
    /// Most of these requests that wait for a worker.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().queue)]
    queue: usize,
    /// Requests that are decoded and run at the same time [default: the number of processors over --threads].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Threads that run the network for one request: more for lower latency, fewer for higher throughput.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Most open streaming calls.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().calls)]
    max_calls: usize,
    /// Most open connections.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().connections)]
    max_connections: usize,
    /// Most requests in flight on one connection.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().streams)]
    max_streams: u32,
    /// Longest time for one request; its own deadline may be sooner.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "10s")]
    request_timeout: Duration,
    /// Longest time until the first request of a new connection.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "10s")]
    first_timeout: Duration,
    /// Longest time that a connection may be idle.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "5m")]
    idle_timeout: Duration,
    /// Time between reporting not ready and shutting down, for load balancers to notice.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "0s")]
    drain: Duration,
    /// Longest time to finish requests in flight when shutting down.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "30s")]
    grace: Duration,
}

impl BoundArgs {
    fn bounds(&self) -> Bounds {
        let default = Bounds::default();
        Bounds {
            message: self.max_message,
            layers: self.max_call_message,
            batch: self.max_batch,
            requests: self.max_requests,
            queue: self.queue,
            workers: self.workers.map_or(default.workers.div_ceil(self.threads.into()), usize::from),
            calls: self.max_calls,
            connections: self.max_connections,
            streams: self.max_streams,
            request: self.request_timeout,
            first: self.first_timeout,
            idle: self.idle_timeout,
            drain: self.drain,
            grace: self.grace,
            ..default
        }
    }
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once('x').and_then(|(height, width)| Some((height.parse().ok()?, width.parse().ok()?)));
    sides
        .filter(|&(height, width)| height > 0 && width > 0)
        .ok_or(format!("{text:?} is no size; write for example 224x224"))
}

/// Serves until it is told to end.
pub fn run(args: &Args) -> Result<()> {
    args.logs.start()?;
    let bounds = args.bounds.bounds();
    let models = models(args)?;
    let names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
    let mut server = Server::new(models, bounds.clone())?.threshold(args.threshold);
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let clients = args.tls_client_ca.as_deref().map(pem).transpose()?;
        server = server.identity(Identity { certificate: pem(certificate)?, key: pem(key)?, clients });
    }
    server.warm()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = listen(args.listen).await?;
        let metrics = match args.metrics {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let mut line = format!("listening {}", listener.local_addr()?);
        if let Some(metrics) = &metrics {
            line += &format!(" metrics {}", metrics.local_addr()?);
        }
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (end, ended) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut signal = async || {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            signal().await;
            // It fails if the server has ended already.
            let _ = end.send(());
            signal().await;
            std::process::exit(INTERRUPTED);
        });
        let end = async {
            let _ = ended.await;
        };
        let memory = server.memory();
        let mut serving = std::pin::pin!(server.run(listener, metrics, end));
        // Its first step refuses what it cannot serve with, before anybody is told that it listens.
        tokio::select! {
            biased;
            ended = &mut serving => return ended.context("serving"),
            () = std::future::ready(()) => {}
        }
        tracing::info!(models = names.join(", "), workers = bounds.workers, memory_bound = memory, "{line}");
        print(&line)?;
        serving.await.context("serving")
    })?;
    // Connections that did not end in time are not waited for.
    runtime.shutdown_background();
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

fn pem(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The models that the arguments ask for.
fn models(args: &Args) -> Result<Vec<Model>> {
    if args.cut.is_empty() && !args.whole {
        bail!("nothing to serve: name a tensor with --cut NAME, or the whole network with --whole");
    }
    let network = Arc::new(Network::load(&args.model, args.model_output.as_deref())?);
    let size =
        network.input_size.or(args.size).context("the network leaves the size of its input open: say --size HxW")?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => args.model.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let cuts = args.cut.iter().map(|cut| network.cut(cut, size)).collect::<Result<Vec<Cut>>>()?;
    let profiles = args.profile.iter().map(|path| load_profile(path)).collect::<Result<Vec<Arc<Profile>>>>()?;
    let fits = |profile: &Profile, cut: &Cut| profile.layout().shape() == cut.shape;
    for (profile, path) in profiles.iter().zip(&args.profile) {
        if !cuts.iter().any(|cut| fits(profile, cut)) {
            let shape = profile.layout().shape();
            bail!("profile {} is for features {shape:?}; no cut given has such", path.display());
        }
    }
    let threads = usize::from(args.bounds.threads);
    let mut tails = Vec::new();
    for cut in &cuts {
        let own: Vec<Arc<Profile>> = profiles.iter().filter(|profile| fits(profile, cut)).cloned().collect();
        let tail = CutTail::new(network.clone(), cut.clone(), threads)?;
        tails.push(Model::tail(format!("{name}@{}", cut.name), own, Arc::new(tail)));
    }
    let mut models = Vec::new();
    if let Some(first) = tails.first() {
        let mut any = first.clone();
        any.name.clone_from(&name);
        models.push(any.or(tails[1..].to_vec()));
        models.extend(tails);
    }
    if args.whole {
        let whole = Whole::new(network, args.normalize.resolve()?, size, threads)?;
        models.push(Model::whole(format!("{name}.whole"), Arc::new(whole)));
    }
    Ok(models)
}
