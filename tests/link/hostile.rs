//! Hostile clients beside a good one: it is answered, and the server does not grow beyond its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use narrows::link::proto::ModelInferRequest;
use narrows::link::{Bounds, Client, ClientOptions, Data, Layer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::*;
use crate::support::*;

/// Most bytes of a message, requests, calls, connections: small, so that all of them are reached.
const BOUNDS: [&str; 8] =
    ["--max-message", "1000000", "--max-requests", "8", "--max-calls", "16", "--max-connections", "64"];

/// How long the attack lasts: a few seconds, or `NARROWS_HOSTILE_SECONDS`.
fn seconds() -> u64 {
    std::env::var("NARROWS_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// Writes until the peer has had enough, or for so long.
async fn write(socket: &mut TcpStream, bytes: &[u8]) -> bool {
    matches!(tokio::time::timeout(Duration::from_secs(5), socket.write_all(bytes)).await, Ok(Ok(())))
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A request that is answered.
fn good() -> ModelInferRequest {
    ModelInferRequest { model_name: "demo".into(), ..streams(&[stream(1)]) }
}

/// One hostile connection.
async fn attack(address: &str, kind: u64, random: &mut Random) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    match kind % 14 {
        // Random bytes, with the right beginning or without it.
        0 => drop(write(&mut socket, &random.bytes(4096)).await),
        1 => drop(write(&mut socket, &[PREFACE, &frame(4, 0, 0, &[]), &random.bytes(4096)].concat()).await),
        // A frame that says it is 16 MiB long.
        2 => drop(
            write(&mut socket, &[PREFACE, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], &random.bytes(60_000)].concat()).await,
        ),
        // Headers one byte at a time.
        3 => {
            let bytes = [PREFACE.to_vec(), frame(4, 0, 0, &[]), frame(1, 4, 1, &headers(INFER))].concat();
            for byte in bytes {
                if !write(&mut socket, &[byte]).await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        // Many requests whose messages begin, claim much, and never end; nothing of the answers is read.
        4 | 5 | 8 => {
            let path = match kind % 14 {
                4 => INFER,
                5 => STREAM,
                _ => READY,
            };
            let mut bytes = [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
            for stream in 0..40u32 {
                bytes.extend(frame(1, 4, 2 * stream + 1, &headers(path)));
                bytes.extend(frame(0, 0, 2 * stream + 1, &[&[0, 0, 15, 0, 0][..], &random.bytes(6000)].concat()));
            }
            write(&mut socket, &bytes).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // Streams that are opened and reset at once.
        6 => {
            let mut bytes = [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
            for stream in 0..2000u32 {
                bytes.extend(frame(1, 4, 2 * stream + 1, &headers(INFER)));
                bytes.extend(frame(3, 0, 2 * stream + 1, &[0, 0, 0, 8]));
            }
            write(&mut socket, &bytes).await;
        }
        // Headers without end.
        7 => {
            let mut bytes = [PREFACE.to_vec(), frame(4, 0, 0, &[]), frame(1, 0, 1, &headers(INFER))].concat();
            for _ in 0..200 {
                bytes.extend(frame(9, 0, 1, &[&[0, 1, b'a', 127, 128, 120][..], &[b'x'; 15_000]].concat()));
            }
            write(&mut socket, &bytes).await;
        }
        // Good requests whose answers HTTP/2 is not let send.
        9 => {
            let requests: Vec<u8> = (0..20).flat_map(|i| whole(2 * i + 1, INFER, &good())).collect();
            let bytes = [PREFACE, &frame(4, 0, 0, &NO_WINDOW), &requests].concat();
            write(&mut socket, &bytes).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        // Questions whose messages do not come, one after the other, so that the connection never idles.
        10 => {
            let mut bytes = [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
            for stream in 0..6u32 {
                bytes.extend(frame(1, 4, 2 * stream + 1, &headers(LIVE)));
                write(&mut socket, &std::mem::take(&mut bytes)).await;
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        }
        // All calls that a connection may have, and a mistake on each before it would lose its place.
        11 => {
            let mut bytes = [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat();
            (0..32u32).for_each(|stream| bytes.extend(frame(1, 4, 2 * stream + 1, &headers(STREAM))));
            for _ in 0..4 {
                (0..32u32)
                    .for_each(|stream| bytes.extend(frame(0, 0, 2 * stream + 1, &[0, 0, 0, 0, 4, 10, 2, 110, 111])));
                write(&mut socket, &std::mem::take(&mut bytes)).await;
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
        }
        // Answers for which HTTP/2 has all the room there is, and the socket none.
        12 => {
            let requests: Vec<u8> = (0..32).flat_map(|i| whole(2 * i + 1, INFER, &good())).collect();
            let windows = frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
            write(&mut socket, &[PREFACE, &windows, &requests].concat()).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // Pings and settings, none of whose answers are read.
        _ => {
            let mut bytes = PREFACE.to_vec();
            for _ in 0..20_000 {
                bytes.extend(frame(6, 0, 0, &[1; 8]));
                bytes.extend(frame(4, 0, 0, &[]));
            }
            write(&mut socket, &bytes).await;
            let mut some = [0; 100];
            let _ = tokio::time::timeout(Duration::from_millis(200), socket.read(&mut some)).await;
        }
    }
    Ok(())
}

/// Requests that are well formed and mean harm: large messages, many tensors, streams of noise, compressed bombs of fields.
async fn requests(address: &str, random: &mut Random) {
    let Ok(channel) = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap().connect().await
    else {
        return;
    };
    let mut client = narrows::link::proto::grpc_inference_service_client::GrpcInferenceServiceClient::new(channel);
    let mut many = streams(&[]);
    many.model_name = "demo".into();
    many.inputs = vec![Default::default(); 100_000];
    let mut large = streams(&[random.bytes(2_000_000)]);
    large.model_name = "demo".into();
    let mut noise = streams(&[[&stream(1)[..12], &random.bytes(100_000)].concat()]);
    noise.model_name = "demo".into();
    let mut image = request(
        "image",
        "BYTES",
        vec![1],
        Some([&40_000u32.to_le_bytes()[..], b"\x89PNG\r\n\x1a\n", &random.bytes(39_992)].concat()),
    );
    image.model_name = "demo.whole".into();
    let mut named = streams(&[stream(1)]);
    named.model_name = "demo".into();
    named.id = "x".repeat(900_000);
    for request in [many, large, noise, image, named] {
        let answer = tokio::time::timeout(Duration::from_secs(5), client.model_infer(request)).await;
        assert!(!matches!(answer, Ok(Ok(_))), "it was answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_neither_stop_the_service_nor_make_it_grow() {
    let server = Process::start(&[&BOUNDS[..], &["--first-timeout", "2s"]].concat());
    let bounds = Bounds { message: 1_000_000, requests: 8, calls: 16, connections: 64, ..Bounds::default() };
    let options = ClientOptions { servers: vec![format!("http://{}", server.address)], ..ClientOptions::default() };
    let mut good = Client::new(options.clone()).unwrap();
    let data = Data::Bytes(vec![stream(1).into()]);
    for _ in 0..20 {
        good.infer("demo", "stream", &data).await.unwrap();
    }
    let base = server.resident();
    let stop = Arc::new(AtomicBool::new(false));
    let opened = Arc::new(AtomicU64::new(0));
    let mut attackers = Vec::new();
    for i in 0..64u64 {
        let (address, stop, opened) = (server.address.clone(), stop.clone(), opened.clone());
        attackers.push(tokio::spawn(async move {
            let mut random = Random(i + 1);
            for round in 0.. {
                if stop.load(Relaxed) {
                    return;
                }
                if i == 0 {
                    requests(&address, &mut random).await;
                    continue;
                }
                // A connection that is refused is as good as one that is closed.
                let _ = attack(&address, i + round, &mut random).await;
                opened.fetch_add(1, Relaxed);
            }
        }));
    }
    // And connections that are held open and say nothing.
    let silent = {
        let (address, stop, opened) = (server.address.clone(), stop.clone(), opened.clone());
        tokio::spawn(async move {
            let mut held = std::collections::VecDeque::new();
            while !stop.load(Relaxed) {
                if let Ok(socket) = TcpStream::connect(&address).await {
                    held.push_back(socket);
                    opened.fetch_add(1, Relaxed);
                }
                if held.len() > 400 {
                    held.pop_front();
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    let start = std::time::Instant::now();
    let (mut answers, mut retries, mut most, mut slowest) = (0u64, 0, base, 0f64);
    while start.elapsed() < Duration::from_secs(seconds()) {
        if answers % 10 == 9 {
            // One that has yet to get in.
            good = Client::new(options.clone()).unwrap();
        }
        let asked = std::time::Instant::now();
        let how = Layer { threshold: None, patience: Duration::from_secs(9) };
        let reply = match answers % 2 {
            0 => good.infer("demo", "stream", &data).await,
            _ => good.stream("demo", "stream", &[stream(1).into()], how).await,
        };
        let reply = reply.expect("the good client is answered");
        slowest = slowest.max(asked.elapsed().as_secs_f64());
        answers += 1;
        retries += reply.attempts - 1;
        most = most.max(server.resident());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.store(true, Relaxed);
    let opened = opened.load(Relaxed);
    println!(
        "{} s: {opened} hostile connections; {answers} good answers, {retries} retries, slowest {:.3} s; resident {:.1} MiB \
         before, {:.1} MiB at most, bound {:.1} MiB more",
        seconds(),
        slowest,
        base as f64 / (1 << 20) as f64,
        most as f64 / (1 << 20) as f64,
        bounds.memory(10) as f64 / (1 << 20) as f64
    );
    assert!(answers > 10 && opened > 300, "{answers} answers, {opened} hostile connections");
    assert!(
        most - base <= bounds.memory(10),
        "{base} bytes before, {most} at most, {} more are admitted",
        bounds.memory(10)
    );
    for attacker in attackers {
        attacker.await.unwrap();
    }
    silent.await.unwrap();
    let (_, metrics) = server.http("/metrics").await;
    assert!(value(&metrics, "narrows_connections") <= 64.0);
    assert!(value(&metrics, "narrows_in_flight") <= 8.0);
    good.infer("demo", "stream", &data).await.unwrap();
}
