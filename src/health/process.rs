//! What the kernel says of this process.

use std::fs;

/// The process at this moment; what the kernel does not tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Memory in use.
    pub(super) resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub(super) open_files: Option<u64>,
    /// Handed to disks since the start (R42).
    pub(super) written_bytes: Option<u64>,
}

impl Process {
    /// Reads `/proc/self`, which never waits for a disk.
    pub(super) fn now() -> Self {
        let text = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
        Self {
            resident_bytes: field(&text("status"), "VmRSS:").map(|kib| kib << 10),
            // One of them is the directory just being read.
            open_files: files.map(|count| count.saturating_sub(1)),
            written_bytes: field(&text("io"), "write_bytes:"),
        }
    }
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_the_beginning_of_its_line() {
        let io = "rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
        assert_eq!(field(io, "write_bytes:"), Some(4096));
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t 12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(field(io, "VmRSS:"), None);
    }

    #[test]
    fn linux_tells_memory_and_files() {
        let process = Process::now();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{process:?}");
        assert!(process.open_files.is_some_and(|count| count >= 3), "{process:?}");
    }
}
