//! What the tests share: a small model, servers in this process and as processes, requests.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use narrows::link::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use narrows::link::proto::model_infer_request::InferInputTensor;
use narrows::link::proto::{InferTensorContents, ModelInferRequest};
use narrows::link::{Bounds, Client, ClientOptions, Identity, Model, Server, Tail};
use narrows::{Encoder, Profile, Quality};
use ndarray::{ArrayD, IxDyn};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo");
/// Shape of the demo's feature.
pub const SHAPE: [usize; 4] = [1, 128, 8, 8];

/// Classes of the model `wide`, whose answers are as large as what HTTP/2 would take of one by default.
pub const WIDE: usize = 90_000;

/// The demo's profile.
pub fn profile() -> Arc<Profile> {
    Arc::new(Profile::load(Path::new(DEMO).join("profile.safetensors")).unwrap())
}

/// The demo's trained profile.
pub fn bottleneck() -> Arc<Profile> {
    Arc::new(Profile::load(Path::new(DEMO).join("bottleneck.safetensors")).unwrap())
}

/// A smooth feature that is not negative, as those of the demo; each seed gives another.
pub fn feature(seed: usize) -> ArrayD<f32> {
    ArrayD::from_shape_fn(IxDyn(&SHAPE), |at| {
        let wave = (at[1] * 7 + seed) as f32 * 0.61 + (at[2] * 2 + at[3]) as f32 * 0.4;
        wave.sin().max(0.0)
    })
}

/// Its stream.
pub fn stream(seed: usize) -> Vec<u8> {
    Encoder::with_profile(profile()).encode(&feature(seed), Quality::default()).unwrap()
}

/// A tail that sums the channels into some classes, and waits at a gate first.
pub struct Sums {
    classes: usize,
    closed: Mutex<bool>,
    opened: Condvar,
    /// Items of each run so far.
    pub runs: Mutex<Vec<usize>>,
}

impl Default for Sums {
    fn default() -> Self {
        Sums { classes: 3, closed: Mutex::default(), opened: Condvar::new(), runs: Mutex::default() }
    }
}

impl Sums {
    /// Lets nothing through until it is opened again.
    pub fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    pub fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }

    /// What it answers for one feature.
    pub fn logits(feature: &ArrayD<f32>) -> Vec<f32> {
        Sums::of(feature, 3)
    }

    fn of(feature: &ArrayD<f32>, classes: usize) -> Vec<f32> {
        let mut logits = vec![0.0; classes];
        for (i, value) in feature.iter().enumerate() {
            logits[i / 64 % classes] += value / 10.0;
        }
        logits
    }
}

impl Tail for Sums {
    fn shape(&self) -> &[usize] {
        &SHAPE[1..]
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn run(&self, batch: &ArrayD<f32>) -> narrows::Result<Vec<Vec<f32>>> {
        let mut closed = self.closed.lock().unwrap();
        while *closed {
            closed = self.opened.wait(closed).unwrap();
        }
        self.runs.lock().unwrap().push(batch.shape()[0]);
        Ok(batch.outer_iter().map(|item| Sums::of(&item.to_owned(), self.classes)).collect())
    }
}

/// A server in this process.
pub struct Running {
    pub address: String,
    pub sums: Arc<Sums>,
    metrics: Box<dyn Fn() -> String>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    _opening: Opening,
}

/// Opens a closed model at the end, also of a test that fails, whose server would wait for it for ever.
struct Opening(Arc<Sums>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl Running {
    /// Serves the small model as `sums`.
    pub async fn start(bounds: Bounds, identity: Option<Identity>) -> Running {
        Running::start_at("127.0.0.1:0", bounds, identity).await
    }

    pub async fn start_at(address: &str, bounds: Bounds, identity: Option<Identity>) -> Running {
        let sums = Arc::new(Sums::default());
        let model = Model::tail("sums", vec![profile()], sums.clone());
        let trained = Model::tail("trained", vec![bottleneck()], Arc::new(Sums { classes: 4, ..Sums::default() }));
        let any = Model::tail("any", vec![profile()], sums.clone()).or(vec![trained]);
        let wide = Model::tail("wide", Vec::new(), Arc::new(Sums { classes: WIDE, ..Sums::default() }));
        let mut server = Server::new(vec![model, any, wide], bounds).unwrap();
        if let Some(identity) = identity {
            server = server.identity(identity);
        }
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let metrics = Box::new(server.metrics());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let end = async {
                let _ = stopped.await;
            };
            server.run(listener, None, end).await.unwrap();
        });
        let _opening = Opening(sums.clone());
        Running { address, sums, metrics, stop: Some(stop), task, _opening }
    }

