//! A bundle's network with its trunk in f16, written for a strongly typed TensorRT network.
//!
//! The bundle's file stores the large weights as f16 under Cast nodes that widen them ([`super::super::widen`]); here
//! those Casts go, and what lies on the way to the last such convolution computes in f16. The rest stays in f32: the
//! output convolution, softmax and soft-argmax, pooling and sigma. So nothing has to be shipped beside the bundle, and
//! every bundle there is has an engine. Weights are the same numbers in both; only what is computed with them is rounded.

use std::collections::{BTreeMap, BTreeSet};

use half::f16;
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType,
};

use super::error::TensorRtError;

/// What the rewrite is; part of an engine's key.
pub(super) const REVISION: u32 = 1;

/// The network in mixed precision, or as it is where it stores no f16.
///
/// # Errors
/// When it is no ONNX, or one whose form the rewrite does not know.
pub fn mixed_precision(network: &[u8]) -> Result<Vec<u8>, TensorRtError> {
    let refused = |reason: String| TensorRtError::Network { reason };
    let mut model = ModelProto::decode(network).map_err(|error| refused(error.to_string()))?;
    let Some(graph) = &mut model.graph else { return Err(refused("it has no graph".to_owned())) };
    let nodes = std::mem::take(&mut graph.node);
    let constants: BTreeMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let stored = stored_halves(&nodes, &constants);
    let half = half_nodes(&nodes, &stored);
    if half.is_empty() {
        return Ok(network.to_vec());
    }
    let mut rewrite = Rewrite { constants: &constants, stored: &stored, narrowed: BTreeMap::new(), nodes: Vec::new() };
    let halves: BTreeSet<&str> = half.iter().flat_map(|&at| &nodes[at].output).map(String::as_str).collect();
    if let Some(output) = graph.output.iter().find(|output| halves.contains(output.name.as_str())) {
        return Err(refused(format!("its output {} is computed by a convolution that stores f16", output.name)));
    }
    let mut cast: BTreeSet<String> = BTreeSet::new();
    for (at, node) in nodes.iter().enumerate() {
        let is_half = half.contains(&at);
        let mut node = node.clone();
        for input in &mut node.input {
            let has = halves.contains(input.as_str());
            let is_constant = constants.contains_key(input.as_str()) || stored.contains_key(input.as_str());
            if is_half && is_constant {
                *input = rewrite.narrow(input)?;
            } else if is_half != has && !is_constant && !input.is_empty() {
                let (suffix, to) = if is_half { ("half", DataType::Float16) } else { ("float", DataType::Float) };
                let name = format!("{input}.{suffix}");
                if cast.insert(name.clone()) {
                    rewrite.nodes.push(cast_node(input, &name, to));
                }
                *input = name;
            }
        }
        rewrite.nodes.push(node);
    }
    let Rewrite { narrowed, nodes, .. } = rewrite;
    graph.node = nodes;
    graph.initializer.extend(narrowed.into_values());
    drop_unread(graph);
    Ok(model.encode_to_vec())
}

/// The results of Casts that widen a stored f16, and what they widen.
fn stored_halves<'a>(nodes: &'a [NodeProto], constants: &BTreeMap<&str, &TensorProto>) -> BTreeMap<&'a str, &'a str> {
    let widened = |node: &'a NodeProto| match (node.op_type.as_str(), &node.input[..], &node.output[..]) {
        ("Cast", [stored], [result]) => {
            let is_half = constants.get(stored.as_str()).is_some_and(|t| t.data_type == DataType::Float16 as i32);
            is_half.then_some((result.as_str(), stored.as_str()))
        }
        _ => None,
    };
    nodes.iter().filter_map(widened).collect()
}

