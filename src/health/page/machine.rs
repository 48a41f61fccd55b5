//! The machine's tiles: board, heat, power, GPUs.

use std::fmt;

use super::super::words::{Bytes, Escaped};
use super::tile;
use crate::telemetry::{Board, CpuClock, Gpu, Machine, Memory};

/// One tile for each part that something is known of.
pub(super) fn tiles(to: &mut String, machine: &Machine, pausing: bool) -> fmt::Result {
    board(to, machine)?;
    heat(to, machine, pausing)?;
    power(to, machine)?;
    machine.gpus.iter().enumerate().try_for_each(|(place, known)| gpu(to, place, known))
}

fn board(to: &mut String, machine: &Machine) -> fmt::Result {
    let Board { model, l4t, jetpack, power_mode, .. } = &machine.board;
    let ghz = |hz: u64| format!("{:.1}", hz as f64 / 1e9);
    let limited = |CpuClock { limit_hz, top_hz }: CpuClock| {
        (limit_hz < top_hz).then(|| format!("processor at most {} of {} GHz", ghz(limit_hz), ghz(top_hz)))
    };
    let memory = |Memory { total_bytes, available_bytes }: Memory| {
        format!("{} of {} memory free", Bytes(available_bytes), Bytes(total_bytes))
    };
    let silent: Vec<_> = machine.silent.iter().map(|source| source.word()).collect();
    let facts = [
        jetpack.map(|jetpack| format!("JetPack {jetpack}")),
        l4t.as_ref().map(|l4t| format!("Jetson Linux {}", Escaped(l4t))),
        power_mode.as_ref().map(|mode| format!("power mode {}", Escaped(mode))),
        machine.cpu.and_then(limited),
        machine.memory.map(memory),
        (!silent.is_empty()).then(|| format!("no answer from: {}", silent.join(", "))),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    if model.is_none() && facts.is_empty() {
        return Ok(());
    }
    let name = model.as_deref().map_or("This machine", |model| model);
    tile(to, "board", "Machine", format!("<small>{}</small>", Escaped(name)), facts.join(" · "))
}

fn heat(to: &mut String, machine: &Machine, pausing: bool) -> fmt::Result {
    let hottest = machine.hottest();
    if hottest.is_none() && machine.throttled_by.is_empty() {
        return Ok(());
    }
    let value = hottest.map_or("Not known".to_owned(), |known| format!("{:.0} °C", known.celsius));
    let facts = [
        hottest.map(|known| format!("hottest: {}", known.sensor.word())),
        hottest.and_then(|known| known.throttles_at_c).map(|limit| format!("throttles from {limit:.0} °C")),
        (!machine.throttled_by.is_empty()).then(|| {
            let causes: Vec<_> = machine.throttled_by.iter().map(|cause| cause.words()).collect();
            format!("<span class=\"waits\">slows itself down: {}</span>", causes.join(", "))
        }),
        pausing.then(|| "<span class=\"waits\">the backlog rests</span>".to_owned()),
    ];
    tile(to, "heat", "Temperature", value, facts.into_iter().flatten().collect::<Vec<_>>().join(" · "))
}

fn power(to: &mut String, machine: &Machine) -> fmt::Result {
    let watts = |milliwatts: u64| format!("{:.1} W", milliwatts as f64 / 1e3);
    let rails: Vec<_> = machine
        .power
        .iter()
        .filter(|power| !power.rail.is_input())
        .map(|power| format!("{} {}", power.rail.word(), watts(power.milliwatts)))
        .collect();
    match machine.drawn_mw() {
        Some(drawn) => tile(to, "power", "Power", watts(drawn), rails.join(" · ")),
        None => Ok(()),
    }
}

fn gpu(to: &mut String, place: usize, gpu: &Gpu) -> fmt::Result {
    let Gpu { name, busy_percent, clock_hz, clock_limit_hz, clock_top_hz, temperature_c, memory_used_bytes, power_mw } =
        gpu;
    let mhz = |hz: u64| hz / 1_000_000;
    let limit = clock_limit_hz.zip(*clock_top_hz).filter(|(limit, top)| limit < top);
    let facts = [
        temperature_c.map(|celsius| format!("{celsius:.0} °C")),
        busy_percent.map(|percent| format!("{percent:.0} % busy")),
        clock_hz.map(|hz| format!("{} MHz", mhz(hz))),
        limit.map(|(limit, top)| format!("at most {} of {} MHz", mhz(limit), mhz(top))),
        memory_used_bytes.map(|bytes| format!("{} in use", Bytes(bytes))),
        power_mw.map(|milliwatts| format!("{:.1} W", milliwatts as f64 / 1e3)),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    let below = if facts.is_empty() { "its driver tells no more".to_owned() } else { facts.join(" · ") };
    let name = Escaped(name.as_deref().unwrap_or("on the chip"));
    tile(to, &format!("gpu-{place}"), "GPU", name, below)
}
