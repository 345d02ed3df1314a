//! Who takes part in a fleet, and on which subjects each of them has to speak and to listen.

use std::collections::{BTreeMap, BTreeSet};

use crate::bus::streams::api_prefix;
use crate::bus::subjects::Subjects;
use crate::config::{Config, ProviderConfig};
use crate::domain::{Pool, Verb};

/// One role, and all that it may do.
pub(super) struct Role {
    /// Of its file, and of its inboxes.
    pub(super) name: String,
    /// For people.
    pub(super) about: String,
    pub(super) publish: Vec<String>,
    pub(super) subscribe: Vec<String>,
    pub(super) answers: Answers,
}

/// Whether it may answer requests, on whatever subject they ask for their answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    No,
    /// One reply a request.
    Once,
    /// Heartbeats, too.
    Often,
}

impl Role {
    fn new(name: impl Into<String>, about: impl Into<String>) -> Self {
        let (name, about) = (name.into(), about.into());
        let mut role = Self { name, about, publish: Vec::new(), subscribe: Vec::new(), answers: Answers::No };
        let inboxes = format!("{}.>", role.inbox());
        // To itself as well: what comes back tells a client that the server has seen all that it sent before.
        role.publish.push(inboxes.clone());
        role.subscribe.push(inboxes);
        role
    }

    /// Inboxes of its own: nobody else may listen to what is answered to it.
    pub(super) fn inbox(&self) -> String {
        format!("_INBOX_{}", self.name)
    }

    fn may_publish<S: Into<String>>(mut self, subjects: impl IntoIterator<Item = S>) -> Self {
        self.publish.extend(subjects.into_iter().map(Into::into));
        self
    }

    fn may_subscribe<S: Into<String>>(mut self, subjects: impl IntoIterator<Item = S>) -> Self {
        self.subscribe.extend(subjects.into_iter().map(Into::into));
        self
    }

    fn may_answer(self, answers: Answers) -> Self {
        Self { answers, ..self }
    }
}

/// Every role of the fleet that the settings describe; the replica first.
pub(super) fn all(config: &Config) -> Vec<Role> {
    let fleet = Fleet::new(config);
    let mut roles = vec![fleet.replica()];
    roles.extend(config.pools.keys().map(|pool| fleet.publisher(pool)));
    roles.extend([fleet.subscriber(), fleet.scheduler(), fleet.operator()]);
    roles.extend(fleet.providers.iter().map(|(name, subjects)| provider(name, subjects)));
    roles
}

struct Fleet<'a> {
    config: &'a Config,
    subjects: Subjects,
    prefix: &'a str,
    /// Before what is asked of the server's streams.
    api: String,
    /// What each external provider listens to: one name may stand behind several prefixes.
    providers: BTreeMap<&'a str, BTreeSet<String>>,
}

impl<'a> Fleet<'a> {
    fn new(config: &'a Config) -> Self {
        let external = config.pools.values().filter_map(|pool| match &pool.provider {
            ProviderConfig::Nats(external) => Some(external),
            ProviderConfig::Process
            | ProviderConfig::Docker
            | ProviderConfig::Static { .. }
            | ProviderConfig::Null(_) => None,
        });
        let mut providers: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for external in external {
            providers.entry(&external.name).or_default().insert(external.subject("*"));
        }
        Self {
            config,
            subjects: Subjects::new(&config.prefix),
            prefix: config.prefix.as_str(),
            api: api_prefix(config.nats.domain.as_deref()),
            providers,
        }
    }

    fn api(&self, request: &str, stream: &str) -> String {
        format!("{}.{request}.{stream}", self.api)
    }

    /// What a reader of a stream asks for, message by message and in batches.
    fn reading(&self, stream: &str) -> [String; 4] {
        [
            self.api("STREAM.INFO", stream),
            self.api("STREAM.MSG.GET", stream),
            // A batch names its filter in its body.
            self.api("DIRECT.GET", stream),
            self.api("DIRECT.GET", &format!("{stream}.>")),
        ]
    }

    /// What it takes to have a stream delivered. A push consumer may deliver to any subject but the stream's own, so that
    /// on the view or the dead letters this is as good as writing the log.
    fn consuming(&self, stream: &str) -> [String; 2] {
        [self.api("CONSUMER.CREATE", stream), self.api("CONSUMER.CREATE", &format!("{stream}.>"))]
    }

