//! GPU first, the processor behind it: a film that the GPU fails on is the processor's, and so is every one after.

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::geometry::Frame;
use crate::inference::{Detector, FrameLandmark, InferenceError};
use crate::radiograph::NetworkInput;

/// So many films in a row for which the GPU gives no numbers, and it is the GPU and not the films.
const NO_NUMBERS: u32 = 3;

/// Told once when the GPU is given up, with the reason.
pub type Fallback = Box<dyn Fn(&str) + Send>;

/// Where a detector waits until the thread that serves takes it.
#[derive(Clone, Default)]
pub struct Handover(Arc<Mutex<Option<Box<dyn Detector>>>>);

impl Handover {
    /// Leaves one; what waited before is dropped.
    pub fn offer(&self, detector: Box<dyn Detector>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(detector);
    }

    fn take(&self) -> Option<Box<dyn Detector>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A file that is there while the GPU is opened or computes a film, and so after the process died of it.
///
/// It is not flushed: a power cut leaves none behind, and no film waits for a disk.
#[derive(Clone, Debug)]
pub struct Mark(PathBuf);

impl Mark {
    /// At this path, whose directory need not be there.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Leaves it, in a directory that is made where it is not there.
    pub fn set(&self) {
        // Without it a crash is not told from others.
        let directory = self.0.parent().unwrap_or(Path::new("/"));
        let create = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.0);
        let _ = create().or_else(|_| {
            DirBuilder::new().mode(0o700).create(directory)?;
            create()
        });
    }

    /// Takes it away; whether it was there.
    pub fn take(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }
}

/// A detector that serves from the start, with another before it from when that is handed over until it fails.
pub struct Guarded {
    processor: Box<dyn Detector>,
    accelerator: Option<Box<dyn Detector>>,
    handover: Handover,
    fallback: Fallback,
    mark: Mark,
    no_numbers: u32,
    last: &'static str,
}

impl Guarded {
    /// `processor`, until something is handed over.
    #[must_use]
    pub fn new(processor: Box<dyn Detector>, handover: Handover, fallback: Fallback, mark: Mark) -> Self {
        let last = processor.backend();
        Self { processor, accelerator: None, handover, fallback, mark, no_numbers: 0, last }
    }

    fn accelerated(&mut self, input: &NetworkInput) -> Option<Vec<FrameLandmark>> {
        if let Some(offered) = self.handover.take() {
            self.no_numbers = 0;
            self.accelerator = Some(offered);
        }
        let accelerator = self.accelerator.as_mut()?;
        self.mark.set();
        let found = accelerator.detect(input);
        self.mark.take();
        match found {
            Ok(found) => {
                self.last = accelerator.backend();
                self.no_numbers = 0;
                return Some(found);
            }
            // A film may be beyond what f16 holds.
            Err(error @ InferenceError::NotFinite { .. }) if self.no_numbers + 1 < NO_NUMBERS => {
                self.no_numbers += 1;
                tracing::warn!("{error}; the processor computes this film");
            }
            Err(error) => drop(self.fall_back(&error.to_string())),
        }
        None
    }
}

impl Detector for Guarded {
    fn frame(&self) -> Frame {
        self.processor.frame()
    }

    fn backend(&self) -> &'static str {
        self.last
    }

    fn detect(&mut self, input: &NetworkInput) -> Result<Vec<FrameLandmark>, InferenceError> {
        if let Some(found) = self.accelerated(input) {
            return Ok(found);
        }
        self.last = self.processor.backend();
        self.processor.detect(input)
    }

    fn fall_back(&mut self, why: &str) -> bool {
        let given_up = self.accelerator.take();
        let had = given_up.is_some();
        if had {
            self.last = self.processor.backend();
            (self.fallback)(why);
        }
        had
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Point;
    use std::collections::VecDeque;

    enum Does {
        Finds,
        Fails,
        NoNumber,
    }

    /// Does what it is told, one film after another.
    struct Scripted(&'static str, VecDeque<Does>);

    impl Detector for Scripted {
        fn frame(&self) -> Frame {
            Frame::new(1, 1)
        }

        fn backend(&self) -> &'static str {
            self.0
        }

        fn detect(&mut self, _: &NetworkInput) -> Result<Vec<FrameLandmark>, InferenceError> {
            match self.1.pop_front() {
                None | Some(Does::Finds) => {
                    Ok(vec![FrameLandmark { point: Point::new(0.0, 0.0), sigma_px: [1.0; 2], score: 1.0 }])
                }
                Some(Does::Fails) => Err(InferenceError::Runtime { backend: "gpu", reason: "no memory".to_owned() }),
                Some(Does::NoNumber) => Err(InferenceError::NotFinite { backend: "gpu", landmark: 0 }),
            }
        }
    }

    /// Who computed each film, and what was said of the GPU.
    fn films(script: Vec<Does>, count: usize) -> (Vec<&'static str>, Vec<String>) {
        let handover = Handover::default();
        let said = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&said);
        let fallback: Fallback = Box::new(move |why| told.lock().expect("ours").push(why.to_owned()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mark = Mark::new(folder.path().join("mark"));
        let processor = Box::new(Scripted("cpu", VecDeque::new()));
        let mut guarded = Guarded::new(processor, handover.clone(), fallback, mark.clone());
        let frame = crate::geometry::Frame::new(1, 1);
        let film = crate::radiograph::Radiograph::gray(
            crate::radiograph::Format::Png,
            crate::geometry::Size::new(1, 1),
            vec![0],
        );
        let input = crate::radiograph::network_input(&film, frame);
        assert_eq!((guarded.detect(&input).expect("found").len(), guarded.backend()), (1, "cpu"));
        handover.offer(Box::new(Scripted("gpu", script.into())));
        let computed = (0..count).map(|_| {
            assert_eq!(guarded.detect(&input).expect("never lost").len(), 1);
            guarded.backend()
        });
        let computed = computed.collect();
        assert!(!mark.take(), "it did not die");
        let said = said.lock().expect("ours").clone();
        (computed, said)
    }

    #[test]
    fn a_film_that_the_gpu_fails_on_is_the_processors_and_so_is_every_later_one() {
        let (computed, said) = films(vec![Does::Finds, Does::Fails, Does::Finds], 3);
        assert_eq!(computed, ["gpu", "cpu", "cpu"]);
        assert_eq!(said, ["gpu: no memory"]);
    }

    #[test]
    fn one_film_without_numbers_is_the_films_fault_and_three_in_a_row_are_the_gpus() {
        use Does::{Finds, NoNumber};
        let (computed, said) = films(vec![NoNumber, NoNumber, Finds, NoNumber, NoNumber, NoNumber, Finds], 7);
        assert_eq!(computed, ["cpu", "cpu", "gpu", "cpu", "cpu", "cpu", "cpu"]);
        assert_eq!(said.len(), 1, "{said:?}");
    }
}
