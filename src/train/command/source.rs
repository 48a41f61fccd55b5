//! Where films come from, as it is said on the command line.

use std::path::PathBuf;

use clap::Args;

use crate::train::datasets::{Layout, Source, Truth};

/// A data set, for every subcommand that needs films.
#[derive(Clone, Debug, Args)]
pub(super) struct SourceArgs {
    /// The data set's root.
    #[arg(long = "data", value_name = "ROOT")]
    pub(super) root: PathBuf,
    #[command(flatten)]
    pub(super) layout: LayoutArgs,
}

/// How a data set is laid out.
#[derive(Clone, Debug, Args)]
pub(super) struct LayoutArgs {
    /// How the data set is laid out.
    #[arg(long, value_enum, default_value = "isbi")]
    pub(super) layout: Layout,
    /// For own films: the labels, CSV or COCO keypoints.
    #[arg(long, required_if_eq("layout", "own"))]
    pub(super) labels: Option<PathBuf>,
    /// For ISBI: whose landmarks count as true.
    #[arg(long, value_enum, default_value = "mean")]
    pub(super) truth: Truth,
    /// For the hand atlas: the fold, 1 to 3.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub(super) fold: u8,
}

impl SourceArgs {
    pub(super) fn source(&self) -> Source {
        self.layout.source(self.root.clone())
    }
}

impl LayoutArgs {
    pub(super) fn source(&self, root: PathBuf) -> Source {
        let Self { layout, labels, truth, fold } = self.clone();
        Source { layout, root, labels, truth, fold }
    }
}
