//! The log: lines for people at a terminal, JSON for everything else, always on standard error.

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use super::otlp::{self, Exporter};
use crate::config::{LogSettings, Mistake, Origin, from_environment, log_settings, span_export};

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Text where standard error is a terminal, else JSON.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The filter of those who serve: their own at `info`, the client's at `warn`.
pub const USUAL_LOG: &str = "info,async_nats=warn";
/// The filter of those who answer a person at once: only what needs one. They tell of the connection, and of what the server
/// does not permit, in plain words.
pub const QUIET_LOG: &str = "warn,async_nats=error,enlist::link=error";

/// Keeps the export of spans up, where there is one.
#[must_use = "spans that are not sent yet are lost without its end"]
pub struct Exporting(Option<Exporter>);

impl Exporting {
    /// Sends what is left. Blocks, and comes after the runtime's end.
    pub fn end(self) {
        if let Some(exporter) = self.0 {
            exporter.shutdown();
        }
    }
}

/// Starts the log, and the export of spans where the variables of OpenTelemetry ask for it. The filter is `ENLIST_LOG`,
/// else `RUST_LOG`, else `usual`; one that cannot be read is a mistake like any other setting's. A second start in one
/// process changes nothing.
pub fn init_logging(format: LogFormat, usual: &str) -> Result<Exporting, Mistake> {
    let LogSettings { filter, colour, terminal } = log_settings();
    let filter = self::filter(filter, usual)?;
    let export = span_export(from_environment)?;
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // An error of `try_init` says only that a log is there already, say a test's.
    let exporting = match export.map(otlp::start).transpose() {
        // The log's filter is the log's alone: spans that it does not show are exported.
        Ok(Some((spans, exporter))) => {
            let _ = registry()
                .with(spans)
                .with(lines(json, colour).with_filter(filter).with_filter(filter_fn(harmless)))
                .try_init();
            Some(exporter)
        }
        Ok(None) => {
            let _ = registry().with(lines(json, colour)).with(filter).with(filter_fn(harmless)).try_init();
            None
        }
        Err(why) => {
            let _ = registry().with(lines(json, colour)).with(filter).with(filter_fn(harmless)).try_init();
            tracing::warn!("{}", crate::text::cut(&why, 300));
            None
        }
    };
    Ok(Exporting(exporting))
}

fn lines<S>(json: bool, colour: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = fmt::layer().with_writer(std::io::stderr);
    if json {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    } else {
        lines.with_ansi(colour).with_target(false).boxed()
    }
}

/// Below `info` others log what they send and receive: the NATS client whole messages, the Docker client the body of each
/// create. There are workers' secrets in both, and no filter of an operator's must bring them into a log.
fn harmless(metadata: &Metadata<'_>) -> bool {
    let own = metadata.target().split("::").next() == Some("enlist");
    own || *metadata.level() <= Level::INFO
}

fn filter(set: Option<(&'static str, String)>, usual: &str) -> Result<EnvFilter, Mistake> {
    let Some((name, text)) = set else { return Ok(EnvFilter::new(usual)) };
    EnvFilter::try_new(&text).map_err(|_| Mistake {
        origin: Origin::Env(name),
        setting: "log filter".to_owned(),
        problem: format!(
            "found \"{}\", expected a filter such as info or enlist=debug,warn",
            crate::text::cut(&text, 80)
        ),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_enlist_itself_may_say_more_than_info() {
        use std::sync::{Arc, Mutex};
        use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

        #[derive(Clone, Default)]
        struct Seen(Arc<Mutex<Vec<String>>>);
        impl<S: tracing::Subscriber> Layer<S> for Seen {
            fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
                let (level, target) = (event.metadata().level(), event.metadata().target());
                self.0.lock().unwrap().push(format!("{level} {target}"));
            }
        }
        let seen = Seen::default();
        let subscriber = tracing_subscriber::registry()
            .with(seen.clone())
            .with(super::EnvFilter::new("trace"))
            .with(super::filter_fn(super::harmless));
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "enlist::bus", "own");
            tracing::trace!(target: "async_nats::connection", "a message");
            tracing::debug!(target: "bollard::docker", "a body");
            tracing::info!(target: "async_nats", "connected");
            tracing::debug!(target: "enlistment", "another's");
        });
        assert_eq!(*seen.0.lock().unwrap(), ["TRACE enlist::bus", "INFO async_nats"]);
    }

    #[test]
    fn a_filter_that_cannot_be_read_names_its_variable() {
        let told =
            super::filter(Some(("ENLIST_LOG", "enlist=loud".to_owned())), super::USUAL_LOG).unwrap_err().to_string();
        assert!(told.starts_with("env ENLIST_LOG: log filter: found \"enlist=loud\", expected"), "{told}");
        let usual = super::filter(None, super::USUAL_LOG).unwrap().to_string();
        let mut parts: Vec<&str> = usual.split(',').collect();
        parts.sort_unstable();
        assert_eq!(parts, ["async_nats=warn", "info"], "the filter prints its parts in an order of its own");
    }
}
