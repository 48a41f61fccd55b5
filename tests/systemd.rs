//! The installed service under a real systemd, which a script boots in namespaces of its own, and what systemd's own
//! tools say of the unit. Where the machine does not allow it, a test says so and passes, except in CI (`CI` is set),
//! where it fails.

#[path = "support/booted.rs"]
mod booted;
#[path = "support/clock.rs"]
mod clock;
#[path = "support/mosquitto.rs"]
#[expect(dead_code, reason = "the brokers run in the booted machine")]
mod mosquitto;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use booted::{Machine, UNIT, own, skipped, text};
use mosquitto::Authority;

/// `systemd-analyze` on the unit, whose program is the one under test; `None` where there is no systemd.
fn analyze(arguments: &[&str]) -> Option<(bool, String)> {
    let directory = tempfile::tempdir().expect("a directory");
    let unit = fs::read_to_string(own("systemd/usr/lib/systemd/system").join(UNIT)).expect("the unit");
    let unit = unit.replace("/usr/bin/landmarkd", env!("CARGO_BIN_EXE_landmarkd"));
    let path = directory.path().join(UNIT);
    fs::write(&path, unit).expect("writable");
    let Ok(output) = Command::new("systemd-analyze").args(arguments).arg(&path).output() else {
        skipped("systemd-analyze is not installed");
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

/// A machine on which Mosquitto is installed.
fn with_mosquitto() -> Option<Machine> {
    let is_there = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto_sub"].iter().all(|path| Path::new(path).exists());
    if !is_there {
        skipped("mosquitto and mosquitto-clients are not installed");
        return None;
    }
    Machine::boot()
}

/// What the kernel and the system of a Jetson show, at the paths at which they do.
fn becomes_a_jetson(machine: &Machine) {
    machine.run(&["mount", "-t", "tmpfs", "board", "/sys/class"]);
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
        machine.write(path, text.as_bytes());
    }
}

/// What the daemon tells Prometheus.
fn metrics(machine: &Machine) -> String {
    let ask = "exec 3<>/dev/tcp/127.0.0.1/9464 && \
               printf 'GET /metrics HTTP/1.1\\r\\nHost: 127.0.0.1:9464\\r\\n\\r\\n' >&3 && cat <&3";
    machine.run(&["bash", "-c", ask])
}

/// One boot, one life of a service: each part begins where the one before left it.
#[test]
fn the_service_lives_under_systemd_as_it_promises() {
    let Some(machine) = with_mosquitto() else { return };
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
    becomes_a_jetson(&machine);
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
    journal.once(board);
    let metrics = metrics(&machine);
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

    // A film that kills it has far more tries left than the five after which the sixth run is safe, and it would kill
    // that one too.
    machine.write("/etc/landmarkd/conf.d/patient.toml", b"[acquisition]\nmax_attempts = 100\n");
    machine.drop_in(&format!("{quick}\nEnvironment=LANDMARKD_CRASH_POINT=film.analysed"));
    machine.run(&["systemctl", "start", UNIT]);
    machine.film("sixth.png");
    journal.until("safe mode: the daemon ended again and again");
    witness.until("\"reasons\":[\"safe_mode\"]");
    witness.until("ceph-1/error");
    let refusal = witness.heard.last().expect("it was heard");
    assert!(refusal.contains("\"stage\":\"crash\"") && refusal.contains("\"attempts\":5"), "{refusal}");
    assert_eq!((machine.show("NRestarts"), machine.show("ActiveState")), ("5".to_owned(), "active".to_owned()));
    let kept = machine.run(&["ls", "/var/lib/landmarkd/quarantine"]);
    assert_eq!(kept.lines().count(), 1, "{kept}");

    // Without what killed it, it goes on.
    machine.drop_in(quick);
    machine.run(&["systemctl", "restart", UNIT]);
    machine.film("seventh.png");
    witness.until("\"sequence\":\"00000000000000000007\"");
    assert!(witness.heard.last().is_some_and(|line| line.starts_with("xr/v1/clinic/ceph-1/result ")));
    machine.run(&["systemctl", "stop", UNIT]);
    assert_eq!(machine.show("Result"), "success");
}

/// The command line of a client of the shipped broker that shows the certificate of `identity`.
fn client(program: &str, identity: Option<&str>, rest: &[&str]) -> Vec<String> {
    let broker = ["-V", "mqttv5", "-q", "1", "-h", "localhost", "-p", "8883", "--cafile", "/etc/landmarkd/ca.pem"];
    let mut words: Vec<String> = [program].iter().chain(&broker).chain(rest).map(|&word| word.to_owned()).collect();
    if let Some(name) = identity {
        words.extend(["--cert".to_owned(), format!("/srv/{name}.pem"), "--key".to_owned(), format!("/srv/{name}.key")]);
    }
    words
}

/// Asks the shipped broker for everything, in a session that outlives the connection.
fn subscribe(machine: &Machine, identity: &str) {
    let session = ["-c", "-x", "3600", "-i", identity, "-t", "xr/v1/clinic/#", "-F", "%t %p"];
    let unit = format!("--unit={identity}");
    let words = client("mosquitto_sub", Some(identity), &session);
    let service = ["systemd-run", "--collect", &unit, "stdbuf", "-oL"];
    machine.run(&service.into_iter().chain(words.iter().map(String::as_str)).collect::<Vec<_>>());
}

/// What the shipped broker makes of a result that is not the device's.
fn forge(machine: &Machine, identity: Option<&str>) -> (bool, String) {
    let words = client("mosquitto_pub", identity, &["-t", "xr/v1/clinic/ceph-1/result", "-m", "forged"]);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let output = machine.command(&words).output().expect("nsenter is installed");
    (output.status.success(), text(output))
}

/// The examples as they are installed, at the paths that they name.
#[test]
fn with_the_shipped_examples_each_identity_may_do_what_it_is_for_and_nothing_is_lost() {
    let Some(machine) = with_mosquitto() else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(folder.path(), "broker");
    let put = |path: &str, from: &Path| machine.write(path, &fs::read(from).expect("openssl made it"));
    put("/etc/mosquitto/certs/ca.pem", &authority.ca);
    put("/etc/mosquitto/certs/broker.pem", &authority.certificate);
    put("/etc/mosquitto/certs/broker.key", &authority.key);
    machine.run(&["chown", "mosquitto:", "/etc/mosquitto/certs/broker.key"]);
    machine.run(&["chmod", "600", "/etc/mosquitto/certs/broker.key"]);
    for identity in ["archive", "monitoring"] {
        let (certificate, key) = authority.sign(identity);
        put(&format!("/srv/{identity}.pem"), &certificate);
        put(&format!("/srv/{identity}.key"), &key);
    }
    let (certificate, key) = authority.sign("landmarkd-clinic-ceph-1");
    put("/etc/landmarkd/ca.pem", &authority.ca);
    put("/etc/landmarkd/client.pem", &certificate);
    put("/etc/landmarkd/credentials/mqtt-client-key", &key);
    machine.write("/etc/landmarkd/credentials/mqtt-password", b"the broker asks for a certificate instead\n");
    machine.write("/etc/landmarkd/credentials/token-key", b"the key of the site");
    machine.run(&["systemd-tmpfiles", "--create", "landmarkd.conf"]);
    machine.write(
        "/etc/landmarkd/conf.d/broker.toml",
        b"[acquisition]\nsettle_ms = 100\n[mqtt]\ntls = true\nca_file = \"/etc/landmarkd/ca.pem\"\n\
          client_cert_file = \"/etc/landmarkd/client.pem\"\nclient_key_file = \"mqtt-client-key\"\n\
          username = \"device\"\npassword_file = \"mqtt-password\"\n[result]\ntoken_key_file = \"token-key\"\n",
    );
    machine.run(&["mkdir", "-p", &format!("/etc/systemd/system/{UNIT}.d")]);
    for (example, place) in [
        ("mosquitto/mosquitto.conf", "/etc/mosquitto/"),
        ("mosquitto/acl", "/etc/mosquitto/"),
        ("landmarkd.service.d/credentials.conf", "/etc/systemd/system/landmarkd.service.d/"),
    ] {
        machine.run(&["cp", &format!("/usr/share/doc/landmarkd/examples/{example}"), place]);
    }
    machine.run(&["systemctl", "daemon-reload"]);
    let mut broker = machine.journal("mosquitto.service");
    let mut journal = machine.journal(UNIT);
    let (mut archive, mut monitoring) = (machine.journal("archive.service"), machine.journal("monitoring.service"));

    machine.run(&["systemctl", "start", "mosquitto.service", UNIT]);
    // The monitoring counts as somebody who has the results, although it hears none: the archive comes first.
    for (identity, heard) in [("archive", &mut archive), ("monitoring", &mut monitoring)] {
        subscribe(&machine, identity);
        heard.until("\"state\":\"online\"");
    }
    machine.film("first.png");
    archive.until("\"sequence\":\"00000000000000000001\"");

    // While the archive is away the broker keeps its results, over a restart too.
    machine.run(&["systemctl", "stop", "archive.service"]);
    machine.film("second.png");
    journal.until("event 2");
    machine.run(&["systemctl", "stop", UNIT]);
    monitoring.until("\"state\":\"offline\"");
    assert!(
        monitoring.position("/info ").is_some() && monitoring.position("/result ").is_none(),
        "{:?}",
        monitoring.heard
    );
    machine.run(&["systemctl", "stop", "monitoring.service"]);
    machine.run(&["systemctl", "restart", "mosquitto.service"]);
    let (_, said) = forge(&machine, Some("monitoring"));
    assert!(said.to_lowercase().contains("not authorized"), "{said}");
    let (is_sent, said) = forge(&machine, None);
    assert!(!is_sent, "{said}");
    broker.until("peer did not return a certificate");
    subscribe(&machine, "archive");
    archive.until("\"sequence\":\"00000000000000000002\"");
}

/// No interface is up, not even the loopback, nobody knows the broker's name, and the clock starts where a board without
/// a battery has it.
#[test]
fn without_network_and_time_the_service_starts_reads_films_and_stops_at_once() {
    // As long as a stop would take that waited for the broker.
    const DRAIN_S: u64 = 20;
    let Some(time) = clock::told([("FAKETIME", "@1970-01-02 00:00:00".into())]) else { return };
    let Some(machine) = Machine::boot() else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let ca = Authority::new(folder.path(), "broker").ca;
    machine.write("/etc/landmarkd/ca.pem", &fs::read(ca).expect("openssl made it"));
    let config = format!(
        "[acquisition]\nsettle_ms = 100\n[daemon]\ndrain_s = {DRAIN_S}\n\
         [mqtt]\nhost = \"broker.invalid\"\ntls = true\nca_file = \"/etc/landmarkd/ca.pem\"\n"
    );
    machine.write("/etc/landmarkd/conf.d/broker.toml", config.as_bytes());
    machine.run(&["sh", "-c", "touch /run/nowhere && unshare --net=/run/nowhere true"]);
    // libfaketime wants to write there.
    machine.run(&["chmod", "1777", "/dev/shm"]);
    let mut service = "NetworkNamespacePath=/run/nowhere\nReadOnlyPaths=\n".to_owned();
    for (name, value) in time {
        service += &format!("Environment=\"{name}={}\"\n", value.display());
    }
    machine.drop_in(&service);
    // Of a unit that has ended well systemd forgets how, unless another one names it.
    let after = format!("--property=After={UNIT}");
    machine.run(&["systemd-run", "--unit=memory", &after, "sleep", "infinity"]);
    let mut journal = machine.journal(UNIT);

    machine.run(&["systemctl", "start", UNIT]);
    journal.once("Started landmarkd");
    journal.once("no connection to the broker at broker.invalid:8883");
    machine.film("first.png");
    journal.until("event 1");
    let began = Instant::now();
    machine.run(&["systemctl", "stop", UNIT]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(DRAIN_S / 2), "{took:?}");
    // 1: it has exited (CLD_EXITED), by no signal.
    for (property, expected) in
        [("Result", "success"), ("ExecMainCode", "1"), ("ExecMainStatus", "0"), ("NRestarts", "0")]
    {
        assert_eq!(machine.show(property), expected, "{property}");
    }
    machine.run(&["landmarkd", "spool", "export", "/srv/spool"]);
    let waiting = machine.run(&["sh", "-c", "cat /srv/spool/*"]);
    assert!(
        waiting.contains("\"sequence\":\"00000000000000000001\"") && waiting.contains("1970-01-02T00:"),
        "{waiting}"
    );
}
