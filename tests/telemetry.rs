//! The machine as its kernel shows it: boards laid out as trees of files, reads that fail and reads that hang.

#[path = "support/boards.rs"]
mod boards;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use boards::{AGX_ORIN_R35, AGX_THOR_R38, Board, ORIN_NANO_R36, ORIN_NX_R36, PC};
use landmarkd::report::ThrottleCause;
use landmarkd::telemetry::{CpuClock, Machine, Memory, Power, Prober, Rail, Root, Sensor, Source};
use rustix::fs::{CWD, FileType, Mode, mknodat};

fn prober(board: &Board) -> Prober {
    Prober::new(Root::at(board.root()))
}

fn look(table: &str) -> Machine {
    let machine = prober(&Board::new(table)).look();
    assert!(machine.silent.is_empty(), "{:?}", machine.silent);
    machine
}

fn temperatures(machine: &Machine) -> Vec<(Sensor, f64, Option<f64>)> {
    machine.temperatures.iter().map(|known| (known.sensor, known.celsius, known.throttles_at_c)).collect()
}

fn power(machine: &Machine) -> Vec<(Rail, u64)> {
    machine.power.iter().map(|&Power { rail, milliwatts }| (rail, milliwatts)).collect()
}

const CALM: BTreeSet<ThrottleCause> = BTreeSet::new();

#[test]
fn an_orin_nx_with_jetpack_6_tells_all_but_what_is_switched_off() {
    let machine = look(ORIN_NX_R36);
    let board = machine.board.to_string();
    let expected = "NVIDIA Jetson Orin NX Engineering Reference Developer Kit, Jetson Linux 36.4.3 (JetPack 6.2), \
                    power mode 15W";
    assert_eq!((board.as_str(), machine.board.is_jetson()), (expected, true));
    assert_eq!(machine.board.tensorrt.as_deref(), Some("10.3.0"));
    let memory = Memory { total_bytes: 15_991_228 * 1024, available_bytes: 12 << 30 };
    assert_eq!(machine.memory, Some(memory));
    assert_eq!(machine.cpu, Some(CpuClock { limit_hz: 1_510_400_000, top_hz: 1_984_000_000 }));
    // The hottest of several of a kind; the vision accelerators are off.
    let expected = vec![
        (Sensor::Cpu, 49.5, Some(99.0)),
        (Sensor::Gpu, 48.75, Some(99.0)),
        (Sensor::Soc, 50.125, None),
        (Sensor::Junction, 50.125, Some(99.0)),
    ];
    assert_eq!(temperatures(&machine), expected);
    let expected = vec![(Rail::VddIn, 7292), (Rail::VddCpuGpuCv, 1334), (Rail::VddSoc, 1941)];
    assert_eq!((power(&machine), machine.drawn_mw()), (expected, Some(7292)));
    let [gpu] = &machine.gpus[..] else { panic!("one GPU: {:?}", machine.gpus) };
    assert_eq!((gpu.busy_percent, gpu.clock_hz), (Some(43.7), Some(306_000_000)));
    assert_eq!((gpu.clock_limit_hz, gpu.clock_top_hz), (Some(612_000_000), Some(918_000_000)));
    assert_eq!((gpu.temperature_c, &gpu.name), (Some(48.75), &None));
    let board = Board::new(ORIN_NX_R36);
    board.set("sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq", "729600");
    let lowest = prober(&board).look().cpu.map(|clock| clock.limit_hz);
    assert_eq!(lowest, Some(729_600_000), "the cluster that is held lowest");
    // Its fan turns and its surface is warm; neither slows it down, nor does what happened before.
    assert_eq!((machine.throttled_by, machine.over_current_events), (CALM, Some(3)));
}

#[test]
fn an_orin_nano_whose_gpu_is_off_tells_the_rest() {
    let machine = look(ORIN_NANO_R36);
    let expected = "NVIDIA Jetson Orin Nano Developer Kit, Jetson Linux 36.4.0 (JetPack 6.1)";
    assert_eq!(machine.board.to_string(), expected);
    assert_eq!(temperatures(&machine), [(Sensor::Cpu, 41.312, Some(99.0)), (Sensor::Junction, 41.5, Some(99.0))]);
    // A small negative current is the chip's offset.
    assert_eq!(power(&machine), [(Rail::VddIn, 4428), (Rail::VddCpuGpuCv, 402), (Rail::VddSoc, 0)]);
    let gpu = &machine.gpus[0];
    assert_eq!((gpu.busy_percent, gpu.temperature_c, gpu.clock_limit_hz), (None, None, Some(624_750_000)));
    assert_eq!((machine.throttled_by, machine.over_current_events), (CALM, None));
}

