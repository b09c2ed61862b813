//! The models of a server: tails of networks, and whole networks.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::ArrayD;
use tonic::Status;

use super::proto::ModelMetadataResponse;
use super::proto::model_metadata_response::TensorMetadata;
use crate::container::Info;
use crate::error::{Error, Result};
use crate::profile::Profile;

/// The version of every model.
pub(crate) const VERSION: &str = "1";

/// What turns features, or the inputs of a whole network, into answers. It runs on the threads of the server's workers, on
/// several at the same time.
pub trait Tail: Send + Sync + 'static {
    /// Shape of what it takes, for one item: without the batch axis.
    fn shape(&self) -> &[usize];

    /// Number of classes.
    fn classes(&self) -> usize;

    /// The scores of each item of a batch `[n, ...shape]`, which is in standard layout.
    ///
    /// # Errors
    /// [`Error::Backend`] if the network cannot be run.
    fn run(&self, batch: &ArrayD<f32>) -> Result<Vec<Vec<f32>>>;

    /// The input `[1, ...shape]` in a compressed image (JPEG, PNG, WebP), of a whole network.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for bytes that are no image of the right size.
    fn image(&self, bytes: &[u8]) -> Result<ArrayD<f32>> {
        let _ = bytes;
        Err(Error::invalid("this model takes no images"))
    }
}

/// What a model takes.
#[derive(Debug, Clone)]
pub enum Accepts {
    /// Streams made with one of these profiles or with none in a BYTES tensor `stream`, or features in an FP32 tensor
    /// `feature`.
    Features(Vec<Arc<Profile>>),
    /// Compressed images in a BYTES tensor `image`, or inputs in an FP32 tensor `x`.
    Images,
}

/// A model of a server.
#[derive(Clone)]
pub struct Model {
    /// Name, as requests have it.
    pub name: String,
    /// What it takes.
    pub accepts: Accepts,
    /// What runs.
    pub tail: Arc<dyn Tail>,
    /// Models to which streams go that were made with their profiles.
    others: Vec<Arc<Model>>,
}

impl Model {
    /// The tail of a network, which takes streams that were made with one of these profiles.
    pub fn tail(name: impl Into<String>, profiles: Vec<Arc<Profile>>, tail: Arc<dyn Tail>) -> Model {
        Model { name: name.into(), accepts: Accepts::Features(profiles), tail, others: Vec::new() }
    }

    /// A whole network, which takes images.
    pub fn whole(name: impl Into<String>, tail: Arc<dyn Tail>) -> Model {
        Model { name: name.into(), accepts: Accepts::Images, tail, others: Vec::new() }
    }

    /// Passes streams on to these models where they were made with a profile of theirs: the tails at several cuts of one
    /// network can be had by one name.
    pub fn or(mut self, others: Vec<Model>) -> Model {
        self.others = others.into_iter().map(Arc::new).collect();
        self
    }

    /// The model that takes a stream: this one, or another one whose profile the stream names.
    pub(crate) fn taking(self: &Arc<Self>, stream: &[u8]) -> &Arc<Model> {
        let Some(hash) = Info::read(stream).ok().and_then(|info| info.profile) else { return self };
        let has = |model: &&Arc<Model>| model.profiles().iter().any(|profile| profile.hash() == hash);
        if has(&self) { self } else { self.others.iter().find(has).unwrap_or(self) }
    }

    /// The hashes of all profiles with which its streams may be made.
    pub(crate) fn hashes(&self) -> Vec<String> {
        let all = std::iter::once(self).chain(self.others.iter().map(Arc::as_ref));
        all.flat_map(Model::profiles).map(|profile| format!("{:016x}", profile.hash())).collect()
    }

    /// Names of the tensors that it takes: that of BYTES, that of FP32.
    pub(crate) fn inputs(&self) -> [&'static str; 2] {
        match self.accepts {
            Accepts::Features(_) => ["stream", "feature"],
            Accepts::Images => ["image", "x"],
        }
    }

    /// Its profiles.
    pub(crate) fn profiles(&self) -> &[Arc<Profile>] {
        match &self.accepts {
            Accepts::Features(profiles) => profiles,
            Accepts::Images => &[],
        }
    }

    /// What the protocol says of it.
    pub(crate) fn metadata(&self) -> ModelMetadataResponse {
        let tensor = |name: &str, datatype: &str, item: &[usize]| TensorMetadata {
            name: name.into(),
            datatype: datatype.into(),
            shape: std::iter::once(-1).chain(item.iter().map(|&size| size as i64)).collect(),
        };
        let [bytes, floats] = self.inputs();
        ModelMetadataResponse {
            name: self.name.clone(),
            versions: vec![VERSION.into()],
            platform: "narrows".into(),
            inputs: vec![tensor(bytes, "BYTES", &[]), tensor(floats, "FP32", self.tail.shape())],
            outputs: vec![tensor("logits", "FP32", &[self.tail.classes()]), tensor("class", "INT64", &[])],
            properties: [("profiles".to_string(), self.hashes().join(","))].into(),
        }
    }
}

/// The models of a server by name.
#[derive(Clone)]
pub(crate) struct Models(BTreeMap<String, Arc<Model>>);

impl Models {
    /// # Errors
    /// `InvalidInput` if there are none, or two of one name.
    pub fn new(models: Vec<Model>) -> Result<Models> {
        let mut all = BTreeMap::new();
        for model in models {
            if let Some(two) = all.insert(model.name.clone(), Arc::new(model)) {
                return Err(Error::invalid(format!("two models are named {}", two.name)));
            }
        }
        if all.is_empty() {
            return Err(Error::invalid("a server needs a model"));
        }
        Ok(Models(all))
    }

    /// One model; the error lists those that there are.
    pub fn get(&self, name: &str, version: &str) -> std::result::Result<&Arc<Model>, Status> {
        let Some(model) = self.0.get(name) else {
            let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
            let name: String = name.chars().take(100).collect();
            return Err(Status::not_found(format!("no model {name:?}; there are: {}", names.join(", "))));
        };
        if !matches!(version, "" | VERSION) {
            return Err(Status::not_found(format!("model {name:?} has version {VERSION} only: leave the version out")));
        }
        Ok(model)
    }

    /// Those, and those that they pass streams on to; each tail once.
    pub fn all(&self) -> Vec<&Arc<Model>> {
        let mut all: Vec<&Arc<Model>> = Vec::new();
        for model in self.0.values().flat_map(|model| std::iter::once(model).chain(&model.others)) {
            if !all.iter().any(|known| Arc::ptr_eq(&known.tail, &model.tail)) {
                all.push(model);
            }
        }
        all
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    struct Nothing;

    impl Tail for Nothing {
        fn shape(&self) -> &[usize] {
            &[1]
        }

        fn classes(&self) -> usize {
            1
        }

        fn run(&self, _: &ArrayD<f32>) -> Result<Vec<Vec<f32>>> {
            Ok(Vec::new())
        }
    }

    /// A model that is never run.
    pub(crate) fn none() -> Model {
        Model::tail("none", Vec::new(), Arc::new(Nothing))
    }

    #[test]
    fn models_that_others_pass_streams_on_to_count_and_tails_count_once() {
        let [first, second] = ["first", "second"].map(|name| Model { name: name.into(), ..none() });
        let any = Model { name: "any".into(), ..first.clone() }.or(vec![second]);
        let models = Models::new(vec![first, any]).unwrap();
        let names: Vec<&str> = models.all().iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["any", "second"]);
    }
}
