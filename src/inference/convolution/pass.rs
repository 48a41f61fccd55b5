//! The pass over tract's graph that hands convolutions to [`Convolution`], with what follows them.

use std::sync::Arc;

use tract_onnx::prelude::{DatumTypeExt, TValue, Tensor, TractResult, TypedFact, TypedModel, TypedNode, tvec};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, OutletId, StaticName, TVec, TypedModelPatch, TypedOp, as_op, op_as_typed_op,
    op_out_of_plan,
};
use tract_onnx::tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_onnx::tract_core::ops::cnn::{Conv, KernelFormat, PaddingSpec};
use tract_onnx::tract_core::ops::math::{Add, Max};
use tract_onnx::tract_core::ops::nn::DataFormat;

use super::{Convolution, Geometry};

/// The operator's name in a plan.
const NAME: &str = "FusedConvolution";

/// Replaces every convolution that is faster here than in tract, together with the addition and the ReLU behind it.
///
/// `model` is decluttered and its shapes are known; the others are left as they are.
///
/// # Errors
/// When tract refuses the changed graph.
pub(in crate::inference) fn use_convolutions(model: &mut TypedModel) -> TractResult<()> {
    // One at a time: a patch leaves dead nodes behind, which would be counted as readers of a convolution's input.
    while let Some(patch) = first_replacement(model)? {
        patch.apply(model)?;
        model.compact()?;
    }
    Ok(())
}

fn first_replacement(model: &TypedModel) -> TractResult<Option<TypedModelPatch>> {
    for node in model.nodes() {
        if let Some(layer) = convolution_of(model, node)? {
            return replacement(model, node, layer).map(Some);
        }
    }
    Ok(None)
}

/// The layer of a convolution node, if it is of a kind that is faster here.
fn convolution_of(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Convolution>> {
    let Some(conv) = node.op_as::<Conv>() else { return Ok(None) };
    let pool = &conv.pool_spec;
    let (&[side, columns], PaddingSpec::Explicit(before, after)) = (&pool.kernel_shape[..], &pool.padding) else {
        return Ok(None);
    };
    let (stride, padding) = (pool.stride(0), before[0]);
    let square = side == columns && pool.stride(1) == stride && before[..] == [padding; 2] && after == before;
    let plain = conv.group == 1 && conv.q_params.is_none() && conv.kernel_fmt == KernelFormat::OIHW;
    if !(square && plain && pool.dilations()[..] == [1, 1]) {
        return Ok(None);
    }
    let image = match (pool.data_format, model.outlet_fact(node.inputs[0])?.shape.as_concrete()) {
        (DataFormat::NCHW, Some(&[1, _, height, width])) | (DataFormat::CHW, Some(&[_, height, width])) => {
            [height, width]
        }
        _ => return Ok(None),
    };
    let outputs = pool.output_channels;
    let geometry = Geometry { inputs: pool.input_channels, outputs, side, stride, padding };
    let (Some(kernel), Some(bias)) = (floats(model, node.inputs[1])?, floats(model, node.inputs[2])?) else {
        return Ok(None);
    };
    let bias = match bias[..] {
        [same] => vec![same; outputs],
        _ if bias.len() == outputs => bias,
        _ => return Ok(None),
    };
    Ok(Convolution::new(geometry, image, &kernel, bias, false))
}

fn floats(model: &TypedModel, outlet: OutletId) -> TractResult<Option<Vec<f32>>> {
    let Some(konst) = &model.outlet_fact(outlet)?.konst else { return Ok(None) };
    Ok(konst.view().as_slice::<f32>().ok().map(<[f32]>::to_vec))
}

/// The patch that puts `layer` in place of `node` and of what follows it, as far as it does the same.
fn replacement(model: &TypedModel, node: &TypedNode, mut layer: Convolution) -> TractResult<TypedModelPatch> {
    let mut last = node;
    let mut addend = None;
    if let Some((next, other)) = only_reader::<Add>(model, last)?
        && model.outlet_fact(other)?.shape == model.outlet_fact(last.id.into())?.shape
        && model.outlet_fact(other)?.konst.is_none()
    {
        (last, addend) = (next, Some(other));
    }
    if let Some((next, other)) = only_reader::<Max>(model, last)?
        && let Some(konst) = &model.outlet_fact(other)?.konst
        && konst.is_all_zero()?
    {
        (last, layer.relu) = (next, true);
    }
    let mut patch = TypedModelPatch::new("fused convolution");
    let mut inputs = tvec!(patch.tap_model(model, node.inputs[0])?);
    if let Some(addend) = addend {
        inputs.push(patch.tap_model(model, addend)?);
    }
    let output = patch.wire_node(&node.name, FusedConvolution(Arc::new(layer)), &inputs)?;
    patch.shunt_outside(model, last.id.into(), output[0])?;
    patch.obliterate(node.id)?;
    Ok(patch)
}

/// The element-wise operation that alone reads a node's only output, and its other operand.
fn only_reader<'m, B: BinMiniOp>(
    model: &'m TypedModel,
    node: &TypedNode,
) -> TractResult<Option<(&'m TypedNode, OutletId)>> {
    let outlet = OutletId::from(node.id);
    let [reader] = node.outputs[0].successors[..] else { return Ok(None) };
    if model.outputs.contains(&outlet) {
        return Ok(None);
    }
    let next = model.node(reader.node);
    let same_operation = next.op_as::<TypedBinOp>().is_some_and(|op| op.0.downcast_ref::<B>().is_some());
    // An operand that is narrower than the result would have to be repeated: not what the layer does.
    let same_shape = model.outlet_fact(next.id.into())?.shape == model.outlet_fact(outlet)?.shape;
    Ok((same_operation && same_shape && next.inputs.len() == 2).then(|| (next, next.inputs[1 - reader.slot])))
}

