//! Profiles: arbitrary files, and golden ones with scalars and tensors changed, each with the hash that its content
//! needs. One that is read is the same after it was written and read again, and codes features.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use hmac_sha256::Hash;
use libfuzzer_sys::fuzz_target;
use narrows::{Backend, Decoder, Encoder, FeatureView, Profile, Quality};
use narrows_fuzz::{PROFILE_FILES, bits, limits};
use ndarray::{ArrayD, IxDyn};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

const SCALARS: [&str; 11] = [
    "batch_axis",
    "channel_axis",
    "context",
    "dct_shifts",
    "dtype",
    "exponent",
    "lambda",
    "matrix_shifts",
    "rounding",
    "shape",
    "version",
];

#[derive(Debug, Arbitrary)]
enum Edit {
    Number(u8, i16),
    Null(u8),
    Text(u8, bool),
    /// An entry of a list.
    Entry(u8, u8, u32),
    Push(u8, u16),
    Pop(u8),
    /// A byte of a tensor.
    Byte(u8, u16, u8),
    /// Bytes of a tensor from a place on, over and over.
    Fill(u8, u16, [u8; 4]),
    /// Two entries of the bank change places, so that its rows still add up.
    Exchange(u8, u8, u8),
    /// So many elements in all.
    Resize(u8, u16),
    Drop(u8),
}

struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

struct File {
    metadata: Value,
    tensors: Vec<Tensor>,
}

/// The parts of a file, if it is one.
fn read(bytes: &[u8]) -> Option<File> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let metadata = serde_json::from_str(header.metadata().as_ref()?.get("narrows")?).ok()?;
    let tensor = |(name, view): (String, TensorView<'_>)| Tensor {
        name,
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    let mut tensors: Vec<Tensor> = file.tensors().into_iter().map(tensor).collect();
    tensors.sort_by(|one, two| one.name.cmp(&two.name));
    Some(File { metadata, tensors })
}

impl File {
    fn apply(&mut self, edit: &Edit) {
        let scalar = |scalar: u8| SCALARS[usize::from(scalar) % SCALARS.len()];
        let tensor = |tensor: u8| usize::from(tensor) % 14;
        let scalars = &mut self.metadata["profile"];
        match *edit {
            Edit::Number(name, value) => scalars[scalar(name)] = json!(value),
            Edit::Null(name) => scalars[scalar(name)] = Value::Null,
            Edit::Text(name, half) => scalars[scalar(name)] = json!(if half { "f16" } else { "u8" }),
            Edit::Entry(name, at, value) => {
                if let Some(list) = scalars[scalar(name)].as_array_mut().filter(|list| !list.is_empty()) {
                    let at = usize::from(at) % list.len();
                    list[at] = json!(value);
                }
            }
            Edit::Push(name, value) => {
                scalars[scalar(name)].as_array_mut().into_iter().for_each(|list| list.push(json!(value)));
            }
            Edit::Pop(name) => scalars[scalar(name)].as_array_mut().into_iter().for_each(|list| drop(list.pop())),
            Edit::Byte(name, at, value) => {
                if let Some(tensor) = self.tensors.get_mut(tensor(name)).filter(|tensor| !tensor.bytes.is_empty()) {
                    let at = usize::from(at) % tensor.bytes.len();
                    tensor.bytes[at] = value;
                }
            }
            Edit::Fill(name, at, values) => {
                if let Some(tensor) = self.tensors.get_mut(tensor(name)) {
                    let places = tensor.bytes.iter_mut().skip(4 * usize::from(at));
                    places.zip(values.iter().cycle()).for_each(|(byte, &value)| *byte = value);
                }
            }
            Edit::Exchange(row, one, two) => {
                if let Some(bank) = self.tensors.iter_mut().find(|tensor| tensor.name == "bank") {
                    for byte in 0..2 {
                        let [one, two] = [one, two].map(|at| usize::from(row) * 64 + usize::from(at % 32) * 2 + byte);
                        if one.max(two) < bank.bytes.len() {
                            bank.bytes.swap(one, two);
                        }
                    }
                }
            }
            Edit::Resize(name, count) => {
                if let Some(tensor) = self.tensors.get_mut(tensor(name)) {
                    let count = usize::from(count) % 5000;
                    let size = tensor.bytes.len() / tensor.shape.iter().product::<usize>().max(1);
                    tensor.bytes.resize(count * size.max(1), 1);
                    tensor.shape = vec![if size == 0 { 0 } else { count }];
                    if size == 0 {
                        tensor.bytes.clear();
                    }
                }
            }
            Edit::Drop(name) => {
                if tensor(name) < self.tensors.len() {
                    self.tensors.remove(tensor(name));
                }
            }
        }
    }

