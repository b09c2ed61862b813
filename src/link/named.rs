//! What the messages of a streaming call have in common is said once.
//!
//! A message that names neither a model nor an input means those of the message before it on its call, and the outputs that
//! were asked for there: some fifty bytes that a device does not send with every stream.

use super::proto::ModelInferRequest;
use super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};

/// Longest name that is kept.
const NAME: usize = 256;

/// What a message names beside its data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    model: String,
    version: String,
    input: InferInputTensor,
    outputs: Vec<InferRequestedOutputTensor>,
}

impl Named {
    /// What a message names; `None` if it is more than is kept for a call: data in its tensor, parameters, long names.
    fn of(message: &ModelInferRequest) -> Option<Named> {
        let [input] = message.inputs.as_slice() else { return None };
        let plain = input.contents.is_none() && input.parameters.is_empty() && input.shape.len() <= 8;
        let outputs = message.outputs.len() <= 2 && message.outputs.iter().all(|output| output.parameters.is_empty());
        let names = [&message.model_name, &message.model_version, &input.name, &input.datatype];
        let mut names = names.into_iter().chain(message.outputs.iter().map(|output| &output.name));
        (plain && outputs && names.all(|name| name.len() <= NAME)).then(|| Named {
            model: message.model_name.clone(),
            version: message.model_version.clone(),
            input: input.clone(),
            outputs: message.outputs.clone(),
        })
    }

    /// Leaves out of a message what the one before it on its call has said.
    pub fn shorten(named: &mut Option<Named>, mut message: ModelInferRequest) -> ModelInferRequest {
        let own = Named::of(&message);
        if own.is_some() && own == *named {
            message.model_name.clear();
            message.model_version.clear();
            message.inputs.clear();
            message.outputs.clear();
        }
        *named = own;
        message
    }

    /// Puts into a message what was left out of it.
    pub fn complete(named: &mut Option<Named>, message: &mut ModelInferRequest) {
        if !(message.model_name.is_empty() && message.inputs.is_empty()) {
            *named = Named::of(message);
        } else if let Some(named) = named {
            message.model_name.clone_from(&named.model);
            message.model_version.clone_from(&named.version);
            message.inputs = vec![named.input.clone()];
            message.outputs.clone_from(&named.outputs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(model: &str, input: &str, outputs: &[&str]) -> ModelInferRequest {
        let output = |name: &&str| InferRequestedOutputTensor { name: name.to_string(), ..Default::default() };
        let (name, datatype) = (input.to_string(), "BYTES".to_string());
        ModelInferRequest {
            model_name: model.into(),
            id: "1".into(),
            inputs: vec![InferInputTensor { name, datatype, shape: vec![1], ..Default::default() }],
            outputs: outputs.iter().map(output).collect(),
            raw_input_contents: vec![vec![1, 2, 3].into()],
            ..Default::default()
        }
    }

    #[test]
    fn messages_come_out_as_they_were_and_repeat_nothing() {
        let long = "x".repeat(300);
        let messages = [
            (message("a", "stream", &["class"]), false),
            (message("a", "stream", &["class"]), true),
            (message("a", "stream", &["class"]), true),
            (message("b", "stream", &["class"]), false),
            (message("b", "image", &["class"]), false),
            (message("b", "image", &[]), false),
            (message("b", "image", &[]), true),
            (message(&long, "image", &[]), false),
            (message(&long, "image", &[]), false),
            (ModelInferRequest::default(), false),
            (message("b", "image", &[]), false),
        ];
        let (mut sent, mut received) = (None, None);
        for (message, short) in messages {
            let mut passed = Named::shorten(&mut sent, message.clone());
            assert_eq!(passed != message, short, "{message:?}");
            Named::complete(&mut received, &mut passed);
            assert_eq!(passed, message);
        }
    }
}
