//! The state of the machine; everything in it is optional and asked anew each time.

mod gpu;

pub use gpu::{Gpu, gpus};
