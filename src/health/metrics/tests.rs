use std::io::Write;
use std::process::{Command, Stdio};

use super::super::exposition::tests::parse;
use super::super::view::StageView;
use super::super::view::tests::quiet;
use super::*;
use crate::report::ThrottleCause;
use crate::telemetry::{Board, CpuClock, Gpu, Machine, Memory, Power, Rail, Sensor, Source, Temperature};

/// A board that is too hot.
pub(in super::super) fn machine() -> Machine {
    Machine {
        board: Board {
            model: Some("NVIDIA Jetson Orin NX Engineering Reference Developer Kit".to_owned()),
            l4t: Some("36.4.3".to_owned()),
            jetpack: Some("6.2"),
            power_mode: Some("15W".to_owned()),
            ..Board::default()
        },
        memory: Some(Memory { total_bytes: 8192, available_bytes: 4096 }),
        cpu: Some(CpuClock { limit_hz: 1_500_000_000, top_hz: 2_000_000_000 }),
        gpus: vec![Gpu {
            busy_percent: Some(50.0),
            clock_hz: Some(306_000_000),
            clock_limit_hz: Some(612_000_000),
            temperature_c: Some(51.5),
            ..Gpu::default()
        }],
        temperatures: vec![
            Temperature { sensor: Sensor::Gpu, celsius: 51.5, throttles_at_c: None },
            Temperature { sensor: Sensor::Junction, celsius: 99.5, throttles_at_c: Some(99.0) },
        ],
        power: vec![Power { rail: Rail::VddIn, milliwatts: 14_250 }],
        throttled_by: [ThrottleCause::CpuHeat].into(),
        over_current_events: Some(3),
        silent: [Source::Nvml].into(),
    }
}

/// Every kind of number, told at least once.
fn busy() -> (Metrics, StatusView) {
    let metrics = Metrics::default();
    let machine = Some(machine());
    let view = StatusView { troubles: [Trouble::BrokerAway].into(), machine, pausing: true, ..quiet() };
    metrics.films[FilmEnd::Accepted].add();
    metrics.films[FilmEnd::Accepted].add();
    metrics.films[FilmEnd::Crash].add();
    metrics.films[FilmEnd::TooLarge].add();
    metrics.pubacks[Code::of(135)].add();
    metrics.connections[Connection::Lost].add();
    metrics.faults[FaultCause::Store].add();
    metrics.events_queued[Event::Result].add();
    for ms in [1, 1, 700, 61_000] {
        metrics.steps[Step::Inference].observe(Duration::from_millis(ms));
    }
    metrics.queue_is(3, Some(view.time - Duration::from_secs(90)));
    metrics.throttle_pauses.add();
    metrics.throttle_pause.add(Duration::from_millis(2500));
    metrics.canary_px.set(0.03);
    metrics.starts.set(7.0);
    (metrics, view)
}

#[test]
fn the_text_reads_back_as_what_was_counted() {
    let (metrics, view) = busy();
    let process = Process { resident_bytes: Some(1 << 28), open_files: Some(19), written_bytes: None };
    let read = parse(&metrics.text(&view, &process));
    for (series, expected) in [
        ("landmarkd_films_total[outcome=accepted,reason=accepted]", 2.0),
        ("landmarkd_films_total[outcome=quarantined,reason=crash]", 1.0),
        ("landmarkd_films_total[outcome=refused,reason=incomplete]", 0.0),
        ("landmarkd_pubacks_total[code=135,reason=not_authorized]", 1.0),
        ("landmarkd_broker_connections_total[event=lost]", 1.0),
        ("landmarkd_faults_total[cause=store]", 1.0),
        ("landmarkd_events_queued_total[kind=result]", 1.0),
        ("landmarkd_film_step_seconds_bucket[step=inference,le=0.001]", 2.0),
        ("landmarkd_film_step_seconds_bucket[step=inference,le=0.5]", 2.0),
        ("landmarkd_film_step_seconds_bucket[step=inference,le=1]", 3.0),
        ("landmarkd_film_step_seconds_bucket[step=inference,le=60]", 3.0),
        ("landmarkd_film_step_seconds_bucket[step=inference,le=+Inf]", 4.0),
        ("landmarkd_film_step_seconds_count[step=inference]", 4.0),
        ("landmarkd_film_step_seconds_sum[step=inference]", 61.702),
        ("landmarkd_film_step_seconds_count[step=publish]", 0.0),
        ("landmarkd_outbox_length[]", 3.0),
        ("landmarkd_outbox_oldest_age_seconds[]", 90.0),
        ("landmarkd_temperature_celsius[sensor=gpu]", 51.5),
        ("landmarkd_temperature_celsius[sensor=junction]", 99.5),
        ("landmarkd_throttle_temperature_celsius[sensor=junction]", 99.0),
        ("landmarkd_power_watts[rail=vdd_in]", 14.25),
        ("landmarkd_throttled[cause=cpu_heat]", 1.0),
        ("landmarkd_throttled[cause=over_current]", 0.0),
        ("landmarkd_telemetry_silent[source=nvml]", 1.0),
        ("landmarkd_telemetry_silent[source=thermal]", 0.0),
        ("landmarkd_over_current_events_total[]", 3.0),
        ("landmarkd_cpu_clock_limit_hertz[]", 1.5e9),
        ("landmarkd_memory_available_bytes[]", 4096.0),
        ("landmarkd_gpu_busy_ratio[gpu=0]", 0.5),
        ("landmarkd_gpu_clock_limit_hertz[gpu=0]", 6.12e8),
        ("landmarkd_throttle_pauses_total[]", 1.0),
        ("landmarkd_throttle_pause_seconds_total[]", 2.5),
        ("landmarkd_throttle_pausing[]", 1.0),
        ("landmarkd_degraded[reason=throttled]", 0.0),
        ("landmarkd_canary_error_pixels[]", 0.03),
        ("landmarkd_starts_total[]", 7.0),
        ("landmarkd_ready[]", 1.0),
        ("landmarkd_healthy[]", 1.0),
        ("landmarkd_degraded[reason=broker_away]", 1.0),
        ("landmarkd_degraded[reason=safe_mode]", 0.0),
        ("landmarkd_folder[state=watching]", 1.0),
        ("landmarkd_folder[state=missing]", 0.0),
        ("landmarkd_stage_busy_seconds[stage=worker]", 0.0),
        ("landmarkd_resident_memory_bytes[]", 268_435_456.0),
    ] {
        let found = read.get(series).unwrap_or_else(|| panic!("{series} in {read:#?}"));
        assert!((found - expected).abs() < 1e-9, "{series} {found}");
    }
    assert!(read.keys().any(|series| series.starts_with("landmarkd_build_info[version=")));
}

