//! `landmarkd demo`: the whole way once, on this machine, in a minute.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::ImageFormat;

use super::predict::{model_directory, open_bundle, throwaway_key};
use super::session::Session;
use super::{Exit, Failure, film_files, logging};
use crate::analysis::{Analyst, AnalystOptions};
use crate::measure::Norms;
use crate::overlay;
use crate::report::TokenKey;

/// The film is renamed into the folder in one step, so it needs no rest.
const SETTLE: Duration = Duration::from_millis(200);

/// The arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The model bundle [default: models/ceph19-nfdp here, beside the program or below /usr/share/landmarkd]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Where to draw the film with its landmarks [default: a new file in the temporary folder]
    #[arg(long, value_name = "FILE")]
    overlay: Option<PathBuf>,
}

/// Drops the bundle's golden film into the folder of a real daemon and prints what a subscriber gets.
///
/// # Errors
/// When any part of the way does not work.
pub fn demo(arguments: &Arguments) -> Result<(), Failure> {
    logging::start(&logging::for_people());
    let model = model_directory(arguments.model.as_deref())?;
    let bundle = open_bundle(&model)?;
    let film = bundle.golden().to_vec();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(travel(model, &film))?;

    let options = AnalystOptions {
        max_pixels: film_files::MAX_PIXELS,
        pixel_spacing: None,
        norms: Norms::default(),
        token_key: TokenKey::new(throwaway_key()?),
    };
    let analysed = Analyst::new(&bundle, options).map_err(|e| Failure::new(Exit::Config, e))?.analyse(&film);
    let analysis = analysed.map_err(|e| Failure::new(Exit::BadInput, e))?;
    let title = format!("{} {}", analysis.result.model.name, analysis.result.model.version);
    let picture = overlay::draw(&analysis.radiograph, &analysis.landmarks, analysis.result.image.spacing, &title);
    let (path, file) = create(arguments.overlay.as_deref())?;
    let mut file = BufWriter::new(file);
    picture.write_to(&mut file, ImageFormat::Png).map_err(|e| Failure::new(Exit::Io, e))?;
    file.flush()?;
    say(&format!("drawn:     {}", path.display()))?;
    Ok(())
}

async fn travel(model: PathBuf, film: &[u8]) -> Result<(), Failure> {
    let mut session = Session::start(model, SETTLE).await?;
    say(&format!("broker:    127.0.0.1:{}", session.port()))?;
    say(&format!("watching:  {}", session.folder().display()))?;
    let closed = session.drop_film("golden.png", film)?;
    say("film:      golden.png, the bundle's golden film")?;
    let delivery = session.next_event().await?;
    let event: serde_json::Value = serde_json::from_slice(&delivery.payload).map_err(|e| Failure::new(Exit::Bug, e))?;
    let text = serde_json::to_string_pretty(&event).map_err(|e| Failure::new(Exit::Bug, e))?;
    let ms = delivery.acknowledged.saturating_duration_since(closed).as_millis();
    say(&format!(
        "received:  {} after {ms} ms, of which {} ms to let the file settle",
        delivery.topic,
        SETTLE.as_millis()
    ))?;
    say(&text)?;
    session.stop().await
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// The file of the picture: as told, or a new one under a name that nobody can have prepared.
fn create(path: Option<&Path>) -> Result<(PathBuf, std::fs::File), Failure> {
    let mut options = OpenOptions::new();
    options.write(true);
    let path = match path {
        Some(path) => {
            options.create(true).truncate(true);
            path.to_path_buf()
        }
        None => {
            options.create_new(true);
            let [a, b, c, d, ..] = throwaway_key()?;
            std::env::temp_dir().join(format!("landmarkd-demo-{a:02x}{b:02x}{c:02x}{d:02x}.png"))
        }
    };
    let file = options.open(&path).map_err(|e| Failure::new(Exit::Io, format!("{}: {e}", path.display())))?;
    Ok((path, file))
}
