//! What settings are read from: the process's own files and environment, or a test's.
//!
//! Nothing else in the crate looks at the environment or at a settings file.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use super::load::{Loaded, load};
use super::origin::{ConfigError, Mistake, Origin};

/// The file that is taken where it lies in the working directory and none is named.
pub const DEFAULT_FILE: &str = "enlist.toml";

/// A configuration file that has been read.
#[derive(Clone)]
pub struct ConfigFile {
    /// Its name, as mistakes tell it.
    pub name: String,
    /// Its text. May hold secrets.
    pub text: String,
}

/// What the command line sets. May hold secrets, so there is no `Debug`.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--prefix`.
    pub prefix: Option<String>,
    /// `--nats-url`.
    pub nats_url: Option<String>,
    /// `--context`.
    pub context: Option<String>,
    /// A client's verb needs a broker and no pool, so that a file without pools, or no file at all, will do.
    pub pools_optional: bool,
}

/// Everything that settings are a function of.
pub struct Source<'a> {
    /// The file, if there is one.
    pub file: Option<ConfigFile>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The command line.
    pub flags: Flags,
    /// Reads a file that the settings name: a `nats` context.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// The settings of this process: the file that is named, else the one that `ENLIST_CONFIG` names, else `enlist.toml` of
/// the working directory if it is there, else `otherwise`; its environment; and the flags.
pub fn from_process(
    config_path: Option<&Path>,
    otherwise: Option<ConfigFile>,
    flags: Flags,
) -> Result<Loaded, ConfigError> {
    // What is not UTF-8 is kept as far as it goes: a mistake that names the variable is better than silence.
    let env: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let named = config_path
        .map(Path::to_path_buf)
        .or_else(|| env.get("ENLIST_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let file = match std::fs::read_to_string(&path) {
        Ok(text) => Some(ConfigFile { name: path.to_string_lossy().into_owned(), text }),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => otherwise,
        Err(source) => return Err(ConfigError::Unreadable { path, source }),
    };
    load(&Source { file, env, flags, read: &|path| std::fs::read_to_string(path) }).map_err(ConfigError::Mistakes)
}

/// What the log takes from the environment; read before the settings, so that their reading can be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The filter and the variable that set it, where one did.
    pub filter: Option<(&'static str, String)>,
    /// Whether colours may be used: standard error is a terminal, and `NO_COLOR` is unset or empty.
    pub colour: bool,
    /// Whether people read along.
    pub terminal: bool,
}

/// Reads a variable of this process.
#[must_use]
pub fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The log's part of this process's environment: `ENLIST_LOG`, else `RUST_LOG`; `NO_COLOR`.
#[must_use]
pub fn log_settings() -> LogSettings {
    let set = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let filter = ["ENLIST_LOG", "RUST_LOG"].into_iter().find_map(|name| Some((name, set(name)?)));
    let terminal = io::stderr().is_terminal();
    LogSettings { filter, colour: terminal && colour_wanted(), terminal }
}

/// What the standard variables of OpenTelemetry say about spans, where they ask for them to be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanExport {
    /// The service has a name of the operator's choice.
    pub named: bool,
}

/// The part of these variables that the exporter leaves to its user; the rest it reads by itself. Spans are exported where
/// an endpoint or the exporter is named, so that no build looks for a collector that nobody has.
pub fn span_export(read: impl Fn(&str) -> Option<String>) -> Result<Option<SpanExport>, Mistake> {
    let set = |name: &'static str| read(name).filter(|text| !text.is_empty()).map(|text| (name, text));
    let exporter = set("OTEL_TRACES_EXPORTER");
    let endpoint = set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let off = set("OTEL_SDK_DISABLED").is_some_and(|(_, text)| text.eq_ignore_ascii_case("true"));
    let unknown = |(name, found): (&'static str, String), expected: &str| Mistake {
        origin: Origin::Env(name),
        setting: "span export".to_owned(),
        problem: format!("found \"{}\", expected {expected}", crate::text::cut(&found, 80)),
    };
    let wanted = match exporter {
        None => endpoint.is_some(),
        Some((_, name)) if name == "otlp" => true,
        Some((_, name)) if name == "none" => false,
        Some(other) if !off => return Err(unknown(other, "otlp or none")),
        Some(_) => false,
    };
    if off || !wanted {
        return Ok(None);
    }
    let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(other) = protocol.filter(|(_, text)| text != "http/protobuf") {
        return Err(unknown(other, "http/protobuf, which collectors take at port 4318"));
    }
    let in_attributes = |(_, text): (_, String)| text.split(',').any(|pair| pair.trim().starts_with("service.name="));
    let named = set("OTEL_SERVICE_NAME").is_some() || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(in_attributes);
    Ok(Some(SpanExport { named }))
}

/// Programs of this host that a demo starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The nats-server that `NATS_SERVER` names.
    pub nats_server: Option<PathBuf>,
    /// The folders of `PATH`.
    pub path: Vec<PathBuf>,
}

/// Where this process's environment says that programs are.
#[must_use]
pub fn tools() -> Tools {
    let set = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty());
    let path = set("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    Tools { nats_server: set("NATS_SERVER").map(PathBuf::from), path }
}

/// Whether `NO_COLOR` is unset or empty.
#[must_use]
pub fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(set: &[(&str, &str)]) -> Result<Option<SpanExport>, String> {
        let read = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        span_export(read).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn spans_are_exported_where_an_endpoint_or_the_exporter_is_named_and_nothing_is_against_it() {
        let at = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        let plain = Ok(Some(SpanExport { named: false }));
        assert_eq!(export(&[]), Ok(None));
        assert_eq!(export(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(export(&[at]), plain);
        assert_eq!(export(&[("OTEL_TRACES_EXPORTER", "otlp")]), plain);
        assert_eq!(export(&[at, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert_eq!(export(&[at, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        for name in [("OTEL_SERVICE_NAME", "a"), ("OTEL_RESOURCE_ATTRIBUTES", "x=y, service.name=a")] {
            assert_eq!(export(&[at, name]), Ok(Some(SpanExport { named: true })));
        }
    }

    #[test]
    fn what_cannot_be_exported_to_is_a_mistake_that_names_its_variable() {
        let at = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        let told = export(&[at, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).unwrap_err();
        assert!(
            told.starts_with("env OTEL_EXPORTER_OTLP_PROTOCOL: span export: found \"grpc\", expected http/"),
            "{told}"
        );
        let told = export(&[("OTEL_TRACES_EXPORTER", "zipkin")]).unwrap_err();
        assert!(told.contains("found \"zipkin\", expected otlp or none"), "{told}");
    }
}
