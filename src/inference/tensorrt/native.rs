//! The only unsafe code of this room: the shim's C face, and the libraries it is handed.
//!
//! The shim (`shim/shim.cpp`) is compiled in with the feature `tensorrt`. In builds with debug assertions the
//! environment can name a shared object with the same face instead, `LANDMARKD_TENSORRT_SHIM`: a test's stand-in for
//! TensorRT and the GPU. A released daemon has no such switch.
#![expect(unsafe_code, reason = "TensorRT and CUDA are C++ and C: every call of them is here, behind safe functions")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::{LazyLock, Mutex, Once, PoisonError};

use libloading::Library;

use super::error::{Fault, TensorRtError};
use super::version::Headers;
use crate::geometry::Size;

/// Of `shim.h`; a change of what the shim builds raises it, and so rebuilds engines.
pub(super) const SHIM_REVISION: i32 = 2;

const DRIVER: &str = "libcuda.so.1";
/// In the order of `shim.h`.
const DRIVER_FUNCTIONS: [&CStr; 17] = [
    c"cuInit",
    c"cuDriverGetVersion",
    c"cuDeviceGet",
    c"cuDeviceGetName",
    c"cuDeviceGetAttribute",
    c"cuDeviceTotalMem_v2",
    c"cuDevicePrimaryCtxRetain",
    c"cuDevicePrimaryCtxRelease_v2",
    c"cuCtxSetCurrent",
    c"cuMemAlloc_v2",
    c"cuMemFree_v2",
    c"cuMemcpyHtoDAsync_v2",
    c"cuMemcpyDtoHAsync_v2",
    c"cuStreamCreate",
    c"cuStreamDestroy_v2",
    c"cuStreamSynchronize",
    c"cuGetErrorName",
];
const BUILDER: &CStr = c"createInferBuilder_INTERNAL";
const RUNTIME: &CStr = c"createInferRuntime_INTERNAL";
const PARSER: &CStr = c"createNvOnnxParser_INTERNAL";
const VERSION: &CStr = c"getInferLibVersion";

/// `LM_OK` and its neighbours.
const OK: i32 = 0;
const NO_GPU: i32 = 1;
const OUT_OF_MEMORY: i32 = 2;
const REFUSED: i32 = 3;
const INTERFACE: i32 = 4;

#[repr(C)]
struct Words {
    text: *mut c_char,
    room: usize,
}

#[repr(C)]
struct RawDevice {
    name: [c_char; 256],
    capability_major: i32,
    capability_minor: i32,
    multiprocessors: i32,
    cuda_version: i32,
    memory_bytes: u64,
}

#[repr(C)]
struct Order {
    onnx: *const c_void,
    onnx_bytes: usize,
    workspace_bytes: u64,
    on_gpu: i32,
}

#[repr(C)]
struct Interface {
    height: i32,
    width: i32,
    landmarks: i32,
}

type Functions = *const *mut c_void;
type Log = extern "C" fn(i32, *const c_char);
type Sink = extern "C" fn(*mut c_void, *const c_void, usize);

/// The functions of `shim.h`.
#[derive(Clone, Copy)]
struct Face {
    headers: unsafe extern "C" fn() -> i32,
    revision: unsafe extern "C" fn() -> i32,
    log_to: unsafe extern "C" fn(Log),
    describe: unsafe extern "C" fn(Functions, *mut RawDevice, Words) -> i32,
    build: unsafe extern "C" fn(Functions, *const Order, Sink, *mut c_void, Words) -> i32,
    open: unsafe extern "C" fn(Functions, *const c_void, usize, *const Interface, *mut *mut c_void, Words) -> i32,
    run: unsafe extern "C" fn(*mut c_void, *const f32, *mut f32, *mut f32, Words) -> i32,
    close: unsafe extern "C" fn(*mut c_void),
}

#[cfg(feature = "tensorrt")]
mod linked {
    use super::{Face, Functions, Interface, Log, Order, RawDevice, Sink, Words, c_void};

    unsafe extern "C" {
        fn lm_headers() -> i32;
        fn lm_revision() -> i32;
        fn lm_log_to(log: Log);
        fn lm_describe(functions: Functions, device: *mut RawDevice, words: Words) -> i32;
        fn lm_build(functions: Functions, order: *const Order, sink: Sink, of: *mut c_void, words: Words) -> i32;
        fn lm_open(
            functions: Functions,
            plan: *const c_void,
            bytes: usize,
            interface: *const Interface,
            engine: *mut *mut c_void,
            words: Words,
        ) -> i32;
        fn lm_run(engine: *mut c_void, frame: *const f32, coordinates: *mut f32, sigma: *mut f32, words: Words) -> i32;
        fn lm_close(engine: *mut c_void);
    }

