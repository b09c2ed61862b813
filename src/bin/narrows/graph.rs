//! Where a network may be cut: the values that alone separate its input from its output.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use rten_onnx::onnx::{GraphProto, ModelProto, NodeProto};

/// The names in an ONNX graph that splitting needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The one input.
    pub input: String,
    /// Shape of the input; `None` for an axis of free length.
    pub input_shape: Vec<Option<usize>>,
    /// All outputs.
    pub outputs: Vec<String>,
    /// The output that is the answer.
    pub output: String,
    /// The separating values in the order of computation, input and output left out.
    pub cuts: Vec<String>,
    /// All other values that are computed on the way.
    pub others: Vec<String>,
    /// The outputs that are not the answer, and where they branch off: those that need less of the way to the answer first.
    pub branches: Vec<Branch>,
}

/// An output beside the answer, for example an early exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Name of the output.
    pub output: String,
    /// The values that it is computed from and that the answer needs too.
    pub from: Vec<String>,
}

impl Graph {
    /// Reads an ONNX file; `output` chooses among several outputs (default: the first).
    pub fn read(onnx: &[u8], output: Option<&str>) -> Result<Graph> {
        let model = ModelProto::parse_buf(onnx).ok().and_then(|model| model.graph);
        let graph = model.filter(|graph| !graph.node.is_empty()).context("it is not an ONNX model")?;
        let initializers: HashSet<&str> =
            graph.initializer.iter().filter_map(|tensor| tensor.name.as_deref()).collect();
        let inputs: Vec<_> = graph
            .input
            .iter()
            .filter(|value| !initializers.contains(value.name.as_deref().unwrap_or_default()))
            .collect();
        let [input] = inputs.as_slice() else {
            let names: Vec<_> = inputs.iter().filter_map(|input| input.name.as_deref()).collect();
            bail!("the model has {} inputs ({}), it should have one", names.len(), names.join(", "));
        };
        let shape = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()?.shape.as_ref());
        let input_shape = shape.map(|shape| {
            let fixed = |value: Option<i64>| value.filter(|&size| size > 0).map(|size| size as usize);
            shape.dim.iter().map(|dim| fixed(dim.dim_value)).collect()
        });
        let outputs: Vec<String> = graph.output.iter().filter_map(|value| value.name.clone()).collect();
        let output = match output {
            Some(name) if outputs.iter().any(|output| output == name) => name.to_string(),
            Some(name) => bail!("the model has no output {name}, only {}", outputs.join(", ")),
            None => outputs.first().context("the model has no output")?.clone(),
        };
        let input = input.name.clone().context("the input of the model has no name")?;
        let (cuts, others) = separators(&graph, &input, &output)?;
        let branches = branches(&graph, &input, &output, &outputs);
        let input_shape = input_shape.unwrap_or_default();
        Ok(Graph { input, input_shape, outputs, output, cuts, others, branches })
    }
}

/// The values between `input` and `output`: first those that separate, then the rest.
///
/// Nodes come in topological order. If a value separates, all other nodes on the way are either
/// before it or after it in *every* such order, so it is then the only value that is still needed.
fn separators(graph: &GraphProto, input: &str, output: &str) -> Result<(Vec<String>, Vec<String>)> {
    let nodes: Vec<(HashSet<&str>, &NodeProto)> = graph.node.iter().map(|node| (uses(node), node)).collect();
    let mut from_input = HashSet::from([input]);
    for (uses, node) in &nodes {
        if uses.iter().any(|name| from_input.contains(name)) {
            from_input.extend(results(node));
        }
    }
    if !from_input.contains(output) {
        bail!("output {output} of the model does not depend on input {input}");
    }
    let mut needed = HashSet::from([output]);
    let mut path = Vec::new();
    for (uses, node) in nodes.iter().rev() {
        if results(node).any(|name| needed.contains(name)) {
            let uses: Vec<&str> = uses.iter().copied().filter(|name| from_input.contains(name)).collect();
            needed.extend(&uses);
            path.push((uses, *node));
        }
    }
    path.reverse();
    let mut pending: HashMap<&str, usize> = HashMap::from([(output, 1)]);
    for name in path.iter().flat_map(|(uses, _)| uses) {
        *pending.entry(name).or_default() += 1;
    }
    let mut live = HashSet::from([input]);
    let (mut cuts, mut others) = (Vec::new(), Vec::new());
    for (uses, node) in &path {
        for name in uses {
            let left = pending.entry(name).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                live.remove(name);
            }
        }
        if uses.is_empty() {
            continue; // a constant
        }
        let made: Vec<&str> = results(node).filter(|name| pending.contains_key(name)).collect();
        live.extend(&made);
        for name in made.into_iter().filter(|&name| name != output) {
            let list = if live.len() == 1 { &mut cuts } else { &mut others };
            list.push(name.to_string());
        }
    }
    Ok((cuts, others))
}

