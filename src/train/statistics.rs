//! Means and quantiles of errors.

use super::reference::Protocol;

/// Steps in one unit that errors and figures are kept to.
pub(super) const STEPS_PER_UNIT: f64 = 1e6;

/// The nearest whole step; never -0.
pub(super) fn rounded(value: f64) -> f64 {
    (value * STEPS_PER_UNIT).round() / STEPS_PER_UNIT + 0.0
}

/// The value below which a `share` (0 to 1) of the values lies, linear between neighbours; of at least one value, in
/// order.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * at.fract()
}

/// The mean; of at least one value.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The share of errors that count as detections at `threshold`, 0 to 100; of at least one error.
pub(super) fn percent_within(errors: &[f64], threshold: f64, protocol: Protocol) -> f64 {
    100.0 * errors.iter().filter(|&&e| protocol.detects(e, threshold)).count() as f64 / errors.len() as f64
}

/// The middle value; of at least one.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// The standard deviation of the values themselves (divided by their number); of at least one.
pub(super) fn deviation(values: &[f64]) -> f64 {
    let centre = mean(values);
    (values.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        for (share, expected) in [(0.0, 1.0), (0.25, 1.75), (0.5, 3.0), (0.75, 5.0), (1.0, 8.0)] {
            assert_eq!(quantile(&sorted, share), expected);
        }
        assert_eq!(quantile(&[5.0], 0.3), 5.0);
    }

    #[test]
    fn rounding_leaves_no_noise_about_zero() {
        assert_eq!(rounded(0.1 + 0.2), 0.3);
        assert_eq!(rounded(1e-17), 0.0);
        assert!(rounded(-1e-17).is_sign_positive());
    }
}
