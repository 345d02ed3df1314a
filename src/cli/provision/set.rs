//! `--set KEY=VALUE`: one override of a pool's template, as it is typed.

use std::str::FromStr;

use crate::domain::{steering, steers};
use crate::text::cut;
use crate::wire::command::ProvisionCommand;

/// An override. What its value may be is the command's own matter, and told by its reader.
#[derive(Clone)]
pub(super) enum Setting {
    Image(String),
    Command(Vec<String>),
    Env(String, String),
    Label(String, String),
    Cpus(f64),
    MemoryMb(u64),
    Gpus(u32),
    Enabled(bool),
    MaxRetries(u32),
    TimeoutMs(u64),
}

/// Reads one.
pub(super) fn read(text: &str) -> Result<Setting, String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok(match key {
        "image" => Setting::Image(value.to_owned()),
        "command" => Setting::Command(
            // Its words may be secrets, as the values of `env` may.
            serde_json::from_str(value).map_err(|_| "command: found something else, expected a JSON array of texts")?,
        ),
        "cpus" => Setting::Cpus(finite(key, value)?),
        "memory_mb" => Setting::MemoryMb(number(key, value)?),
        "gpus" => Setting::Gpus(number(key, value)?),
        "registration.enabled" => Setting::Enabled(number(key, value)?),
        "registration.max_retries" => Setting::MaxRetries(number(key, value)?),
        "registration.timeout_ms" => Setting::TimeoutMs(number(key, value)?),
        _ => match key.split_once('.') {
            Some(("env", name)) if steers(name) => return Err(steering(&[&cut(name, 60)])),
            Some(("env", name)) if !name.is_empty() => Setting::Env(name.to_owned(), value.to_owned()),
            Some(("labels", name)) if !name.is_empty() => Setting::Label(name.to_owned(), value.to_owned()),
            _ => {
                return Err(format!(
                    "found key {:?}, expected one of image, command, env.NAME, labels.NAME, cpus, memory_mb, gpus, \
                     registration.enabled, registration.max_retries, registration.timeout_ms",
                    cut(key, 60)
                ));
            }
        },
    })
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, String> {
    let expected = if key == "registration.enabled" { "true or false" } else { "a number" };
    value.parse().map_err(|_| format!("{key}: found {:?}, expected {expected}", cut(value, 60)))
}

/// JSON has no other numbers: they would go as `null`, which is no override at all.
fn finite(key: &str, value: &str) -> Result<f64, String> {
    let found = number::<f64>(key, value)?;
    if found.is_finite() {
        Ok(found)
    } else {
        Err(format!("{key}: found {:?}, expected a finite number", cut(value, 60)))
    }
}

impl Setting {
    pub(super) fn apply(&self, command: &mut ProvisionCommand) {
        let (spec, registration) = (&mut command.spec, &mut command.registration);
        match self.clone() {
            Self::Image(image) => spec.image = Some(image),
            Self::Command(words) => spec.command = Some(words),
            Self::Env(name, value) => {
                spec.env.get_or_insert_default().insert(name, value);
            }
            Self::Label(name, value) => {
                spec.labels.get_or_insert_default().insert(name, value);
            }
            Self::Cpus(cpus) => spec.cpus = Some(cpus),
            Self::MemoryMb(memory) => spec.memory_mb = Some(memory),
            Self::Gpus(gpus) => spec.gpus = Some(gpus),
            Self::Enabled(enabled) => registration.enabled = Some(enabled),
            Self::MaxRetries(retries) => registration.max_retries = Some(retries),
            Self::TimeoutMs(timeout) => registration.timeout_ms = Some(timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_their_keys_and_values_may_hold_anything() {
        let mut command = ProvisionCommand::decode(br#"{"command_id":"c-1"}"#).unwrap();
        for text in ["env.A=b=c", "labels.app.kubernetes.io/name=x", "cpus=0.5", "command=[\"sleep\",\"1\"]", "gpus=1"]
        {
            read(text).unwrap_or_else(|error| panic!("{text}: {error}")).apply(&mut command);
        }
        let expected = r#"{"command_id":"c-1","spec":{"command":["sleep","1"],"env":{"A":"b=c"},"labels":{"app.kubernetes.io/name":"x"},"cpus":0.5,"gpus":1}}"#;
        assert_eq!(command, ProvisionCommand::decode(expected.as_bytes()).unwrap());
    }

    #[test]
    fn a_mistake_says_what_was_found_and_what_was_expected() {
        for (text, told) in [
            ("cpus", "expected KEY=VALUE"),
            ("cpu=1", "found key \"cpu\", expected one of image"),
            ("env.=1", "found key \"env.\""),
            ("gpus=many", "gpus: found \"many\", expected a number"),
            ("command=sleep 1", "command: found something else, expected a JSON array"),
            ("cpus=nan", "cpus: found \"nan\", expected a finite number"),
            ("cpus=1e400", "cpus: found \"1e400\", expected a finite number"),
            ("registration.enabled=no", "expected true or false"),
        ] {
            let error = read(text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_mistake_does_not_tell_what_may_be_secret() {
        for text in [
            "env.LD_PRELOAD=s3cret",
            "env.=s3cret",
            "env=s3cret",
            "command=s3cret",
            "command=[\"s3cret\", 1]",
            "s3cret",
        ] {
            let error = read(text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert!(!error.contains("s3cret"), "{text}: {error}");
        }
    }
}