    pub(super) const FACE: Face = Face {
        headers: lm_headers,
        revision: lm_revision,
        log_to: lm_log_to,
        describe: lm_describe,
        build: lm_build,
        open: lm_open,
        run: lm_run,
        close: lm_close,
    };
}

/// The shim, and TensorRT and the driver as it is handed them: opened for the life of the process, since neither is
/// made to be unloaded.
pub(super) struct Native {
    face: Face,
    /// As `shim.h` lists them; null where a build without a GPU does without.
    functions: Vec<*mut c_void>,
    /// What the shim was compiled against.
    pub(super) headers: Headers,
    /// What was found, `major * 10000 + minor * 100 + patch`.
    pub(super) version: i32,
}

// SAFETY: `functions` are addresses of code that stays loaded; CUDA and TensorRT say that their factories and the
// driver's functions may be called from any thread. What may not, an engine, is in `NativeEngine`, which is used through
// `&mut` alone.
unsafe impl Send for Native {}
// SAFETY: as above; nothing of it changes after `open`.
unsafe impl Sync for Native {}

/// A GPU, as its driver tells.
pub(super) struct NativeDevice {
    pub(super) name: String,
    pub(super) capability: [i32; 2],
    pub(super) multiprocessors: i32,
    pub(super) cuda_version: i32,
}

impl Native {
    /// Opens what there is; with `on_gpu` the driver too.
    pub(super) fn open(on_gpu: bool) -> Result<Self, TensorRtError> {
        let face = face()?;
        // SAFETY: neither has a precondition.
        let (headers, revision) = unsafe { ((face.headers)(), (face.revision)()) };
        if revision != SHIM_REVISION {
            let reason = format!("the shim has revision {revision}, this program needs {SHIM_REVISION}");
            return Err(TensorRtError::Libraries { reason });
        }
        let headers = Headers::of(headers);
        let mut functions = Vec::new();
        if on_gpu {
            let driver = library(DRIVER)?;
            functions = DRIVER_FUNCTIONS
                .iter()
                .map(|name| address(driver, DRIVER, name))
                .collect::<Result<_, TensorRtError>>()?;
        }
        functions.resize(DRIVER_FUNCTIONS.len(), null_mut());
        let (name, parser_name) = headers.libraries();
        let tensorrt = library(name).map_err(|error| headers.older_instead(error))?;
        let get_version = address(tensorrt, name, VERSION)?;
        // SAFETY: since TensorRT 5 it is `int32_t getInferLibVersion() noexcept`; nothing else of the library has been
        // called before, and this says whether anything may be.
        let version = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> i32>(get_version)() };
        headers.takes(version)?;
        let parser = library(parser_name)?;
        functions.push(address(tensorrt, name, BUILDER)?);
        functions.push(address(tensorrt, name, RUNTIME)?);
        functions.push(address(parser, parser_name, PARSER)?);
        functions.push(get_version);
        static LOGGING: Once = Once::new();
        // SAFETY: `log` may be called from any thread, for ever.
        LOGGING.call_once(|| unsafe { (face.log_to)(log) });
        Ok(Self { face, functions, headers, version })
    }

    /// The first GPU.
    pub(super) fn describe(&self) -> Result<NativeDevice, TensorRtError> {
        let mut raw = RawDevice {
            name: [0; 256],
            capability_major: 0,
            capability_minor: 0,
            multiprocessors: 0,
            cuda_version: 0,
            memory_bytes: 0,
        };
        let mut room = Room::new();
        // SAFETY: the list is as long as `shim.h` says and its functions are of the libraries it names; `raw` and the
        // words are ours for the call.
        let end = unsafe { (self.face.describe)(self.functions.as_ptr(), &raw mut raw, room.words()) };
        room.judge(end)?;
        Ok(NativeDevice {
            name: text(&raw.name),
            capability: [raw.capability_major, raw.capability_minor],
            multiprocessors: raw.multiprocessors,
            cuda_version: raw.cuda_version,
        })
    }

    /// The plan of an engine for `onnx`.
    pub(super) fn build(&self, onnx: &[u8], workspace_bytes: u64, on_gpu: bool) -> Result<Vec<u8>, TensorRtError> {
        extern "C" fn take(of: *mut c_void, plan: *const c_void, bytes: usize) {
            // SAFETY: `of` is the vector below, which nobody else has meanwhile; the plan has so many bytes.
            unsafe {
                let to = &mut *of.cast::<Vec<u8>>();
                to.extend_from_slice(std::slice::from_raw_parts(plan.cast(), bytes));
            }
        }
        let mut plan: Vec<u8> = Vec::new();
        let order =
            Order { onnx: onnx.as_ptr().cast(), onnx_bytes: onnx.len(), workspace_bytes, on_gpu: i32::from(on_gpu) };
        let mut room = Room::new();
        let to: *mut Vec<u8> = &raw mut plan;
        // SAFETY: as for `describe`; the network's bytes outlive the call, and `take` is handed the vector it expects.
        let end =
            unsafe { (self.face.build)(self.functions.as_ptr(), &raw const order, take, to.cast(), room.words()) };
        room.judge(end)?;
        Ok(plan)
    }

    /// An engine of this plan, whose frame has `size` and which finds so many landmarks.
    pub(super) fn engine(
        &'static self,
        plan: &[u8],
        size: Size,
        landmarks: usize,
    ) -> Result<NativeEngine, TensorRtError> {
        let side = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let interface = Interface {
            height: side(size.height),
            width: side(size.width),
            landmarks: i32::try_from(landmarks).unwrap_or(i32::MAX),
        };
        let mut engine = null_mut();
        let mut room = Room::new();
        let (functions, bytes) = (self.functions.as_ptr(), plan.len());
        // SAFETY: as for `describe`; the list of functions lives as long as the engine, for ever.
        let end = unsafe {
            (self.face.open)(
                functions,
                plan.as_ptr().cast(),
                bytes,
                &raw const interface,
                &raw mut engine,
                room.words(),
            )
        };
        room.judge(end)?;
        Ok(NativeEngine { native: self, engine, pixels: size.area() as usize, values: 2 * landmarks })
    }
}

