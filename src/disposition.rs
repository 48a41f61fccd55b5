//! What an error asks the daemon to do.

/// Each stage's error says which of these it is; the pipeline acts on this and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// This film is at fault: refuse it, publish the refusal, go on with the next.
    Reject,
    /// The world is away (disk, broker, mount): wait and try again, nothing is lost.
    Retry,
    /// We are wrong (broken state, broken model): drain and exit, the service manager restarts us.
    Fatal,
}
