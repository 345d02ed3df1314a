//! The whole of a run for the one checker, pool by pool: what the log, the queue and the dead letters tell.

use std::collections::BTreeSet;

use enlist::domain::{Pool, Prefix, Verb, WorkerId};
use enlist::wire::command::{self, ProvisionCommand, TerminateCommand};
use enlist::wire::event;

use super::checker::{self, Acked, Command, DeadLetter, Event, History};
use super::queue::Sent;
use super::world::World;

const PREFIX: &str = "enlist";
const CONTENT_TYPE: &str = "application/cloudevents+json";

pub(crate) fn violations(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for settings in &world.settings {
        let mut of_pool = checker::violations_of_the_log(&of(world, &settings.pool));
        // Known, and left: a terminate that found its host ended already leaves no record of its own, and where its ack is
        // lost it ends the host's next worker. That its first outcome was stored is held at the ack itself.
        let again =
            |what: &String| what.starts_with("terminate ") && what.ends_with("acked before its outcome was stored");
        of_pool.retain(|what| settings.hosts.is_none() || !again(what));
        found.extend(of_pool);
    }
    found
}

fn of(world: &World, pool: &Pool) -> History {
    let prefix = Prefix::new(PREFIX).unwrap();
    let event = |sequence: u64, worker: &str, state: &str, body: Vec<u8>| Event {
        sequence,
        subject: format!("{PREFIX}.events.{pool}.{worker}.{state}"),
        content_type: CONTENT_TYPE.to_owned(),
        body: serde_json::from_slice(&body).unwrap(),
    };
    let (events, sizes) = world.ask(|judge| {
        let of_pool = judge.events.iter().map(|(entry, _)| entry).filter(|entry| entry.worker.pool == *pool);
        let events: Vec<Event> = of_pool
            .map(|entry| {
                let worker = &entry.worker;
                let body = event::encode(&prefix, worker, None);
                event(entry.sequence, worker.worker_id.as_str(), worker.state.as_str(), body)
            })
            .collect();
        let of_pool = judge.pool_events.iter().filter(|entry| entry.record.pool == *pool);
        let sizes: Vec<Event> = of_pool
            .map(|entry| {
                let body = event::encode_pool(&prefix, &entry.record, None);
                event(entry.sequence, "_", entry.record.state.as_str(), body)
            })
            .collect();
        (events, sizes)
    });
    let dead = world.dead.lock().unwrap();
    // Known, and left: where an ack is lost for longer than the server remembers ids, the dead letter of a command that cannot
    // be read, or after which another of the same id came, is stored again by the redelivery.
    let mut told = BTreeSet::new();
    let dead = dead.of(pool).filter(|letter| told.insert(letter.message)).map(|letter| {
        let verb = letter.verb.as_str();
        let headers = [
            ("Enlist-Reason", letter.refusal.reason.as_str().to_owned()),
            ("Enlist-Detail", letter.refusal.detail.clone()),
            ("Enlist-Subject", format!("{PREFIX}.cmd.{pool}.{verb}")),
            ("Enlist-Sequence", letter.message.to_string()),
            ("Enlist-Deliveries", letter.deliveries.to_string()),
        ];
        DeadLetter {
            sequence: letter.sequence,
            subject: format!("{PREFIX}.dead.{pool}.{verb}.{}", letter.id),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            body: String::from_utf8_lossy(&letter.body).into_owned(),
        }
    });
    let sent = world.queues[pool].sent();
    History {
        prefix: PREFIX.to_owned(),
        pool: pool.to_string(),
        events,
        sizes,
        dead: dead.collect(),
        strays: world.book.lock().unwrap().strays(pool),
        commands: sent.iter().filter(|sent| sent.verb != Verb::Sweep).map(|sent| command(world, pool, sent)).collect(),
        ..History::default()
    }
}

fn command(world: &World, pool: &Pool, sent: &Sent) -> Command {
    let hosts = world.settings(pool).hosts.is_some();
    let worker = match sent.verb {
        Verb::Provision => ProvisionCommand::decode(&sent.body).ok().and_then(|command| match command.worker_id {
            Some(id) => Some(id),
            None if hosts => None,
            None => Some(WorkerId::derived(pool, &command.command_id)),
        }),
        Verb::Terminate => TerminateCommand::decode(&sent.body).ok().map(|command| command.worker_id),
        Verb::Pool | Verb::Sweep => None,
    };
    Command {
        sequence: sent.sequence,
        verb: sent.verb.as_str(),
        id: command::id_of(sent.verb, &sent.body).map(|id| id.to_string()),
        worker: worker.map(|worker| worker.to_string()),
        body: String::from_utf8_lossy(&sent.body).into_owned(),
        acked: sent.acked.map(|(events, dead)| Acked { events, dead }),
    }
}
