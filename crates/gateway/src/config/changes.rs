//! What becomes of another configuration while the gateway runs.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::path::Path;

use fanwire_control::Changes;
use fanwire_node::Namespace;
use serde::Serialize;
use toml::{Table, Value};

use super::Config;

/// What of a configuration takes effect at once; the rest stays as it runs.
pub(crate) fn merge(running: &Config, wanted: &Config) -> Config {
    let client = fanwire_node::ClientConfig {
        // Every listener has it from its beginning.
        max_message_size: running.client.max_message_size,
        ..wanted.client.clone()
    };
    Config {
        client,
        token: wanted.token.clone(),
        api_key: wanted.api_key.clone(),
        hook: wanted.hook.clone(),
        namespace: wanted.namespace.clone(),
        ..running.clone()
    }
}

/// Names what is different in `wanted`: what [`merge`] takes on, and what it leaves. Secrets in files are not looked at, and
/// hooks neither: [`Backends::changed`](fanwire_hooks::Backends::changed) does, with the files they name.
pub(crate) fn compare(running: &Config, wanted: &Config) -> Changes {
    let merged = merge(running, wanted);
    // Without a rest: whoever adds a section decides here what becomes of it.
    let Config {
        listen,
        control,
        proxy,
        tls,
        node,
        broker,
        client,
        admission,
        shedding,
        drain,
        token,
        log,
        trace,
        api_key,
        hook: _,
        namespace,
    } = wanted;
    let needs_restart = [
        differing("listen", &running.listen, listen),
        differing("control", &running.control, control),
        differing("proxy", &running.proxy, proxy),
        differing("tls", &running.tls, tls),
        differing("node", &running.node, node),
        differing("broker", &running.broker, broker),
        differing("client", &merged.client, client),
        differing("admission", &running.admission, admission),
        differing("shedding", &running.shedding, shedding),
        differing("drain", &running.drain, drain),
        differing("log", &running.log, log),
        differing("trace", &running.trace, trace),
    ];
    let mut changed = differing("client", &running.client, &merged.client);
    changed.extend((running.token != *token).then(|| "token".to_owned()));
    changed.extend(differing_namespaces(&running.namespace, namespace));
    let name = |key: &fanwire_control::ApiKey| format!("api_key.{}", key.name);
    changed.extend(api_key.iter().filter(|key| !running.api_key.contains(key)).map(name));
    let gone = |key: &&fanwire_control::ApiKey| !api_key.iter().any(|other| other.name == key.name);
    changed.extend(running.api_key.iter().filter(gone).map(name));
    Changes { changed, needs_restart: needs_restart.concat() }
}

/// A number that is the same as long as the files with the keys of tokens hold the same.
pub(crate) fn fingerprint(token: &fanwire_auth::Config, state: &RandomState) -> u64 {
    let mut hasher = state.build_hasher();
    for file in [&token.hmac_secret_file, &token.rsa_public_key_file, &token.ecdsa_public_key_file] {
        let read = |path: &Path| std::fs::read(path).ok();
        file.as_deref().and_then(read).hash(&mut hasher);
    }
    hasher.finish()
}

fn differing_namespaces(running: &[Namespace], wanted: &[Namespace]) -> Vec<String> {
    let named = |list: &[Namespace], name: &str| list.iter().find(|namespace| namespace.name == name).cloned();
    let section = |name: &str| format!("namespace.{}", if name.is_empty() { "\"\"" } else { name });
    let mut differences = Vec::new();
    for namespace in wanted {
        let section = section(&namespace.name);
        match named(running, &namespace.name) {
            Some(before) => differences.extend(differing(&section, &before, namespace)),
            None => differences.push(section),
        }
    }
    let gone = running.iter().filter(|namespace| named(wanted, &namespace.name).is_none());
    differences.extend(gone.map(|namespace| section(&namespace.name)));
    differences
}

/// The keys of a section whose values differ.
fn differing<T: Serialize>(section: &str, one: &T, other: &T) -> Vec<String> {
    let table = |value: &T| Table::try_from(value).unwrap_or_default();
    let mut differences = Vec::new();
    compare_tables(section, &table(one), &table(other), &mut differences);
    differences
}

fn compare_tables(section: &str, one: &Table, other: &Table, differences: &mut Vec<String>) {
    let added = other.keys().filter(|key| !one.contains_key(*key));
    for key in one.keys().chain(added) {
        let path = format!("{section}.{key}");
        match (one.get(key), other.get(key)) {
            (Some(Value::Table(one)), Some(Value::Table(other))) => compare_tables(&path, one, other, differences),
            (one, other) if one != other => differences.push(path),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use fanwire_control::ApiKey;

    use super::*;

    fn changes(edit: impl FnOnce(&mut Config)) -> (Vec<String>, Vec<String>) {
        let key =
            |name: &str| ApiKey { name: name.into(), secret: Some("0123456789abcdef".into()), ..ApiKey::default() };
        let running = Config {
            namespace: vec![Namespace::open(""), Namespace::open("chat")],
            api_key: vec![key("one"), key("two")],
            ..Config::default()
        };
        let mut wanted = running.clone();
        edit(&mut wanted);
        let Changes { changed, needs_restart } = compare(&running, &wanted);
        let after = compare(&merge(&running, &wanted), &wanted);
        assert_eq!(after, Changes { changed: Vec::new(), needs_restart: needs_restart.clone() });
        (changed, needs_restart)
    }

    #[test]
    fn nothing_is_different_in_the_same() {
        assert_eq!(changes(|_| {}), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_changes_at_once_is_named() {
        let (changed, needs_restart) = changes(|config| {
            config.client.origins.push("https://example.com".into());
            config.client.ping_interval *= 2;
            config.token.issuer = Some("someone".into());
            config.namespace[1].history_size = 7;
            config.namespace[0] = Namespace::open("news");
            config.api_key[0].rate = 5;
            config.api_key.pop();
        });
        let expected = [
            "client.origins",
            "client.ping_interval",
            "token",
            "namespace.news",
            "namespace.chat.history_size",
            "namespace.\"\"",
            "api_key.one",
            "api_key.two",
        ];
        assert_eq!((changed, needs_restart), (expected.map(str::to_owned).to_vec(), Vec::new()));
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let (changed, needs_restart) = changes(|config| {
            config.listen.public.set_port(1);
            config.control.reflection = true;
            config.node.name = "another".into();
            config.broker.redis.urls.clear();
            config.broker.redis.ca_file = Some("/nowhere".into());
            config.client.max_message_size = 1;
            config.drain.rate = 1;
            config.log.level = "debug".into();
        });
        let expected = [
            "listen.public",
            "control.reflection",
            "node.name",
            "broker.redis.urls",
            "broker.redis.ca_file",
            "client.max_message_size",
            "drain.rate",
            "log.level",
        ];
        assert_eq!((changed, needs_restart), (Vec::new(), expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn another_key_in_the_same_file_is_another_fingerprint() {
        let path = std::env::temp_dir().join(format!("fanwire-fingerprint-{}", std::process::id()));
        let token = fanwire_auth::Config { hmac_secret_file: Some(path.clone()), ..fanwire_auth::Config::default() };
        let state = RandomState::new();
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            fingerprint(&token, &state)
        };
        let (one, other, again) = (of("one"), of("other"), of("one"));
        std::fs::remove_file(&path).unwrap();
        assert!(one == again && one != other && fingerprint(&token, &state) != one);
    }
}
