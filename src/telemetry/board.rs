//! Which board it is and what is installed on it.

use super::machine::Board;
use super::root::Root;

/// Releases of Jetson Linux and the JetPack each is part of (NVIDIA, Jetson Linux Archive).
const JETPACKS: [(&str, &str); 20] = [
    ("35.1.0", "5.0.2"),
    ("35.2.1", "5.1"),
    ("35.3.1", "5.1.1"),
    ("35.4.1", "5.1.2"),
    ("35.5.0", "5.1.3"),
    ("35.6.0", "5.1.4"),
    ("35.6.1", "5.1.5"),
    ("36.2.0", "6.0 DP"),
    ("36.3.0", "6.0"),
    ("36.4.0", "6.1"),
    ("36.4.3", "6.2"),
    ("36.4.4", "6.2.1"),
    ("38.2.0", "7.0"),
    ("38.4.0", "7.1"),
    ("39.2.0", "7.2"),
    // Of a release that is not listed only the major number is sure.
    ("35", "5"),
    ("36", "6"),
    ("38", "7"),
    ("39", "7"),
    ("32", "4"),
];

/// Longer names of power modes are cut; NVIDIA's have 15 characters at most.
const MAX_MODE: usize = 32;

impl Board {
    /// That of the machine, or of the one that `root` shows.
    #[must_use]
    pub fn of(root: &Root) -> Self {
        read(root)
    }
}

pub(super) fn read(root: &Root) -> Board {
    let l4t = root.text("etc/nv_tegra_release").and_then(|text| release(&text));
    Board {
        model: root.text("proc/device-tree/model"),
        jetpack: l4t.as_deref().and_then(jetpack),
        l4t,
        power_mode: power_mode(root),
        driver: root.text("proc/driver/nvidia/version").and_then(|text| driver(&text)),
        tensorrt: tensorrt(root),
    }
}

/// `# R36 (release), REVISION: 4.3, GCID: ..` is 36.4.3; `REVISION: 3.0` is 36.3.0.
fn release(text: &str) -> Option<String> {
    let (major, rest) = text.lines().next()?.strip_prefix("# R")?.split_once(' ')?;
    let revision = rest.split("REVISION:").nth(1)?.split(',').next()?.trim();
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    (plain(major) && plain(revision)).then(|| format!("{major}.{revision}"))
}

fn jetpack(l4t: &str) -> Option<&'static str> {
    let of = |release: &str| JETPACKS.iter().find(|(known, _)| *known == release).map(|(_, jetpack)| *jetpack);
    of(l4t).or_else(|| of(l4t.split('.').next()?))
}

/// What `nvpmodel -q` says, from the two files it reads: the number of the mode in force (`pmode:0002`) and the modes
/// there are (`< POWER_MODEL ID=2 NAME=MODE_15W >`).
fn power_mode(root: &Root) -> Option<String> {
    let status = root.text("var/lib/nvpmodel/status")?;
    let digits = status.split_whitespace().find_map(|word| word.strip_prefix("pmode:"))?;
    let number: u32 = digits.parse().ok()?;
    let modes = root.text("etc/nvpmodel.conf").unwrap_or_default();
    let name = modes.lines().filter_map(|line| line.trim().strip_prefix("< POWER_MODEL ")).find_map(|line| {
        let field = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        (field("ID=")?.parse() == Ok(number)).then(|| field("NAME="))?
    });
    // It goes out in the status document: nothing but what a name is made of.
    let plain = |name: &str| name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(MAX_MODE).collect();
    Some(name.map(plain).filter(|name: &String| !name.is_empty()).unwrap_or_else(|| number.to_string()))
}

/// `NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.00  Release Build ..`: the first word with a point
/// that is a number.
fn driver(text: &str) -> Option<String> {
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

/// The library's file carries the whole version in its name: `libnvinfer.so.10.3.0`.
fn tensorrt(root: &Root) -> Option<String> {
    let places = ["usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
    let files = places.into_iter().flat_map(|place| {
        let names = std::fs::read_dir(root.path(place)).into_iter().flatten();
        names.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
    });
    let versions = files.filter_map(|name| Some(name.strip_prefix("libnvinfer.so.")?.to_owned()));
    // 10.13 comes after 10.3.
    let numbers = |version: &String| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    versions.filter(|version| version.contains('.')).max_by_key(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_its_first_line() {
        for (text, expected) in [
            ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", Some("36.4.3")),
            ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref", Some("35.4.1")),
            ("# R38 (release), REVISION: 2.0, GCID: 41844464\n# KERNEL_VARIANT: oot", Some("38.2.0")),
            ("# R36 (release)", None),
            ("R36", None),
            ("# R36; (release), REVISION: 4.3,", None),
        ] {
            assert_eq!(release(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_release_that_is_not_listed_has_at_least_its_major_jetpack() {
        for (l4t, expected) in [("36.4.3", Some("6.2")), ("36.9.9", Some("6")), ("39.2.1", Some("7")), ("12.1", None)] {
            assert_eq!(jetpack(l4t), expected, "{l4t}");
        }
    }

    #[test]
    fn the_drivers_version_is_found_in_its_words() {
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.00  Release Build  (bugfix_main)";
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024";
        assert_eq!(driver(open).as_deref(), Some("580.00"));
        assert_eq!(driver(closed).as_deref(), Some("550.54.15"));
        assert_eq!(driver("GCC version:  gcc"), None);
    }
}
