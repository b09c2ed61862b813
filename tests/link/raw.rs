//! HTTP/2 by hand, for what a well-behaved client does not do.

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
pub const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
pub const LIVE: &str = "/inference.GRPCInferenceService/ServerLive";
pub const READY: &str = "/inference.GRPCInferenceService/ModelReady";
/// Settings that let the peer send nothing of an answer.
pub const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

/// What every connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of a kind: 0 data, 1 headers, 3 reset, 4 settings, 7 the end is near, 8 window, 9 more headers.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A request's headers without compression: literal fields that are not indexed.
pub fn headers(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A whole request: headers, and a message after which nothing comes.
pub fn whole(stream: u32, path: &str, message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let data = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    let mut bytes = frame(1, 4, stream, &headers(path));
    let pieces: Vec<&[u8]> = data.chunks(16_384).collect();
    for (i, piece) in pieces.iter().enumerate() {
        bytes.extend(frame(0, u8::from(i + 1 == pieces.len()), stream, piece));
    }
    bytes
}

/// A connection that has said so much.
pub async fn connection(address: &str, settings: &[u8], rest: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(&[PREFACE, &frame(4, 0, 0, settings), rest].concat()).await.unwrap();
    socket
}

/// The frames that come until one is found, or the peer ends the connection: their kinds, streams and payloads.
pub async fn frames_until(socket: &mut TcpStream, last: impl Fn(u8, u32) -> bool) -> Vec<(u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            return frames;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if socket.read_exact(&mut payload).await.is_err() {
            return frames;
        }
        let (kind, stream) = (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        frames.push((kind, stream, payload));
        if last(kind, stream) {
            return frames;
        }
    }
}

/// Reads until the peer ends the connection; how many bytes of answers came.
pub async fn until_end(socket: &mut TcpStream) -> usize {
    let mut data = 0;
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            return data;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == 0 {
            data += length;
        }
        let mut payload = vec![0; length];
        if socket.read_exact(&mut payload).await.is_err() {
            return data;
        }
    }
}
