//! `[nats]`: how the broker is reached, and as whom.

use std::cmp::Ordering;

use super::kind::{self, Parsed, Raw};
use super::origin::Origin;
use super::reader::{Reader, Section};
use super::{NatsConfig, Secret, show};

pub(super) fn read(section: &Section<'_>, url_flag: Option<&str>) -> NatsConfig {
    let secret = |raw: Raw<'_>| kind::text(raw).map(Secret::new);
    let url = section.setting("url").context("url").env("NATS_URL").flag("--nats-url", url_flag);
    let url = url.shown_as(show::url).or("nats://127.0.0.1:4222", urls);
    let path = |key: &'static str, field: &'static str, env: &'static str| {
        section.setting(key).context(field).env(env).optional(kind::path)
    };
    let mut nats = NatsConfig {
        url,
        creds: path("creds", "creds", "NATS_CREDS"),
        nkey: path("nkey", "nkey", "NATS_NKEY"),
        user: section.setting("user").context("user").env("NATS_USER").optional(kind::text),
        password: section.setting("password").context("password").env("NATS_PASSWORD").secret().optional(secret),
        password_file: section.setting("password_file").env("NATS_PASSWORD_FILE").optional(kind::path),
        token: section.setting("token").context("token").env("NATS_TOKEN").secret().optional(secret),
        tls_ca: path("tls_ca", "ca", "NATS_CA"),
        tls_cert: path("tls_cert", "cert", "NATS_CERT"),
        tls_key: path("tls_key", "key", "NATS_KEY"),
        domain: section.setting("domain").context("jetstream_domain").env("NATS_DOMAIN").optional(domain),
        inbox_prefix: {
            let inbox = section.setting("inbox_prefix").context("inbox_prefix").env("NATS_INBOX_PREFIX");
            inbox.optional(kind::subject)
        },
    };
    one_identity(section.reader, &mut nats);
    section.finish();
    nats
}

/// One or more URLs, separated by commas.
fn urls(raw: Raw<'_>) -> Parsed<String> {
    match raw.text() {
        Some(text) if text.split(',').all(is_url) => Ok(text.split(',').map(str::trim).collect::<Vec<_>>().join(",")),
        _ => raw.wrong("one or more URLs such as \"nats://host:4222\" or \"tls://host:4222\", separated by commas"),
    }
}

fn is_url(url: &str) -> bool {
    let (scheme, rest) = url.trim().split_once("://").unwrap_or(("nats", url.trim()));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host).trim_end_matches('/');
    // Colons within brackets belong to an IPv6 address.
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let named = !name.is_empty() && !name.contains([' ', '\t', '/']);
    matches!(scheme, "nats" | "tls") && named && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn domain(raw: Raw<'_>) -> Parsed<String> {
    match raw.text() {
        Some(text) if !text.is_empty() && !text.contains(['.', '*', '>', ' ', '\t']) => Ok(text.to_owned()),
        _ => raw.wrong("the name of a JetStream domain: no dots, blanks or wildcards"),
    }
}

/// The broker knows us as one: of several identities the one set in the strongest place counts, so that the environment
/// can replace a token by a user. Two in one place are a mistake, as nobody can tell which is meant.
fn one_identity(reader: &Reader<'_>, nats: &mut NatsConfig) {
    let rank = |key: &str| match reader.origin(&format!("nats.{key}")) {
        Origin::Default => 0,
        Origin::File { .. } => 1,
        Origin::Context(_) => 2,
        Origin::Env(_) => 3,
        Origin::Flag(_) => 4,
    };
    let (password, password_file) = (rank("password"), rank("password_file"));
    if nats.password.is_some() && nats.password_file.is_some() {
        match password.cmp(&password_file) {
            Ordering::Equal => {
                mistake(reader, "password_file", "found password and password_file, expected one of them");
            }
            Ordering::Greater => {
                nats.password_file = None;
                reader.unset("nats.password_file");
            }
            Ordering::Less => {
                nats.password = None;
                reader.unset("nats.password");
            }
        }
    }
    let user = rank("user").max(password).max(password_file);
    let ranks = [("creds", rank("creds")), ("nkey", rank("nkey")), ("user", user), ("token", rank("token"))];
    let strongest = ranks.iter().map(|(_, rank)| *rank).max().unwrap_or(0);
    let chosen: Vec<_> =
        ranks.iter().filter(|(_, rank)| *rank == strongest && *rank > 0).map(|(key, _)| *key).collect();
    if let [_, second, ..] = chosen[..] {
        mistake(reader, second, &format!("found {}, expected one of them", chosen.join(" and ")));
        return;
    }
    for (key, _) in ranks.iter().filter(|(key, rank)| *rank > 0 && !chosen.contains(key)) {
        reader.unset(&format!("nats.{key}"));
        match *key {
            "creds" => nats.creds = None,
            "nkey" => nats.nkey = None,
            "token" => nats.token = None,
            _ => {
                (nats.user, nats.password, nats.password_file) = (None, None, None);
                reader.unset("nats.password");
                reader.unset("nats.password_file");
            }
        }
    }
    let has_password = nats.password.is_some() || nats.password_file.is_some();
    if nats.user.is_some() && !has_password && rank("user") > 0 {
        mistake(reader, "user", "found a user alone, expected password or password_file beside it");
    } else if nats.user.is_none() && has_password {
        let key = if nats.password.is_some() { "password" } else { "password_file" };
        mistake(reader, key, "found a password alone, expected user beside it");
    }
    if nats.tls_cert.is_some() != nats.tls_key.is_some() {
        let (one, other) = if nats.tls_cert.is_some() { ("tls_cert", "tls_key") } else { ("tls_key", "tls_cert") };
        mistake(reader, one, &format!("found {one} alone, expected {other} beside it"));
    }
}

fn mistake(reader: &Reader<'_>, key: &str, problem: &str) {
    let name = format!("nats.{key}");
    // `user` stands for its password too, which may be all that is set.
    let origin = match reader.origin(&name) {
        Origin::Default if key == "user" => reader.origin("nats.password"),
        origin => origin,
    };
    reader.mistake(origin, name, problem);
}
