//! One look at the machine, however many of its files hang.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use super::machine::{Board, CpuClock, Gpu, Machine, Memory, Sensor, Source, Temperature};
use super::root::Root;
use super::{board, clocks, gpu, memory, nvml, power, thermal};
use crate::report::ThrottleCause;

/// Far more than a file of the kernel needs; a sensor behind a stuck bus, or a driver that is going down, takes minutes.
const LIMIT: Duration = Duration::from_secs(2);

/// Looks at the machine again and again.
///
/// The reads happen on a thread of its own, one source after another. One that takes longer than the limit keeps that
/// thread, another takes over for the other sources, and the source is not asked again before it has answered: there is
/// never more than one thread a source, however long the machine hangs.
pub struct Prober {
    root: Root,
    limit: Duration,
    reader: Option<Reader>,
    hung: BTreeMap<Source, Reader>,
    over_current_events: Option<u64>,
}

/// A thread that reads what it is asked for; it ends with this.
struct Reader {
    asked: Sender<Source>,
    answers: Receiver<Reading>,
}

/// What one source tells.
enum Reading {
    Board(Board),
    Memory(Option<Memory>),
    Clocks(Option<CpuClock>),
    Gpu(Option<Gpu>),
    Thermal((Vec<Temperature>, BTreeSet<ThrottleCause>)),
    Power(power::Reading),
    Nvml(nvml::Reading),
}

impl Prober {
    /// Looks at the tree of `root`.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root, limit: LIMIT, reader: None, hung: BTreeMap::new(), over_current_events: None }
    }

    /// The same with another time limit for each source.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// How long a source may take.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// The machine now. It takes milliseconds, and where sources hang at most the limit for each that did not before.
    pub fn look(&mut self) -> Machine {
        let mut machine = Machine::default();
        let mut from_nvml = nvml::Reading::default();
        for &source in Source::ALL {
            match self.ask(source) {
                Some(Reading::Board(board)) => machine.board = board,
                Some(Reading::Memory(memory)) => machine.memory = memory,
                Some(Reading::Clocks(cpu)) => machine.cpu = cpu,
                Some(Reading::Gpu(gpu)) => machine.gpus.extend(gpu),
                Some(Reading::Thermal((temperatures, causes))) => {
                    machine.temperatures = temperatures;
                    machine.throttled_by.extend(causes);
                }
                Some(Reading::Power(power)) => self.power(&mut machine, power),
                Some(Reading::Nvml(reading)) => from_nvml = reading,
                None => drop(machine.silent.insert(source)),
            }
        }
        add_nvml(&mut machine, from_nvml);
        machine
    }

    fn power(&mut self, machine: &mut Machine, power: power::Reading) {
        let power::Reading { rails, alarm, over_current_events } = power;
        // What was counted before the first look is history.
        let grew = over_current_events.zip(self.over_current_events).is_some_and(|(now, before)| now > before);
        if alarm || grew {
            machine.throttled_by.insert(ThrottleCause::OverCurrent);
        }
        self.over_current_events = over_current_events.or(self.over_current_events);
        machine.over_current_events = over_current_events;
        machine.power = rails;
    }

    /// What a source tells, or nothing where it does not answer in time.
    fn ask(&mut self, source: Source) -> Option<Reading> {
        if let Some(reader) = self.hung.remove(&source) {
            match reader.answers.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.hung.insert(source, reader);
                    return None;
                }
                // Its answer is of a moment long past. It goes on: what it has opened answers faster the next time.
                Ok(_) => self.reader = Some(reader),
                Err(TryRecvError::Disconnected) => {}
            }
        }
        if self.reader.is_none() {
            self.reader = Reader::start(&self.root);
        }
        let reader = self.reader.take()?;
        // A reader that is gone shows as one that does not answer.
        let _asked = reader.asked.send(source);
        match reader.answers.recv_timeout(self.limit) {
            Ok(reading) => {
                self.reader = Some(reader);
                Some(reading)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.hung.insert(source, reader);
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
}

impl Reader {
    fn start(root: &Root) -> Option<Self> {
        let (asked, questions) = channel();
        let (sender, answers) = channel();
        let root = root.clone();
        let reads = move || {
            let mut library = nvml::Library::default();
            while let Ok(source) = questions.recv() {
                if sender.send(read(&root, &mut library, source)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("telemetry-read".into()).spawn(reads).ok()?;
        Some(Self { asked, answers })
    }
}

fn read(root: &Root, library: &mut nvml::Library, source: Source) -> Reading {
    match source {
        Source::Board => Reading::Board(board::read(root)),
        Source::Memory => Reading::Memory(memory::read(root)),
        Source::Clocks => Reading::Clocks(clocks::read(root)),
        Source::Gpu => Reading::Gpu(gpu::read(root)),
        Source::Thermal => Reading::Thermal(thermal::read(root)),
        Source::Power => Reading::Power(power::read(root)),
        Source::Nvml => Reading::Nvml(library.read(root)),
    }
}

/// Adds what only NVML knows: the files know better where both speak.
fn add_nvml(machine: &mut Machine, reading: nvml::Reading) {
    let nvml::Reading { gpus, driver, causes } = reading;
    machine.board.driver = machine.board.driver.take().or(driver);
    machine.throttled_by.extend(causes);
    let mut gpus = gpus.into_iter();
    // The GPU on the chip comes first in both.
    if let Some(own) = machine.gpus.first_mut() {
        let Gpu {
            name,
            busy_percent,
            clock_hz,
            clock_limit_hz,
            clock_top_hz,
            temperature_c,
            memory_used_bytes,
            power_mw,
        } = gpus.next().unwrap_or_default();
        own.name = own.name.take().or(name);
        own.busy_percent = own.busy_percent.or(busy_percent);
        own.clock_hz = own.clock_hz.or(clock_hz);
        own.clock_limit_hz = own.clock_limit_hz.or(clock_limit_hz);
        own.clock_top_hz = own.clock_top_hz.or(clock_top_hz);
        own.temperature_c = own.temperature_c.or(temperature_c);
        own.memory_used_bytes = own.memory_used_bytes.or(memory_used_bytes);
        own.power_mw = own.power_mw.or(power_mw);
    }
    machine.gpus.extend(gpus);
    let from_zone = machine.temperature(Sensor::Gpu).map(|found| found.celsius);
    if let Some(first) = machine.gpus.first_mut() {
        first.temperature_c = first.temperature_c.or(from_zone);
    }
}
