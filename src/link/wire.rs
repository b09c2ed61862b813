//! Messages whose decoded form may not be much larger than their bytes.
//!
//! Two bytes of a message can be an empty tensor, which takes hundreds of bytes once decoded; a packed list of small
//! integers grows eightfold. Before a message is decoded, its fields are counted, and it is refused if its decoded form could
//! take more than twice its length and 64 KiB.

use std::marker::PhantomData;

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::codegen::Bytes;
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::bounds::STRUCTURE;
use super::proto;

/// Bytes that a nested message takes at most when it is decoded, its place in a list or map included.
const NESTED: usize = 512;
/// Bytes that a string or byte string takes beside its content.
const STRING: usize = 64;
/// Bytes that a number takes which came in a field of its own.
const NUMBER: usize = 16;

/// What the length-delimited fields of a message are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Strings, and lists of integers.
    Flat,
    /// Of a request.
    Request,
    /// Of a response.
    Response,
    /// Of a response of a stream.
    StreamResponse,
    /// Of an input or output with data.
    Tensor,
    /// Of a requested output.
    Named,
    /// Of what there is to know of a model.
    Metadata,
    /// Of the data of a tensor.
    Contents,
    /// Of an entry of a map: a key and a parameter.
    Entry,
}

impl Shape {
    /// The message in a field, if it holds one.
    fn nested(self, field: u32) -> Option<Shape> {
        match (self, field) {
            (Shape::StreamResponse, 2) => Some(Shape::Response),
            (Shape::Request | Shape::Response, 4) | (Shape::Tensor, 4) => Some(Shape::Entry),
            (Shape::Request | Shape::Response, 5) => Some(Shape::Tensor),
            (Shape::Request, 6) => Some(Shape::Named),
            (Shape::Tensor, 5) => Some(Shape::Contents),
            (Shape::Named, 2) => Some(Shape::Entry),
            (Shape::Metadata, 4..=6) => Some(Shape::Flat),
            (Shape::Entry, 2) => Some(Shape::Flat),
            _ => None,
        }
    }

    /// Most bytes in memory for each byte of a field that holds no message.
    fn growth(self, field: u32) -> usize {
        match (self, field) {
            (Shape::Contents, 1..=5) | (Shape::Tensor, 3) | (Shape::Flat, 3) => 8,
            _ => 1,
        }
    }
}

/// A message whose fields are known here.
pub trait Shaped {
    /// What its fields are.
    const SHAPE: Shape;
}

macro_rules! shaped {
    ($($shape:ident: $($message:path),*;)*) => { $($(
        impl Shaped for $message {
            const SHAPE: Shape = Shape::$shape;
        }
    )*)* };
}

shaped! {
    Flat: proto::ServerLiveRequest, proto::ServerLiveResponse, proto::ServerReadyRequest, proto::ServerReadyResponse,
        proto::ModelReadyRequest, proto::ModelReadyResponse, proto::ServerMetadataRequest, proto::ServerMetadataResponse,
        proto::ModelMetadataRequest, proto::health::HealthCheckRequest, proto::health::HealthCheckResponse;
    Metadata: proto::ModelMetadataResponse;
    Request: proto::ModelInferRequest;
    Response: proto::ModelInferResponse;
    StreamResponse: proto::ModelStreamInferResponse;
}

/// Refuses a message whose decoded form could be much larger than it is.
pub(crate) fn check(bytes: &[u8], shape: Shape) -> Result<(), Status> {
    let mut room = STRUCTURE + 2 * bytes.len();
    match count(bytes, shape, &mut room) {
        Ok(()) => Ok(()),
        Err(Refused) => Err(Status::invalid_argument(format!(
            "a message of {} bytes with more fields, or more small integers, than belong in one: send tensors in \
             raw_input_contents",
            bytes.len()
        ))),
    }
}

struct Refused;

/// Takes what the fields of one message need from the room that is left. What is malformed ends the count: the decoder
/// stops at the same place and says what is wrong.
fn count(mut bytes: &[u8], shape: Shape, room: &mut usize) -> Result<(), Refused> {
    let take = |needed: usize, room: &mut usize| {
        *room = room.checked_sub(needed).ok_or(Refused)?;
        Ok(())
    };
    while !bytes.is_empty() {
        let Ok((field, wire)) = decode_key(&mut bytes) else { return Ok(()) };
        let skip = match wire {
            WireType::Varint => {
                take(NUMBER, room)?;
                if decode_varint(&mut bytes).is_err() {
                    return Ok(());
                }
                continue;
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => {
                let Ok(length) = decode_varint(&mut bytes) else { return Ok(()) };
                let Some(content) = usize::try_from(length).ok().and_then(|length| bytes.get(..length)) else {
                    return Ok(());
                };
                match shape.nested(field) {
                    Some(nested) => {
                        take(NESTED, room)?;
                        count(content, nested, room)?;
                    }
                    None => take(STRING + content.len() * shape.growth(field), room)?,
                }
                bytes = &bytes[content.len()..];
                continue;
            }
            // Groups are not of this protocol.
            WireType::StartGroup | WireType::EndGroup => return Err(Refused),
        };
        take(NUMBER, room)?;
        let Some(rest) = bytes.get(skip..) else { return Ok(()) };
        bytes = rest;
    }
    Ok(())
}

/// The codec of all calls: that of `prost`, with [`check`] before it.
#[derive(Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Shaped + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstDecoder::new(BufferSettings::default()))
    }
}

