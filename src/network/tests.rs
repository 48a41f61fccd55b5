//! The network, its flow and its loss against hand-worked values, finite differences and PyTorch's own figures.

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::engine::{Engine, EngineOptions};
use super::flow::RealNvp;
use super::layers::Mode;
use super::loss::residual_log_likelihood;
use super::nfdp::Prediction;
use super::parameters::{Parameters, values};
use crate::geometry::Size;
use crate::train::{Architecture, Array, Batch, Weights};

#[path = "../../tests/support/pseudo_weights.rs"]
mod pseudo_weights;

const LANDMARKS: usize = 19;

fn engine(landmarks: usize, average_decay: f64) -> Engine {
    let options = EngineOptions { seed: 3, flow: true, threads: 1, average_decay, bf16: None };
    Engine::new(Architecture::heatmap(landmarks), options).expect("LibTorch allocates")
}

/// A flow in double precision, its weights those of `fill(name, shape)`.
fn flow_f64(fill: impl Fn(&str, &[usize]) -> Vec<f32>) -> (Parameters, RealNvp) {
    let mut parameters = Parameters::new(1, Device::Cpu);
    let flow = RealNvp::new(parameters.root().at("flow")).expect("LibTorch allocates");
    let _guard = tch::no_grad_guard();
    for (name, weight) in parameters.weights() {
        let shape: Vec<usize> = weight.size().iter().map(|&n| n as usize).collect();
        let filled = Tensor::from_slice(&fill(name, &shape)).reshape(weight.size()).to_kind(Kind::Double);
        weight.shallow_clone().set_data(&filled);
    }
    (parameters, flow)
}

fn doubles(values: &[f64], shape: &[i64]) -> Tensor {
    Tensor::from_slice(values).reshape(shape)
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../../tests/parity/nfdp_golden.json")).expect("the golden file is JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().expect("a number")],
    }
}

fn pseudo_engine() -> Engine {
    pseudo(Architecture::heatmap(LANDMARKS), true)
}

fn golden_batch(golden: &Value) -> Batch {
    let frame = Size::new(96, 128);
    Batch {
        frame,
        pixels: (0..2).flat_map(|i| pseudo_weights::frame(i, 96, 128)).collect(),
        targets: numbers(&golden["truth"]).iter().map(|&v| v as f32).collect(),
        visible: numbers(&golden["visibility"]).iter().map(|&v| v as f32).collect(),
    }
}

#[test]
fn the_parameters_are_as_many_as_the_papers() {
    for (landmarks, expected) in [(19, 12_147_468), (37, 12_168_276), (68, 12_204_112)] {
        let engine = engine(landmarks, 0.0);
        let trained: Vec<&str> = engine.trained().collect();
        let count = |flow: bool| -> usize {
            let of = |name: &&str| trained.contains(name) && name.starts_with("flow.") == flow;
            engine.layout().filter(|(name, _)| of(name)).map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        assert_eq!(count(false), expected, "{landmarks} landmarks");
        assert_eq!(count(true), 53_784);
    }
}

#[test]
fn coordinates_and_sigma_are_pytorchs() {
    let (golden, mut engine) = (golden(), pseudo_engine());
    let predictions = engine.predict(&golden_batch(&golden)).expect("LibTorch computes");
    let mu: Vec<f32> = predictions.iter().flat_map(|p| p.mu.iter().flatten().copied()).collect();
    let sigma: Vec<f32> = predictions.iter().flat_map(|p| p.sigma.iter().flatten().copied()).collect();
    for (found, expected) in [(mu, &golden["eval"]["coordinates"]), (sigma, &golden["eval"]["sigma"])] {
        let expected = numbers(expected);
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            // 0.05 px of a 128 px frame.
            assert!((f64::from(*f) - e).abs() < 0.05 / 128.0, "{f} for {e}");
        }
    }
}

