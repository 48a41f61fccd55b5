//! `landmarkd engine`: the network on an NVIDIA GPU, by TensorRT.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Subcommand;
use serde::Serialize;

use super::{Exit, Failure, chain, logging};
use crate::config::{self, CONFIG_FILE};
use crate::inference::tensorrt::{Built, EngineCache, TensorRt, TensorRtError, mixed_precision, try_build};
use crate::model::{Bundle, Registry, confine};

/// An hour on eight processors: the daemon's own limit, by the clock, comes long before.
const CONFINED_CPU_S: u64 = 8 * 3600;
/// For as much memory as there is: CUDA reserves ranges of addresses far beyond it, and the daemon looks at what is used.
const ALL_MEMORY_MIB: u64 = u64::MAX >> 20;

/// The arguments of `engine`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
The daemon builds the engine it needs by itself, in the background, while the processor serves: none of these is needed \
for that. Engines are never taken from elsewhere: they depend on GPU, driver and TensorRT, and they are code.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the engine for a bundle on this machine's GPU and keep it for the daemon
    Build(Build),
    /// Say whether TensorRT takes a bundle's network; TensorRT-RTX says it without a GPU
    Check(Check),
    /// Write the network as TensorRT gets it, in mixed precision, as ONNX
    Network(Network),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// The bundle's directory [default: the one that serves]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The configuration that names the state directory
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    /// The state directory itself; no configuration is read then, and the bundle must be named
    #[arg(long, value_name = "DIR", requires = "model")]
    state: Option<PathBuf>,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Build no other engine than the one whose key has this digest
    #[arg(long, hide = true)]
    key: Option<String>,
    /// Give way to other processes and die with the parent
    #[arg(long, hide = true)]
    confined: bool,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The bundle's directory
    model: PathBuf,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Network {
    /// The bundle's directory
    model: PathBuf,
    /// Where the network goes
    file: PathBuf,
}

/// What TensorRT made of a bundle's network.
#[derive(Serialize)]
struct Checked {
    tensorrt: String,
    model: String,
    engines: Vec<Tried>,
}

#[derive(Serialize)]
struct Tried {
    precision: &'static str,
    onnx_bytes: usize,
    plan_bytes: usize,
    build_s: f64,
}

/// Does what the arguments say.
///
/// # Errors
/// [`Exit::Config`] for a bundle that cannot be used or another user's state, [`Exit::Service`] where TensorRT or the
/// GPU is away or fails, [`Exit::Io`].
pub fn engine(arguments: &Arguments) -> Result<(), Failure> {
    logging::start(&logging::for_people());
    match &arguments.command {
        Command::Build(arguments) => build(arguments),
        Command::Check(arguments) => check(arguments),
        Command::Network(Network { model, file }) => {
            let network = mixed_precision(open(model)?.network()).map_err(failure)?;
            fs::write(file, network).map_err(|e| Failure::new(Exit::Io, format!("{}: {e}", file.display())))
        }
    }
}

fn build(arguments: &Build) -> Result<(), Failure> {
    let Build { model, config, state, json, key: wanted, confined } = arguments;
    if *confined {
        confine(ALL_MEMORY_MIB, CONFINED_CPU_S).map_err(|e| Failure::new(Exit::Service, e))?;
    }
    let (model, state) = match (model, state) {
        (Some(model), Some(state)) => (model.clone(), state.clone()),
        (model, _) => {
            let settings = config::load(config).map_err(|errors| Failure::new(Exit::Config, errors))?.settings;
            let serving = match model {
                Some(model) => model.clone(),
                None => serving(&settings)?,
            };
            (serving, settings.state.directory)
        }
    };
    let bundle = open(&model)?;
    let tensorrt = TensorRt::open().map_err(failure)?;
    let key = tensorrt.key(bundle.network_sha256());
    let engine = key.digest();
    if wanted.as_ref().is_some_and(|wanted| *wanted != engine) {
        // A driver or a bundle that was replaced meanwhile.
        return Err(Failure::new(Exit::Service, "GPU, driver, TensorRT or bundle is not what it was a moment ago"));
    }
    let began = Instant::now();
    let plan = tensorrt.build(bundle.network()).map_err(failure)?;
    let note = EngineCache::below(&state).keep(&key, &plan, began.elapsed()).map_err(failure)?;
    let built = Built { engine, plan_bytes: note.plan_bytes, build_s: note.build_s };
    let text = if *json {
        to_json(&built)
    } else {
        let Built { engine, plan_bytes, build_s } = &built;
        format!("engine {engine} for {}: {} MiB in {build_s:.1} s", tensorrt.gpu().name, plan_bytes >> 20)
    };
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

fn check(arguments: &Check) -> Result<(), Failure> {
    let Check { model, json } = arguments;
    let bundle = open(model)?;
    let mixed = mixed_precision(bundle.network()).map_err(failure)?;
    let mut engines = Vec::new();
    let mut name = String::new();
    for (precision, onnx) in [("mixed", mixed.as_slice()), ("f32", bundle.network())] {
        let began = Instant::now();
        let (tensorrt, plan_bytes) = try_build(onnx).map_err(failure)?;
        name = tensorrt;
        let build_s = began.elapsed().as_secs_f64();
        engines.push(Tried { precision, onnx_bytes: onnx.len(), plan_bytes, build_s });
    }
    let manifest = bundle.manifest();
    let checked = Checked { tensorrt: name, model: format!("{} {}", manifest.name, manifest.version), engines };
    let mut out = io::stdout().lock();
    if *json {
        return Ok(writeln!(out, "{}", to_json(&checked))?);
    }
    for Tried { precision, plan_bytes, build_s, .. } in &checked.engines {
        let Checked { tensorrt, model, .. } = &checked;
        writeln!(out, "{tensorrt} builds {model}, {precision}: {} MiB in {build_s:.1} s", plan_bytes >> 20)?;
    }
    Ok(())
}

fn serving(settings: &config::Settings) -> Result<PathBuf, Failure> {
    if let Some(directory) = &settings.model.directory {
        return Ok(directory.clone());
    }
    let registry = Registry::new(&settings.state.directory);
    let selection = registry.selection().map_err(|error| Failure::new(Exit::Config, chain(&error)))?;
    Ok(selection.map_or_else(|| settings.model.packaged.clone(), |chosen| registry.directory(&chosen.active)))
}

fn open(model: &Path) -> Result<Bundle, Failure> {
    Bundle::open(model).map_err(|error| Failure::new(Exit::Config, chain(&error)))
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("reports are plain data")
}

fn failure(error: TensorRtError) -> Failure {
    let exit = match &error {
        TensorRtError::Cache { .. } => Exit::Io,
        TensorRtError::Foreign { .. } | TensorRtError::Network { .. } => Exit::Config,
        _ => Exit::Service,
    };
    Failure::new(exit, error)
}
