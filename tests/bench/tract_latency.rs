//! Times single inferences on demand, for `onnxruntime_ratio.py` beside it.
//!
//! `tract_latency NETWORK WIDTH HEIGHT LANDMARKS` loads an ONNX file as the daemon does, prints a line when
//! it is ready, and then for every line it reads runs one inference and prints its milliseconds.

use std::io::BufRead;
use std::time::Instant;

use anyhow::{Context, bail};
use landmarkd::geometry::{Frame, Similarity};
use landmarkd::inference::{Detector, TractDetector};
use landmarkd::radiograph::NetworkInput;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [network, numbers @ ..] = arguments.as_slice() else {
        bail!("usage: tract_latency NETWORK WIDTH HEIGHT LANDMARKS")
    };
    let numbers: Vec<u32> = numbers.iter().map(|n| n.parse()).collect::<Result<_, _>>().context("not a number")?;
    let [width, height, landmarks] = numbers[..] else { bail!("three numbers follow the network") };
    let frame = Frame::new(width, height);
    let bytes = std::fs::read(network).with_context(|| format!("cannot read {network}"))?;
    let mut detector = TractDetector::new(&bytes, frame, landmarks as usize)?;
    let pixels = (0..frame.size().area()).map(|i| (i * 31 % 256) as u8).collect();
    let input = NetworkInput { size: frame.size(), pixels, from_source: Similarity::IDENTITY };
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        detector.detect(&input)?;
        println!("{:.3}", start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
