//! The GPU on a Jetson's chip, as devfreq tells of it.

use super::machine::Gpu;
use super::root::Root;

const DEVFREQ: &str = "sys/class/devfreq";
/// What the device tree calls the GPU: since R36, and the chips' names before.
const NAMES: [&str; 5] = ["gpu", "ga10b", "gv11b", "gp10b", "gb10b"];
/// The graphics clock of a Thor, whose device has no name in the device tree.
const THOR: &str = "gpu-gpc-0";

/// The first GPU there is; `None` on a machine whose GPU has no devfreq, that is on all but a Jetson.
pub(super) fn read(root: &Root) -> Option<Gpu> {
    let named = |item: &String| {
        let name = root.text(&format!("{DEVFREQ}/{item}/device/of_node/name"));
        name.is_some_and(|name| NAMES.contains(&name.as_str())) || item == THOR
    };
    let item = root.list(DEVFREQ).into_iter().find(named)?;
    let of = |file: &str| format!("{DEVFREQ}/{item}/{file}");
    let hz = |file: &str| u64::try_from(root.number(&of(file))?).ok();
    let frequencies = root.text(&of("available_frequencies")).unwrap_or_default();
    let top = frequencies.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).max();
    Some(Gpu {
        name: None,
        // Per mille; a GPU that is switched off does not say.
        busy_percent: root
            .number(&of("device/load"))
            .filter(|load| (0..=1000).contains(load))
            .map(|load| load as f64 / 10.0),
        clock_hz: hz("cur_freq"),
        clock_limit_hz: hz("max_freq"),
        clock_top_hz: top,
        ..Gpu::default()
    })
}
