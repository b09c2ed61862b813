//! The device's side: requests to one of several replicas, tried again elsewhere when one is lost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use rand_pcg::Pcg32;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Bytes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::call::{Call, Sent, reply};
use super::connect::{Connect, Traffic};
use super::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::InferRequestedOutputTensor;
use super::proto::{InferParameter, ModelInferRequest, ModelReadyRequest};
use super::retry::{Retry, lost};
use super::tensors::{Data, Output, Times};
use super::transport::certificates;
use crate::container::MAX_LAYERS;
use crate::error::{Error, Result};

/// Largest answer.
const ANSWER: usize = 4 << 20;
/// Largest headers of an answer.
const HEADERS: u32 = 16 << 10;
/// Longest item that goes on a streaming call: to spare a longer one some 100 bytes is of no use, and there are limits on
/// what such calls take.
const STREAMED: usize = 64 << 10;
/// Pings on a connection that waits for an answer: what does not reply is given up, and the request tried elsewhere.
const PING: Duration = Duration::from_secs(5);

/// How a client knows a server, and is known to it: all in PEM.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Root of the server's certificate; there is no `https` without one.
    pub root: Option<String>,
    /// Name in the server's certificate, if it is not that in the address.
    pub name: Option<String>,
    /// Certificate and key of the client, for servers that ask for one.
    pub identity: Option<(String, String)>,
}

/// Where a client sends requests, and how long it tries.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Replicas: `http://host:port` or `https://host:port`.
    pub servers: Vec<String>,
    /// For `https`.
    pub tls: Tls,
    /// When to try again.
    pub retry: Retry,
    /// Time for one attempt. Default 5 s.
    pub attempt: Duration,
    /// Time for all attempts. Default 30 s.
    pub timeout: Duration,
    /// What is asked for; all there is if empty, the default. A class is 8 bytes, the scores of 1,000 classes are 4,000.
    pub outputs: Vec<Output>,
    /// Seed of the jitter, and of the choice of the replica that is asked first: devices of different seeds share them.
    pub seed: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            servers: Vec::new(),
            tls: Tls::default(),
            retry: Retry::default(),
            attempt: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            outputs: Vec::new(),
            seed: 0,
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The class of each item.
    pub classes: Vec<usize>,
    /// The scores of each item, if they were asked for.
    pub logits: Vec<Vec<f32>>,
    /// What the server spent.
    pub times: Times,
    /// Attempts that it took.
    pub attempts: u32,
    /// Seconds of the last attempt, from when it was given to the connection to the answer.
    pub seconds: f64,
    /// Whether a streaming call was opened for it: then a connection may have been made first, which takes longer.
    pub opened: bool,
    /// Bytes of the messages of the last attempt.
    pub bytes: usize,
    /// Layers that were sent, of a layered stream; else 0.
    pub layers: usize,
    /// Layers that the server answered from; else 0.
    pub used: usize,
}

/// How the parts of one stream are sent on a streaming call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// Probability at which the server answers; its own if there is none.
    pub threshold: Option<f64>,
    /// How long the server's word on a layer is waited for before the next one is sent.
    pub patience: Duration,
}

/// A client of one or more replicas. Clone it freely: the clones share connections.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    replicas: Vec<GrpcInferenceServiceClient<Channel>>,
    /// The replica that is asked first.
    first: AtomicUsize,
    options: ClientOptions,
    random: Mutex<Pcg32>,
    traffic: Arc<Traffic>,
    /// Streaming calls that are open and not in use.
    calls: Mutex<Vec<Call>>,
    /// Numbers of the requests on them.
    next: AtomicU64,
}

impl Client {
    /// A client; it connects when it is first used. It must be made within a Tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` if there is no server, an address is none, or the certificates cannot be used or are missing.
    pub fn new(options: ClientOptions) -> Result<Client> {
        if options.servers.is_empty() {
            return Err(Error::invalid("a client needs the address of a server"));
        }
        if let Some(root) = &options.tls.root {
            certificates(root)
                .map_err(|error| Error::invalid(format!("the root of the server's certificate: {error}")))?;
        }
        let traffic = Arc::new(Traffic::default());
        let replica = |address: &String| {
            let invalid = |error: &dyn std::fmt::Display| {
                Error::invalid(format!("server {address}: {error}; write http://host:port or https://host:port"))
            };
            let mut endpoint = Endpoint::from_shared(address.clone())
                .map_err(|error| invalid(&error))?
                .connect_timeout(options.attempt)
                .http2_keep_alive_interval(PING)
                .keep_alive_timeout(options.attempt)
                .http2_max_header_list_size(HEADERS);
            match endpoint.uri().scheme_str() {
                Some("http") => {}
                Some("https") if options.tls.root.is_none() => {
                    return Err(Error::invalid(format!("server {address}: https needs the root of its certificate")));
                }
                Some("https") => {
                    endpoint = endpoint.tls_config(options.tls.config()).map_err(|error| invalid(&error))?
                }
                _ => return Err(invalid(&"no scheme")),
            }
            let channel = endpoint.connect_with_connector_lazy(Connect(traffic.clone()));
            Ok(GrpcInferenceServiceClient::new(channel).max_decoding_message_size(ANSWER))
        };
        let replicas = options.servers.iter().map(replica).collect::<Result<Vec<_>>>()?;
        let random = Mutex::new(Pcg32::new(options.seed, 0));
        let first = AtomicUsize::new(first_of(options.seed, replicas.len()));
        let (calls, next) = (Mutex::default(), AtomicU64::new(0));
        Ok(Client(Arc::new(Shared { replicas, first, options, random, traffic, calls, next })))
    }

