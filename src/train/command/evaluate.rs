//! `landmark-train evaluate` and `compare`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use clap::Args;

use super::Progress;
use super::source::SourceArgs;
use crate::geometry::LengthUnit;
use crate::inference::Localizer;
use crate::model::Bundle;
use crate::train::datasets::{Layout, Split};
use crate::train::{EVALUATION_FILE, Evaluation, FilmErrors, Protocol, Setting, TestedFilm, replace_file};
use crate::train::{ErrorCurve, box_plot_svg, compare, cumulative_error_svg, evaluate, reliability_svg};

/// What `landmark-train evaluate` is told.
#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    /// The bundle's directory.
    #[arg(long)]
    bundle: PathBuf,
    #[command(flatten)]
    source: SourceArgs,
    /// Which films; where not given, the set's test films; if there are none, those that the bundle's run held out, or all
    /// where it was trained on another set.
    #[arg(long, value_enum)]
    split: Option<Split>,
    /// For the validation films: every how many groups the run held out, if the bundle does not say.
    #[arg(long)]
    hold_out_every: Option<usize>,
    /// How errors are counted.
    #[arg(long, value_enum, default_value = "exact")]
    protocol: Protocol,
    /// A folder for evaluation.json, errors.csv, cumulative.svg, landmarks.svg and reliability.svg.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the evaluation as one JSON object and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

/// What `landmark-train compare` is told.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// The evaluation.json of the one, or its folder.
    a: PathBuf,
    /// The other's: the verdict is about this one.
    b: PathBuf,
    /// Of the resampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the comparison as one JSON object and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

impl EvaluateArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let bundle = Bundle::open(&self.bundle)?;
        let mut localizer = Localizer::new(&bundle)?;
        let source = self.source.source();
        let training = &bundle.manifest().training;
        // Films of another set were not learnt: all of them count.
        let is_own_set = match &training.films_sha256 {
            Some(digest) if source.layout == Layout::Own => {
                source.films_sha256(&source.films(Split::Train, 0)?.films) == *digest
            }
            // Films of one's own may be anybody's, and the bundle does not say whose it learnt.
            None if source.layout == Layout::Own => false,
            _ => training.data.starts_with(&source.words(Split::Train, 0)),
        };
        let otherwise = match source.default_split() {
            Split::Validation if !is_own_set => Split::Train,
            split => split,
        };
        let split = self.split.unwrap_or(otherwise);
        let every = self.hold_out_every.or(training.hold_out_every.filter(|_| is_own_set)).unwrap_or_default();
        if split == Split::Validation && every == 0 {
            bail!(
                "{} does not say which of these films its run held out; say so by --hold-out-every, or take --split train \
                 for all of them",
                self.bundle.display()
            );
        }
        let dataset = source.films(split, every)?;
        let (names, films) = (&bundle.manifest().landmarks, dataset.films);
        if dataset.landmarks != *names {
            bail!("the bundle finds {names:?}, the films are labelled with {:?}", dataset.landmarks);
        }
        let unit = LengthUnit::of(&films);
        if self.protocol == Protocol::Reference && unit == LengthUnit::Mm && source.layout != Layout::Isbi {
            bail!(
                "--protocol reference: NFDP's public code knows the millimetres of the ISBI cephalograms alone; take \
                 --protocol exact"
            );
        }
        let started = Instant::now();
        let progress = Progress::over(films.len());
        let tested = evaluate(&mut localizer, &films, |_| progress.step())?;
        progress.finish();
        let manifest = bundle.manifest();
        let setting = Setting {
            model: format!("{} {}", manifest.name, manifest.version),
            sha256: manifest.network.sha256.clone(),
            protocol: self.protocol,
            data: source.words(split, every),
            truth: source.truth_words().to_owned(),
            unit,
        };
        let errors = |film: &TestedFilm| FilmErrors {
            film: film.name.clone(),
            errors: film.errors(self.protocol, unit),
            angles: film.angles(),
        };
        let per_film = tested.iter().map(errors).collect();
        let evaluation = Evaluation::new(setting, names, per_film, unit.thresholds(source.layout))?;
        if let Some(out) = &self.out {
            write_evaluation(out, &evaluation)?;
            let cases: Vec<_> = tested.iter().flat_map(TestedFilm::cases).flatten().collect();
            replace_file(&out.join("reliability.svg"), &reliability_svg(&cases)?)?;
        }
        if self.json {
            println!("{}", serde_json::to_string(&evaluation)?);
            return Ok(());
        }
        print!("{}", evaluation.table());
        println!("{:.2} films/s", films.len() as f64 / started.elapsed().as_secs_f64());
        Ok(())
    }
}

fn write_evaluation(out: &Path, evaluation: &Evaluation) -> anyhow::Result<()> {
    evaluation.write(out)?;
    let unit = evaluation.setting.unit;
    let curve = ErrorCurve { name: &evaluation.setting.model, errors: evaluation.errors() };
    let thresholds: Vec<f64> = evaluation.sdr.iter().map(|rate| rate.within).collect();
    let curve = cumulative_error_svg(&[curve], &thresholds, unit)?;
    replace_file(&out.join("cumulative.svg"), &curve)?;
    let boxes = box_plot_svg(&evaluation.landmarks(), &evaluation.errors_by_landmark(), unit)?;
    replace_file(&out.join("landmarks.svg"), &boxes)?;
    Ok(())
}

impl CompareArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let read = |path: &Path| {
            let file = if path.is_dir() { path.join(EVALUATION_FILE) } else { path.to_owned() };
            Evaluation::read(&file)
        };
        let comparison = compare(&read(&self.a)?, &read(&self.b)?, self.seed)?;
        if self.json {
            println!("{}", serde_json::to_string(&comparison)?);
        } else {
            println!("{comparison}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(offset: f64) -> Evaluation {
        let film = |i: u32| {
            let errors = vec![Some(1.0 + f64::from(i) / 10.0 + offset), Some(2.0 + offset)];
            FilmErrors { film: i.to_string(), errors, angles: None }
        };
        let setting = Setting {
            model: "m 1.0.0".into(),
            sha256: "a".repeat(64),
            protocol: Protocol::Exact,
            data: "d".into(),
            truth: "t".into(),
            unit: LengthUnit::Mm,
        };
        let names = ["sella".to_owned(), "nasion".to_owned()];
        Evaluation::new(setting, &names, (0..10).map(film).collect(), &[2.0, 4.0]).expect("sound")
    }

    #[test]
    fn an_evaluation_is_four_files_that_compare_reads_by_their_folder() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let [a, b] = ["a", "b"].map(|name| root.path().join(name));
        write_evaluation(&a, &evaluation(0.0)).expect("a fresh folder");
        write_evaluation(&b, &evaluation(0.25)).expect("a fresh folder");
        for file in ["evaluation.json", "errors.csv", "cumulative.svg", "landmarks.svg"] {
            assert!(a.join(file).metadata().is_ok_and(|m| m.len() > 100), "{file}");
        }
        let read = Evaluation::read(&a.join(EVALUATION_FILE)).expect("what was written");
        assert_eq!(read, evaluation(0.0));
        CompareArgs { a: a.clone(), b: b.clone(), seed: 0, json: false }.run().expect("two evaluations");
        let missing = CompareArgs { a, b: root.path().join("c"), seed: 0, json: true }.run().expect_err("no such file");
        assert!(missing.to_string().contains("c: "), "{missing}");
    }
}
