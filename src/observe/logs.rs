//! Logs: for people on a terminal, JSON lines, or journald fields; and events as log lines.
//!
//! Libraries never log, whatever the filter says: a warning of the AWS SDK prints the whole response, with the session
//! token of the metadata service in it (seen). What they have to say reaches us as errors.

use crate::observe::screen::Screen;
use crate::observe::text::duration;
use jiff::Timestamp;
use kubestrap_core::model::cause::{Cause, Failure};
use kubestrap_core::model::plain::plain;
use kubestrap_core::node::{Event, Observer};
use std::cell::RefCell;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber, debug, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// The variable with the filter: a level, or `target=level`, several with commas (tracing-subscriber, `Targets`).
pub const FILTER: &str = "KUBESTRAP_LOG";

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Human on a terminal, journald under systemd, JSON otherwise.
    Auto,
    /// One line for people.
    Human,
    /// One JSON object per line.
    Json,
    /// Fields of the systemd journal.
    Journald,
}

/// Starts logging to standard error (or the journal). Call once.
///
/// A filter that cannot be parsed is a usage error; a journal that cannot be reached falls back to JSON.
pub fn init(format: LogFormat, screen: &Screen) -> Result<(), Failure> {
    let text = std::env::var(FILTER).unwrap_or_default();
    let filter = filter(&text)
        .map_err(|error| Failure::new(Cause::Usage, format!("read {FILTER}={text:?}"), error.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter).with(tracing_subscriber::filter::filter_fn(loggable));
    match resolve(format, screen) {
        LogFormat::Journald => match tracing_journald::layer() {
            Ok(layer) => {
                let layer = layer.with_field_prefix(None).with_syslog_identifier("kubestrap".to_owned());
                set(registry.with(layer))
            }
            Err(_) => set(registry.with(json(screen))),
        },
        LogFormat::Human => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(screen.clone())
                .with_ansi(screen.is_terminal())
                .event_format(Human);
            set(registry.with(layer))
        }
        LogFormat::Json | LogFormat::Auto => set(registry.with(json(screen))),
    }
}

/// What is not named is told from INFO on.
fn filter(text: &str) -> Result<Targets, tracing_subscriber::filter::ParseError> {
    let named = if text.trim().is_empty() { Targets::new() } else { text.trim().parse::<Targets>()? };
    Ok(match named.default_level() {
        None => named.with_default(LevelFilter::INFO),
        Some(_) => named,
    })
}

fn set(subscriber: impl Subscriber + Send + Sync) -> Result<(), Failure> {
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| Failure::new(Cause::Internal, "start logging", error.to_string()))
}

fn json<S: Subscriber + for<'a> LookupSpan<'a>>(screen: &Screen) -> impl Layer<S> + use<S> {
    tracing_subscriber::fmt::layer().json().flatten_event(true).with_timer(Clock).with_writer(screen.clone())
}

fn resolve(format: LogFormat, screen: &Screen) -> LogFormat {
    match format {
        LogFormat::Auto if screen.is_terminal() => LogFormat::Human,
        LogFormat::Auto if stderr_is_the_journal() => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Json,
        other => other,
    }
}

/// Whether systemd connected our standard error to the journal (systemd.exec(5), `$JOURNAL_STREAM`: device and inode).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = nix::sys::stat::fstat(std::io::stderr());
    stderr.is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn loggable(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("kubestrap")
}

/// UTC with milliseconds.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:.3}", Timestamp::now())
    }
}