/// A [`Convolution`] in tract's graph; its inputs are the image and, if there is one, the addend.
#[derive(Clone, Debug)]
struct FusedConvolution(Arc<Convolution>);

impl PartialEq for FusedConvolution {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FusedConvolution {}

impl FusedConvolution {
    /// The output's shape, with or without a batch axis as the input.
    fn shape<D: Clone + From<usize>>(&self, input: &[D]) -> TVec<D> {
        let [height, width] = self.0.output;
        let image = [self.0.geometry.outputs, height, width].map(D::from);
        input[..input.len() - image.len()].iter().cloned().chain(image).collect()
    }
}

impl Op for FusedConvolution {
    fn name(&self) -> StaticName {
        NAME.into()
    }

    op_as_typed_op!();
}

impl EvalOp for FusedConvolution {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut output = Tensor::zero::<f32>(&self.shape(inputs[0].shape()))?;
        let addend = inputs.get(1).map(|addend| addend.view());
        let addend = addend.as_ref().map(|addend| addend.as_slice::<f32>()).transpose()?;
        let image = inputs[0].view();
        self.0.run(image.as_slice::<f32>()?, addend, output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into()))
    }
}

impl TypedOp for FusedConvolution {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(inputs[0].datum_type.fact(self.shape(&inputs[0].shape))))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use tract_onnx::prelude::{DatumExt, IntoRunnable, IntoTValue, SpecialOps};
    use tract_onnx::tract_core::ops::cnn::PoolSpec;
    use tract_onnx::tract_core::ops::math;

    use super::*;

    fn ramp(shape: &[usize]) -> Tensor {
        let values: Vec<f32> =
            (0..shape.iter().product::<usize>()).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        Tensor::from_shape(shape, &values).expect("as many values as the shape holds")
    }

    /// An image `[1, 8, 6, 10]`, a convolution 8 -> 8 by it, and what `rest` wires behind them.
    fn model(
        [stride, dilation]: [usize; 2],
        rest: impl Fn(&mut TypedModel, [OutletId; 2]) -> TractResult<OutletId>,
    ) -> TypedModel {
        let build = || -> TractResult<TypedModel> {
            let mut model = TypedModel::default();
            let image = model.add_source("image", f32::fact([1, 8, 6, 10]))?;
            let kernel = model.add_const("kernel", ramp(&[8, 8, 3, 3]))?;
            let bias = model.add_const("bias", ramp(&[8]))?;
            let pool_spec = PoolSpec {
                data_format: DataFormat::NCHW,
                kernel_shape: tvec!(3, 3),
                padding: PaddingSpec::Explicit(tvec!(1, 1), tvec!(1, 1)),
                dilations: Some(tvec!(dilation, dilation)),
                strides: Some(tvec!(stride, stride)),
                input_channels: 8,
                output_channels: 8,
            };
            let conv = Conv { pool_spec, kernel_fmt: KernelFormat::OIHW, group: 1, q_params: None };
            let output = model.wire_node("conv", conv, &[image, kernel, bias])?[0];
            let output = rest(&mut model, [image, output])?;
            model.select_output_outlets(&[output])?;
            model.into_decluttered()
        };
        build().expect("a sound model")
    }

    fn relu(model: &mut TypedModel, input: OutletId) -> TractResult<OutletId> {
        let zero = model.add_const("zero", Tensor::zero::<f32>(&[1, 1, 1, 1])?)?;
        Ok(model.wire_node("relu", math::max(), &[input, zero])?[0])
    }

    fn run(model: TypedModel) -> TractResult<Vec<f32>> {
        let output = model.into_optimized()?.into_runnable()?.run(tvec!(ramp(&[1, 8, 6, 10]).into_tvalue()))?;
        Ok(output[0].view().as_slice::<f32>()?.to_vec())
    }

    /// Names of the operators after the pass, sources and constants left out; what the model yields is compared.
    fn pass(model: TypedModel) -> Vec<String> {
        let mut changed = model.clone();
        use_convolutions(&mut changed).expect("a sound model");
        let names: Vec<String> = changed.nodes().iter().map(|node| node.op.name().into_owned()).collect();
        let (before, after) = (run(model).expect("runs"), run(changed).expect("runs"));
        assert_eq!(before.len(), after.len());
        let worst = before.iter().zip(&after).map(|(b, a)| (b - a).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{names:?}: {worst}");
        names.into_iter().filter(|name| name != "Source" && name != "Const").collect()
    }

    #[test]
    fn a_convolution_takes_the_addition_and_the_relu_behind_it() {
        assert_eq!(pass(model([1, 1], |_, [_, conv]| Ok(conv))), [NAME]);
        assert_eq!(pass(model([2, 1], |_, [_, conv]| Ok(conv))), [NAME]);
        assert_eq!(pass(model([1, 1], |model, [_, conv]| relu(model, conv))), [NAME]);
        let residual = model([1, 1], |model, [image, conv]| {
            let sum = model.wire_node("sum", math::add(), &[image, conv])?[0];
            relu(model, sum)
        });
        assert_eq!(pass(residual), [NAME]);
    }

    #[test]
    fn what_others_read_too_is_left_to_be_read() {
        let read_twice = model([1, 1], |model, [image, conv]| {
            let positive = relu(model, conv)?;
            let sum = model.wire_node("sum", math::add(), &[image, conv])?[0];
            Ok(model.wire_node("product", math::mul(), &[positive, sum])?[0])
        });
        assert_eq!(pass(read_twice).iter().filter(|name| *name != NAME).count(), 3);
    }

    #[test]
    fn other_convolutions_are_left_alone() {
        assert!(!pass(model([1, 2], |_, [_, conv]| Ok(conv))).iter().any(|name| name == NAME));
    }
}
