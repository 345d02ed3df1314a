//! The command line: one file a verb, and the exit codes that scripts rely on.

mod adopt;
mod auth;
mod away;
mod bench;
mod check_config;
mod dead;
pub mod demo_scheduler;
mod demo_worker;
mod dev;
mod doctor;
mod drain;
mod generate;
mod healthcheck;
mod ls;
mod many;
mod orders;
mod output;
mod page;
mod pool;
mod pools;
mod provider_check;
mod provision;
mod room;
mod run;
mod send;
mod show;
mod sweep;
mod table;
mod terminate;
mod top;
mod turning;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tokio::runtime::Builder;

use crate::bus::connection::ConnectError;
use crate::config::{Config, ConfigError, ConfigFile, Flags, Loaded, from_process};
use crate::telemetry::{LogFormat, QUIET_LOG, USUAL_LOG, init_logging};
use adopt::AdoptArgs;
use auth::AuthArgs;
use dead::DeadArgs;
use doctor::DoctorArgs;
use drain::DrainArgs;
use generate::{CompletionsArgs, ManArgs, SchemaArgs};
use ls::LsArgs;
use pool::PoolArgs;
use pools::NotOurs;
use provider_check::ProviderCheckArgs;
use provision::ProvisionArgs;
use show::ShowArgs;
use sweep::SweepArgs;
use terminate::TerminateArgs;
use top::TopArgs;
use turning::{block_on, runtime, told_to_stop, two_threads};
use watch::WatchArgs;

/// What a process ends with; the numbers are those of sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// What was asked for has not come to be: a command without a broker that takes it, without an outcome, or refused.
    Failed,
    /// Flags or arguments cannot be understood.
    Usage,
    /// NATS cannot be reached at start.
    Unavailable,
    /// The settings are mistaken.
    Config,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Provisions workers on command from NATS JetStream and enlists them with a scheduler.
#[derive(Parser)]
#[command(name = "enlist", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags of every verb.
// The environment is read by the settings, not here: an empty variable counts as unset everywhere.
// Below the verb's own: the help would mix them by their places.
#[derive(Args)]
#[command(next_help_heading = "Options of every verb")]
#[allow(clippy::doc_markdown, reason = "the help shows these lines as they stand")]
pub struct GlobalArgs {
    /// Configuration file [env: ENLIST_CONFIG] [default: ./enlist.toml where it is there]
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Context of the nats command line to reach NATS by; - is the selected one [env: NATS_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// NATS URLs, separated by commas [env: NATS_URL]
    #[arg(long, global = true, value_name = "URL")]
    nats_url: Option<String>,
    /// First token of every subject [env: ENLIST_PREFIX]
    #[arg(long, global = true, value_name = "PREFIX")]
    prefix: Option<String>,
    /// How the log is written: auto is text at a terminal, else JSON
    #[arg(long, global = true, value_name = "FORMAT", default_value = "auto")]
    log_format: LogFormat,
}

impl GlobalArgs {
    /// The settings for a verb that serves pools.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        self.load_with(false, None)
    }

    /// The settings for a verb that only talks to NATS, so that no pools, and no file, will do.
    pub fn load_client(&self) -> Result<Loaded, ConfigError> {
        self.load_with(true, None)
    }

    /// The settings for a demo, which brings pools of its own where there is no file.
    fn load_demo(&self) -> Result<Loaded, ConfigError> {
        let own = ConfigFile { name: "the pools of enlist dev".to_owned(), text: dev::POOLS.to_owned() };
        self.load_with(false, Some(own))
    }

    /// How the log is written.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    fn load_with(&self, pools_optional: bool, otherwise: Option<ConfigFile>) -> Result<Loaded, ConfigError> {
        let Self { config, context, nats_url, prefix, log_format: _ } = self;
        let flags =
            Flags { prefix: prefix.clone(), nats_url: nats_url.clone(), context: context.clone(), pools_optional };
        from_process(config.as_deref(), otherwise, flags)
    }
}

