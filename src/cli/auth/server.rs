//! The roles as a nats-server reads them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use nkeys::KeyPair;

use super::roles::{Answers, Role};
use crate::config::Config;

/// The server's whole configuration. It holds public keys only.
pub(super) fn text(config: &Config, dir: &Path, listen: SocketAddr, keys: &[(&Role, KeyPair)]) -> String {
    let mut text = String::new();
    let Config { prefix, .. } = config;
    let _ = write!(
        text,
        r#"# nats-server's part of the enlist fleet "{prefix}", by `enlist auth init`. There is no secret in it: each user proves
# itself by the nkey seed in its own file, <role>.nk. Beyond loopback, add a tls block.
#
# Permissions do not hold back where the server answers or delivers to: who may ask it anything can have the answer, and who
# may create consumers (the subscriber, on the log) the events, sent to a subject that it may not publish to itself. So
# publishers, subscriber and operator could put rubbish on the log or into a queue: enlist passes it over, but 64 pieces of
# it push a worker's true event out of the log. Give their keys to those who will not.

listen: {listen}
jetstream {{ store_dir: {store} }}

accounts {{
  ENLIST {{
    jetstream: enabled
    users: [
"#,
        listen = quoted(&listen.to_string()),
        store = quoted(&dir.join("jetstream").display().to_string()),
    );
    for (role, key) in keys {
        user(&mut text, role, &key.public_key());
    }
    text.push_str("    ]\n  }\n}\n");
    text
}

fn user(text: &mut String, role: &Role, key: &str) {
    let Role { name, about, publish, subscribe, answers } = role;
    let _ = writeln!(text, "      # {name}: {about}");
    let _ = writeln!(text, "      {{ nkey: {key}, permissions: {{");
    for (what, subjects) in [("publish", publish), ("subscribe", subscribe)] {
        let subjects: Vec<String> = subjects.iter().map(|subject| format!("          {}", quoted(subject))).collect();
        let _ = writeln!(text, "        {what}: {{ allow: [\n{}\n        ] }}", subjects.join("\n"));
    }
    let answers = match answers {
        Answers::No => "",
        Answers::Once => "        allow_responses: { max: 1, expires: \"1h\" }\n",
        Answers::Often => "        allow_responses: { max: 100000, expires: \"24h\" }\n",
    };
    let _ = writeln!(text, "{answers}      }} }}");
}

/// As the configuration writes a text: in double quotes, whatever is in it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
