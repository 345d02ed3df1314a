//! Holds `schemas/*.json` and the types together: the files are generated from the types, and this test compares.
//!
//! `make schemas` (`UPDATE_SCHEMAS=1 cargo test --lib schemas`) writes them anew.

use std::path::Path;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Value, json};

use super::command::{PoolCommand, ProvisionCommand, SweepCommand, TerminateCommand};
use super::event::Outgoing;
use super::provider::{CreateRequest, Created, DeleteRequest, Deleted, InstancesPage, InstancesRequest, ProviderReply};
use super::scheduler::{ListReply, ListRequest, RegisterReply, RegisterRequest, UnregisterReply, UnregisterRequest};
use super::service::{DrainReply, GetRequest, WorkersReply, WorkersRequest};
use super::{dead_letter, read};
use crate::domain::{PoolRecord, Reason, Refusal, Worker};

/// The headers of a dead letter, all of them text; its body is the command's bytes as they came.
#[derive(Serialize, JsonSchema)]
struct DeadLetterHeaders {
    /// The reason, for programs.
    #[serde(rename = "Enlist-Reason")]
    #[schemars(extend("enum" = Reason::ALL.map(Reason::as_str)))]
    reason: String,
    /// The reason, for people: which field, what was found, what was expected.
    #[serde(rename = "Enlist-Detail")]
    #[schemars(length(max = dead_letter::MAX_HEADER), regex(pattern = read::PRINTABLE))]
    detail: String,
    /// The subject that the command came in on.
    #[serde(rename = "Enlist-Subject")]
    #[schemars(regex(pattern = r"^[a-z0-9-]+\.cmd\.[a-z0-9-]+\.(provision|terminate|pool|sweep)$"))]
    subject: String,
    /// Its sequence in the pool's queue.
    #[serde(rename = "Enlist-Sequence")]
    #[schemars(regex(pattern = "^[0-9]+$"))]
    sequence: String,
    /// How often it was delivered.
    #[serde(rename = "Enlist-Deliveries")]
    #[schemars(regex(pattern = "^[0-9]+$"))]
    deliveries: String,
}

/// Every message and its schema. What enlist reads and refuses is described as a reader takes it; everything else, of
/// which a reader passes over what it does not know, as a writer writes it.
fn all() -> Vec<(&'static str, Value)> {
    let reading = SchemaSettings::draft2020_12();
    let writing = || SchemaSettings::draft2020_12().for_serialize();
    vec![
        ("command-provision", schema::<ProvisionCommand>(reading.clone())),
        ("command-terminate", schema::<TerminateCommand>(reading.clone())),
        ("command-pool", schema::<PoolCommand>(reading.clone())),
        ("command-sweep", schema::<SweepCommand>(reading.clone())),
        ("event", schema::<Outgoing<'_, Worker>>(writing())),
        ("pool-event", schema::<Outgoing<'_, PoolRecord>>(writing())),
        ("dead-letter-headers", schema::<DeadLetterHeaders>(writing())),
        ("register-request", schema::<RegisterRequest>(writing())),
        ("register-reply", schema::<RegisterReply>(writing())),
        ("unregister-request", schema::<UnregisterRequest>(writing())),
        ("unregister-reply", schema::<UnregisterReply>(writing())),
        ("list-request", schema::<ListRequest>(writing())),
        ("list-reply", schema::<ListReply>(writing())),
        ("service-get-request", schema::<GetRequest>(reading.clone())),
        ("service-list-request", schema::<WorkersRequest>(reading)),
        ("service-list-reply", schema::<WorkersReply>(writing())),
        ("service-drain-reply", schema::<DrainReply>(writing())),
        ("provider-create-request", schema::<CreateRequest>(writing())),
        ("provider-create-reply", schema::<ProviderReply<Created>>(writing())),
        ("provider-delete-request", schema::<DeleteRequest>(writing())),
        ("provider-delete-reply", schema::<ProviderReply<Deleted>>(writing())),
        ("provider-list-request", schema::<InstancesRequest>(writing())),
        ("provider-list-reply", schema::<ProviderReply<InstancesPage>>(writing())),
    ]
}

fn schema<T: JsonSchema>(settings: SchemaSettings) -> Value {
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The file's text: `$id` and a title for people first.
fn file(name: &str, schema: Value) -> String {
    let Value::Object(mut schema) = schema else { panic!("{name} has no object for a schema") };
    let mut file = json!({
        "$schema": schema.remove("$schema"),
        "$id": format!("urn:enlist:schema:{name}:1"),
        "title": name.replace('-', " "),
    });
    schema.remove("title");
    let object = file.as_object_mut().unwrap();
    object.extend(schema);
    serde_json::to_string_pretty(&file).unwrap() + "\n"
}

fn compiled(name: &str) -> jsonschema::Validator {
    let (_, schema) = all().into_iter().find(|(known, _)| *known == name).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

#[test]
fn schemas_match_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    for (name, schema) in all() {
        let (path, text) = (folder.join(name).with_extension("json"), file(name, schema));
        if update {
            std::fs::write(&path, text).unwrap();
        } else {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == text,
                "schemas/{name}.json differs from the code: run `make schemas` and read the difference"
            );
        }
    }
}

#[test]
fn the_headers_of_a_dead_letter_are_as_their_schema_says() {
    let letter = dead_letter::DeadLetter {
        refusal: Refusal::new(Reason::Invalid, "x\n".repeat(900)),
        subject: "enlist.cmd.demo.provision".into(),
        sequence: 1,
        deliveries: 1,
        body: bytes::Bytes::new(),
    };
    let headers: Value = letter.headers().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    compiled("dead-letter-headers").validate(&headers).unwrap();
}

#[test]
fn the_schema_refuses_the_names_of_variables_that_the_reader_refuses() {
    let schema = compiled("command-provision");
    for name in ["PORT", "env", "_", "_1", "LD_PRELOAD", "1A", "", "A-B", "A B", "A.B", "A=", "Ä"] {
        let command = json!({ "command_id": "c", "spec": { "env": { name: "" } } });
        assert_eq!(schema.is_valid(&command), read::env_name(name), "{name:?}");
    }
}

#[test]
fn what_the_encoders_write_is_as_the_schemas_say() {
    use super::properties as given;
    use proptest::test_runner::{Config, TestRunner};

    let prefix = crate::domain::Prefix::new("enlist").unwrap();
    let mut runner = TestRunner::new(Config::with_cases(64));
    let valid = |schema: &jsonschema::Validator, body: &[u8]| {
        let instance = serde_json::from_slice(body).unwrap();
        schema.validate(&instance).unwrap_or_else(|error| panic!("{error} in {instance}"));
    };
    let (provision, terminate, event) =
        (compiled("command-provision"), compiled("command-terminate"), compiled("event"));
    let all = (given::provision_command(), given::terminate_command(), given::worker());
    runner
        .run(&all, |(command, end, worker)| {
            valid(&provision, &command.encode());
            valid(&terminate, &end.encode());
            valid(&event, &super::event::encode(&prefix, &worker, None));
            Ok(())
        })
        .unwrap();
}
