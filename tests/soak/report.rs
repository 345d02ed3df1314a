//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::chaos::Deed;
use crate::checker::{Event, History};
use crate::ears::{Heard, Place};
use crate::fleet::Life;
use crate::proxy::{Break, Weather};
use crate::publisher::Sent;
use crate::scheduler::Mood;

/// What was done to them, by kind.
pub(crate) fn deeds(plan: &[(Duration, Deed)]) -> String {
    let name = |deed: &Deed| match deed {
        Deed::KillReplica { .. } => "replicas killed",
        Deed::StopReplica { .. } => "replicas stopped",
        Deed::KillBroker { .. } => "brokers killed",
        Deed::Weather { weather: Weather::Blackhole, .. } => "black holes",
        Deed::Weather { .. } => "slow links",
        Deed::Break { how: Break::Reset, .. } => "resets",
        Deed::Break { how: Break::HalfOpen, .. } => "half-open connections",
        Deed::Mood { mood: Mood::Silent, .. } => "scheduler silent",
        Deed::Mood { mood: Mood::Away, .. } => "scheduler away",
        Deed::Mood { .. } => "scheduler slow",
        Deed::Forget { .. } => "workers forgotten",
        Deed::Vanish { .. } => "instances vanished",
    };
    counted(plan.iter().map(|(_, deed)| name(deed).to_owned()))
}

/// How the replicas' processes have ended.
pub(crate) fn ends(lives: &[Life]) -> String {
    counted(lives.iter().map(|life| life.end.clone()))
}

/// What became of the commands.
pub(crate) fn figures(histories: &[History], sent: &[Sent], acks: &BTreeMap<Place, Heard>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name}: {value}");
    };
    line("commands", format!("{} ({})", sent.len(), counted(sent.iter().map(|sent| sent.command.verb.to_owned()))));
    let own = histories.iter().flat_map(|history| &history.commands).filter(|sent| sent.sequence == 0);
    line("commands of enlist's own", counted(own.map(|sent| sent.verb.to_owned())));
    let events = histories.iter().flat_map(|history| &history.events);
    line("events", events.clone().count().to_string());
    line("workers at their end", counted(histories.iter().flat_map(ends_of_workers)));
    line("takeovers", histories.iter().map(takeovers).sum::<usize>().to_string());
    let again = acks.values().map(|heard| heard.deliveries.saturating_sub(1)).sum::<u64>();
    let most = acks.values().map(|heard| heard.deliveries).max().unwrap_or_default();
    line("redeliveries", format!("{again}, of one command at most {}", most.saturating_sub(1)));
    let dead = histories.iter().flat_map(|history| &history.dead);
    line("dead letters", counted(dead.map(|letter| letter.headers["Enlist-Reason"].clone())));
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let mut unheard = 0;
    for sent in sent {
        match acks.get(&(sent.pool.to_owned(), sent.command.sequence)) {
            Some(heard) => {
                times.entry(sent.command.verb).or_default().push(heard.at.saturating_duration_since(sent.at));
            }
            None => unheard += 1,
        }
    }
    for (verb, mut times) in times {
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        line(
            &format!("time to outcome of a {verb}"),
            format!("half within {:.1?}, 99 of 100 within {:.1?}, the longest {:.1?}", at(50), at(99), at(100)),
        );
    }
    line("acks that nobody heard", unheard.to_string());
    text
}

fn ends_of_workers(history: &History) -> impl Iterator<Item = String> {
    history.records().into_values().map(|record| record.state().to_owned()).collect::<Vec<_>>().into_iter()
}

/// Each time that somebody went on with what another had begun.
fn takeovers(history: &History) -> usize {
    let taken = |pair: &&[&Event]| {
        pair[1].number("epoch") > pair[0].number("epoch")
            && (pair[1].state() != "terminating" || pair[0].state() == "terminating")
    };
    history.workers().values().map(|events| events.windows(2).filter(taken).count()).sum()
}

fn counted(names: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts.into_iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
