//! Foreign text made safe for logs, events and headers.

/// `text` with control characters escaped, cut to at most `max` characters.
#[must_use]
pub fn cut(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for (n, c) in text.chars().enumerate() {
        if n == max {
            out.push('…');
            break;
        }
        if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// `text` as it was found: in quotes, with what would not be seen escaped, of at most `max` characters.
#[must_use]
pub fn quoted(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{:?}", format!("{}…", &text[..end])),
        None => format!("{text:?}"),
    }
}

/// Serialises a moment as RFC 3339, for fields of every event: the type's own way goes by a formatter, piece by piece, and costs
/// three times as much.
pub fn moment<S: serde::Serializer>(at: &jiff::Timestamp, to: S) -> Result<S::Ok, S::Error> {
    const LONGEST: usize = 32;
    let mut text = String::with_capacity(LONGEST);
    let printed = jiff::fmt::temporal::DateTimePrinter::new().print_timestamp(at, &mut text);
    printed.map_err(serde::ser::Error::custom)?;
    to.serialize_str(&text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_are_escaped_and_long_text_is_cut() {
        assert_eq!(super::cut("a\nb\u{1b}[31m", 80), "a\\nb\\u{1b}[31m");
        assert_eq!(super::cut("abcdef", 3), "abc…");
        assert_eq!(super::quoted("\u{1b}[31m\"\u{202e}", 80), r#""\u{1b}[31m\"\u{202e}""#, "escaped once");
        assert_eq!(super::quoted("abcdef", 3), "\"abc…\"");
    }
}
