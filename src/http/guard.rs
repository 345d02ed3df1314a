//! Who may see the fleet page: by the name that they ask for, and by a token.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// Nothing but what this listener serves is loaded or run, and nothing is framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// Why a request is not answered, for people.
pub(super) type Refused = (StatusCode, String);

/// See the module.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Where the listener is bound to loopback, a name that leads there by another's doing is refused.
    loopback: bool,
    /// Hashed, so that comparing takes as long whatever is sent.
    token: Option<[u8; 32]>,
}

impl Guard {
    /// For a listener at this address.
    #[must_use]
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self { loopback: address.ip().is_loopback(), token: token.map(hash) }
    }

    /// Whether anybody who reaches the listener sees the fleet, and not this machine alone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.loopback && self.token.is_none()
    }

    /// Lets a request for the page itself through, or says why not.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if self.loopback && !is_local(host) {
            let text = "this listener is for this machine alone: ask for 127.0.0.1 or localhost\n";
            return Err((StatusCode::MISDIRECTED_REQUEST, text.to_owned()));
        }
        Ok(())
    }

    /// Lets a request for what the page shows through, or says why not.
    pub(super) fn admit_with_token(&self, headers: &HeaderMap) -> Result<(), Refused> {
        self.admit(headers)?;
        let Some(token) = &self.token else { return Ok(()) };
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let sent = sent.and_then(bearer).unwrap_or_default();
        if hash(sent) == *token {
            return Ok(());
        }
        Err((StatusCode::UNAUTHORIZED, "a token is needed (http.token)\n".to_owned()))
    }
}

/// The token of an `Authorization`, whose scheme is the same in either case (RFC 9110).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim_start_matches(' '))
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Whether a `Host` names this machine by a name that nobody else can lead elsewhere.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// An answer, or why there is none, with the headers of everything that the page consists of.
pub(super) fn shielded(answer: Result<Response, Refused>) -> Response {
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"enlist\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(host: &str, token: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_name_that_was_led_here_is_refused_on_loopback() {
        let guard = Guard::new("127.0.0.1:8088".parse().unwrap(), None);
        for host in
            ["localhost", "localhost:8088", "LOCALHOST:1", "127.0.0.1:8088", "127.0.0.1", "[::1]:8088", "127.9.9.9"]
        {
            assert!(guard.admit(&asking(host, None)).is_ok(), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8088",
            "10.0.0.1:8088",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
        ] {
            let refused = guard.admit(&asking(host, None)).unwrap_err();
            assert_eq!(refused.0, StatusCode::MISDIRECTED_REQUEST, "{host}");
        }
        assert!(guard.admit(&HeaderMap::new()).is_err());
        assert!(!guard.is_open());
    }

    #[test]
    fn a_token_is_asked_for_where_one_is_set() {
        let guard = Guard::new("0.0.0.0:8088".parse().unwrap(), Some("0123456789abcdef"));
        assert!(guard.admit(&asking("enlist.example", None)).is_ok(), "the page itself holds no secret");
        assert!(guard.admit_with_token(&asking("enlist.example", Some("0123456789abcdef"))).is_ok());
        let mut lower = asking("enlist.example", None);
        lower.insert(header::AUTHORIZATION, "bearer 0123456789abcdef".parse().unwrap());
        assert!(guard.admit_with_token(&lower).is_ok(), "a scheme is the same in either case");
        for wrong in [None, Some(""), Some("0123456789abcde"), Some("0123456789abcdefg")] {
            let refused = guard.admit_with_token(&asking("enlist.example", wrong)).unwrap_err();
            assert_eq!(refused.0, StatusCode::UNAUTHORIZED);
        }
        assert!(!guard.is_open());
        assert!(Guard::new("[::]:8088".parse().unwrap(), None).is_open());
    }
}
