//! What a Jetson's rails carry, and whether it draws more than it may.

use super::machine::{Power, Rail};
use super::root::Root;

const HWMON: &str = "sys/class/hwmon";
/// Channels of an INA3221; what comes after them are sums.
const CHANNELS: [u8; 3] = [1, 2, 3];

/// What hwmon tells of power.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) rails: Vec<Power>,
    /// A rail's current is above its limit at this moment.
    pub(super) alarm: bool,
    /// How often the chip has throttled itself for over-current since it was started.
    pub(super) over_current_events: Option<u64>,
}

pub(super) fn read(root: &Root) -> Reading {
    let mut reading = Reading::default();
    for device in root.list(HWMON) {
        let of = |file: &str| format!("{HWMON}/{device}/{file}");
        match root.text(&of("name")).as_deref() {
            Some("ina3221") => CHANNELS.iter().for_each(|channel| reading.channel(root, &of, *channel)),
            // A Thor's supply. Its one channel is in microwatts.
            Some("ina238") => {
                let microwatts = root.number(&of("power1_input"));
                let milliwatts = microwatts.map(|microwatts| u64::try_from(microwatts / 1000).unwrap_or(0));
                reading.rails.extend(milliwatts.map(|milliwatts| Power { rail: Rail::Vin, milliwatts }));
            }
            _ => {}
        }
        reading.events(root, &device);
    }
    reading.rails.sort_by_key(|power| power.rail);
    reading.rails.dedup_by_key(|power| power.rail);
    reading
}

impl Reading {
    /// One channel of an INA3221: `in1_label`, `in1_input` in millivolts, `curr1_input` in milliamperes.
    fn channel(&mut self, root: &Root, of: &dyn Fn(&str) -> String, channel: u8) {
        let number = |file: String| root.number(&of(&file));
        let label = root.text(&of(&format!("in{channel}_label")));
        let Some(rail) = label.as_deref().and_then(Rail::labelled) else { return };
        for limit in ["max", "crit"] {
            self.alarm |= number(format!("curr{channel}_{limit}_alarm")) == Some(1);
        }
        let volts_amperes = number(format!("in{channel}_input")).zip(number(format!("curr{channel}_input")));
        if let Some(microwatts) =
            volts_amperes.and_then(|(millivolts, milliamperes)| millivolts.checked_mul(milliamperes))
        {
            // At rest the chip's own offset may show as a small negative current.
            self.rails.push(Power { rail, milliwatts: u64::try_from(microwatts / 1000).unwrap_or(0) });
        }
    }

    /// `oc1_event_cnt`, `oc2_event_cnt`, ..: how often the hardware slowed the chip down.
    fn events(&mut self, root: &Root, device: &str) {
        let files = root.list(&format!("{HWMON}/{device}"));
        let counters = files.iter().filter(|name| name.starts_with("oc") && name.ends_with("_event_cnt"));
        for counter in counters {
            let count = root.number(&format!("{HWMON}/{device}/{counter}")).and_then(|count| u64::try_from(count).ok());
            if let Some(count) = count {
                self.over_current_events = Some(self.over_current_events.unwrap_or(0).saturating_add(count));
            }
        }
    }
}
