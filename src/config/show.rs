//! Values as they may be shown, and the nearest name to one that is unknown.

use toml::de::DeValue;

/// What stands in the place of a secret.
pub(super) const HIDDEN: &str = "[hidden]";

/// A text in quotes, escaped and cut.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", crate::text::cut(text, 80))
}

/// A value of the file on one line.
pub(super) fn value(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| self::value(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) if table.is_empty() => "{}".to_owned(),
        DeValue::Table(table) => {
            let items: Vec<_> =
                table.iter().map(|(k, v)| format!("{} = {}", key(k.get_ref()), self::value(v.get_ref()))).collect();
            format!("{{ {} }}", items.join(", "))
        }
    }
}

/// A key as TOML writes it: bare where it may be, else in quotes.
pub(super) fn key(text: &str) -> String {
    let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { text.to_owned() } else { quoted(text) }
}

/// URLs, separated by commas, with passwords and tokens replaced by `***`. A user before a password stays readable;
/// what stands alone before the `@` is a token.
pub(super) fn url(urls: &str) -> String {
    let hide = |url: &str| {
        let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
        let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
        match rest.rsplit_once('@') {
            // No port, so perhaps a password whose host was forgotten.
            None => match rest.split_once(':') {
                Some((host, port))
                    if !host.starts_with('[') && !port.bytes().all(|b| b.is_ascii_digit() || b == b'/') =>
                {
                    format!("{scheme}{host}:***")
                }
                _ => format!("{scheme}{rest}"),
            },
            Some((info, host)) => match info.split_once(':') {
                Some((user, _)) => format!("{scheme}{user}:***@{host}"),
                None => format!("{scheme}***@{host}"),
            },
        }
    };
    // A comma within a password would cut it in two and show the first half: where that may be, nothing is told apart.
    match urls.rsplit_once('@') {
        Some((before, host)) if before.matches("://").count() <= 1 && before.contains(',') => {
            let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}***@{host}")
        }
        _ => urls.split(',').map(hide).collect::<Vec<_>>().join(","),
    }
}

/// ` (did you mean …?)` where one of the known names is near enough.
pub(super) fn did_you_mean<'k>(found: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    known
        .into_iter()
        .map(|name| (distance(found, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1) || (found.len() > 2 && name.starts_with(found)))
        .min()
        .map_or(String::new(), |(_, name)| format!(" (did you mean {name}?)"))
}

/// Edit distance: insertions, deletions and substitutions.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_shows_its_host_and_never_its_password() {
        assert_eq!(url("nats://127.0.0.1:4222"), "nats://127.0.0.1:4222");
        assert_eq!(url("nats://user:s3cret@host:4222"), "nats://user:***@host:4222");
        assert_eq!(url("tls://t0ken@host"), "tls://***@host");
        assert_eq!(url("user:s3@cret@host"), "user:***@host");
        assert_eq!(url("nats://a:x@one,nats://b:y@two"), "nats://a:***@one,nats://b:***@two");
        assert_eq!(url("nats://a:s3,cret@one"), "nats://***@one");
        assert_eq!(url("nats://a:s3,cret@one,nats://b:y@two"), "nats://a:***,***@one,nats://b:***@two");
        assert_eq!(url("nats://me:s3cret"), "nats://me:***");
        assert_eq!(url("nats://[::1]:4222,tls://host:1/"), "nats://[::1]:4222,tls://host:1/");
    }

    #[test]
    fn a_near_name_is_proposed_and_a_far_one_is_not() {
        let known = ["prefix", "memory_mb", "grace"];
        assert_eq!(did_you_mean("prefx", known), " (did you mean prefix?)");
        assert_eq!(did_you_mean("memory", known), " (did you mean memory_mb?)");
        assert_eq!(did_you_mean("colour", known), "");
    }
}
