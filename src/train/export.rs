//! Trained weights to the ONNX file that is deployed: the exact function, with fewer multiplications.
//!
//! What the export changes, none of it changing the function: batch normalization goes into the convolutions; the
//! film's three equal channels become one; the coarse branches are summed at stride 8, pass the output convolution
//! there, and only its `K` channels are upsampled, not 128. With `C` the output convolution and `up2` the bilinear
//! doubling, both linear and `up2` keeping constants:
//!
//! ```text
//! C(h0 + up2(h1) + up2(h2) + up2(h3)) + b  =  C(h0) + b + up2(C(h1 + h2 + h3))
//! ```
//!
//! The doubling itself is two products with constant matrices, which tract runs faster than Resize.

use super::architecture::{
    Architecture, BACKBONE_CHANNELS, COARSEST_STRIDE, Convolution, HEATMAP_STRIDE, Model, convolutions, linear_shape,
};
use super::batch::{Array, Weights};
use super::onnx::{Attribute, Graph};
use crate::disposition::Disposition;
use crate::geometry::Size;
use std::collections::BTreeMap;

/// Added to BatchNorm's variance, as in training.
pub(super) const NORM_EPSILON: f64 = 1e-5;

/// How the file stores the large weights; the network computes in f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// Four bytes a weight.
    F32,
    /// Two bytes a weight, widened to f32 by Cast nodes that runtimes evaluate once, at load.
    #[default]
    F16,
}

/// Why weights could not become a network file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A tensor is not there.
    #[error("the weights have no tensor `{name}`")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape, or not as many values as its shape says.
    #[error("`{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// What the architecture needs.
        expected: Vec<usize>,
        /// What the weights have.
        found: Vec<usize>,
    },
    /// A folded weight is NaN, infinite or beyond what its storage holds.
    #[error("`{name}` folds to {value}, which {storage:?} cannot store")]
    Value {
        /// The layer.
        name: String,
        /// The first such weight.
        value: f32,
        /// How it was to be stored.
        storage: Storage,
    },
    /// The frame's sides do not divide by the coarsest feature's stride.
    #[error("a frame of {frame} is not a multiple of {COARSEST_STRIDE} pixels on both sides")]
    Frame {
        /// The frame asked for.
        frame: Size,
    },
}

impl ExportError {
    /// Always fatal: an export is asked for by a person, who must see it fail.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        Disposition::Fatal
    }
}

/// The bytes of an ONNX file of an NFDP network for one frame size.
///
/// Weight names are torchvision's under `backbone.`, then `neck.`, `head.` and `sigma.` (see
/// [`convolutions`]); names the deployed graph does not need, as the flow's, are ignored.
///
/// # Shapes
/// - input `frame`: `[1, 1, H, W]`, gray / 255 - 0.5
/// - output `coordinates`: `[1, K, 2]`, x and y as `frame pixel / side - 0.5`
/// - output `sigma`: `[1, K, 2]`, in the same units
///
/// # Errors
/// When a weight is missing, misshapen or not finite, or when the frame does not divide by 32.
pub fn export_nfdp(
    weights: &Weights,
    frame: Size,
    architecture: Architecture,
    storage: Storage,
) -> Result<Vec<u8>, ExportError> {
    let divides = |side: u32| side > 0 && side.is_multiple_of(COARSEST_STRIDE);
    if !divides(frame.width) || !divides(frame.height) {
        return Err(ExportError::Frame { frame });
    }
    let graph = Graph::new("nfdp", storage);
    let mut exporter = Exporter { graph, weights, layers: convolutions(&architecture), frame, architecture, storage };
    exporter.network()?;
    Ok(exporter.graph.into_bytes("NFDP landmark localization: coordinates and sigma per landmark"))
}

/// A convolution with its normalization folded in.
struct Folded {
    shape: [usize; 4],
    weight: Vec<f32>,
    bias: Vec<f32>,
}

struct Exporter<'a> {
    graph: Graph,
    weights: &'a Weights,
    layers: BTreeMap<String, Convolution>,
    frame: Size,
    architecture: Architecture,
    storage: Storage,
}

