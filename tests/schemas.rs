//! The folder `schemas/` is consistent in itself, with the readers and with the contract's subjects.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use enlist::domain::{CommandId, Pool, Prefix, Reason, State, WorkerId};
use enlist::wire::command::{PoolCommand, ProvisionCommand, SweepCommand, TerminateCommand, Undecodable};
use enlist::wire::dead_letter::DeadLetter;
use enlist::wire::event;
use enlist::wire::provider::{
    CreateRequest, Created, DeleteRequest, Deleted, InstancesPage, InstancesRequest, ProviderReply,
};
use enlist::wire::scheduler::{
    ListReply, ListRequest, RegisterReply, RegisterRequest, UnregisterReply, UnregisterRequest,
};
use enlist::wire::service::{DrainReply, GetRequest, WorkersReply, WorkersRequest};
use serde_json::Value;

/// Why a reader refused.
enum Refused {
    /// A command: reason and detail are for the sender.
    Command(Reason, String),
    /// A header of a dead letter.
    Header(&'static str),
    /// Anything else.
    Other,
}

/// The reader of each message.
fn decode(message: &str, body: &[u8]) -> Result<(), Refused> {
    fn command<T>(read: Result<T, Undecodable>) -> Result<(), Refused> {
        read.map(drop).map_err(|error| Refused::Command(error.refusal.reason, error.refusal.detail))
    }
    fn other<T, E>(read: Result<T, E>) -> Result<(), Refused> {
        read.map(drop).map_err(|_| Refused::Other)
    }
    match message {
        "command-provision" => command(ProvisionCommand::decode(body)),
        "command-terminate" => command(TerminateCommand::decode(body)),
        "command-pool" => command(PoolCommand::decode(body)),
        "command-sweep" => command(SweepCommand::decode(body)),
        "event" => other(event::decode(body)),
        "pool-event" => other(event::decode_pool(body)),
        "dead-letter-headers" => {
            let headers: BTreeMap<String, String> = serde_json::from_slice(body).map_err(|_| Refused::Other)?;
            DeadLetter::decode(|name| headers.get(name).map(String::as_str), Bytes::new())
                .map(drop)
                .map_err(|error| Refused::Header(error.header))
        }
        "register-request" => other(RegisterRequest::decode(body)),
        "register-reply" => other(RegisterReply::decode(body)),
        "unregister-request" => other(UnregisterRequest::decode(body)),
        "unregister-reply" => other(UnregisterReply::decode(body)),
        "list-request" => other(ListRequest::decode(body)),
        "list-reply" => other(ListReply::decode(body)),
        "service-get-request" => other(GetRequest::decode(body)),
        "service-list-request" => other(WorkersRequest::decode(body)),
        "service-list-reply" => other(WorkersReply::decode(body)),
        "service-drain-reply" => other(DrainReply::decode(body)),
        "provider-create-request" => other(CreateRequest::decode(body)),
        "provider-create-reply" => other(ProviderReply::<Created>::decode(body)),
        "provider-delete-request" => other(DeleteRequest::decode(body)),
        "provider-delete-reply" => other(ProviderReply::<Deleted>::decode(body)),
        "provider-list-request" => other(InstancesRequest::decode(body)),
        "provider-list-reply" => other(ProviderReply::<InstancesPage>::decode(body)),
        unknown => panic!("no reader for {unknown}"),
    }
}

#[test]
fn every_schema_has_examples_and_every_example_a_schema() {
    let examples: BTreeSet<_> = list(&folder().join("examples")).iter().map(|path| stem(path)).collect();
    assert_eq!(examples, messages());
    for message in messages() {
        assert!(examples_of(&message, "valid").len() >= 2, "{message} needs two valid examples");
        assert!(examples_of(&message, "invalid").len() >= 3, "{message} needs three invalid examples");
    }
}

#[test]
fn valid_examples_are_taken_by_schema_and_reader() {
    for message in messages() {
        let schema = schema(&message);
        for path in examples_of(&message, "valid") {
            let body = fs::read(&path).unwrap();
            let instance = serde_json::from_slice(&body).unwrap();
            schema.validate(&instance).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(decode(&message, &body).is_ok(), "{} is refused by the reader", path.display());
        }
    }
}

#[test]
fn invalid_examples_are_refused_by_schema_and_reader_for_the_field_in_their_name() {
    for message in messages() {
        let schema = schema(&message);
        for path in examples_of(&message, "invalid") {
            let (name, shown) = (stem(&path), path.display());
            let (field, _) = name.split_once("--").unwrap_or_else(|| panic!("{shown} does not name its field"));
            let body = fs::read(&path).unwrap();
            let Err(refused) = decode(&message, &body) else { panic!("{shown} is taken by the reader") };
            match refused {
                Refused::Command(reason, detail) if field == "malformed" => {
                    assert_eq!(reason, Reason::Malformed, "{shown}: {detail}");
                }
                Refused::Command(reason, detail) => {
                    assert_eq!(reason, Reason::Invalid, "{shown}: {detail}");
                    assert!(detail.starts_with(&format!("`{field}`: ")), "{shown}: {detail}");
                }
                Refused::Header(header) => assert_eq!(header, field, "{shown}"),
                Refused::Other => {}
            }
            match serde_json::from_slice(&body) {
                Err(error) => assert_eq!(field, "malformed", "{shown}: {error}"),
                Ok(instance) if field == "malformed" => assert!(!schema.is_valid(&instance), "{shown}"),
                Ok(instance) if name.ends_with(".decoder-only") => {
                    assert!(schema.is_valid(&instance), "{shown} can be expressed: drop the ending");
                }
                Ok(instance) => assert!(names(&schema, &instance, field), "{shown} is not refused for {field}"),
            }
        }
    }
}

/// Whether the schema refuses the instance at the field, above it, or with a word about it.
fn names(schema: &jsonschema::Validator, instance: &Value, field: &str) -> bool {
    let last = field.rsplit('.').next().unwrap_or(field);
    schema.iter_errors(instance).any(|error| {
        let (path, text) = (error.instance_path().to_string(), error.to_string());
        let steps: Vec<_> = path.split('/').filter(|step| !step.is_empty() && step.parse::<usize>().is_err()).collect();
        let above = !steps.is_empty() && field.starts_with(&steps.join("."));
        above || text.contains(last) || text.contains("'oneOf'")
    })
}

#[test]
fn every_reference_of_the_asyncapi_document_leads_somewhere() {
    let document = asyncapi();
    let mut files = BTreeSet::new();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        if let Some(pointer) = reference.strip_prefix('#') {
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        } else {
            assert!(folder().join(&reference).is_file(), "{reference} leads nowhere");
            files.insert(stem(Path::new(&reference)));
        }
    }
    assert_eq!(files, messages(), "every schema travels on some channel");
    for message in messages() {
        let (schema, mut references) = (json(&folder().join(&message).with_extension("json")), Vec::new());
        collect_references(&schema, &mut references);
        for reference in references {
            let target = reference.strip_prefix('#').and_then(|pointer| schema.pointer(pointer));
            assert!(target.is_some(), "{message}: {reference} leads nowhere");
        }
    }
}

