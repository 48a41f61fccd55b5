//! `landmarkd replay`: asks a running daemon for delivered events once more.

use std::io::{self, Write};
use std::path::PathBuf;

use super::{Exit, Failure};
use crate::config::{self, CONFIG_FILE};
use crate::disposition::Disposition;
use crate::mqtt;
use crate::report::{ReplayAnswer, ReplayReason, ReplayState, Topics};

/// The arguments of `replay`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The number of the first event
    #[arg(long, value_name = "N")]
    from: u64,
    /// The number of the last event
    #[arg(long, value_name = "N")]
    to: u64,
    /// The epoch of the numbers [default: the device's present one]
    #[arg(long, value_name = "EPOCH")]
    epoch: Option<String>,
    /// The daemon's configuration, for the broker and the topics; `LANDMARKD_MQTT__USERNAME` and the like name another
    /// user, and where the broker takes the client id from the certificate, `LANDMARKD_MQTT__CLIENT_CERT_FILE` and
    /// `.._KEY_FILE` must
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

/// Asks over the broker, prints what the daemon answers, and returns when the replay has ended.
///
/// # Errors
/// [`Exit::Config`] for a wrong configuration, [`Exit::Service`] when there is no answer or the replay did not come to
/// its end, [`Exit::NoInput`] when the events are gone, [`Exit::Usage`] when there are no such numbers.
pub fn replay(arguments: &Arguments) -> Result<(), Failure> {
    let settings = config::load(&arguments.config).map_err(|errors| Failure::new(Exit::Config, errors))?.settings;
    let topics = Topics::new(&settings.site.site, &settings.site.device).map_err(|e| Failure::new(Exit::Config, e))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let numbers = arguments.from..=arguments.to;
    let mut printed = Ok(());
    let tell = |answer: &ReplayAnswer| printed = writeln!(io::stdout().lock(), "{}", in_words(answer));
    let asked = runtime.block_on(mqtt::ask::replay(&settings.mqtt, &topics, arguments.epoch.clone(), numbers, tell));
    let answer = asked.map_err(|error| {
        let fatal = error.disposition() == Disposition::Fatal;
        Failure::new(if fatal { Exit::Config } else { Exit::Service }, error)
    })?;
    printed?;
    match (answer.state, exit(answer.reason)) {
        (ReplayState::Done, _) => Ok(()),
        (_, exit) => Err(Failure::new(exit, "the events do not, or not all, come again")),
    }
}

fn exit(reason: Option<ReplayReason>) -> Exit {
    match reason {
        Some(ReplayReason::Pruned) => Exit::NoInput,
        Some(
            ReplayReason::Malformed
            | ReplayReason::ResponseTopic
            | ReplayReason::Range
            | ReplayReason::UnknownEpoch
            | ReplayReason::NotYet,
        ) => Exit::Usage,
        Some(ReplayReason::Busy | ReplayReason::NoSubscriber | ReplayReason::Rejected) | None => Exit::Service,
    }
}

fn in_words(answer: &ReplayAnswer) -> String {
    let ReplayAnswer { state, reason, epoch, oldest, last, from, to, sent } = answer;
    let range = match (from, to) {
        (Some(from), Some(to)) => format!("events {from} to {to}"),
        _ => "nothing".to_owned(),
    };
    let what = match state {
        ReplayState::Accepted => format!("{range} of epoch {epoch} come again"),
        ReplayState::Done => format!("done: {sent} of {range} were sent; the others wait and come by themselves"),
        ReplayState::Refused => "refused".to_owned(),
        ReplayState::Ended => format!("ended early: {sent} of {range} were sent"),
    };
    let why = match reason {
        None => String::new(),
        Some(ReplayReason::Pruned) => format!(": what lies below {oldest} is gone for good"),
        Some(ReplayReason::NotYet) => format!(": the last number so far is {last}"),
        Some(ReplayReason::UnknownEpoch) => format!(": this device counts in epoch {epoch}, from {oldest} to {last}"),
        Some(ReplayReason::Range) => ": the first number must be above 0 and not above the last".to_owned(),
        Some(ReplayReason::Busy) => ": another replay is under way; ask again later".to_owned(),
        Some(ReplayReason::NoSubscriber) => ": nobody is subscribed to the results".to_owned(),
        Some(ReplayReason::Rejected) => ": the broker refuses them; check its access list and limits".to_owned(),
        Some(ReplayReason::Malformed | ReplayReason::ResponseTopic) => {
            ": the daemon does not understand; is it of the same version?".to_owned()
        }
    };
    format!("{what}{why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_with_what_to_do() {
        let answer = |state, reason| ReplayAnswer {
            state,
            reason,
            epoch: "e".to_owned(),
            oldest: 5,
            last: 9,
            from: Some(5),
            to: Some(7),
            sent: 3,
        };
        for (state, reason, expected) in [
            (ReplayState::Accepted, None, "events 5 to 7 of epoch e come again"),
            (
                ReplayState::Accepted,
                Some(ReplayReason::Pruned),
                "events 5 to 7 of epoch e come again: what lies below 5 is gone for good",
            ),
            (ReplayState::Refused, Some(ReplayReason::NotYet), "refused: the last number so far is 9"),
            (
                ReplayState::Ended,
                Some(ReplayReason::NoSubscriber),
                "ended early: 3 of events 5 to 7 were sent: nobody is subscribed to the results",
            ),
        ] {
            assert_eq!(in_words(&answer(state, reason)), expected);
        }
    }
}
