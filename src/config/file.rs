//! The configuration file as a document whose every value knows its line and column.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::origin::{Mistake, Origin};

/// A key or value of the file.
pub(super) type Node<'d> = Spanned<DeValue<'d>>;

/// The places of a file.
pub(super) struct Places {
    name: Arc<str>,
    text: Arc<str>,
    /// Offset of each line's first byte.
    lines: Vec<usize>,
}

impl Places {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text: text.into(), lines }
    }

    /// The file's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Line and column of where a span starts.
    pub(super) fn at(&self, span: &Range<usize>) -> Origin {
        let start = span.start.min(self.text.len());
        let line = self.lines.partition_point(|first| *first <= start);
        let column = self.text.get(self.lines[line - 1]..start).map_or(1, |before| before.chars().count() + 1);
        Origin::File { name: self.name.clone(), line, column }
    }
}

/// The document's tables, or every syntax error in it.
pub(super) fn parse<'t>(places: &Places, text: &'t str) -> Result<Node<'t>, Vec<Mistake>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Spanned::new(table.span(), DeValue::Table(table.into_inner())));
    }
    // Only the message: the library's own display quotes the line, and the line may hold a password.
    let mistake = |error: toml::de::Error| Mistake {
        origin: places.at(&error.span().unwrap_or(0..0)),
        setting: String::new(),
        problem: format!("not TOML: {}", crate::text::cut(error.message(), 200)),
    };
    Err(errors.into_iter().map(mistake).collect())
}
