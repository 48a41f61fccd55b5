//! What a network may start from: a run's weights, a torchvision ResNet-18, or a bundle.

use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use prost::Message;
use safetensors::{Dtype, SafeTensors};
use tract_onnx::pb::{ModelProto, TensorProto, tensor_proto::DataType};

use super::architecture::{Architecture, Convolution, convolutions, linear_shape};
use super::batch::{Array, Weights};
use super::export::NORM_EPSILON;
use super::pytorch_file;
use crate::model::{Bundle, BundleError};

/// The parts of torchvision's ResNet that are the backbone's; the rest is its classifier.
const TORCHVISION: [&str; 6] = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"];

/// Weights to start from.
#[derive(Clone, Debug, Default)]
pub struct Initial {
    /// By name; torchvision's names stand below `backbone.`.
    pub weights: Weights,
    /// Tensors whose type is no float, as `num_batches_tracked`.
    pub skipped: Vec<String>,
    /// Whether every normalization is folded into its convolution, as in a bundle.
    pub folded: bool,
}

/// Why there is nothing to start from.
#[derive(Debug, thiserror::Error)]
pub enum InitialError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what its name says.
    #[error("{path}: {reason}; expected a bundle's directory, a .safetensors or a .pth file of weights")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The bundle is not whole.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Reads weights from a bundle's directory, a safetensors file or a PyTorch file.
///
/// # Errors
/// When it cannot be read or is none of these.
pub fn initial_weights(path: &Path, architecture: &Architecture) -> Result<Initial, InitialError> {
    let format = |reason: String| InitialError::Format { path: path.to_owned(), reason };
    if path.is_dir() {
        let bundle = Bundle::open(path)?;
        let model = ModelProto::decode(bundle.network()).map_err(|e| format(e.to_string()))?;
        let landmarks = bundle.manifest().landmarks.len();
        let stored = Architecture { landmarks, ..*architecture };
        let weights = unfolded(&model, &stored).map_err(format)?;
        return Ok(Initial { weights, skipped: Vec::new(), folded: true });
    }
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let (weights, skipped) = match extension {
        "safetensors" => safetensors(path)?,
        "pth" | "pt" => pytorch(path)?,
        _ => return Err(format(format!("`.{extension}` is no known ending"))),
    };
    // torchvision names the backbone's tensors without a prefix.
    let prefixed = |(name, array): (String, Array)| {
        let part = name.split('.').next().unwrap_or_default();
        (if TORCHVISION.contains(&part) { format!("backbone.{name}") } else { name }, array)
    };
    let weights = weights.into_iter().map(prefixed).collect();
    Ok(Initial { weights, skipped, folded: false })
}

fn safetensors(path: &Path) -> Result<(Weights, Vec<String>), InitialError> {
    let bytes = fs::read(path).map_err(|source| InitialError::Io { path: path.to_owned(), source })?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|e| InitialError::Format { path: path.to_owned(), reason: e.to_string() })?;
    let (mut weights, mut skipped) = (Weights::new(), Vec::new());
    for (name, view) in tensors.tensors() {
        let values = match view.dtype() {
            Dtype::F32 => numbers(view.data(), f32::from_le_bytes),
            Dtype::F16 => numbers(view.data(), |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => numbers(view.data(), |b| bf16::from_le_bytes(b).to_f32()),
            _ => {
                skipped.push(name);
                continue;
            }
        };
        weights.insert(name, Array { shape: view.shape().to_vec(), values });
    }
    Ok((weights, skipped))
}

fn pytorch(path: &Path) -> Result<(Weights, Vec<String>), InitialError> {
    let bytes = fs::read(path).map_err(|source| InitialError::Io { path: path.to_owned(), source })?;
    pytorch_file::read(&bytes).map_err(|reason| InitialError::Format { path: path.to_owned(), reason })
}

/// A run of numbers of N bytes each.
pub(super) fn numbers<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    data.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}

/// The weights of an exported network under their names in training, each normalization the identity but for its bias.
///
/// The network's function is the same; what its layers put out is not of unit variance, as training expects, until the
/// engine has taken the normalization out again.
fn unfolded(model: &ModelProto, architecture: &Architecture) -> Result<Weights, String> {
    let graph = model.graph.as_ref().ok_or("the network file holds no graph")?;
    let stored = |name: &str| graph.initializer.iter().find(|tensor| tensor.name == name);
    let mut weights = Weights::new();
    for (name, layer) in convolutions(architecture) {
        let Convolution { norm, inputs, outputs, kernel, .. } = layer;
        let found = stored(&format!("{name}.weight")).or_else(|| stored(&format!("{name}.weight.f16")));
        let (Some(weight), Some(bias)) = (found, stored(&format!("{name}.bias"))) else { continue };
        let gray = name == "backbone.conv1";
        let taps = kernel * kernel;
        let mut values = floats(weight)?;
        if gray && values.len() == outputs * taps {
            // The film's three equal channels were summed: a third of the sum in each is the same function.
            values = values
                .chunks_exact(taps)
                .flat_map(|f| f.iter().map(|v| v / 3.0).collect::<Vec<_>>().repeat(3))
                .collect();
        }
        if values.len() != outputs * inputs * taps {
            return Err(format!("`{name}.weight` has {} values, expected {}", values.len(), outputs * inputs * taps));
        }
        let mut bias = floats(bias)?;
        if name == "head.output" {
            let temperature = architecture.temperature as f32;
            values.iter_mut().chain(&mut bias).for_each(|v| *v *= temperature);
        }
        weights.insert(format!("{name}.weight"), Array { shape: vec![outputs, inputs, kernel, kernel], values });
        let row = |value: f32| Array { shape: vec![outputs], values: vec![value; outputs] };
        weights.insert(format!("{norm}.weight"), row((1.0 + NORM_EPSILON).sqrt() as f32));
        weights.insert(format!("{norm}.bias"), Array { shape: vec![outputs], values: bias });
        weights.insert(format!("{norm}.running_mean"), row(0.0));
        weights.insert(format!("{norm}.running_var"), row(1.0));
    }
    let shape = linear_shape(architecture.landmarks);
    for name in ["sigma", "coordinates"] {
        if let (Some(weight), Some(bias)) = (stored(&format!("{name}.weight")), stored(&format!("{name}.bias"))) {
            weights.insert(format!("{name}.weight"), Array { shape: shape.to_vec(), values: floats(weight)? });
            weights.insert(format!("{name}.bias"), Array { shape: vec![shape[0]], values: floats(bias)? });
        }
    }
    Ok(weights)
}

