//! `enlist ls`: the workers of the fleet, one at a time out of the view, however many there are.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;

use super::Exit;
use super::orders::{self, no_fleet};
use super::output::{Format, OutputArgs, Sheet, printed, since, span};
use super::page::{self, short};
use crate::bus::view::{Filter, Record, Seen};
use crate::config::Config;
use crate::domain::{Labels, Pool, State, Worker};

/// Arguments of `ls`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist ls                                   all, also those that have ended
  enlist ls demo --state registered           those that the scheduler has
  enlist ls --label zone=a -o ndjson | wc -l  how many have a label

In the order in which they changed last. One that changes while it is listed may come twice; the later line holds.")]
pub(super) struct LsArgs {
    /// The pool [default: all]
    pool: Option<Pool>,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which workers are meant, by how they stand.
#[derive(Args)]
pub(super) struct WhichArgs {
    /// In one of these states
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state())]
    pub(super) state: Vec<State>,
    /// With this label; several: with all of them
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    pub(super) label: Vec<(String, String)>,
}

impl WhichArgs {
    pub(super) fn filter(&self, pool: Option<&Pool>) -> Filter {
        let Self { state, label } = self;
        let labels: Labels = label.iter().cloned().collect();
        Filter { pool: pool.cloned(), states: state.clone(), labels, after: 0 }
    }
}

/// A state by its name, which a shell completes.
pub(super) fn state() -> impl TypedValueParser<Value = State> {
    let names = PossibleValuesParser::new(State::ALL.map(State::as_str));
    names.try_map(|name| State::from_token(&name).ok_or("no state"))
}

/// A label as a name and its value.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(super) async fn run(config: Config, args: &LsArgs) -> Exit {
    printed(list(&config, args).await)
}

async fn list(config: &Config, args: &LsArgs) -> anyhow::Result<bool> {
    let LsArgs { pool, which, output: OutputArgs { output } } = args;
    let orders = orders::connect(config, "enlist ls").await?;
    let filter = which.filter(pool.as_ref());
    let mut records = orders::whole(&orders, pool.as_ref());
    let now = Timestamp::now();
    let mut sheet =
        Sheet::new(*output, ["POOL", "WORKER", "STATE", "SINCE", "INSTANCE", "LABELS"]).painted(2, page::tone_of);
    while let Some(Seen { record, .. }) = records.try_next().await.map_err(|error| no_fleet(&orders, &error))? {
        match record {
            Record::Worker(worker) if filter.takes(&worker) => sheet.row(|| row(&worker, now), &worker)?,
            Record::Worker(_) | Record::Pool(_) => {}
            Record::Unreadable(subject, why) => eprintln!("enlist: {subject} cannot be read: {why}"),
        }
    }
    if sheet.end()? == 0 && *output == Format::Table {
        match pool {
            Some(pool) => eprintln!("enlist: pool {pool} has no such worker"),
            None => eprintln!("enlist: there is no such worker"),
        }
    }
    Ok(true)
}

fn row(worker: &Worker, now: Timestamp) -> [String; 6] {
    let labels = &worker.capabilities.labels;
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    [
        worker.pool.to_string(),
        worker.worker_id.to_string(),
        worker.state.as_str().to_owned(),
        span(since(worker.updated_at, now)),
        worker.instance_id.as_deref().map_or("-".to_owned(), short),
        labels.join(","),
    ]
}
