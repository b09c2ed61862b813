//! Every call, every input, every mistake.

use narrows::link::proto::*;
use narrows::{Decoder, Encoder, Quality};
use ndarray::Axis;
use tonic::Code;

use crate::support::*;

fn logits(response: &ModelInferResponse) -> Vec<f32> {
    let at = response.outputs.iter().position(|output| output.name == "logits").unwrap();
    match response.raw_output_contents.get(at) {
        Some(raw) => raw.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        None => response.outputs[at].contents.as_ref().unwrap().fp32_contents.clone(),
    }
}

/// What the small model answers for a stream.
fn expected(stream: &[u8]) -> Vec<f32> {
    Sums::logits(&Decoder::new().profile(profile()).decode(stream).unwrap().to_f32())
}

#[tokio::test]
async fn questions_are_answered() {
    let server = Running::small().await;
    let mut client = server.connect().await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let metadata = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!((metadata.name.as_str(), metadata.version.as_str()), ("narrows", env!("CARGO_PKG_VERSION")));
    let name = |name: &str, version: &str| ModelReadyRequest { name: name.into(), version: version.into() };
    assert!(client.model_ready(name("sums", "")).await.unwrap().into_inner().ready);
    assert!(client.model_ready(name("sums", "1")).await.unwrap().into_inner().ready);
    for (model, version) in [("sum", ""), ("sums", "2")] {
        assert_eq!(client.model_ready(name(model, version)).await.unwrap_err().code(), Code::NotFound);
    }
    let request = ModelMetadataRequest { name: "sums".into(), version: String::new() };
    let model = client.model_metadata(request).await.unwrap().into_inner();
    let inputs: Vec<_> =
        model.inputs.iter().map(|t| (t.name.as_str(), t.datatype.as_str(), t.shape.as_slice())).collect();
    assert_eq!(inputs, [("stream", "BYTES", &[-1][..]), ("feature", "FP32", &[-1, 128, 8, 8])]);
    let outputs: Vec<_> =
        model.outputs.iter().map(|t| (t.name.as_str(), t.datatype.as_str(), t.shape.as_slice())).collect();
    assert_eq!(outputs, [("logits", "FP32", &[-1, 3][..]), ("class", "INT64", &[-1])]);
    assert_eq!(model.properties["profiles"], format!("{:016x}", profile().hash()));
}

