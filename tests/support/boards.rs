//! Machines as their kernels show them: trees of files laid out in a temporary folder.
//!
//! The Jetsons are made from the documented layouts (NVIDIA's Jetson Linux Developer Guide, R35, R36 and R38, "Platform
//! Power and Performance"; the kernel's `hwmon/ina3221.rst`, `sysfs-class-thermal`, `sysfs-class-devfreq`) and from what
//! their owners have published of them. A line is one of
//!
//! ```text
//! PATH = TEXT                                       a file
//! PATH ! refuses                                    one that cannot be read, as a switched-off part's (EAGAIN)
//! PATH -> TARGET                                    a link
//! zone N TYPE MILLIDEGREES [TRIP=MILLIDEGREES ..]   /sys/class/thermal/thermal_zoneN
//! cooling N TYPE STATE/MOST                         /sys/class/thermal/cooling_deviceN
//! rail HWMON CHANNEL LABEL MILLIVOLTS MILLIAMPERES  /sys/class/hwmon/HWMON
//! cpu POLICY LIMIT_KHZ TOP_KHZ                      /sys/devices/system/cpu/cpufreq/POLICY
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// JetPack 6.2 on an Orin NX: the GPU is `17000000.gpu`, zones are `..-thermal`, one INA3221.
pub(crate) const ORIN_NX_R36: &str = "\
proc/device-tree/model = NVIDIA Jetson Orin NX Engineering Reference Developer Kit
proc/meminfo = MemTotal:       15991228 kB\\nMemFree:         9012340 kB\\nMemAvailable:   12582912 kB
etc/nv_tegra_release = # R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8
etc/nvpmodel.conf = < POWER_MODEL ID=0 NAME=MAXN >\\nCPU_ONLINE CORE_0 1\\n< POWER_MODEL ID=2 NAME=15W >
var/lib/nvpmodel/status = pmode:0002
usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0 = ELF
sys/class/devfreq/17000000.gpu -> ../../devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu
sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu/device -> ../../../17000000.gpu
sys/devices/platform/bus@0/17000000.gpu/of_node/name = gpu
sys/devices/platform/bus@0/17000000.gpu/load = 437
sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu/cur_freq = 306000000
sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu/max_freq = 612000000
sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu/available_frequencies = 306000000 408000000 612000000 918000000
sys/class/devfreq/15340000.vic/device/of_node/name = vic
sys/class/devfreq/15340000.vic/cur_freq = 115200000
zone 0 cpu-thermal 49500 critical=104500 passive=99000
zone 1 gpu-thermal 48750 critical=104500 passive=99000
zone 5 soc0-thermal 48906 critical=104500
zone 6 soc1-thermal 50125 critical=104500
zone 8 tj-thermal 50125 active=45000 passive=99000 critical=104500
sys/class/thermal/thermal_zone2/type = cv0-thermal
sys/class/thermal/thermal_zone2/temp ! refuses
cooling 0 pwm-fan 2/4
cooling 1 cpufreq-cpu0 0/20
cooling 2 cpufreq-cpu4 0/20
cooling 3 devfreq-17000000.gpu 0/4
cooling 4 cpu-throttle-alert 0/1
cooling 5 gpu-throttle-alert 0/1
cooling 6 hot-surface-alert 1/1
rail hwmon1 1 VDD_IN 5064 1440
rail hwmon1 2 VDD_CPU_GPU_CV 5056 264
rail hwmon1 3 VDD_SOC 5056 384
sys/class/hwmon/hwmon1/in7_label = sum of shunt voltages
sys/class/hwmon/hwmon1/curr1_max_alarm = 0
sys/class/hwmon/hwmon1/curr1_crit_alarm = 0
sys/class/hwmon/hwmon2/name = soctherm_oc
sys/class/hwmon/hwmon2/oc1_event_cnt = 0
sys/class/hwmon/hwmon2/oc2_event_cnt = 3
cpu policy0 1510400 1984000
cpu policy4 1510400 1984000
";

