//! `enlist provider-check`: holds a running external provider to the contract.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;

use super::{Exit, ended};
use crate::bus::connection;
use crate::config::{Config, ExternalConfig};
use crate::domain::{Pool, WorkerSpec};
use crate::provider::external::conformance::Kit;

/// Arguments of `provider-check`.
#[derive(Args)]
pub(super) struct ProviderCheckArgs {
    /// The provider's name
    name: Pool,
    /// What stands before its name in its subjects
    #[arg(long, value_name = "SUBJECT", default_value = "provider")]
    subject_prefix: String,
    /// Image of what is made, for a provider that needs one
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Seconds without an answer or a heartbeat after which it is taken for dead
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u16).range(1..))]
    answer_timeout: u16,
    /// What is made: it has to run until it is removed
    #[arg(value_name = "COMMAND", last = true, default_values = ["sleep", "600"])]
    command: Vec<String>,
}

/// Prints a line a check; 1 where one is broken.
pub(super) async fn run(config: Config, args: &ProviderCheckArgs) -> Exit {
    ended(check(&config, args).await)
}

async fn check(config: &Config, args: &ProviderCheckArgs) -> anyhow::Result<bool> {
    let ProviderCheckArgs { name, subject_prefix, image, answer_timeout, command } = args;
    let connection = connection::connect(&config.nats, "enlist provider-check").await?;
    let kit = Kit {
        config: ExternalConfig {
            name: name.to_string(),
            subject_prefix: subject_prefix.clone(),
            answer_timeout: Duration::from_secs(u64::from(*answer_timeout)),
        },
        spec: WorkerSpec { image: image.clone(), command: command.clone(), ..WorkerSpec::default() },
        launch_timeout: Duration::from_secs(300),
        grace: Duration::from_secs(10),
    };
    let report = kit.check(&connection.client).await?;
    // A reader that has gone away is no failure.
    let _ = writeln!(std::io::stdout(), "{report}");
    Ok(report.passed())
}
