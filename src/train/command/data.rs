//! `landmark-train data`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::Progress;
use super::source::LayoutArgs;
use crate::train::check;
use crate::train::datasets::{DatasetError, Reading, Split};

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
    #[command(flatten)]
    layout: LayoutArgs,
    /// Draw every film, small, with its landmarks, into this PNG.
    #[arg(long)]
    sheet: Option<PathBuf>,
}

impl CheckArgs {
    fn run(self) -> anyhow::Result<()> {
        let root = &self.root;
        let source = self.layout.source(root.clone());
        let mut reading = source.read(Split::Train, 0)?;
        let mut others = Vec::new();
        for split in [Split::Test, Split::Test1, Split::Test2] {
            match source.read(split, 0) {
                // Test films are often handed out without their labels.
                Ok(part)
                    if part.dataset.films.is_empty()
                        && part.faults.iter().all(|fault| fault.unlabelled().is_some()) =>
                {
                    // One reader's or both's: a film counts once.
                    let films: BTreeSet<_> = part.faults.iter().filter_map(DatasetError::unlabelled).collect();
                    reading.dataset.notes.push(format!("the {} films of `{split}` have no labels", films.len()));
                }
                Ok(part) => others.push((split.to_string(), part)),
                Err(DatasetError::NoSuchPart { .. }) => {}
                Err(why) => reading.dataset.notes.push(format!("the split `{split}` cannot be looked at: {why}")),
            }
        }
        let films = |part: &Reading| part.dataset.films.len();
        let bar = Progress::over(films(&reading) + others.iter().map(|(_, part)| films(part)).sum::<usize>());
        let findings = check(&reading, &others, || bar.step());
        bar.finish();
        println!("{findings}");
        if let Some(path) = &self.sheet {
            findings.sheet.save(path).with_context(|| format!("{}", path.display()))?;
            println!("drawn: {}", path.display());
        }
        if !findings.faults.is_empty() {
            bail!("{} has faults that must be mended", root.display());
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
    use crate::train::datasets::{Layout, Truth};

    fn own(folder: &Path, labels: &str) -> CheckArgs {
        image::GrayImage::from_pixel(60, 80, image::Luma([90])).save(folder.join("a.png")).expect("a fresh folder");
        let path = folder.join("labels.csv");
        fs::write(&path, labels).expect("a fresh folder");
        let sheet = Some(folder.join("sheet.png"));
        let layout = LayoutArgs { layout: Layout::Own, labels: Some(path), truth: Truth::Mean, fold: 1 };
        CheckArgs { root: folder.to_owned(), layout, sheet }
    }

    #[test]
    fn own_films_are_checked_and_a_fault_fails() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        own(folder.path(), "file,sella_x,sella_y\na.png,10,20\n").run().expect("a sound data set");
        let sheet = image::open(folder.path().join("sheet.png")).expect("the contact sheet");
        assert_eq!((sheet.width(), sheet.height()), (160, 200));
        let outside = own(folder.path(), "file,sella_x,sella_y\na.png,10,200\n").run().expect_err("outside the film");
        assert!(outside.to_string().ends_with("has faults that must be mended"), "{outside}");
    }
}
