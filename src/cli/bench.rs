//! `landmarkd bench`: how long each step of a film's way takes, and how much memory.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::film_files::{MAX_FILE_BYTES, read_film};
use super::film_variant::variant;
use super::predict::model_directory;
use super::session::Session;
use super::{Exit, Failure, logging};
use crate::report::Timing;

/// The arguments of `bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The model bundle [default: models/ceph19-nfdp here, beside the program or below /usr/share/landmarkd]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// How often each step is measured
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// The film
    file: PathBuf,
}

/// What was measured. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// From the file's bytes to gray values.
    pub decode_ms: Percentiles,
    /// From gray values to the network's input.
    pub frame_ms: Percentiles,
    /// The network.
    pub inference_ms: Percentiles,
    /// From the closed file in the folder to the broker's PUBACK, without a time to settle: all of the above and the
    /// way through the ledger and the outbox.
    pub publish_ms: Percentiles,
    /// Of each film, `publish_ms` without `inference_ms`.
    pub around_inference_ms: Percentiles,
    /// The most memory that this process ever held (VmHWM): the daemon with its network, the embedded broker, the film.
    pub peak_rss_bytes: u64,
}

/// The middle and the tail of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of the values are not above it.
    pub p50: f64,
    /// 95 % of the values are not above it.
    pub p95: f64,
}

impl Percentiles {
    /// By the nearest rank: the smallest value such that the share of values not above it is at least 50 or 95 %.
    ///
    /// # Panics
    /// Without values.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "percentiles of nothing");
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
        Self { p50: rank(50), p95: rank(95) }
    }
}

