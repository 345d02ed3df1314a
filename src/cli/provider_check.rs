//! `enlist provider-check`: holds a running external provider to the contract.

use std::io::Write as _;
use std::time::Duration;

use clap::Args;

use super::{Exit, ended};
use crate::bus::connection;
use crate::config::{Config, ExternalConfig, SUBJECT, is_subject};
use crate::domain::{Pool, WorkerSpec};
use crate::provider::external::conformance::Kit;

/// Arguments of `provider-check`.
#[derive(Args)]
pub(super) struct ProviderCheckArgs {
    /// The provider's name
    #[arg(value_parser = provider)]
    name: Pool,
    /// What stands before its name in its subjects
    #[arg(long, value_name = "SUBJECT", default_value = "provider", value_parser = subject)]
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

/// Of the form of a pool's name, and no pool.
fn provider(text: &str) -> Result<Pool, String> {
    Pool::new(text).map_err(|error| format!("a provider's name is of the form {}", error.expected))
}

fn subject(text: &str) -> Result<String, String> {
    if is_subject(text) { Ok(text.to_owned()) } else { Err(format!("expected {SUBJECT}")) }
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        _args: super::ProviderCheckArgs,
    }

    #[test]
    fn a_name_that_no_provider_can_have_is_not_called_a_pool_s() {
        let told = |args: &[&str]| Line::try_parse_from(args).err().unwrap().to_string();
        let name = told(&["check", "bad name.>"]);
        assert!(name.contains("a provider's name is of the form [a-z0-9]") && !name.contains("pool"), "{name}");
        let prefix = told(&["check", "good", "--subject-prefix", "bad.>"]);
        assert!(prefix.contains("expected a subject without blanks"), "{prefix}");
    }
}