impl<'a> Exporter<'a> {
    fn network(&mut self) -> Result<(), ExportError> {
        let (height, width) = (self.frame.height as usize, self.frame.width as usize);
        let input = self.graph.input("frame", &[1, 1, height, width]);
        let features = self.backbone(&input)?;
        let pooled = self.graph.node("GlobalAveragePool", "sigma.pooled", &[&features[3]], vec![]);
        let pooled = self.graph.node("Flatten", "sigma.flat", &[&pooled], vec![("axis", Attribute::Int(1))]);
        match self.architecture.model {
            Model::Heatmap => {
                let mut branches = Vec::new();
                for (level, lateral) in self.laterals(&features)?.into_iter().enumerate() {
                    let smooth = self.conv_relu(&lateral, &format!("neck.{level}.smooth"))?;
                    branches.push(self.branch(level, smooth)?);
                }
                let heatmaps = self.heatmaps(&branches)?;
                self.soft_argmax(&heatmaps);
            }
            Model::Regression => self.regression(&pooled)?,
        }
        self.sigma(&pooled)
    }

    /// The neck's lateral maps, with a top-down neck each the sum of its own and the coarser one's doubled.
    fn laterals(&mut self, features: &[String]) -> Result<Vec<String>, ExportError> {
        let own = |(level, feature): (usize, &String)| self.conv_relu(feature, &format!("neck.{level}.lateral"));
        let mut laterals = features.iter().enumerate().map(own).collect::<Result<Vec<_>, _>>()?;
        if self.architecture.top_down {
            for level in (1..laterals.len()).rev() {
                let name = format!("neck.{level}.down");
                let doubled = self.double(&laterals[level], &name, HEATMAP_STRIDE << level);
                laterals[level - 1] =
                    self.graph.node("Add", &format!("{name}.sum"), &[&laterals[level - 1], &doubled], vec![]);
            }
        }
        Ok(laterals)
    }

    /// The features at strides 4, 8, 16 and 32.
    fn backbone(&mut self, input: &str) -> Result<Vec<String>, ExportError> {
        let stem = self.conv_relu(input, "backbone.conv1")?;
        let pool = vec![
            ("kernel_shape", Attribute::Ints(vec![3, 3])),
            ("strides", Attribute::Ints(vec![2, 2])),
            ("pads", Attribute::Ints(vec![1; 4])),
        ];
        let mut x = self.graph.node("MaxPool", "backbone.maxpool", &[&stem], pool);
        let mut features = Vec::new();
        for level in 1..=BACKBONE_CHANNELS.len() {
            for block in 0..2 {
                x = self.residual_block(x, &format!("backbone.layer{level}.{block}"))?;
            }
            features.push(x.clone());
        }
        Ok(features)
    }

    fn residual_block(&mut self, x: String, name: &str) -> Result<String, ExportError> {
        let inner = self.conv_relu(&x, &format!("{name}.conv1"))?;
        let inner = self.conv(&inner, &format!("{name}.conv2"))?;
        let downsample = format!("{name}.downsample.0");
        let shortcut = if self.layers.contains_key(&downsample) { self.conv(&x, &downsample)? } else { x };
        let sum = self.graph.node("Add", &format!("{name}.add"), &[&inner, &shortcut], vec![]);
        Ok(self.relu(&sum))
    }

    /// One branch of the head: down to stride 4 for level 0, to stride 8 for the others (the last doubling is shared).
    fn branch(&mut self, level: usize, mut x: String) -> Result<String, ExportError> {
        for step in 0..level.max(1) {
            let name = format!("head.{level}.{step}.conv");
            if step > 0 {
                x = self.double(&x, &format!("{name}.up"), HEATMAP_STRIDE << (level - step + 1));
            }
            x = self.conv_relu(&x, &name)?;
        }
        Ok(x)
    }

    fn heatmaps(&mut self, branches: &[String]) -> Result<String, ExportError> {
        let [fine, coarse @ ..] = branches else { return Err(ExportError::Missing { name: "head".to_owned() }) };
        let Folded { shape, mut weight, mut bias } = self.folded("head.output")?;
        // ReLU and a positive factor commute, so the temperature goes into the last layer.
        let sharpness = (1.0 / self.architecture.temperature) as f32;
        weight.iter_mut().chain(&mut bias).for_each(|v| *v *= sharpness);
        let shape = [shape[0], shape[1], 1, 1];
        // Few and close to the result: f32 in any storage.
        let kernel = self.graph.constant("head.output.weight", &shape, &weight);
        let bias = self.graph.constant("head.output.bias", &[bias.len()], &bias);
        let fine = self.graph.node("Conv", "head.output.fine", &[fine, &kernel, &bias], vec![]);
        let sum = self.graph.node("Add", "head.sum12", &[&coarse[0], &coarse[1]], vec![]);
        let sum = self.graph.node("Add", "head.sum123", &[&sum, &coarse[2]], vec![]);
        let coarse = self.graph.node("Conv", "head.output.coarse", &[&sum, &kernel], vec![]);
        let coarse = self.double(&coarse, "head.output.up", HEATMAP_STRIDE * 2);
        let heatmaps = self.graph.node("Add", "head.logits", &[&fine, &coarse], vec![]);
        Ok(if self.architecture.heatmap_relu { self.relu(&heatmaps) } else { heatmaps })
    }

