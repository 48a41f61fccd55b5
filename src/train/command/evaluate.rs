//! `landmark-train evaluate` and `compare`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::progress;
use crate::inference::Localizer;
use crate::model::Bundle;
use crate::train::datasets::{IsbiSplit, Truth, isbi};
use crate::train::metrics::CEPHALOGRAM_THRESHOLDS_MM;
use crate::train::{EVALUATION_FILE, Evaluation, FilmErrors, Protocol, Setting, TestedFilm, Unit, replace_file};
use crate::train::{ErrorCurve, box_plot_svg, compare, cumulative_error_svg, evaluate};

/// What `landmark-train evaluate` is told.
#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    /// The bundle's directory.
    #[arg(long)]
    bundle: PathBuf,
    /// The data set's root, in the layout of ISBI 2015.
    #[arg(long)]
    data: PathBuf,
    /// Which films.
    #[arg(long, value_enum, default_value = "test1")]
    split: IsbiSplit,
    /// Whose landmarks count as true.
    #[arg(long, value_enum, default_value = "mean")]
    truth: Truth,
    /// How errors are counted.
    #[arg(long, value_enum, default_value = "exact")]
    protocol: Protocol,
    /// A folder for evaluation.json, errors.csv, cumulative.svg and landmarks.svg.
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
        let films = isbi(&self.data, self.split, self.truth)?;
        let started = Instant::now();
        let bar = progress(films.len());
        let tested = evaluate(&mut localizer, &films, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        let manifest = bundle.manifest();
        let setting = Setting {
            model: format!("{} {}", manifest.name, manifest.version),
            sha256: manifest.network.sha256.clone(),
            protocol: self.protocol,
            data: self.split.words().to_owned(),
            truth: self.truth.words().to_owned(),
            unit: Unit::Mm,
        };
        let errors = |film: &TestedFilm| FilmErrors { film: film.name.clone(), errors: film.errors_mm(self.protocol) };
        let per_film = tested.iter().map(errors).collect();
        let evaluation = Evaluation::new(setting, &manifest.landmarks, per_film, &CEPHALOGRAM_THRESHOLDS_MM)?;
        if let Some(out) = &self.out {
            write_evaluation(out, &evaluation)?;
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
    let (errors, unit) = (evaluation.errors(), evaluation.setting.unit);
    let curve = ErrorCurve { name: &evaluation.setting.model, errors: errors.clone() };
    let curve = cumulative_error_svg(&[curve], &CEPHALOGRAM_THRESHOLDS_MM, unit)?;
    replace_file(&out.join("cumulative.svg"), &curve)?;
    replace_file(&out.join("landmarks.svg"), &box_plot_svg(&evaluation.landmarks(), &errors, unit)?)?;
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
            let errors = vec![1.0 + f64::from(i) / 10.0 + offset, 2.0 + offset];
            FilmErrors { film: i.to_string(), errors }
        };
        let setting = Setting {
            model: "m 1.0.0".into(),
            sha256: "a".repeat(64),
            protocol: Protocol::Exact,
            data: "d".into(),
            truth: "t".into(),
            unit: Unit::Mm,
        };
        let names = ["sella".to_owned(), "nasion".to_owned()];
        Evaluation::new(setting, &names, (0..10).map(film).collect(), &CEPHALOGRAM_THRESHOLDS_MM).expect("sound")
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
