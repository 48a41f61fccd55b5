//! Does the exported network, run by tract, give what the paper's network gives in PyTorch?
//!
//! The golden figures and how they were made: `tests/parity/nfdp_torch.py`. Weights are pseudo-random by name, so
//! nothing large lies in the repository.
#![cfg(feature = "train")]

use std::path::Path;

use landmarkd::geometry::{Frame, Point, Similarity, Size};
use landmarkd::inference::{Detector, FrameLandmark, InferenceError, Localizer, SELF_TEST_TOLERANCE_PX, TractDetector};
use landmarkd::landmark::CEPHALOGRAM_NAMES;
use landmarkd::model::{Bundle, BundleParts, Conformal, GoldenFilm, Manifest, Network, Preprocessing, Training};
use landmarkd::radiograph::{Format, NetworkInput, Radiograph};
use landmarkd::train::{Architecture, Array, ExportError, Storage, Weights, convolutions, export_nfdp};
use prost::Message;
use serde_json::Value;
use tract_onnx::pb::ModelProto;

#[path = "support/pseudo_weights.rs"]
mod pseudo_weights;

const SIZE: Size = Size::new(96, 128);
const FRAME: Frame = Frame::new(SIZE.width, SIZE.height);
const LANDMARKS: usize = 19;
const ARCHITECTURE: Architecture = Architecture::heatmap(LANDMARKS);

fn golden() -> Value {
    serde_json::from_str(include_str!("parity/nfdp_golden.json")).expect("the golden file is JSON")
}

/// The weights of the golden figures.
fn weights() -> Weights {
    weights_of(&ARCHITECTURE)
}

fn weights_of(architecture: &Architecture) -> Weights {
    let mut weights = Weights::new();
    let mut add = |name: String, shape: Vec<usize>| {
        let values = pseudo_weights::values(&name, &shape);
        weights.insert(name, Array { shape, values });
    };
    for (name, layer) in convolutions(architecture) {
        add(format!("{name}.weight"), layer.shape().to_vec());
        for part in ["weight", "bias", "running_mean", "running_var"] {
            add(format!("{}.{part}", layer.norm), vec![layer.outputs]);
        }
    }
    for name in ["sigma", "coordinates"] {
        add(format!("{name}.weight"), vec![2 * LANDMARKS, 512]);
        add(format!("{name}.bias"), vec![2 * LANDMARKS]);
    }
    weights
}

fn export(storage: Storage) -> Vec<u8> {
    export_nfdp(&weights(), SIZE, ARCHITECTURE, storage).expect("the pseudo-random weights are complete")
}

fn input(index: usize) -> NetworkInput {
    let pixels = pseudo_weights::frame(index, FRAME.width as usize, FRAME.height as usize);
    NetworkInput { size: SIZE, pixels, from_source: Similarity::IDENTITY }
}

/// The landmarks of frame `index` in a part of the golden figures, in frame pixels.
fn expected(part: &Value, index: usize) -> Vec<(Point, [f64; 2])> {
    let sides = [FRAME.width, FRAME.height].map(f64::from);
    let at = |kind: &str, k: usize, axis: usize| part[kind][index][k][axis].as_f64().expect("a number");
    (0..LANDMARKS)
        .map(|k| {
            let [x, y] = [0, 1].map(|axis| (at("coordinates", k, axis) + 0.5) * sides[axis]);
            (Point::new(x, y), [0, 1].map(|axis| at("sigma", k, axis) * sides[axis]))
        })
        .collect()
}

/// The largest deviations of coordinates and sigma, in frame pixels.
fn deviations(found: &[FrameLandmark], expected: &[(Point, [f64; 2])]) -> (f64, f64) {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).fold((0.0, 0.0), |(p, s), (f, (point, sigma))| {
        let sigma_px = (f.sigma_px[0] - sigma[0]).abs().max((f.sigma_px[1] - sigma[1]).abs());
        (f64::max(p, f.point.distance(*point)), f64::max(s, sigma_px))
    })
}

#[test]
fn tract_gives_the_golden_landmarks() {
    let golden = golden();
    for (storage, file, point_px, sigma_px) in
        [(Storage::F32, "nfdp-f32.onnx", 0.005, 0.005), (Storage::F16, "nfdp-f16.onnx", 0.05, 0.05)]
    {
        let onnx = export(storage);
        // For check_onnx.py, which puts the same question to the ONNX checker and to ONNX Runtime.
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(file), &onnx).expect("the target folder is ours");
        let mut detector = TractDetector::new(&onnx, FRAME, LANDMARKS).expect("tract runs the export");
        for index in 0..2 {
            let found = detector.detect(&input(index)).expect("a frame of the right size");
            let (point, sigma) = deviations(&found, &expected(&golden["eval"], index));
            println!("{storage:?}, frame {index}: {point:.6} px, sigma {sigma:.6} px");
            assert!(point < point_px && sigma < sigma_px, "{storage:?}, frame {index}: {point} px, sigma {sigma} px");
        }
    }
}

