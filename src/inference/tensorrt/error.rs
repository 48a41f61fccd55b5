//! Why TensorRT does not compute.

use std::path::{Path, PathBuf};

/// Why an engine cannot be had, or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorRtError {
    /// The program was compiled without it.
    #[error("this landmarkd was built without TensorRT (the cargo feature `tensorrt`)")]
    NotBuilt,
    /// A library or one of its functions is not there.
    #[error("{reason}")]
    Libraries {
        /// The loader's own words.
        reason: String,
    },
    /// Another TensorRT than this program can call.
    #[error("TensorRT {found} is installed, 10.3 or a later 10 is needed: install JetPack 6.1 or later")]
    Version {
        /// `major.minor.patch`, as far as it is known.
        found: String,
    },
    /// A call failed.
    #[error("{fault}: {reason}")]
    Native {
        /// Of which kind.
        fault: Fault,
        /// The library's own words.
        reason: String,
    },
    /// The network cannot be rewritten for it.
    #[error("the network has no form for TensorRT: {reason}")]
    Network {
        /// Which part of it, and why.
        reason: String,
    },
    /// A file of the cache belongs to somebody else: an engine is code.
    #[error(
        "{} in the cache of engines is not the daemon's own (user {owner}), and an engine is code: it is not loaded; \
         remove it if nobody means it to be there",
        name(path)
    )]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A file of the cache is not what was written.
    #[error("the engine in the cache is damaged: {reason}")]
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
    /// The cache cannot be read or written.
    #[error("the cache of engines, {}: {reason}", name(path))]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// The child that builds did not come to its end, or to a good one.
    #[error("the engine was not built: {reason}")]
    Build {
        /// How it ended.
        reason: String,
    },
    /// Its landmarks are not those of the processor.
    #[error(
        "on the golden film the engine is {max_px} px from the processor at most and {median_px} px at the median, 1 \
         and 0.1 px are allowed"
    )]
    Differs {
        /// In pixels of the golden film, three decimals.
        max_px: String,
        /// The same.
        median_px: String,
    },
    /// The process died while the GPU computed a film.
    #[error("the daemon died while the GPU was opened or computed a film: it is left alone until the next start")]
    Died,
    /// A call of the driver or of TensorRT has not come back.
    #[error("the GPU does not answer: {what} has not ended after {seconds} s")]
    Hangs {
        /// Which call.
        what: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Nobody waits for it any more.
    #[error("stopped")]
    Stopped,
}

/// Of which kind a failed call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no GPU with a driver.
    #[error("no GPU")]
    NoGpu,
    /// It has no memory left.
    #[error("the GPU has no memory left")]
    OutOfMemory,
    /// TensorRT takes network, plan or machine for unsuitable.
    #[error("TensorRT refuses")]
    Refused,
    /// The engine is of another network.
    #[error("the engine has another interface")]
    Interface,
    /// Anything else of the driver's.
    #[error("the GPU failed")]
    Cuda,
}

/// The last part of a path: where the state lies is nobody's business on the wire.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl TensorRtError {
    /// Whether another try on the same machine may end differently.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        !matches!(
            self,
            Self::NotBuilt
                | Self::Version { .. }
                | Self::Network { .. }
                | Self::Foreign { .. }
                | Self::Differs { .. }
                | Self::Died
                | Self::Hangs { .. }
                | Self::Stopped
        )
    }

    /// Whether there is nothing to compute on, as on most machines: then nothing is wrong with any part.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NotBuilt
                | Self::Libraries { .. }
                | Self::Version { .. }
                | Self::Native { fault: Fault::NoGpu, .. }
                | Self::Stopped
        )
    }
}