/// The decoder of [`BoundedCodec`].
#[derive(Debug)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Shaped + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        use prost::bytes::Buf;
        // One message lies in one piece, so this copies nothing.
        let message: Bytes = buffer.copy_to_bytes(buffer.remaining());
        check(&message, U::SHAPE)?;
        U::decode(message).map(Some).map_err(|error| Status::invalid_argument(format!("not a message: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::infer_parameter::ParameterChoice;
    use proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use proto::{InferParameter, InferTensorContents, ModelInferRequest};

    fn request() -> ModelInferRequest {
        ModelInferRequest { model_name: "m".into(), id: "1".into(), ..Default::default() }
    }

    fn refused(message: &ModelInferRequest) -> bool {
        check(&message.encode_to_vec(), Shape::Request).is_err()
    }

    #[test]
    fn ordinary_requests_pass() {
        let parameter = InferParameter { parameter_choice: Some(ParameterChoice::DoubleParam(0.9)) };
        let input = InferInputTensor {
            name: "stream".into(),
            datatype: "BYTES".into(),
            shape: vec![16, 3, 224, 224],
            parameters: [("a".to_string(), parameter.clone())].into(),
            contents: None,
        };
        let mut message = request();
        message.parameters.insert("threshold".into(), parameter);
        message.inputs = vec![input.clone(); 8];
        message.raw_input_contents = vec![vec![7; 100_000].into(); 8];
        assert!(!refused(&message));
        // The same as typed contents: floats, and short byte strings.
        let floats = InferTensorContents { fp32_contents: vec![1.0; 1 << 20], ..Default::default() };
        let strings = InferTensorContents { bytes_contents: vec![vec![1; 40].into(); 64], ..Default::default() };
        for contents in [floats, strings] {
            let mut message = request();
            message.inputs = vec![InferInputTensor { contents: Some(contents), ..input.clone() }];
            assert!(!refused(&message));
        }
    }

    #[test]
    fn messages_that_grow_are_refused() {
        let mut empty_tensors = request();
        empty_tensors.inputs = vec![InferInputTensor::default(); 1000];
        let mut empty_outputs = request();
        empty_outputs.outputs = vec![InferRequestedOutputTensor::default(); 1000];
        let mut parameters = request();
        parameters.parameters = (0..1000).map(|i| (i.to_string(), InferParameter::default())).collect();
        let mut strings = request();
        strings.raw_input_contents = vec![Default::default(); 5000];
        let typed = |contents: InferTensorContents| {
            let mut message = request();
            message.inputs = vec![InferInputTensor { contents: Some(contents), ..Default::default() }];
            message
        };
        let integers = typed(InferTensorContents { int64_contents: vec![1; 100_000], ..Default::default() });
        let bytes = typed(InferTensorContents { bytes_contents: vec![Default::default(); 5000], ..Default::default() });
        let mut axes = request();
        axes.inputs = vec![InferInputTensor { shape: vec![1; 100_000], ..Default::default() }];
        for (name, message) in [
            ("tensors", empty_tensors),
            ("outputs", empty_outputs),
            ("parameters", parameters),
            ("strings", strings),
            ("integers", integers),
            ("bytes", bytes),
            ("axes", axes),
        ] {
            assert!(refused(&message), "{name}");
        }
        // A group, and many numbers in fields that there are not.
        assert!(check(&[0x0b, 0x0c], Shape::Request).is_err());
        assert!(check(&[0x78, 0x01].repeat(6000), Shape::Request).is_err());
    }

    #[test]
    fn cut_off_messages_are_left_to_the_decoder() {
        let mut message = request();
        message.raw_input_contents = vec![vec![7; 1000].into()];
        let bytes = message.encode_to_vec();
        for length in 0..bytes.len() {
            assert!(check(&bytes[..length], Shape::Request).is_ok(), "{length}");
        }
    }
}
