//! NVIDIA GPUs, as far as NVML tells: fully on workstations, on a Jetson little more than the name.

use std::fmt;

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

/// One GPU at this moment; what its driver does not tell is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The maker's name for it.
    pub name: Option<String>,
    /// Of the chip, in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// The share of the last moment that it computed, in per cent.
    pub utilization_percent: Option<u32>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
}

/// The GPUs that NVML knows.
///
/// # Errors
/// NVML's own words where its library or the driver is not there: on most machines, and nothing to worry about.
pub fn gpus() -> Result<Vec<Gpu>, NvmlError> {
    let nvml = Nvml::init()?;
    (0..nvml.device_count()?)
        .map(|index| {
            let device = nvml.device_by_index(index)?;
            Ok(Gpu {
                name: device.name().ok(),
                temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
                utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
                memory_used_bytes: device.memory_info().ok().map(|memory| memory.used),
            })
        })
        .collect()
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or("GPU without a name"))?;
        if let Some(celsius) = self.temperature_c {
            write!(f, ", {celsius} °C")?;
        }
        if let Some(percent) = self.utilization_percent {
            write!(f, ", {percent} % busy")?;
        }
        if let Some(bytes) = self.memory_used_bytes {
            write!(f, ", {} MiB in use", bytes >> 20)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_does_not_tell_is_left_out() {
        let orin = Gpu {
            name: Some("Orin".to_owned()),
            temperature_c: None,
            utilization_percent: None,
            memory_used_bytes: None,
        };
        assert_eq!(orin.to_string(), "Orin");
        let workstation =
            Gpu { temperature_c: Some(41), utilization_percent: Some(7), memory_used_bytes: Some(1 << 30), ..orin };
        assert_eq!(workstation.to_string(), "Orin, 41 °C, 7 % busy, 1024 MiB in use");
    }

    #[test]
    fn a_machine_without_nvml_gives_an_error_and_no_panic() {
        match gpus() {
            Ok(found) => println!("{} GPUs", found.len()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
