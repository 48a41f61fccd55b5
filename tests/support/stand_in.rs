//! Stand-ins for TensorRT and the GPU behind it: a shim that computes on the processor, and empty libraries with the
//! names and functions that the loader asks for. Compiled here, with the system's C compiler.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The version that the libraries say they are.
pub(crate) const GOOD: &str = "-DVERSION=100300";

/// A directory of libraries, and the shim beside them.
pub(crate) struct StandIn {
    directory: TempDir,
}

impl StandIn {
    /// The shim alone; add the libraries.
    pub(crate) fn bare() -> Self {
        let stand_in = Self { directory: tempfile::tempdir().expect("a temporary folder") };
        compile("fake.c", &stand_in.shim(), &["-Isrc/inference/tensorrt/shim"]);
        stand_in
    }

    /// All of it, of the right version.
    pub(crate) fn whole() -> Self {
        Self::bare().driver().tensorrt("libnvinfer.so.10", &[GOOD]).parser()
    }

    pub(crate) fn driver(self) -> Self {
        self.library("libcuda.so.1", &["-DDRIVER"])
    }

    pub(crate) fn tensorrt(self, name: &str, flags: &[&str]) -> Self {
        self.library(name, &[&["-DTENSORRT"], flags].concat())
    }

    pub(crate) fn parser(self) -> Self {
        self.library("libnvonnxparser.so.10", &["-DPARSER"])
    }

    /// What a program is started with to find them, with the stand-in to do this.
    pub(crate) fn environment(&self, does: &str, cuda: &str) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_LIBRARY_PATH", self.directory.path().into()),
            ("LANDMARKD_TENSORRT_SHIM", self.shim().into()),
            ("FAKE_TENSORRT", does.into()),
            ("FAKE_CUDA", cuda.into()),
        ]
    }

    fn shim(&self) -> PathBuf {
        self.directory.path().join("shim.so")
    }

    fn library(self, name: &str, flags: &[&str]) -> Self {
        compile("stub.c", &self.directory.path().join(name), flags);
        self
    }
}

fn compile(source: &str, to: &Path, flags: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Werror"])
        .args(flags)
        .arg(root.join("tests/support/tensorrt").join(source))
        .arg("-o")
        .arg(to)
        .current_dir(root)
        .output()
        .expect("the C compiler that builds the dependencies");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}