/// `12:03:04 WARN message`; fields are shown only for lines that are not ours, for ours say everything in words.
struct Human;

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let (colour, label) = match *event.metadata().level() {
            Level::ERROR => ("\x1b[31m", "ERROR "),
            Level::WARN => ("\x1b[33m", "WARN  "),
            Level::INFO => ("", ""),
            Level::DEBUG => ("\x1b[2m", "DEBUG "),
            Level::TRACE => ("\x1b[2m", "TRACE "),
        };
        let mut line = Line { message: String::new(), fields: String::new() };
        event.record(&mut line);
        if event.metadata().target() == EVENTS {
            line.fields.clear();
        }
        let time = Timestamp::now().strftime("%H:%M:%S").to_string();
        let text = plain(&format!("{}{}", line.message, line.fields));
        if writer.has_ansi_escapes() {
            writeln!(writer, "\x1b[2m{time}\x1b[0m {colour}{label}{text}\x1b[0m")
        } else {
            writeln!(writer, "{time} {label}{text}")
        }
    }
}

struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.fields.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}

/// The target of lines that are whole sentences.
const EVENTS: &str = "kubestrap::node";

/// Writes events to the log.
#[derive(Default)]
pub struct Log {
    /// The failure that was told last: while it stays the same it is told in short.
    told: RefCell<String>,
}

impl Log {
    /// The failure in full when it is news, by its label otherwise: kubeadm's last lines are long, and retries many.
    fn tell(&self, failure: &Failure) -> String {
        let text = failure.to_string();
        if *self.told.borrow() == text {
            return format!("the same failure again [{}]", failure.cause.row().label);
        }
        self.told.replace(text.clone());
        text
    }
}

impl Observer for Log {
    fn on(&self, event: &Event<'_>) {
        match event {
            Event::Phase(phase) => info!(target: EVENTS, phase = phase.as_str(), "phase: {}", phase.as_str()),
            Event::StepDone { step, why } => info!(target: EVENTS, step, why, "{step}: nothing to do: {why}"),
            Event::StepStarted { step, why } => info!(target: EVENTS, step, why, "{step}: begins: {why}"),
            Event::StepEnded { step, took, result } => step_ended(step, *took, *result),
            Event::Waiting { step, for_what } => {
                info!(target: EVENTS, step, for_what, "{step}: waiting for {for_what}");
            }
            Event::Retrying { what, failure, after, .. } => {
                let cause = failure.cause.row().label;
                let after = duration(*after);
                let told = self.tell(failure);
                warn!(target: EVENTS, step = what, cause, "{what}: {told}; next attempt in {after}");
            }
            Event::DutyTicked { duty, took, result } => {
                let cause = result.err().map_or("none", |failure| failure.cause.row().label);
                debug!(target: EVENTS, duty, cause, "{duty}: ticked in {}", duration(*took));
            }
            Event::BundlePublished { expires_at, sequence } => {
                info!(target: EVENTS, sequence, "join bundle {sequence} is in the store; its token expires {expires_at:.0}");
            }
            Event::Note(text) => info!(target: EVENTS, "{text}"),
            Event::Alive => {}
        }
    }
}

fn step_ended(step: &str, took: std::time::Duration, result: Result<(), &Failure>) {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(()) => info!(target: EVENTS, step, took_ms, "{step}: done in {}", duration(took)),
        Err(failure) => {
            let cause = failure.cause.row().label;
            // Told in full by the retry, or by the end of the program.
            info!(target: EVENTS, step, took_ms, cause, "{step}: failed after {} [{cause}]", duration(took));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_levels_of_targets_and_the_rest_is_told_from_info_on() {
        let tells = |text: &str, target: &str, level: Level| filter(text).expect(text).would_enable(target, &level);
        for text in ["", " "] {
            assert!(tells(text, "kubestrap", Level::INFO) && !tells(text, "kubestrap", Level::DEBUG), "{text:?}");
        }
        assert!(tells("debug", "kubestrap", Level::DEBUG) && !tells("debug", "kubestrap", Level::TRACE));
        assert!(tells("kubestrap::calls=trace", "kubestrap::calls", Level::TRACE));
        assert!(tells("kubestrap::calls=trace", "kubestrap", Level::INFO));
        assert!(!tells("kubestrap::calls=trace", "kubestrap", Level::DEBUG));
        assert!(!tells("off", "kubestrap", Level::ERROR));
        assert!(filter("kubestrap=loud").is_err());
    }
}