/// Measures and prints.
///
/// # Errors
/// When the film or the model is not there or bad, or the daemon does not run.
pub fn bench(arguments: &Arguments) -> Result<(), Failure> {
    logging::start(&logging::for_people());
    let measured = measure(arguments)?;
    let mut out = io::stdout().lock();
    if arguments.json {
        let text = serde_json::to_string(&measured).map_err(|e| Failure::new(Exit::Bug, e))?;
        writeln!(out, "{text}")?;
    } else {
        out.write_all(table(&measured, arguments.runs).as_bytes())?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<Measured, Failure> {
    let Arguments { model, runs, file, .. } = arguments;
    let film =
        read_film(file, MAX_FILE_BYTES).map_err(|e| Failure::new(Exit::NoInput, format!("{}: {e}", file.display())))?;
    let model = model_directory(model.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rounds = runtime.block_on(time_rounds(model, *runs, &film))?;
    let step = |of: fn(&Round) -> f64| Percentiles::of(&rounds.iter().map(of).collect::<Vec<_>>());
    Ok(Measured {
        decode_ms: step(|round| round.timing.decode_ms),
        frame_ms: step(|round| round.timing.frame_ms),
        inference_ms: step(|round| round.timing.inference_ms),
        publish_ms: step(|round| round.publish_ms),
        around_inference_ms: step(|round| round.publish_ms - round.timing.inference_ms),
        peak_rss_bytes: peak_rss()?,
    })
}

/// One film's way.
struct Round {
    /// The steps, as its result tells them.
    timing: Timing,
    /// File closed to PUBACK.
    publish_ms: f64,
}

/// Films one by one through the real daemon; the first warms up and does not count. Every round has bytes of its own,
/// since the same bytes are published once only (R7).
async fn time_rounds(model: PathBuf, runs: u16, film: &[u8]) -> Result<Vec<Round>, Failure> {
    let mut session = Session::start(model, Duration::ZERO).await?;
    let mut rounds = Vec::new();
    for run in 0..=runs {
        let Some(bytes) = variant(film, u32::from(run)) else {
            return Err(Failure::new(Exit::BadInput, "the film's format leaves no room to tell one run from another"));
        };
        let closed = session.drop_film(&format!("film-{run}"), &bytes)?;
        let delivery = session.next_event().await?;
        if run > 0 {
            let publish_ms = delivery.acknowledged.saturating_duration_since(closed).as_secs_f64() * 1e3;
            rounds.push(Round { timing: timing_of(&delivery.payload)?, publish_ms });
        }
    }
    session.stop().await?;
    Ok(rounds)
}

/// `data.timing` of a result.
fn timing_of(event: &[u8]) -> Result<Timing, Failure> {
    let bug = |e: serde_json::Error| Failure::new(Exit::Bug, format!("the result's timing: {e}"));
    let event: serde_json::Value = serde_json::from_slice(event).map_err(bug)?;
    serde_json::from_value(event["data"]["timing"].clone()).map_err(bug)
}

fn table(measured: &Measured, runs: u16) -> String {
    let Measured { decode_ms, frame_ms, inference_ms, publish_ms, around_inference_ms, peak_rss_bytes } = measured;
    let mut text = format!("{:<12}{:>10}{:>10}\n", "step", "p50 ms", "p95 ms");
    for (name, step) in [
        ("decode", decode_ms),
        ("frame", frame_ms),
        ("inference", inference_ms),
        ("publish", publish_ms),
        ("around", around_inference_ms),
    ] {
        text.push_str(&format!("{name:<12}{:>10.1}{:>10.1}\n", step.p50, step.p95));
    }
    let mib = *peak_rss_bytes as f64 / f64::from(1 << 20);
    text.push_str(&format!(
        "{runs} runs each; publish is the whole way, file closed to PUBACK, around is all of it but inference; peak memory {mib:.0} MiB\n"
    ));
    text
}

/// The most memory that this process ever held, in bytes.
pub(super) fn peak_rss() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    high_water(&status).ok_or_else(|| Failure::new(Exit::Bug, "no VmHWM in /proc/self/status"))
}

/// VmHWM of a `/proc/<pid>/status` (proc_pid_status(5): in units of 1024 bytes).
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        // Of 20 values the 10th and the 19th; of 5 the 3rd and the 5th; of 1 the only one.
        let twenty: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(Percentiles::of(&twenty), Percentiles { p50: 10.0, p95: 19.0 });
        assert_eq!(Percentiles::of(&[15.0, 20.0, 35.0, 40.0, 50.0]), Percentiles { p50: 35.0, p95: 50.0 });
        assert_eq!(Percentiles::of(&[7.0]), Percentiles { p50: 7.0, p95: 7.0 });
    }

    #[test]
    fn the_high_water_mark_is_read_in_bytes() {
        assert_eq!(high_water("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  1024 kB\nVmRSS:\t 3 kB\n"), Some(1 << 20));
        assert_eq!(high_water("Name:\tx\n"), None);
        assert!(peak_rss().expect("this runs on Linux") > 1 << 20);
    }

    #[test]
    fn both_forms_of_output_are_pinned() {
        let p = |p50, p95| Percentiles { p50, p95 };
        let measured = Measured {
            decode_ms: p(31.25, 33.0),
            frame_ms: p(8.0, 8.5),
            inference_ms: p(402.0, 410.0),
            publish_ms: p(450.0, 470.0),
            around_inference_ms: p(46.0, 49.0),
            peak_rss_bytes: 209_715_200,
        };
        assert_eq!(
            serde_json::to_string(&measured).expect("plain data"),
            r#"{"decode_ms":{"p50":31.25,"p95":33.0},"frame_ms":{"p50":8.0,"p95":8.5},"inference_ms":{"p50":402.0,"p95":410.0},"publish_ms":{"p50":450.0,"p95":470.0},"around_inference_ms":{"p50":46.0,"p95":49.0},"peak_rss_bytes":209715200}"#
        );
        assert_eq!(
            table(&measured, 20),
            "\
step            p50 ms    p95 ms
decode            31.2      33.0
frame              8.0       8.5
inference        402.0     410.0
publish          450.0     470.0
around            46.0      49.0
20 runs each; publish is the whole way, file closed to PUBACK, around is all of it but inference; peak memory 200 MiB
"
        );
    }
}
