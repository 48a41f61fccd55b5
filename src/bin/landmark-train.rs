//! `landmark-train`: the workstation trainer.

use clap::Parser;
use landmarkd::train::command::Cli;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    Cli::parse().run()
}