    /// Bytes sent and received on the wire so far.
    pub fn traffic(&self) -> (u64, u64) {
        let traffic = &self.0.traffic;
        (traffic.sent.load(Relaxed), traffic.received.load(Relaxed))
    }

    /// Waits until some replica says that it is ready for a model.
    ///
    /// # Errors
    /// The last status, when the time for all attempts is over; `NOT_FOUND` for a model that there is not,
    /// `UNAUTHENTICATED` if no replica is who it should be.
    pub async fn ready(&self, model: &str) -> std::result::Result<(), Status> {
        // However many attempts that takes: a server that is just starting refuses connections at once.
        self.attempts(u32::MAX, |replica, time| async move {
            let mut replica = self.0.replicas[replica].clone();
            let mut request = Request::new(ModelReadyRequest { name: model.into(), version: String::new() });
            request.set_timeout(time);
            match replica.model_ready(request).await?.into_inner().ready {
                true => Ok(()),
                false => Err(Status::unavailable("the server is not ready")),
            }
        })
        .await
        .map(|_| ())
    }

    /// Sends items to a model and waits for the class of each, and for the scores if they are asked for.
    ///
    /// `input` is the name of the tensor: `stream` or `feature` of a tail, `image` or `x` of a whole network.
    ///
    /// # Errors
    /// What the server said if it refused; else the status of the last attempt, or `DEADLINE_EXCEEDED`.
    pub async fn infer(&self, model: &str, input: &str, data: &Data) -> std::result::Result<Reply, Status> {
        let (tensor, raw) = data.tensor(input);
        let message = ModelInferRequest {
            model_name: model.into(),
            inputs: vec![tensor],
            outputs: self.outputs(),
            raw_input_contents: vec![raw],
            ..Default::default()
        };
        let bytes = message.encoded_len();
        let (reply, attempts) = self
            .attempts(self.0.options.retry.attempts, |replica, time| {
                let mut replica = self.0.replicas[replica].clone();
                let mut request = Request::new(message.clone());
                request.set_timeout(time);
                async move {
                    let start = Instant::now();
                    let response = replica.model_infer(request).await?.into_inner();
                    let seconds = start.elapsed().as_secs_f64();
                    Ok(Reply { seconds, bytes, ..reply(&response)? })
                }
            })
            .await?;
        Ok(Reply { attempts, ..reply })
    }

    /// Sends one item on a streaming call, whole or layer by layer until the server has its answer. The call stays open for
    /// the next one, which spares it some 50 bytes of headers, and some 50 bytes of names. A whole item of more than
    /// 64 KiB goes as [`Client::infer`] sends it.
    ///
    /// # Errors
    /// As [`Client::infer`]; `INVALID_ARGUMENT` if there are no parts, or more than 4.
    pub async fn stream(
        &self,
        model: &str,
        input: &str,
        parts: &[Bytes],
        how: Layer,
    ) -> std::result::Result<Reply, Status> {
        match parts {
            [] => return Err(Status::invalid_argument("no parts: a stream is sent in one at least")),
            [whole] if whole.len() > STREAMED => {
                return self.infer(model, input, &Data::Bytes(vec![whole.clone()])).await;
            }
            _ if parts.len() > MAX_LAYERS => {
                let text = format!("{} parts: a stream is sent in 1 to {MAX_LAYERS}", parts.len());
                return Err(Status::invalid_argument(text));
            }
            _ => {}
        }
        let id = self.0.next.fetch_add(1, Relaxed).to_string();
        let message = |i: usize| {
            let (tensor, raw) = Data::Bytes(vec![parts[i].clone()]).tensor(input);
            let mut message = ModelInferRequest {
                model_name: model.into(),
                id: id.clone(),
                inputs: vec![tensor],
                outputs: self.outputs(),
                raw_input_contents: vec![raw],
                ..Default::default()
            };
            let mut set = |name: &str, value| {
                message.parameters.insert(name.into(), InferParameter { parameter_choice: Some(value) });
            };
            let more = i + 1 < parts.len();
            if parts.len() > 1 {
                set("more", ParameterChoice::BoolParam(more));
            }
            if let (true, Some(threshold)) = (more, how.threshold) {
                set("threshold", ParameterChoice::DoubleParam(threshold));
            }
            message
        };
        let messages: Vec<ModelInferRequest> = (0..parts.len()).map(message).collect();
        let messages = messages.as_slice();
        let (reply, attempts) = self
            .attempts(self.0.options.retry.attempts, |replica, _| async move {
                let (mut call, sent) = self.call(replica, &messages[0]).await?;
                let reply = call.answer(messages, sent, how.patience).await?;
                // What was answered late, or refused, is not used again: its call is dropped with what is still on it.
                self.0.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
                Ok(reply)
            })
            .await?;
        Ok(Reply { attempts, ..reply })
    }

