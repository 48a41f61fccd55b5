//! What a training run is told: a preset, or the user's own TOML file.

use serde::{Deserialize, Serialize};

use super::augment::AugmentConfig;
use crate::geometry::Size;

const CEPH: &str = include_str!("presets/ceph.toml");

/// Everything that shapes a run; what is absent in the file is refused, so that a run's record is complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Input columns and rows, multiples of 32.
    pub frame: Size,
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
    /// Logits clamped at zero before the softmax, as in the paper's code.
    pub heatmap_relu: bool,
    /// Every nth training film validates.
    pub hold_out_every: usize,
    /// Epochs between validations (and between checkpoints).
    pub validate_every: usize,
    /// The ranges of the augmentation.
    pub augment: AugmentConfig,
}

impl TrainConfig {
    /// The preset called `name`, if there is one.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "ceph" => Some(toml::from_str(CEPH).expect("the shipped presets parse, a test says so")),
            _ => None,
        }
    }

    /// Whether a network can be built and trained like this.
    ///
    /// # Errors
    /// One sentence that names the key, its value and what it should be.
    pub fn check(&self) -> Result<(), String> {
        let Size { width, height } = self.frame;
        if width == 0 || height == 0 || !width.is_multiple_of(32) || !height.is_multiple_of(32) {
            return Err(format!("frame = {}: both sides must be multiples of 32", self.frame));
        }
        for (key, value) in [("batch", self.batch), ("epochs", self.epochs), ("validate_every", self.validate_every)] {
            if value == 0 {
                return Err(format!("{key} = 0: must be at least 1"));
            }
        }
        if self.lr.is_nan() || self.lr <= 0.0 {
            return Err(format!("lr = {}: must be above 0", self.lr));
        }
        if !(0.0..1.0).contains(&self.average_decay) {
            return Err(format!("average_decay = {}: must be at least 0 and below 1", self.average_decay));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_preset_is_the_papers() {
        let preset = TrainConfig::preset("ceph").expect("it is shipped");
        assert_eq!(preset.check(), Ok(()));
        assert_eq!((preset.frame, preset.batch, preset.epochs), (Size::new(512, 512), 16, 300));
        assert_eq!((preset.lr, preset.lr_end_factor, preset.heatmap_relu), (4e-4, 0.01, true));
        assert_eq!(preset.augment, AugmentConfig::default());
        assert_eq!(TrainConfig::preset("foot"), None);
    }

    #[test]
    fn impossible_values_are_named() {
        let mut config = TrainConfig::preset("ceph").expect("it is shipped");
        config.frame = Size::new(500, 512);
        assert_eq!(config.check(), Err("frame = 500x512: both sides must be multiples of 32".into()));
    }
}
