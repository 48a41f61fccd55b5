//! The arguments of `landmarkd` and which subcommand they mean.

use clap::{Parser, Subcommand};

use super::{
    Failure, bench, check_config, completions, demo, diag, doctor, engine, man, model, predict, replay, run, schema,
    spool,
};

/// Watches an X-ray acquisition folder, localizes anatomical landmarks on every new film and publishes them over MQTT.
///
/// Not a medical device: research use only.
#[derive(Debug, Parser)]
#[command(name = "landmarkd", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 success, 64 usage, 65 bad input, 66 no input, 69 service away, 70 bug, 74 input/output, \
78 configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the folder of a configuration and publish until told to stop
    Run(run::Arguments),
    /// Localize the landmarks of films
    Predict(predict::Arguments),
    /// Say whether a configuration is right, and what it amounts to
    CheckConfig(check_config::Arguments),
    /// Show the whole way once: a film in a folder, its landmarks on a broker
    Demo(demo::Arguments),
    /// Measure each step of a film's way
    Bench(bench::Arguments),
    /// Install, choose and check model bundles
    Model(model::Arguments),
    /// Build and check engines for an NVIDIA GPU
    Engine(engine::Arguments),
    /// Look at configuration, folder, state, model, broker and machine, and say what to do
    Doctor(doctor::Arguments),
    /// Write an archive for whoever helps, without anything a patient could be known by
    Diag(diag::Arguments),
    /// List, send again or export what waits in the state of a stopped daemon
    Spool(spool::Arguments),
    /// Ask the running daemon for delivered events once more
    Replay(replay::Arguments),
    /// Print the JSON Schemas of the published documents, or the whole contract as AsyncAPI
    Schema(schema::Arguments),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
    /// Write the manual pages
    Man(man::Arguments),
}

impl Arguments {
    /// Does what the arguments say.
    ///
    /// # Errors
    /// Why it could not, with the exit code to say so.
    pub fn execute(&self) -> Result<(), Failure> {
        match &self.command {
            Command::Run(arguments) => run::run(arguments),
            Command::Predict(arguments) => predict::predict(arguments),
            Command::CheckConfig(arguments) => check_config::check_config(arguments),
            Command::Demo(arguments) => demo::demo(arguments),
            Command::Bench(arguments) => bench::bench(arguments),
            Command::Model(arguments) => model::model(arguments),
            Command::Engine(arguments) => engine::engine(arguments),
            Command::Doctor(arguments) => doctor::doctor(arguments),
            Command::Diag(arguments) => diag::diag(arguments),
            Command::Spool(arguments) => spool::spool(arguments),
            Command::Replay(arguments) => replay::replay(arguments),
            Command::Schema(arguments) => schema::schema(arguments),
            Command::Completions(arguments) => completions::completions(arguments),
            Command::Man(arguments) => man::man(arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
