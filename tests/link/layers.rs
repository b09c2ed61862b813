//! Streaming calls: requests one after the other, and streams layer by layer.

use std::time::Duration;

use narrows::link::proto::infer_parameter::ParameterChoice;
use narrows::link::proto::{InferParameter, ModelInferRequest};
use narrows::link::{Bounds, Client, ClientOptions, Data, Layer, Output, Reply};
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
    assert!(status.message().contains("262144") && status.message().contains("--max-call-message"), "{status}");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
}

#[tokio::test]
async fn every_message_is_answered_whatever_came_before_under_its_id() {
    let server = Running::small().await;
    let (sender, mut responses) = open(&server).await;
    let all = layers(2);
    let message = |bytes: &[u8], id: &str, more: Option<bool>| {
        let mut request = streams(&[bytes.to_vec()]);
        request.id = id.into();
        if let Some(more) = more {
            parameter(&mut request, "more", ParameterChoice::BoolParam(more));
            parameter(&mut request, "threshold", ParameterChoice::DoubleParam(0.0));
        }
        request
    };
    let whole = stream(5);
    // After an early answer, layers that are late are passed over: they have none of their own.
    for (bytes, id, more, answered) in [
        (&all[0][..], "a", Some(true), Some("")),
        (&all[1], "a", Some(true), None),
        (&all[0], "a", Some(true), Some("")),
        (&whole, "a", None, Some("")),
        (&all[1], "a", Some(true), None),
        (&all[2], "a", Some(false), None),
        (&all[0], "a", Some(true), Some("")),
        (&whole, "a", Some(false), Some("")),
        (&all[0], "", Some(true), Some("INVALID_ARGUMENT: a layer without an id")),
        (&all[0], "", Some(false), Some("INVALID_ARGUMENT: a layer without an id")),
        (&whole, "", None, Some("")),
    ] {
        sender.send(message(bytes, id, more)).await.unwrap();
        let Some(error) = answered else { continue };
        let response = responses.message().await.unwrap().unwrap();
        assert_eq!(response.infer_response.as_ref().unwrap().id, id);
        assert!(response.error_message.starts_with(error), "{}", response.error_message);
        assert_eq!(response.error_message.is_empty(), error.is_empty(), "{}", response.error_message);
    }
    drop(sender);
    assert!(responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn long_ids_are_neither_kept_nor_repeated() {
    let server = Running::small().await;
    let (sender, mut responses) = open(&server).await;
    let mut client = server.connect().await;
    for (length, taken) in [(256, true), (257, false), (100_000, false)] {
        let mut request = streams(&[stream(1)]);
        request.id = "i".repeat(length);
        sender.send(request.clone()).await.unwrap();
        let response = responses.message().await.unwrap().unwrap();
        assert_eq!(response.error_message.is_empty(), taken, "{}", response.error_message);
        assert_eq!(response.infer_response.unwrap().id.len(), 256);
        let answer = client.model_infer(request).await;
        assert_eq!(answer.map_err(|status| status.code()).err(), (!taken).then_some(Code::InvalidArgument));
    }
}

#[tokio::test]
async fn a_call_that_brings_nothing_but_mistakes_ends() {
    let server = Running::small().await;
    let (sender, mut responses) = open(&server).await;
    let mut wrong = streams(&[stream(1)]);
    wrong.model_name = "none".into();
    for good in [15, 16] {
        for i in 0..16 {
            let request = if i == good { streams(&[stream(1)]) } else { wrong.clone() };
            sender.send(request).await.unwrap();
            match responses.message().await {
                Ok(Some(response)) => assert_eq!(response.error_message.is_empty(), i == good),
                Ok(None) => panic!("the call ended well"),
                Err(status) => {
                    assert_eq!((good, i, status.code()), (16, 15, Code::NotFound), "{status}");
                    return;
                }
            }
        }
    }
    panic!("the call goes on");
}

#[tokio::test]
async fn long_items_go_on_calls_of_their_own() {
    let server = Running::small().await;
    let how = Layer { threshold: None, patience: Duration::from_secs(60) };
    let item = Bytes::from(Encoder::lossless().encode(&noise(), Quality::default()).unwrap());
    assert!(item.len() > 256 << 10, "{}", item.len());
    let reply = client(&server).stream("sums", "stream", &[item], how).await.unwrap();
    assert_eq!((reply.logits.len(), reply.attempts), (16, 1));
    assert_eq!(server.metric("narrows_calls_total{code=\"OK\",method=\"ModelInfer\"}"), 1.0);
}

/// Features that no codec makes small.
fn noise() -> ndarray::ArrayD<f32> {
    let mut state = 1u32;
    ndarray::ArrayD::from_shape_simple_fn(vec![16, 128, 8, 8], || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as f32 / u32::MAX as f32
    })
}

#[tokio::test]
async fn all_layers_on_a_call_have_one_bound_and_what_is_beyond_it_is_sent_once() {
    let stream = Encoder::with_profile(profile()).layers(3).encode(&feature(1), Quality::Scale(0.05)).unwrap();
    let ends = Info::read(&stream).unwrap().layers;
    let stream = Bytes::from(stream);
    let parts: Vec<Bytes> =
        [0].into_iter().chain(ends.clone()).zip(ends).map(|(from, end)| stream.slice(from..end)).collect();
    // Each message is within it.
    assert!(parts.iter().all(|part| part.len() + 200 < stream.len()), "{parts:?}");
    for (layers, fits) in [(stream.len(), true), (stream.len() - 1, false)] {
        let server = Running::start(Bounds { layers, ..Bounds::default() }, None).await;
        let how = Layer { threshold: Some(1.0), patience: Duration::from_secs(60) };
        let reply = client(&server).stream("sums", "stream", &parts, how).await;
        match reply {
            Ok(reply) => assert_eq!((fits, reply.used), (true, 3)),
            Err(status) => {
                assert_eq!((fits, status.code()), (false, Code::ResourceExhausted), "{status}");
                assert!(status.message().contains("--max-call-message"), "{status}");
            }
        }
    }
}

#[tokio::test]
async fn a_full_queue_says_on_a_call_when_to_come_again() {
    let server = Running::start(Bounds { workers: 1, queue: 1, batch: 1, ..Bounds::default() }, None).await;
    server.sums.close();
    let mut taken = Vec::new();
    for i in 0..2 {
        let mut client = server.connect().await;
        taken.push(tokio::spawn(async move { client.model_infer(streams(&[stream(i)])).await }));
        let read = "narrows_payload_bytes_count{input=\"stream\",model=\"sums\"}";
        until("it is taken", || {
            server.metric(read) == 1.0 + i as f64 && server.metric("narrows_queue_depth") == i as f64
        })
        .await;
    }
    let (sender, mut responses) = open(&server).await;
    sender.send(streams(&[stream(3)])).await.unwrap();
    let response = responses.message().await.unwrap().unwrap();
    assert!(response.error_message.starts_with("RESOURCE_EXHAUSTED"), "{}", response.error_message);
    let hint = &response.infer_response.unwrap().parameters["retry_pushback_ms"];
    assert!(matches!(hint.parameter_choice, Some(ParameterChoice::Int64Param(1..))), "{hint:?}");
    server.sums.open();
    for taken in taken {
        taken.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_call_lasts_as_long_as_its_client_says() {
    // The bound is on a request, not on a call that brings many.
    let bounds = Bounds { request: Duration::from_millis(300), ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    for (timeout, lasts) in [("60S", true), ("300m", false)] {
        let (sender, receiver) = mpsc::channel(1);
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        let mut client = server.connect().await;
        let mut answers = client.model_stream_infer(request).await.unwrap().into_inner();
        let mut last = Ok(None);
        for _ in 0..6 {
            // A call that has ended takes none.
            let _ = sender.send(streams(&[stream(1)])).await;
            last = answers.message().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(matches!(last, Ok(Some(_))), lasts, "{timeout}: {last:?}");
    }
}

#[tokio::test]
async fn what_a_client_has_left_behind_is_not_run() {
    let server = Running::small().await;
    server.sums.close();
    let running = {
        let client = client(&server);
        let data = Data::Bytes(vec![stream(1).into()]);
        tokio::spawn(async move { client.infer("sums", "stream", &data).await })
    };
    let read = "narrows_payload_bytes_count{input=\"stream\",model=\"sums\"}";
    until("a worker has the first", || server.metric(read) == 1.0 && server.metric("narrows_queue_depth") == 0.0).await;
    let left = {
        let client = client(&server);
        let how = Layer { threshold: None, patience: Duration::from_secs(60) };
        tokio::spawn(async move { client.stream("sums", "stream", &[stream(2).into()], how).await })
    };
    until("the second waits", || server.metric("narrows_queue_depth") == 1.0).await;
    left.abort();
    until("its call has ended", || server.metric("narrows_streaming_calls_ended_total{code=\"CANCELLED\"}") == 1.0)
        .await;
    server.sums.open();
    running.await.unwrap().unwrap();
    until("it is dropped", || server.metric("narrows_dropped_total{reason=\"gone\"}") == 1.0).await;
    assert_eq!(server.sums.runs.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn names_are_said_once_on_a_call() {
    let server = Running::small().await;
    let client = client(&server);
    let how = Layer { threshold: Some(1.0), patience: Duration::from_secs(60) };
    let payload = Bytes::from(stream(1));
    let mut bytes = Vec::new();
    for model in ["sums", "sums", "any", "sums", "sums"] {
        let reply = client.stream(model, "stream", std::slice::from_ref(&payload), how).await.unwrap();
        assert_eq!(reply.logits, [logits(&payload)]);
        bytes.push(reply.bytes - payload.len());
    }
    // Its number, its length and those of what it is in.
    assert!(bytes[0] > 30 && bytes[2] > 30 && bytes[3] > 30, "{bytes:?}");
    assert!(bytes[1] < 18 && bytes[4] < 18, "{bytes:?}");
    assert_eq!(server.metric("narrows_open_calls"), 1.0);
}
