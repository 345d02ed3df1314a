//! `enlist dead`: the commands that were refused, listed, shown, put back into their queues, removed.

mod replay;

use std::io::{Write as _, stdout};

use clap::{Args, Subcommand};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use serde::Serialize;

use super::orders::{self, Orders, no_fleet, view};
use super::output::{Format, OutputArgs, Sheet, at, print_json, printed, say, since, span};
use super::send::asked;
use super::{Exit, ended};
use crate::bus::letters::Letter;
use crate::bus::standing::standing;
use crate::bus::stored;
use crate::config::Config;
use crate::domain::{CommandId, Pool, Reason};
use crate::text::cut;

/// What is done about dead letters.
#[derive(Subcommand)]
pub(super) enum DeadVerb {
    /// List them, oldest first
    Ls(LsArgs),
    /// Show some with the commands in them, which may hold secrets
    Show(ShowArgs),
    /// Put the commands back into their queues, under their own ids, and remove the letters
    Replay(SomeArgs),
    /// Remove them
    Purge(SomeArgs),
}

/// Arguments of `dead`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist dead ls demo
  enlist dead show 17
  enlist dead replay 17                              by its number
  enlist dead replay --pool demo --reason quota --yes  once there is room
  enlist dead purge --all --yes

What a replay does: it takes away the record that would refuse the command again, and an `expires_at` that is over, stores \
the command, and removes the letter last. Where it is cut off in between, the same replay again goes on; no command is \
carried out twice. What stood in the command's way otherwise (a setting, a field) is to be mended before; else it is refused \
again, with a new letter. Where a host's own record refuses the command it stays, and so does the letter: send that command \
under another id.")]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    verb: DeadVerb,
}

/// Arguments of `dead ls`.
#[derive(Args)]
pub(super) struct LsArgs {
    /// The pool [default: all]
    pool: Option<Pool>,
    /// Refused for one of these reasons
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = reason)]
    reason: Vec<Reason>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `dead show`.
#[derive(Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of what changes something.
#[derive(Args)]
pub(super) struct SomeArgs {
    #[command(flatten)]
    which: Which,
    /// Ask no question
    #[arg(short, long)]
    yes: bool,
}

/// Which letters are meant.
#[derive(Args)]
struct Which {
    /// Their numbers, as `enlist dead ls` has them
    #[arg(required_unless_present_any = ["command", "pool", "reason", "all"], conflicts_with = "all")]
    number: Vec<u64>,
    /// Those of a command
    #[arg(long, value_name = "ID")]
    command: Option<CommandId>,
    /// Those of a pool
    #[arg(long)]
    pool: Option<Pool>,
    /// Those with one of these reasons
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = reason)]
    reason: Vec<Reason>,
    /// Every one
    #[arg(long)]
    all: bool,
}

fn reason(text: &str) -> Result<Reason, String> {
    let all = Reason::ALL.map(Reason::as_str).join(", ");
    Reason::from_name(text).ok_or_else(|| format!("expected one of {all}"))
}

impl Which {
    fn takes(&self, letter: &Letter) -> bool {
        let Self { number, command, pool, reason, all: _ } = self;
        (number.is_empty() || number.contains(&letter.number))
            && command.as_ref().is_none_or(|command| letter.command_id.as_ref() == Some(command))
            && pool.as_ref().is_none_or(|pool| *pool == letter.pool)
            && (reason.is_empty() || reason.contains(&letter.letter.refusal.reason))
    }
}

/// A letter for programs. Its body is the command as it came, where it is text at all.
#[derive(Serialize)]
struct Shown<'a> {
    number: u64,
    stored_at: Timestamp,
    pool: &'a Pool,
    verb: &'static str,
    command_id: Option<&'a CommandId>,
    reason: &'static str,
    detail: &'a str,
    subject: &'a str,
    sequence: u64,
    deliveries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<std::borrow::Cow<'a, str>>,
}

