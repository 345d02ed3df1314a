//! One reader a field: the form and the bounds of everything that a command may carry.
//!
//! They only say yes or no, since the fast path has nothing to explain; `table.rs` puts the words to them.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// A day: no wait that a command asks for is longer.
pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// The most names in `env`.
pub(super) const MAX_ENV: usize = 256;
/// The most labels.
pub(super) const MAX_LABELS: usize = 64;
/// The largest pool that can be asked for.
pub(super) const MAX_SIZE: u32 = 1_000_000;

#[cfg(test)]
pub(super) const RFC3339: &str = r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$";
#[cfg(test)]
pub(super) const IMAGE: &str = "^[!-,.-~][!-~]{0,254}$";
#[cfg(test)]
pub(super) const LABEL_KEY: &str = "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$";
#[cfg(test)]
pub(super) const PRINTABLE: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
#[cfg(test)]
pub(super) const NO_NUL: &str = r"^[^\u0000]*$";
#[cfg(test)]
pub(super) const ENV_NAME: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

pub(super) fn image<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    bounded(from, |text: &String| {
        (1..=255).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(|b| b.is_ascii_graphic())
    })
}

pub(super) fn command<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    bounded(from, |words: &Vec<String>| {
        words.first().is_some_and(|program| !program.is_empty()) && words.iter().all(|word| no_nul(word))
    })
}

/// Below a thousandth of a core an engine that counts in whole units rounds to nought, which it takes for "no limit".
pub(super) fn cpus<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    bounded(from, |cores: &f64| (0.001..=1_000_000.0).contains(cores))
}

/// Bounded above so that its bytes can be counted in 63 bits.
pub(super) fn memory_mb<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    bounded(from, |mb: &u64| (1..=1 << 30).contains(mb))
}

pub(super) fn max_retries<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    bounded(from, |retries: &u32| *retries <= 100)
}

pub(super) fn timeout_ms<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    bounded(from, |ms: &u64| (1..=DAY_MS).contains(ms))
}

pub(super) fn grace_ms<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    bounded(from, |ms: &u64| *ms <= DAY_MS)
}

pub(super) fn reason<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    bounded(from, |text: &String| text.chars().count() <= 200)
}

pub(super) fn force<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(from)?.unwrap_or_default())
}

pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let size = u32::deserialize(from)?;
    if size <= MAX_SIZE { Ok(size) } else { Err(D::Error::custom("out of bounds")) }
}

/// RFC 3339 and no more: the clock library reads other forms too, which other implementations would not.
pub(super) fn expires_at<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    if !is_rfc3339(text.as_bytes()) {
        return Err(D::Error::custom("not RFC 3339"));
    }
    text.parse().map(Some).map_err(D::Error::custom)
}

pub(super) fn env<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    from.deserialize_option(TextMap { max: MAX_ENV, key: env_name, value: no_nul })
}

pub(super) fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    from.deserialize_option(TextMap { max: MAX_LABELS, key: label_key, value: label_value })
}

/// An object or null. Derived readers take an array for a struct as well, field by field, which is no form of ours.
pub(super) fn object<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    from.deserialize_option(Object(PhantomData))
}

pub(super) fn no_nul(text: &str) -> bool {
    !text.contains('\0')
}

/// Whether it may be set at all; which names a command may not choose, [`crate::domain::steers`] says.
pub(super) fn env_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

pub(super) fn label_key(key: &str) -> bool {
    let bytes = key.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._/-".contains(b))
}

pub(super) fn label_value(value: &str) -> bool {
    value.chars().count() <= 256 && !value.chars().any(char::is_control)
}

fn is_rfc3339(text: &[u8]) -> bool {
    let digits = |range: std::ops::Range<usize>| text[range].iter().all(u8::is_ascii_digit);
    if text.len() < 20 || !text.is_ascii() {
        return false;
    }
    let date = digits(0..4) && text[4] == b'-' && digits(5..7) && text[7] == b'-' && digits(8..10);
    let time = matches!(text[10], b'T' | b't')
        && digits(11..13)
        && text[13] == b':'
        && digits(14..16)
        && text[16] == b':'
        && digits(17..19);
    let mut rest = &text[19..];
    if let [b'.', fraction @ ..] = rest {
        let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&len) {
            return false;
        }
        rest = &fraction[len..];
    }
    let offset = match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()),
        _ => false,
    };
    date && time && offset
}

fn bounded<'de, D, T>(from: D, valid: fn(&T) -> bool) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let value = Option::<T>::deserialize(from)?;
    if value.as_ref().is_none_or(valid) { Ok(value) } else { Err(D::Error::custom("out of bounds")) }
}

struct Object<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_none<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<T, D::Error> {
        from.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Text by text, each name once: a plain map would take the last of two silently, and another reader the first.
struct TextMap {
    max: usize,
    key: fn(&str) -> bool,
    value: fn(&str) -> bool,
}

impl<'de> Visitor<'de> for TextMap {
    type Value = Option<BTreeMap<String, String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(name) = access.next_key::<String>()? {
            let value: String = access.next_value()?;
            if map.len() == self.max || !(self.key)(&name) || !(self.value)(&value) || map.contains_key(&name) {
                while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Err(A::Error::custom("out of bounds"));
            }
            map.insert(name, value);
        }
        Ok(Some(map))
    }
}
