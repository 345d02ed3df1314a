//! What `enlist dev` sends, in this order.

use crate::cli::orders::Order;
use crate::config::{Config, Override, PoolConfig, ProviderConfig};
use crate::domain::{CommandId, Pool, WorkerId};
use crate::wire::command::{ProvisionCommand, RegistrationOverrides, SpecOverrides, TerminateCommand};

/// One command, and what a reader is told that it is for.
pub(super) struct Step {
    pub(super) told: String,
    pub(super) ask: Ask,
}

pub(super) enum Ask {
    /// Ends as an event or a dead letter.
    Provision(Order),
    /// Sent a second time as it was: the broker says that it has it.
    Again(Order),
    /// Ends the worker that this provision has made, if it made one.
    TerminateOf { provision: CommandId, pool: Pool, command_id: CommandId },
}

/// Names that no other run uses: `tag` is empty where the broker is this run's own.
pub(super) struct Names {
    tag: String,
    used: usize,
}

impl Names {
    pub(super) fn new(own_broker: bool) -> Self {
        let tag = uuid::Uuid::new_v4().simple().to_string();
        Self { tag: if own_broker { String::new() } else { format!("-{}", &tag[..4]) }, used: 0 }
    }

    pub(super) fn command(&mut self) -> CommandId {
        self.used += 1;
        let name = format!("dev{}-{}", self.tag, self.used);
        CommandId::new(name).expect("letters, digits and dashes are a command id")
    }

    /// A host of an inventory has its name already.
    fn worker(&self, pool: &Pool, config: &PoolConfig, n: usize) -> Option<WorkerId> {
        match config.provider {
            ProviderConfig::Static { .. } => None,
            ProviderConfig::Process | ProviderConfig::Docker | ProviderConfig::Null(_) | ProviderConfig::Nats(_) => {
                WorkerId::new(format!("{pool}{}-{n}", self.tag)).ok()
            }
        }
    }
}

/// The demo, for whichever pools there are.
pub(super) fn steps(config: &Config, names: &mut Names) -> Vec<Step> {
    let Some((main, main_config)) = main_pool(config) else { return Vec::new() };
    let mut steps = Vec::new();
    let mut provision = |names: &mut Names, pool: &Pool, worker_id, spec, told: &str| {
        let registration = RegistrationOverrides::default();
        let command_id = names.command();
        let command =
            ProvisionCommand { command_id, worker_id, spec, registration, expires_at: None, correlation_id: None };
        steps.push(Step { told: told.to_owned(), ask: Ask::Provision(Order::provision(pool.clone(), &command)) });
        command
    };
    let plain = SpecOverrides::default;
    let first_id = names.worker(main, main_config, 1);
    let first = provision(names, main, first_id, plain(), "a worker");
    let second_id = names.worker(main, main_config, 2);
    let second = provision(names, main, second_id, plain(), "another");
    let third_id = names.worker(main, main_config, 3);
    if main_config.allow.contains(&Override::Labels) {
        provision(names, main, third_id, override_of(Override::Labels), "one with a label of its own");
    } else {
        provision(names, main, third_id, plain(), "a third");
    }
    if let Some((other, other_config)) = config.pools.iter().find(|(pool, _)| *pool != main) {
        let id = names.worker(other, other_config, 1);
        provision(names, other, id, plain(), "one in another pool, which has a queue of its own");
    }
    if let Some(field) = Override::ALL.into_iter().find(|field| !main_config.allow.contains(field)) {
        let told = format!("one that asks for its own {}, which the pool does not allow", field.as_str());
        provision(names, main, None, override_of(field), &told);
    }
    let again = Ask::Again(Order::provision(main.clone(), &first));
    steps.push(Step { told: "the first command again: one command, one worker".to_owned(), ask: again });
    let (provision, pool) = (second.command_id, main.clone());
    let ask = Ask::TerminateOf { provision, pool, command_id: names.command() };
    steps.push(Step { told: "the second worker may go: the scheduler is told first".to_owned(), ask });
    steps
}

/// The pool that most is shown with.
pub(super) fn main_pool(config: &Config) -> Option<(&Pool, &PoolConfig)> {
    let demo = config.pools.iter().find(|(pool, _)| pool.as_str() == "demo");
    demo.or_else(|| config.pools.iter().next())
}

/// The terminate of a worker.
pub(super) fn terminate(pool: Pool, worker_id: WorkerId, command_id: CommandId, reason: &str) -> Order {
    let command = TerminateCommand {
        command_id,
        worker_id,
        reason: Some(reason.to_owned()),
        grace_ms: None,
        force: false,
        expires_at: None,
        correlation_id: None,
    };
    Order::terminate(pool, &command)
}

fn override_of(field: Override) -> SpecOverrides {
    let pair = |name: &str, value: &str| Some([(name.to_owned(), value.to_owned())].into());
    let mut spec = SpecOverrides::default();
    match field {
        Override::Image => spec.image = Some("busybox:1".to_owned()),
        Override::Command => spec.command = Some(vec!["true".to_owned()]),
        Override::Env => spec.env = pair("GREETING", "hello"),
        Override::Labels => spec.labels = pair("zone", "b"),
        Override::Cpus => spec.cpus = Some(1.0),
        Override::MemoryMb => spec.memory_mb = Some(64),
        Override::Gpus => spec.gpus = Some(1),
    }
    spec
}