impl<'a> Shown<'a> {
    fn of(letter: &'a Letter, with_body: bool) -> Self {
        let Letter { number, time, pool, verb, command_id, trace: _, letter } = letter;
        Self {
            number: *number,
            stored_at: *time,
            pool,
            verb: verb.as_str(),
            command_id: command_id.as_ref(),
            reason: letter.refusal.reason.as_str(),
            detail: &letter.refusal.detail,
            subject: &letter.subject,
            sequence: letter.sequence,
            deliveries: letter.deliveries,
            body: with_body.then(|| String::from_utf8_lossy(&letter.body)),
        }
    }
}

pub(super) async fn run(config: Config, args: &DeadArgs) -> Exit {
    match &args.verb {
        DeadVerb::Ls(args) => printed(list(&config, args).await),
        DeadVerb::Show(args) => printed(show(&config, args).await),
        DeadVerb::Replay(args) => ended(replay(&config, args).await),
        DeadVerb::Purge(args) => ended(purge(&config, args).await),
    }
}

async fn list(config: &Config, args: &LsArgs) -> anyhow::Result<bool> {
    let LsArgs { pool, reason, output: OutputArgs { output } } = args;
    let which = Which { number: Vec::new(), command: None, pool: pool.clone(), reason: reason.clone(), all: true };
    let orders = orders::connect(config, "enlist dead").await?;
    let mut letters = view(&orders).letters(pool.as_ref());
    let now = Timestamp::now();
    let mut sheet = Sheet::new(*output, ["NUMBER", "AGE", "POOL", "VERB", "COMMAND", "REASON", "DETAIL"]);
    while let Some(letter) = letters.try_next().await.map_err(|error| no_fleet(&orders, &error))? {
        if which.takes(&letter) {
            sheet.row(|| row(&letter, now), &Shown::of(&letter, false))?;
        }
    }
    if sheet.end()? == 0 && *output == Format::Table {
        eprintln!("enlist: there is no such dead letter");
    }
    Ok(true)
}

fn row(letter: &Letter, now: Timestamp) -> [String; 7] {
    let Letter { number, time, pool, verb, command_id, trace: _, letter } = letter;
    [
        number.to_string(),
        span(since(*time, now)),
        pool.to_string(),
        verb.as_str().to_owned(),
        command_id.as_ref().map_or("-".to_owned(), ToString::to_string),
        letter.refusal.reason.as_str().to_owned(),
        letter.refusal.detail.clone(),
    ]
}

async fn show(config: &Config, args: &ShowArgs) -> anyhow::Result<bool> {
    let ShowArgs { which, output: OutputArgs { output } } = args;
    let orders = orders::connect(config, "enlist dead").await?;
    let mut letters = view(&orders).letters(which.pool.as_ref());
    let mut shown = 0_u64;
    let mut sheet = Sheet::new(*output, [""; 0]);
    while let Some(letter) = letters.try_next().await.map_err(|error| no_fleet(&orders, &error))? {
        if !which.takes(&letter) {
            continue;
        }
        shown += 1;
        match output {
            Format::Json => sheet.row(|| [], &Shown::of(&letter, true))?,
            Format::Ndjson => print_json(&Shown::of(&letter, true), *output)?,
            Format::Table => {
                let mut out = stdout().lock();
                let Shown {
                    number,
                    stored_at,
                    pool,
                    verb,
                    command_id,
                    reason,
                    detail,
                    subject,
                    sequence,
                    deliveries,
                    body,
                } = Shown::of(&letter, true);
                if shown > 1 {
                    writeln!(out)?;
                }
                writeln!(out, "letter     {number}, stored {}", at(stored_at))?;
                writeln!(out, "command    {verb} {pool}, {}", command_id.map_or("without an id", |id| id.as_str()))?;
                writeln!(out, "refused    {reason}: {}", cut(detail, 600))?;
                writeln!(out, "came on    {}, number {sequence}; deliveries: {deliveries}", cut(subject, 100))?;
                // Escaped, as all foreign text at a terminal is.
                writeln!(out, "body       {}", cut(&body.unwrap_or_default(), 70_000))?;
            }
        }
    }
    if *output == Format::Json {
        sheet.end()?;
    }
    if shown == 0 {
        eprintln!("enlist: there is no such dead letter; `enlist dead ls` lists them");
    }
    Ok(shown > 0)
}