#[test]
fn subjects_are_those_of_the_contract() {
    let document = asyncapi();
    let channels = document["channels"].as_object().unwrap();
    let found: BTreeSet<_> = channels.values().filter_map(|channel| channel["address"].as_str()).collect();
    let contract = BTreeSet::from([
        "{prefix}.cmd.{pool}.provision",
        "{prefix}.cmd.{pool}.terminate",
        "{prefix}.cmd.{pool}.pool",
        "{prefix}.cmd.{pool}.sweep",
        "{prefix}.log.{pool}.{worker_id}.{state}",
        "{prefix}.log.{pool}._.{pool_state}",
        "{prefix}.events.{pool}.{worker_id}.{state}",
        "{prefix}.events.{pool}._.{pool_state}",
        "{prefix}.dead.{pool}.{verb}.{command_id}",
        "$KV.{prefix}_workers.{pool}.{worker_id}",
        "scheduler.workers.register",
        "scheduler.workers.unregister",
        "scheduler.workers.list",
        "{prefix}.srv.provision.{pool}",
        "{prefix}.srv.terminate.{pool}",
        "{prefix}.srv.get",
        "{prefix}.srv.list",
        "{prefix}.srv.drain.{instance_id}",
        "provider.{provider}.create",
        "provider.{provider}.delete",
        "provider.{provider}.list",
    ]);
    assert_eq!(found, contract);
    for (name, channel) in channels {
        let address = channel["address"].as_str().unwrap_or_default();
        let used: BTreeSet<_> =
            address.split('{').skip(1).map(|rest| rest.split('}').next().unwrap().to_owned()).collect();
        let declared = channel["parameters"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
        assert_eq!(used, declared, "parameters of {name}");
    }
}

#[test]
fn tokens_and_states_are_those_of_the_code() {
    let document = asyncapi();
    let parameters = &document["components"]["parameters"];
    for (name, pattern) in [
        ("prefix", Prefix::PATTERN),
        ("pool", Pool::PATTERN),
        ("worker_id", WorkerId::PATTERN),
        ("command_id", CommandId::PATTERN),
    ] {
        assert_eq!(parameters[name]["x-pattern"], pattern);
    }
    assert_eq!(parameters["state"]["enum"], serde_json::json!(State::ALL.map(State::as_str)));
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                into.push(reference.to_owned());
            }
            object.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_references(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn asyncapi() -> Value {
    serde_norway::from_str(&fs::read_to_string(folder().join("asyncapi.yaml")).unwrap()).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

/// The names of all schemas.
fn messages() -> BTreeSet<String> {
    let files = list(&folder());
    files.iter().filter(|path| path.extension().is_some_and(|end| end == "json")).map(|path| stem(path)).collect()
}

fn examples_of(message: &str, kind: &str) -> Vec<PathBuf> {
    list(&folder().join("examples").join(message).join(kind))
}

fn schema(message: &str) -> jsonschema::Validator {
    let schema = json(&folder().join(message).with_extension("json"));
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}
