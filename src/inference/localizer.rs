//! Film to named landmarks: the frame, the network, and the way back to source pixels.

use std::time::{Duration, Instant};

use super::{Detector, FrameLandmark, InferenceError, TractDetector};
use crate::geometry::Point;
use crate::landmark::Landmark;
use crate::model::{Bundle, Conformal};
use crate::radiograph::{Format, NetworkInput, Radiograph, network_input};

/// How far the network may place a landmark of the golden film from where it placed it when the bundle was made, in
/// pixels of that film: far more than runtimes differ by, far less than a wrong network would.
pub const SELF_TEST_TOLERANCE_PX: f64 = 0.5;

/// A bundle's network, ready for films.
pub struct Localizer {
    detector: Box<dyn Detector>,
    names: Vec<String>,
    /// What sigma is multiplied with, and the radius in units of the result; of a bundle.
    calibration: Option<(Vec<f64>, Conformal)>,
}

/// What was found on one film, and how.
#[derive(Clone, Debug)]
pub struct Localization {
    /// In the order of the bundle's manifest, in source pixels.
    pub landmarks: Vec<Landmark>,
    /// What the network saw.
    pub input: NetworkInput,
    /// From gray values to the network's input.
    pub frame_time: Duration,
    /// The network.
    pub inference_time: Duration,
}

impl Localizer {
    /// Prepares a bundle's network on the CPU, one thread.
    ///
    /// # Errors
    /// When the network is not one the runtime can run, or not what the manifest says.
    pub fn new(bundle: &Bundle) -> Result<Self, InferenceError> {
        let manifest = bundle.manifest();
        let names = manifest.landmarks.clone();
        let detector = TractDetector::new(bundle.network(), manifest.network.frame, names.len())?;
        let calibration = Some((manifest.network.sigma_scale.clone(), manifest.network.conformal));
        Ok(Self { calibration, ..Self::with_detector(Box::new(detector), names) })
    }

    /// A localizer over any detector, its sigma taken as it is; `names` are in the detector's order.
    #[must_use]
    pub fn with_detector(detector: Box<dyn Detector>, names: Vec<String>) -> Self {
        Self { detector, names, calibration: None }
    }

    /// The same with what serves in the place of the detector made of it, such as one that guards it.
    #[must_use]
    pub fn over(self, over: impl FnOnce(Box<dyn Detector>) -> Box<dyn Detector>) -> Self {
        Self { detector: over(self.detector), ..self }
    }

    /// The detector alone.
    #[must_use]
    pub fn into_detector(self) -> Box<dyn Detector> {
        self.detector
    }

    /// See [`Detector::fall_back`].
    pub fn fall_back(&mut self, why: &str) -> bool {
        self.detector.fall_back(why)
    }

    /// What computes, or computed the last film ("tract-cpu").
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.detector.backend()
    }

    /// Names of the landmarks, in order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Finds every landmark of a film.
    ///
    /// # Errors
    /// When the runtime fails or the network's answer is no number.
    pub fn localize(&mut self, radiograph: &Radiograph) -> Result<Localization, InferenceError> {
        let start = Instant::now();
        let input = network_input(radiograph, self.detector.frame());
        let framed = Instant::now();
        let found = self.detector.detect(&input)?;
        let inference_time = framed.elapsed();
        if found.len() != self.names.len() {
            return Err(InferenceError::Interface {
                backend: self.detector.backend(),
                what: "number of landmarks".to_owned(),
                expected: self.names.len().to_string(),
                found: found.len().to_string(),
            });
        }
        let to_source = input.from_source.inverse();
        let named = |(i, found): (usize, FrameLandmark)| {
            let scale = self.calibration.as_ref().map_or(1.0, |(scales, _)| scales[i]);
            let sigma_px = found.sigma_px.map(|sigma| sigma * scale * to_source.scale());
            let radius = |(_, conformal): &(_, Conformal)| conformal.radius95 * root_mean_square(sigma_px);
            Landmark {
                name: self.names[i].clone(),
                point: to_source.apply(found.point),
                sigma_px,
                radius95_px: self.calibration.as_ref().map(radius),
                score: found.score,
            }
        };
        let landmarks = found.into_iter().enumerate().map(named).collect();
        Ok(Localization { landmarks, input, frame_time: framed - start, inference_time })
    }

    /// What is found on a bundle's golden film, in its pixels.
    ///
    /// # Errors
    /// When the golden film is no PNG of the size the manifest says, or the network fails on it.
    pub fn golden(&mut self, bundle: &Bundle) -> Result<Localization, InferenceError> {
        self.localize(&golden_radiograph(bundle)?)
    }

    /// How far, in pixels of the golden film, a landmark lies at most from where the bundle expects it; compare with
    /// [`SELF_TEST_TOLERANCE_PX`].
    ///
    /// # Errors
    /// As [`golden`](Self::golden).
    pub fn self_test(&mut self, bundle: &Bundle) -> Result<f64, InferenceError> {
        let found = self.golden(bundle)?.landmarks;
        let distance = |(landmark, expected): (&Landmark, &Point)| landmark.point.distance(*expected);
        Ok(found.iter().zip(&bundle.manifest().golden.expected_px).map(distance).fold(0.0, f64::max))
    }
}

