//! An authorizer whose tokens can be read.

use bytes::Bytes;
use fanwire_node::Authorizer;
use fanwire_node::authorizer::{AuthError, Grant, Identity, Overrides, SubscriptionToken};
use fanwire_node::{Action, Capability, clock};
use fanwire_wire::{Channel, Pattern};
use futures_util::future::{BoxFuture, ready};

/// An authorizer for tests. A token says in words what it grants:
///
/// ```text
/// token        = "expired" / "unavailable" / connection / subscription      anything else is invalid
/// connection   = "user:" id *option          the user `id`, which may be empty
/// subscription = "sub:" id "@" channel *option
/// option       = ";exp=" seconds             ends so many seconds from now
///              / ";age=" seconds                          issued so many seconds ago
///              / ";info=" json               what other clients see (connection: conn_info, subscription: chan_info)
///              / ";subs=" channel *("," channel)                            connection only: server-side subscriptions
///              / ";cap=" action *("," action) "@" pattern *("," pattern) ["!" seconds]
///                                             connection only, any number: a capability, perhaps with an end of its own
///              / ";data=" json               subscription only: for the subscriber itself
///              / ";presence=" bool / ";join_leave=" bool / ";force_join_leave=" bool
///              / ";recovery=" bool / ";positioning=" bool                   subscription only: overrides
/// ```
///
/// JSON in an option has no `;`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenBook;

impl Authorizer for TokenBook {
    fn connection<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, AuthError>> {
        Box::pin(ready(connection(token)))
    }

    fn subscription<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<SubscriptionToken, AuthError>> {
        Box::pin(ready(subscription(token)))
    }
}

fn connection(token: &str) -> Result<Identity, AuthError> {
    let (user, options) = split(token, "user:")?;
    let mut identity = Identity { user: user.into(), ..Identity::default() };
    for option in options {
        match option? {
            ("exp", seconds) => identity.expire_at = Some(seconds_from_now(seconds)?),
            ("info", json) => identity.info = Some(Bytes::copy_from_slice(json.as_bytes())),
            ("subs", channels) => {
                for name in channels.split(',') {
                    let channel = Channel::new(name).map_err(|error| invalid(&error.to_string()))?;
                    identity.subscriptions.push((channel, Grant::default()));
                }
            }
            ("age", seconds) => identity.issued_at = Some(seconds_ago(seconds)?),
            ("cap", text) => identity.capabilities.push(capability(text)?),
            (name, _) => return Err(invalid(name)),
        }
    }
    Ok(identity)
}

fn capability(text: &str) -> Result<Capability, AuthError> {
    let (text, end) = text.split_once('!').map_or((text, None), |(text, end)| (text, Some(end)));
    let (actions, channels) = text.split_once('@').ok_or_else(|| invalid(text))?;
    let action = |name| Action::ALL.into_iter().find(|action| action.name() == name).ok_or_else(|| invalid(name));
    Ok(Capability {
        channels: channels
            .split(',')
            .map(|pattern| Pattern::new(pattern).map_err(|error| invalid(&error.to_string())))
            .collect::<Result<_, _>>()?,
        actions: actions.split(',').map(action).collect::<Result<_, _>>()?,
        expire_at: end.map(seconds_from_now).transpose()?,
    })
}

fn subscription(token: &str) -> Result<SubscriptionToken, AuthError> {
    let (head, options) = split(token, "sub:")?;
    let (user, channel) = head.split_once('@').ok_or_else(|| invalid("no channel"))?;
    let (mut grant, mut issued_at) = (Grant::default(), None);
    for option in options {
        match option? {
            ("age", seconds) => issued_at = Some(seconds_ago(seconds)?),
            (name, value) => set(&mut grant, name, value)?,
        }
    }
    Ok(SubscriptionToken { user: user.into(), channel: channel.to_owned(), issued_at, grant })
}

/// Sets one option of a grant.
pub(crate) fn set(grant: &mut Grant, name: &str, value: &str) -> Result<(), AuthError> {
    let flag = || value.parse().map(Some).map_err(|_| invalid(value));
    let json = || Some(Bytes::copy_from_slice(value.as_bytes()));
    let Overrides { presence, join_leave, force_join_leave, recovery, positioning } = &mut grant.overrides;
    match name {
        "exp" => grant.expire_at = Some(seconds_from_now(value)?),
        "info" => grant.info = json(),
        "data" => grant.data = json(),
        "presence" => *presence = flag()?,
        "join_leave" => *join_leave = flag()?,
        "force_join_leave" => *force_join_leave = flag()?,
        "recovery" => *recovery = flag()?,
        "positioning" => *positioning = flag()?,
        name => return Err(invalid(name)),
    }
    Ok(())
}

/// Turns seconds from now into Unix time.
///
/// The node takes the difference again a moment later, so this waits out the end of a second: in a test, the
/// difference is always the number that was asked for.
pub(crate) fn seconds_from_now(seconds: &str) -> Result<u64, AuthError> {
    let seconds: u64 = seconds.parse().map_err(|_| invalid(seconds))?;
    while clock::unix_ms() % 1000 > 950 {
        std::hint::spin_loop();
    }
    Ok(clock::unix_ms() / 1000 + seconds)
}

/// The Unix time so many seconds ago.
pub(crate) fn seconds_ago(seconds: &str) -> Result<u64, AuthError> {
    let seconds: u64 = seconds.parse().map_err(|_| invalid(seconds))?;
    Ok((clock::unix_ms() / 1000).saturating_sub(seconds))
}

type Options<'a> = Vec<Result<(&'a str, &'a str), AuthError>>;

fn split<'a>(token: &'a str, kind: &str) -> Result<(&'a str, Options<'a>), AuthError> {
    match token {
        "expired" => return Err(AuthError::Expired),
        "unavailable" => return Err(AuthError::Unavailable("the test says so".to_owned())),
        _ => {}
    }
    let token = token.strip_prefix(kind).ok_or_else(|| invalid(token))?;
    let mut parts = token.split(';');
    let head = parts.next().unwrap_or_default();
    Ok((head, parts.map(|part| part.split_once('=').ok_or_else(|| invalid(part))).collect()))
}

fn invalid(what: &str) -> AuthError {
    AuthError::Invalid(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_say_what_they_grant() {
        let identity = connection("user:42;exp=30;info={\"a\":1};subs=a,ns:b").unwrap();
        assert_eq!((&*identity.user, identity.subscriptions.len()), ("42", 2));
        assert_eq!(identity.expire_at.map(clock::seconds_until), Some(30));
        assert_eq!(identity.info.as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(connection("expired"), Err(AuthError::Expired));
        assert!(matches!(connection("unavailable"), Err(AuthError::Unavailable(_))));
        for bad in ["", "nonsense", "sub:42@chat", "user:42;exp=x", "user:42;zzz=1", "user:42;exp"] {
            assert!(matches!(connection(bad), Err(AuthError::Invalid(_))), "{bad}");
        }
        let token = subscription("sub:42@$chat:1;presence=false;data=1").unwrap();
        assert_eq!((&*token.user, &*token.channel), ("42", "$chat:1"));
        assert_eq!(token.grant.overrides.presence, Some(false));
        assert!(subscription("sub:42").is_err());
    }
}
