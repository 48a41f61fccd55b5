//! `landmarkd predict`: the landmarks of films, without a daemon.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use image::ColorType;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::film_files::{MAX_FILE_BYTES, MAX_PIXELS, PictureFolder, picture_names, read_film};
use super::{Exit, Failure, chain, logging, table};
use crate::analysis::{Analysis, Analyst, AnalystOptions};
use crate::config::default_model_directory;
use crate::geometry::{PixelSpacing, SpacingSource};
use crate::measure::Norms;
use crate::model::Bundle;
use crate::overlay;
use crate::report::{FilmResult, Stage, TokenKey};

/// The arguments of `predict`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The model bundle [default: models/ceph19-nfdp here, beside the program or below /usr/share/landmarkd]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print one JSON object a line, in the order of FILES, and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Write each film with its landmarks drawn on it as DIR/NAME.png
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
    /// Write what the network saw, the exact 8-bit input, as DIR/NAME.png
    #[arg(long, value_name = "DIR")]
    frame: Option<PathBuf>,
    /// The scale, in millimetres per pixel, of films that state none
    #[arg(long, value_name = "MM", value_parser = millimetres)]
    pixel_spacing: Option<f64>,
    /// DICOM, PNG, JPEG, TIFF or BMP, told apart by content
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

const AFTER_HELP: &str = "\
NAME is the film's file name without its extension; where that repeats, -2, -3, .. is added in the order of FILES.
One bad film stops nothing. The exit code is 65 if any film was bad, 66 if not one could be opened, \
74 if a picture could not be written.";

/// Localizes the landmarks of every film.
///
/// Tokens of DICOM UIDs are keyed with a key made for this call, so they match nothing the daemon publishes (R31).
///
/// # Errors
/// [`Exit::NoInput`] without a model or any readable film, [`Exit::Config`] for a broken model, [`Exit::BadInput`]
/// when any film was bad, [`Exit::Io`] when output cannot be written.
pub fn predict(arguments: &Arguments) -> Result<(), Failure> {
    logging::start(&logging::for_people());
    let folder = |path: &Option<PathBuf>| -> Result<Option<PictureFolder>, Failure> {
        let Some(path) = path else { return Ok(None) };
        let folder = PictureFolder::create(path).map_err(|e| Failure::new(Exit::Io, at(path, &e)))?;
        Ok(Some(folder))
    };
    let pictures = Pictures { overlay: folder(&arguments.overlay)?, frame: folder(&arguments.frame)? };
    let options = AnalystOptions {
        max_pixels: MAX_PIXELS,
        pixel_spacing: arguments.pixel_spacing.map(|mm| PixelSpacing {
            x_mm: mm,
            y_mm: mm,
            source: SpacingSource::Config,
        }),
        norms: Norms::default(),
        token_key: TokenKey::new(throwaway_key()?),
    };
    let bundle = open_bundle(&model_directory(arguments.model.as_deref())?)?;
    let mut analyst = Analyst::new(&bundle, options).map_err(|e| Failure::new(Exit::Config, e))?;

    let bar = progress_bar(arguments.files.len());
    let mut tally = Tally::default();
    for (file, name) in std::iter::zip(&arguments.files, picture_names(&arguments.files)) {
        bar.set_message(file.display().to_string());
        let outcome = read_film(file, MAX_FILE_BYTES)
            .map_err(|e| Refusal { stage: Stage::Read, message: e.to_string() })
            .and_then(|bytes| analyst.analyse(&bytes).map_err(|e| Refusal { stage: e.stage(), message: chain(&e) }));
        tally.count(&outcome);
        bar.suspend(|| -> io::Result<()> {
            if let Ok(analysis) = &outcome {
                tally.unwritten += pictures.write(&name, analysis);
            }
            let outcome = outcome.as_ref().map(|analysis| &analysis.result);
            if arguments.json { print_json(file, outcome) } else { print_table(file, outcome) }
        })?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    tally.verdict()
}

/// The bundle's directory, as named or by default.
///
/// # Errors
/// [`Exit::NoInput`] where there is none.
pub(super) fn model_directory(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let directory = named.map_or_else(default_model_directory, Path::to_path_buf);
    if directory.is_dir() {
        Ok(directory)
    } else {
        let text = format!("there is no model bundle in {}; name one with --model DIR", directory.display());
        Err(Failure::new(Exit::NoInput, text))
    }
}

/// The bundle in a directory.
///
/// # Errors
/// [`Exit::Config`] where it is broken.
pub(super) fn open_bundle(directory: &Path) -> Result<Bundle, Failure> {
    Bundle::open(directory).map_err(|e| Failure::new(Exit::Config, e))
}

/// A key that nobody knows, for tokens that nobody needs to match.
///
/// # Errors
/// When the system has no randomness to give.
pub(super) fn throwaway_key() -> Result<[u8; 32], Failure> {
    let mut key = [0; 32];
    let filled = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty()).map_err(io::Error::from)?;
    if filled == key.len() { Ok(key) } else { Err(Failure::new(Exit::Io, "the system gave too few random bytes")) }
}

