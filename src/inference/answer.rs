//! What every backend shares: gray values to the network's numbers, and the network's numbers to landmarks.

use super::{FrameLandmark, InferenceError};
use crate::geometry::{Frame, Point, Size};
use crate::radiograph::NetworkInput;

/// What the network reads: `gray / 255 - 1/2`, row by row.
pub(super) fn normalised(input: &NetworkInput, frame: Frame) -> Result<Vec<f32>, InferenceError> {
    if input.size != frame.size() || input.pixels.len() as u64 != input.size.area() {
        return Err(InferenceError::FrameSize { expected: frame.size(), found: input.size });
    }
    let table: [f32; 256] = std::array::from_fn(|gray| gray as f32 / 255.0 - 0.5);
    Ok(input.pixels.iter().map(|&gray| table[usize::from(gray)]).collect())
}

/// The landmarks in what a network answered, x and y of each in turn.
pub(super) fn frame_landmarks(
    backend: &'static str,
    frame: Frame,
    coordinates: &[f32],
    sigma: &[f32],
) -> Result<Vec<FrameLandmark>, InferenceError> {
    let pairs = coordinates.chunks_exact(2).zip(sigma.chunks_exact(2));
    let landmarks: Vec<_> = pairs.map(|(c, s)| in_frame(frame.size(), [c[0], c[1]], [s[0], s[1]])).collect();
    match landmarks.iter().position(|l| !is_finite(l)) {
        Some(landmark) => Err(InferenceError::NotFinite { backend, landmark }),
        None => Ok(landmarks),
    }
}

/// From the network's normalised units (`pixel / side - 1/2`) to frame pixels.
fn in_frame(frame: Size, coordinates: [f32; 2], sigma: [f32; 2]) -> FrameLandmark {
    let sides = [frame.width, frame.height].map(f64::from);
    let [x, y] = coordinates.map(f64::from);
    let [sigma_x, sigma_y] = sigma.map(f64::from);
    FrameLandmark {
        point: Point::new((x + 0.5) * sides[0], (y + 0.5) * sides[1]),
        sigma_px: [sigma_x * sides[0], sigma_y * sides[1]],
        score: 1.0 - f64::midpoint(sigma_x, sigma_y),
    }
}

fn is_finite(landmark: &FrameLandmark) -> bool {
    let FrameLandmark { point, sigma_px, score } = landmark;
    [point.x, point.y, sigma_px[0], sigma_px[1], *score].into_iter().all(f64::is_finite)
}
