//! What an engine depends on: where one of it differs, another engine is built.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::WORKSPACE_MIB;
use super::mixed::REVISION;
use super::native::{NativeDevice, SHIM_REVISION, plain};

/// Where the driver tells its version, on a Jetson and on workstations. A Jetson's comes with its release, and the
/// modules of the others may be loaded there after the daemon, for the display.
const DRIVER_VERSIONS: [&str; 3] =
    ["/etc/nv_tegra_release", "/sys/module/nvidia/version", "/proc/driver/nvidia/version"];

/// A GPU and its driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// The maker's name for it.
    pub name: String,
    /// Its generation, `[major, minor]`.
    pub capability: [i32; 2],
    /// How many multiprocessors it has.
    pub multiprocessors: i32,
    /// The newest CUDA that its driver knows, `1000 * major + 10 * minor`.
    pub cuda: i32,
    /// The driver's own version, where the system tells.
    pub driver: Option<String>,
}

/// All that an engine depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Of the bundle's network, hexadecimal.
    pub network_sha256: String,
    /// How it is rewritten for TensorRT.
    pub rewrite: u32,
    /// "TensorRT 10.3.0".
    pub tensorrt: String,
    /// What it was built on, and for.
    pub gpu: Gpu,
    /// What TensorRT was asked for besides.
    pub workspace_mib: u64,
    /// Who asked.
    pub shim: i32,
}

impl Gpu {
    pub(super) fn of(device: NativeDevice) -> Self {
        // Not its memory: on a Jetson that is the machine's, less what a boot left of it.
        let NativeDevice { name, capability, multiprocessors, cuda_version } = device;
        Self { name, capability, multiprocessors, cuda: cuda_version, driver: driver_version() }
    }

    /// "13.0", the newest CUDA that the driver knows.
    #[must_use]
    pub fn cuda_in_words(&self) -> String {
        format!("{}.{}", self.cuda / 1000, self.cuda % 1000 / 10)
    }
}

impl Key {
    pub(super) fn new(network_sha256: &str, tensorrt: String, gpu: Gpu) -> Self {
        let (network_sha256, rewrite) = (network_sha256.to_owned(), REVISION);
        Self { network_sha256, rewrite, tensorrt, gpu, workspace_mib: WORKSPACE_MIB, shim: SHIM_REVISION }
    }

    /// The name of its engine: 32 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).expect("a key is plain data");
        Sha256::digest(json)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn driver_version() -> Option<String> {
    DRIVER_VERSIONS.iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        Some(plain(text.lines().next()?)).filter(|line| !line.is_empty())
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn key() -> Key {
        let name = "Orin".to_owned();
        let gpu = Gpu { name, capability: [8, 7], multiprocessors: 16, cuda: 12_060, driver: None };
        Key::new("ab12", "TensorRT 10.3.0".to_owned(), gpu)
    }

    #[test]
    fn each_part_of_the_key_makes_another_engine() {
        type Change = fn(&mut Key);
        let changes: [Change; 10] = [
            |key| key.network_sha256.push('0'),
            |key| key.rewrite += 1,
            |key| key.tensorrt.push('1'),
            |key| key.gpu.name.push('x'),
            |key| key.gpu.capability[1] += 1,
            |key| key.gpu.multiprocessors += 1,
            |key| key.gpu.cuda += 10,
            |key| key.gpu.driver = Some("580.1".to_owned()),
            |key| key.workspace_mib += 1,
            |key| key.shim += 1,
        ];
        let mut digests: Vec<_> = changes
            .iter()
            .map(|change| {
                let mut changed = key();
                change(&mut changed);
                changed.digest()
            })
            .collect();
        digests.push(key().digest());
        assert!(digests.iter().all(|digest| digest.len() == 32));
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 11);
        assert_eq!(key().gpu.cuda_in_words(), "12.6");
    }
}
