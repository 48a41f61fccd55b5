//! The machine below the daemon: which board it is, how hot it is, what it draws, and whether it slows itself down.
//!
//! ```text
//!  Root (a tree of files: /, or a fixture's) ─► one file a subject ─► Reading ─┐
//!  NVML, where its library answers ──────────────────────────────────► Reading ─┴► Prober ─► Machine
//! ```
//!
//! A Jetson tells most of this in files: an Orin's NVML knows a name and nothing else. So the files are asked first,
//! and NVML adds what they leave open. The paths are those of NVIDIA's Jetson Linux Developer Guide (R35, R36 and R38,
//! "Platform Power and Performance") and of the kernel's `Documentation/ABI/testing/sysfs-class-thermal`,
//! `sysfs-class-devfreq` and `hwmon/ina3221.rst`.
//!
//! # What never happens
//!
//! - Nothing is remembered as absent: everything is asked anew at each look, so a driver that is loaded later, a GPU
//!   that is switched on again and a node that comes back are seen.
//! - No value is required, and none is made up: what cannot be read is absent. A zone of a part that is switched off
//!   says EAGAIN or -256 °C, and is absent.
//! - A read that hangs holds up nobody: it happens on a thread of its own under a time limit ([`Prober`]), what it was to
//!   tell is absent, and [`Machine::silent`] says so.
//! - Nothing is written, no program is started, nothing needs more rights than a user has.

mod board;
mod clocks;
mod gpu;
mod machine;
mod memory;
mod nvml;
mod power;
mod prober;
mod root;
mod thermal;

pub use machine::{Board, CpuClock, Gpu, Machine, Memory, Power, Rail, Sensor, Source, Temperature};
pub use prober::Prober;
pub use root::Root;