#[test]
fn loss_gradients_and_running_statistics_are_pytorchs() {
    let (golden, engine) = (golden(), pseudo_engine());
    let loss = engine.loss(&golden_batch(&golden), Mode::Train).expect("LibTorch computes").mean(Kind::Float);
    let expected = golden["loss"]["f64"].as_f64().expect("a number");
    let found = loss.double_value(&[]);
    assert!((found - expected).abs() < 1e-6 * expected.abs() * 5.0, "{found} for {expected}");
    loss.backward();
    for (name, expected) in golden["gradients"].as_object().expect("an object") {
        let gradient = values(&engine.tensor(name).expect("a weight").grad()).expect("LibTorch copies");
        let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let probe: f64 = gradient
            .iter()
            .enumerate()
            .map(|(i, &g)| f64::from(g) * pseudo_weights::signed(&format!("probe.{name}"), i as u64))
            .sum();
        let expected_norm = expected["norm"].as_f64().expect("a number");
        // PyTorch's own f32 differs from f64 by 2e-3 here: ReLUs flip.
        let near = |found: f64, expected: f64| (found - expected).abs() <= 3e-3 * expected_norm;
        assert!(near(norm, expected_norm), "{name}: norm {norm} for {expected_norm}");
        let expected_probe = expected["probe"].as_f64().expect("a number");
        assert!(near(probe, expected_probe), "{name}: probe {probe} for {expected_probe}");
        for (found, first) in gradient.iter().zip(numbers(&expected["first"])) {
            assert!(near(f64::from(*found), first), "{name}: {found} for {first}");
        }
    }
    for (name, expected) in golden["running"].as_object().expect("an object") {
        let found = values(engine.tensor(name).expect("a statistic")).expect("LibTorch copies");
        for (f, e) in found.iter().zip(numbers(expected)) {
            assert!((f64::from(*f) - e).abs() < 1e-4 * (1.0 + e.abs()), "{name}: {f} for {e}");
        }
    }
}

fn pseudo(architecture: Architecture, flow: bool) -> Engine {
    let options = EngineOptions { seed: 3, flow, threads: 1, average_decay: 0.0, bf16: None };
    let mut engine = Engine::new(architecture, options).expect("LibTorch allocates");
    let weights: Weights = engine
        .layout()
        .map(|(name, shape)| (name.to_owned(), Array { values: pseudo_weights::values(name, &shape), shape }))
        .collect();
    engine.load_weights(&weights).expect("LibTorch copies");
    engine
}

#[test]
fn every_variant_is_pytorchs() {
    let golden = golden();
    let paper = Architecture::heatmap(LANDMARKS);
    for (name, architecture) in [
        ("top_down", Architecture { top_down: true, ..paper }),
        ("temperature", Architecture { temperature: 20.0, ..paper }),
        ("no_relu", Architecture { temperature: 20.0, heatmap_relu: false, ..paper }),
        ("regression", Architecture::regression(LANDMARKS)),
    ] {
        let mut engine = pseudo(architecture, true);
        let found = engine.predict(&golden_batch(&golden)).expect("LibTorch computes");
        let found: Vec<f32> = found.iter().flat_map(|p| p.mu.iter().flatten().copied()).collect();
        let expected = numbers(&golden["variants"][name]["coordinates"]);
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f64::from(*f) - e).abs() < 0.05 / 128.0, "{name}: {f} for {e}");
        }
    }
}

#[test]
fn without_a_flow_the_loss_is_the_absolute_error_and_sigma_learns_nothing() {
    let golden = golden();
    let expected = &golden["variants"]["absolute_error"];
    let engine = pseudo(Architecture::regression(LANDMARKS), false);
    assert!(!engine.trained().any(|name| name.starts_with("flow.")));
    let loss = engine.loss(&golden_batch(&golden), Mode::Train).expect("LibTorch computes").mean(Kind::Float);
    let value = expected["loss"].as_f64().expect("a number");
    assert!((loss.double_value(&[]) - value).abs() < 1e-5 * value, "{loss:?} for {value}");
    loss.backward();
    assert!(!engine.tensor("sigma.weight").expect("a weight").grad().defined());
    for (name, expected) in expected["gradients"].as_object().expect("an object") {
        let gradient = values(&engine.tensor(name).expect("a weight").grad()).expect("LibTorch copies");
        let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let expected_norm = expected["norm"].as_f64().expect("a number");
        assert!((norm - expected_norm).abs() <= 3e-3 * expected_norm, "{name}: norm {norm} for {expected_norm}");
        for (found, first) in gradient.iter().zip(numbers(&expected["first"])) {
            assert!((f64::from(*found) - first).abs() <= 3e-3 * expected_norm, "{name}: {found} for {first}");
        }
    }
}

#[test]
fn unfolding_changes_the_statistics_and_not_the_function() {
    let golden = golden();
    let batch = golden_batch(&golden);
    let mut engine = pseudo(Architecture::heatmap(LANDMARKS), true);
    let statistics = |engine: &Engine| values(engine.tensor("backbone.layer2.0.bn1.running_var").expect("there"));
    let (before, variance) = (engine.predict(&batch).expect("LibTorch computes"), statistics(&engine).expect("copies"));
    engine.unfold(&batch).expect("LibTorch computes");
    let (after, unfolded) = (engine.predict(&batch).expect("LibTorch computes"), statistics(&engine).expect("copies"));
    assert_ne!(variance, unfolded);
    for (before, after) in before.iter().zip(&after) {
        for (b, a) in before.mu.iter().flatten().zip(after.mu.iter().flatten()) {
            assert!((a - b).abs() < 0.05 / 128.0, "{a} for {b}");
        }
    }
    // Normalised by the batch itself the network now does the same, but for the deviation's n - 1.
    let trained = engine.loss(&batch, Mode::Train).expect("LibTorch computes").mean(Kind::Float).double_value(&[]);
    let evaluated = engine.loss(&batch, Mode::Evaluate).expect("LibTorch computes").mean(Kind::Float).double_value(&[]);
    assert!((trained - evaluated).abs() < 1e-2 * evaluated.abs(), "{trained} and {evaluated}");
}

