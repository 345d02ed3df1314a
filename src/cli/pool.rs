//! `enlist pool`: the size that a pool is to hold, and the way there.

use std::pin::pin;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::away::tell_away;
use super::orders::{self, LOOK_EVERY, Order, Told};
use super::page::Page;
use super::pools::journal;
use super::send::{SILENCE, SendArgs, left, new_id, taken, understood};
use super::{Exit, ended, told_to_stop};
use crate::config::Config;
use crate::domain::{Pool, PoolRecord, PoolState};
use crate::journal::nats::NatsJournal;
use crate::journal::{Journal as _, PoolEntry};
use crate::wire::command::PoolCommand;

/// Arguments of `pool`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist pool demo 20 --wait
  enlist pool demo 0            empties it, and keeps it empty")]
pub(super) struct PoolArgs {
    /// The pool
    pool: Pool,
    /// Workers that it is to hold; 0 empties it
    size: u32,
    #[command(flatten)]
    send: SendArgs,
}

/// A pool that is on its way to its size tells of it; one whose sweep is frozen, say, does not.
const QUIET: Duration = Duration::from_secs(10);

/// How a command for a size has ended.
#[derive(Debug, PartialEq)]
enum End {
    /// The pool has had the size.
    Sized(PoolRecord),
    /// Another size has taken its place.
    Overtaken(PoolRecord),
}

pub(super) async fn run(config: Config, args: &PoolArgs) -> Exit {
    ended(size(&config, args).await)
}

/// Whether the pool has its size; or, where nobody waits for it, whether the command is stored.
async fn size(config: &Config, args: &PoolArgs) -> anyhow::Result<bool> {
    let PoolArgs { pool, size, send: SendArgs { command_id, wait } } = args;
    let command_id = command_id.clone().unwrap_or_else(new_id);
    let command = PoolCommand { command_id, size: *size, expires_at: None, correlation_id: None };
    let order = Order::pool(pool.clone(), &understood(PoolCommand::decode(&command.encode()))?);
    let mut stop = pin!(told_to_stop());
    let orders = orders::connect(config, "enlist pool").await?;
    // Before the command, so that nothing is missed.
    let mut news = if *wait { Some(orders.news_of(&order).await?) } else { None };
    let stored = orders.send(&order).await?;
    let mut page = Page::new();
    page.say(taken(&order, &stored));
    let Some(news) = &mut news else { return Ok(true) };
    let (place, journal) = (stored.sequence, journal(config, &orders));
    let (mut looks, hint) = (interval(LOOK_EVERY), sleep_until(Instant::now() + SILENCE));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let quiet = sleep_until(Instant::now() + QUIET);
    tokio::pin!(hint, quiet);
    // A look takes long where the broker is away, and whoever waits no longer does not wait for that either.
    let waited = async {
        let (mut begun, mut hinted) = (false, false);
        loop {
            let told = tokio::select! {
                // What came during a long look comes before the hints.
                biased;
                told = news.next() => told.ok_or_else(|| anyhow::anyhow!("the connection was closed before the outcome was known"))?,
                _ = looks.tick() => match look(&journal, &order, place).await {
                    Some(End::Sized(record)) => Told::Pool(Box::new(record)),
                    Some(End::Overtaken(by)) => return Ok(overtaken(&mut page, &order, by)),
                    None => continue,
                },
                () = &mut quiet, if begun && !hinted => {
                    hinted = true;
                    eprintln!(
                        "enlist: no news of it for {} s; `enlist sweep {pool} --dry-run` shows what holds it back",
                        QUIET.as_secs()
                    );
                    continue;
                }
                () = &mut hint, if !begun => {
                    begun = true;
                    eprintln!("enlist: no replica has begun with it yet (enlist run); still waiting");
                    continue;
                }
            };
            if !told.concerns(&order) {
                continue;
            }
            quiet.as_mut().reset(Instant::now() + QUIET);
            page.told(&told);
            if told.ends(&order) {
                return Ok(matches!(told, Told::Pool(_)));
            }
            if let Told::Pool(record) = &told {
                begun |= record.command_id == order.command_id;
                // Perhaps an earlier command's last word, perhaps another one's first: the log knows.
                looks.reset_immediately();
            }
        }
    };
    tokio::select! {
        ended = waited => ended,
        () = &mut stop => {
            eprintln!("{}", left(&order));
            Ok(false)
        }
        never = tell_away(&orders.connection, |line| eprintln!("{line}")) => match never {},
    }
}