#[test]
fn an_agx_orin_with_jetpack_5_has_other_names_for_the_same() {
    let machine = look(AGX_ORIN_R35);
    let expected = "Jetson AGX Orin Developer Kit, Jetson Linux 35.4.1 (JetPack 5.1.2), power mode MAXN";
    assert_eq!(machine.board.to_string(), expected);
    assert_eq!(machine.board.tensorrt.as_deref(), Some("8.5.2"));
    // Not -256 °C.
    let expected =
        vec![(Sensor::Cpu, 45.5, Some(99.0)), (Sensor::Soc, 43.312, None), (Sensor::Junction, 45.5, Some(99.0))];
    assert_eq!(temperatures(&machine), expected);
    let expected = vec![(Rail::VddGpuSoc, 5201), (Rail::VddCpuCv, 2680), (Rail::VinSys5v0, 4734), (Rail::Memory, 613)];
    // No rail of it carries all: the three supplies together, of which one feeds the memory.
    assert_eq!((power(&machine), machine.drawn_mw()), (expected, Some(5201 + 2680 + 4734)));
    let gpu = &machine.gpus[0];
    assert_eq!((gpu.busy_percent, gpu.clock_limit_hz), (Some(0.0), Some(1_300_500_000)));
    assert_eq!(machine.throttled_by, CALM);
}

#[test]
fn a_thor_tells_its_clock_and_supply() {
    let machine = look(AGX_THOR_R38);
    let expected = "NVIDIA Jetson AGX Thor Developer Kit, Jetson Linux 38.2.0 (JetPack 7.0), power mode 120W";
    assert_eq!(machine.board.to_string(), expected);
    assert_eq!(machine.board.driver.as_deref(), Some("580.00"));
    let expected =
        vec![(Sensor::Cpu, 53.687, None), (Sensor::Soc, 55.062, None), (Sensor::Junction, 55.062, Some(109.0))];
    assert_eq!(temperatures(&machine), expected);
    let expected = vec![(Rail::VinSys5v0, 6519), (Rail::VddGpu, 0), (Rail::VddCpuSocMss, 6509), (Rail::Vin, 23_120)];
    assert_eq!((power(&machine), machine.drawn_mw()), (expected, Some(23_120)));
    assert_eq!((machine.gpus.len(), machine.gpus[0].clock_hz), (1, Some(1_575_000_000)));
}

#[test]
fn a_pc_is_no_jetson_and_what_its_files_mean_elsewhere_is_not_read_into_them() {
    let machine = look(PC);
    assert!(!machine.board.is_jetson());
    assert_eq!(temperatures(&machine), [(Sensor::Cpu, 52.0, None)]);
    assert_eq!((machine.gpus.len(), machine.power.len(), machine.throttled_by), (0, 0, CALM));
    let nothing = look("");
    assert_eq!(nothing, Machine::default());
}

#[test]
fn each_sign_of_throttling_is_seen_and_its_end_as_well() {
    let board = Board::new(ORIN_NX_R36);
    let mut prober = prober(&board);
    assert_eq!(prober.look().throttled_by, CALM);
    let state = |n: u8| format!("sys/class/thermal/cooling_device{n}/cur_state");
    let alarm = |limit: &str| format!("sys/class/hwmon/hwmon1/curr1_{limit}_alarm");
    for (path, cause) in [
        (state(2), ThrottleCause::CpuHeat),
        (state(3), ThrottleCause::GpuHeat),
        (state(4), ThrottleCause::CpuHeat),
        (state(5), ThrottleCause::GpuHeat),
        (alarm("max"), ThrottleCause::OverCurrent),
        (alarm("crit"), ThrottleCause::OverCurrent),
    ] {
        board.set(&path, "1");
        assert_eq!(prober.look().throttled_by, [cause].into(), "{path}");
        board.set(&path, "0");
        assert_eq!(prober.look().throttled_by, CALM, "{path}");
    }
    board.set("sys/class/hwmon/hwmon2/oc1_event_cnt", "1");
    let machine = prober.look();
    assert_eq!((machine.throttled_by, machine.over_current_events), ([ThrottleCause::OverCurrent].into(), Some(4)));
    assert_eq!(prober.look().throttled_by, CALM, "it has not happened again");
}