    /// What is asked for, as the protocol has it.
    fn outputs(&self) -> Vec<InferRequestedOutputTensor> {
        let asked = |output: &Output| InferRequestedOutputTensor { name: output.name().into(), ..Default::default() };
        self.0.options.outputs.iter().map(asked).collect()
    }

    /// An open call to a replica; else a new one, with which the first message goes out: then one is sent already.
    async fn call(&self, replica: usize, first: &ModelInferRequest) -> std::result::Result<(Call, Sent), Status> {
        {
            let mut calls = self.0.calls.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = calls.iter().position(|call| call.replica == replica && !call.sender.is_closed()) {
                return Ok((calls.swap_remove(at), Sent::none()));
            }
            calls.retain(|call| !call.sender.is_closed());
        }
        let (sender, receiver) = mpsc::channel(MAX_LAYERS);
        let (mut sent, mut named) = (Sent::opening(), None);
        sent.send(&sender, &mut named, first)?;
        let responses = self.0.replicas[replica].clone().model_stream_infer(ReceiverStream::new(receiver)).await?;
        Ok((Call { replica, sender, responses: responses.into_inner(), named }, sent))
    }

    /// Calls one replica after the other until one answers, the time is over, there were so many attempts, or it makes no
    /// sense to go on.
    async fn attempts<T, F>(
        &self,
        most: u32,
        mut call: impl FnMut(usize, Duration) -> F,
    ) -> std::result::Result<(T, u32), Status>
    where
        F: Future<Output = std::result::Result<T, Status>>,
    {
        let Shared { replicas, first, options, random, .. } = &*self.0;
        let retry = Retry { attempts: most, ..options.retry.clone() };
        let end = Instant::now() + options.timeout;
        let mut attempt = 0;
        loop {
            let replica = first.load(Relaxed) % replicas.len();
            let time = options.attempt.min(end.saturating_duration_since(Instant::now()));
            attempt += 1;
            let result = match tokio::time::timeout(time, call(replica, time)).await {
                Ok(result) => result,
                Err(_) => Err(Status::unavailable(format!("no answer within {:.3} s", time.as_secs_f64()))),
            };
            let status = match result {
                Ok(answer) => return Ok((answer, attempt)),
                Err(status) => lost(status),
            };
            let others = (attempt as usize) < replicas.len();
            let wait = match status.code() {
                // Another replica may have a certificate that is good.
                Code::Unauthenticated if others => Some(Duration::ZERO),
                _ => {
                    let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
                    retry.wait(attempt, &status, &mut random)
                }
            };
            let Some(wait) = wait else { return Err(status) };
            // The next one is asked first from now on, unless another call has moved on already.
            let next = (replica + 1) % replicas.len();
            let _ = first.compare_exchange(replica, next, Relaxed, Relaxed);
            // Another replica need not be waited for, until all have been asked.
            let wait = if others { Duration::ZERO } else { wait };
            if Instant::now() + wait >= end {
                let (time, last) = (options.timeout.as_secs_f64(), status.message());
                return Err(Status::deadline_exceeded(format!(
                    "no answer within {time:.3} s, {attempt} attempts: {last}"
                )));
            }
            tracing::debug!(attempt, code = ?status.code(), error = status.message(), "trying again");
            tokio::time::sleep(wait).await;
        }
    }
}

/// The replica that a client of a seed asks first.
fn first_of(seed: u64, replicas: usize) -> usize {
    // Fibonacci hashing: also seeds that follow each other share the replicas evenly.
    (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % replicas
}

impl Tls {
    fn config(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        if let Some(root) = &self.root {
            config = config.ca_certificate(Certificate::from_pem(root));
        }
        if let Some(name) = &self.name {
            config = config.domain_name(name);
        }
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_share_the_replicas() {
        for replicas in [1, 2, 3, 7] {
            let mut asked = vec![0; replicas];
            (0..1000).for_each(|seed| asked[first_of(seed, replicas)] += 1);
            let fair = 1000 / replicas;
            assert!(asked.iter().all(|&count| count > fair / 2 && count < 2 * fair), "{asked:?}");
        }
    }
}
