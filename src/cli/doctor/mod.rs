//! `enlist doctor`: everything that a fleet needs, tried from here, and what to do about what is missing.

mod objects;
mod rights;
mod server;
mod world;

use std::time::Instant;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::orders::{self, Orders};
use super::output::{Format, OutputArgs, Sheet, printed, say};
use super::page::Tone;
use super::{Exit, told_to_stop};
use crate::bus::connection::ConnectError;
use crate::config::Config;
use crate::domain::Pool;

/// Arguments of `doctor`.
#[derive(Args)]
#[command(after_help = "\
Run it where a replica runs, with its settings and as its user: it tries what a replica does. Without pools in the settings \
it tries what those need who send commands and read. Nothing is changed by it. Exit code 1 if a line fails.

Examples:
  enlist doctor --config /etc/enlist/enlist.toml
  enlist doctor --context prod
  enlist doctor -o json | jq '.[] | select(.result != \"ok\")'")]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// How a check has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, and may not for long, or not as well as it could.
    Warn,
    Fail,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One line.
#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    name: String,
    result: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: check.into(), result: Verdict::Ok, found: found.into(), remedy: None }
    }

    fn warn(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: check.into(), result: Verdict::Warn, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn fail(check: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: check.into(), result: Verdict::Fail, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// The lines as they come.
struct Report {
    sheet: Sheet<4>,
    failed: usize,
    warned: usize,
    lines: usize,
}

impl Report {
    fn tell(&mut self, check: &Check) -> anyhow::Result<()> {
        self.lines += 1;
        match check.result {
            Verdict::Ok => {}
            Verdict::Warn => self.warned += 1,
            Verdict::Fail => self.failed += 1,
        }
        let cells = || {
            let Check { name, result, found, remedy } = check;
            [name.clone(), result.as_str().to_owned(), found.clone(), remedy.clone().unwrap_or_default()]
        };
        self.sheet.row(cells, check)?;
        Ok(())
    }
}

/// What a check may use.
struct Ward<'a> {
    config: &'a Config,
    orders: &'a Orders,
    pools: Vec<Pool>,
    /// Whether a replica's needs are tried; else those of who sends commands and reads.
    replica: bool,
}

impl Ward<'_> {
    /// An answer of the server's API; its error, in its own words, where it gives one.
    async fn api(&self, name: &str, query: &'static [u8]) -> Result<Value, String> {
        let subject = format!("{}.{name}", self.orders.api_prefix);
        let sent = self.orders.requests.send(subject.clone(), None, query.into(), server::PATIENCE);
        let sent = self.orders.connection.unless_refused(Instant::now(), &[&subject], sent).await?;
        let reply = sent.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(&reply.payload).map_err(|error| error.to_string())?;
        match answer.get("error") {
            Some(error) => Err(error["description"].as_str().unwrap_or("an error").to_owned()),
            None => Ok(answer),
        }
    }
}

pub(super) async fn run(config: Config, args: &DoctorArgs) -> Exit {
    tokio::select! {
        done = examine(&config, args) => printed(done),
        () = told_to_stop() => {
            eprintln!("enlist: interrupted; nothing is changed");
            Exit::Failed
        }
    }
}

async fn examine(config: &Config, args: &DoctorArgs) -> anyhow::Result<bool> {
    let heads = ["CHECK", "RESULT", "FOUND", "REMEDY"];
    let sheet = Sheet::new(args.output.output, heads).painted(1, tone).unlimited();
    let mut report = Report { sheet, failed: 0, warned: 0, lines: 0 };
    match orders::connect(config, "enlist doctor").await {
        Err(error) => report.tell(&unreachable(config, &error))?,
        Ok(orders) => {
            let replica = !config.pools.is_empty();
            let mut ward = Ward { config, orders: &orders, pools: config.pools.keys().cloned().collect(), replica };
            for check in server::checks(&mut ward).await {
                report.tell(&check)?;
            }
            for check in objects::checks(&ward).await {
                report.tell(&check)?;
            }
            for check in rights::checks(&ward).await {
                report.tell(&check)?;
            }
            for check in world::checks(&ward).await {
                report.tell(&check)?;
            }
        }
    }
    let Report { sheet, failed, warned, lines } = report;
    sheet.end()?;
    if args.output.output == Format::Table {
        match (failed, warned) {
            (0, 0) => say(format_args!("\nall {lines} checks are well")),
            (failed, warned) => say(format_args!("\nchecks: {lines}; failed: {failed}; to look at: {warned}")),
        }
    }
    Ok(failed == 0)
}

fn tone(result: &str) -> Tone {
    match result {
        "ok" => Tone::Good,
        "warn" => Tone::Passing,
        _ => Tone::Bad,
    }
}

fn unreachable(config: &Config, error: &anyhow::Error) -> Check {
    let remedy = match error.downcast_ref() {
        Some(ConnectError::Credentials { .. }) => "name a file that can be read: nats.creds, nkey or password_file",
        Some(ConnectError::TooOld { .. }) => "update the server",
        Some(ConnectError::NoJetStream { .. }) => "turn JetStream on for the server, and for the account",
        Some(ConnectError::Unreachable { .. }) | None => {
            "start it, or say where it is and who asks: --nats-url, --context, [nats] in the settings"
        }
    };
    Check::fail(format!("NATS at {}", config.nats.shown_url()), error.to_string(), remedy)
}
