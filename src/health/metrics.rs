//! The daemon's numbers: counted where things happen, without locks, and written out for Prometheus on request.

use std::marker::PhantomData;
use std::ops::Index;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use super::exposition::{Exposition, Kind, Sample, number};
use super::labels::{
    AcceleratorFault, AcceleratorWord, Code, Connection, Event, FaultCause, FilmEnd, FolderWord, Label, Stage, Step,
};
use super::process::Process;
use super::trouble::Trouble;
use super::view::{Counts, QueueView, StatusView};

/// Upper bounds of a histogram's buckets, in seconds: from a commit on a fast disk to a film on a slow machine.
const BOUNDS_S: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How often it was counted since the start.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down, or is not known.
#[derive(Debug)]
pub struct Gauge(AtomicU64);

impl Default for Gauge {
    fn default() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }
}

impl Gauge {
    /// It is this now.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Nobody knows it any more; it is left out of the text.
    pub fn forget(&self) {
        self.set(f64::NAN);
    }

    /// What it is, where that is known.
    #[must_use]
    pub fn get(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.load(Relaxed))).filter(|value| !value.is_nan())
    }
}

/// A time that only grows.
#[derive(Debug, Default)]
pub struct Stopwatch {
    ns: AtomicU64,
}

impl Stopwatch {
    /// So much more.
    pub fn add(&self, duration: Duration) {
        self.ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The time since the start.
    fn seconds(&self) -> f64 {
        self.ns.load(Relaxed) as f64 / 1e9
    }
}

/// Durations, counted by their length.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each of the bounds, and one for what is longer.
    counts: [AtomicU64; BOUNDS_S.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// One more duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS_S.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS_S.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// One `T` for every member of the set `L`.
#[derive(Debug)]
pub struct Of<L, T> {
    values: Vec<T>,
    set: PhantomData<L>,
}

impl<L: Label, T: Default> Default for Of<L, T> {
    fn default() -> Self {
        Self { values: L::ALL.iter().map(|_| T::default()).collect(), set: PhantomData }
    }
}

impl<L: Label, T> Index<L> for Of<L, T> {
    type Output = T;

    fn index(&self, member: L) -> &T {
        &self.values[member.index()]
    }
}

#[expect(private_bounds, reason = "which sets there are is decided in this room")]
impl<L: Label, T> Of<L, T> {
    fn each(&self) -> impl Iterator<Item = (L, &T)> {
        std::iter::zip(L::ALL.iter().copied(), &self.values)
    }
}

/// Every number of the daemon. One for all parties, in an `Arc`.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Films by how their way ended.
    pub films: Of<FilmEnd, Counter>,
    /// How long a film's steps took.
    pub steps: Of<Step, Histogram>,
    /// Events that entered the outbox.
    pub events_queued: Of<Event, Counter>,
    /// Events that left the outbox because a subscriber's broker has them.
    pub events_published: Of<Event, Counter>,
    /// What the broker said to publications.
    pub pubacks: Of<Code, Counter>,
    /// What became of connections to the broker.
    pub connections: Of<Connection, Counter>,
    /// 1 while the broker has accepted us.
    pub broker_connected: Gauge,
    /// Events that wait for the broker; see [`queue_is`](Self::queue_is).
    outbox_length: Gauge,
    /// When the oldest of them was produced, in seconds since 1970.
    outbox_oldest_s: Gauge,
    /// Lasting faults by cause (R15).
    pub faults: Of<FaultCause, Counter>,
    /// Why the GPU does not compute, each time it was tried.
    pub accelerator_faults: Of<AcceleratorFault, Counter>,
    /// Free bytes of the state directory's file system.
    pub state_free_bytes: Gauge,
    /// Pauses before a film of the backlog while the machine throttled.
    pub throttle_pauses: Counter,
    /// The time they took.
    pub throttle_pause: Stopwatch,
    /// The number of this start of the state directory's daemon, from 1.
    pub starts: Gauge,
    /// How many of the recent starts followed no clean stop.
    pub unclean_starts: Gauge,
    /// How far the golden film's landmarks were off when it was last tried, in source pixels.
    pub canary_px: Gauge,
    /// Requests answered by this server, refusals included.
    pub http_requests: Counter,
}

impl Metrics {
    /// The outbox holds `length` events now; the oldest was produced at `oldest`.
    pub fn queue_is(&self, length: u64, oldest: Option<SystemTime>) {
        self.outbox_length.set(length as f64);
        match oldest {
            Some(time) => self.outbox_oldest_s.set(unix_s(time)),
            None => self.outbox_oldest_s.forget(),
        }
    }