#[derive(Subcommand)]
enum Verb {
    /// Check the settings, and print each with its value and where it comes from
    CheckConfig,
    /// Take commands from NATS until told to stop
    Run,
    /// See it work: a broker if none is given, a demo scheduler, two pools, a few commands
    Dev {
        /// End after the demo; exit code 0 only if every command had its outcome
        #[arg(long)]
        once: bool,
    },
    /// Ask a pool for a worker, or for many
    Provision(ProvisionArgs),
    /// Ask for the end of a worker, or of all that are meant
    Terminate(TerminateArgs),
    /// Have a pool hold a size
    Pool(PoolArgs),
    /// List the workers
    Ls(LsArgs),
    /// Show a worker's record and its whole history
    Show(ShowArgs),
    /// See what happens in the fleet, one line an event
    Watch(WatchArgs),
    /// See the pools at a glance, kept up to date
    Top(TopArgs),
    /// List, show, replay or remove the commands that were refused
    Dead(DeadArgs),
    /// Have pools swept now; or look at what a sweep would do, or sweep from here
    Sweep(SweepArgs),
    /// Give a record to every instance that has none, after the log was lost or put back to an older copy
    Adopt(AdoptArgs),
    /// Users, permissions and keys of a fleet's own nats-server
    Auth(AuthArgs),
    /// Hold a running external provider to the contract; exit code 1 where it breaks it
    ProviderCheck(ProviderCheckArgs),
    /// List the replicas, or have one finish what it has in hand and end
    Drain(DrainArgs),
    /// Try everything that a fleet needs, and say what to do about what is missing; exit code 1 if anything is
    Doctor(DoctorArgs),
    /// A scheduler that accepts every worker, for trying things out
    DemoScheduler,
    /// A worker that does nothing until it is told to end, for images that have no `sleep`
    DemoWorker,
    /// Measure how many commands a second this broker carries, beside the bare sequence of the same writes
    Bench(bench::BenchArgs),
    /// Print the JSON Schemas of the messages
    Schema(SchemaArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print a manual page
    Man(ManArgs),
    /// Ask the enlist of this host whether it is ready; exit code 0 or 69
    Healthcheck,
}

/// Reads the command line and does what it asks for.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(&cli).into(),
        Err(error) => usage(&error).into(),
    }
}

fn run(cli: &Cli) -> Exit {
    let Cli { global, verb } = cli;
    match verb {
        Verb::CheckConfig => check_config::run(global),
        Verb::Auth(args) => match global.load() {
            Ok(loaded) => auth::run(&loaded.config, args),
            Err(error) => mistaken(&error),
        },
        Verb::Run => with_config(global, run::run),
        Verb::Bench(args) => with_client_config(global, USUAL_LOG, |config| bench::run(config, args.clone())),
        Verb::Dev { once } => start(global, dev::QUIET, global.load_demo(), |loaded| dev::run(loaded, global, *once)),
        Verb::Provision(args) => with_client_config(global, QUIET_LOG, |config| provision::run(config, args)),
        Verb::Terminate(args) => with_client_config(global, QUIET_LOG, |config| terminate::run(config, args)),
        Verb::Pool(args) => with_client_config(global, QUIET_LOG, |config| pool::run(config, args)),
        Verb::Ls(args) => {
            start_on(two_threads, global, QUIET_LOG, global.load_client(), |loaded| ls::run(loaded.config, args))
        }
        Verb::Show(args) => with_client_config(global, QUIET_LOG, |config| show::run(config, args)),
        Verb::Watch(args) => with_client_config(global, QUIET_LOG, |config| watch::run(config, args)),
        Verb::Top(args) => with_client_config(global, QUIET_LOG, |config| top::run(config, args)),
        Verb::Dead(args) => with_client_config(global, QUIET_LOG, |config| dead::run(config, args)),
        Verb::Drain(args) => with_client_config(global, QUIET_LOG, |config| drain::run(config, args)),
        Verb::Doctor(args) => with_client_config(global, QUIET_LOG, |config| doctor::run(config, args)),
        Verb::Schema(args) => generate::schema(args),
        Verb::Completions(args) => generate::completions(args),
        Verb::Man(args) => generate::man(args),
        Verb::Sweep(args) if args.only_asks() => {
            with_client_config(global, QUIET_LOG, |config| sweep::ask(config, args))
        }
        Verb::Sweep(args) => start(global, QUIET_LOG, global.load(), |loaded| sweep::here(loaded.config, args)),
        Verb::Adopt(args) => start(global, QUIET_LOG, global.load(), |loaded| adopt::run(loaded.config, args)),
        Verb::ProviderCheck(args) => with_client_config(global, QUIET_LOG, |config| provider_check::run(config, args)),
        Verb::DemoScheduler => with_client_config(global, USUAL_LOG, demo_scheduler::run),
        Verb::DemoWorker => {
            block_on(async { if demo_worker::run().await.is_ok() { Exit::Done } else { Exit::Unavailable } })
        }
        Verb::Healthcheck => match global.load_client() {
            Ok(loaded) => match block_on(healthcheck::run(loaded.config.http.listen)) {
                Ok(()) => Exit::Done,
                Err(why) => {
                    eprintln!("enlist: {why}");
                    Exit::Unavailable
                }
            },
            Err(error) => mistaken(&error),
        },
    }
}

