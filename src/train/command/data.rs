//! `landmark-train data`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::progress;
use crate::landmark::CEPHALOGRAM_NAMES;
use crate::train::check;
use crate::train::datasets::{AasceSplit, Dataset, HandPart, IsbiSplit, Truth, aasce, generic, hand, isbi};

/// What `landmark-train data` is told.
#[derive(Debug, Args)]
pub(super) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// List what a data set holds and what is wrong with it; exits with 1 where something must be mended.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The data set's root.
    root: PathBuf,
    /// How it is laid out.
    #[arg(long, value_enum, default_value = "isbi")]
    layout: Layout,
    /// For own films: the labels, CSV or COCO keypoints.
    #[arg(long, required_if_eq("layout", "own"))]
    labels: Option<PathBuf>,
    /// Draw every film, small, with its landmarks, into this PNG.
    #[arg(long)]
    sheet: Option<PathBuf>,
}

/// The layouts that data sets are published in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// ISBI 2015, training films: RawImage/TrainingData, 400_senior, 400_junior.
    Isbi,
    /// AASCE 2019, training films: data/train, labels/train.
    Aasce,
    /// The Digital Hand Atlas: images, all.csv, cv/set1.
    Hand,
    /// A folder of images and a file of labels.
    Own,
}

impl CheckArgs {
    fn run(self) -> anyhow::Result<()> {
        let root = &self.root;
        let dataset = match (self.layout, &self.labels) {
            (Layout::Isbi, _) => Dataset {
                landmarks: CEPHALOGRAM_NAMES.map(str::to_owned).to_vec(),
                films: isbi(root, IsbiSplit::Train, Truth::Mean)?,
                notes: Vec::new(),
            },
            (Layout::Aasce, _) => aasce(root, AasceSplit::Train)?,
            (Layout::Hand, _) => hand(root, 1, HandPart::Train)?,
            (Layout::Own, Some(labels)) => generic(root, labels)?,
            (Layout::Own, None) => bail!("--layout own needs --labels"),
        };
        let bar = progress(dataset.films.len());
        let findings = check(&dataset, || bar.inc(1));
        bar.finish_and_clear();
        println!("{findings}");
        if let Some(path) = &self.sheet {
            findings.sheet.save(path).with_context(|| format!("{}", path.display()))?;
            println!("drawn: {}", path.display());
        }
        if !findings.faults.is_empty() {
            bail!("{} has faults that must be mended before training", root.display());
        }
        Ok(())
    }
}

impl DataArgs {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.command {
            DataCommand::Check(args) => args.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn own(folder: &Path, labels: &str) -> CheckArgs {
        image::GrayImage::from_pixel(60, 80, image::Luma([90])).save(folder.join("a.png")).expect("a fresh folder");
        let path = folder.join("labels.csv");
        fs::write(&path, labels).expect("a fresh folder");
        let sheet = Some(folder.join("sheet.png"));
        CheckArgs { root: folder.to_owned(), layout: Layout::Own, labels: Some(path), sheet }
    }

    #[test]
    fn own_films_are_checked_and_a_fault_fails() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        own(folder.path(), "file,sella_x,sella_y\na.png,10,20\n").run().expect("a sound data set");
        let sheet = image::open(folder.path().join("sheet.png")).expect("the contact sheet");
        assert_eq!((sheet.width(), sheet.height()), (160, 200));
        let outside = own(folder.path(), "file,sella_x,sella_y\na.png,10,200\n").run().expect_err("outside the film");
        assert!(outside.to_string().ends_with("has faults that must be mended before training"), "{outside}");
    }
}
