//! Which pages may connect (cross-site WebSocket hijacking).

/// Whether a page of this origin may connect to the gateway that the client knows as `host`.
///
/// `rules` are origins as `scheme://host[:port]`, `scheme://*.host[:port]` for all subdomains, or `*`; with none, only
/// the gateway's own pages may.
pub(crate) fn permits(rules: &[String], origin: &str, host: Option<&str>) -> bool {
    if rules.iter().any(|rule| rule == "*") {
        return true;
    }
    let Some((scheme, authority)) = split(origin) else { return false };
    if rules.is_empty() {
        return host.is_some_and(|host| without_default_port(&scheme, &host.to_ascii_lowercase()) == authority);
    }
    rules.iter().filter_map(|rule| split(rule)).any(|(rule_scheme, rule_authority)| {
        rule_scheme == scheme
            && match rule_authority.strip_prefix("*.") {
                Some(parent) => {
                    authority.strip_suffix(parent).is_some_and(|label| label.len() > 1 && label.ends_with('.'))
                }
                None => rule_authority == authority,
            }
    })
}

/// Scheme and authority in lower case, without the scheme's default port; `None` for `null` and other oddities.
fn split(origin: &str) -> Option<(String, String)> {
    let origin = origin.to_ascii_lowercase();
    let (scheme, authority) = origin.split_once("://")?;
    let plain = |c: char| !matches!(c, '/' | '?' | '#' | '@') && !c.is_whitespace();
    if scheme.is_empty() || authority.is_empty() || !authority.chars().all(plain) {
        return None;
    }
    Some((scheme.to_owned(), without_default_port(scheme, authority).to_owned()))
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_pages_when_none_are_listed() {
        let own = |origin, host| permits(&[], origin, host);
        assert!(own("https://example.com", Some("example.com")));
        assert!(own("https://EXAMPLE.com", Some("Example.com:443")));
        assert!(own("http://127.0.0.1:8000", Some("127.0.0.1:8000")));
        assert!(own("http://[::1]:8000", Some("[::1]:8000")));
        for (origin, host) in [
            ("https://example.com", Some("example.com:8443")),
            ("https://example.com.evil.test", Some("example.com")),
            ("https://evil.test", Some("example.com")),
            ("https://example.com/", Some("example.com")),
            ("https://evil.test@example.com", Some("evil.test@example.com")),
            ("example.com", Some("example.com")),
            ("null", Some("null")),
            ("null", None),
            ("", Some("")),
            ("https://", Some("")),
            ("https://example.com", None),
        ] {
            assert!(!own(origin, host), "{origin} {host:?}");
        }
    }

    #[test]
    fn listed_pages() {
        let rules = ["https://example.com", "https://*.example.org", "http://localhost:3000", "https://a.test:443"];
        let rules = rules.map(str::to_owned);
        let permits = |origin| permits(&rules, origin, Some("gateway.test"));
        for origin in [
            "https://example.com",
            "https://example.com:443",
            "https://a.example.org",
            "https://a.b.example.org",
            "http://localhost:3000",
            "https://a.test",
        ] {
            assert!(permits(origin), "{origin}");
        }
        for origin in [
            "http://example.com",
            "https://example.com:8443",
            "https://sub.example.com",
            "https://example.org",
            "https://.example.org",
            "https://evilexample.org",
            "https://a.example.org.evil.test",
            "http://localhost",
            "https://gateway.test",
            "null",
            "*",
        ] {
            assert!(!permits(origin), "{origin}");
        }
    }

    #[test]
    fn star_is_for_all() {
        assert!(permits(&["*".to_owned()], "null", None));
        assert!(permits(&["*".to_owned()], "https://anywhere.test", Some("gateway.test")));
    }
}