/// What [`Conformal`] counts its radii in.
#[must_use]
pub fn root_mean_square([x, y]: [f64; 2]) -> f64 {
    f64::midpoint(x * x, y * y).sqrt()
}

fn golden_radiograph(bundle: &Bundle) -> Result<Radiograph, InferenceError> {
    let expected = bundle.manifest().golden.size;
    let failed = |reason: String| InferenceError::Golden { reason };
    let mut reader = image::ImageReader::with_format(std::io::Cursor::new(bundle.golden()), image::ImageFormat::Png);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(expected.width);
    limits.max_image_height = Some(expected.height);
    reader.limits(limits);
    let gray = reader.decode().map_err(|e| failed(e.to_string()))?.into_luma16();
    let size = crate::geometry::Size::new(gray.width(), gray.height());
    if size != expected {
        return Err(failed(format!("it is {size}, the manifest says {expected}")));
    }
    Ok(Radiograph::gray(Format::Png, size, gray.into_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Frame, Size};

    /// Finds one landmark at a fixed place of the frame.
    struct Fixed(FrameLandmark);

    impl Detector for Fixed {
        fn frame(&self) -> Frame {
            Frame::new(128, 128)
        }

        fn backend(&self) -> &'static str {
            "fixed"
        }

        fn detect(&mut self, _: &NetworkInput) -> Result<Vec<FrameLandmark>, InferenceError> {
            Ok(vec![self.0])
        }
    }

    fn film(width: u32, height: u32) -> Radiograph {
        let size = Size::new(width, height);
        Radiograph::gray(Format::Png, size, vec![0; size.area() as usize])
    }

    fn fixed(names: &[&str]) -> Localizer {
        let found = FrameLandmark { point: Point::new(64.0, 32.0), sigma_px: [2.0, 3.0], score: 0.9 };
        Localizer::with_detector(Box::new(Fixed(found)), names.iter().map(|&n| n.to_owned()).collect())
    }

    #[test]
    fn points_and_sigmas_are_scaled_to_the_source() {
        // A film of 400 x 512: the box is 512 * 1.25 = 640 wide, so a frame pixel is 5 source pixels.
        let found = fixed(&["sella"]).localize(&film(400, 512)).expect("one landmark").landmarks;
        let [sella] = found.as_slice() else { panic!("one landmark: {found:?}") };
        // The frame's centre (64, 64) is the film's (200, 256); 32 rows above it are 160 source rows.
        assert!(sella.point.distance(Point::new(200.0, 96.0)) < 1e-9, "{sella:?}");
        assert!((sella.sigma_px[0] - 10.0).abs() < 1e-9 && (sella.sigma_px[1] - 15.0).abs() < 1e-9, "{sella:?}");
        assert_eq!((sella.name.as_str(), sella.score, sella.radius95_px), ("sella", 0.9, None));
    }

    #[test]
    fn a_bundles_calibration_is_of_each_landmark() {
        let calibration = Some((vec![2.0], Conformal { radius90: 1.0, radius95: 3.0 }));
        let found = Localizer { calibration, ..fixed(&["sella"]) }.localize(&film(400, 512)).expect("one landmark");
        let sella = &found.landmarks[0];
        assert!((sella.sigma_px[0] - 20.0).abs() < 1e-9 && (sella.sigma_px[1] - 30.0).abs() < 1e-9, "{sella:?}");
        let radius = 3.0 * (0.5 * (400.0_f64 + 900.0)).sqrt();
        assert!((sella.radius95_px.expect("calibrated") - radius).abs() < 1e-9, "{sella:?}");
    }

    #[test]
    fn a_detector_with_another_number_of_landmarks_is_an_error() {
        let error = fixed(&["sella", "nasion"]).localize(&film(10, 10)).expect_err("refused");
        assert!(matches!(error, InferenceError::Interface { .. }), "{error}");
    }
}
