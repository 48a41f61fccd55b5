//! How long to wait before the next try: exponential with full jitter.

use std::time::Duration;

use tokio::time::Instant;

use super::link::Loss;

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

/// When to connect again: at once the first time, later and later while connections come to nothing.
///
/// An answered greeting is nothing yet: of two devices with one client id each throws the other out right after it.
#[derive(Clone, Debug)]
pub(super) struct Reconnect {
    backoff: Backoff,
    /// A connection that lasted this long was a sound one.
    sound: Duration,
    since: Option<Instant>,
    /// This connection delivered an event.
    proved: bool,
    /// Connections in a row that the broker accepted and soon closed without a word.
    closed: u32,
    /// Another client came with our id, by all we know, and no connection has been a sound one since.
    contested: bool,
}

/// So many connections in a row that are accepted and soon closed without a word are another client's doing: Mosquitto
/// 2.0.11 does not say so (142), and a broker that dies again and again refuses connections in between.
const CONTESTED_AFTER: u32 = 3;

impl Reconnect {
    pub(super) const fn new(backoff: Backoff, sound: Duration) -> Self {
        Self { backoff, sound, since: None, proved: false, closed: 0, contested: false }
    }

    /// The broker has accepted us.
    pub(super) const fn connected(&mut self, now: Instant) {
        self.since = Some(now);
        self.proved = false;
    }

    /// An event was delivered: this connection was a sound one however short it is.
    pub(super) const fn delivered(&mut self) {
        self.proved = true;
    }

    /// Whether another client came with our id, by all we know, and no connection has been a sound one since.
    pub(super) const fn is_contested(&self) -> bool {
        self.contested
    }

    /// When a connection that is contested will have been a sound one, and so is no longer.
    pub(super) fn settled_at(&self) -> Option<Instant> {
        self.since.filter(|_| self.contested).map(|since| since + self.sound)
    }

    /// That time has come.
    pub(super) const fn settled(&mut self) {
        self.contested = false;
    }

    /// The connection is lost, or was not made; how long to wait before the next.
    ///
    /// Of two clients with one id each delivers something in the moment it has, and would come back at once for ever:
    /// while the id is contested, a connection proves nothing by what it delivers.
    pub(super) fn pause(&mut self, loss: &Loss, now: Instant) -> Duration {
        let lasted = self.since.take().map(|since| now.saturating_duration_since(since));
        let sound = lasted.is_some_and(|lasted| lasted >= self.sound);
        let proved = std::mem::take(&mut self.proved);
        self.closed = if *loss == Loss::Closed && lasted.is_some() && !sound { self.closed + 1 } else { 0 };
        if *loss == Loss::ClientIdTaken || self.closed >= CONTESTED_AFTER {
            self.contested = true;
        } else if sound {
            self.contested = false;
        }
        if (sound && *loss != Loss::ClientIdTaken) || (proved && !self.contested) {
            self.backoff.reset();
        }
        self.backoff.pause()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(60);
    const SOUND: Duration = Duration::from_secs(120);

    fn lost() -> Loss {
        "the broker does not answer pings".into()
    }

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
    fn a_connection_that_is_only_greeted_is_made_ever_more_seldom() {
        let mut now = Instant::now();
        let mut reconnect = Reconnect::new(Backoff::new(BASE, MAX, 3), SOUND);
        let mut connects = 0;
        let hour = now + Duration::from_secs(3600);
        while now < hour {
            connects += 1;
            reconnect.connected(now);
            // The other device comes.
            now += Duration::from_millis(10);
            now += reconnect.pause(&lost(), now);
        }
        // 30 s each on average once the longest pause is reached.
        assert!((60..200).contains(&connects), "{connects} connections in an hour");
    }

    #[test]
    fn two_devices_with_one_client_id_come_back_ever_more_seldom_although_each_delivers() {
        // Mosquitto 2.0.11 just closes.
        for loss in [Loss::ClientIdTaken, Loss::Closed] {
            let mut now = Instant::now();
            let end = now + Duration::from_secs(3600);
            let device = |seed| Reconnect::new(Backoff::new(BASE, MAX, seed), SOUND);
            let (mut holder, mut other, mut other_comes) = (device(1), device(2), now + BASE);
            holder.connected(now);
            let mut connects = 1;
            while now < end {
                holder.delivered();
                now = now.max(other_comes);
                other.connected(now);
                connects += 1;
                other_comes = now + holder.pause(&loss, now);
                std::mem::swap(&mut holder, &mut other);
            }
            assert!((60..200).contains(&connects), "{connects} connections in an hour");
            assert!(holder.is_contested() && other.is_contested());
        }
    }

    #[test]
    fn the_id_of_a_device_whose_broker_restarts_is_not_contested() {
        let mut now = Instant::now();
        let mut reconnect = Reconnect::new(Backoff::new(BASE, MAX, 1), SOUND);
        for _ in 0..10 {
            reconnect.connected(now);
            reconnect.delivered();
            now += BASE;
            now += reconnect.pause(&Loss::Closed, now);
            // It is not there yet.
            now += reconnect.pause(&lost(), now);
            assert!(!reconnect.is_contested());
        }
    }

    #[test]
    fn a_sound_connection_or_a_delivered_event_is_followed_by_a_short_pause() {
        let (taken, closed, lost) = (&Loss::ClientIdTaken, &Loss::Closed, &lost());
        for (lasted, delivered, loss, short) in [
            (1, false, lost, false),
            (119, false, lost, false),
            (120, false, lost, true),
            (1, true, lost, true),
            (1, true, closed, true),
            (120, true, taken, false),
        ] {
            let mut now = Instant::now();
            // The largest draw of many: pauses are random.
            let longest = (0..50)
                .map(|seed| {
                    let mut reconnect = Reconnect::new(Backoff::new(BASE, MAX, seed), SOUND);
                    for _ in 0..10 {
                        reconnect.pause(lost, now);
                    }
                    reconnect.connected(now);
                    if delivered {
                        reconnect.delivered();
                    }
                    now += Duration::from_secs(lasted);
                    reconnect.pause(loss, now)
                })
                .max();
            assert_eq!(longest.expect("fifty") < BASE, short, "{lasted} s, delivered: {delivered}, {loss}");
        }
    }

    #[test]
    fn two_devices_draw_differently() {
        assert_ne!(Backoff::new(BASE, MAX, 1).pause(), Backoff::new(BASE, MAX, 2).pause());
    }
}
