//! Every mistake is told at once, with its place, what was found and what was expected.

use super::*;

#[test]
fn all_mistakes_of_a_file_are_told_at_once_from_top_to_bottom() {
    let told = World::new(include_str!("mistakes.toml")).mistakes();
    // Printed line by line where it differs: `assert_eq!` would show it with every quote escaped.
    let expected = include_str!("mistakes.txt").trim_end();
    assert!(
        told == expected,
        "told otherwise:
{told}"
    );
}

#[test]
fn a_syntax_error_has_its_line_and_column_and_does_not_quote_the_line() {
    let told = World::new("prefix = \"enlist\"\n[nats]\npassword = \"hunter2\nurl = 1 2\n").mistakes();
    assert!(told.starts_with("enlist.toml:3:"), "{told}");
    assert!(told.contains("\nenlist.toml:4:"), "both errors are told: {told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn columns_count_characters_and_not_bytes() {
    let told = World::new("[pools.load]\nprovider = \"null\"\nlabels = { \"größe\" = 1 }\n").mistakes();
    assert_eq!(told, "enlist.toml:3:22: pools.load.labels.\"größe\": found 1 (integer), expected a text");
}

#[test]
fn a_mistake_of_the_environment_names_the_variable() {
    let told = World::new(SMALL)
        .env("REGISTRATION_MAX_RETRIES", "many")
        .env("REGISTRATION_TIMEOUT", "30")
        .env("NATS_URL", "nats://me:hunter2@host:port")
        .env("ENLIST_PREFIX", "No Good")
        .mistakes();
    let expected = [
        "env ENLIST_PREFIX: prefix: found \"No Good\", expected a prefix of the form [a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?",
        "env NATS_URL: nats.url: found \"nats://me:***@host:port\", expected one or more URLs such as \
         \"nats://host:4222\" or \"tls://host:4222\", separated by commas",
        "env REGISTRATION_MAX_RETRIES: registration.max_retries: found \"many\", expected a whole number from 0 to 1000",
        "env REGISTRATION_TIMEOUT: registration.timeout: found \"30\", expected a duration such as \"30s\", \"5m\", \
         \"1h30m\", \"250ms\" or \"7d\"",
    ];
    assert_eq!(told, expected.join("\n"));
}

#[test]
fn without_any_pool_there_is_nothing_to_do_but_for_a_client() {
    let told = World::default().mistakes();
    assert!(told.starts_with("pools: found no pool, expected a table [pools.<name>] at least in a file"), "{told}");
    let told = World::new("prefix = \"a\"\n[pools]\n").mistakes();
    let expected = "enlist.toml:2:2: pools: found no pool, expected a table [pools.<name>] at least in enlist.toml";
    assert_eq!(told, expected);
    let client = World { flags: Flags { pools_optional: true, ..Flags::default() }, ..World::default() };
    assert!(client.load().is_ok());
}

#[test]
fn two_identities_in_one_place_are_a_mistake() {
    let nats = "[nats]\ntoken = \"t0ken\"\ncreds = \"a.creds\"\n";
    let told = World::new(&format!("{SMALL}{nats}")).mistakes();
    assert_eq!(told, "enlist.toml:4:9: nats.token: found creds and token, expected one of them");
    let told = World::new(SMALL).env("NATS_USER", "me").env("NATS_CERT", "c.pem").mistakes();
    let expected = "env NATS_CERT: nats.tls_cert: found tls_cert alone, expected tls_key beside it\n\
                    env NATS_USER: nats.user: found a user alone, expected password or password_file beside it";
    assert_eq!(told, expected);
}

#[test]
fn a_docker_host_that_cannot_be_used_is_a_mistake_only_where_a_pool_needs_it() {
    assert!(World::new(SMALL).env("DOCKER_HOST", "ssh://me@host").load().is_ok());
    let told =
        World::new("[pools.web]\nprovider = \"docker\"\nimage = \"a\"\n").env("DOCKER_HOST", "ssh://host").mistakes();
    assert!(
        told.starts_with("env DOCKER_HOST: providers.docker.host: found \"ssh://host\", expected unix://"),
        "{told}"
    );
}

#[test]
fn a_context_that_cannot_be_read_is_a_mistake_of_whoever_named_it() {
    let told = World::new(SMALL).env("HOME", "/home/me").env("NATS_CONTEXT", "prod").mistakes();
    let path = "/home/me/.config/nats/context/prod.json";
    assert!(told.starts_with(&format!("env NATS_CONTEXT: nats context: {path} cannot be read: ")), "{told}");
    let told = World::new(SMALL).env("HOME", "/home/me").env("NATS_CONTEXT", "../../etc/passwd").mistakes();
    assert!(told.contains("expected the name of a context"), "{told}");
}

#[test]
fn a_provider_of_somebody_else_s_needs_a_name_and_subjects_of_its_own() {
    let pool = |more: &str| World::new(&format!("[pools.far]\nprovider = \"nats\"\n{more}")).mistakes();
    assert_eq!(
        pool(""),
        "enlist.toml:1:8: pools.far.name: found nothing, expected a name such as \"tmux\", under which the provider answers"
    );
    let told = pool("name = \"a.b\"\nanswer_timeout = \"1ms\"\nhosts = []\n");
    let parts = [
        "3:8: pools.far.name: found \"a.b\" (string), expected a name of a provider of the form ",
        "4:18: pools.far.answer_timeout: found \"1ms\" (string), expected a duration of at least 100ms",
        "5:9: pools.far.hosts: means nothing to provider \"nats\", only to static",
    ];
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    let told = pool("name = \"a\"\nsubject_prefix = \"enlist.cmd\"\n");
    assert!(
        told.contains("4:18: pools.far.subject_prefix: found \"enlist.cmd\", expected a subject outside"),
        "{told}"
    );
    let told = World::new("[pools.a]\nprovider = \"null\"\nanswer_timeout = \"1s\"\n").mistakes();
    assert!(told.contains("pools.a.answer_timeout: means nothing to provider \"null\", only to nats"), "{told}");
}
