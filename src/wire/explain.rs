//! What is wrong with a command that the fast path refused: every mistake, with its path, what was found and expected.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::text::{cut, quoted};

/// More mistakes than these are only counted.
const MAX_MISTAKES: usize = 8;

/// A field of a command, for people.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) shape: Shape,
}

/// What a field holds.
pub(super) enum Shape {
    /// A value that can be shown.
    Plain(fn(&Value) -> bool, &'static str),
    /// A value that may hold a secret.
    Hidden(fn(&Value) -> bool, &'static str),
    /// Fields of its own.
    Object(&'static [Field]),
    /// Names and texts.
    Texts(Texts),
}

/// Names and texts, and how many.
pub(super) struct Texts {
    pub(super) max: usize,
    pub(super) key: fn(&str) -> bool,
    pub(super) key_expected: &'static str,
    pub(super) value: fn(&str) -> bool,
    pub(super) value_expected: &'static str,
    pub(super) secret: bool,
}

/// Mistakes found so far.
#[derive(Default)]
pub(super) struct Mistakes {
    told: Vec<String>,
    more: usize,
}

impl Mistakes {
    pub(super) fn add(&mut self, path: &str, found: impl fmt::Display, expected: &str) {
        if self.told.len() < MAX_MISTAKES {
            self.told.push(format!("`{path}`: {found}, expected {expected}"));
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    pub(super) fn into_detail(self) -> String {
        let more = if self.more == 0 { String::new() } else { format!("; and {} more", self.more) };
        self.told.join("; ") + &more
    }
}

/// `path.name`, where a name of the sender's is escaped and cut.
pub(super) fn join(path: &str, name: &str) -> String {
    let name = cut(name, 64);
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// Holds an object against its fields.
pub(super) fn check(fields: &[Field], object: &Map<String, Value>, path: &str, mistakes: &mut Mistakes) {
    for Field { name, required, shape } in fields {
        let path = join(path, name);
        match object.get(*name) {
            None if *required => mistakes.add(&path, "missing", shape.expected()),
            None => {}
            Some(Value::Null) if !*required => {}
            Some(value) => check_value(shape, value, &path, mistakes),
        }
    }
    for name in object.keys().filter(|name| fields.iter().all(|field| field.name != *name)) {
        let known = fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
        mistakes.add(&join(path, name), "unknown field", &format!("one of {known}"));
    }
}

fn check_value(shape: &Shape, value: &Value, path: &str, mistakes: &mut Mistakes) {
    match (shape, value) {
        (Shape::Plain(valid, _) | Shape::Hidden(valid, _), value) if valid(value) => {}
        (Shape::Plain(_, expected), value) => mistakes.add(path, format_args!("found {}", shown(value)), expected),
        (Shape::Object(fields), Value::Object(object)) => check(fields, object, path, mistakes),
        (Shape::Texts(texts), Value::Object(object)) => check_texts(texts, object, path, mistakes),
        (Shape::Hidden(..) | Shape::Object(_) | Shape::Texts(_), value) => {
            mistakes.add(path, format_args!("found {}", kind(value)), shape.expected());
        }
    }
}

fn check_texts(texts: &Texts, object: &Map<String, Value>, path: &str, mistakes: &mut Mistakes) {
    if object.len() > texts.max {
        mistakes.add(path, format_args!("found {} names", object.len()), &format!("at most {}", texts.max));
    }
    for (name, value) in object {
        let path = join(path, name);
        if !(texts.key)(name) {
            mistakes.add(&path, "found this name", texts.key_expected);
        }
        match value {
            Value::String(text) if (texts.value)(text) => {}
            value if texts.secret => mistakes.add(&path, format_args!("found {}", kind(value)), texts.value_expected),
            value => mistakes.add(&path, format_args!("found {}", shown(value)), texts.value_expected),
        }
    }
}

impl Shape {
    fn expected(&self) -> &'static str {
        match self {
            Self::Plain(_, expected) | Self::Hidden(_, expected) => expected,
            Self::Object(_) => "an object",
            Self::Texts(_) => "an object of strings",
        }
    }
}

/// A value as it was found, cut.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text, 60),
        Value::Null | Value::Array(_) | Value::Object(_) => kind(value).into(),
    }
}

/// What a value is, without the value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Reads JSON into a tree and notes every name that stands twice in one object; the first of them is kept. Only for
/// input whose depth has been bounded: it recurses.
pub(super) fn tree(body: &[u8], mistakes: &mut Mistakes) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Tree { path: "", mistakes }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

struct Tree<'a> {
    path: &'a str,
    mistakes: &'a mut Mistakes,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let path = format!("{}[]", self.path);
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Tree { path: &path, mistakes: self.mistakes })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = join(self.path, &name);
            let value = access.next_value_seed(Tree { path: &path, mistakes: self.mistakes })?;
            if object.contains_key(&name) {
                self.mistakes.add(&path, "found twice", "once");
            } else {
                object.insert(name, value);
            }
        }
        Ok(Value::Object(object))
    }
}
