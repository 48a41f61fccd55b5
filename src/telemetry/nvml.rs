//! NVIDIA's Management Library: all of a workstation's GPU, part of a Thor's, of an Orin's little more than the name.

use std::collections::BTreeSet;

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::error::NvmlError;

use super::machine::Gpu;
use super::root::Root;
use crate::report::ThrottleCause;

/// Where a fixture's library lies, if it has one.
const FIXTURE: &str = "usr/lib/libnvidia-ml.so.1";

/// The library while it answers. It is opened anew after it did not: it may have been installed or updated meanwhile.
#[derive(Default)]
pub(super) struct Library(Option<Nvml>);

/// What the library tells.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) gpus: Vec<Gpu>,
    pub(super) driver: Option<String>,
    pub(super) causes: BTreeSet<ThrottleCause>,
}

impl Library {
    /// Nothing where there is no library, no driver or no GPU, which on most machines is so.
    pub(super) fn read(&mut self, root: &Root) -> Reading {
        if self.0.is_none() {
            self.0 = open(root).ok();
        }
        let reading = self.0.as_ref().map(gpus);
        match reading {
            Some(Ok(reading)) => reading,
            Some(Err(_)) => {
                self.0 = None;
                Reading::default()
            }
            None => Reading::default(),
        }
    }
}

fn open(root: &Root) -> Result<Nvml, NvmlError> {
    if root.is_real() {
        return Nvml::init();
    }
    Nvml::builder().lib_path(root.path(FIXTURE).as_os_str()).init()
}

fn gpus(nvml: &Nvml) -> Result<Reading, NvmlError> {
    let mut reading = Reading { driver: nvml.sys_driver_version().ok(), ..Reading::default() };
    for index in 0..nvml.device_count()? {
        let device = nvml.device_by_index(index)?;
        let hz = |mhz: Result<u32, NvmlError>| mhz.ok().map(|mhz| u64::from(mhz) * 1_000_000);
        reading.gpus.push(Gpu {
            name: device.name().ok(),
            busy_percent: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu)),
            clock_hz: hz(device.clock_info(Clock::SM)),
            clock_limit_hz: None,
            clock_top_hz: hz(device.max_clock_info(Clock::SM)),
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
            memory_used_bytes: device.memory_info().ok().map(|memory| memory.used),
            power_mw: device.power_usage().ok().map(u64::from),
        });
        let reasons = device.current_throttle_reasons().unwrap_or(ThrottleReasons::empty());
        if reasons.intersects(ThrottleReasons::SW_THERMAL_SLOWDOWN | ThrottleReasons::HW_THERMAL_SLOWDOWN) {
            reading.causes.insert(ThrottleCause::GpuHeat);
        }
        // At its power limit a workstation's GPU runs all day; a brake is pulled by a supply that cannot give more.
        if reasons.intersects(ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN) {
            reading.causes.insert(ThrottleCause::OverCurrent);
        }
    }
    Ok(reading)
}