#[test]
fn the_score_is_one_less_the_mean_normalised_sigma() {
    let mut detector = TractDetector::new(&export(Storage::F32), FRAME, LANDMARKS).expect("tract runs the export");
    for landmark in detector.detect(&input(0)).expect("a frame of the right size") {
        let mean =
            (landmark.sigma_px[0] / f64::from(FRAME.width) + landmark.sigma_px[1] / f64::from(FRAME.height)) / 2.0;
        assert!((landmark.score - (1.0 - mean)).abs() < 1e-12);
    }
}

#[test]
fn the_graph_is_the_rewritten_one() {
    let model = ModelProto::decode(export(Storage::F16).as_slice()).expect("a protobuf");
    let graph = model.graph.expect("a graph");
    let count = |op: &str| graph.node.iter().filter(|n| n.op_type == op).count();
    assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
    assert_eq!((count("BatchNormalization"), count("Resize")), (0, 0));
    assert_eq!(count("MatMul"), 2 * 4 + 1, "four doublings by two products, and the soft-argmax");
    assert_eq!(count("Conv"), 20 + 8 + 7 + 2, "backbone, neck, head, and the output convolution on fine and coarse");
    let dims = |name: &str| graph.initializer.iter().find(|i| i.name == name).map(|i| i.dims.clone());
    assert_eq!(dims("backbone.conv1.weight.f16"), Some(vec![64, 1, 7, 7]));
    assert_eq!(graph.output.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["coordinates", "sigma"]);
}

#[test]
fn a_cephalogram_network_fits_25_megabytes() {
    let onnx = export_nfdp(&weights(), Size::new(512, 512), ARCHITECTURE, Storage::F16).expect("complete");
    assert!(onnx.len() <= 25_000_000, "{} bytes", onnx.len());
    // For tests/bench/onnxruntime_ratio.py, where no trained bundle is at hand.
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nfdp-512.onnx"), &onnx)
        .expect("the target folder is ours");
}

#[test]
fn tract_widens_stored_halves_when_it_loads_and_not_at_each_frame() {
    let detector = TractDetector::new(&export(Storage::F16), FRAME, LANDMARKS).expect("tract runs the export");
    let operators = detector.operators();
    assert!(!operators.is_empty() && !operators.iter().any(|op| op.contains("Cast")), "{operators:?}");
}

/// Otherwise a change of the export or of tract would cost two thirds of the speed and nothing would say so.
#[test]
fn every_convolution_but_those_of_one_pixel_is_the_fast_one() {
    let fast = convolutions(&ARCHITECTURE).values().filter(|layer| layer.kernel > 1).count();
    let detector = TractDetector::new(&export(Storage::F16), FRAME, LANDMARKS).expect("tract runs the export");
    let operators = detector.operators();
    let found = operators.iter().filter(|op| *op == "FusedConvolution").count();
    assert_eq!((found, fast), (28, 28), "{operators:?}");
    assert!(!operators.iter().any(|op| op == "Max" || op.contains("Im2col")), "{operators:?}");
}

#[test]
fn every_variant_exported_is_pytorchs() {
    let golden = golden();
    let paper = ARCHITECTURE;
    for (name, architecture) in [
        ("top_down", Architecture { top_down: true, ..paper }),
        ("temperature", Architecture { temperature: 20.0, ..paper }),
        ("no_relu", Architecture { temperature: 20.0, heatmap_relu: false, ..paper }),
        ("regression", Architecture::regression(LANDMARKS)),
    ] {
        let onnx = export_nfdp(&weights_of(&architecture), SIZE, architecture, Storage::F32).expect("complete");
        let mut detector = TractDetector::new(&onnx, FRAME, LANDMARKS).expect("tract runs the export");
        for index in 0..2 {
            let found = detector.detect(&input(index)).expect("a frame of the right size");
            for (landmark, (point, sigma)) in found.iter().zip(expected(&golden["variants"][name], index)) {
                assert!(landmark.point.distance(point) < 0.05, "{name}: {:?} for {point:?}", landmark.point);
                assert!((landmark.sigma_px[0] - sigma[0]).abs() < 0.05, "{name}: {:?}", landmark.sigma_px);
            }
        }
    }
}

#[test]
fn what_cannot_be_exported_says_why() {
    let refused = |change: fn(&mut Weights), frame: Size| {
        let mut weights = weights();
        change(&mut weights);
        export_nfdp(&weights, frame, ARCHITECTURE, Storage::F16).expect_err("refused")
    };
    let missing = refused(|w| drop(w.remove("neck.2.smooth_bn.running_var")), SIZE);
    assert_eq!(missing.to_string(), "the weights have no tensor `neck.2.smooth_bn.running_var`");
    let shape = refused(|w| w.get_mut("sigma.bias").expect("there").shape = vec![40], SIZE);
    assert_eq!(shape.to_string(), "`sigma.bias` has shape [40], expected [38]");
    let nan = refused(|w| w.get_mut("head.output.weight").expect("there").values[5] = f32::NAN, SIZE);
    assert!(matches!(nan, ExportError::Value { .. }), "{nan}");
    let large = refused(|w| w.get_mut("backbone.conv1.weight").expect("there").values[0] = 1e6, SIZE);
    assert!(matches!(large, ExportError::Value { storage: Storage::F16, .. }), "{large}");
    assert!(matches!(refused(|_| (), Size::new(100, 128)), ExportError::Frame { .. }));
}

