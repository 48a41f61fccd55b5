//! The shared vocabulary: a landmark and where it was found.

use crate::geometry::Point;

/// One localized landmark, in the pixels of the image that its holder names.
#[derive(Clone, Debug, PartialEq)]
pub struct Landmark {
    /// The field's name, as in the bundle's manifest ("sella", "nasion", ..).
    pub name: String,
    /// Where it is, in pixels.
    pub point: Point,
    /// The predicted scale of the residual on x and y, in pixels (NFDP's sigma head).
    pub sigma_px: [f64; 2],
    /// Radius of the disc around it that holds the true landmark in 95 % of cases, in pixels, where the bundle says so.
    pub radius95_px: Option<f64>,
    /// `1 - mean(sigma)` in the network's normalised units: 1 is certain.
    pub score: f64,
}

/// The 19 cephalometric landmarks of the ISBI 2015 data set, in its order.
pub const CEPHALOGRAM_NAMES: [&str; 19] = [
    "sella",
    "nasion",
    "orbitale",
    "porion",
    "subspinale",
    "supramentale",
    "pogonion",
    "menton",
    "gnathion",
    "gonion",
    "incision_inferius",
    "incision_superius",
    "upper_lip",
    "lower_lip",
    "subnasale",
    "soft_tissue_pogonion",
    "posterior_nasal_spine",
    "anterior_nasal_spine",
    "articulare",
];