    /// Keeps the streams, does what commands say, and tells of it: nobody else writes the log.
    fn replica(&self) -> Role {
        let Self { config, subjects, prefix, .. } = self;
        let (events, view, dead) = (subjects.event_stream(), subjects.view_stream(), subjects.dead_stream());
        let queues: Vec<String> = config.pools.keys().map(|pool| subjects.command_stream(pool)).collect();
        let scheduler = &config.scheduler;
        let mut role = Role::new("replica", "takes commands, writes the log")
            .may_publish([format!("{prefix}.log.>"), subjects.dead_below(">")])
            .may_publish([&scheduler.register, &scheduler.unregister, &scheduler.list])
            .may_publish(self.providers.values().flatten().map(String::as_str))
            .may_publish([events.as_str(), &view, &dead].iter().flat_map(|stream| self.reading(stream)))
            .may_publish([events.as_str(), &view].iter().flat_map(|stream| self.consuming(stream)))
            .may_publish([&events, &view].map(|stream| self.api("STREAM.PURGE", stream)))
            .may_publish([self.api("CONSUMER.MSG.NEXT", &format!("{events}.*"))])
            .may_publish([
                self.api("CONSUMER.DELETE", &format!("{events}.*")),
                self.api("CONSUMER.DELETE", &format!("{view}.*")),
                // A slow reader tells the server how far it has come.
                format!("$JS.FC.{events}.>"),
                format!("$JS.FC.{view}.>"),
            ])
            // A replay takes the refused command's record away first, and its letter last.
            .may_publish([self.api("STREAM.MSG.DELETE", &dead)]);
        for stream in queues.iter().chain([&events, &view, &dead]) {
            role = role.may_publish([self.api("STREAM.CREATE", stream), self.api("STREAM.UPDATE", stream)]);
        }
        for (pool, queue) in config.pools.keys().zip(&queues) {
            role = role
                .may_publish(Verb::ALL.map(|verb| subjects.command(pool, verb)))
                .may_publish(["STREAM.INFO", "STREAM.MSG.GET"].map(|request| self.api(request, queue)))
                .may_publish(
                    ["CONSUMER.INFO", "CONSUMER.DURABLE.CREATE", "CONSUMER.MSG.NEXT"]
                        .map(|request| self.api(request, &format!("{queue}.*"))),
                )
                .may_publish([self.api("CONSUMER.CREATE", &format!("{queue}.>")), format!("$JS.ACK.{queue}.>")]);
        }
        role.may_subscribe([format!("{prefix}.events.>"), subjects.dead_below(">")])
            .may_subscribe(["$SRV.>".to_owned(), format!("{prefix}.srv.>")])
            .may_answer(Answers::Once)
    }

    /// Sends a pool's commands, and hears what becomes of them.
    fn publisher(&self, pool: &Pool) -> Role {
        let Self { subjects, prefix, .. } = self;
        let view = format!("$KV.{}.{pool}.*", subjects.view_bucket());
        Role::new(format!("publisher-{pool}"), format!("sends commands to pool {pool}, and hears their outcomes"))
            .may_publish([Verb::Provision, Verb::Terminate, Verb::Pool].map(|verb| subjects.command(pool, verb)))
            .may_publish([format!("{prefix}.srv.provision.{pool}"), format!("{prefix}.srv.terminate.{pool}")])
            .may_publish([
                self.api("DIRECT.GET", &format!("{}.{view}", subjects.view_stream())),
                self.api("DIRECT.GET", &format!("{}.{}", subjects.dead_stream(), subjects.dead_of_pool(pool))),
            ])
            .may_subscribe([subjects.events_of_pool(pool), subjects.dead_of_pool(pool)])
    }

    /// Hears and reads all that happens, and changes nothing.
    fn subscriber(&self) -> Role {
        let Self { subjects, prefix, .. } = self;
        let (events, view) = (subjects.event_stream(), subjects.view_stream());
        Role::new("subscriber", "hears and reads every event")
            .may_publish([events.as_str(), &view].iter().flat_map(|stream| self.reading(stream)))
            .may_publish(self.consuming(&events))
            .may_publish(
                ["CONSUMER.DURABLE.CREATE", "CONSUMER.INFO", "CONSUMER.MSG.NEXT"]
                    .map(|request| self.api(request, &format!("{events}.>"))),
            )
            .may_publish([format!("$JS.ACK.{events}.>"), format!("$JS.FC.{events}.>")])
            .may_publish([format!("{prefix}.srv.get"), format!("{prefix}.srv.list")])
            .may_subscribe([subjects.events_all()])
    }

    /// Answers registrations.
    fn scheduler(&self) -> Role {
        let scheduler = &self.config.scheduler;
        Role::new("scheduler", "answers registrations")
            .may_subscribe([&scheduler.register, &scheduler.unregister, &scheduler.list])
            .may_answer(Answers::Once)
    }

    /// Sends any command, reads everything, and may clear the dead letters; neither writes the log nor removes a stream.
    fn operator(&self) -> Role {
        let Self { subjects, prefix, config, .. } = self;
        let (events, view, dead) = (subjects.event_stream(), subjects.view_stream(), subjects.dead_stream());
        let queues: Vec<String> = config.pools.keys().map(|pool| subjects.command_stream(pool)).collect();
        let mut role = Role::new("operator", "sends any command, reads everything, clears dead letters")
            .may_publish(["INFO", "STREAM.NAMES", "STREAM.LIST"].map(|request| format!("{}.{request}", self.api)))
            .may_publish([format!("{prefix}.cmd.*.*"), format!("{prefix}.srv.>"), "$SRV.>".to_owned()])
            .may_publish([events.as_str(), &view, &dead].iter().flat_map(|stream| self.reading(stream)))
            .may_publish(["STREAM.PURGE", "STREAM.MSG.DELETE"].map(|request| self.api(request, &dead)));
        for stream in queues.iter().chain([&events, &view, &dead]) {
            role = role.may_publish([
                self.api("STREAM.INFO", stream),
                self.api("CONSUMER.NAMES", stream),
                self.api("CONSUMER.LIST", stream),
                self.api("CONSUMER.INFO", &format!("{stream}.*")),
            ]);
        }
        role.may_publish(queues.iter().map(|queue| self.api("STREAM.MSG.GET", queue)))
            .may_subscribe([format!("{prefix}.events.>"), subjects.dead_below(">")])
    }
}

/// Makes and removes what it is asked for.
fn provider(name: &str, subjects: &BTreeSet<String>) -> Role {
    let listens: Vec<&str> = subjects.iter().map(String::as_str).collect();
    Role::new(format!("provider-{name}"), format!("answers on {}", listens.join(" and ")))
        .may_subscribe(listens)
        .may_answer(Answers::Often)
}
