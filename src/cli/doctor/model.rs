//! The model bundle that serves: whole, and right on this machine.

use std::path::PathBuf;
use std::time::Instant;

use super::{Check, accelerator};
use crate::analysis::{Analyst, AnalystOptions};
use crate::cli::predict::throwaway_key;
use crate::cli::{Exit, Failure, chain};
use crate::config::{ModelSettings, Settings};
use crate::inference::SELF_TEST_TOLERANCE_PX;
use crate::model::{Bundle, Registry};
use crate::report::TokenKey;

/// Below half of what is allowed nobody needs to look.
const ROUGH_SHARE: f64 = 0.5;

/// The bundle's digests, and the network on its golden film.
pub(super) fn check(settings: &Settings) -> Vec<Check> {
    let (directory, whence) = match serving(settings) {
        Ok(chosen) => chosen,
        Err(words) => {
            let remedy = "say anew which bundle serves: landmarkd model activate NAME VERSION";
            return vec![Check::fail("model", words, remedy)];
        }
    };
    let bundle = match Bundle::open(&directory) {
        Ok(bundle) => bundle,
        Err(error) => {
            let words = format!("{}: {}", directory.display(), chain(&error));
            return vec![Check::fail(
                "model",
                words,
                "install the bundle again, or choose another: landmarkd model list",
            )];
        }
    };
    let manifest = bundle.manifest();
    let words = format!(
        "{} {} in {}, {whence}: every file has its digest, network {}",
        manifest.name,
        manifest.version,
        directory.display(),
        bundle.network_sha256().get(..12).unwrap_or_default()
    );
    vec![Check::ok("model", words), self_test(settings, &bundle), accelerator::check(settings, &bundle)]
}

/// Where the bundle lies that the daemon takes at its next start, and who says so.
pub(super) fn serving(settings: &Settings) -> Result<(PathBuf, &'static str), String> {
    let ModelSettings { directory, packaged } = &settings.model;
    if let Some(directory) = directory {
        return Ok((directory.clone(), "named by model.directory"));
    }
    let registry = Registry::new(&settings.state.directory);
    match registry.selection() {
        Ok(Some(selection)) => Ok((registry.directory(&selection.active), "activated")),
        Ok(None) => Ok((packaged.clone(), "packaged")),
        Err(error) => Err(chain(&error)),
    }
}

fn self_test(settings: &Settings, bundle: &Bundle) -> Check {
    let name = "self-test";
    let remedy = "install the bundle again; if it fails still, this machine computes wrongly: try another";
    match measured(settings, bundle) {
        Ok(Measured { off_px, backend, loading_ms, film_ms }) => {
            let words = format!(
                "on its golden film within {off_px:.3} px of {SELF_TEST_TOLERANCE_PX} px allowed, {film_ms} ms on \
                 {backend} after {loading_ms} ms of loading"
            );
            if off_px > SELF_TEST_TOLERANCE_PX {
                Check::fail(name, words, remedy)
            } else if off_px > ROUGH_SHARE * SELF_TEST_TOLERANCE_PX {
                Check::warn(name, words, "compare with another machine: this one computes less exactly than most")
            } else {
                Check::ok(name, words)
            }
        }
        Err(failure) => Check::fail(name, failure.to_string(), remedy),
    }
}

/// The network on the golden film.
struct Measured {
    off_px: f64,
    backend: String,
    loading_ms: u128,
    film_ms: u128,
}

fn measured(settings: &Settings, bundle: &Bundle) -> Result<Measured, Failure> {
    let options = AnalystOptions {
        max_pixels: settings.acquisition.max_pixels,
        pixel_spacing: settings.acquisition.pixel_spacing,
        norms: settings.measures.clone(),
        // No token of this analyst leaves it.
        token_key: TokenKey::new(throwaway_key()?),
    };
    let failed = |error| Failure::new(Exit::Config, error);
    let began = Instant::now();
    let mut analyst = Analyst::new(bundle, options).map_err(failed)?;
    let loading_ms = began.elapsed().as_millis();
    let off_px = analyst.self_test(bundle).map_err(failed)?;
    let film_ms = began.elapsed().as_millis() - loading_ms;
    Ok(Measured { off_px, backend: analyst.model().backend.clone(), loading_ms, film_ms })
}