fn floats(tensor: &TensorProto) -> Result<Vec<f32>, String> {
    match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => Ok(numbers(&tensor.raw_data, f32::from_le_bytes)),
        Ok(DataType::Float16) => Ok(numbers(&tensor.raw_data, |b| f16::from_le_bytes(b).to_f32())),
        _ => Err(format!("`{}` is of type {}, expected a float", tensor.name, tensor.data_type)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use crate::train::{Storage, checkpoint, export_nfdp};
    use std::collections::HashMap;

    fn weights(architecture: &Architecture) -> Weights {
        let mut weights = Weights::new();
        let mut add = |name: String, shape: Vec<usize>, base: f32| {
            let n: usize = shape.iter().product();
            let values = (0..n).map(|i| base + ((i * 37 + name.len()) % 64) as f32 / 256.0).collect();
            weights.insert(name, Array { shape, values });
        };
        for (name, layer) in convolutions(architecture) {
            add(format!("{name}.weight"), layer.shape().to_vec(), -0.125);
            for (part, base) in [("weight", 0.5), ("bias", -0.1), ("running_mean", 0.1), ("running_var", 0.7)] {
                add(format!("{}.{part}", layer.norm), vec![layer.outputs], base);
            }
        }
        let shape = linear_shape(architecture.landmarks);
        add("sigma.weight".into(), shape.to_vec(), 0.0);
        add("sigma.bias".into(), vec![shape[0]], 0.0);
        weights
    }

    #[test]
    fn an_exported_network_read_back_exports_as_itself() {
        let architecture = Architecture { temperature: 0.5, ..Architecture::heatmap(3) };
        let frame = Size::new(64, 96);
        let export = |weights: &Weights| export_nfdp(weights, frame, architecture, Storage::F32).expect("complete");
        let model = |bytes: &[u8]| ModelProto::decode(bytes).expect("what was written");
        let first = model(&export(&weights(&architecture)));
        let second = model(&export(&unfolded(&first, &architecture).expect("our own file")));
        let (a, b) = (first.graph.expect("a graph"), second.graph.expect("a graph"));
        assert_eq!(a.node, b.node);
        for (a, b) in a.initializer.iter().zip(&b.initializer) {
            assert_eq!(a.name, b.name);
            if a.data_type == DataType::Float as i32 {
                for (a, b) in floats(a).expect("floats").iter().zip(floats(b).expect("floats")) {
                    assert!((a - b).abs() <= 2e-6 * a.abs().max(1e-3), "{a} and {b}");
                }
            }
        }
    }

    #[test]
    fn torchvisions_names_get_their_prefix_and_other_types_are_listed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("resnet18.safetensors");
        let array = |n: usize| Array { shape: vec![n], values: vec![1.5; n] };
        // In part: without the first convolution.
        let given = Weights::from([("layer1.0.conv1.weight".to_owned(), array(4)), ("bn1.bias".to_owned(), array(2))]);
        checkpoint::write(&path, &given, HashMap::new()).expect("a fresh folder");
        let Initial { weights, skipped, folded } =
            initial_weights(&path, &Architecture::heatmap(3)).expect("a safetensors file");
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["backbone.bn1.bias", "backbone.layer1.0.conv1.weight"]);
        assert_eq!((weights["backbone.bn1.bias"].clone(), skipped.len(), folded), (array(2), 0, false));
        let view = safetensors::tensor::TensorView::new(Dtype::I64, vec![1], &[0; 8]).expect("one number");
        fs::write(&path, safetensors::serialize([("bn1.num_batches_tracked", view)], &None).expect("a header"))
            .expect("a fresh folder");
        let skipped = initial_weights(&path, &Architecture::heatmap(3)).expect("a safetensors file").skipped;
        assert_eq!(skipped, ["bn1.num_batches_tracked"]);
    }

    #[test]
    fn what_is_no_file_of_weights_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("weights.onnx");
        let error = |path: &Path| initial_weights(path, &Architecture::heatmap(3)).expect_err("refused").to_string();
        assert!(error(&path).ends_with(
            "`.onnx` is no known ending; expected a bundle's directory, a .safetensors or a .pth file of weights"
        ));
        let path = folder.path().join("cut.safetensors");
        fs::write(&path, [9, 0, 0, 0, 0, 0, 0, 0, b'{']).expect("a fresh folder");
        assert!(error(&path).contains("cut.safetensors: "), "{}", error(&path));
    }
}
