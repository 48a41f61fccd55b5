//! The journal: where log lines go and what they look like.
//!
//! Lines go to standard error. On a terminal they have colours; under systemd, which sets `JOURNAL_STREAM`, each
//! begins with its syslog priority (`<4>`), which journald strips and files the line under (sd-daemon(3)).

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, LogSettings};

/// Libraries that read films, by the beginning of their names: their messages may quote what a film says (R31).
const SILENCED: &str = "dicom=off,jpeg=off,zune=off,openjp2=off";

/// Starts the journal of this process; a second call changes nothing.
pub fn start(settings: &LogSettings) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let filter = EnvFilter::builder().parse_lossy(format!("{},{SILENCED}", settings.filter));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match settings.format {
        LogFormat::Text => {
            let colours = !journal && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let builder = builder.with_ansi(colours).with_target(false);
            if journal {
                // journald has its own clock.
                let line = format::format().with_ansi(false).with_target(false).without_time();
                builder.event_format(Prioritised { journal, line }).try_init()
            } else {
                builder.try_init()
            }
        }
        LogFormat::Json => {
            let line = format::json().flatten_event(true).with_current_span(false).with_span_list(false);
            builder.fmt_fields(format::JsonFields::new()).event_format(Prioritised { journal, line }).try_init()
        }
    };
    if let Err(e) = started {
        tracing::debug!("the journal is already running: {e}");
    }
}

/// For the commands without a configuration: warnings only, so that standard error stays for people.
#[must_use]
pub fn for_people() -> LogSettings {
    LogSettings { filter: "warn".to_owned(), format: LogFormat::Text }
}

struct Prioritised<F> {
    journal: bool,
    line: F,
}

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.journal {
            write!(writer, "<{}>", priority(*event.metadata().level()))?;
        }
        self.line.format_event(context, writer, event)
    }
}

/// The syslog priority of a level: 3 is an error, 7 is for developers.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics while writing").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn journal_lines_begin_with_their_priority() {
        let lines = Lines::default();
        let writer = lines.clone();
        let line = format::format().with_ansi(false).with_target(false).without_time();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Prioritised { journal: true, line })
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("the disk is full");
            tracing::warn!(attempt = 2, "the broker is away");
            tracing::info!("a film");
        });
        let text = String::from_utf8(lines.0.lock().expect("no test panics while writing").clone()).expect("text");
        let expected = "<3>ERROR the disk is full\n<4> WARN the broker is away attempt=2\n<6> INFO a film\n";
        assert_eq!(text, expected);
    }
}