fn overtaken(page: &mut Page, order: &Order, by: PoolRecord) -> bool {
    let PoolRecord { size, command_id, .. } = &by;
    let line = format!("pool {}: command {command_id} has overtaken it, with size {size}", order.pool);
    page.told(&Told::Pool(Box::new(by)));
    page.say(line);
    false
}

/// How the command has ended, by the log; `None` too where that cannot be asked just now.
async fn look(journal: &NatsJournal, order: &Order, place: u64) -> Option<End> {
    let head = journal.pool_head(&order.pool).await.ok()??;
    if head.record.command_id == order.command_id && head.record.state == PoolState::Sizing {
        return None;
    }
    end_of(&journal.pool_history(&order.pool).await.ok()?, order, place)
}

/// The same, from the pool's own events. `place` is the command's in the queue: a size that was asked for there later takes
/// its place, also where it is the first to be begun with.
fn end_of(history: &[PoolEntry], order: &Order, place: u64) -> Option<End> {
    let head = history.last()?;
    let ours = history.iter().rev().find(|entry| entry.record.command_id == order.command_id);
    match ours.map(|entry| &entry.record) {
        Some(record) if record.state == PoolState::Sized => Some(End::Sized(record.clone())),
        Some(record) if *record == head.record => None,
        Some(_) => Some(End::Overtaken(head.record.clone())),
        None => head.writer.message.is_some_and(|message| message > place).then(|| End::Overtaken(head.record.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CommandId;
    use crate::journal::Writer;

    fn event(rev: u64, command_id: &str, state: PoolState, message: u64) -> PoolEntry {
        let record = PoolRecord {
            pool: Pool::new("demo").unwrap(),
            state,
            rev,
            size: 3,
            actual: 0,
            command_id: CommandId::new(command_id).unwrap(),
            correlation_id: None,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
        };
        PoolEntry {
            record,
            sequence: rev,
            writer: Writer { name: "r.1".into(), message: Some(message), claim: None, trace: None },
        }
    }

    fn end_with(history: &[PoolEntry]) -> Option<End> {
        let command_id = CommandId::new("ours").unwrap();
        let command = PoolCommand { command_id, size: 3, expires_at: None, correlation_id: None };
        end_of(history, &Order::pool(Pool::new("demo").unwrap(), &command), 5)
    }

    #[test]
    fn a_command_for_a_size_has_ended_when_the_pool_had_it_or_another_came_between() {
        use PoolState::{Sized, Sizing};
        let earlier = event(1, "earlier", Sizing, 4);
        let (ours, sized) = (event(2, "ours", Sizing, 5), event(3, "ours", Sized, 5));
        let later = event(4, "later", Sizing, 6);
        let overtaken = Some(End::Overtaken(later.record.clone()));
        assert_eq!(end_with(&[]), None);
        assert_eq!(end_with(std::slice::from_ref(&earlier)), None, "its turn is still to come");
        assert_eq!(end_with(&[earlier.clone(), ours.clone()]), None);
        assert_eq!(end_with(&[ours.clone(), sized.clone()]), Some(End::Sized(sized.record.clone())));
        let after = [ours.clone(), sized.clone(), later.clone()];
        assert_eq!(end_with(&after), Some(End::Sized(sized.record)), "it had ended before the later one came");
        assert_eq!(end_with(&[ours, later.clone()]), overtaken);
        assert_eq!(end_with(&[earlier, later]), overtaken, "it was overtaken on its way");
    }
}