#[test]
fn features_in_bfloat16_give_nearly_the_same_loss_and_a_step() {
    let golden = golden();
    let mut half = {
        let options = EngineOptions { seed: 3, flow: true, threads: 1, average_decay: 0.0, bf16: Some(true) };
        Engine::new(Architecture::heatmap(3), options).expect("LibTorch allocates")
    };
    let mut single = engine(3, 0.0);
    let mean = |losses: Vec<f32>| losses.iter().sum::<f32>() / losses.len() as f32;
    let (a, b) = (half.step(&noise(1), 1e-3), single.step(&noise(1), 1e-3));
    let (a, b) = (mean(a.expect("LibTorch computes")), mean(b.expect("LibTorch computes")));
    assert!(a != b && (a - b).abs() < 0.02 * b.abs(), "{a} and {b}");
    assert_eq!(golden["landmarks"], LANDMARKS);
    let weight = half.tensor("backbone.conv1.weight").expect("a weight");
    assert_eq!(weight.kind(), Kind::Float, "the weights stay in single precision");
}

#[test]
fn the_flows_density_is_pytorchs() {
    let golden = golden();
    let (_parameters, flow) = flow_f64(pseudo_weights::values);
    let points = numbers(&golden["flow"]["points"]);
    let expected = numbers(&golden["flow"]["log_phi"]);
    let found = flow.log_prob(&doubles(&points, &[expected.len() as i64, 2])).expect("LibTorch computes");
    for (i, e) in expected.iter().enumerate() {
        let f = found.double_value(&[i as i64]);
        assert!((f - e).abs() < 1e-9 * (1.0 + e.abs()), "{f} for {e}");
    }
}

#[test]
fn a_flow_of_zeros_is_the_normal_distribution_and_the_loss_a_sum_on_paper() {
    let (_parameters, flow) = flow_f64(|_, shape| vec![0.0; shape.iter().product()]);
    let prediction = Prediction {
        mu: doubles(&[0.3, -0.2, 0.1, 0.1], &[1, 2, 2]),
        sigma: doubles(&[0.1, 0.2, 0.5, 0.5], &[1, 2, 2]),
    };
    let target = doubles(&[0.2, 0.2, 9.0, 9.0], &[1, 2, 2]);
    let visible = doubles(&[1.0, 0.0], &[1, 2]);
    let loss = residual_log_likelihood(&flow, &prediction, &target, &visible).expect("LibTorch computes");
    // e = (0.1, -0.4), e / sigma = (1, -2): log phi = -(1 + 4) / 2 - ln 2pi; the second landmark does not count.
    let tau = std::f64::consts::TAU;
    let log_phi = -2.5 - tau.ln();
    let axis =
        |sigma: f64, error: f64| 2.0 * sigma.ln() + 0.5 * tau.ln() + error / (std::f64::consts::SQRT_2 * sigma + 1e-9);
    let expected = -2.0 * log_phi + axis(0.1, 0.1) + axis(0.2, 0.4);
    assert!((loss.double_value(&[0]) - expected).abs() < 1e-9);
}

#[test]
fn the_gradient_of_the_loss_is_its_finite_difference() {
    let (_parameters, flow) = flow_f64(pseudo_weights::values);
    let mu = [0.03, -0.02, 0.21, -0.17, -0.4, 0.33];
    let sigma = [0.05, 0.08, 0.2, 0.1, 0.3, 0.25];
    let target = doubles(&[0.01, 0.02, 0.2, -0.2, -0.41, 0.3], &[1, 3, 2]);
    let visible = doubles(&[1.0, 1.0, 0.0], &[1, 3]);
    let loss = |mu: &Tensor, sigma: &Tensor| {
        let prediction = Prediction { mu: mu.shallow_clone(), sigma: sigma.shallow_clone() };
        residual_log_likelihood(&flow, &prediction, &target, &visible).expect("LibTorch computes")
    };
    let at = |values: &[f64]| doubles(values, &[1, 3, 2]).set_requires_grad(true);
    let (m, s) = (at(&mu), at(&sigma));
    loss(&m, &s).sum(Kind::Double).backward();
    const STEP: f64 = 1e-6;
    for i in 0..6 {
        for (which, gradient) in [("mu", m.grad()), ("sigma", s.grad())] {
            let shifted = |by: f64| {
                let (mut mu, mut sigma) = (mu, sigma);
                if which == "mu" {
                    mu[i] += by
                } else {
                    sigma[i] += by
                }
                loss(&doubles(&mu, &[1, 3, 2]), &doubles(&sigma, &[1, 3, 2])).double_value(&[0])
            };
            let difference = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
            let found = gradient.reshape([6]).double_value(&[i as i64]);
            let tolerance = 1e-5 * (1.0 + difference.abs());
            assert!((found - difference).abs() < tolerance, "d/d{which}[{i}]: {found} for {difference}");
            assert!(i < 4 || found == 0.0, "an invisible landmark has no gradient");
        }
    }
}