#[test]
fn a_network_of_another_kind_is_refused_when_it_is_loaded() {
    let onnx = export(Storage::F16);
    let load = |network: &[u8], frame, landmarks| TractDetector::new(network, frame, landmarks).err();
    assert!(matches!(load(b"no protobuf", FRAME, LANDMARKS), Some(InferenceError::Load { .. })));
    assert!(matches!(load(&onnx[..onnx.len() / 2], FRAME, LANDMARKS), Some(InferenceError::Load { .. })));
    let turned = load(&onnx, Frame::new(128, 96), LANDMARKS).expect("refused").to_string();
    assert!(turned.contains("1,1,128,96") && turned.contains("1,1,96,128"), "{turned}");
    let fewer = load(&onnx, FRAME, 18).expect("refused").to_string();
    assert!(fewer.contains("`coordinates`") && fewer.contains("1,19,2"), "{fewer}");
}

#[test]
fn a_frame_of_another_size_is_refused() {
    let mut detector = TractDetector::new(&export(Storage::F16), FRAME, LANDMARKS).expect("tract runs the export");
    let other = NetworkInput { size: Size::new(128, 96), ..input(0) };
    assert!(matches!(detector.detect(&other), Err(InferenceError::FrameSize { .. })));
}

/// A bundle of the pseudo-random network whose golden film is pseudo-random too.
fn parts(expected_px: Vec<Point>) -> BundleParts {
    let size = Size::new(300, 380);
    let gray = pseudo_weights::frame(7, size.width as usize, size.height as usize);
    let mut golden = std::io::Cursor::new(Vec::new());
    image::write_buffer_with_format(
        &mut golden,
        &gray,
        size.width,
        size.height,
        image::ExtendedColorType::L8,
        image::ImageFormat::Png,
    )
    .expect("memory takes every write");
    let text = |text: &str| text.to_owned();
    let manifest = Manifest {
        format: 1,
        name: text("pseudo-nfdp"),
        version: text("0.1.0"),
        minimum_daemon: text("0.1.0"),
        network: Network {
            file: text("network.onnx"),
            sha256: String::new(),
            frame: FRAME,
            heatmap_stride: 4,
            sigma_scale: vec![0.25; LANDMARKS],
            conformal: Conformal { radius90: 2.0, radius95: 3.0 },
            preprocessing: Preprocessing::NfdpGray8,
        },
        landmarks: CEPHALOGRAM_NAMES.map(text).to_vec(),
        measures: vec![],
        golden: GoldenFilm {
            file: text("golden.png"),
            sha256: String::new(),
            size,
            true_px: expected_px.clone(),
            expected_px,
            origin: text("pseudo-random"),
        },
        training: Training {
            data: text("none"),
            films: 0,
            hold_out_every: None,
            films_sha256: None,
            initialisation: text("pseudo-random"),
            procedure: text("none"),
        },
        metrics: vec![],
        licence: text("CC0-1.0"),
        notice: text("a test, of no use"),
    };
    BundleParts { manifest, network: export(Storage::F16), golden: golden.into_inner(), card: text("# Pseudo\n") }
}

#[test]
fn a_bundle_passes_its_self_test_and_one_with_other_points_does_not() {
    // It stays there for check_onnx.py.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pseudo-nfdp");
    let somewhere = vec![Point::new(150.0, 190.0); LANDMARKS];
    let draft = Bundle::write(&directory, parts(somewhere)).expect("a sound bundle");
    let mut localizer = Localizer::new(&draft).expect("tract runs the export");
    assert!(localizer.self_test(&draft).expect("the golden film is a film") > SELF_TEST_TOLERANCE_PX);

    let size = draft.manifest().golden.size;
    let gray = pseudo_weights::frame(7, size.width as usize, size.height as usize);
    let pixels = gray.into_iter().map(|v| u16::from(v) * 257).collect();
    let found = localizer.localize(&Radiograph::gray(Format::Png, size, pixels)).expect("a film").landmarks;
    let expected = found.iter().map(|landmark| landmark.point).collect();
    Bundle::write(&directory, parts(expected)).expect("a sound bundle");
    let bundle = Bundle::open(&directory).expect("what was written");
    let deviation = localizer.self_test(&bundle).expect("the golden film is a film");
    assert!(deviation < 1e-9, "{deviation} px");
}
