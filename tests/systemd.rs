//! The installed service under a real systemd, which a script boots in namespaces of its own, and what systemd's own
//! tools say of the unit. Where the machine does not allow it, a test says so and passes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const UNIT: &str = "landmarkd.service";
/// Far beyond anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(120);

fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The bundle that is installed as the default one.
fn models() -> PathBuf {
    match std::env::var_os("LANDMARKD_TEST_MODEL") {
        Some(bundle) => Path::new(&bundle).parent().expect("a bundle lies in a folder").to_path_buf(),
        None => own("models"),
    }
}

fn text(output: Output) -> String {
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// `systemd-analyze` on the unit, whose program is the one under test; `None` where there is no systemd.
fn analyze(arguments: &[&str]) -> Option<(bool, String)> {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = fs::read_to_string(own("systemd/usr/lib/systemd/system").join(UNIT)).expect("the unit");
    let unit = unit.replace("/usr/bin/landmarkd", env!("CARGO_BIN_EXE_landmarkd"));
    let path = directory.path().join(UNIT);
    fs::write(&path, unit).expect("writable");
    let Ok(output) = Command::new("systemd-analyze").args(arguments).arg(&path).output() else {
        println!("skipped: systemd-analyze is not installed");
        return None;
    };
    Some((output.status.success(), text(output)))
}

#[test]
fn the_unit_exposes_two_of_ten_at_most() {
    // The threshold is in tenths.
    let Some((is_below, said)) = analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]) else {
        return;
    };
    let overall = said.lines().last().unwrap_or_default();
    assert!(is_below && overall.contains("exposure level"), "{said}");
    println!("{overall}");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let Some((is_right, said)) = analyze(&["verify", "--man=no"]) else { return };
    let about_us: Vec<_> = said.lines().filter(|line| line.contains("landmarkd")).collect();
    assert!(is_right && about_us.is_empty(), "{said}");
}

/// A booted systemd; dropping it ends everything in it.
struct Machine {
    script: Child,
    held: Option<ChildStdin>,
    init: String,
}