/// The letters that are meant and are there now: what comes while they are dealt with may be what came of them.
async fn meant(orders: &Orders, which: &Which) -> anyhow::Result<(u64, u64)> {
    let stream = orders.subjects.dead_stream();
    let stands = standing(&orders.connection, &orders.requests, &orders.api_prefix, &stream).await;
    let upto = stands.map_err(|error| no_fleet(orders, &error))?;
    let mut letters = view(orders).letters(which.pool.as_ref());
    let mut number = 0;
    while let Some(letter) = letters.try_next().await.map_err(|error| no_fleet(orders, &error))? {
        if letter.number > upto {
            break;
        }
        number += u64::from(which.takes(&letter));
    }
    Ok((upto, number))
}

/// Whether it is to be done: letters that are named by their numbers are not asked about.
fn agreed(args: &SomeArgs, verb: &str, number: u64) -> anyhow::Result<bool> {
    if args.yes || !args.which.number.is_empty() {
        return Ok(true);
    }
    let what = if number == 1 { "1 dead letter".to_owned() } else { format!("{number} dead letters") };
    asked(&format!("{what} would be {verb}"), &format!("{what} will be {verb}: go on?"))
}

async fn replay(config: &Config, args: &SomeArgs) -> anyhow::Result<bool> {
    let orders = orders::connect(config, "enlist dead").await?;
    let journal = super::pools::journal(config, &orders);
    let hosts = replay::Hosts::default();
    each(&orders, args, "replayed", async |letter| {
        let replayed = replay::replay(&orders, &journal, &hosts, letter).await?;
        Ok(format!("{} {}: {replayed}", letter.verb.as_str(), letter.pool))
    })
    .await
}

async fn purge(config: &Config, args: &SomeArgs) -> anyhow::Result<bool> {
    let orders = orders::connect(config, "enlist dead").await?;
    each(&orders, args, "removed", async |letter| {
        remove(&orders, letter.number).await?;
        let command = letter.command_id.as_ref().map_or("without an id", |id| id.as_str());
        Ok(format!("{} {}: command {command}: the letter is removed", letter.verb.as_str(), letter.pool))
    })
    .await
}

/// Deals with each letter that is meant, one after the other; a failure of one does not keep the others from it, an
/// interruption ends it between two.
async fn each(
    orders: &Orders,
    args: &SomeArgs,
    verb: &str,
    deal: impl AsyncFn(&Letter) -> Result<String, replay::NotReplayed>,
) -> anyhow::Result<bool> {
    let mut stop = std::pin::pin!(super::told_to_stop());
    let which = &args.which;
    let (upto, number) = meant(orders, which).await?;
    if number == 0 {
        eprintln!("enlist: there is no such dead letter; `enlist dead ls` lists them");
        return Ok(which.number.is_empty() && which.command.is_none());
    }
    if !agreed(args, verb, number)? {
        say("nothing is done");
        return Ok(false);
    }
    let (mut done, mut failed) = (0_u64, 0_u64);
    let mut letters = view(orders).letters(which.pool.as_ref());
    while let Some(letter) = letters.try_next().await.map_err(|error| no_fleet(orders, &error))? {
        if letter.number > upto {
            break;
        }
        if !which.takes(&letter) {
            continue;
        }
        // One that is begun is finished: a signal is heard between two.
        match deal(&letter).await {
            Ok(told) => {
                done += 1;
                say(told);
            }
            Err(why) => {
                failed += 1;
                eprintln!("enlist: letter {}: {why}", letter.number);
            }
        }
        if futures_util::FutureExt::now_or_never(&mut stop).is_some() {
            break;
        }
    }
    let left = number - done.min(number);
    if left > 0 {
        eprintln!("enlist: {done} of {number} are {verb}, {failed} failed; the same again goes on with the rest");
    }
    Ok(left == 0)
}

/// Removes one letter; it is no error that it is gone.
async fn remove(orders: &Orders, number: u64) -> Result<(), replay::NotReplayed> {
    let stream = orders.subjects.dead_stream();
    Ok(stored::delete(&orders.requests, &orders.api_prefix, &stream, number).await?)
}