    /// `x = sum p i / W - 0.5` over the heatmap, as one product with the grid of `(i / W - 0.5, j / H - 0.5)`.
    fn soft_argmax(&mut self, heatmaps: &str) {
        let [rows, columns] = [self.frame.height, self.frame.width].map(|side| side / HEATMAP_STRIDE);
        let at = |index: u32, side: u32| (f64::from(index) / f64::from(side) - 0.5) as f32;
        let grid: Vec<f32> = (0..rows)
            .flat_map(|row| (0..columns).flat_map(move |column| [at(column, columns), at(row, rows)]))
            .collect();
        let pixels = grid.len() / 2;
        let shape = self.graph.integers("heatmaps.shape", &[1, self.architecture.landmarks as i64, pixels as i64]);
        let logits = self.graph.node("Reshape", "heatmaps.logits", &[heatmaps, &shape], vec![]);
        let axis = vec![("axis", Attribute::Int(2))];
        let probability = self.graph.node("Softmax", "heatmaps.probability", &[&logits], axis);
        let grid = self.graph.constant("heatmaps.grid", &[pixels, 2], &grid);
        self.graph.node("MatMul", "coordinates", &[&probability, &grid], vec![]);
        self.graph.output("coordinates", &[1, self.architecture.landmarks, 2]);
    }

    /// `W f / |f| + b`.
    fn regression(&mut self, pooled: &str) -> Result<(), ExportError> {
        let axes = vec![("axes", Attribute::Ints(vec![1])), ("keepdims", Attribute::Int(1))];
        let length = self.graph.node("ReduceL2", "coordinates.length", &[pooled], axes);
        let direction = self.graph.node("Div", "coordinates.direction", &[pooled, &length], vec![]);
        let linear = self.linear("coordinates", &direction)?;
        let shape = self.graph.integers("coordinates.shape", &[1, self.architecture.landmarks as i64, 2]);
        self.graph.node("Reshape", "coordinates", &[&linear, &shape], vec![]);
        self.graph.output("coordinates", &[1, self.architecture.landmarks, 2]);
        Ok(())
    }

    /// The linear layer `name` on a pooled feature.
    fn linear(&mut self, name: &str, pooled: &str) -> Result<String, ExportError> {
        let shape = linear_shape(self.architecture.landmarks);
        let weight = self.finite(&format!("{name}.weight"), &shape)?;
        let bias = self.finite(&format!("{name}.bias"), &shape[..1])?;
        let weight = self.graph.constant(&format!("{name}.weight"), &shape, weight);
        let bias = self.graph.constant(&format!("{name}.bias"), &shape[..1], bias);
        let transposed = vec![("transB", Attribute::Int(1))];
        Ok(self.graph.node("Gemm", &format!("{name}.linear"), &[pooled, &weight, &bias], transposed))
    }

    fn sigma(&mut self, pooled: &str) -> Result<(), ExportError> {
        let linear = self.linear("sigma", pooled)?;
        let squashed = self.graph.node("Sigmoid", "sigma.sigmoid", &[&linear], vec![]);
        let shape = self.graph.integers("sigma.shape", &[1, self.architecture.landmarks as i64, 2]);
        self.graph.node("Reshape", "sigma", &[&squashed, &shape], vec![]);
        self.graph.output("sigma", &[1, self.architecture.landmarks, 2]);
        Ok(())
    }

    fn conv_relu(&mut self, x: &str, name: &str) -> Result<String, ExportError> {
        let x = self.conv(x, name)?;
        Ok(self.relu(&x))
    }

    fn relu(&mut self, x: &str) -> String {
        self.graph.node("Relu", &format!("{x}.relu"), &[x], vec![])
    }

    fn conv(&mut self, x: &str, name: &str) -> Result<String, ExportError> {
        let Folded { shape, weight, bias } = self.folded(name)?;
        let kernel = self.graph.weight(&format!("{name}.weight"), &shape, &weight);
        let bias = self.graph.constant(&format!("{name}.bias"), &[bias.len()], &bias);
        let (side, stride) = (self.layers[name].kernel as i64, self.layers[name].stride as i64);
        let attributes = vec![
            ("kernel_shape", Attribute::Ints(vec![side; 2])),
            ("strides", Attribute::Ints(vec![stride; 2])),
            ("pads", Attribute::Ints(vec![side / 2; 4])),
        ];
        Ok(self.graph.node("Conv", name, &[x, &kernel, &bias], attributes))
    }

