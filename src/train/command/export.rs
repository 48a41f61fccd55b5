//! `landmark-train export` and `agree`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::source::SourceArgs;
use crate::geometry::LengthUnit;
use crate::model::Training;
use crate::train::datasets::{Layout, Source, Split, Truth};
use crate::train::publish::{Publication, PublishError, TestSet, publish};
use crate::train::{FILMS_FILE, SET_SHA256, TrainConfig, Weights, checkpoint};

/// What `landmark-train export` is told.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The run's folder.
    #[arg(long)]
    run: PathBuf,
    /// Weights of the same network that the run's best ones are averaged with: a run's best.safetensors, or the moving
    /// average in its last.safetensors.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    average: Vec<PathBuf>,
    /// For the golden film and the figures of the card.
    #[command(flatten)]
    films: SourceArgs,
    /// The bundle's directory, named after the bundle; an older bundle there is replaced.
    #[arg(long)]
    out: PathBuf,
    /// `major.minor.patch` of the bundle.
    #[arg(long)]
    bundle_version: String,
    /// Where the weights started, for the card.
    #[arg(long)]
    initialisation: String,
    /// How it was trained, for the card: commands, hardware, duration.
    #[arg(long)]
    procedure: String,
    /// Terms of the weights; where not given, those that follow from the data set.
    #[arg(long)]
    licence: Option<String>,
}

/// What `landmark-train agree` is told.
#[derive(Debug, Args)]
pub(super) struct AgreeArgs {
    /// The bundle's directory.
    #[arg(long)]
    bundle: PathBuf,
    /// The run's folder.
    #[arg(long)]
    run: PathBuf,
    /// As the bundle was exported with.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    average: Vec<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
    /// How many of the test films are compared.
    #[arg(long, default_value_t = 20)]
    films: usize,
}

/// A run's best weights, averaged with those of `others`, and what the run was told.
///
/// # Errors
/// When `source` is not what the run was trained on: what it held out would be another's, and what is measured on it is
/// not what the card says.
fn best_of(run: &Path, others: &[PathBuf], source: &Source) -> anyhow::Result<(Weights, TrainConfig)> {
    let path = run.join("best.safetensors");
    let (weights, metadata) = checkpoint::read(&path)?;
    let config = metadata.get("config").with_context(|| format!("{}: no `config` in it", path.display()))?;
    let config: TrainConfig = toml::from_str(config).with_context(|| format!("{}", path.display()))?;
    let told = run.join(FILMS_FILE);
    let text = std::fs::read_to_string(&told).with_context(|| format!("{}", told.display()))?;
    let theirs: Source = toml::from_str(&text).with_context(|| format!("{}", told.display()))?;
    let (then, now) = (words(&theirs), words(source));
    if then != now {
        bail!("{} was trained on {then}, not on {now}: give it its own --layout, --truth and --fold", run.display());
    }
    let (dataset, validation) = source.training(config.hold_out_every)?;
    let differs = |key: &str, now: String| metadata.get(key).is_some_and(|then| *then != now);
    if differs("landmarks", dataset.landmarks.join(","))
        || differs("training_films", dataset.films.len().to_string())
        || differs(SET_SHA256, source.films_sha256(dataset.films.iter().chain(&validation)))
    {
        bail!(
            "{}: the films are not those that {} was trained on; name its own, as they were then",
            source.root.display(),
            run.display()
        );
    }
    Ok((averaged(weights, others)?, config))
}

/// What a run is trained on, for people.
fn words(source: &Source) -> String {
    format!("{}, truth: {}", source.words(Split::Train, 0), source.truth_words())
}

