//! Thermometers, and what the kernel slows down because of them.

use std::collections::{BTreeMap, BTreeSet};

use super::machine::{Sensor, Temperature};
use super::root::Root;
use crate::report::ThrottleCause;

const THERMAL: &str = "sys/class/thermal";
/// What a sensor may say, in thousandths of a degree: a part that is switched off says -256 °C where it does not refuse
/// to answer (EAGAIN).
const PLAUSIBLE_MC: std::ops::RangeInclusive<i64> = -60_000..=200_000;

/// The hottest thermometer of each kind, and why the kernel slows the machine down.
pub(super) fn read(root: &Root) -> (Vec<Temperature>, BTreeSet<ThrottleCause>) {
    let entries = root.list(THERMAL);
    let zones = entries.iter().filter(|name| name.starts_with("thermal_zone"));
    let mut hottest: BTreeMap<Sensor, Temperature> = BTreeMap::new();
    for found in zones.filter_map(|zone| temperature(root, zone)) {
        let known = hottest.entry(found.sensor).or_insert(found);
        if found.celsius > known.celsius {
            *known = found;
        }
    }
    let devices = entries.iter().filter(|name| name.starts_with("cooling_device"));
    let causes = devices.filter_map(|device| {
        let of = |file: &str| format!("{THERMAL}/{device}/{file}");
        let cause = cause(&root.text(&of("type"))?)?;
        (root.number(&of("cur_state"))? > 0).then_some(cause)
    });
    (hottest.into_values().collect(), causes.collect())
}

fn temperature(root: &Root, zone: &str) -> Option<Temperature> {
    let of = |file: &str| format!("{THERMAL}/{zone}/{file}");
    let kind = root.text(&of("type"))?;
    let sensor = sensor(&kind)?;
    let milli = root.number(&of("temp")).filter(|milli| PLAUSIBLE_MC.contains(milli))?;
    // A PC's trip points are thresholds that programs set to be woken, and say nothing of throttling.
    let throttles_at_c = is_jetson(&kind).then(|| passive_trip(root, zone)).flatten();
    Some(Temperature { sensor, celsius: milli as f64 / 1e3, throttles_at_c })
}

/// The lowest passive trip point, at which the kernel begins to lower clocks, in degrees Celsius.
fn passive_trip(root: &Root, zone: &str) -> Option<f64> {
    let trips = (0..16).map_while(|trip| {
        let of = |what: &str| root.text(&format!("{THERMAL}/{zone}/trip_point_{trip}_{what}"));
        Some((of("type")?, of("temp").and_then(|text| text.parse::<i64>().ok())))
    });
    let passive = trips.filter(|(kind, _)| kind == "passive").filter_map(|(_, temp)| temp.filter(|temp| *temp > 0));
    passive.min().map(|milli| milli as f64 / 1e3)
}

/// `cpu-thermal` of R36 is `CPU-therm` in R35's first releases; a Thor has `soc012-thermal`.
fn sensor(kind: &str) -> Option<Sensor> {
    let kind = kind.to_ascii_lowercase();
    if kind == "x86_pkg_temp" {
        return Some(Sensor::Cpu);
    }
    let part = kind.strip_suffix("-thermal").or_else(|| kind.strip_suffix("-therm")).unwrap_or(&kind);
    let is_numbered = |name: &str| {
        part.strip_prefix(name).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()) && is_jetson(&kind))
    };
    match part {
        "cpu" if is_jetson(&kind) => Some(Sensor::Cpu),
        "gpu" if is_jetson(&kind) => Some(Sensor::Gpu),
        "tj" if is_jetson(&kind) => Some(Sensor::Junction),
        "tboard" | "tdiode" => Some(Sensor::Board),
        _ if is_numbered("cv") => Some(Sensor::Cv),
        _ if is_numbered("soc") => Some(Sensor::Soc),
        _ => None,
    }
}

fn is_jetson(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    kind.ends_with("-thermal") || kind.ends_with("-therm")
}

/// What a cooling device in use means; `None` for those that slow nothing down, such as fans and alerts of warm
/// surfaces.
///
/// Clocks: `cpufreq-cpu0` and `devfreq-17000000.gpu` (`thermal-cpufreq-0` and `thermal-devfreq-0` before Linux 5.13),
/// `Processor` on a PC. The hardware's own throttling: `cpu-throttle-alert`, `gpu-..`, `cv0-..`, `soc0-..`.
fn cause(kind: &str) -> Option<ThrottleCause> {
    let kind = kind.to_ascii_lowercase();
    if kind == "processor" || kind.starts_with("cpufreq-") || kind.starts_with("thermal-cpufreq-") {
        return Some(ThrottleCause::CpuHeat);
    }
    if let Some(device) = kind.strip_prefix("devfreq-") {
        let is_gpu = ["gpu", "ga10b", "gv11b", "gb10b"].iter().any(|name| device.contains(name));
        return Some(if is_gpu { ThrottleCause::GpuHeat } else { ThrottleCause::SocHeat });
    }
    if kind.starts_with("thermal-devfreq-") {
        return Some(ThrottleCause::GpuHeat);
    }
    match kind.strip_suffix("-throttle-alert")? {
        part if part.ends_with("cpu") => Some(ThrottleCause::CpuHeat),
        "gpu" => Some(ThrottleCause::GpuHeat),
        _ => Some(ThrottleCause::SocHeat),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_by_their_types_of_every_release() {
        for (kind, expected) in [
            ("cpu-thermal", Some(Sensor::Cpu)),
            ("CPU-therm", Some(Sensor::Cpu)),
            ("GPU-therm", Some(Sensor::Gpu)),
            ("cv0-thermal", Some(Sensor::Cv)),
            ("soc2-thermal", Some(Sensor::Soc)),
            ("soc012-thermal", Some(Sensor::Soc)),
            ("tj-thermal", Some(Sensor::Junction)),
            ("Tboard_tegra", None),
            ("tboard-thermal", Some(Sensor::Board)),
            ("x86_pkg_temp", Some(Sensor::Cpu)),
            ("acpitz", None),
            ("iwlwifi_1", None),
            ("cvs-thermal", None),
        ] {
            assert_eq!(sensor(kind), expected, "{kind}");
        }
    }

    #[test]
    fn a_fan_that_turns_slows_nothing_down() {
        for (kind, expected) in [
            ("pwm-fan", None),
            ("hot-surface-alert", None),
            ("LCD", None),
            ("intel_powerclamp", None),
            ("TCC Offset", None),
            ("cpufreq-cpu0", Some(ThrottleCause::CpuHeat)),
            ("thermal-cpufreq-0", Some(ThrottleCause::CpuHeat)),
            ("Processor", Some(ThrottleCause::CpuHeat)),
            ("devfreq-17000000.gpu", Some(ThrottleCause::GpuHeat)),
            ("devfreq-17000000.ga10b", Some(ThrottleCause::GpuHeat)),
            ("devfreq-15340000.vic", Some(ThrottleCause::SocHeat)),
            ("thermal-devfreq-0", Some(ThrottleCause::GpuHeat)),
            ("cpu-throttle-alert", Some(ThrottleCause::CpuHeat)),
            ("gpu-throttle-alert", Some(ThrottleCause::GpuHeat)),
            ("cv0-throttle-alert", Some(ThrottleCause::SocHeat)),
        ] {
            assert_eq!(cause(kind), expected, "{kind}");
        }
    }
}
