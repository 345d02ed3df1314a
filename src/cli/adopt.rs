//! `enlist adopt`: records for instances that have none, as the provider tells of them.

use clap::Args;

use super::orders;
use super::page::Page;
use super::pools::{Tended, readable, tended};
use super::table::table;
use super::{Exit, ended};
use crate::config::Config;
use crate::domain::Pool;
use crate::service::sweep::SchedulerList;
use crate::service::{Adoption, Adoptions};

/// Arguments of `adopt`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  enlist adopt --dry-run
  enlist adopt demo")]
pub(super) struct AdoptArgs {
    /// The pools [default: every pool of the settings]
    #[arg(value_name = "POOL")]
    pools: Vec<Pool>,
    /// Only say which instances have no record
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(config: Config, args: &AdoptArgs) -> Exit {
    ended(adopt(&config, args).await)
}

/// Whether every instance has a record now, or would have with `dry_run`, and all that it takes could be seen.
async fn adopt(config: &Config, args: &AdoptArgs) -> anyhow::Result<bool> {
    let AdoptArgs { pools, dry_run } = args;
    let orders = orders::connect(config, "enlist adopt").await?;
    let page = Page::new();
    let (tended, mut good) = tended(config, &orders, pools)?;
    for tended in tended {
        let Tended { pool, service, sweep, .. } = &tended;
        match readable(&orders, service.adopt(sweep, *dry_run)).await {
            Ok(adoptions) => good &= tell(&page, &tended, &adoptions, *dry_run),
            Err(error) => {
                good = false;
                page.say(format!("{pool}: not looked at to the end, nothing is adopted: {error}"));
            }
        }
    }
    Ok(good)
}

/// Whether nothing is left to be adopted, and nothing was out of sight.
fn tell(page: &Page, tended: &Tended, adopted: &Adoptions, dry_run: bool) -> bool {
    let Tended { pool, service: _, sweep, queue: _, place } = tended;
    let Adoptions { workers: adoptions, raised, scheduler } = adopted;
    let (unlisted, seen) = match scheduler {
        SchedulerList::Of(_) => (None, true),
        // Whatever it says, it is not asked to take anybody.
        _ if !sweep.registration.enabled => (None, true),
        SchedulerList::None => (Some("the scheduler gives no list".to_owned()).filter(|_| !adoptions.is_empty()), true),
        SchedulerList::Away(why) => (Some(format!("the scheduler's list could not be had: {why}")), false),
    };
    if let Some(unlisted) = unlisted {
        let so = "; each epoch is above what the instance tells, and perhaps not above what the scheduler has seen";
        page.say(format!("{pool}: {unlisted}{}", if adoptions.is_empty() { "" } else { so }));
    }
    if adoptions.is_empty() {
        page.say(format!("{pool}: every instance has a record ({place})"));
        return seen;
    }
    page.say(table(["WORKER", "INSTANCE", "EPOCH", "RESULT"], adoptions.iter().map(row)));
    let failed = adoptions.iter().filter(|adoption| matches!(adoption.adopted, Some(Err(_)))).count();
    let number = adoptions.len();
    page.say(match (dry_run, failed) {
        (true, _) => format!("{pool}: {number} without a record; nothing is done"),
        (false, 0) => format!("{pool}: {number} adopted"),
        (false, failed) => {
            format!("{pool}: {} adopted, {failed} not; the same command again goes on with them", number - failed)
        }
    });
    if let Some((before, now)) = raised {
        page.say(format!(
            "{pool}: the size on record is {before}, and {now} are there: {} {now}; enlist pool {pool} SIZE sets another",
            if dry_run { "it would be raised to" } else { "it is raised to" }
        ));
    }
    failed == 0 && seen
}

fn row(adoption: &Adoption) -> [String; 4] {
    let Adoption { instance, epoch, adopted } = adoption;
    let result = match adopted {
        None => "no record".to_owned(),
        Some(Ok(worker)) => worker.state.as_str().to_owned(),
        Some(Err(why)) => why.clone(),
    };
    [instance.key.worker_id.to_string(), instance.instance_id.clone(), epoch.to_string(), result]
}
