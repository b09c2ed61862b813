//! Bounds hold, and what is refused is told when to come again.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Frame;
use narrows::link::proto::ServerReadyRequest;
use narrows::link::{Bounds, Client, ClientOptions, Data, Layer};
use tonic::codegen::{Bytes, Service, http};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::raw::*;
use crate::support::*;

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_next_one_served() {
    let server = Running::start(Bounds { message: 20_000, ..Bounds::default() }, None).await;
    let mut client = server.connect().await;
    for size in [20_000, 200_000, 10_000_000] {
        let status = client.model_infer(streams(&[vec![0; size]])).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("20000 bytes") && status.message().contains("fewer items"), "{status}");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
        client.model_infer(streams(&[stream(1)])).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_refuses_with_a_hint_and_serves_again_later() {
    let bounds = Bounds { workers: 1, queue: 2, batch: 1, ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let client = server.connect().await;
    server.sums.close();
    let ask = |seed| {
        let mut client = client.clone();
        tokio::spawn(async move { client.model_infer(streams(&[stream(seed)])).await })
    };
    let running = ask(1);
    until("a worker has the first", || {
        server.metric("narrows_payload_bytes_count{input=\"stream\",model=\"sums\"}") == 1.0
    })
    .await;
    until("the queue is empty", || server.metric("narrows_queue_depth") == 0.0).await;
    let waiting = [ask(2), ask(3)];
    until("two wait", || server.metric("narrows_queue_depth") == 2.0).await;
    for _ in 0..5 {
        let status = ask(4).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        let hint: u64 = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
        assert!((1..=10_000).contains(&hint));
    }
    // Questions are answered meanwhile.
    assert!(client.clone().server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    server.sums.open();
    running.await.unwrap().unwrap();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    ask(5).await.unwrap().unwrap();
    assert_eq!(server.metric("narrows_calls_total{code=\"RESOURCE_EXHAUSTED\",method=\"ModelInfer\"}"), 5.0);
}

#[tokio::test]
async fn a_client_that_is_told_to_come_again_does() {
    let bounds = Bounds { workers: 1, queue: 1, batch: 1, ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let options = ClientOptions { servers: vec![format!("http://{}", server.address)], ..ClientOptions::default() };
    let client = Client::new(options).unwrap();
    let mut tasks = Vec::new();
    for i in 0..12 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let data = Data::Bytes(vec![stream(i).into()]);
            let how = Layer { threshold: None, patience: Duration::from_secs(9) };
            match i % 2 {
                0 => client.infer("sums", "stream", &data).await,
                _ => client.stream("sums", "stream", &[stream(i).into()], how).await,
            }
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().logits.len(), 1);
    }
}

#[tokio::test]
async fn a_full_server_is_waited_for_however_many_attempts_that_takes() {
    let bounds = Bounds { workers: 1, queue: 1, batch: 1, ..Bounds::default() };
    let server = Running::start(bounds, None).await;
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
    let retry = narrows::link::Retry { attempts: 2, ..Default::default() };
    let servers = vec![format!("http://{}", server.address)];
    let client = Client::new(ClientOptions { servers, retry, ..ClientOptions::default() }).unwrap();
    let how = Layer { threshold: None, patience: Duration::from_secs(60) };
    let asking = {
        let client = client.clone();
        let data = Data::Bytes(vec![stream(3).into()]);
        tokio::spawn(async move { client.infer("sums", "stream", &data).await })
    };
    let on_call = tokio::spawn(async move { client.stream("sums", "stream", &[stream(4).into()], how).await });
    let refused = "narrows_calls_total{code=\"RESOURCE_EXHAUSTED\",method=\"ModelInfer\"}";
    until("it was refused often", || server.metric(refused) >= 4.0).await;
    server.sums.open();
    assert!(asking.await.unwrap().unwrap().attempts > 4);
    assert!(on_call.await.unwrap().unwrap().attempts > 2);
    for taken in taken {
        taken.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn connections_that_only_begin_requests_give_their_places_to_others() {
    // Heads of questions, for which nothing is kept; and of requests, which are waited for so long.
    for (path, patience) in [(READY, Duration::from_secs(3600)), (INFER, Duration::ZERO), (STREAM, Duration::ZERO)] {
        let server = Running::start(Bounds { connections: 4, patience, ..Bounds::default() }, None).await;
        let mut silent = Vec::new();
        for _ in 0..4 {
            let mut socket = connection(&server.address, &[], &frame(1, 4, 1, &headers(path))).await;
            // It is acknowledged once what came before has been looked at.
            tokio::io::AsyncWriteExt::write_all(&mut socket, &frame(6, 0, 0, &[1; 8])).await.unwrap();
            frames_until(&mut socket, |kind, _| kind == 6).await;
            silent.push(socket);
        }
        assert_eq!(server.metric("narrows_connections"), 4.0);
        server.connect().await.model_infer(streams(&[stream(1)])).await.unwrap();
        assert_eq!(server.metric("narrows_connections_closed_total{reason=\"full\"}"), 0.0, "{path}");
    }
}

#[tokio::test]
async fn a_question_whose_message_does_not_come_is_not_waited_for() {
    let bounds = Bounds { patience: Duration::from_millis(50), request: Duration::from_secs(600), ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let _socket = connection(&server.address, &[], &frame(1, 4, 1, &headers(READY))).await;
    let late = "narrows_calls_total{code=\"DEADLINE_EXCEEDED\",method=\"ModelReady\"}";
    until("it is told so", || server.metric(late) == 1.0).await;
}

#[tokio::test]
async fn one_connection_does_not_keep_all_others_from_streaming() {
    let bounds = Bounds { calls: 8, patience: Duration::from_secs(3600), ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let calls: Vec<u8> = (0..8).flat_map(|i| frame(1, 4, 2 * i + 1, &headers(STREAM))).collect();
    let _greedy = connection(&server.address, &[], &calls).await;
    until("it has all calls", || server.metric("narrows_open_calls") == 8.0).await;
    let how = Layer { threshold: None, patience: Duration::from_secs(60) };
    let clients: Vec<Client> = (0..4).map(|_| server.once()).collect();
    for client in &clients {
        client.stream("sums", "stream", &[stream(1).into()], how).await.unwrap();
    }
    // Which they keep.
    for client in &clients {
        client.stream("sums", "stream", &[stream(2).into()], how).await.unwrap();
    }
    assert_eq!(server.metric("narrows_open_calls"), 8.0);
}

/// HTTP/2 keeps what it is given of an answer, and no place counts it.
#[tokio::test]
async fn answers_keep_their_places_until_they_are_taken() {
    let server = Running::small().await;
    // All requests together are within what a connection may send at once.
    let small = ndarray::ArrayD::<f32>::zeros(SHAPE.to_vec());
    let request = narrows::link::proto::ModelInferRequest {
        model_name: "wide".into(),
        ..streams(&[narrows::Encoder::plain().encode(&small, narrows::Quality::default()).unwrap()])
    };
    let requests: Vec<u8> = (0..32).flat_map(|i| whole(2 * i + 1, INFER, &request)).collect();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(server.address.parse().unwrap()).await.unwrap();
    let windows = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let window = frame(8, 0, 0, &(i32::MAX - 65_535).to_be_bytes());
    let bytes = [PREFACE, &frame(4, 0, 0, &windows), &window, &requests].concat();
    tokio::io::AsyncWriteExt::write_all(&mut socket, &bytes).await.unwrap();
    until("all are answered", || server.metric("narrows_items_total{model=\"wide\"}") == 32.0).await;
    // 11 MiB: sockets take a part of them.
    until("what has not gone out has its place", || server.metric("narrows_untaken_answers") >= 8.0).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let untaken = server.metric("narrows_untaken_answers");
    assert!(untaken >= 8.0, "{untaken}");
}

#[tokio::test]
async fn a_request_leaves_the_others_on_its_connection_room() {
    let server = Running::small().await;
    let mut socket = connection(&server.address, &[], &[]).await;
    let frames = frames_until(&mut socket, |kind, _| kind == 8).await;
    let (_, _, settings) = frames.iter().find(|(kind, ..)| *kind == 4).unwrap();
    let setting = settings.chunks(6).find(|setting| setting[..2] == [0, 4]).unwrap();
    let stream = u32::from_be_bytes(*setting.last_chunk::<4>().unwrap());
    let (_, _, more) = frames.iter().find(|&&(kind, stream, _)| kind == 8 && stream == 0).unwrap();
    let connection = 65_535 + u32::from_be_bytes(*more.last_chunk::<4>().unwrap());
    assert_eq!((stream, connection), (65_536, 262_144));
}

#[tokio::test]
async fn idle_connections_are_told_that_the_server_ends() {
    let mut server = Running::small().await;
    let live = whole(1, LIVE, &narrows::link::proto::ServerLiveRequest {});
    let mut socket = connection(&server.address, &[], &live).await;
    frames_until(&mut socket, |kind, stream| (kind, stream) == (0, 1)).await;
    // For longer than connections may idle once the server ends.
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.stop();
    let frames = frames_until(&mut socket, |_, _| false).await;
    assert!(frames.iter().any(|(kind, ..)| *kind == 7), "{frames:?}");
    server.ended().await;
}

#[tokio::test]
async fn a_client_waits_for_a_server_that_is_starting() {
    // A port that is free, most likely also when the server comes.
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let retry = narrows::link::Retry { attempts: 2, ..Default::default() };
    let servers = vec![format!("http://{address}")];
    let client = Client::new(ClientOptions { servers, retry, ..ClientOptions::default() }).unwrap();
    let waiting = tokio::spawn(async move { client.ready("sums").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let _server = Running::start_at(&address, Bounds::default(), None).await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_replica_that_is_late_is_left_for_another() {
    let slow = Running::start(Bounds { request: Duration::from_millis(200), ..Bounds::default() }, None).await;
    slow.sums.close();
    let fast = Running::small().await;
    let servers = [&slow, &fast].map(|server| format!("http://{}", server.address)).to_vec();
    let client = Client::new(ClientOptions { servers, ..ClientOptions::default() }).unwrap();
    let data = Data::Bytes(vec![stream(1).into()]);
    assert_eq!(client.infer("sums", "stream", &data).await.unwrap().attempts, 2);
    slow.sums.open();
}

#[tokio::test]
async fn what_is_late_is_told_so_and_not_run() {
    let bounds = Bounds { workers: 1, batch: 1, request: Duration::from_secs(1), ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let mut client = server.connect().await;
    server.sums.close();
    for time in [Some(Duration::from_millis(400)), None] {
        let mut request = Request::new(streams(&[stream(1)]));
        if let Some(time) = time {
            request.metadata_mut().insert("grpc-timeout", format!("{}m", time.as_millis()).parse().unwrap());
        }
        let status = client.model_infer(request).await.unwrap_err();
        // The client has a clock of its own for a deadline that it has set, and may be the first to say so.
        let own = time.is_some() && status.code() == Code::Cancelled;
        assert!(own || status.code() == Code::DeadlineExceeded, "{status}");
    }
    until("none is in flight", || server.metric("narrows_in_flight") == 0.0).await;
    server.sums.open();
    client.model_infer(streams(&[stream(1)])).await.unwrap();
    // The first was on a worker when its time was over; the second had not begun.
    assert_eq!(server.sums.runs.lock().unwrap().len(), 2);
}

/// A body that begins a message and goes on for ever without ending it.
struct Endless(bool);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match std::mem::replace(&mut self.0, true) {
            false => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 1, 0, 10, 1]))))),
            true => Poll::Pending,
        }
    }
}

async fn endless(channel: &Channel, method: &str) -> http::Response<tonic::body::Body> {
    let request = http::Request::post(format!("http://x/inference.GRPCInferenceService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Endless(false)))
        .unwrap();
    let mut channel = channel.clone();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    channel.call(request).await.unwrap()
}

#[tokio::test]
async fn bodies_that_never_end_give_their_places_to_those_that_do() {
    let bounds =
        Bounds { requests: 3, patience: Duration::ZERO, request: Duration::from_secs(600), ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let channel = Channel::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move {
                endless(&channel, "ModelInfer").await.headers()["grpc-status"].to_str().unwrap().to_string()
            })
        })
        .collect();
    until("all places are taken", || server.metric("narrows_in_flight") == 3.0).await;
    let mut client = server.connect().await;
    client.model_infer(streams(&[stream(1)])).await.unwrap();
    let refused = server.metric("narrows_calls_total{code=\"RESOURCE_EXHAUSTED\",method=\"ModelInfer\"}");
    assert_eq!(refused, 1.0);
    until("one was told", || tasks.iter().any(|task| task.is_finished())).await;
}

#[tokio::test]
async fn idle_calls_give_their_places_to_new_ones() {
    let bounds = Bounds { calls: 2, patience: Duration::ZERO, ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let mut calls = Vec::new();
    for seed in 0..5 {
        let client = server.once();
        let how = Layer { threshold: None, patience: Duration::from_secs(9) };
        client.stream("sums", "stream", &[stream(seed).into()], how).await.unwrap();
        calls.push(client);
    }
    assert!(server.metric("narrows_open_calls") <= 2.0);
    assert_eq!(server.metric("narrows_streaming_calls_ended_total{code=\"RESOURCE_EXHAUSTED\"}"), 3.0);
}

#[tokio::test]
async fn idle_connections_make_room_and_silent_ones_end() {
    let bounds = Bounds { connections: 3, first: Duration::from_millis(300), ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let mut client = server.connect().await;
    client.model_infer(streams(&[stream(1)])).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(&server.address).await.unwrap());
    }
    until("there are as many as may be", || {
        server.metric("narrows_connections_closed_total{reason=\"evicted\"}") == 18.0
    })
    .await;
    assert!(server.metric("narrows_connections") <= 3.0);
    // Those that were good stay, on the same connection: no other one had to go for a new one.
    client.model_infer(streams(&[stream(1)])).await.unwrap();
    assert_eq!(server.metric("narrows_connections_closed_total{reason=\"evicted\"}"), 18.0);
    until("the silent ones are gone", || server.metric("narrows_connections") == 1.0).await;
    assert_eq!(server.metric("narrows_connections_closed_total{reason=\"idle\"}"), 2.0);
    client.model_infer(streams(&[stream(1)])).await.unwrap();
}

#[tokio::test]
async fn a_server_that_ends_answers_what_is_in_flight_and_tells_open_calls() {
    let mut server = Running::start(Bounds { workers: 1, batch: 1, ..Bounds::default() }, None).await;
    let idle = server.once();
    let how = Layer { threshold: None, patience: Duration::from_secs(9) };
    idle.stream("sums", "stream", &[stream(1).into()], how).await.unwrap();
    server.sums.close();
    let mut client = server.connect().await;
    let on_call = {
        let client = server.once();
        tokio::spawn(async move { client.stream("sums", "stream", &[stream(2).into()], how).await })
    };
    let alone = tokio::spawn(async move { client.model_infer(streams(&[stream(3)])).await });
    until("both are in flight", || server.metric("narrows_in_flight") == 2.0).await;
    server.stop();
    until("the idle call was told", || server.metric("narrows_open_calls") == 1.0).await;
    let refused = server.once().infer("sums", "stream", &Data::Bytes(vec![stream(4).into()])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    server.sums.open();
    assert_eq!(on_call.await.unwrap().unwrap().attempts, 1);
    alone.await.unwrap().unwrap();
    assert_eq!(server.sums.runs.lock().unwrap().len(), 3);
    server.ended().await;
}

#[tokio::test]
async fn a_question_brings_no_large_message() {
    let server = Running::start(Bounds::default(), None).await;
    let claims = |i| [frame(1, 4, i, &headers(READY)), frame(0, 0, i, &[0, 0, 15, 0, 0])].concat();
    let requests: Vec<u8> = (0..20).flat_map(|i| claims(2 * i + 1)).collect();
    let _socket = connection(&server.address, &[], &requests).await;
    let refused = "narrows_calls_total{code=\"RESOURCE_EXHAUSTED\",method=\"ModelReady\"}";
    until("all are refused before it comes", || server.metric(refused) == 20.0).await;
}

/// As many requests as may be in flight, from a peer that takes no answer.
async fn untaken(server: &Running, requests: u32) -> tokio::net::TcpStream {
    let requests: Vec<u8> = (0..requests).flat_map(|i| whole(2 * i + 1, INFER, &streams(&[stream(1)]))).collect();
    connection(&server.address, &NO_WINDOW, &requests).await
}

#[tokio::test]
async fn a_peer_that_takes_no_answer_is_cut_off() {
    let bounds = Bounds { requests: 3, stall: Duration::from_millis(300), ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let mut socket = untaken(&server, 3).await;
    until("the answers are there", || server.metric("narrows_items_total{model=\"sums\"}") == 3.0).await;
    until("they have places", || server.metric("narrows_untaken_answers") == 3.0).await;
    assert_eq!(until_end(&mut socket).await, 0);
    assert_eq!(server.metric("narrows_connections_closed_total{reason=\"stalled\"}"), 1.0);
    until("the places are free", || server.metric("narrows_untaken_answers") == 0.0).await;
    // The same on a streaming call.
    let requests = whole(1, STREAM, &streams(&[stream(1)]));
    let more = whole(1, STREAM, &streams(&[stream(2)]));
    let head = frame(1, 4, 1, &headers(STREAM)).len();
    let unended = |bytes: &[u8]| {
        let mut bytes = bytes[head..].to_vec();
        bytes[4] = 0;
        bytes
    };
    let bytes = [&requests[..head], &unended(&requests), &unended(&more), &unended(&more), &unended(&more)].concat();
    let mut socket = connection(&server.address, &NO_WINDOW, &bytes).await;
    assert_eq!(until_end(&mut socket).await, 0);
    assert_eq!(server.metric("narrows_connections_closed_total{reason=\"stalled\"}"), 2.0);
    until("its place is free", || server.metric("narrows_open_calls") == 0.0).await;
    server.connect().await.model_infer(streams(&[stream(1)])).await.unwrap();
}

#[tokio::test]
async fn answers_that_are_not_taken_give_their_places_to_others() {
    let bounds = Bounds { requests: 2, patience: Duration::ZERO, stall: Duration::from_secs(600), ..Bounds::default() };
    let server = Running::start(bounds, None).await;
    let mut client = server.connect().await;
    let mut socket = untaken(&server, 2).await;
    until("the answers are there", || server.metric("narrows_items_total{model=\"sums\"}") == 2.0).await;
    for _ in 0..3 {
        client.model_infer(streams(&[stream(1)])).await.unwrap();
    }
    assert_eq!(until_end(&mut socket).await, 0);
}

#[tokio::test]
async fn a_run_of_the_tail_holds_no_more_items_than_it_may() {
    let server = Running::start(Bounds { workers: 1, batch: 16, ..Bounds::default() }, None).await;
    let client = server.connect().await;
    let ask = |items: usize| {
        let features: Vec<_> = (0..items).map(feature).collect();
        let views: Vec<_> = features.iter().map(|feature| feature.view()).collect();
        let batch = ndarray::concatenate(ndarray::Axis(0), &views).unwrap();
        let stream = narrows::Encoder::with_profile(profile()).encode(&batch, narrows::Quality::default()).unwrap();
        let mut client = client.clone();
        tokio::spawn(async move { client.model_infer(streams(&[stream])).await })
    };
    // One stream may hold many items; how many is not known before it is decoded.
    for (asked, runs) in [(&[16, 16, 16][..], &[1, 16, 16, 16][..]), (&[6, 7, 8, 3], &[1, 13, 11])] {
        server.sums.runs.lock().unwrap().clear();
        server.sums.close();
        let first = ask(1);
        let read = server.metric("narrows_payload_bytes_count{input=\"stream\",model=\"sums\"}");
        let reads = || server.metric("narrows_payload_bytes_count{input=\"stream\",model=\"sums\"}") - read;
        until("a worker has the first", || reads() == 1.0 && server.metric("narrows_queue_depth") == 0.0).await;
        let mut tasks = vec![first];
        for (i, &items) in asked.iter().enumerate() {
            tasks.push(ask(items));
            until("it is queued", || server.metric("narrows_queue_depth") == 1.0 + i as f64).await;
        }
        server.sums.open();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(*server.sums.runs.lock().unwrap(), runs);
    }
}
