//! The model card: what a bundle is, how it came about and what was measured, in Markdown.

use std::fmt::Write as _;

use super::calibration::Coverage;
use super::publish::{Measured, Publication};
use super::statistics::mean;
use crate::geometry::{Frame, Point};
use crate::landmark::CEPHALOGRAM_NAMES;
use crate::measure::MeasureSet;
use crate::model::{Manifest, Metrics};

/// Landmark 16 of the ISBI films, soft-tissue pogonion: the readers themselves place it 9 mm apart.
const DISPUTED: usize = 15;

/// The card of a bundle that says what `manifest` says.
pub(super) fn card(manifest: &Manifest, measured: &[Measured], publication: &Publication<'_>) -> String {
    let mut text = head(manifest, publication);
    results(&mut text, measured);
    if let Some(first) = measured.first() {
        landmarks(&mut text, first, &manifest.landmarks);
    }
    uncertainty(&mut text, measured);
    let golden = &manifest.golden;
    let apart = mean_distance(&golden.expected_px, &golden.true_px);
    let _ = write!(
        text,
        "\n## Golden film\n\n`{}` ({}): {}. On it this network lies {apart:.2} px from the true mean shape on average; \
         `manifest.json` holds both. Every start of the daemon compares against it.\n",
        golden.file, golden.size, golden.origin
    );
    text
}

fn head(manifest: &Manifest, publication: &Publication<'_>) -> String {
    let Manifest { name, version, network, landmarks, training, notice, licence, .. } = manifest;
    let Publication { config, anatomy, .. } = publication;
    let Frame { width, height, enlargement } = network.frame;
    let loss =
        if config.flow { "The normalizing flow it was trained with is not in it." } else { "Trained without a flow." };
    format!(
        "# {name} {version}\n\n{notice}\n\nLocalizes {} landmarks on {anatomy}: the {} model of NFDP (Huang et al., IEEE \
         TMI 2024), ResNet-18, input {width}x{height}, box enlarged {enlargement} times, one gray channel, weights stored \
         as f16. {loss}\n\n## Training\n\n- Data: {}\n- Films: {}\n- Start: {}\n- Procedure: {}\n- Licence of the \
         weights: {licence}\n\n```toml\n{}```\n",
        landmarks.len(),
        config.model,
        training.data,
        training.films,
        training.initialisation,
        training.procedure,
        toml::to_string(config).unwrap_or_default(),
    )
}

fn results(text: &mut String, measured: &[Measured]) {
    text.push_str(
        "\n## Measured\n\nExact protocol: sub-pixel, in source pixels, millimetres by each film's own scale. The checkpoint \
         was chosen on the validation films alone.\n",
    );
    for Measured { test, mean_differences_deg, kept_apart, .. } in measured {
        let Metrics { data, truth, films, unit, mre, sd, sdr, smape_percent } = test;
        if !kept_apart {
            text.push_str(
                "\nNo films were kept apart to measure on: what follows was measured on the validation films, by which the \
                 epoch was chosen, and flatters.\n",
            );
        }
        let _ = write!(text, "\n| films of | truth | films | MRE {unit} | SD {unit} |");
        for rate in sdr {
            let _ = write!(text, " SDR {} {unit} % |", rate.within);
        }
        let _ = write!(
            text,
            "\n|---|---|---|---|---|{}\n| {data} | {truth} | {films} | {mre:.3} | {sd:.3} |",
            "---|".repeat(sdr.len())
        );
        for rate in sdr {
            let _ = write!(text, " {:.2} |", rate.percent);
        }
        text.push('\n');
        if let (Some(smape), Some([first, second, third])) = (smape_percent, mean_differences_deg) {
            let _ = writeln!(
                text,
                "\nCobb angles: SMAPE {smape:.2} %; mean absolute differences {first:.2}, {second:.2} and {third:.2} \
                 degrees."
            );
        }
    }
}

fn landmarks(text: &mut String, measured: &Measured, names: &[String]) {
    let Measured { test, by_landmark, within_radius95, .. } = measured;
    let Metrics { data, truth, unit, .. } = test;
    if names == CEPHALOGRAM_NAMES {
        let others = |(k, _): &(usize, &Vec<f64>)| *k != DISPUTED;
        let without: Vec<f64> =
            by_landmark.iter().enumerate().filter(others).flat_map(|(_, errors)| errors.iter().copied()).collect();
        let within = without.iter().filter(|&&e| e <= 2.0).count() as f64 / without.len() as f64;
        let _ = write!(
            text,
            "\nWithout landmark {} ({}), which is a matter of convention: MRE {:.3} {unit}, {:.2} % within 2 {unit}.\n",
            DISPUTED + 1,
            names[DISPUTED],
            mean(&without),
            100.0 * within
        );
    }
    let _ = write!(
        text,
        "\nOn {data} against {truth}:\n\n| landmark | MRE {unit} | within its 95 % radius, % |\n|---|---|---|\n"
    );
    // Of a spine, a line a vertebra: four corners each.
    let per_line = if names == MeasureSet::SpineAasce2019.landmarks() { 4 } else { 1 };
    let shares = within_radius95.chunks(per_line);
    for ((names, errors), shares) in names.chunks(per_line).zip(by_landmark.chunks(per_line)).zip(shares) {
        let name = if per_line == 1 { names[0].as_str() } else { names[0].trim_end_matches("_top_left") };
        let _ = writeln!(text, "| {name} | {:.2} | {:.1} |", mean(&errors.concat()), 100.0 * mean(shares));
    }
}

fn uncertainty(text: &mut String, measured: &[Measured]) {
    text.push_str(
        "\n## Uncertainty\n\nSigma is multiplied so that 68.3 % of the errors on x and y of the validation films lie within it, \
         half by a landmark's own factor and half, in ratio, by that of all. `radius95_px` is a split-conformal radius in \
         units of this sigma: its promise holds over all landmarks together, not for each. ",
    );
    if !measured.iter().any(|measured| measured.kept_apart) {
        text.push_str(
            "No films were kept apart from those that set both, so how well they hold on others is not measured.\n",
        );
        return;
    }
    text.push_str(
        "Share of the test films within them:\n\n| test set | truth | one sigma % | 90 % radius | 95 % radius |\n\
         |---|---|---|---|---|\n",
    );
    for Measured { test, coverage, .. } in measured.iter().filter(|measured| measured.kept_apart) {
        let Coverage { sigma, radius90, radius95 } = coverage;
        let [sigma, radius90, radius95] = [sigma, radius90, radius95].map(|share| 100.0 * share);
        let Metrics { data, truth, .. } = test;
        let _ = writeln!(text, "| {data} | {truth} | {sigma:.1} | {radius90:.1} | {radius95:.1} |");
    }
}

fn mean_distance(a: &[Point], b: &[Point]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.distance(*b)).sum::<f64>() / a.len().max(1) as f64
}
