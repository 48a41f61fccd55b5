//! `landmarkd model`: install, choose and check model bundles.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::model_text::{ActivationReport, InstallReport, ListReport, Report, VerifyReport};
use super::{Exit, Failure, logging};
use crate::config::{self, CONFIG_FILE};
use crate::crash_point;
use crate::inference::{Localizer, SELF_TEST_TOLERANCE_PX};
use crate::model::{
    Archive, ArchiveError, Bundle, BundleId, Limits, OWN_PROGRAM, Passed, Registry, RegistryError, SelfTestError,
    SignatureError, TRUST_DIRECTORY, TrustedKeys, confine, in_child,
};

/// The arguments of `model`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
A bundle is an archive NAME-VERSION.tar.gz with its minisign signature NAME-VERSION.tar.gz.minisig beside it. \
What is chosen serves from the daemon's next start on. Run these as the user who owns the state directory.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify a bundle, try it on this machine and keep it; it does not serve yet
    Install(Install),
    /// Say which bundles are installed and which one serves
    List(List),
    /// Let an installed bundle serve; the one that serves now is kept to go back to, others are removed
    Activate(Activate),
    /// Let the bundle that served before serve again
    Rollback(Rollback),
    /// Say whether an archive is signed and sound, or whether the files in a directory are
    Verify(Verify),
    /// Try a bundle in this process, which may die of it
    #[command(hide = true)]
    SelfTest(SelfTest),
}

