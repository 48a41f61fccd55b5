//! Which TensorRT a shim speaks with, and which it refuses.

use super::error::TensorRtError;
use super::native::is_there;

/// The oldest TensorRT that the shim speaks with: that of JetPack 6.1, since minor versions are compatible.
pub(super) const MINIMUM: i32 = 100_300;
/// TensorRT 11 does not support JetPack, and its interface is another one.
const BEYOND: i32 = 110_000;
/// The library of JetPack 6.0, found where the one that is needed is not.
const OLDER_LIBRARY: &str = "libnvinfer.so.8";

/// The headers that the shim was compiled against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Headers {
    /// TensorRT's.
    TensorRt,
    /// TensorRT-RTX's, of this version: for GPUs of workstations, and for tests without any.
    Rtx(i32),
}

impl Headers {
    /// As the shim says it: RTX is below zero.
    pub(super) const fn of(version: i32) -> Self {
        if version < 0 { Self::Rtx(-version) } else { Self::TensorRt }
    }

    /// TensorRT itself, and its ONNX parser.
    pub(super) const fn libraries(self) -> (&'static str, &'static str) {
        match self {
            Self::TensorRt => ("libnvinfer.so.10", "libnvonnxparser.so.10"),
            Self::Rtx(_) => ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"),
        }
    }

    /// Whether a library of this version can be called.
    pub(super) fn takes(self, version: i32) -> Result<(), TensorRtError> {
        let is_ours = match self {
            Self::TensorRt => (MINIMUM..BEYOND).contains(&version),
            Self::Rtx(compiled) => version / 10_000 == compiled / 10_000 && version >= compiled,
        };
        if is_ours { Ok(()) } else { Err(TensorRtError::Version { found: in_words(version) }) }
    }

    /// Tells of a TensorRT that is too old, where that is why the library is not there.
    pub(super) fn older_instead(self, error: TensorRtError) -> TensorRtError {
        if self == Self::TensorRt && is_there(OLDER_LIBRARY) {
            return TensorRtError::Version { found: "8".to_owned() };
        }
        error
    }

    /// `TensorRT 10.3.0`.
    pub(super) fn name(self, version: i32) -> String {
        let kind = if matches!(self, Self::Rtx(_)) { "TensorRT-RTX" } else { "TensorRT" };
        format!("{kind} {}", in_words(version))
    }
}

/// Since 10 two digits stand for minor and patch, before that minor had one and patch two.
fn in_words(version: i32) -> String {
    let places = if (1000..10_000).contains(&version) { (1000, 100) } else { (10_000, 100) };
    format!("{}.{}.{}", version / places.0, version % places.0 / places.1, version % places.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_nvidia_writes_them_and_only_10_3_and_later_10_are_taken() {
        for (version, words, taken) in [
            (8601, "8.6.1", false),
            (100_200, "10.2.0", false),
            (100_300, "10.3.0", true),
            (101_602, "10.16.2", true),
            (110_000, "11.0.0", false),
            (0, "0.0.0", false),
            (-1, "0.0.-1", false),
        ] {
            assert_eq!(in_words(version), words);
            assert_eq!(Headers::TensorRt.takes(version).is_ok(), taken, "{version}");
        }
        let rtx = Headers::of(-10_701);
        assert_eq!(rtx.name(10_701), "TensorRT-RTX 1.7.1");
        assert!(rtx.takes(10_701).is_ok() && rtx.takes(10_800).is_ok());
        assert!(rtx.takes(10_600).is_err() && rtx.takes(20_000).is_err());
        let error = Headers::TensorRt.takes(8601).expect_err("too old").to_string();
        assert!(error.contains("8.6.1") && error.contains("JetPack 6.1"), "{error}");
    }
}