/// Why a film has no landmarks.
#[derive(Debug, Serialize)]
struct Refusal {
    stage: Stage,
    message: String,
}

#[derive(Default)]
struct Tally {
    films: usize,
    bad: usize,
    unread: usize,
    unwritten: usize,
}

impl Tally {
    fn count(&mut self, outcome: &Result<Analysis, Refusal>) {
        self.films += 1;
        self.bad += usize::from(outcome.is_err());
        self.unread += usize::from(outcome.as_ref().is_err_and(|refusal| refusal.stage == Stage::Read));
    }

    fn verdict(&self) -> Result<(), Failure> {
        let Self { films, bad, unread, unwritten } = *self;
        if unwritten > 0 {
            return Err(Failure::new(Exit::Io, format!("{unwritten} pictures could not be written")));
        }
        if unread == films {
            return Err(Failure::new(Exit::NoInput, format!("none of {films} films could be read")));
        }
        if bad > 0 {
            return Err(Failure::new(Exit::BadInput, format!("{bad} of {films} films were bad")));
        }
        Ok(())
    }
}

struct Pictures {
    overlay: Option<PictureFolder>,
    frame: Option<PictureFolder>,
}

impl Pictures {
    /// Writes the pictures of a film and returns how many of them could not be written.
    fn write(&self, name: &OsStr, analysis: &Analysis) -> usize {
        let Analysis { result, radiograph, landmarks, input } = analysis;
        let mut unwritten = 0;
        let mut report = |written: io::Result<PathBuf>| {
            if let Err(e) = written {
                eprintln!("{}.png: {e}", Path::new(name).display());
                unwritten += 1;
            }
        };
        if let Some(folder) = &self.overlay {
            let title = format!("{} {}", result.model.name, result.model.version);
            let picture = overlay::draw(radiograph, landmarks, result.image.spacing, &title);
            report(folder.write(name, picture.as_raw(), picture.dimensions(), ColorType::Rgb8));
        }
        if let Some(folder) = &self.frame {
            report(folder.write(name, &input.pixels, (input.size.width, input.size.height), ColorType::L8));
        }
        unwritten
    }
}

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    file: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a FilmResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Refusal>,
}

fn print_json(file: &Path, outcome: Result<&FilmResult, &Refusal>) -> io::Result<()> {
    // JSON is Unicode: what is not in the file's name becomes a replacement character.
    let file = file.to_string_lossy().into_owned();
    let line = Line { file, ok: outcome.is_ok(), data: outcome.ok(), error: outcome.err() };
    let mut text = serde_json::to_string(&line)?;
    text.push('\n');
    io::stdout().lock().write_all(text.as_bytes())
}

fn print_table(file: &Path, outcome: Result<&FilmResult, &Refusal>) -> io::Result<()> {
    match outcome {
        Ok(result) => {
            let table = table::film_table(&file.to_string_lossy(), result);
            writeln!(io::stdout().lock(), "{table}")
        }
        Err(Refusal { stage, message }) => {
            let stage = match stage {
                Stage::Read => "cannot be read",
                Stage::Decode => "cannot be decoded",
                Stage::Inference => "inference failed",
                Stage::Crash => "ended the program before",
                Stage::Report => "cannot be reported",
            };
            eprintln!("{}: {stage}: {message}", file.display());
            Ok(())
        }
    }
}

/// A bar on standard error; hidden where that is no terminal.
fn progress_bar(films: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(films as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} films, {eta} left  {wide_msg}");
    bar.with_style(style.expect("the template is well-formed"))
}

fn at(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn millimetres(text: &str) -> Result<f64, String> {
    let mm = text.parse::<f64>().map_err(|e| e.to_string())?;
    if (0.001..=10.0).contains(&mm) { Ok(mm) } else { Err("it takes 0.001 to 10 millimetres".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_what_was_worst() {
        for (films, bad, unread, unwritten, expected) in [
            (2, 0, 0, 0, None),
            (2, 1, 0, 0, Some(Exit::BadInput)),
            (2, 1, 1, 0, Some(Exit::BadInput)),
            (2, 2, 1, 0, Some(Exit::BadInput)),
            (2, 2, 2, 0, Some(Exit::NoInput)),
            (2, 1, 0, 1, Some(Exit::Io)),
        ] {
            let tally = Tally { films, bad, unread, unwritten };
            assert_eq!(tally.verdict().err().map(|failure| failure.exit), expected);
        }
    }
}