    /// The hash of the content, as FORMAT.md has it.
    fn hash(&self) -> String {
        let known = SCALARS.map(|name| (name.to_string(), self.metadata["profile"][name].clone()));
        let mut hasher = Hash::new();
        hasher.update(Value::from(serde_json::Map::from_iter(known)).to_string());
        for tensor in &self.tensors {
            hasher.update(&tensor.name);
            hasher.update((tensor.bytes.len() as u64).to_le_bytes());
            hasher.update(&tensor.bytes);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        let first = u64::from_le_bytes(std::array::from_fn(|i| hash[i]));
        format!("{first:016x}")
    }

    fn write(&mut self) -> Option<Vec<u8>> {
        if !self.metadata.is_object() {
            return None;
        }
        self.metadata["hash"] = json!(self.hash());
        let view = |tensor: &Tensor| TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).err();
        if self.tensors.iter().any(|tensor| view(tensor).is_some()) {
            return None;
        }
        let views = self.tensors.iter().map(|tensor| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
            (&tensor.name, view.expect("it was checked"))
        });
        serialize(views, &Some(HashMap::from([("narrows".to_string(), self.metadata.to_string())]))).ok()
    }
}

fn check(file: &[u8]) -> bool {
    let Ok(profile) = Profile::from_bytes(file) else { return false };
    let written = profile.to_bytes();
    let again = Profile::from_bytes(&written).expect("what was written is read");
    assert_eq!(again, profile);
    assert_eq!(again.to_bytes(), written);

    let profile = Arc::new(profile);
    let decoder = |backend: Backend| Decoder::new().profile(profile.clone()).limits(limits(1 << 18)).backend(backend);
    let decode = |bytes: &[u8]| {
        let expected = decoder(Backend::Portable).decode(bytes);
        let other = decoder(Backend::detect()).decode(bytes);
        assert_eq!(other.as_ref().map(bits), expected.as_ref().map(bits));
        expected
    };
    // A feature of the profile's own layout, without and with symbols that are not there.
    let header = [&[0xf7, 0][..], &profile.hash().to_le_bytes(), &[0, 0]].concat();
    let _ = decode(&header);
    let _ = decode(&[&header[..], &[1; 40]].concat());
    // A tiny feature, there and back.
    let layout = profile.layout();
    let mut shape = vec![1; layout.dims().len()];
    shape.iter_mut().rev().take(2).for_each(|size| *size = 3);
    shape[layout.axes.channels] = layout.channels();
    if profile.coder_channels() > 4096 {
        return true;
    }
    let mut i = 0;
    let feature = ArrayD::from_shape_simple_fn(IxDyn(&shape), || {
        i += 1;
        ((i * i % 37) as f32 - 11.0) * if i % 5 == 0 { 40.0 } else { 0.3 }
    });
    let view = FeatureView::from(&feature).with_axes(layout.axes);
    for (scale, rdo) in [(1.0, true), (0.1, false), (0.01, true)] {
        let encode = |backend: Backend| {
            Encoder::with_profile(profile.clone()).rdo(rdo).backend(backend).encode(view.clone(), Quality::Scale(scale))
        };
        let stream = encode(Backend::Portable).expect("a feature with the profile's channels");
        assert_eq!(encode(Backend::detect()).as_ref(), Ok(&stream));
        match decode(&stream) {
            Ok(back) => assert_eq!(back.shape(), feature.shape()),
            Err(error) => assert!(matches!(error, narrows::Error::LimitExceeded { .. }), "{error}"),
        }
    }
    true
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.get(8) == Some(&b'{') {
        // A file: as it is, then with the right hash.
        check(bytes);
        if let Some(hashed) = read(bytes).and_then(|mut file| file.write()) {
            check(&hashed);
        }
        return;
    }
    let Ok((second, edits)) = <(bool, Vec<Edit>)>::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let mut file = read(PROFILE_FILES[usize::from(second)]).expect("a golden profile");
    edits.iter().take(12).for_each(|edit| file.apply(edit));
    if let Some(written) = file.write() {
        let read = check(&written);
        assert!(read || !edits.is_empty(), "the hash of FORMAT.md");
    }
});
