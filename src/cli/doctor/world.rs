//! What lies beside NATS: the scheduler, and each pool's provider.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Check, Ward};
use crate::bus::requests::RequestError;
use crate::cli::output::span;
use crate::domain::ErrorClass;
use crate::provider::any::AnyProvider;
use crate::provider::{ProviderError, WorkerProvider as _};
use crate::registration::WorkerRegistrationPort as _;
use crate::registration::nats::NatsScheduler;

/// How long a provider may take to list.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the scheduler may take to answer.
const ASKED: Duration = Duration::from_secs(1);

pub(super) async fn checks(ward: &Ward<'_>) -> Vec<Check> {
    if !ward.replica {
        return Vec::new();
    }
    let mut checks = scheduler(ward).await;
    for pool in &ward.pools {
        let Some(settings) = ward.config.pools.get(pool) else { continue };
        let check = format!("provider {} of pool {pool}", settings.provider.name());
        let begun = Instant::now();
        let listed = match AnyProvider::for_pool(ward.config, settings, ward.orders.requests.client()) {
            Ok(provider) => timeout(PATIENCE, provider.list_workers(pool)).await.unwrap_or_else(|_| {
                Err(ProviderError::new(ErrorClass::Timeout, format!("no list within {} s", PATIENCE.as_secs())))
            }),
            Err(error) => Err(error),
        };
        checks.push(match listed {
            Ok(instances) => Check::ok(check, format!("lists {} within {}", instances.len(), span(begun.elapsed()))),
            Err(error) => {
                let remedy = remedy(error.class);
                Check::fail(check, format!("{}: {}", error.class.as_str(), error.message), remedy)
            }
        });
    }
    checks
}

fn remedy(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Unauthorized => "give this user the right: to the engine's socket, to the state folder",
        ErrorClass::NotFound | ErrorClass::Unavailable | ErrorClass::Timeout => {
            "start it, or say where it is: [providers] in the settings"
        }
        ErrorClass::InvalidSpec
        | ErrorClass::Conflict
        | ErrorClass::InsufficientCapacity
        | ErrorClass::QuotaExceeded
        | ErrorClass::Throttled
        | ErrorClass::Internal => "see what it says",
    }
}

/// Whether somebody answers a register request, and whether it knows `list`.
async fn scheduler(ward: &Ward<'_>) -> Vec<Check> {
    let pools = ward.config.pools.iter();
    let Some((pool, _)) = pools.into_iter().find(|(_, settings)| settings.registration.enabled) else {
        return vec![Check::ok("scheduler", "no pool registers its workers")];
    };
    let settings = &ward.config.scheduler;
    let mut checks = Vec::new();
    // A request that asks for nothing.
    for subject in [&settings.register, &settings.unregister] {
        let check = format!("scheduler at {subject}");
        let asked = ward.orders.requests.send(subject.clone(), None, "{}".into(), ASKED).await;
        let said = ward.orders.connection.complaint().filter(|said| said.contains(subject.as_str()));
        checks.push(match (asked, said) {
            (Ok(_), _) => Check::ok(check, "answers"),
            (Err(_), Some(said)) => Check::fail(check, said, "add it to the user's publish permissions"),
            // Some pass over what they cannot read.
            (Err(RequestError::TimedOut), None) => Check::ok(check, "somebody listens"),
            (Err(error), None) => {
                let remedy =
                    "start it, or name its subjects: [scheduler] in the settings; till then registrations fail";
                Check::fail(check, error.to_string(), remedy)
            }
        });
    }
    let (check, begun) = (format!("scheduler at {}", settings.list), std::time::Instant::now());
    let scheduler = NatsScheduler::new(ward.orders.requests.clone(), settings);
    checks.push(match scheduler.list_workers(pool).await {
        Ok(Some(workers)) => Check::ok(check, format!("lists {} of pool {pool}", workers.len())),
        Ok(None) => Check::warn(
            check,
            "has no list",
            "it will do; with one, the sweep registers who was forgotten and unregisters who is gone",
        ),
        Err(error) => match ward.orders.connection.refused_since(begun, &[&settings.list]) {
            Some(said) => Check::fail(check, said, "add it to the user's publish permissions"),
            None => Check::fail(
                check,
                error.to_string(),
                "answer list requests as schemas/list-reply.json says, or not at all",
            ),
        },
    });
    checks
}
