//! What is known of the machine at one moment: plain data, every value optional.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::report::ThrottleCause;

/// The machine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Machine {
    /// What it is.
    pub board: Board,
    /// Its main memory, which a Jetson's GPU shares.
    pub memory: Option<Memory>,
    /// How fast its processor may run.
    pub cpu: Option<CpuClock>,
    /// Its NVIDIA GPUs.
    pub gpus: Vec<Gpu>,
    /// Its thermometers, one value a sensor.
    pub temperatures: Vec<Temperature>,
    /// What its rails carry.
    pub power: Vec<Power>,
    /// Why it slows itself down at this moment; empty while it does not.
    pub throttled_by: BTreeSet<ThrottleCause>,
    /// How often it has throttled for over-current since it was started.
    pub over_current_events: Option<u64>,
    /// What did not answer in time and is therefore absent.
    pub silent: BTreeSet<Source>,
}

/// What the machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Board {
    /// The maker's name for it, of the device tree.
    pub model: Option<String>,
    /// The release of Jetson Linux, such as `36.4.3`.
    pub l4t: Option<String>,
    /// The JetPack it belongs to, such as `6.2`.
    pub jetpack: Option<&'static str>,
    /// The name of the power mode that nvpmodel has set, or its number where the name is not known.
    pub power_mode: Option<String>,
    /// The release of the NVIDIA driver.
    pub driver: Option<String>,
    /// The release of the installed TensorRT, by the name of its library's file.
    pub tensorrt: Option<String>,
}

/// Main memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What could be had without swapping.
    pub available_bytes: u64,
}

/// How fast the processor may run: of its clusters, the one that is held lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CpuClock {
    /// The most that is allowed now, by the power mode and for heat, in hertz.
    pub limit_hz: u64,
    /// The most that it is made for, in hertz.
    pub top_hz: u64,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Gpu {
    /// The maker's name for it.
    pub name: Option<String>,
    /// The share of the last moment that it computed, in per cent.
    pub busy_percent: Option<f64>,
    /// Its clock, in hertz.
    pub clock_hz: Option<u64>,
    /// The most that is allowed now, in hertz.
    pub clock_limit_hz: Option<u64>,
    /// The most that it can, in hertz.
    pub clock_top_hz: Option<u64>,
    /// In degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Memory of its own in use.
    pub memory_used_bytes: Option<u64>,
    /// What it draws, in milliwatts.
    pub power_mw: Option<u64>,
}

/// A thermometer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Temperature {
    /// Which; where the machine has several of a kind, the hottest.
    pub sensor: Sensor,
    /// In degrees Celsius.
    pub celsius: f64,
    /// From this on the kernel slows the machine down for it (a passive trip point), in degrees Celsius.
    pub throttles_at_c: Option<f64>,
}

/// What a rail carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Power {
    /// Which.
    pub rail: Rail,
    /// In milliwatts.
    pub milliwatts: u64,
}