#[test]
fn what_comes_later_is_seen_and_what_goes_is_forgotten() {
    let board = Board::new("");
    let mut prober = prober(&board);
    assert_eq!(prober.look(), Machine::default());
    let node = "sys/class/devfreq/17000000.gpu";
    board.set(&format!("{node}/device/of_node/name"), "gpu");
    board.set(&format!("{node}/cur_freq"), "306000000");
    board.set("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit");
    let machine = prober.look();
    assert_eq!(machine.gpus[0].clock_hz, Some(306_000_000));
    assert!(machine.board.is_jetson());
    board.set(&format!("{node}/cur_freq"), "no number");
    assert_eq!(prober.look().gpus[0].clock_hz, None);
    board.remove(&format!("{node}/device/of_node/name"));
    assert!(prober.look().gpus.is_empty());
}

/// Threads of this process by their name, as the kernel has it: cut to 15 bytes.
fn readers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux").flatten();
    // One that has just ended has no name any more.
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "telemetry-read").count()
}

/// The opening of a pipe that nobody writes hangs, as a sensor behind a stuck bus does.
#[test]
fn a_read_that_hangs_is_absent_and_said_and_holds_up_nothing_else() {
    let board = Board::new(ORIN_NX_R36);
    let (temp, max) = ("sys/class/thermal/thermal_zone0/temp", "sys/class/hwmon/hwmon1/in1_input");
    let pipe = |path: &str| {
        board.remove(path);
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, board.root().join(path), FileType::Fifo, mode, 0).expect("a pipe");
    };
    pipe(temp);
    pipe(max);
    let limit = Duration::from_millis(200);
    let mut prober = prober(&board).with_limit(limit);
    let began = Instant::now();
    let machine = prober.look();
    assert!(began.elapsed() >= 2 * limit, "both were waited for");
    assert_eq!(machine.silent, [Source::Thermal, Source::Power].into());
    assert!(machine.temperatures.is_empty() && machine.power.is_empty());
    assert!(machine.board.is_jetson() && machine.memory.is_some() && machine.gpus.len() == 1);
    // They are not asked again while they hang, and no thread is started for it.
    let threads = readers();
    for _ in 0..100 {
        let machine = prober.look();
        assert_eq!(machine.silent, [Source::Thermal, Source::Power].into());
    }
    // Tests beside this one have theirs, of which there are a few.
    assert!(readers() < threads + 50, "many more threads than {threads}: {}", readers());

    // The pipes get a writer that says nothing, and files stand in their place: they answer again.
    for (path, text) in [(temp, "61000"), (max, "5064")] {
        let writer = fs::File::options().write(true).open(board.root().join(path)).expect("somebody reads");
        board.set(path, text);
        drop(writer);
    }
    let began = Instant::now();
    let machine = loop {
        let machine = prober.look();
        if machine.silent.is_empty() {
            break machine;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", machine.silent);
        std::thread::yield_now();
    };
    assert_eq!(machine.temperature(Sensor::Cpu).map(|known| known.celsius), Some(61.0));
    assert_eq!(machine.drawn_mw(), Some(7292));
}

/// A Management Library of our own, where a C compiler is installed.
fn library(board: &Board, gpus: u8) -> bool {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/nvml.c");
    let place = board.place("usr/lib/libnvidia-ml.so.1");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", &format!("-DGPUS={gpus}"), "-o"]).arg(place).arg(source).status();
    match built {
        Ok(status) => {
            assert!(status.success(), "{status}");
            true
        }
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "no C compiler: {why}");
            println!("skipped: no C compiler: {why}");
            false
        }
    }
}

#[test]
fn the_management_library_adds_what_the_files_leave_open() {
    let board = Board::new(AGX_THOR_R38);
    let mut prober = prober(&board);
    assert_eq!(prober.look().gpus[0].busy_percent, None, "no library yet");
    if !library(&board, 1) {
        return;
    }
    let machine = prober.look();
    let [gpu] = &machine.gpus[..] else { panic!("one GPU: {:?}", machine.gpus) };
    assert_eq!((gpu.name.as_deref(), gpu.busy_percent), (Some("NVIDIA Thor"), Some(37.0)));
    assert_eq!((gpu.clock_hz, gpu.power_mw, gpu.memory_used_bytes), (Some(1_575_000_000), None, None));
    assert_eq!(machine.throttled_by, [ThrottleCause::GpuHeat].into());
    assert_eq!(machine.board.driver.as_deref(), Some("580.00"), "the files know better");

    let pc = Board::new(PC);
    assert!(library(&pc, 1));
    let machine = Prober::new(Root::at(pc.root())).look();
    assert_eq!((machine.gpus.len(), machine.board.driver.as_deref()), (1, Some("580.65")));
    assert!(!machine.board.is_jetson());
    let without = Board::new(PC);
    assert!(library(&without, 0));
    assert!(Prober::new(Root::at(without.root())).look().gpus.is_empty());
}