#[tokio::test]
async fn health_is_what_readiness_is() {
    use health::HealthCheckRequest;
    use health::health_check_response::ServingStatus;
    let mut server = Running::small().await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let mut client = health::health_client::HealthClient::new(channel.connect().await.unwrap());
    let of = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "inference.GRPCInferenceService", "sums", "any"] {
        let status = client.check(of(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    assert_eq!(client.check(of("sum")).await.unwrap_err().code(), Code::NotFound);
    let mut watches = Vec::new();
    for (service, first, last) in [
        ("sums", ServingStatus::Serving, ServingStatus::NotServing),
        ("sum", ServingStatus::ServiceUnknown, ServingStatus::ServiceUnknown),
    ] {
        let mut watch = client.watch(of(service)).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), first);
        watches.push((watch, last));
    }
    // They have places as calls have.
    assert_eq!(server.metric("narrows_open_calls"), 2.0);
    server.stop();
    for (watch, last) in &mut watches {
        let status = loop {
            match watch.message().await {
                Ok(Some(response)) => assert_eq!(response.status(), *last),
                Ok(None) => panic!("a watch ended well"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    server.ended().await;
}

#[tokio::test]
async fn what_there_is_not_is_refused() {
    use crate::raw::*;
    let server = Running::small().await;
    let paths = ["/x.Y/ModelInfer", "/inference.GRPCInferenceService/None", "/grpc.health.v1.Health/List", "/"];
    let requests: Vec<u8> = (0..).zip(paths).flat_map(|(i, path)| frame(1, 4, 2 * i + 1, &headers(path))).collect();
    let _socket = connection(&server.address, &[], &requests).await;
    let refused = "narrows_calls_total{code=\"UNIMPLEMENTED\",method=\"other\"}";
    until("all are refused", || server.metric(refused) == 4.0).await;
    assert_eq!(server.metric("narrows_in_flight"), 0.0);
}

#[tokio::test]
async fn streams_and_features_are_answered_raw_and_typed() {
    let server = Running::small().await;
    let mut client = server.connect().await;
    let stream = stream(1);
    let feature = feature(1);
    let shape: Vec<i64> = SHAPE.map(|size| size as i64).to_vec();
    let bytes = InferTensorContents { bytes_contents: vec![stream.clone().into()], ..Default::default() };
    let floats = InferTensorContents { fp32_contents: feature.iter().copied().collect(), ..Default::default() };
    let cases = [
        (streams(std::slice::from_ref(&stream)), expected(&stream), true),
        (typed(request("stream", "BYTES", vec![1, 1], None), bytes), expected(&stream), false),
        (request("feature", "FP32", shape.clone(), Some(f32_bytes(&feature))), Sums::logits(&feature), true),
        (typed(request("feature", "FP32", shape, None), floats), Sums::logits(&feature), false),
    ];
    for (request, expected, raw) in cases {
        let response = client.model_infer(request).await.unwrap().into_inner();
        assert_eq!((response.model_name.as_str(), response.id.as_str()), ("sums", "7"));
        assert_eq!(response.model_version, "1");
        assert_eq!(logits(&response), expected);
        assert_eq!(!response.raw_output_contents.is_empty(), raw);
        assert_eq!(response.outputs.iter().map(|o| o.shape.clone()).collect::<Vec<_>>(), [vec![1, 3], vec![1]]);
        for name in ["queue", "decode", "tail"] {
            let Some(infer_parameter::ParameterChoice::DoubleParam(seconds)) =
                response.parameters[name].parameter_choice
            else {
                panic!("{name}")
            };
            assert!((0.0..60.0).contains(&seconds));
        }
    }
    // Only what was asked for, in its order.
    let mut request = streams(std::slice::from_ref(&stream));
    request
        .outputs
        .push(model_infer_request::InferRequestedOutputTensor { name: "class".into(), ..Default::default() });
    let response = client.model_infer(request).await.unwrap().into_inner();
    let expected = expected(&stream);
    let class = (0..3).max_by(|&a, &b| expected[a].total_cmp(&expected[b])).unwrap() as i64;
    assert_eq!(response.outputs.len(), 1);
    assert_eq!(response.raw_output_contents, [class.to_le_bytes().to_vec()]);
}

#[tokio::test]
async fn batches_are_answered_item_by_item() {
    let server = Running::small().await;
    let mut client = server.connect().await;
    let all: Vec<Vec<u8>> = (0..5).map(stream).collect();
    let response = client.model_infer(streams(&all)).await.unwrap().into_inner();
    assert_eq!(logits(&response), all.iter().flat_map(|stream| expected(stream)).collect::<Vec<_>>());
    // A stream may itself hold a batch, and needs no profile.
    let two = ndarray::concatenate(Axis(0), &[feature(1).view(), feature(2).view()]).unwrap();
    let lossless = Encoder::lossless().encode(&two, Quality::default()).unwrap();
    let response = client.model_infer(streams(&[lossless, all[0].clone()])).await.unwrap().into_inner();
    assert_eq!(response.outputs[0].shape, [3, 3]);
    let wanted = [Sums::logits(&feature(1)), Sums::logits(&feature(2)), expected(&all[0])].concat();
    assert_eq!(logits(&response), wanted);
}

#[tokio::test]
async fn mistakes_get_their_code_and_a_word_on_what_to_do() {
    let server = Running::small().await;
    let mut client = server.connect().await;
    let good = stream(1);
    let values = f32_bytes(&feature(1));
    let edited = |edit: &dyn Fn(&mut ModelInferRequest)| {
        let mut request = streams(&[stream(1)]);
        edit(&mut request);
        request
    };
    let contents = || Some(InferTensorContents::default());
    let other = {
        // A stream that names another profile.
        let mut stream = good.clone();
        stream[3] ^= 1;
        stream
    };
    let narrow = Encoder::plain().encode(&ndarray::ArrayD::<f32>::zeros(vec![1, 4, 8, 8]), Quality::default()).unwrap();
    let known = format!("{:016x}", profile().hash());
    let mismatch = ["made with profile", &known];
    let cases: Vec<(ModelInferRequest, Code, &[&str])> = vec![
        (edited(&|r| r.model_name = "none".into()), Code::NotFound, &["\"none\"", "there are: any, sums"]),
        (edited(&|r| r.model_version = "3".into()), Code::NotFound, &["version 1"]),
        (edited(&|r| r.inputs.clear()), Code::InvalidArgument, &["0 inputs", "stream or feature"]),
        (edited(&|r| r.inputs.push(r.inputs[0].clone())), Code::InvalidArgument, &["2 inputs"]),
        (
            edited(&|r| r.inputs[0].name = "image".into()),
            Code::InvalidArgument,
            &["\"image\"", "stream (BYTES)", "feature (FP32)"],
        ),
        (edited(&|r| r.inputs[0].datatype = "UINT8".into()), Code::InvalidArgument, &["\"UINT8\"", "BYTES"]),
        (edited(&|r| r.inputs[0].shape = vec![2]), Code::InvalidArgument, &["1 elements", "[2]"]),
        (edited(&|r| r.inputs[0].shape = vec![i64::MAX, 4]), Code::InvalidArgument, &["1 elements"]),
        (edited(&|r| r.inputs[0].shape = vec![-1, -1]), Code::InvalidArgument, &["1 elements", "[-1, -1]"]),
        (edited(&|r| r.inputs[0].contents = contents()), Code::InvalidArgument, &["both"]),
        (edited(&|r| r.raw_input_contents.push(Default::default())), Code::InvalidArgument, &["2 raw_input_contents"]),
        (
            edited(&|r| r.raw_input_contents = vec![vec![1, 0].into()]),
            Code::InvalidArgument,
            &["4 bytes, little-endian"],
        ),
        (edited(&|r| r.raw_input_contents = vec![vec![9, 0, 0, 0, 1].into()]), Code::InvalidArgument, &["end within"]),
        (
            edited(&|r| {
                r.outputs.push(model_infer_request::InferRequestedOutputTensor {
                    name: "boxes".into(),
                    ..Default::default()
                })
            }),
            Code::InvalidArgument,
            &["\"boxes\"", "logits (FP32)"],
        ),
        (streams(&[]), Code::InvalidArgument, &["no items"]),
        (streams(&vec![good.clone(); 17]), Code::InvalidArgument, &["17 items", "at most 16"]),
        (streams(&[b"hello".to_vec()]), Code::InvalidArgument, &["not a narrows stream"]),
        (streams(&[good[..good.len() / 2].to_vec()]), Code::InvalidArgument, &["truncated"]),
        (streams(&[other]), Code::FailedPrecondition, &mismatch),
        (streams(&[narrow]), Code::InvalidArgument, &["[1, 4, 8, 8]", "[128, 8, 8]"]),
        (
            request("feature", "FP32", vec![1, 128, 8], Some(values.clone())),
            Code::InvalidArgument,
            &["[1, 128, 8]", "[n, 128, 8, 8]"],
        ),
        (
            request("feature", "FP32", vec![-1, 128, 8, 8], Some(values.clone())),
            Code::InvalidArgument,
            &["[-1, 128, 8, 8]"],
        ),
        (
            request("feature", "FP32", vec![2, 128, 8, 8], Some(values.clone())),
            Code::InvalidArgument,
            &["32768 bytes", "65536"],
        ),
        (request("feature", "FP16", vec![1, 128, 8, 8], Some(values)), Code::InvalidArgument, &["\"FP16\"", "FP32"]),
        (request("feature", "FP32", vec![1, 128, 8, 8], None), Code::InvalidArgument, &["0 numbers", "8192"]),
    ];
    for (request, code, words) in cases {
        let status = client.model_infer(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{words:?}: {status}");
        for word in words {
            assert!(status.message().contains(word), "{:?} does not say {word:?}", status.message());
        }
    }
    // And still it serves.
    client.model_infer(streams(&[good])).await.unwrap();
    assert_eq!(server.metric("narrows_in_flight"), 0.0);
}

#[tokio::test]
async fn damaged_streams_are_refused_or_answered() {
    let server = Running::small().await;
    let mut client = server.connect().await;
    let good = stream(3);
    let mut state = 1u32;
    for _ in 0..300 {
        let mut bytes = good.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = state as usize >> 8;
            let place = at % bytes.len();
            bytes[place] = (at >> 11) as u8;
        }
        if let Err(status) = client.model_infer(streams(&[bytes])).await {
            let known = [Code::InvalidArgument, Code::FailedPrecondition, Code::Unimplemented];
            assert!(known.contains(&status.code()), "{status}");
        }
    }
}

#[tokio::test]
async fn a_stream_goes_to_the_model_whose_profile_it_names() {
    let server = Running::small().await;
    let mut client = server.connect().await;
    let trained = Encoder::with_profile(bottleneck()).encode(&feature(1), Quality::default()).unwrap();
    for (name, stream, classes) in
        [("any", stream(1), Some(3)), ("any", trained.clone(), Some(4)), ("sums", trained, None)]
    {
        let mut request = streams(&[stream]);
        request.model_name = name.into();
        let answer = client.model_infer(request).await.map(|answer| logits(&answer.into_inner()).len());
        assert_eq!(answer.ok(), classes, "{name}");
    }
}