/// Which nodes compute in f16: convolutions with stored f16, what leads to them, and the ReLU that follows one.
fn half_nodes(nodes: &[NodeProto], stored: &BTreeMap<&str, &str>) -> BTreeSet<usize> {
    let is_stored = |node: &NodeProto| node.output.iter().any(|output| stored.contains_key(output.as_str()));
    let mut half = BTreeSet::new();
    let mut needed: BTreeSet<&str> = BTreeSet::new();
    // ONNX has its nodes in the order in which they run.
    for (at, node) in nodes.iter().enumerate().rev().filter(|(_, node)| !is_stored(node)) {
        let weighs = node.op_type == "Conv" && node.input.get(1).is_some_and(|w| stored.contains_key(w.as_str()));
        if weighs || node.output.iter().any(|output| needed.contains(output.as_str())) {
            half.insert(at);
            needed.extend(node.input.iter().map(String::as_str));
        }
    }
    let convolved: BTreeSet<&str> = half.iter().flat_map(|&at| &nodes[at].output).map(String::as_str).collect();
    let follows = |node: &NodeProto| node.op_type == "Relu" && convolved.contains(node.input[0].as_str());
    half.extend(nodes.iter().enumerate().filter(|(_, node)| follows(node)).map(|(at, _)| at));
    half
}

struct Rewrite<'a> {
    constants: &'a BTreeMap<&'a str, &'a TensorProto>,
    stored: &'a BTreeMap<&'a str, &'a str>,
    /// f16 of what the file has as f32, by their new names.
    narrowed: BTreeMap<String, TensorProto>,
    nodes: Vec<NodeProto>,
}

impl Rewrite<'_> {
    /// The name of the f16 in the place of this constant; one that is no float stays.
    fn narrow(&mut self, name: &str) -> Result<String, TensorRtError> {
        if let Some(stored) = self.stored.get(name) {
            return Ok((*stored).to_owned());
        }
        let Some(tensor) = self.constants.get(name).filter(|t| t.data_type == DataType::Float as i32) else {
            return Ok(name.to_owned());
        };
        let narrow = format!("{name}.half");
        if !self.narrowed.contains_key(&narrow) {
            let (values, rest) = tensor.raw_data.as_chunks::<4>();
            let whole = rest.is_empty() && !values.is_empty();
            let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(f32::from_le_bytes(v))).collect();
            if !whole || !halves.iter().all(|v| v.is_finite()) {
                let reason = format!("{name} holds what f16 cannot, or holds it in another field than raw_data");
                return Err(TensorRtError::Network { reason });
            }
            let half = TensorProto {
                name: narrow.clone(),
                dims: tensor.dims.clone(),
                data_type: DataType::Float16 as i32,
                raw_data: halves.into_iter().flat_map(f16::to_le_bytes).collect(),
                ..TensorProto::default()
            };
            self.narrowed.insert(narrow.clone(), half);
        }
        Ok(narrow)
    }
}

fn cast_node(from: &str, to: &str, data_type: DataType) -> NodeProto {
    let attribute = AttributeProto {
        name: "to".to_owned(),
        r#type: AttributeType::Int as i32,
        i: data_type as i64,
        ..AttributeProto::default()
    };
    NodeProto {
        name: to.to_owned(),
        op_type: "Cast".to_owned(),
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        attribute: vec![attribute],
        ..NodeProto::default()
    }
}