/// The outputs that are not the answer, each with the values at which it leaves the way to the answer. Those that need less
/// of that way come first.
fn branches(graph: &GraphProto, input: &str, output: &str, outputs: &[String]) -> Vec<Branch> {
    let shared = needed(graph, input, output);
    let branch = |name: &String| {
        let own = needed(graph, input, name);
        let depth = own.intersection(&shared).count();
        let mut from = Vec::new();
        for node in graph.node.iter().filter(|node| results(node).any(|made| own.contains(made))) {
            if results(node).any(|made| shared.contains(made)) {
                continue;
            }
            let mut read: Vec<&str> = uses(node).into_iter().filter(|value| shared.contains(value)).collect();
            read.sort_unstable();
            from.extend(read.into_iter().map(str::to_string));
        }
        if shared.contains(name.as_str()) {
            from.push(name.clone());
        }
        from.dedup();
        (depth, Branch { output: name.clone(), from })
    };
    let mut branches: Vec<(usize, Branch)> = outputs.iter().filter(|name| *name != output).map(branch).collect();
    branches.sort_by_key(|&(depth, _)| depth);
    branches.into_iter().map(|(_, branch)| branch).collect()
}

/// The values on the way from `input` to `output`, both included; constants are left out.
fn needed<'a>(graph: &'a GraphProto, input: &'a str, output: &'a str) -> HashSet<&'a str> {
    let mut from_input = HashSet::from([input]);
    for node in &graph.node {
        if uses(node).iter().any(|name| from_input.contains(name)) {
            from_input.extend(results(node));
        }
    }
    let mut needed = HashSet::from([output]);
    for node in graph.node.iter().rev() {
        if results(node).any(|name| needed.contains(name)) {
            needed.extend(uses(node));
        }
    }
    needed.retain(|name| from_input.contains(name));
    needed
}

/// The values that a node reads, those of its subgraphs included.
fn uses(node: &NodeProto) -> HashSet<&str> {
    let mut names: HashSet<&str> = node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    let subgraphs = node.attribute.iter().filter_map(|attribute| attribute.g.as_ref());
    names.extend(subgraphs.flat_map(|graph| graph.node.iter().flat_map(uses)));
    names
}

fn results(node: &NodeProto) -> impl Iterator<Item = &str> {
    node.output.iter().map(String::as_str).filter(|name| !name.is_empty())
}

/// The names sorted by how near they are to `wanted`: shared words first, then edits.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<(usize, &str)> =
        names.into_iter().map(|name| (distance(&wanted.to_lowercase(), &name.to_lowercase()), name)).collect();
    ranked.sort_by_key(|&(distance, _)| distance);
    ranked.into_iter().map(|(_, name)| name).collect()
}

/// Levenshtein distance in which what `name` has before and after a match of `wanted` counts little.
fn distance(wanted: &str, name: &str) -> usize {
    if name.contains(wanted) {
        return name.len() - wanted.len();
    }
    let name: Vec<char> = name.chars().collect();
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (i, a) in wanted.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in name.iter().enumerate() {
            let next = (diagonal + usize::from(a != b)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    1000 + row[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec![output.to_string()],
            ..NodeProto::default()
        }
    }

    #[test]
    fn only_values_that_every_path_crosses_are_cuts() {
        // x -> a -> (b, c) -> d -> y, with a shortcut a -> d, a weight and a side output.
        let graph = GraphProto {
            node: vec![
                node(&["x", "weight"], "a"),
                node(&["a"], "b"),
                node(&["a"], "side"),
                node(&["b"], "c"),
                node(&[], "constant"),
                node(&["c", "a", "constant"], "d"),
                node(&["d"], "y"),
            ],
            ..GraphProto::default()
        };
        let (cuts, others) = separators(&graph, "x", "y").unwrap();
        assert_eq!(cuts, ["a", "d"]);
        assert_eq!(others, ["b", "c"]);
        assert_eq!(separators(&graph, "x", "side").unwrap().0, ["a"]);
        assert!(separators(&graph, "weight2", "y").is_err());
    }

    #[test]
    fn exits_branch_off_where_the_answer_goes_on() {
        // x -> a -> b -> y; e -> exit from a and b, an exit that lies on the way, and one that leaves it first.
        let graph = GraphProto {
            node: vec![
                node(&["x", "weight"], "a"),
                node(&["a"], "b"),
                node(&["a", "b", "weight"], "e"),
                node(&["e"], "exit"),
                node(&["b"], "y"),
                node(&["a"], "soon"),
            ],
            ..GraphProto::default()
        };
        let names = ["exit", "b", "y", "soon"].map(str::to_string);
        let found = branches(&graph, "x", "y", &names);
        let expected = [("soon", vec!["a"]), ("exit", vec!["a", "b"]), ("b", vec!["b"])];
        let found: Vec<_> =
            found.iter().map(|b| (b.output.as_str(), b.from.iter().map(String::as_str).collect())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_nearest_name_comes_first() {
        let names = ["/layer1/Relu_output_0", "/layer2/Relu_output_0", "/layer2/Conv_output_0"];
        assert_eq!(nearest("/layer2/relu_1_output_0", names)[0], "/layer2/Relu_output_0");
        assert_eq!(nearest("layer2/Conv", names)[0], "/layer2/Conv_output_0");
    }
}
