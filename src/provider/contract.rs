//! The contract of a provider as a list of checks that any provider can be held to.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::{Instance, LaunchRequest, ProviderError, WorkerProvider};
use crate::domain::{Claimed, CommandId, ErrorClass, Pool, SpecHash, WorkerId, WorkerKey, WorkerSpec, WorkerType};

/// What is checked.
pub struct Subject<'a, P> {
    /// A new replica over the same backing store, as after a kill and a restart.
    pub replica: &'a dyn Fn() -> P,
    /// A replica of another fleet over the same backing store.
    pub other_fleet: &'a dyn Fn() -> P,
    /// The pool to make workers in.
    pub pool: &'a Pool,
    /// Another pool, whose workers must not show in the first.
    pub other_pool: &'a Pool,
    /// A specification that can be made; it has to run until it is terminated.
    pub spec: &'a WorkerSpec,
    /// How long a worker may take to end.
    pub grace: Duration,
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As the sentence says.
    Holds,
    /// Otherwise, and how.
    Broken(String),
    /// Not asked of this kind of provider, and why.
    Waived(&'static str),
}

/// Every check, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The provider's name.
    pub provider: String,
    /// Sentence and outcome.
    pub checks: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// Whether nothing is broken.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.checks.iter().any(|(_, outcome)| matches!(outcome, Outcome::Broken(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "provider {}", self.provider)?;
        for (sentence, outcome) in &self.checks {
            match outcome {
                Outcome::Holds => writeln!(f, "  holds   {sentence}")?,
                Outcome::Broken(how) => writeln!(f, "  BROKEN  {sentence}: {}", crate::text::cut(how, 500))?,
                Outcome::Waived(why) => writeln!(f, "  waived  {sentence}: {why}")?,
            }
        }
        let broken = self.checks.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Broken(_))).count();
        let waived = self.checks.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Waived(_))).count();
        write!(f, "{} hold, {broken} broken, {waived} waived", self.checks.len() - broken - waived)
    }
}

const RECORD_DECIDES: &str = "a static provider has no memory, the record of the claim decides";
const NOTHING_MADE: &str = "a static provider makes nothing that could be listed or removed";
const ANY_NAME: &str = "a dynamic provider takes any name";

/// Holds a provider to its contract. It makes workers with names of its own and removes all of them again, also after a
/// check that went wrong; it does not panic.
pub async fn check<P: WorkerProvider>(subject: &Subject<'_, P>) -> Report {
    let mut run =
        Run { subject, provider: Arc::new((subject.replica)()), next: 0, made: Vec::new(), checks: Vec::new() };
    run.all().await;
    let Run { provider, made, checks, .. } = run;
    let other = (subject.other_fleet)();
    for key in made {
        // The last two checks have looked at terminate; here it only tidies up.
        let _ = provider.terminate_worker(&key, None, subject.grace).await;
        let _ = other.terminate_worker(&key, None, subject.grace).await;
    }
    Report { provider: provider.name().to_owned(), checks }
}

struct Run<'a, P> {
    subject: &'a Subject<'a, P>,
    provider: Arc<P>,
    next: usize,
    made: Vec<WorkerKey>,
    checks: Vec<(&'static str, Outcome)>,
}

type Checked = Result<(), String>;

