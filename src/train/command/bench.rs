//! `landmark-train bench`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::EngineArgs;
use super::source::LayoutArgs;
use crate::train::TrainConfig;

/// What `landmark-train bench` is told.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Films to measure with; without them, films of noise as large as a cephalogram.
    #[arg(long, value_name = "ROOT")]
    data: Option<PathBuf>,
    #[command(flatten)]
    layout: LayoutArgs,
    /// A preset by name: input size, model and augmentation.
    #[arg(long, default_value = "ceph")]
    preset: String,
    /// Films a step.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Side of the square input in pixels, if not the preset's.
    #[arg(long)]
    size: Option<u32>,
    /// Steps that are timed.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    #[command(flatten)]
    engine: EngineArgs,
    /// Print the figures as one JSON object and nothing else on standard output.
    #[arg(long)]
    json: bool,
}

impl BenchArgs {
    fn config(&self) -> anyhow::Result<TrainConfig> {
        let mut config = super::preset(&self.preset)?;
        config.batch = self.batch;
        config.frame = super::with_side(config.frame, self.size);
        config.check().map_err(anyhow::Error::msg)?;
        if self.steps == 0 {
            bail!("--steps 0: at least one step is needed");
        }
        Ok(config)
    }

    #[cfg(not(feature = "torch"))]
    pub(super) fn run(self) -> anyhow::Result<()> {
        self.config()?;
        bail!(super::NO_ENGINE)
    }

    #[cfg(feature = "torch")]
    pub(super) fn run(self) -> anyhow::Result<()> {
        use std::time::Instant;

        use crate::train::datasets::Split;
        use crate::train::{Machine, load, noise_films, training_speed};

        let config = self.config()?;
        // Enough for the loader to shuffle, few enough to be there at once.
        let count = (2 * config.batch).max(8);
        let (films, landmarks, load_ms) = match &self.data {
            Some(root) => {
                let mut dataset = self.layout.source(root.clone()).films(Split::Train, 0)?;
                dataset.films.truncate(count);
                let mut films = Vec::new();
                let started = Instant::now();
                for film in &dataset.films {
                    films.extend(load(std::slice::from_ref(film), config.frame, || ())?);
                }
                let ms = 1e3 * started.elapsed().as_secs_f64() / films.len() as f64;
                (films, dataset.landmarks, Some(ms))
            }
            None => (noise_films(count, 19, &config), (1..=19).map(|i| format!("landmark_{i}")).collect(), None),
        };
        if films.len() < config.batch {
            bail!("there are {} films, fewer than a batch of {}; lower --batch", films.len(), config.batch);
        }
        let machine = self.engine.over(Machine::default());
        let mut engine = super::engine(machine, &config, landmarks.len())?;
        let partners = config.mirror_partners(&landmarks).map_err(anyhow::Error::msg)?;
        let speed = training_speed(&mut engine, films, partners, &config, machine, self.steps, load_ms)?;
        if self.json {
            println!("{}", serde_json::to_string(&speed)?);
        } else {
            print!("{speed}");
        }
        Ok(())
    }
}