/// JetPack 6.1 on an Orin Nano: nvpmodel has no status before it was called, the GPU is switched off.
pub(crate) const ORIN_NANO_R36: &str = "\
proc/device-tree/model = NVIDIA Jetson Orin Nano Developer Kit
proc/meminfo = MemTotal:        7802076 kB\\nMemAvailable:    6291456 kB
etc/nv_tegra_release = # R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64, DATE: Fri Sep 13
etc/nvpmodel.conf = < POWER_MODEL ID=0 NAME=15W >\\n< POWER_MODEL ID=1 NAME=7W >
sys/class/devfreq/17000000.gpu/device/of_node/name = gpu
sys/class/devfreq/17000000.gpu/device/load ! refuses
sys/class/devfreq/17000000.gpu/cur_freq = 306000000
sys/class/devfreq/17000000.gpu/max_freq = 624750000
sys/class/devfreq/17000000.gpu/available_frequencies = 306000000 624750000
zone 0 cpu-thermal 41312 passive=99000 critical=104500
sys/class/thermal/thermal_zone1/type = gpu-thermal
sys/class/thermal/thermal_zone1/temp ! refuses
zone 8 tj-thermal 41500 passive=99000
rail hwmon0 1 VDD_IN 5032 880
rail hwmon0 2 VDD_CPU_GPU_CV 5032 80
rail hwmon0 3 VDD_SOC 5032 -8
cpu policy0 1510400 1510400
";

/// JetPack 5.1.2 on an AGX Orin: the GPU is `17000000.ga10b`, zones are `..-therm`, two INA3221, parts that are off say
/// -256 °C.
pub(crate) const AGX_ORIN_R35: &str = "\
proc/device-tree/model = Jetson AGX Orin Developer Kit
proc/meminfo = MemTotal:       31267484 kB\\nMemAvailable:   29360128 kB
etc/nv_tegra_release = # R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1
etc/nvpmodel.conf = < POWER_MODEL ID=0 NAME=MAXN >\\n< POWER_MODEL ID=2 NAME=MODE_30W >
var/lib/nvpmodel/status = pmode:0000
usr/lib/aarch64-linux-gnu/libnvinfer.so.8.5.2 = ELF
sys/class/devfreq/17000000.ga10b -> ../../devices/17000000.ga10b/devfreq/17000000.ga10b
sys/devices/17000000.ga10b/devfreq/17000000.ga10b/device -> ../../../17000000.ga10b
sys/devices/17000000.ga10b/of_node/name = ga10b
sys/devices/17000000.ga10b/load = 0
sys/devices/17000000.ga10b/devfreq/17000000.ga10b/cur_freq = 306000000
sys/devices/17000000.ga10b/devfreq/17000000.ga10b/max_freq = 1300500000
sys/devices/17000000.ga10b/devfreq/17000000.ga10b/available_frequencies = 306000000 612000000 1300500000
zone 0 CPU-therm 45500 passive=99000 critical=104500
zone 1 GPU-therm -256000 passive=99000
zone 2 CV0-therm -256000
zone 5 SOC0-therm 43312
zone 8 tj-therm 45500 passive=99000
cooling 0 pwm-fan 1/3
cooling 1 thermal-cpufreq-0 0/10
cooling 2 thermal-devfreq-0 0/3
rail hwmon3 1 VDD_GPU_SOC 843 6170
rail hwmon3 2 VDD_CPU_CV 780 3437
rail hwmon3 3 VIN_SYS_5V0 4968 953
rail hwmon4 1 NC 0 0
rail hwmon4 2 VDDQ_VDD2_1V8AO 1800 341
rail hwmon4 3 NC 0 0
cpu policy0 2201600 2201600
cpu policy4 2201600 2201600
cpu policy8 2201600 2201600
";

/// JetPack 7 on an AGX Thor: the GPU's clock is `gpu-gpc-0`, its load NVML's alone; the supply has an INA238.
pub(crate) const AGX_THOR_R38: &str = "\
proc/device-tree/model = NVIDIA Jetson AGX Thor Developer Kit
proc/meminfo = MemTotal:      128834492 kB\\nMemAvailable:  121634816 kB
proc/driver/nvidia/version = NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.00  Release Build  (bugfix_main)
etc/nv_tegra_release = # R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, DATE: Fri Aug 22
etc/nvpmodel.conf = < POWER_MODEL ID=0 NAME=MAXN >\\n< POWER_MODEL ID=1 NAME=120W >
var/lib/nvpmodel/status = pmode:0001
usr/lib/aarch64-linux-gnu/libnvinfer.so.10.13.3 = ELF
sys/class/devfreq/gpu-gpc-0/cur_freq = 1575000000
sys/class/devfreq/gpu-gpc-0/max_freq = 1575000000
sys/class/devfreq/gpu-gpc-0/available_frequencies = 315000000 1575000000
sys/class/devfreq/gpu-nvd-0/cur_freq = 1692000000
sys/class/devfreq/bwmgr/cur_freq = 4266000000
zone 0 tj-thermal 55062 passive=109000 critical=114500
zone 1 soc012-thermal 55062 critical=114500
zone 2 cpu-thermal 53687 critical=114500
zone 3 soc345-thermal 53687 critical=114500
sys/class/thermal/thermal_zone4/type = gpu-thermal
sys/class/thermal/thermal_zone4/temp ! refuses
cooling 0 pwm-fan 1/5
cooling 1 cpufreq-cpu0 0/20
rail hwmon2 1 VDD_GPU 4950 -80
rail hwmon2 2 VDD_CPU_SOC_MSS 4950 1315
rail hwmon2 3 VIN_SYS_5V0 4950 1317
sys/class/hwmon/hwmon3/name = ina238
sys/class/hwmon/hwmon3/power1_input = 23120000
cpu policy0 2601000 2601000
";

