//! A worker as a container: its name and labels, the body that makes it, and how both are read back.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum, DeviceRequest, HostConfig, RestartPolicy,
    RestartPolicyNameEnum,
};
use jiff::Timestamp;

use crate::domain::{
    CommandId, ErrorClass, Labels, Pool, Prefix, SpecHash, TraceContext, WorkerId, WorkerKey, WorkerSpec,
};
use crate::provider::{Instance, LaunchRequest, ProviderError};

pub(super) const FLEET: &str = "enlist.fleet";
pub(super) const POOL: &str = "enlist.pool";
const WORKER_ID: &str = "enlist.worker_id";
const COMMAND_ID: &str = "enlist.command_id";
const SPEC_HASH: &str = "enlist.spec_hash";
const EPOCH: &str = "enlist.epoch";
const CLAIM: &str = "enlist.claim";

/// Stands before each of the worker's own labels, so that none of them can pass for one of ours.
const OWN: &str = "enlist.label.";

/// The container's name. The engine lets only one container have it, and so only one instance of a key exists.
///
/// Dots stand between the parts because our names may contain dashes: with dashes, pool `a-b` with worker `c` and
/// pool `a` with worker `b-c` would be one container.
pub(super) fn name(fleet: &Prefix, key: &WorkerKey) -> String {
    format!("enlist-{fleet}.{}.{}", key.pool, key.worker_id)
}

/// Whether a container has this name; the engine writes names with a slash before them.
pub(super) fn has_name(container: &ContainerSummary, name: &str) -> bool {
    container.names.iter().flatten().any(|found| found.strip_prefix('/') == Some(name))
}

/// What a container is doing, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Made and not started: somebody is about to start it, or died before.
    Unstarted,
    /// It runs, or is paused; also any state that this version does not know, so that nothing is taken for dead by
    /// mistake.
    Live,
    /// It ran and has ended: no instance, only what is left of one.
    Ended,
    /// The engine is removing it.
    Leaving,
}

/// A container of this fleet.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) phase: Phase,
    pub(super) instance: Instance,
}

impl Seen {
    /// Reads a container; `None` where it is not a worker of this fleet.
    ///
    /// Labels alone do not make it one: an image that was committed from a worker passes its labels on to whatever is
    /// run from it. Nor does the name alone, which anybody can give. A container with both whose other labels cannot
    /// be read is an error: to leave it out would make a list incomplete, and a sweep would call its worker lost.
    pub(super) fn read(fleet: &Prefix, container: ContainerSummary) -> Result<Option<Self>, ProviderError> {
        let labels = container.labels.clone().unwrap_or_default();
        let label = |key: &str| labels.get(key).map_or("", String::as_str);
        let (Ok(pool), Ok(worker_id)) = (Pool::new(label(POOL)), WorkerId::new(label(WORKER_ID))) else {
            return Ok(None);
        };
        let key = WorkerKey::new(pool, worker_id);
        let name = name(fleet, &key);
        if label(FLEET) != fleet.as_str() || !has_name(&container, &name) {
            return Ok(None);
        }
        let id = container.id.unwrap_or_default();
        let unreadable = |what: &str| {
            ProviderError::new(ErrorClass::Internal, format!("docker container {name} ({id}): {what} cannot be read"))
        };
        let phase = match container.state {
            Some(ContainerSummaryStateEnum::CREATED) => Phase::Unstarted,
            Some(ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::DEAD) => Phase::Ended,
            Some(ContainerSummaryStateEnum::REMOVING) => Phase::Leaving,
            Some(
                ContainerSummaryStateEnum::RUNNING
                | ContainerSummaryStateEnum::PAUSED
                | ContainerSummaryStateEnum::RESTARTING
                | ContainerSummaryStateEnum::EMPTY,
            )
            | None => Phase::Live,
        };
        let created = container.created.and_then(|second| Timestamp::from_second(second).ok());
        let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let addresses = networks.into_iter().filter_map(|(network, at)| Some((network, at.ip_address?)));
        // By the network's name, so that a container on two of them has the same endpoint each time.
        let endpoint = addresses.filter(|(_, address)| !address.is_empty()).min().map(|(_, address)| address);
        let own = labels.iter().filter_map(|(key, value)| Some((key.strip_prefix(OWN)?.to_owned(), value.clone())));
        let instance = Instance {
            command_id: CommandId::new(label(COMMAND_ID)).map_err(|_| unreadable(COMMAND_ID))?,
            spec_hash: SpecHash::from_recorded(label(SPEC_HASH)),
            epoch: label(EPOCH).parse().map_err(|_| unreadable(EPOCH))?,
            // Older versions have not written it.
            claim: labels.get(CLAIM).map(|text| text.parse().map_err(|_| unreadable(CLAIM))).transpose()?,
            created_at: created.ok_or_else(|| unreadable("the time it was made"))?,
            labels: own.collect::<Labels>(),
            capabilities: None,
            endpoint,
            key,
            instance_id: id.clone(),
        };
        Ok(Some(Self { phase, instance }))
    }