/// Runs a verb that serves pools: logging first, then the settings, then a runtime for it.
fn with_config<F: Future<Output = Exit>>(global: &GlobalArgs, verb: impl FnOnce(Config) -> F) -> Exit {
    start(global, USUAL_LOG, global.load(), |loaded| verb(loaded.config))
}

/// Runs a verb that only talks to NATS.
fn with_client_config<F: Future<Output = Exit>>(
    global: &GlobalArgs,
    log: &str,
    verb: impl FnOnce(Config) -> F,
) -> Exit {
    start(global, log, global.load_client(), |loaded| verb(loaded.config))
}

fn start<F: Future<Output = Exit>>(
    global: &GlobalArgs,
    log: &str,
    loaded: Result<Loaded, ConfigError>,
    verb: impl FnOnce(Loaded) -> F,
) -> Exit {
    start_on(Builder::new_current_thread, global, log, loaded, verb)
}

fn start_on<F: Future<Output = Exit>>(
    threads: fn() -> Builder,
    global: &GlobalArgs,
    log: &str,
    loaded: Result<Loaded, ConfigError>,
    verb: impl FnOnce(Loaded) -> F,
) -> Exit {
    let exporting = match init_logging(global.log_format, log) {
        Ok(exporting) => exporting,
        Err(mistake) => {
            eprintln!("{mistake}");
            return Exit::Config;
        }
    };
    let exit = match loaded {
        Ok(loaded) => runtime(threads).block_on(verb(loaded)),
        Err(error) => mistaken(&error),
    };
    exporting.end();
    exit
}

/// Arguments that are understood one by one and make no sense together, or that a replica would refuse.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misused(String);

/// How a verb ends that tells whether all that it was asked for has come to be, or says why it could not begin.
fn ended(done: anyhow::Result<bool>) -> Exit {
    let error = match done {
        Ok(true) => return Exit::Done,
        Ok(false) => return Exit::Failed,
        Err(error) => error,
    };
    eprintln!("enlist: {error:#}");
    if error.is::<ConnectError>() {
        Exit::Unavailable
    } else if error.is::<NotOurs>() || error.is::<Misused>() {
        Exit::Usage
    } else {
        error.downcast_ref().map_or(Exit::Failed, run::exit_code)
    }
}

fn mistaken(error: &ConfigError) -> Exit {
    eprintln!("{error}");
    Exit::Config
}

/// Help and version were asked for; anything else is a mistake of the caller's.
fn usage(error: &clap::Error) -> Exit {
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(args: &[&str]) -> Exit {
        match Cli::try_parse_from(args) {
            Ok(cli) => run(&cli),
            Err(error) => usage(&error),
        }
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        assert_eq!(exit_of(&["enlist", "--help"]), Exit::Done);
        assert_eq!(exit_of(&["enlist", "--version"]), Exit::Done);
        assert_eq!(exit_of(&["enlist", "no-such-verb"]), Exit::Usage);
        assert_eq!(exit_of(&["enlist"]), Exit::Usage);
        assert_eq!(exit_of(&["enlist", "check-config", "--config", "/no/such/file.toml"]), Exit::Config);
        assert_eq!(exit_of(&["enlist", "provision", "No Good"]), Exit::Usage);
        assert_eq!(Exit::Failed.code(), 1);
        assert_eq!([Exit::Done, Exit::Usage, Exit::Unavailable, Exit::Config].map(Exit::code), [0, 64, 69, 78]);
    }

    #[test]
    fn a_terminate_of_nobody_is_told_who_can_be_meant() {
        let error = Cli::try_parse_from(["enlist", "terminate", "demo"]).err().unwrap().to_string();
        for one in ["WORKER", "--all", "--label", "--state"] {
            assert!(error.contains(one), "{one}: {error}");
        }
    }

    #[test]
    fn flags_may_stand_before_and_after_the_verb() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("enlist.toml");
        std::fs::write(&path, "[pools.load]\nprovider = \"null\"\n").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(exit_of(&["enlist", "--prefix", "a", "check-config", "--config", path]), Exit::Done);
        assert_eq!(exit_of(&["enlist", "--config", path, "check-config", "--prefix", "No Good"]), Exit::Config);
    }
}