/// Which store.
#[derive(Debug, clap::Args)]
struct Store {
    /// The configuration that names the state directory
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    /// The state directory itself; no configuration is read then
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Install {
    /// The archive, NAME-VERSION.tar.gz
    file: PathBuf,
    /// The folder of public keys whose bundles are taken
    #[arg(long, value_name = "DIR", default_value = TRUST_DIRECTORY)]
    trust: PathBuf,
    /// Let it serve at once
    #[arg(long)]
    activate: bool,
    /// Take a version that is older than the one that serves
    #[arg(long)]
    allow_older: bool,
    #[command(flatten)]
    store: Store,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    store: Store,
}

#[derive(Debug, clap::Args)]
struct Activate {
    /// The bundle's name
    name: String,
    /// Its version
    version: String,
    #[command(flatten)]
    store: Store,
}

#[derive(Debug, clap::Args)]
struct Rollback {
    #[command(flatten)]
    store: Store,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// An archive, or the directory of a bundle, which has digests and no signature
    path: PathBuf,
    /// The folder of public keys whose bundles are taken
    #[arg(long, value_name = "DIR", default_value = TRUST_DIRECTORY)]
    trust: PathBuf,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct SelfTest {
    directory: PathBuf,
    #[arg(long)]
    memory_mib: u64,
    #[arg(long)]
    cpu_s: u64,
}

/// Does what the arguments say.
///
/// # Errors
/// [`Exit::BadInput`] for a bundle that is not taken, [`Exit::NoInput`] for one that is not there, [`Exit::Config`]
/// where keys, configuration or user are wrong, [`Exit::Service`] while another command is at work, [`Exit::Io`].
pub fn model(arguments: &Arguments) -> Result<(), Failure> {
    logging::start(&logging::for_people());
    match &arguments.command {
        Command::Install(arguments) => install(arguments),
        Command::List(List { store }) => {
            let registry = store.registry()?;
            let selection = registry.selection().map_err(failure)?;
            let installed = registry.installed().map_err(failure)?;
            print(&ListReport::new(selection.as_ref(), &installed), store.json)
        }
        Command::Activate(Activate { name, version, store }) => {
            let id = BundleId::new(name, version).map_err(|e| Failure::new(Exit::Usage, e))?;
            let done = store.registry()?.activate(&id, &try_in_child).map_err(failure)?;
            print(&ActivationReport::new(&done.selection, &done.removed), store.json)
        }
        Command::Rollback(Rollback { store }) => {
            let selection = store.registry()?.roll_back().map_err(failure)?;
            print(&ActivationReport::new(&selection, &[]), store.json)
        }
        Command::Verify(arguments) => verify(arguments),
        Command::SelfTest(arguments) => self_test(arguments),
    }
}

/// Tries a bundle under the usual limits, in a process of its own.
///
/// # Errors
/// The reason why it must not serve.
pub fn try_in_child(directory: &Path) -> Result<Passed, SelfTestError> {
    in_child(Path::new(OWN_PROGRAM), directory, &Limits::default())
}

fn install(arguments: &Install) -> Result<(), Failure> {
    let Install { file, trust, activate, allow_older, store } = arguments;
    let registry = store.registry()?;
    let archive = open(file, trust)?;
    let (installed, already) = registry.install(&archive, *allow_older, &try_in_child).map_err(failure)?;
    let activation =
        if *activate { Some(registry.activate(&installed.id, &try_in_child).map_err(failure)?) } else { None };
    print(&InstallReport::new(&installed, already, activation.as_ref()), store.json)
}

fn verify(arguments: &Verify) -> Result<(), Failure> {
    let Verify { path, trust, json } = arguments;
    if path.is_dir() {
        let bundle = Bundle::open(path).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let id = BundleId::of(bundle.manifest()).map_err(|e| Failure::new(Exit::BadInput, e))?;
        return print(&VerifyReport::of_directory(path, &id), *json);
    }
    let archive = open(path, trust)?;
    let scratch = Scratch::create()?;
    archive.unpack(&scratch.0).map_err(|e| failure(e.into()))?;
    print(&VerifyReport::of_archive(path, archive.claim(), archive.sha256()), *json)
}

/// The child's side of [`in_child`]: its exit code is the verdict.
fn self_test(arguments: &SelfTest) -> Result<(), Failure> {
    let SelfTest { directory, memory_mib, cpu_s } = arguments;
    confine(*memory_mib, *cpu_s).map_err(|e| Failure::new(Exit::Service, e))?;
    crash_point::reach("model.testing");
    let unusable = |e: &(dyn std::error::Error + 'static)| Failure::new(Exit::Config, super::chain(e));
    let bundle = Bundle::open(directory).map_err(|e| unusable(&e))?;
    let mut localizer = Localizer::new(&bundle).map_err(|e| unusable(&e))?;
    let off_px = localizer.self_test(&bundle).map_err(|e| unusable(&e))?;
    if off_px.is_nan() || off_px > SELF_TEST_TOLERANCE_PX {
        let text = format!(
            "on the bundle's golden film a landmark is {off_px:.2} px from where it should be, \
             {SELF_TEST_TOLERANCE_PX} px are allowed"
        );
        return Err(Failure::new(Exit::BadInput, text));
    }
    let passed = Passed { off_px, backend: localizer.backend().to_owned() };
    Ok(writeln!(io::stdout().lock(), "{}", to_json(&passed))?)
}

impl Store {
    fn registry(&self) -> Result<Registry, Failure> {
        if let Some(state) = &self.state {
            return Ok(Registry::new(state));
        }
        let loaded = config::load(&self.config).map_err(|errors| Failure::new(Exit::Config, errors))?;
        if let Some(directory) = &loaded.settings.model.directory {
            tracing::warn!(
                "model.directory = {:?} of the configuration serves, whatever is activated: remove it to have a choice",
                directory.display().to_string()
            );
        }
        Ok(Registry::new(&loaded.settings.state.directory))
    }
}

fn open(file: &Path, trust: &Path) -> Result<Archive, Failure> {
    let trusted = TrustedKeys::read(trust).map_err(|e| failure(ArchiveError::from(e).into()))?;
    Archive::open(file, &trusted).map_err(|e| failure(e.into()))
}

/// A directory for one look into an archive; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> Result<Self, Failure> {
        // That it is there already is an error: nobody can put one in our way that is theirs.
        let path = std::env::temp_dir().join(format!("landmarkd-verify-{}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| Failure::new(Exit::Io, format!("cannot make {}: {e}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What the system's cleaner of temporary files is for.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn print(report: &impl Report, json: bool) -> Result<(), Failure> {
    let text = if json { to_json(report) + "\n" } else { report.text() };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("reports are plain data")
}

fn failure(error: RegistryError) -> Failure {
    let exit = match &error {
        RegistryError::Io { .. } | RegistryError::Archive(ArchiveError::Write { .. }) => Exit::Io,
        RegistryError::Busy(_) | RegistryError::SelfTest { source: SelfTestError::NotRun(_), .. } => Exit::Service,
        RegistryError::NoState(_)
        | RegistryError::WrongUser { .. }
        | RegistryError::Damaged { .. }
        | RegistryError::NothingServes { .. }
        | RegistryError::Archive(ArchiveError::Signature(
            SignatureError::Keys { .. }
            | SignatureError::Writable { .. }
            | SignatureError::Key { .. }
            | SignatureError::NobodyTrusted { .. },
        )) => Exit::Config,
        RegistryError::NotInstalled { .. }
        | RegistryError::NothingActive
        | RegistryError::NoWayBack(_)
        | RegistryError::Archive(ArchiveError::Read { .. }) => Exit::NoInput,
        RegistryError::Archive(_)
        | RegistryError::Broken { .. }
        | RegistryError::SelfTest { .. }
        | RegistryError::Taken(_)
        | RegistryError::Older { .. } => Exit::BadInput,
    };
    Failure::new(exit, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NOT_CONFINED, OFF, UNUSABLE};

    #[test]
    fn the_childs_exit_codes_are_those_that_its_parent_knows() {
        let ours = (Exit::Config as u8, Exit::BadInput as u8, Exit::Service as u8);
        assert_eq!(ours, (UNUSABLE, OFF, NOT_CONFINED));
    }
}