/// A closed set with a word for each member, which documents and labels use.
macro_rules! words {
    ($(#[$of:meta])* $set:ident { $($(#[$one:meta])* $member:ident = $word:literal,)+ }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $set { $($(#[$one])* $member,)+ }

        impl $set {
            /// Every member, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$member),+];

            /// The word for it in labels and documents.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$member => $word,)+ }
            }
        }

        impl Serialize for $set {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

words! {
    /// A thermometer of the machine.
    Sensor {
        /// The processor.
        Cpu = "cpu",
        /// The graphics processor.
        Gpu = "gpu",
        /// The vision accelerators.
        Cv = "cv",
        /// The rest of the chip.
        Soc = "soc",
        /// The hottest place of the chip, by which the kernel judges.
        Junction = "junction",
        /// The module's board.
        Board = "board",
    }
}

words! {
    /// A rail whose power a Jetson measures, by NVIDIA's names in lower case.
    Rail {
        /// All that an Orin NX or Nano module draws.
        VddIn = "vdd_in",
        /// Processor, GPU and vision accelerators of an Orin NX or Nano.
        VddCpuGpuCv = "vdd_cpu_gpu_cv",
        /// The rest of an Orin NX's or Nano's chip.
        VddSoc = "vdd_soc",
        /// GPU and the rest of an AGX Orin's chip.
        VddGpuSoc = "vdd_gpu_soc",
        /// Processor and vision accelerators of an AGX Orin.
        VddCpuCv = "vdd_cpu_cv",
        /// The 5 V supply of an AGX module's other parts.
        VinSys5v0 = "vin_sys_5v0",
        /// The memory of an AGX Orin, which the 5 V supply feeds.
        Memory = "vddq_vdd2_1v8ao",
        /// The GPU of a Thor.
        VddGpu = "vdd_gpu",
        /// Processor, memory controller and the rest of a Thor's chip.
        VddCpuSocMss = "vdd_cpu_soc_mss",
        /// All that a Thor module draws.
        Vin = "vin",
    }
}

words! {
    /// Where values come from; each is asked under a time limit of its own.
    Source {
        /// The device tree, the release files, the power mode, the driver's own file.
        Board = "board",
        /// `/proc/meminfo`.
        Memory = "memory",
        /// cpufreq.
        Clocks = "clocks",
        /// devfreq.
        Gpu = "gpu",
        /// Thermal zones and cooling devices.
        Thermal = "thermal",
        /// hwmon.
        Power = "power",
        /// The NVIDIA Management Library.
        Nvml = "nvml",
    }
}

impl Rail {
    /// The one with NVIDIA's label for it.
    pub(super) fn labelled(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rail| rail.word().eq_ignore_ascii_case(label))
    }

    /// Whether it carries all that the module draws.
    #[must_use]
    pub const fn is_input(self) -> bool {
        matches!(self, Self::VddIn | Self::Vin)
    }
}

impl Board {
    /// Whether it is a Jetson: its name says so, or it has a release of Jetson Linux.
    #[must_use]
    pub fn is_jetson(&self) -> bool {
        self.l4t.is_some() || self.model.as_ref().is_some_and(|model| model.contains("Jetson"))
    }
}

impl Machine {
    /// The value of a thermometer.
    #[must_use]
    pub fn temperature(&self, sensor: Sensor) -> Option<Temperature> {
        self.temperatures.iter().copied().find(|known| known.sensor == sensor)
    }

    /// The hottest thermometer.
    #[must_use]
    pub fn hottest(&self) -> Option<Temperature> {
        self.temperatures.iter().copied().max_by(|a, b| a.celsius.total_cmp(&b.celsius))
    }

    /// What the module draws in milliwatts: the rail that carries all, or where none does, as on an AGX Orin, the
    /// measured supplies together.
    #[must_use]
    pub fn drawn_mw(&self) -> Option<u64> {
        let input = self.power.iter().find(|power| power.rail.is_input()).map(|power| power.milliwatts);
        // The memory of an AGX Orin hangs on its 5 V supply and is in that already.
        let supplies = self.power.iter().filter(|power| power.rail != Rail::Memory);
        input.or_else(|| supplies.map(|power| power.milliwatts).reduce(|sum, power| sum.saturating_add(power)))
    }
}

/// What it is, in one line.
impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model.as_deref().unwrap_or("a board without a name"))?;
        if let Some(l4t) = &self.l4t {
            write!(f, ", Jetson Linux {l4t}")?;
        }
        if let Some(jetpack) = self.jetpack {
            write!(f, " (JetPack {jetpack})")?;
        }
        if let Some(mode) = &self.power_mode {
            write!(f, ", power mode {mode}")?;
        }
        Ok(())
    }
}

/// What is known of it, in one line.
impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mhz = |hz: u64| hz / 1_000_000;
        f.write_str(self.name.as_deref().unwrap_or("GPU"))?;
        if let Some(celsius) = self.temperature_c {
            write!(f, ", {celsius:.0} °C")?;
        }
        if let Some(percent) = self.busy_percent {
            write!(f, ", {percent:.0} % busy")?;
        }
        match (self.clock_hz, self.clock_limit_hz) {
            (Some(clock), Some(limit)) => write!(f, ", {} of {} MHz", mhz(clock), mhz(limit))?,
            (Some(clock), None) => write!(f, ", {} MHz", mhz(clock))?,
            (None, _) => {}
        }
        if let Some(bytes) = self.memory_used_bytes {
            write!(f, ", {} MiB in use", bytes >> 20)?;
        }
        if let Some(mw) = self.power_mw {
            write!(f, ", {:.1} W", mw as f64 / 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_is_left_out() {
        let orin = Gpu { name: Some("Orin".to_owned()), ..Gpu::default() };
        assert_eq!(orin.to_string(), "Orin");
        let busy = Gpu {
            temperature_c: Some(41.4),
            busy_percent: Some(7.2),
            clock_hz: Some(306_000_000),
            clock_limit_hz: Some(1_300_500_000),
            memory_used_bytes: Some(1 << 30),
            power_mw: Some(71_240),
            ..orin
        };
        assert_eq!(busy.to_string(), "Orin, 41 °C, 7 % busy, 306 of 1300 MHz, 1024 MiB in use, 71.2 W");
        assert_eq!(Board::default().to_string(), "a board without a name");
    }

    #[test]
    fn rails_are_known_by_their_labels() {
        assert_eq!(Rail::labelled("VDD_CPU_GPU_CV"), Some(Rail::VddCpuGpuCv));
        assert_eq!(Rail::labelled("VDDQ_VDD2_1V8AO"), Some(Rail::Memory));
        for label in ["NC", "", "sum of shunt voltages", "VDD"] {
            assert_eq!(Rail::labelled(label), None, "{label}");
        }
    }
}
