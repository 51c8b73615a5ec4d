//! The suite for presences.

use std::sync::Arc;

use bytes::Bytes;
use fanwire_node::Presence;
use fanwire_node::presence::PresenceStats;
use fanwire_wire::{Channel, ClientInfo};

/// Runs the suite. `presence` knows nobody yet.
///
/// # Panics
///
/// When it does not do what it must.
pub async fn presence(presence: &dyn Presence) {
    let (a, b) = (channel("a"), channel("b"));
    assert_eq!(members(presence, &a).await, []);
    assert_eq!(stats(presence, &a).await, PresenceStats { clients: 0, users: 0 });

    let (one, two, nobody) = (info("42", "c1"), info("42", "c2"), info("", "c3"));
    for info in [&one, &two, &nobody] {
        presence.add(&a, Arc::clone(info)).await.expect("added");
    }
    presence.add(&b, Arc::clone(&one)).await.expect("added");
    assert_eq!(members(presence, &a).await, [one.clone(), two.clone(), nobody.clone()]);
    assert_eq!(stats(presence, &a).await, PresenceStats { clients: 3, users: 2 }, "the nameless count as one user");
    assert_eq!(stats(presence, &b).await, PresenceStats { clients: 1, users: 1 });

    let renewed = Arc::new(ClientInfo { chan_info: Some(Bytes::from_static(b"{\"role\":1}")), ..(*one).clone() });
    presence.add(&a, Arc::clone(&renewed)).await.expect("replaced");
    assert_eq!(members(presence, &a).await, [renewed, two.clone(), nobody.clone()], "a client is there once");
    assert_eq!(members(presence, &b).await, std::slice::from_ref(&one), "channels know nothing of each other");

    presence.remove(&a, "c1").await.expect("removed");
    presence.remove(&a, "c1").await.expect("to remove nobody is no error");
    presence.remove(&channel("untouched"), "c1").await.expect("nowhere neither");
    assert_eq!(members(presence, &a).await, [two, nobody]);
    presence.remove(&a, "c2").await.expect("removed");
    presence.remove(&a, "c3").await.expect("removed");
    presence.remove(&b, "c1").await.expect("removed");
    for channel in [&a, &b] {
        assert_eq!(members(presence, channel).await, []);
        assert_eq!(stats(presence, channel).await, PresenceStats { clients: 0, users: 0 });
    }
}

async fn members(presence: &dyn Presence, channel: &Channel) -> Vec<Arc<ClientInfo>> {
    let mut members = presence.members(channel).await.expect("read");
    members.sort_by(|a, b| a.client.cmp(&b.client));
    members
}

async fn stats(presence: &dyn Presence, channel: &Channel) -> PresenceStats {
    presence.stats(channel).await.expect("read")
}

fn info(user: &str, client: &str) -> Arc<ClientInfo> {
    let conn_info = Some(Bytes::from_static(b"{\"name\":\"x\"}"));
    Arc::new(ClientInfo { user: user.into(), client: client.into(), conn_info, chan_info: None })
}

fn channel(name: &str) -> Channel {
    Channel::new(name).expect("a good name")
}
