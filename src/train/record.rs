//! What a run leaves for people: `metrics.csv`, TensorBoard's event files, and lines on the terminal.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::event_file::EventFile;
use super::metrics::Summary;
use super::report::replace_file;

/// The file that holds a line an epoch.
pub const METRICS_FILE: &str = "metrics.csv";
const HEADING: &str = "epoch,lr,loss,films_per_s,elapsed_s,val_mre,val_unit,val_sdr_percent,val_smape_percent";

/// One epoch's figures.
#[derive(Clone, Debug)]
pub struct EpochRecord<'a> {
    /// From 0.
    pub epoch: usize,
    /// Optimiser steps since the run's start.
    pub steps: usize,
    /// Learning rate.
    pub lr: f64,
    /// Mean over the films.
    pub loss: f64,
    /// Trained films a second, in this process.
    pub films_per_s: f64,
    /// Since this process started.
    pub elapsed_s: f64,
    /// Where it was validated.
    pub validation: Option<&'a Summary>,
}

/// The open record of a run.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    events: EventFile,
    epochs: usize,
    bar: ProgressBar,
}

impl Record {
    /// Goes on behind epoch `done` (steps: `steps`) of `epochs`; what was written of later ones is taken out.
    ///
    /// # Errors
    /// When the folder or disk refuses.
    pub fn open(folder: &Path, done: usize, steps: usize, epochs: usize, steps_left: usize) -> io::Result<Self> {
        let path = folder.join(METRICS_FILE);
        let old = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        replace_file(&path, &kept(&old, done)).map_err(io::Error::other)?;
        let events = EventFile::start(folder, steps)?;
        Ok(Self { path, events, epochs, bar: progress(steps_left as u64) })
    }

    /// One step was made.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// Adds an epoch to all records.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn epoch(&mut self, record: &EpochRecord<'_>) -> io::Result<()> {
        let EpochRecord { epoch, steps, lr, loss, films_per_s, elapsed_s, validation } = record;
        let measured = validation.map_or_else(
            || ",,,".to_owned(),
            |s| {
                let smape = s.smape_percent.map_or_else(String::new, |smape| format!("{smape:.4}"));
                let sdr = s.sdr_percent.first().map_or(f64::NAN, |&(_, percent)| percent);
                format!("{:.4},{},{sdr:.2},{smape}", s.mre, s.unit)
            },
        );
        let line = format!("{epoch},{lr:.6e},{loss:.4},{films_per_s:.2},{elapsed_s:.0},{measured}\n");
        OpenOptions::new().append(true).open(&self.path)?.write_all(line.as_bytes())?;
        let mut scalars = vec![("loss", *loss), ("learning_rate", *lr), ("films_per_s", *films_per_s)];
        if let Some(summary) = validation {
            scalars.push(("validation/mre", summary.mre));
            scalars.extend(summary.sdr_percent.first().map(|&(_, percent)| ("validation/sdr_percent", percent)));
            scalars.extend(summary.smape_percent.map(|smape| ("validation/smape_percent", smape)));
        }
        self.events.scalars(*steps, &scalars)?;
        let validated = validation.map_or_else(String::new, |s| format!(", validation: {s}"));
        let line = format!(
            "epoch {}/{}: loss {loss:.3}, {films_per_s:.2} films/s{}{validated}",
            epoch + 1,
            self.epochs,
            self.left(record)
        );
        if self.bar.is_hidden() {
            tracing::info!("{line}");
        } else {
            self.bar.println(line);
        }
        Ok(())
    }

    /// Takes the progress bar off the terminal.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Where no bar says it: how long the rest will take at this pace.
    fn left(&self, record: &EpochRecord<'_>) -> String {
        let left = self.bar.length().unwrap_or(0).saturating_sub(self.bar.position());
        if !self.bar.is_hidden() || left == 0 || self.bar.position() == 0 {
            return String::new();
        }
        let seconds = record.elapsed_s * left as f64 / self.bar.position() as f64;
        format!(", {} left", humantime::format_duration(std::time::Duration::from_secs(seconds as u64)))
    }
}

/// The heading and the whole lines of the first `done` epochs.
fn kept(old: &str, done: usize) -> String {
    let whole = |line: &&str| line.ends_with('\n');
    let early = |line: &&str| {
        let epoch = line.split(',').next().and_then(|epoch| epoch.parse::<usize>().ok());
        epoch.is_some_and(|epoch| epoch < done)
    };
    let lines = old.split_inclusive('\n').filter(whole).filter(early);
    std::iter::once(HEADING).chain(std::iter::once("\n")).chain(lines).collect()
}

fn progress(steps: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        let bar = ProgressBar::hidden();
        bar.set_length(steps);
        return bar;
    }
    let style = ProgressStyle::with_template("{bar:32} step {pos}/{len}, {eta} left");
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::LengthUnit;

    fn epoch(epoch: usize, validation: Option<&Summary>) -> EpochRecord<'_> {
        EpochRecord {
            epoch,
            steps: 10 * (epoch + 1),
            lr: 1e-3,
            loss: 2.5,
            films_per_s: 3.0,
            elapsed_s: 9.0,
            validation,
        }
    }

    #[test]
    fn a_continued_record_holds_each_epoch_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let summary = Summary {
            films: 2,
            unit: LengthUnit::Px,
            mre: 3.5,
            sd: 1.0,
            sdr_percent: vec![(5.0, 75.0)],
            smape_percent: Some(9.25),
        };
        let mut first = Record::open(folder.path(), 0, 0, 3, 30).expect("a fresh folder");
        for (i, validation) in [(0, None), (1, Some(&summary)), (2, None)] {
            first.epoch(&epoch(i, validation)).expect("a fresh folder");
        }
        let path = folder.path().join(METRICS_FILE);
        let mut text = fs::read_to_string(&path).expect("the record");
        text.push_str("3,1e-3,2."); // What a kill may leave of a line.
        fs::write(&path, text).expect("the record");
        let mut second = Record::open(folder.path(), 2, 20, 3, 10).expect("the run's folder");
        second.epoch(&epoch(2, None)).expect("the run's folder");
        let expected = format!(
            "{HEADING}\n0,1.000000e-3,2.5000,3.00,9,,,,\n1,1.000000e-3,2.5000,3.00,9,3.5000,px,75.00,9.2500\n\
             2,1.000000e-3,2.5000,3.00,9,,,,\n"
        );
        assert_eq!(fs::read_to_string(&path).expect("the record"), expected);
        let files = fs::read_dir(folder.path()).expect("the folder").count();
        assert_eq!(files, 3, "metrics.csv and an event file for each start");
    }
}
