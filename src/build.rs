//! Compiles the shim of TensorRT (feature `tensorrt`), and bakes the path of the LibTorch that `landmark-train` was built
//! against into its binaries: without it the dynamic loader does not find `libtorch_cpu.so` and the program dies before
//! `main`.

use std::env;
use std::path::{Path, PathBuf};

const SHIM: &str = "src/inference/tensorrt/shim";
/// Where JetPack and Ubuntu put the headers; `TENSORRT_INCLUDE_DIR` comes before them.
const HEADER_DIRECTORIES: [&str; 3] =
    ["/usr/include/aarch64-linux-gnu", "/usr/include/x86_64-linux-gnu", "/usr/include"];

fn main() {
    println!("cargo:rerun-if-changed=src/build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if env::var_os("CARGO_FEATURE_TORCH").is_some()
        && let Ok(libtorch) = env::var("LIBTORCH")
    {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    }
    if env::var_os("CARGO_FEATURE_TENSORRT").is_some() {
        shim();
    }
}

/// Only headers are needed: the libraries are opened at run time, where they are.
fn shim() {
    println!("cargo:rerun-if-changed={SHIM}");
    println!("cargo:rerun-if-env-changed=TENSORRT_INCLUDE_DIR");
    let headers = headers().unwrap_or_else(|| {
        eprintln!(
            "the feature `tensorrt` needs the headers of TensorRT 10.3 or a later 10: set TENSORRT_INCLUDE_DIR to the \
             directory of NvInfer.h and NvOnnxParser.h (on JetPack 6.1 or later: apt install libnvinfer-headers-dev \
             libnvonnxparsers-dev), or build without the feature"
        );
        std::process::exit(1);
    });
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file(format!("{SHIM}/shim.cpp"))
        // Theirs may be not the only thing there: what else lies there gives no warnings, and goes last.
        .flag(format!("-isystem{}", headers.display()))
        .flag(format!("-idirafter{SHIM}/cuda"))
        .flag("-fno-exceptions")
        .flag("-fno-rtti")
        .flag("-Wno-deprecated-declarations")
        .warnings(true)
        .extra_warnings(true)
        .compile("landmarkd_tensorrt");
}

/// The directory of TensorRT's headers.
fn headers() -> Option<PathBuf> {
    let named = env::var_os("TENSORRT_INCLUDE_DIR").filter(|named| !named.is_empty()).map(PathBuf::from);
    let is_there =
        |directory: &Path| ["NvInfer.h", "NvOnnxParser.h"].iter().all(|header| directory.join(header).is_file());
    match named {
        // What was asked for is taken, or nothing.
        Some(named) => is_there(&named).then_some(named),
        None => HEADER_DIRECTORIES.iter().map(PathBuf::from).find(|directory| is_there(directory)),
    }
}