#[test]
fn what_nobody_knows_is_left_out() {
    let text = Metrics::default().text(&quiet(), &Process::default());
    for name in [
        "gpu_",
        "cpu_",
        "memory_",
        "power",
        "throttled",
        "telemetry",
        "temperature",
        "state_free",
        "canary_error",
        "outbox_",
        "starts",
        "resident",
        "written",
    ] {
        assert!(!text.contains(&format!("landmarkd_{name}")), "{name} in {text}");
    }
    assert!(!text.contains("NaN"), "{text}");
    let metrics = Metrics::default();
    metrics.canary_px.set(0.5);
    metrics.canary_px.forget();
    assert!(!metrics.text(&quiet(), &Process::default()).contains("canary_error"));
    let view = StatusView { machine: Some(Machine::default()), ..quiet() };
    let text = metrics.text(&view, &Process::default());
    for name in ["gpu_", "cpu_", "memory_", "power", "temperature", "over_current"] {
        assert!(!text.contains(&format!("landmarkd_{name}")), "{name} in {text}");
    }
}

#[test]
fn an_empty_queue_has_no_age() {
    let metrics = Metrics::default();
    metrics.queue_is(3, Some(SystemTime::UNIX_EPOCH));
    metrics.queue_is(0, None);
    let read = parse(&metrics.text(&quiet(), &Process::default()));
    assert_eq!(read["landmarkd_outbox_length[]"], 0.0);
    assert_eq!(read["landmarkd_outbox_oldest_age_seconds[]"], 0.0);
    assert_eq!(metrics.queue(), QueueView { length: 0, oldest: None });
}

#[test]
fn an_event_from_the_future_has_the_age_of_a_new_one() {
    let metrics = Metrics::default();
    let view = quiet();
    metrics.queue_is(1, Some(view.time + Duration::from_secs(1000)));
    assert_eq!(parse(&metrics.text(&view, &Process::default()))["landmarkd_outbox_oldest_age_seconds[]"], 0.0);
    metrics.queue_is(1, Some(SystemTime::UNIX_EPOCH - Duration::from_secs(9)));
    assert_eq!(metrics.queue().oldest, Some(SystemTime::UNIX_EPOCH));
}

#[test]
fn the_page_counts_films_by_outcome() {
    let (metrics, _) = busy();
    assert_eq!(metrics.counts(), Counts { accepted: 2, refused: 1, quarantined: 1 });
}

#[test]
fn threads_lose_no_count() {
    let metrics = Metrics::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    metrics.http_requests.add();
                    metrics.steps[Step::Commit].observe(Duration::from_millis(2));
                }
            });
        }
    });
    let read = parse(&metrics.text(&quiet(), &Process::default()));
    assert_eq!(read["landmarkd_http_requests_total[]"], 40_000.0);
    assert_eq!(read["landmarkd_film_step_seconds_count[step=commit]"], 40_000.0);
    assert!((read["landmarkd_film_step_seconds_sum[step=commit]"] - 80.0).abs() < 1e-9);
}

#[test]
fn every_label_is_of_a_closed_set() {
    let (metrics, mut view) = busy();
    // What a person configures or a driver says must not get in, whatever it is.
    view.site = "SECRET".to_owned();
    view.device = "SECRET".to_owned();
    let machine = view.machine.as_mut().expect("there");
    machine.gpus[0].name = Some("SECRET".to_owned());
    machine.board =
        Board { model: Some("SECRET".to_owned()), power_mode: Some("SECRET".to_owned()), ..Board::default() };
    view.stages.push(StageView { stage: Stage::Store, busy_for: None, budget: Duration::ZERO });
    let text = metrics.text(&view, &Process::now());
    assert!(!text.contains("SECRET"), "{text}");
}

/// Skipped, in words, where Prometheus' own checker is not installed.
#[test]
fn prometheus_own_checker_finds_nothing_to_complain_of() {
    let (metrics, view) = busy();
    let text = metrics.text(&view, &Process::now());
    let promtool = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let started = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut checker) = started else { return println!("skipped: promtool is not installed") };
    let mut input = checker.stdin.take().expect("it was asked for");
    input.write_all(text.as_bytes()).expect("the checker reads");
    drop(input);
    let said = checker.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.is_empty(), "{words}\n{text}");
    println!("promtool agrees with {} lines", text.lines().count());
}
