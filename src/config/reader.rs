//! Looks a setting up in all its places, writes down where it was found, and collects what is wrong with it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::context::Context;
use super::file::{Node, Places};
use super::kind::{Parsed, Raw, Wrong};
use super::origin::{Mistake, Origin, Setting};
use super::show::{self, HIDDEN};

/// The places that settings come from, and what has been read of them so far.
pub(super) struct Reader<'s> {
    pub(super) env: &'s BTreeMap<String, String>,
    pub(super) places: Option<Places>,
    pub(super) context: Option<Context>,
    mistakes: RefCell<Vec<Mistake>>,
    settings: RefCell<Vec<Setting>>,
}

impl<'s> Reader<'s> {
    pub(super) fn new(env: &'s BTreeMap<String, String>, places: Option<Places>, context: Option<Context>) -> Self {
        Self { env, places, context, mistakes: RefCell::default(), settings: RefCell::default() }
    }

    /// An environment variable; one that is empty counts as unset, as compose files write what they leave open.
    pub(super) fn env(&self, name: &str) -> Option<&'s str> {
        self.env.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn mistake(&self, origin: Origin, setting: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.borrow_mut().push(Mistake { origin, setting: setting.into(), problem: problem.into() });
    }

    pub(super) fn note(&self, name: String, value: String, origin: Origin) {
        self.settings.borrow_mut().push(Setting { name, value, origin });
    }

    /// An effective setting; one that was mistaken is as good as unset.
    pub(super) fn setting(&self, name: &str) -> Setting {
        let unset = || Setting { name: name.to_owned(), value: "-".to_owned(), origin: Origin::Default };
        self.settings.borrow().iter().find(|s| s.name == name).cloned().unwrap_or_else(unset)
    }

    /// Where an effective setting came from.
    pub(super) fn origin(&self, name: &str) -> Origin {
        self.setting(name).origin
    }

    /// Drops a setting that a stronger one has taken the place of.
    pub(super) fn unset(&self, name: &str) {
        for setting in self.settings.borrow_mut().iter_mut().filter(|s| s.name == name) {
            "-".clone_into(&mut setting.value);
            setting.origin = Origin::Default;
        }
    }

    pub(super) fn at(&self, span: &std::ops::Range<usize>) -> Origin {
        self.places.as_ref().map_or(Origin::Default, |places| places.at(span))
    }

    /// Everything that was noted: mistakes in the order of the file, each once.
    pub(super) fn finish(self) -> (Vec<Setting>, Vec<Mistake>) {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort();
        mistakes.dedup();
        (self.settings.into_inner(), mistakes)
    }
}

/// A table of the file, or the lack of it: settings of a missing table may still be set elsewhere.
pub(super) struct Section<'r> {
    pub(super) reader: &'r Reader<'r>,
    path: String,
    node: Option<&'r Node<'r>>,
    /// Where the table is named.
    pub(super) origin: Origin,
    known: RefCell<Vec<&'static str>>,
    /// Parts of one setting, such as a host, are not settings of their own.
    quiet: bool,
}

impl<'r> Section<'r> {
    pub(super) fn root(reader: &'r Reader<'r>, node: Option<&'r Node<'r>>) -> Self {
        Self::new(reader, String::new(), node, Origin::Default)
    }

    /// A table under a name that is not fixed, such as a pool's.
    pub(super) fn new(reader: &'r Reader<'r>, path: String, node: Option<&'r Node<'r>>, origin: Origin) -> Self {
        let node = node.filter(|node| {
            let table = node.get_ref().is_table();
            if !table {
                // Not the value: what stands in the place of a whole table may hold its secrets.
                let problem = format!("found a value ({}), expected a table", node.get_ref().type_str());
                reader.mistake(reader.at(&node.span()), path.clone(), problem);
            }
            table
        });
        Self { reader, path, node, origin, known: RefCell::default(), quiet: false }
    }

    pub(super) fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// The full name of a setting in this table.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { show::key(key) } else { format!("{}.{}", self.path, show::key(key)) }
    }

    /// Keys and values of the table as they stand.
    pub(super) fn entries(&self) -> Vec<(&'r str, std::ops::Range<usize>, &'r Node<'r>)> {
        let table = self.node.and_then(|node| node.get_ref().as_table());
        table.into_iter().flat_map(|t| t.iter()).map(|(k, v)| (k.get_ref().as_ref(), k.span(), v)).collect()
    }

    /// Whether the file has this table.
    pub(super) fn exists(&self) -> bool {
        self.node.is_some()
    }

    /// A value of the file as it stands, with its place.
    pub(super) fn raw(&self, key: &'static str) -> Option<(Origin, &'r Node<'r>)> {
        self.known.borrow_mut().push(key);
        self.find(key).map(|(_, node)| (self.reader.at(&node.span()), node))
    }

    /// A fixed table within this one.
    pub(super) fn section(&self, key: &'static str) -> Section<'r> {
        self.known.borrow_mut().push(key);
        let (node, origin) = match self.find(key) {
            Some((span, node)) => (Some(node), self.reader.at(&span)),
            None => (None, self.origin.clone()),
        };
        Self { quiet: self.quiet, ..Self::new(self.reader, self.name(key), node, origin) }
    }

    /// A setting of this table.
    pub(super) fn setting(&self, key: &'static str) -> Lookup<'_, 'r> {
        self.known.borrow_mut().push(key);
        Lookup { section: self, key, env: None, flag: None, context: None, secret: false, shown: None }
    }

    /// Says which keys of the file nobody has asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (key, span, _) in self.entries() {
            if !known.contains(&key) {
                let hint = show::did_you_mean(key, known.iter().copied());
                self.reader.mistake(self.reader.at(&span), self.name(key), format!("unknown setting{hint}"));
            }
        }
    }

    fn find(&self, key: &str) -> Option<(std::ops::Range<usize>, &'r Node<'r>)> {
        let (key, node) = self.node?.get_ref().as_table()?.get_key_value(key)?;
        Some((key.span(), node))
    }
}