impl<P: WorkerProvider> Run<'_, P> {
    async fn all(&mut self) {
        let made = self.provider.worker_type() == WorkerType::Dynamic;
        macro_rules! hold {
            ($sentence:literal, $check:ident) => {{
                let outcome = self.$check().await.map_or_else(Outcome::Broken, |()| Outcome::Holds);
                self.checks.push(($sentence, outcome));
            }};
            ($sentence:literal, $check:ident, $asked:expr, $why:ident) => {
                if $asked {
                    hold!($sentence, $check)
                } else {
                    self.checks.push(($sentence, Outcome::Waived($why)));
                }
            };
        }
        hold!("sixteen creates of one key at once make one instance", one_instance);
        hold!("a create that comes again returns the instance made the first time", same_again);
        hold!("another replica's create adopts the instance", another_replica_adopts);
        hold!("one key with another command is a conflict and touches nothing", other_command, made, RECORD_DECIDES);
        hold!(
            "one command with another content is a conflict and touches nothing",
            other_content,
            made,
            RECORD_DECIDES
        );
        hold!("what the request said comes back through create, find and list", comes_back, made, NOTHING_MADE);
        hold!("find and list read back the place of the claim it was made for", first_claim, made, NOTHING_MADE);
        hold!("a list has every instance of its pool", list_is_complete, made, NOTHING_MADE);
        hold!("a list has no instance of another pool or fleet", list_is_separate, made, NOTHING_MADE);
        hold!("two fleets make their own instances under one name", fleets_are_apart, made, NOTHING_MADE);
        hold!("a terminate that means another instance leaves the live one alone", foreign_id, made, NOTHING_MADE);
        hold!("a terminated instance is neither found nor listed", gone_after_terminate);
        hold!("a terminate may come twice, and at once", terminate_again);
        hold!("a terminate of what never was is ok", terminate_of_nothing);
        hold!("a name that was terminated can be made again, as another instance", made_anew, made, NOTHING_MADE);
        hold!("the inventory has every host once, and no other name can be made", inventory, !made, ANY_NAME);
    }

    /// A key that no other check uses: a name of its own, or the inventory's hosts in turn.
    fn key(&mut self) -> Result<WorkerKey, String> {
        let worker_id = match self.provider.inventory() {
            Some(hosts) if hosts.is_empty() => return Err("the inventory is empty".to_owned()),
            Some(hosts) => hosts[self.next % hosts.len()].clone(),
            None => {
                let text = format!("check-{}", &Uuid::new_v4().simple().to_string()[..20]);
                WorkerId::new(text).map_err(|fault| fault.to_string())?
            }
        };
        self.next += 1;
        let key = WorkerKey::new(self.subject.pool.clone(), worker_id);
        self.made.push(key.clone());
        Ok(key)
    }

    fn request(&mut self) -> Result<LaunchRequest, String> {
        let key = self.key()?;
        Ok(LaunchRequest {
            command_id: command("check-")?,
            spec_hash: SpecHash::of(key.worker_id.as_str().as_bytes()),
            epoch: 7,
            claim: Claimed { sequence: 21, at: jiff::Timestamp::UNIX_EPOCH },
            spec: self.subject.spec.clone(),
            trace: None,
            key,
        })
    }

    async fn create(&mut self) -> Result<(LaunchRequest, Instance), String> {
        let request = self.request()?;
        let instance = self.provider.create_worker(&request).await.map_err(told("create"))?;
        Ok((request, instance))
    }

    async fn still_there(&self, instance: &Instance) -> Checked {
        let found = self.provider.find_worker(&instance.key).await.map_err(told("find"))?;
        same("the instance that was there", &found.as_ref(), &Some(instance))
    }

    async fn one_instance(&mut self) -> Checked {
        let request = self.request()?;
        let replicas = [self.provider.clone(), Arc::new((self.subject.replica)())];
        let calls = (0..16).map(|n| {
            let (replica, request) = (replicas[n % 2].clone(), request.clone());
            tokio::spawn(async move { replica.create_worker(&request).await })
        });
        let mut ids = BTreeSet::new();
        for answer in join_all(calls).await {
            let instance = answer.map_err(|fault| fault.to_string())?.map_err(told("one of sixteen creates"))?;
            ids.insert(instance.instance_id);
        }
        same("different instance ids", &ids.len(), &1)?;
        if self.provider.worker_type() == WorkerType::Static {
            return Ok(());
        }
        let listed = self.provider.list_workers(self.subject.pool).await.map_err(told("list"))?;
        same("instances of the key in the list", &listed.iter().filter(|i| i.key == request.key).count(), &1)
    }

    async fn same_again(&mut self) -> Checked {
        let (request, first) = self.create().await?;
        let again = self.provider.create_worker(&request).await.map_err(told("create again"))?;
        same("the instance id", &again.instance_id, &first.instance_id)
    }

    async fn another_replica_adopts(&mut self) -> Checked {
        let (mut request, first) = self.create().await?;
        // Another replica comes with a higher fence; that alone makes no second instance.
        request.epoch += 1;
        let adopted =
            (self.subject.replica)().create_worker(&request).await.map_err(told("create by another replica"))?;
        same("the instance id", &adopted.instance_id, &first.instance_id)?;
        same("the endpoint", &adopted.endpoint, &first.endpoint)
    }

    async fn other_command(&mut self) -> Checked {
        let (mut request, first) = self.create().await?;
        request.command_id = command("other-")?;
        refused(ErrorClass::Conflict, self.provider.create_worker(&request).await)?;
        refused(ErrorClass::Conflict, (self.subject.replica)().create_worker(&request).await)?;
        self.still_there(&first).await
    }

    async fn other_content(&mut self) -> Checked {
        let (mut request, first) = self.create().await?;
        request.spec_hash = SpecHash::of(b"another content");
        refused(ErrorClass::Conflict, self.provider.create_worker(&request).await)?;
        refused(ErrorClass::Conflict, (self.subject.replica)().create_worker(&request).await)?;
        self.still_there(&first).await
    }

    async fn comes_back(&mut self) -> Checked {
        let (request, created) = self.create().await?;
        let replica = (self.subject.replica)();
        let found = replica.find_worker(&request.key).await.map_err(told("find"))?;
        let listed = replica.list_workers(self.subject.pool).await.map_err(told("list"))?;
        let listed = listed.into_iter().find(|instance| instance.key == request.key);
        for (from, instance) in [("create", Some(created.clone())), ("find", found), ("list", listed)] {
            let instance = instance.ok_or_else(|| format!("{from} does not show it"))?;
            same(&format!("{from}: the instance id"), &instance.instance_id, &created.instance_id)?;
            same(&format!("{from}: the key"), &instance.key, &request.key)?;
            same(&format!("{from}: the command id"), &instance.command_id, &request.command_id)?;
            same(&format!("{from}: the fingerprint"), &instance.spec_hash, &request.spec_hash)?;
            same(&format!("{from}: the epoch"), &instance.epoch, &request.epoch)?;
            same(&format!("{from}: the claim's place"), &instance.claim, &Some(request.claim))?;
            same(&format!("{from}: the labels"), &instance.labels, &request.spec.labels)?;
        }
        Ok(())
    }

    async fn first_claim(&mut self) -> Checked {
        let (request, _) = self.create().await?;
        let replica = (self.subject.replica)();
        let later = LaunchRequest {
            epoch: request.epoch + 1,
            claim: Claimed { sequence: request.claim.sequence + 1, ..request.claim },
            ..request.clone()
        };
        replica.create_worker(&later).await.map_err(told("create by another replica"))?;
        let found = replica.find_worker(&request.key).await.map_err(told("find"))?;
        let listed = replica.list_workers(self.subject.pool).await.map_err(told("list"))?;
        let listed = listed.into_iter().find(|instance| instance.key == request.key);
        for (from, instance) in [("find", found), ("list", listed)] {
            same(from, &instance.and_then(|instance| instance.claim), &Some(request.claim))?;
        }
        Ok(())
    }

    async fn list_is_complete(&mut self) -> Checked {
        let mut wanted = BTreeSet::new();
        for _ in 0..5 {
            wanted.insert(self.create().await?.1.instance_id);
        }
        let listed = (self.subject.replica)().list_workers(self.subject.pool).await.map_err(told("list"))?;
        let listed: BTreeSet<_> = listed.into_iter().map(|instance| instance.instance_id).collect();
        let missing: Vec<_> = wanted.difference(&listed).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
    }

    async fn list_is_separate(&mut self) -> Checked {
        let mut request = self.request()?;
        request.key.pool = self.subject.other_pool.clone();
        self.made.push(request.key.clone());
        let in_other_pool = self.provider.create_worker(&request).await.map_err(told("create in another pool"))?;
        let request = self.request()?;
        let other_fleet = (self.subject.other_fleet)();
        let in_other_fleet = other_fleet.create_worker(&request).await.map_err(told("create in another fleet"))?;
        let listed = self.provider.list_workers(self.subject.pool).await.map_err(told("list"))?;
        for (whose, stranger) in [("pool", in_other_pool), ("fleet", in_other_fleet)] {
            if listed.iter().any(|instance| instance.instance_id == stranger.instance_id) {
                return Err(format!("{} of another {whose} is in the list", stranger.key));
            }
        }
        Ok(())
    }

    async fn fleets_are_apart(&mut self) -> Checked {
        let (request, ours) = self.create().await?;
        let other = (self.subject.other_fleet)();
        let theirs = other.create_worker(&request).await.map_err(told("create in another fleet"))?;
        if ours.instance_id == theirs.instance_id {
            return Err(format!("both have {}", ours.instance_id));
        }
        other.terminate_worker(&request.key, None, self.subject.grace).await.map_err(told("terminate"))?;
        self.still_there(&ours).await
    }

    async fn foreign_id(&mut self) -> Checked {
        let (request, first) = self.create().await?;
        let foreign = format!("{}-not", first.instance_id);
        let answer = self.provider.terminate_worker(&request.key, Some(&foreign), self.subject.grace).await;
        refused(ErrorClass::Conflict, answer)?;
        self.still_there(&first).await
    }

    async fn gone_after_terminate(&mut self) -> Checked {
        let (request, first) = self.create().await?;
        let answer = self.provider.terminate_worker(&request.key, Some(&first.instance_id), self.subject.grace).await;
        answer.map_err(told("terminate"))?;
        let replica = (self.subject.replica)();
        same("find", &replica.find_worker(&request.key).await.map_err(told("find"))?, &None)?;
        let listed = replica.list_workers(self.subject.pool).await.map_err(told("list"))?;
        same("the key in the list", &listed.iter().any(|instance| instance.key == request.key), &false)
    }

    async fn terminate_again(&mut self) -> Checked {
        let (request, first) = self.create().await?;
        let replicas = [self.provider.clone(), Arc::new((self.subject.replica)())];
        let calls = (0..4).map(|n| {
            let (replica, key, grace) = (replicas[n % 2].clone(), request.key.clone(), self.subject.grace);
            let id = first.instance_id.clone();
            tokio::spawn(async move { replica.terminate_worker(&key, Some(&id), grace).await })
        });
        for answer in join_all(calls).await {
            answer.map_err(|fault| fault.to_string())?.map_err(told("one of four terminates"))?;
        }
        let again = self.provider.terminate_worker(&request.key, Some(&first.instance_id), self.subject.grace).await;
        again.map_err(told("terminate again"))
    }

    async fn terminate_of_nothing(&mut self) -> Checked {
        let key = self.key()?;
        self.provider.terminate_worker(&key, None, self.subject.grace).await.map_err(told("terminate"))?;
        let answer = self.provider.terminate_worker(&key, Some("never-was"), self.subject.grace).await;
        answer.map_err(told("terminate with an instance id"))
    }

    async fn made_anew(&mut self) -> Checked {
        let (mut request, first) = self.create().await?;
        let answer = self.provider.terminate_worker(&request.key, None, self.subject.grace).await;
        answer.map_err(told("terminate"))?;
        request.command_id = command("anew-")?;
        let second = self.provider.create_worker(&request).await.map_err(told("create anew"))?;
        if second.instance_id == first.instance_id {
            return Err(format!("it is {} again", first.instance_id));
        }
        // A terminate that was meant for the first and comes late must not take the second.
        let late = self.provider.terminate_worker(&request.key, Some(&first.instance_id), self.subject.grace).await;
        refused(ErrorClass::Conflict, late)?;
        self.still_there(&second).await
    }

    async fn inventory(&mut self) -> Checked {
        let hosts = self.provider.inventory().ok_or("there is none")?;
        same("different names", &hosts.iter().collect::<BTreeSet<_>>().len(), &hosts.len())?;
        let mut request = self.request()?;
        for host in hosts {
            request.key.worker_id = host;
            self.provider.create_worker(&request).await.map_err(told("create of a host"))?;
        }
        let text = format!("check-{}", &Uuid::new_v4().simple().to_string()[..20]);
        request.key.worker_id = WorkerId::new(text).map_err(|fault| fault.to_string())?;
        refused(ErrorClass::NotFound, self.provider.create_worker(&request).await)
    }
}

fn command(kind: &str) -> Result<CommandId, String> {
    CommandId::new(format!("{kind}{}", Uuid::new_v4().simple())).map_err(|fault| fault.to_string())
}

fn told(call: &'static str) -> impl Fn(ProviderError) -> String {
    move |fault| format!("{call}: {fault}")
}

fn same<T: PartialEq + fmt::Debug + ?Sized>(what: &str, found: &T, expected: &T) -> Checked {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

fn refused<T: fmt::Debug>(class: ErrorClass, answer: Result<T, ProviderError>) -> Checked {
    match answer {
        Err(fault) if fault.class == class => Ok(()),
        answer => Err(format!("found {answer:?}, expected an error {}", class.as_str())),
    }
}
