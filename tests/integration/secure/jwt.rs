//! An operator with one account, and users of it, as the tools of NATS would make them.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};

/// See the module. A second account is the server's own, which JetStream asks for.
pub(crate) struct Authority {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let pair = |kind| KeyPair::new_from_raw(kind, rand::random()).unwrap();
        Self {
            operator: pair(KeyPairType::Operator),
            account: pair(KeyPairType::Account),
            system: pair(KeyPairType::Account),
        }
    }

    /// What makes a server trust this operator.
    pub(crate) fn configuration(&self) -> String {
        let Self { operator, account, system } = self;
        let of_operator = token(operator, operator, None, &json!({ "type": "operator", "version": 2 }));
        let unlimited = |names: &[&str]| -> Value {
            names.iter().map(|name| ((*name).to_owned(), json!(-1))).collect::<serde_json::Map<_, _>>().into()
        };
        let mut limits = unlimited(&[
            "subs",
            "data",
            "payload",
            "imports",
            "exports",
            "conn",
            "leaf",
            "mem_storage",
            "disk_storage",
        ]);
        limits["streams"] = json!(-1);
        limits["consumer"] = json!(-1);
        limits["wildcards"] = json!(true);
        let claims = |limits: &Value| json!({ "limits": limits, "type": "account", "version": 2 });
        let of_account = token(operator, account, None, &claims(&limits));
        let names = ["subs", "data", "payload", "imports", "exports", "conn", "leaf"];
        let of_system = token(operator, system, None, &claims(&unlimited(&names)));
        let [account, system] = [account, system].map(KeyPair::public_key);
        format!(
            "operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {account}: {of_account}\n {system}: {of_system} }}\n"
        )
    }

    /// A user's credentials file.
    pub(crate) fn creds(&self, life: Option<Duration>) -> String {
        let user = KeyPair::new_from_raw(KeyPairType::User, rand::random()).unwrap();
        let claims =
            json!({ "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2 });
        let jwt = token(&self.account, &user, life, &claims);
        let seed = user.seed().unwrap();
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

fn token(issuer: &KeyPair, subject: &KeyPair, life: Option<Duration>, nats: &Value) -> String {
    let now = Timestamp::now().as_second();
    let sub = subject.public_key();
    let mut claims =
        json!({ "jti": sub, "iat": now, "iss": issuer.public_key(), "name": "test", "sub": sub, "nats": nats });
    if let Some(life) = life {
        claims["exp"] = json!(now + i64::try_from(life.as_secs()).unwrap());
    }
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encode(&claims));
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}