/// A setting, and the names under which it may be set beside the file.
pub(super) struct Lookup<'a, 'r> {
    section: &'a Section<'r>,
    key: &'static str,
    env: Option<&'static str>,
    flag: Option<(&'static str, &'a str)>,
    context: Option<&'static str>,
    secret: bool,
    shown: Option<fn(&str) -> String>,
}

impl<'a> Lookup<'a, '_> {
    pub(super) fn env(self, name: &'static str) -> Self {
        Self { env: Some(name), ..self }
    }

    pub(super) fn flag(self, name: &'static str, value: Option<&'a str>) -> Self {
        Self { flag: value.map(|value| (name, value)), ..self }
    }

    /// The field of a `nats` context.
    pub(super) fn context(self, field: &'static str) -> Self {
        Self { context: Some(field), ..self }
    }

    /// Its value never shows, not in a mistake either.
    pub(super) fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// How its text is shown.
    pub(super) fn shown_as(self, shown: fn(&str) -> String) -> Self {
        Self { shown: Some(shown), ..self }
    }

    /// A setting that may be left out; listed as `-`, but for the many of a pool.
    pub(super) fn optional<T>(self, kind: impl Fn(Raw<'_>) -> Parsed<T>) -> Option<T> {
        let found = self.find();
        if found.is_none() && !self.section.path.starts_with("pools.") {
            self.note("-".to_owned(), Origin::Default);
        }
        found.and_then(|(raw, origin)| self.read(raw, origin, kind))
    }

    /// A setting with a default, which is written as an operator would write it.
    pub(super) fn or<T>(self, default: &'static str, kind: impl Fn(Raw<'_>) -> Parsed<T>) -> T {
        let found = if let Some((raw, origin)) = self.find() {
            self.read(raw, origin, &kind)
        } else {
            self.note(default.to_owned(), Origin::Default);
            None
        };
        // A wrong value is noted as a mistake, so what is returned in its place is never started with.
        found.or_else(|| kind(Raw::Text(default)).ok()).expect("every default is a value of its own kind")
    }

    /// A setting whose default is another setting.
    pub(super) fn or_value<T: Clone>(self, default: (&T, &Setting), kind: impl Fn(Raw<'_>) -> Parsed<T>) -> T {
        let (value, shown) = default;
        if let Some((raw, origin)) = self.find() {
            self.read(raw, origin, kind).unwrap_or_else(|| value.clone())
        } else {
            self.note(shown.value.clone(), shown.origin.clone());
            value.clone()
        }
    }

    /// A setting that must be there.
    pub(super) fn required<T>(self, expected: &str, kind: impl Fn(Raw<'_>) -> Parsed<T>) -> Option<T> {
        if let Some((raw, origin)) = self.find() {
            return self.read(raw, origin, kind);
        }
        let origin = self.section.origin.clone();
        let problem = format!("found nothing, expected {expected}");
        self.section.reader.mistake(origin, self.section.name(self.key), problem);
        None
    }

    /// The strongest place that sets it: flag, environment, context, file.
    fn find(&self) -> Option<(Raw<'_>, Origin)> {
        let reader = self.section.reader;
        let flag = || self.flag.map(|(name, value)| (Raw::Text(value), Origin::Flag(name)));
        let env = || self.env.and_then(|name| Some((Raw::Text(reader.env(name)?), Origin::Env(name))));
        let context = || {
            let (context, field) = (reader.context.as_ref()?, self.context?);
            Some((Raw::Text(context.fields.get(field)?), Origin::Context(context.name.clone())))
        };
        let file = || self.section.find(self.key).map(|(_, node)| (Raw::Node(node), reader.at(&node.span())));
        flag().or_else(env).or_else(context).or_else(file)
    }

    fn read<T>(&self, raw: Raw<'_>, origin: Origin, kind: impl Fn(Raw<'_>) -> Parsed<T>) -> Option<T> {
        match kind(raw) {
            Ok(value) => {
                let shown = match (self.secret, self.shown, raw.text()) {
                    (true, ..) => raw.hidden(),
                    (_, Some(shown), Some(text)) => shown(text),
                    (_, _, Some(text)) => crate::text::cut(text, 200),
                    (_, _, None) => raw.shown(),
                };
                self.note(shown, origin);
                Some(value)
            }
            Err(wrongs) => {
                for mut wrong in wrongs {
                    if let Some(shown) = self.shown {
                        // Before it is cut: half a password without its `@` could not be told from a host.
                        wrong.found = raw.text().map_or(HIDDEN.to_owned(), |text| show::quoted(&shown(text)));
                    }
                    self.mistaken(wrong, &origin);
                }
                None
            }
        }
    }

    fn note(&self, value: String, origin: Origin) {
        if !self.section.quiet {
            self.section.reader.note(self.section.name(self.key), value, origin);
        }
    }

    fn mistaken(&self, wrong: Wrong, origin: &Origin) {
        let Wrong { below, span, found, found_type, expected } = wrong;
        let reader = self.section.reader;
        // The type tells what is wrong with a secret of the file; a key is no secret.
        let found = if self.secret && found_type != Some("key") { HIDDEN.to_owned() } else { found };
        let found = found_type.map_or(found.clone(), |found_type| format!("{found} ({found_type})"));
        let origin = span.map_or_else(|| origin.clone(), |span| reader.at(&span));
        let setting = format!("{}{below}", self.section.name(self.key));
        reader.mistake(origin, setting, format!("found {found}, expected {expected}"));
    }
}
