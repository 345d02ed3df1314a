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

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_are_escaped_and_long_text_is_cut() {
        assert_eq!(super::cut("a\nb\u{1b}[31m", 80), "a\\nb\\u{1b}[31m");
        assert_eq!(super::cut("abcdef", 3), "abc…");
    }
}
