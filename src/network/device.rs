//! CPU or GPU: CUDA is looked for when the program runs, never when it is built.

use std::sync::OnceLock;

use tch::{Cuda, Device};

/// The GPU where LibTorch comes with CUDA and a driver answers, else the CPU; why not is logged once.
///
/// The binary needs `libtorch_cpu` alone; its CUDA half registers itself when it is opened before the first tensor.
pub(super) fn best() -> Device {
    static OPENED: OnceLock<Option<libloading::os::unix::Library>> = OnceLock::new();
    let mut first = false;
    let opened = OPENED.get_or_init(|| {
        first = true;
        open_cuda()
    });
    if Cuda::is_available() {
        Cuda::cudnn_set_benchmark(true);
        return Device::Cuda(0);
    }
    if first && opened.is_some() {
        tracing::info!("LibTorch has CUDA but finds no GPU or no driver, staying on the CPU");
    }
    Device::Cpu
}

#[expect(unsafe_code, reason = "opening a shared library runs its initialisers")]
fn open_cuda() -> Option<libloading::os::unix::Library> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the library is LibTorch's own other half, from the same folder as the one already loaded.
    match unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => Some(library),
        Err(error) => {
            tracing::info!("no CUDA in this LibTorch, staying on the CPU: {error}");
            None
        }
    }
}
