//! The kinds of values: each reads a value of the file as well as a text of the environment, or says what it expected.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::DeValue;

use super::file::Node;
use super::{show, time};

/// A value before it is read.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// Of the environment, a flag or a context.
    Text(&'a str),
    /// Of the file.
    Node(&'a Node<'a>),
}

/// What is wrong with a value, or with a part of it.
pub(super) struct Wrong {
    /// The part, say `[1]` or `.zone`; empty for the whole value.
    pub(super) below: String,
    /// Where the part stands in the file.
    pub(super) span: Option<Range<usize>>,
    /// As it may be shown where the setting is no secret.
    pub(super) found: String,
    /// The type of a value of the file.
    pub(super) found_type: Option<&'static str>,
    /// What was expected.
    pub(super) expected: String,
}

/// A value, or all that is wrong with it.
pub(super) type Parsed<T> = Result<T, Vec<Wrong>>;

impl<'a> Raw<'a> {
    /// The text, where it is one.
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Node(node) => node.get_ref().as_str(),
        }
    }

    /// As it may be shown.
    pub(super) fn shown(self) -> String {
        match self {
            Self::Text(text) => crate::text::cut(text, 200),
            Self::Node(node) => show::value(node.get_ref()),
        }
    }

    /// As it may be shown where it is a secret: of a table, the keys.
    pub(super) fn hidden(self) -> String {
        let Self::Node(node) = self else { return show::HIDDEN.to_owned() };
        let Some(table) = node.get_ref().as_table() else { return show::HIDDEN.to_owned() };
        let keys: Vec<_> = table.keys().map(|key| format!("{} = {}", show::key(key.get_ref()), show::HIDDEN)).collect();
        crate::text::cut(&format!("{{ {} }}", keys.join(", ")), 200)
    }

    /// This value is not what was expected.
    pub(super) fn wrong<T>(self, expected: impl Into<String>) -> Parsed<T> {
        Err(vec![self.fault("", expected)])
    }

    fn fault(self, below: &str, expected: impl Into<String>) -> Wrong {
        let (found, found_type, span) = match self {
            Self::Text(text) => (show::quoted(text), None, None),
            Self::Node(node) => {
                let value = node.get_ref();
                (crate::text::cut(&show::value(value), 80), Some(value.type_str()), Some(node.span()))
            }
        };
        Wrong { below: below.to_owned(), span, found, found_type, expected: expected.into() }
    }
}

/// A text that is not blank.
pub(super) fn text(raw: Raw<'_>) -> Parsed<String> {
    match raw.text() {
        Some(text) if !text.trim().is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        _ => raw.wrong("a text that is not blank"),
    }
}

/// The shortest token: what is shorter is guessed.
const SHORTEST_TOKEN: usize = 16;

/// A token that a browser can send.
pub(super) fn bearer(raw: Raw<'_>) -> Parsed<super::Secret> {
    match raw.text() {
        Some(text) if is_token(text) => Ok(super::Secret::new(text.to_owned())),
        _ => raw.wrong("a token of 16 characters or more, letters, digits and signs, no blanks"),
    }
}