/// An engine with its buffers, on the GPU.
pub(super) struct NativeEngine {
    native: &'static Native,
    engine: *mut c_void,
    pixels: usize,
    values: usize,
}

// SAFETY: the shim makes the GPU's context current at each call, so that any thread may make it; one at a time does,
// since `run` takes `&mut`.
unsafe impl Send for NativeEngine {}

impl NativeEngine {
    /// Coordinates and sigma of a frame in the network's units.
    pub(super) fn run(&mut self, frame: &[f32]) -> Result<[Vec<f32>; 2], TensorRtError> {
        assert_eq!(frame.len(), self.pixels, "the detector has looked at the frame's size");
        let [mut coordinates, mut sigma] = [vec![f32::NAN; self.values], vec![f32::NAN; self.values]];
        let mut room = Room::new();
        // SAFETY: the engine is open until it is dropped, and the three have the lengths it was opened for.
        let end = unsafe {
            let (frame, to) = (frame.as_ptr(), [coordinates.as_mut_ptr(), sigma.as_mut_ptr()]);
            (self.native.face.run)(self.engine, frame, to[0], to[1], room.words())
        };
        room.judge(end)?;
        Ok([coordinates, sigma])
    }
}

impl Drop for NativeEngine {
    fn drop(&mut self) {
        // SAFETY: it was opened by this face and is closed once.
        unsafe { (self.native.face.close)(self.engine) }
    }
}

/// Where a call says why it failed.
struct Room([u8; 512]);

impl Room {
    const fn new() -> Self {
        Self([0; 512])
    }

    fn words(&mut self) -> Words {
        Words { text: self.0.as_mut_ptr().cast(), room: self.0.len() }
    }

    fn judge(&self, end: i32) -> Result<(), TensorRtError> {
        let worst = std::mem::take(&mut *LAST.lock().unwrap_or_else(PoisonError::into_inner));
        let fault = match end {
            OK => return Ok(()),
            // TensorRT returns null for whatever ails it; only its log tells that the machine is to blame.
            REFUSED if tells_of_no_memory(&worst) => Fault::OutOfMemory,
            NO_GPU => Fault::NoGpu,
            OUT_OF_MEMORY => Fault::OutOfMemory,
            REFUSED => Fault::Refused,
            INTERFACE => Fault::Interface,
            _ => Fault::Cuda,
        };
        let said = CStr::from_bytes_until_nul(&self.0).map(|text| plain(&text.to_string_lossy())).unwrap_or_default();
        let reason = if worst.is_empty() || worst == said { said } else { format!("{said}: {worst}") };
        Err(TensorRtError::Native { fault, reason })
    }
}