    pub async fn small() -> Running {
        Running::start(Bounds { workers: 1, ..Bounds::default() }, None).await
    }

    pub async fn connect(&self) -> GrpcInferenceServiceClient<Channel> {
        connect(&self.address).await
    }

    /// A client that tries once.
    pub fn once(&self) -> Client {
        let retry = narrows::link::Retry { attempts: 1, ..Default::default() };
        let servers = vec![format!("http://{}", self.address)];
        Client::new(ClientOptions { servers, retry, ..ClientOptions::default() }).unwrap()
    }

    /// The value of a metric, by the whole name with its labels.
    pub fn metric(&self, name: &str) -> f64 {
        value(&(self.metrics)(), name)
    }

    /// Asks it to end, without waiting.
    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("the server did not end").unwrap();
    }
}

/// The value of a metric in the text format.
pub fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

pub async fn connect(address: &str) -> GrpcInferenceServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    GrpcInferenceServiceClient::new(channel)
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not come to be that {what}");
}

/// A request with streams, raw.
pub fn streams(streams: &[Vec<u8>]) -> ModelInferRequest {
    let mut raw = Vec::new();
    for stream in streams {
        raw.extend_from_slice(&(stream.len() as u32).to_le_bytes());
        raw.extend_from_slice(stream);
    }
    request("stream", "BYTES", vec![streams.len() as i64], Some(raw))
}

pub fn request(input: &str, datatype: &str, shape: Vec<i64>, raw: Option<Vec<u8>>) -> ModelInferRequest {
    let tensor = InferInputTensor { name: input.into(), datatype: datatype.into(), shape, ..Default::default() };
    ModelInferRequest {
        model_name: "sums".into(),
        id: "7".into(),
        inputs: vec![tensor],
        raw_input_contents: raw.into_iter().map(Into::into).collect(),
        ..Default::default()
    }
}

pub fn typed(mut request: ModelInferRequest, contents: InferTensorContents) -> ModelInferRequest {
    request.inputs[0].contents = Some(contents);
    request
}

pub fn f32_bytes<'a>(values: impl IntoIterator<Item = &'a f32>) -> Vec<u8> {
    values.into_iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// `narrows serve` as a process, on the demo network.
pub struct Process {
    pub child: Child,
    pub address: String,
    pub metrics: String,
}

impl Process {
    pub fn start(more: &[&str]) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_narrows"))
            .args(["serve", "--model", "network.onnx", "--model-output", "logits", "--cut", "stage3.0.out"])
            .args(["--profile", "profile.safetensors", "--name", "demo", "--whole", "--normalize", "cifar10"])
            .args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log", "warn"])
            .args(more)
            .current_dir(DEMO)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["listening", address, "metrics", metrics] = words[..] else { panic!("not where it listens: {line:?}") };
        Process { child, address: address.into(), metrics: metrics.into() }
    }

    /// Bytes of memory that are resident.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// What HTTP answers at a path: the status line and the body.
    pub async fn http(&self, path: &str) -> (String, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = tokio::net::TcpStream::connect(&self.metrics).await.unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_string(), body.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
