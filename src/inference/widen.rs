//! Weights stored as f16, widened to f32 before the runtime sees them.
//!
//! A bundle's file stores them as f16 initializers under Cast nodes. tract folds such a Cast only where the result is
//! small; the large ones it would repeat, and pack anew, at every frame.

use std::collections::BTreeMap;

use half::f16;
use tract_onnx::pb::{ModelProto, tensor_proto::DataType};

/// Replaces every Cast of an f16 initializer that has no other reader by the widened initializer.
pub(super) fn widen_weights(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    for input in graph.node.iter().flat_map(|node| &node.input) {
        *readers.entry(input).or_default() += 1;
    }
    // From the stored name to the name of the Cast's result.
    let mut wide: BTreeMap<String, String> = BTreeMap::new();
    for node in &graph.node {
        let to_f32 = node.attribute.iter().any(|a| a.name == "to" && a.i == DataType::Float as i64);
        if let ("Cast", true, [stored], [result]) = (node.op_type.as_str(), to_f32, &node.input[..], &node.output[..])
            && readers[stored.as_str()] == 1
        {
            wide.insert(stored.clone(), result.clone());
        }
    }
    let mut done = Vec::new();
    for tensor in &mut graph.initializer {
        let halves = tensor.data_type == DataType::Float16 as i32 && !tensor.raw_data.is_empty();
        if let (true, Some(result)) = (halves, wide.get(&tensor.name)) {
            tensor.raw_data = widened(&tensor.raw_data);
            tensor.data_type = DataType::Float as i32;
            tensor.name.clone_from(result);
            done.push(result);
        }
    }
    graph.node.retain(|node| !(node.op_type == "Cast" && node.output.iter().any(|output| done.contains(&output))));
}

/// Little-endian f32 of little-endian f16; every f16 has its exact f32.
fn widened(halves: &[u8]) -> Vec<u8> {
    let (pairs, _) = halves.as_chunks::<2>();
    pairs.iter().flat_map(|&pair| f16::from_le_bytes(pair).to_f32().to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

    fn cast(from: &str, to: &str) -> NodeProto {
        let attribute = AttributeProto { name: "to".to_owned(), i: DataType::Float as i64, ..Default::default() };
        node("Cast", from, to, vec![attribute])
    }

    fn node(op: &str, from: &str, to: &str, attribute: Vec<AttributeProto>) -> NodeProto {
        let (input, output) = (vec![from.to_owned()], vec![to.to_owned()]);
        NodeProto { op_type: op.to_owned(), input, output, attribute, ..Default::default() }
    }

    fn halves(name: &str) -> TensorProto {
        let raw_data = [1.0, -2.5, 65504.0, 6e-8].iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        TensorProto { name: name.to_owned(), data_type: DataType::Float16 as i32, raw_data, ..Default::default() }
    }

    #[test]
    fn stored_halves_become_the_casts_result_and_others_stay() {
        let graph = GraphProto {
            node: vec![
                cast("a.f16", "a"),
                cast("shared", "b"),
                node("Identity", "shared", "c", vec![]),
                cast("x", "d"),
            ],
            initializer: vec![halves("a.f16"), halves("shared")],
            ..Default::default()
        };
        let mut model = ModelProto { graph: Some(graph), ..Default::default() };
        widen_weights(&mut model);
        let graph = model.graph.expect("still there");
        let outputs: Vec<_> = graph.node.iter().map(|n| n.output[0].as_str()).collect();
        assert_eq!(outputs, ["b", "c", "d"]);
        let [a, shared] = graph.initializer.as_slice() else { panic!("two initializers") };
        assert_eq!((a.name.as_str(), a.data_type), ("a", DataType::Float as i32));
        let values: Vec<f32> = a.raw_data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        assert_eq!(values, [1.0, -2.5, 65504.0, f16::from_f32(6e-8).to_f32()]);
        assert_eq!(shared, &halves("shared"));
    }
}