    /// The outbox as it was last told.
    #[must_use]
    pub fn queue(&self) -> QueueView {
        let oldest = self.outbox_oldest_s.get().map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(s));
        QueueView { length: self.outbox_length.get().unwrap_or(0.0) as u64, oldest }
    }

    /// What became of the films of this run.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (end, counter) in self.films.each() {
            match end.pairs()[0].1 {
                "accepted" => counts.accepted += counter.get(),
                "refused" => counts.refused += counter.get(),
                _ => counts.quarantined += counter.get(),
            }
        }
        counts
    }

    /// All of it in Prometheus' text form, with what `view` and `process` tell at this moment.
    #[must_use]
    pub(super) fn text(&self, view: &StatusView, process: &Process) -> String {
        let mut to = Families(Exposition::default());
        to.one("build_info", "Always 1; the labels say what runs.", &BUILD, Some(1.0));
        to.counters("films_total", "Films by how their way ended.", &self.films);
        to.histograms("film_step_seconds", "Time that a step of a film's way took.", &self.steps);
        to.counters("events_queued_total", "Events that entered the outbox.", &self.events_queued);
        to.counters(
            "events_published_total",
            "Events that were delivered and left the outbox.",
            &self.events_published,
        );
        to.counters("pubacks_total", "Acknowledgements of the broker by MQTT reason code.", &self.pubacks);
        to.counters("broker_connections_total", "What became of connections to the broker.", &self.connections);
        to.gauge("broker_connected", "1 while the broker has accepted us.", &self.broker_connected);
        to.gauge("outbox_length", "Events that wait for the broker.", &self.outbox_length);
        let age = self.outbox_oldest_s.get().map(|oldest| (unix_s(view.time) - oldest).max(0.0));
        let age = age.or_else(|| self.outbox_length.get().map(|_| 0.0));
        to.one("outbox_oldest_age_seconds", "Age of the oldest event that waits; 0 when none does.", &[], age);
        to.counters("faults_total", "Lasting faults, counted each time; the journal tells them seldom.", &self.faults);
        let help = "Why the GPU does not compute, counted each time it was tried or given up.";
        to.counters("accelerator_faults_total", help, &self.accelerator_faults);
        to.gauge("state_free_bytes", "Free space of the state directory's file system.", &self.state_free_bytes);
        let help = "Pauses before a film of the backlog while the machine slowed itself down.";
        to.counter("throttle_pauses_total", help, &self.throttle_pauses);
        let paused_s = Some(self.throttle_pause.seconds());
        to.number("throttle_pause_seconds_total", Kind::Counter, "Time that these pauses took.", paused_s);
        let starts = self.starts.get();
        to.number("starts_total", Kind::Counter, "Starts with this state directory.", starts);
        to.gauge("unclean_starts", "Recent starts that followed no clean stop.", &self.unclean_starts);
        to.gauge("canary_error_pixels", "How far off the golden film was when last tried.", &self.canary_px);
        to.counter("http_requests_total", "Requests to this server.", &self.http_requests);
        to.view(view);
        to.process(process);
        to.0.into_text()
    }
}

const BUILD: [(&str, &str); 2] = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];