/// The mean of `weights` and those in `files`, tensor by tensor.
fn averaged(mut weights: Weights, files: &[PathBuf]) -> anyhow::Result<Weights> {
    let others = files.iter().map(|file| Ok((file, checkpoint::read(file)?.0))).collect::<anyhow::Result<Vec<_>>>()?;
    for (name, mean) in &mut weights {
        let mut sums: Vec<f64> = mean.values.iter().copied().map(f64::from).collect();
        for (file, other) in &others {
            // A checkpoint holds the trained weights as well, but it is their average that predicts.
            let found = other.get(&format!("average.{name}")).or_else(|| other.get(name));
            let Some(found) = found.filter(|found| found.shape == mean.shape) else {
                bail!("{}: it holds no `{name}` of shape {:?}, as the run does", file.display(), mean.shape);
            };
            sums.iter_mut().zip(&found.values).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let count = (others.len() + 1) as f64;
        mean.values = sums.into_iter().map(|sum| (sum / count) as f32).collect();
    }
    Ok(weights)
}

impl AgreeArgs {
    #[cfg(not(feature = "torch"))]
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self { bundle, run, .. } = self;
        bail!("comparing {} with {}: {}", bundle.display(), run.display(), super::NO_ENGINE)
    }

    #[cfg(feature = "torch")]
    pub(super) fn run(self) -> anyhow::Result<()> {
        use crate::inference::TractDetector;
        use crate::model::Bundle;
        use crate::network::{Engine, EngineOptions};
        use crate::train::{Agreement, agree};

        let bundle = Bundle::open(&self.bundle)?;
        let source = self.source.source();
        let (weights, config) = best_of(&self.run, &self.average, &source)?;
        let landmarks = bundle.manifest().landmarks.len();
        let mut detector = TractDetector::new(bundle.network(), bundle.manifest().network.frame, landmarks)?;
        let options = EngineOptions { seed: 0, flow: config.flow, threads: 1, average_decay: 0.0, bf16: Some(false) };
        let mut engine = Engine::new(config.architecture(landmarks), options)?;
        engine.load_weights(&weights)?;
        let mut films = source.films(source.default_split(), config.hold_out_every)?.films;
        films.truncate(self.films);
        let Agreement { mean_px, max_px } = agree(&mut engine, &mut detector, &films)?;
        println!(
            "{} films: the frame's landmarks differ by {mean_px:.4} px on average, {max_px:.4} px at most",
            films.len()
        );
        Ok(())
    }
}

impl ExportArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let source = self.films.source();
        let (weights, config) = best_of(&self.run, &self.average, &source)?;
        if config.hold_out_every == 0 {
            return Err(PublishError::NoValidation.into());
        }
        let name = self.out.file_name().and_then(|name| name.to_str()).context("--out has no name")?;
        let (dataset, validation) = source.training(config.hold_out_every)?;
        let tests = tests(&source, config.hold_out_every)?;
        let training = Training {
            data: words(&source),
            films: u32::try_from(dataset.films.len())?,
            hold_out_every: Some(config.hold_out_every),
            films_sha256: Some(source.films_sha256(dataset.films.iter().chain(&validation))),
            initialisation: self.initialisation.clone(),
            procedure: self.procedure.clone(),
        };
        let publication = Publication {
            name,
            version: &self.bundle_version,
            weights: &weights,
            config: &config,
            landmarks: &dataset.landmarks,
            anatomy: source.anatomy(),
            licence: self.licence.as_deref().unwrap_or(source.licence()),
            training,
            atlas_films: &dataset.films,
            validation: &validation,
            tests: &tests,
        };
        publish(&self.out, &publication)?;
        println!("{}", self.out.display());
        Ok(())
    }
}

/// What a bundle is measured on: the set's test films, of ISBI against two truths.
fn tests(source: &Source, every: usize) -> anyhow::Result<Vec<TestSet>> {
    let split = source.default_split();
    let truths: &[Truth] =
        if source.layout == Layout::Isbi { &[Truth::Mean, Truth::Challenge] } else { &[source.truth] };
    let test = |&truth: &Truth| {
        let source = Source { truth, ..source.clone() };
        let films = source.films(split, every)?.films;
        if films.is_empty() {
            bail!("{} holds no film to measure on", source.words(split, every));
        }
        let unit = LengthUnit::of(&films);
        Ok(TestSet {
            data: source.words(split, every),
            truth: source.truth_words().to_owned(),
            unit,
            thresholds: unit.thresholds(source.layout).to_vec(),
            films,
            kept_apart: split != Split::Validation,
        })
    };
    truths.iter().map(test).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::train::Array;

    #[test]
    fn weights_are_averaged_with_what_predicts_in_each_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let array = |values: &[f32]| Array { shape: vec![values.len()], values: values.to_vec() };
        let [best, last, short] = ["best", "last", "short"].map(|name| folder.path().join(name));
        let write = |path: &Path, tensors: &[(&str, Array)]| {
            let weights = tensors.iter().map(|(name, array)| ((*name).to_owned(), array.clone())).collect();
            checkpoint::write(path, &weights, HashMap::new()).expect("a fresh folder");
        };
        write(&best, &[("a", array(&[3.0, 6.0]))]);
        write(
            &last,
            &[("a", array(&[90.0, 90.0])), ("average.a", array(&[6.0, 0.0])), ("adam.m.a", array(&[1.0, 1.0]))],
        );
        write(&short, &[("a", array(&[1.0]))]);
        let own = Weights::from([("a".to_owned(), array(&[0.0, 3.0]))]);
        assert_eq!(averaged(own.clone(), &[]).expect("nothing to do"), own);
        let mean = averaged(own.clone(), &[best, last]).expect("the same network");
        assert_eq!(mean, Weights::from([("a".to_owned(), array(&[3.0, 3.0]))]));
        let refused = averaged(own, std::slice::from_ref(&short)).expect_err("another network").to_string();
        assert!(refused.ends_with("short: it holds no `a` of shape [2], as the run does"), "{refused}");
    }
}