/// A workstation: what it has of the same kinds of files means nothing here. No NVML.
pub(crate) const PC: &str = "\
proc/meminfo = MemTotal:       65768452 kB\\nMemAvailable:   52428800 kB
zone 0 acpitz 27800 critical=119000
zone 1 x86_pkg_temp 52000 passive=0
cooling 0 Processor 0/10
cooling 1 intel_powerclamp -1/50
cooling 2 LCD 7/15
cooling 3 TCC_Offset 6/63
sys/class/hwmon/hwmon0/name = coretemp
sys/class/hwmon/hwmon0/temp1_input = 52000
cpu policy0 4700000 4700000
";

/// A machine's tree.
pub(crate) struct Board {
    directory: TempDir,
}

impl Board {
    /// Lays it out.
    pub(crate) fn new(table: &str) -> Self {
        let board = Self { directory: tempfile::tempdir().expect("a temporary folder") };
        table.lines().for_each(|line| board.line(line));
        board
    }

    /// Where it lies.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a file's text in the place of what was there.
    pub(crate) fn set(&self, path: &str, text: &str) {
        // As the kernel has it: device-tree strings end with a NUL, the others with a newline.
        let end = if path.contains("device-tree") || path.contains("of_node") { "\0" } else { "\n" };
        // In one step: a look meanwhile sees the old or the new.
        let (place, part) = (self.place(path), self.root().join("part"));
        fs::write(&part, format!("{text}{end}")).expect("the folder is ours");
        fs::rename(part, place).expect("one file system");
    }

    /// Has a file gone.
    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.root().join(path)).expect("it is there");
    }

    /// The path of a new file, in a folder that is there.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("the folder is ours");
        path
    }

    fn line(&self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        if let Some((path, text)) = line.split_once(" = ") {
            return self.set(path, &text.replace("\\n", "\n"));
        }
        match words[..] {
            [path, "!", "refuses"] => fs::create_dir(self.place(path)).expect("the folder is ours"),
            [path, "->", target] => symlink(target, self.place(path)).expect("the folder is ours"),
            ["zone", n, kind, milli, ref trips @ ..] => {
                let of = |file: &str| format!("sys/class/thermal/thermal_zone{n}/{file}");
                self.set(&of("type"), kind);
                self.set(&of("temp"), milli);
                for (trip, (kind, milli)) in trips.iter().filter_map(|trip| trip.split_once('=')).enumerate() {
                    self.set(&of(&format!("trip_point_{trip}_type")), kind);
                    self.set(&of(&format!("trip_point_{trip}_temp")), milli);
                }
            }
            ["cooling", n, kind, states] => {
                let of = |file: &str| format!("sys/class/thermal/cooling_device{n}/{file}");
                let (state, most) = states.split_once('/').expect("two numbers");
                self.set(&of("type"), &kind.replace('_', " "));
                self.set(&of("cur_state"), state);
                self.set(&of("max_state"), most);
            }
            ["rail", device, channel, label, millivolts, milliamperes] => {
                let of = |file: &str| format!("sys/class/hwmon/{device}/{file}");
                self.set(&of("name"), "ina3221");
                self.set(&of(&format!("in{channel}_label")), label);
                self.set(&of(&format!("in{channel}_input")), millivolts);
                self.set(&of(&format!("curr{channel}_input")), milliamperes);
            }
            ["cpu", policy, limit_khz, top_khz] => {
                let of = |file: &str| format!("sys/devices/system/cpu/cpufreq/{policy}/{file}");
                self.set(&of("scaling_max_freq"), limit_khz);
                self.set(&of("cpuinfo_max_freq"), top_khz);
            }
            _ => panic!("no line of a board: {line}"),
        }
    }
}
