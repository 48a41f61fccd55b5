//! How fast the processor may run.

use super::machine::CpuClock;
use super::root::Root;

const POLICIES: &str = "sys/devices/system/cpu/cpufreq";

/// Of the clusters the one that is held lowest, relative to what it is made for; cpufreq counts in kilohertz.
///
/// nvpmodel and the kernel's cooling both lower `scaling_max_freq`.
pub(super) fn read(root: &Root) -> Option<CpuClock> {
    let policies = root.list(POLICIES).into_iter().filter(|name| name.starts_with("policy"));
    let clock = |policy: String| {
        let hz =
            |file: &str| u64::try_from(root.number(&format!("{POLICIES}/{policy}/{file}"))?).ok()?.checked_mul(1000);
        let (limit_hz, top_hz) = (hz("scaling_max_freq")?, hz("cpuinfo_max_freq")?);
        (top_hz > 0).then_some(CpuClock { limit_hz, top_hz })
    };
    let share = |clock: &CpuClock| clock.limit_hz as f64 / clock.top_hz as f64;
    policies.filter_map(clock).min_by(|a, b| share(a).total_cmp(&share(b)))
}
