//! Streaming calls: requests one after the other, and streams layer by layer.

use std::time::Duration;

use narrows::link::proto::infer_parameter::ParameterChoice;
use narrows::link::proto::{InferParameter, ModelInferRequest};
use narrows::link::{Client, ClientOptions, Data, Layer, Output, Reply};
use narrows::{Encoder, Info, Quality};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codegen::Bytes;

use crate::support::*;

/// The layers of a stream of three.
fn layers(seed: usize) -> Vec<Bytes> {
    let stream = Encoder::with_profile(profile()).layers(3).encode(&feature(seed), Quality::default()).unwrap();
    let ends = Info::read(&stream).unwrap().layers;
    assert_eq!(ends.len(), 3);
    let stream = Bytes::from(stream);
    std::iter::once(0).chain(ends.clone()).zip(ends).map(|(from, end)| stream.slice(from..end)).collect()
}

fn options(server: &Running) -> ClientOptions {
    ClientOptions { servers: vec![format!("http://{}", server.address)], ..ClientOptions::default() }
}

fn client(server: &Running) -> Client {
    Client::new(options(server)).unwrap()
}

/// The scores of a stream.
fn logits(stream: &[u8]) -> Vec<f32> {
    Sums::logits(&narrows::Decoder::new().profile(profile()).decode(stream).unwrap().to_f32())
}

async fn send(client: &Client, layers: &[Bytes], threshold: f64) -> Reply {
    let how = Layer { threshold: Some(threshold), patience: Duration::from_secs(60) };
    client.stream("sums", "stream", layers, how).await.unwrap()
}

#[tokio::test]
async fn a_confident_base_layer_is_all_that_is_sent() {
    let server = Running::small().await;
    let client = client(&server);
    let layers = layers(1);
    let all = layers.concat();
    // Whatever the confidence is, it is at least 0, and below 1.
    for (threshold, sent, prefix) in [(0.0, 1, &layers[0][..]), (1.0, 3, &all[..]), (0.0, 1, &layers[0][..])] {
        let reply = send(&client, &layers, threshold).await;
        assert_eq!((reply.layers, reply.used, reply.attempts), (sent, sent, 1));
        assert_eq!(reply.logits, [logits(prefix)]);
    }
    assert_eq!(server.metric("narrows_layers_answered_total{layers=\"1\",model=\"sums\"}"), 2.0);
    assert_eq!(server.metric("narrows_layers_answered_total{layers=\"3\",model=\"sums\"}"), 1.0);
    // All of it on one call.
    assert_eq!(server.metric("narrows_open_calls"), 1.0);
    assert_eq!(server.metric("narrows_in_flight"), 0.0);
}

#[tokio::test]
async fn a_device_without_patience_sends_all_and_is_answered_once() {
    let server = Running::small().await;
    let client = client(&server);
    let how = Layer { threshold: Some(0.0), patience: Duration::ZERO };
    for seed in 0..20 {
        let reply = client.stream("sums", "stream", &layers(seed), how).await.unwrap();
        assert_eq!(reply.logits.len(), 1);
    }
}

#[tokio::test]
async fn a_device_gets_no_more_than_it_asks_for() {
    let server = Running::small().await;
    let (layers, how) = (layers(1), Layer { threshold: Some(1.0), patience: Duration::from_secs(60) });
    let scores = logits(&layers.concat());
    let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
    for outputs in [vec![], vec![Output::Logits], vec![Output::Class], vec![Output::Class, Output::Logits]] {
        let options = ClientOptions { outputs: outputs.clone(), ..options(&server) };
        let client = Client::new(options).unwrap();
        let streamed = client.stream("sums", "stream", &layers, how).await.unwrap();
        let asked = client.infer("sums", "stream", &Data::Bytes(vec![layers.concat().into()])).await.unwrap();
        for reply in [streamed, asked] {
            assert_eq!(reply.classes, [best], "{outputs:?}");
            assert_eq!(reply.logits.len(), usize::from(outputs != [Output::Class]), "{outputs:?}");
        }
    }
}

/// A call on which messages can be sent by hand.
async fn open(
    server: &Running,
) -> (mpsc::Sender<ModelInferRequest>, tonic::Streaming<narrows::link::proto::ModelStreamInferResponse>) {
    let (sender, receiver) = mpsc::channel(16);
    let responses = server.connect().await.model_stream_infer(ReceiverStream::new(receiver)).await.unwrap();
    (sender, responses.into_inner())
}

fn parameter(request: &mut ModelInferRequest, name: &str, value: ParameterChoice) {
    request.parameters.insert(name.into(), InferParameter { parameter_choice: Some(value) });
}

#[tokio::test]
async fn ordinary_requests_are_answered_on_a_streaming_call_and_mistakes_do_not_end_it() {
    let server = Running::small().await;
    let (sender, mut responses) = open(&server).await;
    let mut wrong = streams(&[stream(1)]);
    wrong.model_name = "none".into();
    wrong.id = "wrong".into();
    let mut doubtful = streams(&[stream(1)]);
    doubtful.id = "doubtful".into();
    parameter(&mut doubtful, "threshold", ParameterChoice::DoubleParam(1.5));
    for (request, error) in [
        (streams(&[stream(1), stream(2)]), ""),
        (wrong, "NOT_FOUND: no model \"none\""),
        (doubtful, "INVALID_ARGUMENT: parameter threshold"),
        (streams(&[stream(3)]), ""),
    ] {
        let id = request.id.clone();
        sender.send(request).await.unwrap();
        let response = responses.message().await.unwrap().unwrap();
        assert!(response.error_message.starts_with(error), "{}", response.error_message);
        assert_eq!(response.error_message.is_empty(), error.is_empty());
        let answer = response.infer_response.unwrap();
        assert_eq!(answer.id, id);
        assert_eq!(answer.outputs.is_empty(), !error.is_empty());
    }
    drop(sender);
    assert!(responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn layers_of_several_streams_may_be_mixed_but_not_without_end() {
    let server = Running::small().await;
    let (sender, mut responses) = open(&server).await;
    let all = layers(2);
    let message = |id: &str, layer: usize| {
        let mut request = streams(&[all[layer].to_vec()]);
        request.id = id.into();
        parameter(&mut request, "more", ParameterChoice::BoolParam(layer < 2));
        parameter(&mut request, "threshold", ParameterChoice::DoubleParam(1.0));
        request
    };
    for layer in 0..3 {
        for id in ["a", "b"] {
            sender.send(message(id, layer)).await.unwrap();
            let answer = responses.message().await.unwrap().unwrap().infer_response.unwrap();
            assert_eq!((answer.id.as_str(), answer.outputs.is_empty()), (id, layer < 2));
        }
    }
    // Streams that are never finished make room for new ones: the oldest is forgotten, its last layer alone is no stream.
    for i in 0..5 {
        sender.send(message(&i.to_string(), 0)).await.unwrap();
        assert!(responses.message().await.unwrap().unwrap().error_message.is_empty());
    }
    sender.send(message("0", 2)).await.unwrap();
    let response = responses.message().await.unwrap().unwrap();
    assert!(response.error_message.starts_with("INVALID_ARGUMENT"), "{}", response.error_message);
    // A message beyond the limit ends the call.
    sender.send(streams(&[vec![0; 300 << 10]])).await.unwrap();
    let status = loop {
        match responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the call ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("262144"), "{status}");
}
