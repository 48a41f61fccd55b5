//! Learning rate over a run.

/// The rate of an epoch: falls linearly from `lr` to `lr * end_factor` over all epochs, stepped per epoch.
///
/// # Examples
/// ```
/// use landmarkd::train::linear_rate;
/// assert_eq!(linear_rate(4e-4, 0.01, 0, 100), 4e-4);
/// assert!((linear_rate(4e-4, 0.01, 100, 100) - 4e-6).abs() < 1e-12);
/// ```
#[must_use]
pub fn linear_rate(lr: f64, end_factor: f64, epoch: usize, epochs: usize) -> f64 {
    let progress = epoch.min(epochs) as f64 / epochs.max(1) as f64;
    lr * (1.0 - progress * (1.0 - end_factor))
}
