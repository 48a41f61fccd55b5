//! The machine's numbers; what is not known of it is left out.

use super::super::exposition::{Kind, Sample};
use super::Families;
use crate::report::ThrottleCause;
use crate::telemetry::{CpuClock, Gpu, Machine, Memory, Source};

/// GPUs are told apart by their number; a machine with more has its others left out.
const NUMBERS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];

impl Families {
    pub(super) fn machine(&mut self, machine: &Machine) {
        let temperatures = machine.temperatures.iter().map(|known| (known.sensor.word(), known.celsius));
        self.labelled("temperature_celsius", "Temperature of a part of the machine.", "sensor", temperatures);
        let limits = machine.temperatures.iter().filter_map(|known| Some((known.sensor.word(), known.throttles_at_c?)));
        let help = "Temperature from which on the kernel slows the machine down.";
        self.labelled("throttle_temperature_celsius", help, "sensor", limits);
        let power = machine.power.iter().map(|known| (known.rail.word(), known.milliwatts as f64 / 1e3));
        self.labelled("power_watts", "What a rail carries.", "rail", power);
        let flag = |set: bool| f64::from(u8::from(set));
        let causes = ThrottleCause::ALL.iter().map(|cause| (cause.word(), flag(machine.throttled_by.contains(cause))));
        self.labelled("throttled", "1 for why the machine slows itself down.", "cause", causes);
        let silent = Source::ALL.iter().map(|source| (source.word(), flag(machine.silent.contains(source))));
        self.labelled("telemetry_silent", "1 for what does not answer in time.", "source", silent);
        let events = machine.over_current_events.map(|count| count as f64);
        let help = "How often the machine has throttled for over-current since it was started.";
        self.number("over_current_events_total", Kind::Counter, help, events);
        if let Some(CpuClock { limit_hz, top_hz }) = machine.cpu {
            let help = "The most that the processor may run at now.";
            self.number("cpu_clock_limit_hertz", Kind::Gauge, help, Some(limit_hz as f64));
            self.number("cpu_clock_top_hertz", Kind::Gauge, "The most that it is made for.", Some(top_hz as f64));
        }
        if let Some(Memory { total_bytes, available_bytes }) = machine.memory {
            self.number("memory_bytes", Kind::Gauge, "The machine's memory.", Some(total_bytes as f64));
            let help = "What of it could be had without swapping.";
            self.number("memory_available_bytes", Kind::Gauge, help, Some(available_bytes as f64));
        }
        let whole = |number: Option<u64>| number.map(|number| number as f64);
        for (name, help, value) in [
            ("gpu_busy_ratio", "Share of the last moment that a GPU computed.", {
                (|gpu: &Gpu| gpu.busy_percent.map(|percent| percent / 100.0)) as fn(&Gpu) -> Option<f64>
            }),
            ("gpu_memory_used_bytes", "Memory of its own that a GPU has in use.", |gpu| {
                gpu.memory_used_bytes.map(|bytes| bytes as f64)
            }),
            ("gpu_temperature_celsius", "Temperature of a GPU.", |gpu| gpu.temperature_c),
            ("gpu_power_watts", "What a GPU draws.", |gpu| gpu.power_mw.map(|milliwatts| milliwatts as f64 / 1e3)),
        ] {
            self.labelled(name, help, "gpu", of_each(machine, value));
        }
        for (name, help, value) in [
            ("gpu_clock_hertz", "Clock of a GPU.", (|gpu: &Gpu| gpu.clock_hz) as fn(&Gpu) -> Option<u64>),
            ("gpu_clock_limit_hertz", "The most that a GPU may run at now.", |gpu| gpu.clock_limit_hz),
            ("gpu_clock_top_hertz", "The most that a GPU is made for.", |gpu| gpu.clock_top_hz),
        ] {
            self.labelled(name, help, "gpu", of_each(machine, |gpu| whole(value(gpu))));
        }
    }

    fn labelled(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl Iterator<Item = (&'static str, f64)>,
    ) {
        let samples = values.map(|(member, value)| Sample { suffix: "", labels: vec![(label, member)], value });
        self.add(name, Kind::Gauge, help, samples);
    }
}

fn of_each(machine: &Machine, value: impl Fn(&Gpu) -> Option<f64>) -> impl Iterator<Item = (&'static str, f64)> {
    std::iter::zip(NUMBERS, &machine.gpus).filter_map(move |(number, gpu)| Some((number, value(gpu)?)))
}
