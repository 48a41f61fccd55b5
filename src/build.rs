//! Bakes the path of the LibTorch that `landmark-train` was built against into its binaries.
//!
//! Without it the dynamic loader does not find `libtorch_cpu.so` and the program dies before `main`.

fn main() {
    println!("cargo:rerun-if-changed=src/build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if std::env::var_os("CARGO_FEATURE_TORCH").is_some()
        && let Ok(libtorch) = std::env::var("LIBTORCH")
    {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    }
}
