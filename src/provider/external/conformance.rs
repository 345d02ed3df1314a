//! What an external provider is held to beside the contract of all providers: its answers on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::Client;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ExternalProvider;
use super::request::Asking;
use crate::config::ExternalConfig;
use crate::domain::{Claimed, CommandId, ErrorClass, InvalidToken, Pool, Prefix, SpecHash, WorkerId, WorkerSpec};
use crate::provider::contract::{self, Outcome, Report, Subject};
use crate::provider::{ProviderError, WorkerProvider as _};
use crate::wire::provider::{CreateRequest, Created, DeleteRequest, Deleted, InstancesPage, InstancesRequest};

/// Instances on a page while pages are looked at.
const SMALL_PAGE: u32 = 2;
/// Instances that are made for it.
const SEVERAL: usize = 5;

/// How a running provider is checked.
#[derive(Debug, Clone)]
pub struct Kit {
    /// The provider.
    pub config: ExternalConfig,
    /// What is made: it has to run until it is removed.
    pub spec: WorkerSpec,
    /// How long a create may take.
    pub launch_timeout: Duration,
    /// How long a worker may take to end.
    pub grace: Duration,
}

impl Kit {
    /// Checks the provider that answers on this connection, in two fleets of names that nobody else has. All that was
    /// made is removed again.
    pub async fn check(&self, client: &Client) -> Result<Report, InvalidToken> {
        let tag = &Uuid::new_v4().simple().to_string()[..10];
        let (ours, other) = (Prefix::new(format!("check-{tag}"))?, Prefix::new(format!("other-{tag}"))?);
        let (pool, other_pool) = (Pool::new("check-a")?, Pool::new("check-b")?);
        let of = |fleet: &Prefix| {
            let provider = ExternalProvider::new(fleet, client.clone(), &self.config, self.launch_timeout);
            // A replica has an end to each wait of its own.
            let asking = provider.asking.clone().at_most(self.launch_timeout + self.grace);
            ExternalProvider { asking, ..provider }
        };
        let provider = of(&ours);
        let mut report =
            Report { provider: format!("{}, {}", self.config.name, self.config.subject("*")), checks: Vec::new() };
        // Where nobody answers, or nothing can be read, twenty lines would all say the same.
        if let Err(error) = provider.list_workers(&pool).await {
            report.checks.push(("it answers, and lists an empty pool", Outcome::Broken(error.to_string())));
            return Ok(report);
        }
        report.checks.push(("it answers, and lists an empty pool", Outcome::Holds));
        let mut wire = Wire { kit: self, asking: provider.asking.clone(), fleet: ours.clone(), pool: pool.clone() };
        let made = wire.one().await;
        let makes = made.is_ok();
        report.checks.push(("it makes what it is asked for, and removes it", made.into()));
        if !makes {
            return Ok(report);
        }
        let subject = Subject {
            replica: &|| of(&ours),
            other_fleet: &|| of(&other),
            pool: &pool,
            other_pool: &other_pool,
            spec: &self.spec,
            grace: self.grace,
        };
        report.checks.extend(contract::check(&subject).await.checks);
        wire.all(&mut report).await;
        let left = self.left(&[of(&ours), of(&other)], &[&pool, &other_pool]).await;
        report.checks.push(("what was removed is gone, and nothing is left", left.into()));
        Ok(report)
    }

    /// Removes what is still there; an error where there was something.
    async fn left(&self, fleets: &[ExternalProvider], pools: &[&Pool]) -> Checked {
        let mut left = Vec::new();
        for provider in fleets {
            for pool in pools {
                for instance in provider.list_workers(pool).await.map_err(told("list"))? {
                    let removed = provider.terminate_worker(&instance.key, None, self.grace).await;
                    let how = removed.map_or_else(|error| error.to_string(), |()| "now removed".to_owned());
                    left.push(format!("{} {} ({how})", instance.key, instance.instance_id));
                }
            }
        }
        if left.is_empty() { Ok(()) } else { Err(format!("found {}", left.join(", "))) }
    }
}

type Checked = Result<(), String>;

impl From<Checked> for Outcome {
    fn from(checked: Checked) -> Self {
        checked.map_or_else(Self::Broken, |()| Self::Holds)
    }
}