    /// Bilinear doubling (align_corners = false) of a map whose pixel spans `stride` frame pixels.
    fn double(&mut self, x: &str, name: &str, stride: u32) -> String {
        let [rows, columns] = [self.frame.height, self.frame.width].map(|side| (side / stride) as usize);
        let vertical = doubling(rows);
        let mut horizontal = vec![0.0; 2 * columns * columns];
        for (out, row) in doubling(columns).chunks_exact(columns).enumerate() {
            for (from, &share) in row.iter().enumerate() {
                horizontal[from * 2 * columns + out] = share;
            }
        }
        let vertical = self.graph.constant(&format!("double.rows.{rows}"), &[2 * rows, rows], &vertical);
        let horizontal =
            self.graph.constant(&format!("double.columns.{columns}"), &[columns, 2 * columns], &horizontal);
        let wide = self.graph.node("MatMul", &format!("{name}.columns"), &[x, &horizontal], vec![]);
        self.graph.node("MatMul", name, &[&vertical, &wide], vec![])
    }

    /// The convolution `name` with its normalization, and for the first one with its equal input channels, folded in.
    fn folded(&self, name: &str) -> Result<Folded, ExportError> {
        let layer = self.layers.get(name).ok_or_else(|| ExportError::Missing { name: name.to_owned() })?;
        let kernel = self.finite(&format!("{name}.weight"), &layer.shape())?;
        let norm = |part: &str| self.finite(&format!("{}.{part}", layer.norm), &[layer.outputs]);
        let (gain, offset, mean, variance) =
            (norm("weight")?, norm("bias")?, norm("running_mean")?, norm("running_var")?);
        let scale = |o: usize| f64::from(gain[o]) / (f64::from(variance[o]) + NORM_EPSILON).sqrt();
        let bias = (0..layer.outputs).map(|o| (f64::from(offset[o]) - f64::from(mean[o]) * scale(o)) as f32).collect();
        let taps = layer.kernel * layer.kernel;
        let gray = name == "backbone.conv1";
        let inputs = if gray { 1 } else { layer.inputs };
        let mut weight = Vec::with_capacity(layer.outputs * inputs * taps);
        for (o, filter) in kernel.chunks_exact(layer.inputs * taps).enumerate() {
            if gray {
                let sum = |tap: usize| filter.iter().skip(tap).step_by(taps).map(|&w| f64::from(w)).sum::<f64>();
                weight.extend((0..taps).map(|tap| (sum(tap) * scale(o)) as f32));
            } else {
                weight.extend(filter.iter().map(|&w| (f64::from(w) * scale(o)) as f32));
            }
        }
        let folded = Folded { shape: [layer.outputs, inputs, layer.kernel, layer.kernel], weight, bias };
        storable(name, &folded.weight, self.storage)?;
        storable(name, &folded.bias, Storage::F32)?;
        Ok(folded)
    }

    /// The values of a tensor, once its shape is right.
    fn finite(&self, name: &str, shape: &[usize]) -> Result<&'a [f32], ExportError> {
        let weights: &'a Weights = self.weights;
        let Some(Array { shape: found, values }) = weights.get(name) else {
            return Err(ExportError::Missing { name: name.to_owned() });
        };
        if found != shape || values.len() != shape.iter().product::<usize>() {
            let (name, expected, found) = (name.to_owned(), shape.to_vec(), found.clone());
            return Err(ExportError::Shape { name, expected, found });
        }
        storable(name, values, Storage::F32)?;
        Ok(values)
    }
}

fn storable(name: &str, values: &[f32], storage: Storage) -> Result<(), ExportError> {
    let limit = match storage {
        Storage::F32 => f32::MAX,
        Storage::F16 => half::f16::MAX.to_f32(),
    };
    let fits = |v: &f32| v.is_finite() && v.abs() <= limit;
    match values.iter().find(|v| !fits(v)) {
        Some(&value) => Err(ExportError::Value { name: name.to_owned(), value, storage }),
        None => Ok(()),
    }
}

/// The `2n x n` matrix of bilinear doubling with half-pixel centres, row by row; its rows sum to 1.
///
/// Output `o` lies at input `(o + 1/2) / 2 - 1/2`, held at the borders.
fn doubling(n: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; 2 * n * n];
    for (o, row) in matrix.chunks_exact_mut(n).enumerate() {
        let (near, far) = (o / 2, if o % 2 == 0 { (o / 2).saturating_sub(1) } else { (o / 2 + 1).min(n - 1) });
        row[near] += 0.75;
        row[far] += 0.25;
    }
    matrix
}