/// Takes out the Casts and constants that nothing reads any more.
fn drop_unread(graph: &mut tract_onnx::pb::GraphProto) {
    let outputs: BTreeSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let read: BTreeSet<String> = graph.node.iter().flat_map(|node| node.input.clone()).chain(outputs).collect();
    graph.node.retain(|node| node.op_type != "Cast" || node.output.iter().any(|output| read.contains(output)));
    let read: BTreeSet<String> = graph.node.iter().flat_map(|node| node.input.clone()).collect();
    graph.initializer.retain(|tensor| read.contains(&tensor.name));
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{GraphProto, ValueInfoProto};

    use super::*;

    /// The type of every value of a graph; what has no single float type fails, as it does in a strongly typed network.
    fn types(graph: &GraphProto) -> BTreeMap<&str, i32> {
        let is_float = |t: i32| t == DataType::Float as i32 || t == DataType::Float16 as i32;
        let mut types: BTreeMap<&str, i32> =
            graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor.data_type)).collect();
        types.extend(graph.input.iter().map(|input| (input.name.as_str(), DataType::Float as i32)));
        for node in &graph.node {
            let of = |input: &String| types[input.as_str()];
            let floats: BTreeSet<i32> = node.input.iter().map(of).filter(|&t| is_float(t)).collect();
            assert_eq!(floats.len(), 1, "{} ({}) mixes types", node.name, node.op_type);
            let to = if node.op_type == "Cast" { node.attribute[0].i as i32 } else { *floats.first().expect("one") };
            types.insert(&node.output[0], to);
        }
        types
    }

    fn shipped() -> Vec<u8> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/ceph19-nfdp/network.onnx");
        std::fs::read(path).expect("the repository's own")
    }

    #[test]
    fn the_shipped_network_gets_a_trunk_in_f16_and_keeps_its_interface() {
        let before = ModelProto::decode(shipped().as_slice()).expect("ONNX").graph.expect("a graph");
        let mixed = mixed_precision(&shipped()).expect("it has a form for TensorRT");
        let graph = ModelProto::decode(mixed.as_slice()).expect("ONNX").graph.expect("a graph");
        let types = types(&graph);
        let convolutions: Vec<&NodeProto> = graph.node.iter().filter(|node| node.op_type == "Conv").collect();
        let half = |node: &&&NodeProto| types[node.output[0].as_str()] == DataType::Float16 as i32;
        let (f16, f32) = (convolutions.iter().filter(half).count(), convolutions.iter().filter(|n| !half(n)).count());
        assert!(f16 >= 30 && f32 == 2, "{f16} and {f32}");
        for name in ["heatmaps.probability", "coordinates", "sigma", "sigma.pooled", "head.logits"] {
            assert_eq!(types[name], DataType::Float as i32, "{name}");
        }
        let names = |values: &[ValueInfoProto]| values.iter().map(|value| value.name.clone()).collect::<Vec<_>>();
        assert_eq!((names(&graph.input), names(&graph.output)), (names(&before.input), names(&before.output)));
        // In, and out where the f32 of the head begins: no Cast of a weight is left.
        let casts = graph.node.iter().filter(|node| node.op_type == "Cast").count();
        assert!(casts <= 6, "{casts} casts");
        let weights = |graph: &GraphProto| {
            let is_half = |tensor: &&TensorProto| tensor.name.ends_with(".f16");
            graph.initializer.iter().filter(is_half).cloned().collect::<Vec<_>>()
        };
        assert_eq!(weights(&graph), weights(&before), "the weights are the same numbers");
    }

    #[test]
    fn a_network_without_f16_stays_as_it_is_and_what_is_no_network_is_refused() {
        let plain = ModelProto { graph: Some(GraphProto::default()), ..ModelProto::default() }.encode_to_vec();
        assert_eq!(mixed_precision(&plain), Ok(plain));
        assert!(matches!(mixed_precision(b"no network"), Err(TensorRtError::Network { .. })));
    }

    #[test]
    fn a_constant_beyond_f16_is_refused() {
        let mut model = ModelProto::decode(shipped().as_slice()).expect("ONNX");
        let graph = model.graph.as_mut().expect("a graph");
        let bias = graph.initializer.iter_mut().find(|tensor| tensor.name == "backbone.conv1.bias").expect("there");
        bias.raw_data[..4].copy_from_slice(&70_000.0_f32.to_le_bytes());
        let error = mixed_precision(&model.encode_to_vec()).expect_err("refused").to_string();
        assert!(error.contains("backbone.conv1.bias"), "{error}");
    }
}