/// Seconds since 1970; a clock before that counts as 1970.
fn unix_s(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

struct Families(Exposition);

impl Families {
    fn add<'a>(&mut self, name: &str, kind: Kind, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) {
        self.0.family(&format!("landmarkd_{name}"), kind, help, samples);
    }

    fn one(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: Option<f64>) {
        let sample = value.map(|value| Sample { suffix: "", labels: labels.to_vec(), value });
        self.add(name, Kind::Gauge, help, sample);
    }

    fn number(&mut self, name: &str, kind: Kind, help: &str, value: Option<f64>) {
        self.add(name, kind, help, value.map(|value| Sample { suffix: "", labels: vec![], value }));
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.number(name, Kind::Counter, help, Some(counter.get() as f64));
    }

    fn gauge(&mut self, name: &str, help: &str, gauge: &Gauge) {
        self.number(name, Kind::Gauge, help, gauge.get());
    }

    fn counters<L: Label>(&mut self, name: &str, help: &str, counters: &Of<L, Counter>) {
        let values = counters.each().map(|(member, counter)| (member, counter.get() as f64));
        self.members(name, Kind::Counter, help, values);
    }

    fn members<L: Label>(&mut self, name: &str, kind: Kind, help: &str, values: impl Iterator<Item = (L, f64)>) {
        let samples = values.map(|(member, value)| Sample { suffix: "", labels: member.pairs().to_vec(), value });
        self.add(name, kind, help, samples);
    }

    fn histograms<L: Label>(&mut self, name: &str, help: &str, histograms: &Of<L, Histogram>) {
        let bounds: Vec<String> = BOUNDS_S.into_iter().chain([f64::INFINITY]).map(number).collect();
        let mut samples = Vec::new();
        for (member, Histogram { counts, sum_ns }) in histograms.each() {
            let labels = member.pairs().to_vec();
            let mut total = 0;
            for (bound, count) in std::iter::zip(&bounds, counts) {
                total += count.load(Relaxed);
                let labels = [labels.as_slice(), &[("le", bound.as_str())]].concat();
                samples.push(Sample { suffix: "_bucket", labels, value: total as f64 });
            }
            let sum_s = sum_ns.load(Relaxed) as f64 / 1e9;
            samples.push(Sample { suffix: "_sum", labels: labels.clone(), value: sum_s });
            samples.push(Sample { suffix: "_count", labels, value: total as f64 });
        }
        self.add(name, Kind::Histogram, help, samples);
    }

    fn view(&mut self, view: &StatusView) {
        let flag = |set: bool| f64::from(u8::from(set));
        self.number("ready", Kind::Gauge, "1 while films can be taken.", Some(flag(view.is_ready())));
        self.number("healthy", Kind::Gauge, "1 while no stage hangs.", Some(flag(view.is_healthy())));
        let troubles = Trouble::ALL.iter().map(|&trouble| (trouble, flag(view.troubles.contains(&trouble))));
        self.members("degraded", Kind::Gauge, "1 for what keeps films or results waiting.", troubles);
        let folder = FolderWord::ALL.iter().map(|&word| (word, flag(view.folder == word)));
        self.members("folder", Kind::Gauge, "1 for what is known of the acquisition folder.", folder);
        let help = "1 while the backlog waits because the machine slows itself down.";
        self.number("throttle_pausing", Kind::Gauge, help, Some(flag(view.pausing)));
        if let Some(machine) = &view.machine {
            self.machine(machine);
        }
        if let Some(now) = view.model.as_ref().and_then(|model| model.accelerator.as_ref()) {
            let words = AcceleratorWord::ALL.iter().map(|&word| (word, flag(now.state == word)));
            self.members("accelerator", Kind::Gauge, "1 for what is with the GPU.", words);
        }
        let busy = |stage: Stage| view.stages.iter().find(|known| known.stage == stage).map(|known| known.busy_for);
        let stages =
            Stage::ALL.iter().filter_map(|&stage| Some((stage, busy(stage)?.unwrap_or_default().as_secs_f64())));
        self.members("stage_busy_seconds", Kind::Gauge, "How long a stage has been at one thing; 0 when idle.", stages);
    }

    fn process(&mut self, process: &Process) {
        let Process { resident_bytes, open_files, written_bytes } = *process;
        let value = |number: Option<u64>| number.map(|number| number as f64);
        self.number("resident_memory_bytes", Kind::Gauge, "Memory of this process.", value(resident_bytes));
        self.number("open_files", Kind::Gauge, "Open file descriptors of this process.", value(open_files));
        let help = "Bytes that this process had written to disks.";
        self.number("written_bytes_total", Kind::Counter, help, value(written_bytes));
    }
}

mod machine;
#[cfg(test)]
pub(super) mod tests;