#[test]
fn the_gradient_of_the_flow_is_its_finite_difference() {
    let (parameters, flow) = flow_f64(pseudo_weights::values);
    let x = doubles(&[0.5, -1.0, 2.0, 0.25], &[2, 2]);
    let value = || flow.log_prob(&x).expect("LibTorch computes").sum(Kind::Double);
    value().backward();
    const STEP: f64 = 1e-6;
    for name in ["flow.1.scale.2.weight", "flow.2.shift.1.weight", "flow.4.shift.0.bias", "flow.5.scale.0.weight"] {
        let weight = &parameters.weights()[name];
        let found = weight.grad().reshape([-1]).double_value(&[1]);
        let shifted = |by: f64| {
            let _guard = tch::no_grad_guard();
            let _ = weight.detach().reshape([-1]).get(1).f_add_scalar_(by);
            let shifted = value().double_value(&[]);
            let _ = weight.detach().reshape([-1]).get(1).f_add_scalar_(-by);
            shifted
        };
        let difference = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
        assert!((found - difference).abs() < 1e-5 * (1.0 + difference.abs()), "{name}: {found} for {difference}");
    }
}

/// Four films of noise with landmarks.
fn noise(seed: u64) -> Batch {
    let frame = Size::new(64, 64);
    let name = format!("noise.{seed}");
    let number = |i: usize| pseudo_weights::signed(&name, i as u64);
    Batch {
        frame,
        pixels: (0..4 * 64 * 64).map(|i| ((number(i) + 1.0) * 127.0) as u8).collect(),
        targets: (0..4 * 3 * 2).map(|i| (number(i) * 0.4) as f32).collect(),
        visible: vec![1.0; 4 * 3],
    }
}

#[test]
fn two_steps_saved_loaded_and_two_more_are_four_steps_bit_for_bit() {
    let lr = 1e-3;
    let mut whole = engine(3, 0.9);
    for step in 0..4 {
        whole.step(&noise(step), lr).expect("LibTorch computes");
    }
    let mut first = engine(3, 0.9);
    for step in 0..2 {
        first.step(&noise(step), lr).expect("LibTorch computes");
    }
    let state = first.state().expect("LibTorch copies");
    let mut second = engine(3, 0.9);
    second.load_state(&state).expect("the state of the same network");
    for step in 2..4 {
        second.step(&noise(step), lr).expect("LibTorch computes");
    }
    let (whole, second) = (whole.state().expect("LibTorch copies"), second.state().expect("LibTorch copies"));
    assert!(whole == second, "the continued run differs");
    assert!(whole != state, "steps change the state");
}

#[test]
fn training_on_one_batch_lowers_its_loss() {
    let mut engine = engine(3, 0.9);
    let batch = noise(7);
    let mean = |losses: Vec<f32>| losses.iter().sum::<f32>() / losses.len() as f32;
    let first = mean(engine.step(&batch, 1e-3).expect("LibTorch computes"));
    let mut last = first;
    for _ in 0..14 {
        last = mean(engine.step(&batch, 1e-3).expect("LibTorch computes"));
    }
    assert!(last < first - 5.0, "{first} fell to {last} only");
}

#[test]
fn a_loss_that_is_no_number_changes_nothing() {
    let mut engine = engine(3, 0.9);
    let before = engine.weights().expect("LibTorch copies");
    let mut batch = noise(1);
    batch.targets[0] = f32::NAN;
    let losses = engine.step(&batch, 1e-3).expect("LibTorch computes");
    assert!(losses[0].is_nan() && losses[1].is_finite());
    let after = engine.weights().expect("LibTorch copies");
    let trained: Vec<String> = engine.trained().map(str::to_owned).collect();
    assert!(trained.iter().all(|name| before[name] == after[name]));
}

#[test]
fn a_batch_of_the_wrong_length_is_refused_by_name() {
    let mut engine = engine(3, 0.0);
    let mut batch = noise(1);
    batch.visible.pop();
    let error = engine.step(&batch, 1e-3).expect_err("one weight is missing").to_string();
    assert_eq!(error, "the batch holds 11 visibility weights, 12 were expected");
}
