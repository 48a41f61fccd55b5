//! A small writer of ONNX graphs over the generated messages of `onnx.proto3`.

use half::f16;
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataType, tensor_shape_proto, type_proto,
};

use super::export::Storage;

/// Operator set of the graphs written here; every runtime in use reads it.
const OPSET: i64 = 17;
/// The file format that came with it.
const IR_VERSION: i64 = 8;

/// The value of a node's attribute.
pub(super) enum Attribute {
    /// One integer.
    Int(i64),
    /// Several.
    Ints(Vec<i64>),
}

/// A graph under construction; every value is known by its name, and a node is named as its only output.
pub(super) struct Graph {
    proto: GraphProto,
    storage: Storage,
}

impl Graph {
    /// An empty graph that stores its weights as `storage`.
    pub(super) fn new(name: &str, storage: Storage) -> Self {
        Self { proto: GraphProto { name: name.to_owned(), ..GraphProto::default() }, storage }
    }

    /// Declares an input of type f32.
    pub(super) fn input(&mut self, name: &str, shape: &[usize]) -> String {
        self.proto.input.push(value_info(name, shape));
        name.to_owned()
    }

    /// Declares an existing value as an output.
    pub(super) fn output(&mut self, name: &str, shape: &[usize]) {
        self.proto.output.push(value_info(name, shape));
    }

    /// A weight, stored as the graph's [`Storage`] and widened to f32 where it is used.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        match self.storage {
            Storage::F32 => self.constant(name, shape, values),
            Storage::F16 => {
                let stored = format!("{name}.f16");
                let bytes = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
                self.initializer(&stored, shape, DataType::Float16, bytes);
                self.node("Cast", name, &[&stored], vec![("to", Attribute::Int(DataType::Float as i64))])
            }
        }
    }

    /// A constant stored as f32 whatever the graph's [`Storage`]; one of the same name is made once.
    pub(super) fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, shape, DataType::Float, bytes)
    }

    /// A list of integers, as the shape of a Reshape.
    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, &[values.len()], DataType::Int64, bytes)
    }

    /// Appends a node; its inputs must exist already. Yields its output's name, `output`.
    pub(super) fn node(
        &mut self,
        op: &str,
        output: &str,
        inputs: &[&str],
        attributes: Vec<(&str, Attribute)>,
    ) -> String {
        self.proto.node.push(NodeProto {
            name: output.to_owned(),
            op_type: op.to_owned(),
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
        output.to_owned()
    }

    /// The file's bytes.
    pub(super) fn into_bytes(self, description: &str) -> Vec<u8> {
        let opset = OperatorSetIdProto { domain: String::new(), version: OPSET };
        ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![opset],
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            doc_string: description.to_owned(),
            graph: Some(self.proto),
            ..ModelProto::default()
        }
        .encode_to_vec()
    }

    fn initializer(&mut self, name: &str, shape: &[usize], data_type: DataType, raw_data: Vec<u8>) -> String {
        if !self.proto.initializer.iter().any(|i| i.name == name) {
            let dims = shape.iter().map(|&d| d as i64).collect();
            let data_type = data_type as i32;
            let tensor = TensorProto { name: name.to_owned(), dims, data_type, raw_data, ..TensorProto::default() };
            self.proto.initializer.push(tensor);
        }
        name.to_owned()
    }
}

fn attribute(name: &str, value: Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match value {
        Attribute::Int(i) => {
            proto.r#type = AttributeType::Int as i32;
            proto.i = i;
        }
        Attribute::Ints(ints) => {
            proto.r#type = AttributeType::Ints as i32;
            proto.ints = ints;
        }
    }
    proto
}

fn value_info(name: &str, shape: &[usize]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|&d| tensor_shape_proto::Dimension {
            value: Some(tensor_shape_proto::dimension::Value::DimValue(d as i64)),
            ..tensor_shape_proto::Dimension::default()
        })
        .collect();
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim }) };
    let r#type = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..ValueInfoProto::default() }
}