fn tells_of_no_memory(line: &str) -> bool {
    let line = line.to_lowercase().replace([' ', '_'], "");
    ["outofmemory", "memoryallocation"].iter().any(|word| line.contains(word))
}

/// The last error that TensorRT logged since the last call: what it returns is null, and why stands there.
static LAST: Mutex<String> = Mutex::new(String::new());

/// `ILogger::Severity`: internal error, error, warning, and chatter.
extern "C" fn log(severity: i32, line: *const c_char) {
    if line.is_null() {
        return;
    }
    // SAFETY: TensorRT hands over text that ends with a zero and stays for the call.
    let line = plain(&unsafe { CStr::from_ptr(line) }.to_string_lossy());
    match severity {
        0 | 1 => {
            tracing::debug!("TensorRT: {line}");
            *LAST.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }
        2 => tracing::debug!("TensorRT warns: {line}"),
        _ => tracing::trace!("TensorRT: {line}"),
    }
}

fn text(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|c| c.to_ne_bytes()[0]).take_while(|&byte| byte != 0).collect();
    plain(&String::from_utf8_lossy(&bytes))
}

/// One line of bounded length without control characters: others may have written it.
pub(super) fn plain(text: &str) -> String {
    text.trim().chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn face() -> Result<Face, TensorRtError> {
    if let Some(path) = stand_in() {
        return stand_in_face(&path);
    }
    #[cfg(feature = "tensorrt")]
    return Ok(linked::FACE);
    #[cfg(not(feature = "tensorrt"))]
    Err(TensorRtError::NotBuilt)
}

/// What a test puts in the place of TensorRT and the GPU.
fn stand_in() -> Option<PathBuf> {
    if cfg!(debug_assertions) { std::env::var_os("LANDMARKD_TENSORRT_SHIM").map(PathBuf::from) } else { None }
}

fn stand_in_face(path: &std::path::Path) -> Result<Face, TensorRtError> {
    let name = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    let library = library(&name)?;
    Ok(Face {
        headers: function(library, &name, c"lm_headers")?,
        revision: function(library, &name, c"lm_revision")?,
        log_to: function(library, &name, c"lm_log_to")?,
        describe: function(library, &name, c"lm_describe")?,
        build: function(library, &name, c"lm_build")?,
        open: function(library, &name, c"lm_open")?,
        run: function(library, &name, c"lm_run")?,
        close: function(library, &name, c"lm_close")?,
    })
}

/// Opens a library for the life of the process.
fn library(name: &str) -> Result<&'static Library, TensorRtError> {
    // One handle each, however often it is asked for.
    static OPENED: LazyLock<Mutex<Vec<(String, &'static Library)>>> = LazyLock::new(Mutex::default);
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, library)) = opened.iter().find(|(known, _)| known == name) {
        return Ok(library);
    }
    // SAFETY: its initializers run. They are NVIDIA's, from where the system's loader looks for libraries: they may do
    // what the rest of this room has them do.
    let library = unsafe { Library::new(name) };
    let library = library.map_err(|error| TensorRtError::Libraries { reason: plain(&with_causes(&error)) })?;
    let library: &'static Library = Box::leak(Box::new(library));
    opened.push((name.to_owned(), library));
    Ok(library)
}

/// The address of a function; who calls it says why it has the type.
fn address(library: &Library, of: &str, name: &CStr) -> Result<*mut c_void, TensorRtError> {
    let function: unsafe extern "C" fn() -> c_int = function(library, of, name)?;
    Ok(function as *mut c_void)
}

/// A function of a library, which must have this type: nothing says so but its documentation.
fn function<F: Copy>(library: &Library, of: &str, name: &CStr) -> Result<F, TensorRtError> {
    // SAFETY: only the address is taken here; the types of `Face` are those of `shim.h`, which what a test puts in its
    // place is compiled against, and `address` asks for none.
    let symbol = unsafe { library.get::<F>(name.to_bytes_with_nul()) };
    symbol.map(|symbol| *symbol).map_err(|error| TensorRtError::Libraries {
        reason: format!("{of} has no {}: {}", name.to_string_lossy(), plain(&with_causes(&error))),
    })
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Whether a library can be opened at all.
pub(super) fn is_there(name: &str) -> bool {
    library(name).is_ok()
}
