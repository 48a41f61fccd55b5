//! What a training run is told: a preset, or the user's own TOML file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::architecture::{Architecture, Model};
use super::augment::AugmentConfig;
use super::mirror::mirror_partners;
use crate::geometry::Frame;

/// Everything that shapes a run. The keys of the paper must be in the file; what is beside the paper, and the ranges of
/// the augmentation, have their defaults. A run's own record holds every key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Input columns and rows, multiples of 32.
    pub frame: Frame,
    /// Films a step.
    pub batch: usize,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// Learning rate of the first epoch.
    pub lr: f64,
    /// The last epoch's rate as a share of the first's.
    pub lr_end_factor: f64,
    /// Of weights, order and augmentation.
    pub seed: u64,
    /// Decay of the weights' moving average; 0 turns it off.
    pub average_decay: f64,
    /// Heatmaps or regression.
    #[serde(default)]
    pub model: Model,
    /// Whether a normalizing flow learns the residuals' distribution with the network: the paper's own part. Without it
    /// the loss is the distance of coordinates along the axes, and sigma learns nothing.
    #[serde(default = "yes")]
    pub flow: bool,
    /// Of heatmaps: logits clamped at zero before the softmax, as in the paper's code.
    pub heatmap_relu: bool,
    /// Of heatmaps: what logits are divided by before the softmax.
    #[serde(default = "one")]
    pub temperature: f64,
    /// Of heatmaps: coarse levels of the neck added to fine ones.
    #[serde(default)]
    pub top_down: bool,
    /// Every nth training film validates.
    pub hold_out_every: usize,
    /// Epochs between validations (and between checkpoints).
    pub validate_every: usize,
    /// The ranges of the augmentation.
    pub augment: AugmentConfig,
}

const fn yes() -> bool {
    true
}

const fn one() -> f64 {
    1.0
}

impl TrainConfig {
    /// The names of the presets.
    pub const PRESETS: [&str; 4] = ["ceph", "hand", "spine", "spine-regression"];

    /// The network it trains, for `landmarks` landmarks.
    #[must_use]
    pub const fn architecture(&self, landmarks: usize) -> Architecture {
        let Self { model, heatmap_relu, temperature, top_down, .. } = *self;
        Architecture { model, landmarks, heatmap_relu, temperature, top_down }
    }

    /// The landmark that each of `landmarks` becomes on a mirrored film; `None` where no film is mirrored.
    ///
    /// # Errors
    /// When films are to be mirrored and these landmarks have no sides: see [`mirror_partners`].
    pub fn mirror_partners(&self, landmarks: &[String]) -> Result<Option<Arc<[usize]>>, String> {
        if self.augment.mirror == 0.0 {
            return Ok(None);
        }
        mirror_partners(landmarks).map(|partners| Some(partners.into()))
    }

    /// The preset called `name`, if there is one.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let text = match name {
            "ceph" => include_str!("presets/ceph.toml"),
            "hand" => include_str!("presets/hand.toml"),
            "spine" => include_str!("presets/spine.toml"),
            "spine-regression" => include_str!("presets/spine-regression.toml"),
            _ => return None,
        };
        Some(toml::from_str(text).expect("the shipped presets parse, a test says so"))
    }

    /// Whether a network can be built and trained like this.
    ///
    /// # Errors
    /// One sentence that names the key, its value and what it should be.
    pub fn check(&self) -> Result<(), String> {
        let Frame { width, height, enlargement } = self.frame;
        if width == 0 || height == 0 || !width.is_multiple_of(32) || !height.is_multiple_of(32) {
            return Err(format!("frame = {}: both sides must be multiples of 32", self.frame));
        }
        if !(1.0..=4.0).contains(&enlargement) {
            return Err(format!("frame.enlargement = {enlargement}: must be 1 to 4"));
        }
        for (key, value) in [("batch", self.batch), ("epochs", self.epochs), ("validate_every", self.validate_every)] {
            if value == 0 {
                return Err(format!("{key} = 0: must be at least 1"));
            }
        }
        if !(0.01..=100.0).contains(&self.temperature) {
            return Err(format!("temperature = {}: must be 0.01 to 100", self.temperature));
        }
        if !self.lr.is_finite() || self.lr <= 0.0 {
            return Err(format!("lr = {}: must be above 0", self.lr));
        }
        if !(0.0..1.0).contains(&self.average_decay) {
            return Err(format!("average_decay = {}: must be at least 0 and below 1", self.average_decay));
        }
        if !(0.0..=1.0).contains(&self.lr_end_factor) {
            return Err(format!("lr_end_factor = {}: must be 0 to 1, a share of `lr`", self.lr_end_factor));
        }
        self.augment.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_preset_is_the_papers() {
        let preset = TrainConfig::preset("ceph").expect("it is shipped");
        assert_eq!(preset.check(), Ok(()));
        assert_eq!((preset.frame, preset.batch, preset.epochs), (Frame::new(512, 512), 16, 300));
        assert_eq!((preset.lr, preset.lr_end_factor, preset.heatmap_relu), (4e-4, 0.01, true));
        assert_eq!(preset.augment, AugmentConfig::default());
        assert_eq!(TrainConfig::preset("foot"), None);
        // Frame (columns x rows), batch, epochs, rate and its last share, of the paper's table.
        for (name, model, frame, batch, epochs, lr, end) in [
            ("ceph", Model::Heatmap, Frame::new(512, 512), 16, 300, 4e-4, 0.01),
            ("hand", Model::Heatmap, Frame::new(512, 512), 16, 200, 8e-4, 0.3),
            ("spine", Model::Heatmap, Frame::new(256, 512), 32, 300, 8e-4, 0.01),
            ("spine-regression", Model::Regression, Frame::new(256, 512), 8, 300, 1e-3, 0.001),
        ] {
            let preset = TrainConfig::preset(name).expect("it is shipped");
            assert_eq!(preset.check(), Ok(()), "{name}");
            assert_eq!((preset.model, preset.frame, preset.batch, preset.epochs), (model, frame, batch, epochs));
            assert_eq!((preset.lr, preset.lr_end_factor, preset.flow), (lr, end, true), "{name}");
            assert!(TrainConfig::PRESETS.contains(&name));
        }
    }

    #[test]
    fn impossible_values_are_named() {
        let mut config = TrainConfig::preset("ceph").expect("it is shipped");
        config.frame = Frame::new(500, 512);
        assert_eq!(config.check(), Err("frame = 500x512: both sides must be multiples of 32".into()));
        let refused = |change: fn(&mut TrainConfig)| {
            let mut config = TrainConfig::preset("ceph").expect("it is shipped");
            change(&mut config);
            config.check().expect_err("refused")
        };
        assert_eq!(
            refused(|config| config.augment.crop_probability = 1.5),
            "augment.crop_probability = 1.5: must be 0 to 1, a share of the films"
        );
        assert_eq!(refused(|config| config.augment.scale = [1.2, 1.3]), "augment.scale[0] = 1.2: must be 0.1 to 1");
        assert_eq!(
            refused(|config| config.augment.shift = f64::NAN),
            "augment.shift = NaN: must be 0 to 1, a share of the box"
        );
        assert_eq!(
            refused(|config| config.lr_end_factor = -3.0),
            "lr_end_factor = -3: must be 0 to 1, a share of `lr`"
        );
        assert_eq!(refused(|config| config.lr = f64::INFINITY), "lr = inf: must be above 0");
    }
}
