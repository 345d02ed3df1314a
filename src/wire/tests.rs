//! What is read, what is refused, and in which words.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;

use super::command::{MAX_BYTES, ProvisionCommand, RegistrationOverrides, TerminateCommand};
use super::scheduler::{ListReply, RegisterReply, UnregisterReply};
use super::{dead_letter, event};
use crate::domain::{
    Capabilities, CommandId, Pool, Prefix, Reason, Refusal, Registration, SpecHash, State, Worker, WorkerId, WorkerType,
};

fn provision(body: &str) -> Result<ProvisionCommand, (Reason, String)> {
    ProvisionCommand::decode(body.as_bytes()).map_err(|error| (error.refusal.reason, error.refusal.detail))
}

fn detail(body: &str) -> String {
    let (reason, detail) = provision(body).unwrap_err();
    assert_eq!(reason, Reason::Invalid, "{detail}");
    detail
}

#[test]
fn a_plain_command_is_read() {
    let body = r#" {"command_id":"c-1","spec":{"env":{"PORT":"80"},"cpus":2,"image":null},"registration":null,
        "expires_at":"2030-01-01T01:00:00+01:00"}"#;
    let command = provision(body).unwrap();
    assert_eq!(command.spec.cpus, Some(2.0));
    assert_eq!(command.expires_at, Some("2030-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!((command.worker_id, command.registration), (None, RegistrationOverrides::default()));
}

#[test]
fn a_cloud_event_carries_the_command_in_its_data() {
    let body = r#"{"specversion":"1.0","id":"1","source":"/ci","type":"x","subject":"y","shard":7,
        "data":{"command_id":"c-1","spec":{"cpus":2}}}"#;
    assert_eq!(provision(body), provision(r#"{"command_id":"c-1","spec":{"cpus":2.0}}"#));
    assert_eq!(
        detail(r#"{"specversion":"1.1","data":{"command_id":"c-1","spec":{"cpus":0}}}"#),
        "`specversion`: found \"1.1\", expected \"1.0\"; `data.spec.cpus`: found 0, expected a number from 0.001 to 1000000"
    );
    assert_eq!(detail(r#"{"specversion":"1.0","data":[]}"#), "`data`: found an array, expected the command, an object");
    assert_eq!(detail(r#"{"specversion":"1.0"}"#), "`data`: missing, expected the command, an object");
}

#[test]
fn every_mistake_is_told_with_path_found_and_expected() {
    assert_eq!(
        detail(r#"{"worker_id":"A","spec":{"memory_mb":0,"imagE":"x"}}"#),
        "`command_id`: missing, expected a string of the form [A-Za-z0-9_-]{1,64}; `worker_id`: found \"A\", expected a \
         string of the form [a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?; `spec.memory_mb`: found 0, expected a whole number from \
         1 to 1073741824; `spec.imagE`: unknown field, expected one of image, command, env, labels, cpus, memory_mb, gpus"
    );
}

#[test]
fn the_id_of_a_command_that_cannot_be_read_is_kept_where_it_can() {
    let id = |body: &str| ProvisionCommand::decode(body.as_bytes()).unwrap_err().command_id;
    assert_eq!(id(r#"{"command_id":"c-1","nope":1}"#), Some(CommandId::new("c-1").unwrap()));
    assert_eq!(
        id(r#"{"specversion":"1.0","data":{"command_id":"c-1","nope":1}}"#),
        Some(CommandId::new("c-1").unwrap())
    );
    assert_eq!(id(r#"{"command_id":"c.1"}"#), None);
    assert_eq!(id(r#"{"command_id":"c-1""#), None);
}

#[test]
fn values_that_may_be_secrets_are_never_quoted() {
    for body in [
        r#"{"command_id":"c","spec":{"env":{"TOKEN":"hunter2\u0000"}}}"#,
        r#"{"command_id":"c","spec":{"env":{"TOKEN":["hunter2"]}}}"#,
        r#"{"command_id":"c","spec":{"env":{"LD-PRELOAD":"hunter2"}}}"#,
        r#"{"command_id":"c","spec":{"env":{"A":"hunter2","A":"hunter2"}}}"#,
        r#"{"command_id":"c","spec":{"env":"hunter2"}}"#,
        r#"{"command_id":"c","spec":{"command":"run --token hunter2"}}"#,
        r#"{"command_id":"c","spec":{"command":["run","hunter2\u0000"]}}"#,
        r#"{"command_id":"c","password":"hunter2"}"#,
    ] {
        let detail = detail(body);
        assert!(!detail.contains("hunter2"), "{detail}");
    }
    let command =
        provision(r#"{"command_id":"c","spec":{"env":{"A":"hunter2"},"command":["run","hunter2"]}}"#).unwrap();
    assert!(!format!("{command:?}").contains("hunter2"));
}

#[test]
fn names_that_stand_twice_are_refused() {
    assert_eq!(detail(r#"{"command_id":"a","command_id":"b"}"#), "`command_id`: found twice, expected once");
    let body = r#"{"command_id":"a","spec":{"env":{"PORT":"1","PORT":"2"}}}"#;
    assert_eq!(detail(body), "`spec.env.PORT`: found twice, expected once");
    let body = r#"{"command_id":"a","spec":{"labels":{"zone":"1","zone":"2"}}}"#;
    assert_eq!(detail(body), "`spec.labels.zone`: found twice, expected once");
}

#[test]
fn what_is_no_json_of_ours_is_malformed() {
    let nested = |levels: usize| format!("{}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let oversize = format!(r#"{{"command_id":"{}"}}"#, "x".repeat(MAX_BYTES));
    for body in ["", "{", "nope", "{} {}", r#"{"command_id":"a",}"#, &nested(17), &"[".repeat(60_000), &oversize] {
        assert_eq!(provision(body).unwrap_err().0, Reason::Malformed);
    }
    let error = ProvisionCommand::decode(b"{\"command_id\":\"\xff\"}").unwrap_err();
    assert_eq!(error.refusal.reason, Reason::Malformed);
    // Brackets within a string are no levels, and an escaped quote does not end it.
    let body = format!(r#"{{"command_id":"a","spec":{{"env":{{"A":"\"{}"}}}}}}"#, "[{".repeat(20));
    assert!(provision(&body).is_ok());
    // Sixteen levels are not too deep, only wrong.
    detail(&format!(r#"{{"a":{}{}}}"#, "[".repeat(15), "]".repeat(15)));
    assert_eq!(detail("[]"), "found an array, expected an object");
    assert!(provision(r#"["a"]"#).is_err() && provision(r#"{"command_id":"a","spec":["busybox"]}"#).is_err());
}

#[test]
fn bounds_are_held() {
    let spec = |spec: &str| provision(&format!(r#"{{"command_id":"a","spec":{spec}}}"#)).is_ok();
    for good in [
        r#"{"image":"busybox:1"}"#,
        r#"{"command":["sleep",""]}"#,
        r#"{"env":{"_a1":""}}"#,
        r#"{"labels":{"a/b.c_d-e":"é x"}}"#,
        r#"{"cpus":0.5,"memory_mb":1,"gpus":0}"#,
    ] {
        assert!(spec(good), "{good}");
    }
    for bad in [
        r#"{"image":""}"#,
        r#"{"image":" x"}"#,
        r#"{"image":"-v"}"#,
        r#"{"image":7}"#,
        r#"{"command":[]}"#,
        r#"{"command":[""]}"#,
        r#"{"command":["a\u0000"]}"#,
        r#"{"env":{"1A":""}}"#,
        r#"{"env":{"":""}}"#,
        r#"{"env":{"A":7}}"#,
        r#"{"labels":{"-a":""}}"#,
        r#"{"labels":{"a":"\n"}}"#,
        r#"{"cpus":0}"#,
        r#"{"cpus":-1}"#,
        r#"{"memory_mb":0}"#,
        r#"{"memory_mb":1.5}"#,
        r#"{"gpus":-1}"#,
    ] {
        assert!(!spec(bad), "{bad}");
    }
    let many = |n: usize| (0..n).map(|n| format!(r#""a{n}":"""#)).collect::<Vec<_>>().join(",");
    assert!(spec(&format!(r#"{{"env":{{{}}}}}"#, many(256))) && !spec(&format!(r#"{{"env":{{{}}}}}"#, many(257))));
    assert!(spec(&format!(r#"{{"labels":{{{}}}}}"#, many(64))) && !spec(&format!(r#"{{"labels":{{{}}}}}"#, many(65))));
    let registration = |text: &str| provision(&format!(r#"{{"command_id":"a","registration":{text}}}"#)).is_ok();
    assert!(registration(r#"{"enabled":false,"max_retries":100,"timeout_ms":86400000}"#));
    assert!(!registration(r#"{"timeout_ms":0}"#) && !registration(r#"{"max_retries":101}"#));
    for bad in ["2030-01-01", "20300101T000000Z", "2030-01-01 00:00:00Z", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z"]
    {
        assert!(provision(&format!(r#"{{"command_id":"a","expires_at":"{bad}"}}"#)).is_err(), "{bad}");
    }
}

#[test]
fn the_fingerprint_is_of_the_content_and_not_of_its_writing() {
    let hash = |body: &str| provision(body).unwrap().content_hash();
    let plain =
        hash(r#"{"command_id":"a","spec":{"cpus":1,"env":{"A":"1","B":"2"}},"expires_at":"2030-01-01T00:00:00Z"}"#);
    assert_eq!(
        plain,
        hash(
            r#"{"registration":{}, "expires_at":"2030-01-01T02:00:00+02:00",
            "spec":{"env":{"B":"2","A":"1"},"cpus":1.0,"gpus":null},"command_id":"a"}"#
        )
    );
    assert_ne!(plain, hash(r#"{"command_id":"a","spec":{"cpus":1,"env":{"A":"1","B":"2"}}}"#));
    let body = br#"{"command_id":"a","worker_id":"w"}"#;
    assert_ne!(
        ProvisionCommand::decode(body).unwrap().content_hash(),
        TerminateCommand::decode(body).unwrap().content_hash(),
        "a terminate is another content than the provision whose id it took"
    );
}

#[test]
fn a_reader_of_events_passes_over_what_a_newer_version_adds() {
    let worker = worker_of(State::Registered);
    let mut body: serde_json::Value =
        serde_json::from_slice(&event::encode(&Prefix::new("enlist").unwrap(), &worker, None)).unwrap();
    body["shard"] = json!(7);
    body["data"]["zone"] = json!("a");
    body["data"]["registration"]["since"] = json!(1);
    body["data"]["capabilities"]["disk_mb"] = json!(1);
    assert_eq!(event::decode(body.to_string().as_bytes()), Ok(worker));
    body["type"] = json!("enlist.worker.registered.v2");
    assert!(event::decode(body.to_string().as_bytes()).is_err());
}

#[test]
fn an_event_is_a_cloud_event_with_the_worker_as_data() {
    let worker = worker_of(State::Provisioned);
    let body = event::encode(
        &Prefix::new("enlist").unwrap(),
        &worker,
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    );
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        body,
        json!({
            "specversion": "1.0", "id": "demo.w-1.3", "source": "/enlist/enlist", "type": "enlist.worker.provisioned.v1",
            "subject": "demo/w-1", "time": "2030-01-01T00:00:01.5Z", "datacontenttype": "application/json",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "data": {
                "pool": "demo", "worker_id": "w-1", "worker_type": "dynamic", "state": "provisioned", "rev": 3, "epoch": 1,
                "command_id": "c-1", "spec_hash": "00", "provider": "null", "capabilities": { "labels": {} },
                "registration": { "status": "pending", "attempts": 0 }, "attempts": 0,
                "created_at": "2030-01-01T00:00:00Z", "updated_at": "2030-01-01T00:00:01.5Z"
            }
        })
    );
}

#[test]
fn replies_of_a_scheduler_are_read_with_tolerance() {
    assert_eq!(RegisterReply::decode(br#"{"status":"accepted","node":"a"}"#), Ok(RegisterReply::Accepted));
    assert_eq!(
        RegisterReply::decode(br#"{"status":"rejected"}"#),
        Ok(RegisterReply::Rejected { code: String::new(), message: String::new() })
    );
    assert_eq!(UnregisterReply::decode(br#"{"status":"busy"}"#), Ok(UnregisterReply::Busy { retry_after_ms: None }));
    let list = br#"{"workers":[{"worker_id":"w","pool":"p","epoch":1},{"worker_id":"Not_Ours","pool":"p","epoch":1}],"next":""}"#;
    let list = ListReply::decode(list).unwrap();
    assert_eq!((list.workers.len(), list.next), (1, None));
    for bad in ["", "accepted", r#"["accepted"]"#, r#"{"status":"fine"}"#, r#"{"status":"busy","retry_after_ms":-1}"#] {
        let error = RegisterReply::decode(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("register reply: ") && error.len() < 400, "{error}");
    }
}

#[test]
fn a_dead_letter_is_read_back_from_its_headers() {
    let letter = dead_letter::DeadLetter {
        refusal: Refusal::new(Reason::Invalid, "`spec.cpus`: found 0\r\nEnlist-Reason: expired"),
        subject: "enlist.cmd.demo.provision".into(),
        sequence: 7,
        deliveries: 2,
        body: Bytes::from_static(b"{}"),
    };
    let headers = BTreeMap::from(letter.headers());
    let back = dead_letter::DeadLetter::decode(|name| headers.get(name).map(String::as_str), letter.body.clone());
    assert_eq!(back, Ok(letter));
    let long = dead_letter::DeadLetter { subject: "é\n".repeat(2000), ..back.unwrap() };
    for (name, value) in long.headers() {
        assert!(value.len() <= dead_letter::MAX_HEADER && !value.contains(['\r', '\n']), "{name}");
    }
}

pub(super) fn worker_of(state: State) -> Worker {
    Worker {
        pool: Pool::new("demo").unwrap(),
        worker_id: WorkerId::new("w-1").unwrap(),
        worker_type: WorkerType::Dynamic,
        state,
        rev: 3,
        epoch: 1,
        command_id: CommandId::new("c-1").unwrap(),
        correlation_id: None,
        spec_hash: SpecHash::from_recorded("00"),
        ended_by: None,
        provider: "null".into(),
        instance_id: None,
        endpoint: None,
        capabilities: Capabilities::default(),
        registration: Registration::wanted(true),
        error: None,
        attempts: 0,
        created_at: "2030-01-01T00:00:00Z".parse().unwrap(),
        updated_at: "2030-01-01T00:00:01.5Z".parse().unwrap(),
    }
}
