//! Main memory.

use super::machine::Memory;
use super::root::Root;

/// `MemTotal` and `MemAvailable` of `/proc/meminfo`, which are in units of 1024 bytes (proc_meminfo(5)).
pub(super) fn read(root: &Root) -> Option<Memory> {
    let text = root.text("proc/meminfo")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { total_bytes: field("MemTotal:")?, available_bytes: field("MemAvailable:")? })
}
