//! How long to wait before the next try: exponential with full jitter.

use std::time::Duration;

/// A growing pause. The n-th is drawn evenly from 0 to `base` * 2^n, at most `max` (R25; "full jitter" of
/// Brooker, Exponential Backoff And Jitter, 2015): devices that lost one broker together come back apart.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    base: Duration,
    max: Duration,
    tries: u32,
    random: u64,
}

impl Backoff {
    /// Pauses from 0..`base` up to 0..`max`; `seed` decides what is drawn.
    pub(super) const fn new(base: Duration, max: Duration, seed: u64) -> Self {
        Self { base, max, tries: 0, random: seed }
    }

    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(2u32.saturating_pow(self.tries)).min(self.max);
        self.tries = self.tries.saturating_add(1);
        ceiling.mul_f64(self.draw())
    }

    /// Starts again from the shortest.
    pub(super) const fn reset(&mut self) {
        self.tries = 0;
    }

    /// An even number in 0..1 (SplitMix64, Steele et al. 2014).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(60);

    proptest! {
        #[test]
        fn no_pause_is_longer_than_its_ceiling(seed: u64, tries in 0usize..80) {
            let mut backoff = Backoff::new(BASE, MAX, seed);
            let pauses: Vec<Duration> = (0..=tries).map(|_| backoff.pause()).collect();
            for (n, pause) in pauses.iter().enumerate() {
                let ceiling = Duration::from_secs(1 << n.min(6)).min(MAX);
                prop_assert!(*pause < ceiling, "{n}: {pause:?}");
            }
            backoff.reset();
            prop_assert!(backoff.pause() < BASE);
        }
    }

    #[test]
    fn pauses_fill_their_range_evenly() {
        let mut backoff = Backoff::new(MAX, MAX, 1);
        let mut thirds = [0; 3];
        for _ in 0..3000 {
            thirds[(backoff.pause().as_secs_f64() / 20.0) as usize] += 1;
        }
        assert!(thirds.iter().all(|n| (900..1100).contains(n)), "{thirds:?}");
    }

    #[test]
    fn two_devices_draw_differently() {
        assert_ne!(Backoff::new(BASE, MAX, 1).pause(), Backoff::new(BASE, MAX, 2).pause());
    }
}
