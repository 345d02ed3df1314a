//! Contexts of the `nats` command line: what operators have saved already is not typed again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::env::Source;
use super::origin::{Mistake, Origin};

/// The fields of a context that mean something here.
const FIELDS: [&str; 11] =
    ["url", "creds", "nkey", "user", "password", "token", "cert", "key", "ca", "jetstream_domain", "inbox_prefix"];
/// Fields by which the `nats` command line gets to a server, or is somebody there, in a way that enlist does not know:
/// passed over, they would lead somewhere else, or there as somebody else.
const STRANGE: [&str; 5] = ["nsc", "user_jwt", "socks_proxy", "jetstream_api_prefix", "tls_first"];
/// Those of the fields above that name files, in which `~` is the home folder.
const FILES: [&str; 5] = ["creds", "nkey", "cert", "key", "ca"];

/// Stands for the context that `nats context select` has chosen; which that is changes behind our back, so it counts only
/// where it is asked for.
const SELECTED: &str = "-";

/// A context that has been read.
pub(super) struct Context {
    pub(super) name: Arc<str>,
    /// What it sets; fields left empty count as unset, as the `nats` command line writes them.
    pub(super) fields: BTreeMap<&'static str, String>,
}

/// The context that was asked for, if one was.
pub(super) fn read(source: &Source<'_>) -> Result<Option<Context>, Mistake> {
    let set = |name: &str| source.env.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let (name, origin) = match (source.flags.context.as_deref(), set("NATS_CONTEXT")) {
        (Some(name), _) => (name, Origin::Flag("--context")),
        (None, Some(name)) => (name, Origin::Env("NATS_CONTEXT")),
        (None, None) => return Ok(None),
    };
    let mistake = |problem: String| Mistake { origin: origin.clone(), setting: "nats context".to_owned(), problem };
    let home = set("HOME").map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".config")));
    let Some(folder) = folder else {
        return Err(mistake("neither XDG_CONFIG_HOME nor HOME is set, so there is no place to look for it".to_owned()));
    };
    let selected;
    let name = if name == SELECTED {
        let path = folder.join("nats/context.txt");
        let read = (source.read)(&path);
        selected = read
            .map_err(|error| mistake(format!("no context is selected: {} cannot be read: {error}", path.display())))?;
        selected.trim()
    } else {
        name
    };
    let shown = super::show::quoted(name);
    if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Err(mistake(format!("found {shown}, expected the name of a context, as nats context ls shows it")));
    }
    let path = folder.join("nats/context").join(format!("{name}.json"));
    let text = (source.read)(&path).map_err(|error| mistake(format!("{} cannot be read: {error}", path.display())))?;
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).map_err(|error| {
        // The library's message may quote a value: the place is enough to find it.
        let (line, column) = (error.line(), error.column());
        mistake(format!("{}:{line}:{column}: not a JSON object", path.display()))
    })?;
    let is_set = |value: &serde_json::Value| *value != json!(null) && *value != json!("") && *value != json!(false);
    if let Some(field) = STRANGE.into_iter().find(|field| json.get(*field).is_some_and(is_set)) {
        return Err(mistake(format!(
            "{}: {field}: enlist cannot reach NATS by it; expected some of {} alone",
            path.display(),
            FIELDS.join(", ")
        )));
    }
    let mut fields = BTreeMap::new();
    for field in FIELDS {
        match json.get(field) {
            None | Some(serde_json::Value::Null) => {}
            Some(serde_json::Value::String(text)) if text.is_empty() => {}
            Some(serde_json::Value::String(text)) => {
                let home = home.as_ref().filter(|_| FILES.contains(&field));
                let text = match (home, text.strip_prefix("~/")) {
                    (Some(home), Some(rest)) => home.join(rest).to_string_lossy().into_owned(),
                    _ => text.clone(),
                };
                fields.insert(field, text);
            }
            Some(_) => return Err(mistake(format!("{}: {field}: expected a text", path.display()))),
        }
    }
    Ok(Some(Context { name: name.into(), fields }))
}
