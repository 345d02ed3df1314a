//! Any text as a configuration file, with a line of it as the environment: it is read, or every mistake has a place and
//! says what was expected.
#![no_main]

use std::collections::BTreeMap;

use enlist::config::{ConfigFile, Flags, Source, load};
use libfuzzer_sys::fuzz_target;

const VARIABLES: [&str; 6] = [
    "NATS_URL",
    "ENLIST_PREFIX",
    "ENLIST_HTTP_LISTEN",
    "REGISTRATION_ENABLED",
    "REGISTRATION_MAX_RETRIES",
    "REGISTRATION_TIMEOUT",
];

fuzz_target!(|text: &str| {
    let (first, rest) = text.split_once('\n').unwrap_or(("", text));
    let env: BTreeMap<String, String> =
        VARIABLES.iter().zip(first.split('|')).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect();
    let source = Source {
        file: Some(ConfigFile { name: "fuzz.toml".to_owned(), text: rest.to_owned() }),
        env,
        flags: Flags::default(),
        read: &|_| Err(std::io::ErrorKind::NotFound.into()),
    };
    if let Err(mistakes) = load(&source) {
        assert!(!mistakes.is_empty());
        for mistake in mistakes {
            let shown = mistake.to_string();
            assert!(!shown.is_empty());
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        }
    }
});