/// The lines of a journal as they come.
struct Journal {
    follower: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Machine {
    fn boot() -> Option<Self> {
        let mut script = Command::new(own("tests/support/boot.sh"))
            .args([own("systemd"), env!("CARGO_BIN_EXE_landmarkd").into(), models()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is there");
        let held = script.stdin.take();
        let mut said = String::new();
        let mut lines = BufReader::new(script.stdout.take().expect("piped"));
        while lines.read_line(&mut said).expect("text") > 0 {
            let line = said.lines().last().unwrap_or_default();
            if let Some(init) = line.strip_prefix("booted ") {
                return Some(Self { init: init.to_owned(), script, held });
            }
        }
        let status = script.wait().expect("ours");
        assert_eq!(status.code(), Some(77), "{said}");
        println!("skipped: no systemd can be booted here: {}", said.trim());
        None
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--"]);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]).args(arguments);
        command
    }

    /// What a command inside says; it must succeed.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("nsenter is installed");
        let success = output.status.success();
        let said = text(output);
        assert!(success, "{arguments:?}: {said}");
        said
    }

    fn write(&self, path: &str, content: &[u8]) {
        let mut child = self.command(&["sh", "-c", "mkdir -p \"$(dirname \"$0\")\" && cat > \"$0\"", path]);
        let mut child = child.stdin(Stdio::piped()).spawn().expect("nsenter is installed");
        child.stdin.take().expect("piped").write_all(content).expect("it reads");
        assert!(child.wait().expect("ours").success(), "{path}");
    }

    /// What the kernel and the system of a Jetson show, at the paths at which they do.
    fn becomes_a_jetson(&self) {
        self.run(&["mount", "-t", "tmpfs", "board", "/sys/class"]);
        for (path, text) in [
            ("/etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic"),
            ("/etc/nvpmodel.conf", "< POWER_MODEL ID=2 NAME=15W >"),
            ("/var/lib/nvpmodel/status", "pmode:0002"),
            ("/sys/class/devfreq/17000000.gpu/device/of_node/name", "gpu"),
            ("/sys/class/devfreq/17000000.gpu/cur_freq", "306000000"),
            ("/sys/class/thermal/thermal_zone0/type", "cpu-thermal"),
            ("/sys/class/thermal/thermal_zone0/temp", "49500"),
            ("/sys/class/thermal/cooling_device0/type", "cpufreq-cpu0"),
            ("/sys/class/thermal/cooling_device0/cur_state", "0"),
            ("/sys/class/hwmon/hwmon1/name", "ina3221"),
            ("/sys/class/hwmon/hwmon1/in1_label", "VDD_IN"),
            ("/sys/class/hwmon/hwmon1/in1_input", "5064"),
            ("/sys/class/hwmon/hwmon1/curr1_input", "1440"),
            ("/sys/class/hwmon/hwmon2/oc1_event_cnt", "3"),
        ] {
            self.write(path, text.as_bytes());
        }
    }

    /// What the daemon tells Prometheus.
    fn metrics(&self) -> String {
        let ask = "exec 3<>/dev/tcp/127.0.0.1/9464 && \
                   printf 'GET /metrics HTTP/1.1\\r\\nHost: 127.0.0.1:9464\\r\\n\\r\\n' >&3 && cat <&3";
        self.run(&["bash", "-c", ask])
    }

    /// A property of the unit.
    fn show(&self, property: &str) -> String {
        self.run(&["systemctl", "show", UNIT, "--value", "--property", property]).trim().to_owned()
    }

    /// Puts a drop-in for the unit in the place of the one before.
    fn drop_in(&self, service: &str) {
        let content = format!("[Service]\n{service}\n");
        self.write(&format!("/etc/systemd/system/{UNIT}.d/test.conf"), content.as_bytes());
        self.run(&["systemctl", "daemon-reload"]);
    }

    /// Puts a film into the folder in one step.
    fn film(&self, name: &str) {
        let golden = "/usr/share/landmarkd/models/ceph19-nfdp/golden.png";
        // What follows its last chunk makes it another film.
        let script = "cat \"$1\" > /srv/part && printf %s \"$0\" >> /srv/part && chmod 644 /srv/part && \
                      mv /srv/part \"/srv/films/$0\"";
        self.run(&["sh", "-c", script, name, golden]);
    }

    fn journal(&self, unit: &str) -> Journal {
        let mut command = self.command(&["journalctl", "--follow", "--lines=all", "--output=cat", "--unit", unit]);
        let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("nsenter is installed");
        let stdout = BufReader::new(follower.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Journal { follower, lines, heard: Vec::new() }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The script reads until we are done, and then cleans up.
        drop(self.held.take());
        let _status = self.script.wait();
    }
}

impl Journal {
    /// Listens until a line has these words.
    fn until(&mut self, words: &str) {
        let start = Instant::now();
        loop {
            let line = self.lines.recv_timeout(PATIENCE.saturating_sub(start.elapsed()));
            let Ok(line) = line else { panic!("never {words:?} in:\n{}", self.heard.join("\n")) };
            let is_it = line.contains(words);
            self.heard.push(line);
            if is_it {
                return;
            }
        }
    }

    fn position(&self, words: &str) -> Option<usize> {
        self.heard.iter().position(|line| line.contains(words))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // It may have ended with the machine.
        let _killed = self.follower.kill();
        let _status = self.follower.wait();
    }
}

/// One boot, one life of a service: each part begins where the one before left it.
#[test]
fn the_service_lives_under_systemd_as_it_promises() {
    let has_broker = Path::new("/usr/sbin/mosquitto").exists() && Path::new("/usr/bin/mosquitto_sub").exists();
    if !has_broker {
        println!("skipped: mosquitto and mosquitto-clients are not installed");
        return;
    }
    let Some(machine) = Machine::boot() else { return };
    machine.run(&["systemd-run", "--unit=broker", "mosquitto", "-p", "1883"]);
    let heard = "until mosquitto_sub -V mqttv5 -q 1 -i witness -c -x 3600 -t 'xr/#' -F '%t %p'; do sleep 0.1; done";
    machine.run(&["systemd-run", "--unit=witness", "stdbuf", "-oL", "sh", "-c", heard]);
    machine.write(
        "/etc/landmarkd/conf.d/broker.toml",
        b"[acquisition]\nsettle_ms = 100\n[mqtt]\nmax_backoff_s = 1\nkeep_alive_s = 5\nack_timeout_s = 10\n\
          [daemon]\ndrain_s = 5\n",
    );
    let quick = "WatchdogSec=6\nTimeoutAbortSec=2\nRestartSec=1";
    machine.drop_in(quick);
    machine.becomes_a_jetson();
    let mut journal = machine.journal(UNIT);
    let mut witness = machine.journal("witness.service");

    // Ready after the self-test, and not before.
    machine.run(&["systemctl", "start", UNIT]);
    journal.until("Started landmarkd");
    let (tested, started) = (journal.position("self-test within"), journal.position("Started landmarkd"));
    assert!(tested.is_some() && tested < started, "{:?}", journal.heard);
    assert!(machine.show("StatusText").starts_with("watching /srv/films"), "{}", machine.show("StatusText"));
    machine.film("first.png");
    witness.until("ceph-1/result");

    // The unit shuts much away, and leaves the machine to be looked at.
    let board = "this machine is a board without a name, Jetson Linux 36.4.3 (JetPack 6.2), power mode 15W";
    if journal.position(board).is_none() {
        journal.until(board);
    }
    let metrics = machine.metrics();
    for series in [
        "landmarkd_temperature_celsius{sensor=\"cpu\"} 49.5",
        "landmarkd_power_watts{rail=\"vdd_in\"} 7.292",
        "landmarkd_gpu_clock_hertz{gpu=\"0\"} 306000000",
        "landmarkd_throttled{cause=\"cpu_heat\"} 0",
        "landmarkd_over_current_events_total 3",
        "landmarkd_memory_available_bytes ",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }

    // A broker that hangs, for longer than the watchdog waits: nothing is restarted, the film waits and arrives.
    machine.run(&["systemctl", "kill", "--signal=STOP", "broker.service"]);
    machine.film("second.png");
    journal.until("event 2");
    journal.until("no connection to the broker");
    assert_eq!((machine.show("NRestarts"), machine.show("ActiveState")), ("0".to_owned(), "active".to_owned()));
    machine.run(&["systemctl", "kill", "--signal=CONT", "broker.service"]);
    witness.until("\"sequence\":\"00000000000000000002\"");

    // A process that is stopped does not ping.
    machine.run(&["systemctl", "kill", "--signal=STOP", "--kill-whom=main", UNIT]);
    journal.until("Watchdog timeout");
    journal.until("Started landmarkd");
    assert_eq!(machine.show("NRestarts"), "1");

    // Neither does one whose inference hangs.
    machine.write("/etc/landmarkd/conf.d/budget.toml", b"[daemon]\nbudget_s = 1\n");
    machine.drop_in(&format!("{quick}\nEnvironment=LANDMARKD_HANG_POINT=film.analysed"));
    machine.run(&["systemctl", "restart", UNIT]);
    machine.film("third.png");
    journal.until("the worker hangs");
    machine.run(&["rm", "/etc/landmarkd/conf.d/budget.toml"]);
    machine.drop_in(quick);
    journal.until("Watchdog timeout");
    journal.until("Started landmarkd");
    witness.until("\"sequence\":\"00000000000000000003\"");

    // A new configuration that is wrong leaves the process and the old one in force.
    let main = machine.show("MainPID");
    machine.write("/etc/landmarkd/conf.d/wrong.toml", b"[mqtt]\nprot = 1\n");
    machine.run(&["systemctl", "reload", UNIT]);
    journal.until("the old one stays in force");
    witness.until("config_rejected");
    machine.film("fourth.png");
    witness.until("\"sequence\":\"00000000000000000004\"");
    assert_eq!((machine.show("MainPID"), machine.show("ActiveState")), (main.clone(), "active".to_owned()));
    assert!(machine.show("StatusText").ends_with("the old one holds"), "{}", machine.show("StatusText"));
    machine.write("/etc/landmarkd/conf.d/wrong.toml", b"[acquisition]\nsettle_ms = 200\n");
    machine.run(&["systemctl", "reload", UNIT]);
    journal.until("is taken over");
    journal.until("watching /srv/films");
    machine.film("fifth.png");
    witness.until("\"sequence\":\"00000000000000000005\"");
    assert_eq!(machine.show("MainPID"), main);

    // Started with a wrong one it stays down.
    machine.write("/etc/landmarkd/conf.d/wrong.toml", b"[mqtt]\nprot = 1\n");
    let restarted = machine.command(&["systemctl", "restart", UNIT]).output().expect("nsenter is installed");
    assert!(!restarted.status.success());
    journal.until("status=78");
    journal.until("Failed with result 'exit-code'");
    // Else it would be "activating" until the next try.
    assert_eq!((machine.show("ActiveState"), machine.show("ExecMainStatus")), ("failed".to_owned(), "78".to_owned()));

    // Mended, and stopped.
    machine.run(&["rm", "/etc/landmarkd/conf.d/wrong.toml"]);
    machine.run(&["systemctl", "start", UNIT]);
    machine.run(&["systemctl", "stop", UNIT]);
    witness.until("\"state\":\"offline\"");
    assert_eq!(machine.show("Result"), "success");
}
