//! Calls of a driver that may never come back.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::error::{Fault, TensorRtError};

/// Where the work tells what it does.
pub struct Progress(Sender<Step>);

struct Step {
    what: &'static str,
    is_watched: bool,
}

impl Progress {
    /// This call of the driver begins, and has the whole patience before it.
    pub fn begins(&self, what: &'static str) {
        self.tell(Step { what, is_watched: true });
    }

    /// Something begins that ends by itself, however long it takes.
    pub fn leaves_alone(&self, what: &'static str) {
        self.tell(Step { what, is_watched: false });
    }

    fn tell(&self, step: Step) {
        // Given up meanwhile, it is for nobody.
        let _ = self.0.send(step);
    }
}

/// Does `work` on a thread of its own, and gives it up when one of its steps takes longer than `patience`: its thread
/// stays where it hangs, and keeps nobody else.
///
/// # Errors
/// The work's own, or [`TensorRtError::Hangs`].
pub fn watched<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce(&Progress) -> Result<T, TensorRtError> + Send + 'static,
) -> Result<T, TensorRtError> {
    let failed = |reason: String| TensorRtError::Native { fault: Fault::Cuda, reason };
    let (progress, steps) = channel();
    let (done, result) = channel();
    let started = thread::Builder::new().name("gpu".into()).spawn(move || {
        let progress = Progress(progress);
        // Given up meanwhile, it is for nobody.
        let _ = done.send(work(&progress));
    });
    started.map_err(|why| failed(format!("there is no thread for it: {why}")))?;
    let mut doing = Step { what: "the opening of its libraries", is_watched: true };
    loop {
        let step =
            if doing.is_watched { steps.recv_timeout(patience) } else { steps.recv().map_err(RecvTimeoutError::from) };
        match step {
            Ok(step) => doing = step,
            Err(RecvTimeoutError::Timeout) => {
                return Err(TensorRtError::Hangs { what: doing.what, seconds: patience.as_secs() });
            }
            Err(RecvTimeoutError::Disconnected) => {
                let panicked = |_| Err(failed(format!("{} panicked", doing.what)));
                return result.try_recv().unwrap_or_else(panicked);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(500);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_hangs_is_given_up_by_name_and_what_ends_by_itself_is_not() {
        let patient = watched(SHORT, |progress| {
            progress.leaves_alone("a building");
            thread::sleep(2 * SHORT);
            progress.begins("a film");
            Ok(7)
        });
        assert_eq!(patient, Ok(7));
        // Until the end of the test.
        let (_ends, end) = channel::<()>();
        let hanging = watched(SHORT, move |progress| {
            progress.begins("a film");
            let _ = end.recv();
            Ok(())
        });
        assert_eq!(hanging, Err(TensorRtError::Hangs { what: "a film", seconds: 0 }));
        assert_eq!(watched::<()>(LONG, |_| Err(TensorRtError::Stopped)), Err(TensorRtError::Stopped));
        let panicked = watched::<()>(LONG, |_| panic!("on purpose")).expect_err("it ended");
        assert!(panicked.to_string().contains("the opening of its libraries panicked"), "{panicked}");
    }
}
