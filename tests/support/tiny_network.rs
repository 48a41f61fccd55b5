//! Networks of a few hundred bytes that the runtime prepares and runs as it does the real ones.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

/// What a network does with a film.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Places its landmarks by the film's mean gray value.
    Good,
    /// The same after some hundred thousand million multiplications.
    Slow,
    /// The same after asking for three times 2.9 GB of memory.
    Greedy,
}

/// An ONNX file with the interface of a bundle's network for frames of `width` x `height` and two landmarks; `name`
/// tells it from others of the same behaviour.
pub(crate) fn network(name: &str, behaviour: Behaviour, width: i64, height: i64) -> Vec<u8> {
    let mut graph = Graph(GraphProto { name: name.to_owned(), ..GraphProto::default() });
    graph.0.input.push(value("frame", &[1, 1, height, width]));
    graph.floats("places", &[1, 2, 2], &[-0.2, -0.1, 0.2, 0.1]);
    graph.floats("spread", &[1, 2, 2], &[0.01, 0.01, 0.02, 0.02]);
    graph.integers("scalar", &[1, 1, 1]);
    graph.node("GlobalAveragePool", "pooled", &["frame"]);
    graph.node("Reshape", "mean", &["pooled", "scalar"]);
    let mean = match behaviour {
        Behaviour::Good => "mean",
        Behaviour::Slow => graph.detour(2500, 16),
        Behaviour::Greedy => graph.detour(27_000, 1),
    };
    graph.floats("a_tenth", &[1], &[0.1]);
    graph.node("Mul", "shift", &[mean, "a_tenth"]);
    graph.node("Add", "coordinates", &["places", "shift"]);
    graph.floats("nothing", &[1], &[0.0]);
    graph.node("Mul", "no_shift", &["shift", "nothing"]);
    graph.node("Add", "sigma", &["spread", "no_shift"]);
    for output in ["coordinates", "sigma"] {
        graph.0.output.push(value(output, &[1, 2, 2]));
    }
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph.0), ..ModelProto::default() }
        .encode_to_vec()
}

struct Graph(GraphProto);

impl Graph {
    fn floats(&mut self, name: &str, dims: &[i64], values: &[f32]) {
        self.tensor(name, dims, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    fn integers(&mut self, name: &str, values: &[i64]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, &[values.len() as i64], DataType::Int64, bytes);
    }

    fn tensor(&mut self, name: &str, dims: &[i64], data_type: DataType, raw_data: Vec<u8>) {
        let (name, dims, data_type) = (name.to_owned(), dims.to_vec(), data_type as i32);
        self.0.initializer.push(TensorProto { name, dims, data_type, raw_data, ..TensorProto::default() });
    }

    fn node(&mut self, op: &str, output: &str, inputs: &[&str]) {
        self.node_with(op, output, inputs, Vec::new());
    }

    fn node_with(&mut self, op: &str, output: &str, inputs: &[&str], attribute: Vec<AttributeProto>) {
        self.0.node.push(NodeProto {
            name: output.to_owned(),
            op_type: op.to_owned(),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..NodeProto::default()
        });
    }

    /// The mean again, after `times` products of square matrices of this side.
    fn detour(&mut self, side: i64, times: usize) -> &'static str {
        self.integers("square", &[side, side]);
        self.integers("line", &[1, 1]);
        self.node("Reshape", "seed", &["pooled", "line"]);
        self.floats("small", &[1], &[1e-4]);
        self.node("Mul", "small_seed", &["seed", "small"]);
        self.node("Expand", "power0", &["small_seed", "square"]);
        for n in 0..times {
            self.node("MatMul", &format!("power{}", n + 1), &[&format!("power{n}"), "power0"]);
        }
        let keep = AttributeProto {
            name: "keepdims".to_owned(),
            r#type: AttributeType::Int as i32,
            i: 1,
            ..AttributeProto::default()
        };
        self.node_with("ReduceMax", "most", &[&format!("power{times}")], vec![keep]);
        // A product with nothing would not be computed.
        self.floats("none", &[1], &[1e-30]);
        self.node("Mul", "no_most", &["most", "none"]);
        self.node("Add", "kept", &["seed", "no_most"]);
        self.node("Reshape", "mean_again", &["kept", "scalar"]);
        "mean_again"
    }
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimValue(d)),
        ..tensor_shape_proto::Dimension::default()
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}