/// Asks as an independent client would, past what [`ExternalProvider`] puts right by itself.
struct Wire<'a> {
    kit: &'a Kit,
    asking: Asking,
    fleet: Prefix,
    pool: Pool,
}

impl Wire<'_> {
    async fn all(&mut self, report: &mut Report) {
        macro_rules! hold {
            ($sentence:literal, $check:ident) => {
                report.checks.push(($sentence, self.$check().await.into()));
            };
        }
        hold!("a create says at once that another command's instance is a conflict", another_command);
        hold!("fields that it does not know are passed over", unknown_fields);
        hold!("a request that cannot be read is refused as invalid_spec", unreadable);
        hold!("a create that has expired is not begun", expired);
        hold!("a list of one worker has this one and no other", list_of_one);
        hold!("a list keeps to its limit, and its pages have each instance once", pages);
    }

    async fn one(&self) -> Checked {
        let request = self.request("wire-one")?;
        let made = self.create(&request).await.map_err(told("create"));
        self.delete(&request).await.map_err(told("delete"))?;
        made.map(drop)
    }

    async fn another_command(&self) -> Checked {
        let request = self.request("wire-command")?;
        self.create(&request).await.map_err(told("create"))?;
        let other = CreateRequest { command_id: command()?, ..request.clone() };
        let refused = refused(ErrorClass::Conflict, self.create(&other).await);
        self.delete(&request).await.map_err(told("delete"))?;
        refused
    }

    async fn unknown_fields(&self) -> Checked {
        let request = self.request("wire-unknown")?;
        let mut body = value(&request);
        body["a_later_version"] = json!({ "has": ["more"] });
        body["spec"]["a_later_version"] = json!(1);
        self.ask::<Created>("create", &body).await.map_err(told("create"))?;
        let mut body = value(&self.listing(Some(&request.worker_id), 10, None));
        body["a_later_version"] = json!(true);
        let page = self.ask::<InstancesPage>("list", &body).await.map_err(told("list"))?;
        let mut body = value(&self.deletion(&request));
        body["a_later_version"] = json!(null);
        self.ask::<Deleted>("delete", &body).await.map_err(told("delete"))?;
        same("instances in the list", &page.instances.len(), &1)
    }

    async fn unreadable(&self) -> Checked {
        for body in ["no JSON", "[]", "{}", r#"{"fleet":1}"#] {
            for request in ["create", "delete", "list"] {
                let refused = match request {
                    "create" => {
                        refused(ErrorClass::InvalidSpec, self.asking.ask::<Created>(request, body.into()).await)
                    }
                    "delete" => {
                        refused(ErrorClass::InvalidSpec, self.asking.ask::<Deleted>(request, body.into()).await)
                    }
                    _ => refused(ErrorClass::InvalidSpec, self.asking.ask::<InstancesPage>(request, body.into()).await),
                };
                refused.map_err(|how| format!("{request} of {body}: {how}"))?;
            }
        }
        Ok(())
    }

    async fn expired(&self) -> Checked {
        let past = Timestamp::now().checked_sub(SignedDuration::from_secs(3600)).unwrap_or(Timestamp::MIN);
        let request = CreateRequest { expires_at: past, ..self.request("wire-expired")? };
        let answer = self.create(&request).await;
        let listed = self.list(Some(&request.worker_id), 10, None).await.map_err(told("list"))?;
        self.delete(&request).await.map_err(told("delete"))?;
        match answer {
            Ok(created) => Err(format!("found {}, expected a refusal", created.instance.instance_id)),
            Err(_) => same("instances in the list", &listed.instances.len(), &0),
        }
    }

    async fn list_of_one(&self) -> Checked {
        let [one, two] = [self.request("wire-one")?, self.request("wire-two")?];
        for request in [&one, &two] {
            self.create(request).await.map_err(told("create"))?;
        }
        let page = self.list(Some(&one.worker_id), 10, None).await.map_err(told("list"))?;
        for request in [&one, &two] {
            self.delete(request).await.map_err(told("delete"))?;
        }
        let found: Vec<_> = page.instances.iter().map(|instance| instance.worker_id.as_str()).collect();
        same("workers", &found, &vec![one.worker_id.as_str()])
    }

    async fn pages(&self) -> Checked {
        let mut requests = Vec::new();
        for n in 0..SEVERAL {
            let request = self.request(&format!("wire-page-{n}"))?;
            self.create(&request).await.map_err(told("create"))?;
            requests.push(request);
        }
        let read = self.read_pages().await;
        for request in &requests {
            self.delete(request).await.map_err(told("delete"))?;
        }
        let wanted: BTreeSet<_> = requests.iter().map(|request| request.worker_id.to_string()).collect();
        let found = read?;
        let missing: Vec<_> = wanted.difference(&found).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are on no page")) }
    }

    async fn read_pages(&self) -> Result<BTreeSet<String>, String> {
        let (mut found, mut after) = (BTreeSet::new(), None);
        for _ in 0..=10 * SEVERAL {
            let InstancesPage { instances, next } =
                self.list(None, SMALL_PAGE, after.clone()).await.map_err(told("list"))?;
            if instances.len() > SMALL_PAGE as usize {
                return Err(format!("found {} instances on a page, expected at most {SMALL_PAGE}", instances.len()));
            }
            for instance in instances {
                if !found.insert(instance.worker_id.to_string()) {
                    return Err(format!("{} is on two pages", instance.worker_id));
                }
            }
            match next.filter(|next| !next.is_empty()) {
                None => return Ok(found),
                next => after = next,
            }
        }
        Err(format!("its pages have no end: {} instances so far", found.len()))
    }

    async fn create(&self, request: &CreateRequest) -> Result<Created, ProviderError> {
        self.asking.ask("create", request.encode()).await
    }

    async fn delete(&self, request: &CreateRequest) -> Result<Deleted, ProviderError> {
        self.asking.ask("delete", self.deletion(request).encode()).await
    }

    async fn list(
        &self,
        worker_id: Option<&WorkerId>,
        limit: u32,
        after: Option<String>,
    ) -> Result<InstancesPage, ProviderError> {
        self.asking.ask("list", self.listing(worker_id, limit, after).encode()).await
    }

    async fn ask<T: Serialize + DeserializeOwned>(&self, request: &str, body: &Value) -> Result<T, ProviderError> {
        self.asking.ask(request, body.to_string().into()).await
    }

    fn listing(&self, worker_id: Option<&WorkerId>, limit: u32, after: Option<String>) -> InstancesRequest {
        let (fleet, pool) = (self.fleet.clone(), self.pool.clone());
        InstancesRequest { fleet, pool, worker_id: worker_id.cloned(), limit, after }
    }

    fn deletion(&self, request: &CreateRequest) -> DeleteRequest {
        let CreateRequest { fleet, pool, worker_id, .. } = request.clone();
        let grace_ms = u64::try_from(self.kit.grace.as_millis()).unwrap_or(u64::MAX);
        DeleteRequest { fleet, pool, worker_id, instance_id: None, grace_ms }
    }

    fn request(&self, name: &str) -> Result<CreateRequest, String> {
        let patience = SignedDuration::try_from(self.kit.launch_timeout).unwrap_or(SignedDuration::MAX);
        Ok(CreateRequest {
            fleet: self.fleet.clone(),
            pool: self.pool.clone(),
            worker_id: WorkerId::new(name).map_err(|error| error.to_string())?,
            command_id: command()?,
            spec_hash: SpecHash::of(name.as_bytes()),
            epoch: 1,
            claim: Claimed { sequence: 1, at: Timestamp::UNIX_EPOCH },
            spec: self.kit.spec.clone(),
            expires_at: Timestamp::now().checked_add(patience).unwrap_or(Timestamp::MAX),
        })
    }
}

fn command() -> Result<CommandId, String> {
    CommandId::new(format!("wire-{}", Uuid::new_v4().simple())).map_err(|error| error.to_string())
}

/// A body to add fields to.
fn value<T: Serialize>(request: &T) -> Value {
    serde_json::to_value(request).unwrap_or_default()
}

fn told(call: &'static str) -> impl Fn(ProviderError) -> String {
    move |error| format!("{call}: {error}")
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Checked {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

fn refused<T>(class: ErrorClass, answer: Result<T, ProviderError>) -> Checked {
    match answer {
        Err(error) if error.class == class => Ok(()),
        Err(error) => Err(format!("found {error}, expected an error {}", class.as_str())),
        Ok(_) => Err(format!("found it done, expected an error {}", class.as_str())),
    }
}