/// Whether a text will do as a token.
pub(crate) fn is_token(text: &str) -> bool {
    text.len() >= SHORTEST_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A path.
pub(super) fn path(raw: Raw<'_>) -> Parsed<std::path::PathBuf> {
    match raw.text() {
        Some(text) if !text.trim().is_empty() && !text.contains('\0') => Ok(text.into()),
        _ => raw.wrong("a path"),
    }
}

/// `true` or `false`.
pub(super) fn truth(raw: Raw<'_>) -> Parsed<bool> {
    match raw {
        Raw::Text("true" | "1") => Ok(true),
        Raw::Text("false" | "0") => Ok(false),
        Raw::Node(node) if node.get_ref().is_bool() => Ok(node.get_ref().as_bool() == Some(true)),
        _ => raw.wrong("true or false"),
    }
}

/// A whole number in a range.
pub(super) fn whole<N: TryFrom<u64>>(
    expected: &'static str,
    range: RangeInclusive<u64>,
) -> impl Fn(Raw<'_>) -> Parsed<N> {
    move |raw| {
        let number = match raw {
            Raw::Text(text) => text.parse().ok(),
            Raw::Node(node) => {
                node.get_ref().as_integer().and_then(|i| u64::from_str_radix(i.as_str(), i.radix()).ok())
            }
        };
        match number.filter(|n| range.contains(n)).and_then(|n| N::try_from(n).ok()) {
            Some(number) => Ok(number),
            None => raw.wrong(expected),
        }
    }
}

/// A number, whole or not, that passes a test.
pub(super) fn number(expected: &'static str, good: fn(f64) -> bool) -> impl Fn(Raw<'_>) -> Parsed<f64> {
    move |raw| {
        let number: Option<f64> = match raw {
            Raw::Text(text) => text.parse().ok(),
            Raw::Node(node) => match node.get_ref() {
                DeValue::Integer(i) if i.radix() == 10 => i.as_str().parse().ok(),
                DeValue::Float(f) => f.as_str().parse().ok(),
                _ => None,
            },
        };
        match number.filter(|n| n.is_finite() && good(*n)) {
            Some(number) => Ok(number),
            None => raw.wrong(expected),
        }
    }
}

/// A duration, zero too.
pub(super) fn duration(raw: Raw<'_>) -> Parsed<Duration> {
    match raw.text().and_then(time::parse) {
        Some(duration) => Ok(duration),
        None => raw.wrong(time::EXPECTED),
    }
}

/// A duration of at least so much.
pub(super) fn duration_from(least: Duration, shown: &'static str) -> impl Fn(Raw<'_>) -> Parsed<Duration> {
    move |raw| match duration(raw)? {
        duration if duration >= least => Ok(duration),
        _ => raw.wrong(format!("a duration of at least {shown}")),
    }
}

/// One of some words.
pub(super) fn one_of<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(Raw<'_>) -> Parsed<T> {
    move |raw| {
        let found = raw.text();
        if let Some((_, value)) = words.iter().find(|(word, _)| Some(*word) == found) {
            return Ok(*value);
        }
        let (last, first) = words.split_last().map_or(("", words), |((word, _), first)| (*word, first));
        let first: Vec<_> = first.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let hint = found.map_or(String::new(), |f| show::did_you_mean(f, words.iter().map(|(word, _)| *word)));
        raw.wrong(format!("{} or \"{last}\"{hint}", first.join(", ")))
    }
}

/// Whatever a validated name accepts.
pub(super) fn token<T: std::str::FromStr>(what: &'static str, pattern: &'static str) -> impl Fn(Raw<'_>) -> Parsed<T> {
    move |raw| match raw.text().and_then(|text| text.parse().ok()) {
        Some(token) => Ok(token),
        None => raw.wrong(format!("a {what} of the form {pattern}")),
    }
}

/// What [`is_subject`] asks for.
pub(crate) const SUBJECT: &str = "a subject without blanks, wildcards (*, >) or empty tokens";

/// Whether it can be published to: tokens between dots, no blanks, no wildcards.
pub(crate) fn is_subject(text: &str) -> bool {
    let good = |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>');
    text.split('.').all(good) && !text.starts_with('$')
}

/// A subject to publish to.
pub(super) fn subject(raw: Raw<'_>) -> Parsed<String> {
    match raw.text() {
        Some(text) if is_subject(text) => Ok(text.to_owned()),
        _ => raw.wrong(SUBJECT),
    }
}

/// An array, each of whose items is read by another kind.
pub(super) fn list<T>(
    expected: &'static str,
    item: impl Fn(Raw<'_>) -> Parsed<T>,
) -> impl Fn(Raw<'_>) -> Parsed<Vec<T>> {
    move |raw| {
        let Raw::Node(node) = raw else { return raw.wrong(expected) };
        let Some(array) = node.get_ref().as_array() else { return raw.wrong(expected) };
        let mut wrongs = Vec::new();
        let mut items = Vec::with_capacity(array.len());
        for (n, node) in array.iter().enumerate() {
            match item(Raw::Node(node)) {
                Ok(value) => items.push(value),
                Err(more) => wrongs.extend(more.into_iter().map(|w| Wrong { below: format!("[{n}]{}", w.below), ..w })),
            }
        }
        if wrongs.is_empty() { Ok(items) } else { Err(wrongs) }
    }
}

/// A table of texts.
pub(super) fn texts(
    expected: &'static str,
    name: &'static str,
    good: fn(&str) -> bool,
) -> impl Fn(Raw<'_>) -> Parsed<BTreeMap<String, String>> {
    move |raw| {
        let Raw::Node(node) = raw else { return raw.wrong(expected) };
        let Some(table) = node.get_ref().as_table() else { return raw.wrong(expected) };
        let mut wrongs = Vec::new();
        let mut map = BTreeMap::new();
        for (key, node) in table {
            let below = format!(".{}", show::key(key.get_ref()));
            if !good(key.get_ref()) {
                let found = show::quoted(key.get_ref());
                let span = Some(key.span());
                wrongs.push(Wrong { below, span, found, found_type: Some("key"), expected: name.to_owned() });
                continue;
            }
            match node.get_ref().as_str().filter(|text| !text.contains('\0')) {
                Some(text) => drop(map.insert(key.get_ref().to_string(), text.to_owned())),
                None => wrongs.push(Raw::Node(node).fault(&below, "a text")),
            }
        }
        if wrongs.is_empty() { Ok(map) } else { Err(wrongs) }
    }
}