    /// Whether it counts as an instance. One that is made and not started does: hidden, it would be nobody's to start
    /// or to remove.
    pub(super) fn is_instance(&self) -> bool {
        match self.phase {
            Phase::Unstarted | Phase::Live => true,
            Phase::Ended | Phase::Leaving => false,
        }
    }

    /// Whether this very command made it.
    pub(super) fn agrees_with(&self, request: &LaunchRequest) -> bool {
        self.instance.command_id == request.command_id && self.instance.spec_hash == request.spec_hash
    }
}

/// What the engine is asked to make.
pub(super) fn body(fleet: &Prefix, request: &LaunchRequest) -> Result<ContainerCreateBody, ProviderError> {
    let LaunchRequest { key, command_id, spec_hash, epoch, claim, spec, trace } = request;
    let WorkerSpec { image, command, env, labels, cpus, memory_mb, gpus } = spec;
    let invalid = |message: String| ProviderError::new(ErrorClass::InvalidSpec, message);

    let image = image.clone().filter(|image| !image.is_empty());
    let image = image.ok_or_else(|| invalid("image is missing: a docker worker is made from one".to_owned()))?;
    // Checked here because the engine's refusal would quote the variable with its value, which may be a secret.
    if let Some(bad) = env.iter().find(|(name, value)| !is_variable(name) || value.contains('\0')) {
        return Err(invalid(format!("env: {:?} is not a variable that a process can be given", bad.0)));
    }
    // A variable that the specification has set stays as it is.
    let traced = trace.iter().flat_map(TraceContext::environment).filter(|(name, _)| !env.contains_key(*name));
    let traced = traced.map(|(name, value)| format!("{name}={value}"));
    let own = labels.iter().map(|(key, value)| (format!("{OWN}{key}"), value.clone()));
    let ours = [
        (FLEET, fleet.to_string()),
        (POOL, key.pool.to_string()),
        (WORKER_ID, key.worker_id.to_string()),
        (COMMAND_ID, command_id.to_string()),
        (SPEC_HASH, spec_hash.as_str().to_owned()),
        (EPOCH, epoch.to_string()),
        (CLAIM, claim.to_string()),
    ];
    let memory = memory_mb.map(bytes).transpose().map_err(invalid)?;
    Ok(ContainerCreateBody {
        image: Some(image),
        // The image's entry point stays, as with `docker run` and compose.
        cmd: (!command.is_empty()).then(|| command.clone()),
        env: Some(env.iter().map(|(name, value)| format!("{name}={value}")).chain(traced).collect()),
        labels: Some(own.chain(ours.map(|(key, value)| (key.to_owned(), value))).collect::<HashMap<_, _>>()),
        host_config: Some(HostConfig {
            memory,
            // The same number means no swap; unset, the engine would allow as much again.
            memory_swap: memory,
            nano_cpus: cpus.map(nano_cpus).transpose().map_err(invalid)?,
            device_requests: gpus.filter(|count| *count > 0).map(|count| vec![devices(count)]),
            // A worker's program is seldom written to be process 1: an init passes TERM on and reaps what is left.
            init: Some(true),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            // A worker that the engine brings back by itself would be one that the record calls lost.
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// MiB as the engine counts them. To the engine 0 means no limit, and nobody who writes 0 means that.
fn bytes(mib: u64) -> Result<i64, String> {
    let bytes = mib.checked_mul(1024 * 1024).and_then(|bytes| i64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("memory_mb {mib} is no amount of memory"))
}

/// Cores as the engine counts them; 0 is refused for the same reason.
fn nano_cpus(cores: f64) -> Result<i64, String> {
    if !(1e-9..=1e6).contains(&cores) {
        return Err(format!("cpus {cores} is no number of cores"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "a million cores are 1e15 units, far inside an i64")]
    Ok((cores * 1e9).round() as i64)
}

fn devices(count: u32) -> DeviceRequest {
    DeviceRequest {
        count: Some(i64::from(count)),
        capabilities: Some(vec![vec!["gpu".to_owned()]]),
        ..DeviceRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(spec: WorkerSpec) -> LaunchRequest {
        LaunchRequest {
            key: WorkerKey::new(Pool::new("p").unwrap(), WorkerId::new("w").unwrap()),
            command_id: CommandId::new("c-1").unwrap(),
            spec_hash: SpecHash::of(b"1"),
            epoch: 1,
            claim: "3@2026-01-01T00:00:00Z".parse().unwrap(),
            spec: WorkerSpec { image: Some("i".to_owned()), ..spec },
            trace: None,
        }
    }

    fn fleet() -> Prefix {
        Prefix::new("f").unwrap()
    }

    #[test]
    fn a_workers_own_label_never_passes_for_one_of_ours() {
        let labels = Labels::from([(FLEET.to_owned(), "other".to_owned())]);
        let body = body(&fleet(), &request(WorkerSpec { labels, ..WorkerSpec::default() })).unwrap();
        let made = body.labels.unwrap();
        assert_eq!(made[FLEET], "f");
        assert_eq!(made["enlist.label.enlist.fleet"], "other");
    }

    #[test]
    fn a_trace_is_in_the_environment_unless_the_specification_has_its_own() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let env = |own: &[(&str, &str)]| {
            let env = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let trace = TraceContext::read(parent, Some("a=b"));
            let request = LaunchRequest { trace, ..request(WorkerSpec { env, ..WorkerSpec::default() }) };
            body(&fleet(), &request).unwrap().env.unwrap()
        };
        assert_eq!(env(&[]), [format!("TRACEPARENT={parent}"), "TRACESTATE=a=b".to_owned()]);
        assert_eq!(env(&[("TRACEPARENT", "mine")]), ["TRACEPARENT=mine", "TRACESTATE=a=b"]);
    }

    #[test]
    fn cores_memory_and_accelerators_are_told_in_the_engines_units() {
        let spec = WorkerSpec { cpus: Some(0.5), memory_mb: Some(64), gpus: Some(2), ..WorkerSpec::default() };
        let host = body(&fleet(), &request(spec)).unwrap().host_config.unwrap();
        assert_eq!(
            (host.nano_cpus, host.memory, host.memory_swap),
            (Some(500_000_000), Some(67_108_864), Some(67_108_864))
        );
        assert_eq!(host.device_requests.unwrap(), [devices(2)]);
    }

    #[test]
    fn a_specification_that_the_engine_would_read_as_no_limit_is_refused() {
        let none = WorkerSpec::default();
        for spec in [
            WorkerSpec { memory_mb: Some(0), ..none.clone() },
            WorkerSpec { memory_mb: Some(u64::MAX), ..none.clone() },
            WorkerSpec { cpus: Some(0.0), ..none.clone() },
            WorkerSpec { cpus: Some(f64::NAN), ..none.clone() },
        ] {
            assert_eq!(body(&fleet(), &request(spec)).unwrap_err().class, ErrorClass::InvalidSpec);
        }
    }

    #[test]
    fn a_variable_that_cannot_be_is_refused_without_its_value() {
        let env = [("A=B".to_owned(), "hunter2".to_owned())].into();
        let error = body(&fleet(), &request(WorkerSpec { env, ..WorkerSpec::default() })).unwrap_err();
        assert_eq!(error.class, ErrorClass::InvalidSpec);
        assert!(error.message.contains("A=B") && !error.message.contains("hunter2"), "{error}");
    }

    /// A worker's container as the engine lists it, with the name given.
    fn listed(name: &str) -> ContainerSummary {
        let labels = body(&fleet(), &request(WorkerSpec::default())).unwrap().labels;
        ContainerSummary {
            id: Some("0".to_owned()),
            names: Some(vec![name.to_owned()]),
            created: Some(1),
            labels,
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn a_container_run_from_an_image_committed_from_a_worker_is_not_taken_for_the_worker() {
        assert!(Seen::read(&fleet(), listed("/enlist-f.p.w")).unwrap().is_some());
        assert!(Seen::read(&fleet(), listed("/debugging")).unwrap().is_none());
    }

    #[test]
    fn a_worker_whose_labels_cannot_be_read_is_an_error_and_is_not_left_out() {
        let mut container = listed("/enlist-f.p.w");
        container.labels.as_mut().unwrap().remove(EPOCH);
        assert_eq!(Seen::read(&fleet(), container).unwrap_err().class, ErrorClass::Internal);
    }

    #[test]
    fn a_claim_s_place_may_be_missing_and_may_not_be_unreadable() {
        let read = |change: &dyn Fn(&mut HashMap<String, String>)| {
            let mut container = listed("/enlist-f.p.w");
            change(container.labels.as_mut().unwrap());
            Seen::read(&fleet(), container).map(|seen| seen.unwrap().instance.claim)
        };
        assert_eq!(read(&|_| {}).unwrap(), "3@2026-01-01T00:00:00Z".parse().ok());
        assert_eq!(read(&|labels| drop(labels.remove(CLAIM))).unwrap(), None, "an older version's");
        let unreadable = read(&|labels| drop(labels.insert(CLAIM.to_owned(), "x".to_owned()))).unwrap_err();
        assert_eq!(unreadable.class, ErrorClass::Internal);
    }
}
