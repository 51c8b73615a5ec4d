//! The native protocol: the bidirectional protocol of the Centrifugo client libraries, in JSON and protobuf.
//!
//! `proto/fanwire/client/v1/client.proto` is the schema and the first thing to read; [`proto`] is what it compiles to.
//!
//! The path of a command: `codec` (bytes → [`proto::Command`]) → `session` (what each command does) →
//! `convert` (what the core answers → [`proto::Reply`]) → `codec` (→ bytes).
//! The path of a publication: `encode`, once for all subscribers of an encoding.

mod codec;
mod convert;
mod encode;
mod metrics;
pub mod proto;
mod request;
mod session;

use std::fmt;
use std::sync::Arc;

use fanwire_node::Protocol;
use fanwire_node::protocol::{Accepted, Opening, Rejection};

use crate::codec::Encoding;
use crate::metrics::Metrics;
use crate::session::{Heartbeat, NativeSession};

/// The native protocol.
///
/// The encoding is that of the first subprotocol offered that is known (`centrifuge-json`, `centrifuge-protobuf`).
/// Without one the query decides: `cf_protocol=protobuf` or `format=protobuf`, else JSON.
/// `cf_ws_frame_ping_pong=true` asks for WebSocket's own pings. Other parameters are ignored.
pub struct Native {
    metrics: Arc<Metrics>,
}

impl Native {
    /// Declares the protocol's metrics with the installed recorder.
    #[must_use]
    pub fn new() -> Self {
        Self { metrics: Arc::new(Metrics::new()) }
    }
}

impl Protocol for Native {
    fn name(&self) -> &'static str {
        NAME
    }

    fn accept(&self, opening: &Opening) -> Result<Accepted, Rejection> {
        let known =
            opening.subprotocols.iter().find_map(|offered| SUBPROTOCOLS.iter().find(|(name, _)| name == offered));
        let (subprotocol, encoding) = match known {
            Some((name, encoding)) => (Some(*name), *encoding),
            None if has(opening, "cf_protocol=protobuf") || has(opening, "format=protobuf") => {
                (None, Encoding::Protobuf)
            }
            None => (None, Encoding::Json),
        };
        let heartbeat =
            if has(opening, "cf_ws_frame_ping_pong=true") { Heartbeat::Frames } else { Heartbeat::Messages };
        let session = Box::new(NativeSession::new(encoding, heartbeat, Arc::clone(&self.metrics)));
        Ok(Accepted { session, subprotocol })
    }
}

impl Default for Native {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").finish_non_exhaustive()
    }
}

const NAME: &str = "native";

const SUBPROTOCOLS: [(&str, Encoding); 2] =
    [("centrifuge-json", Encoding::Json), ("centrifuge-protobuf", Encoding::Protobuf)];

fn has(opening: &Opening, parameter: &str) -> bool {
    opening.query.split('&').any(|found| found == parameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(query: &str, subprotocols: &[&str]) -> (Option<&'static str>, &'static str) {
        let opening = Opening {
            query: query.to_owned(),
            subprotocols: subprotocols.iter().map(|&name| name.to_owned()).collect(),
            ..Opening::default()
        };
        let accepted = Native::new().accept(&opening).unwrap();
        (accepted.subprotocol, accepted.session.encoder().name())
    }

    #[test]
    fn encodings_are_negotiated() {
        assert_eq!(accepted("", &[]), (None, "native-json"));
        assert_eq!(accepted("", &["chat"]), (None, "native-json"));
        assert_eq!(accepted("", &["centrifuge-json"]), (Some("centrifuge-json"), "native-json"));
        assert_eq!(accepted("", &["chat", "centrifuge-protobuf"]), (Some("centrifuge-protobuf"), "native-protobuf"));
        assert_eq!(
            accepted("", &["centrifuge-protobuf", "centrifuge-json"]),
            (Some("centrifuge-protobuf"), "native-protobuf")
        );
        assert_eq!(accepted("cf_protocol_version=v2&cf_protocol=protobuf", &[]), (None, "native-protobuf"));
        assert_eq!(accepted("format=protobuf", &["chat"]), (None, "native-protobuf"));
        assert_eq!(accepted("format=protobuf2", &[]), (None, "native-json"));
        assert_eq!(accepted("format=protobuf", &["centrifuge-json"]), (Some("centrifuge-json"), "native-json"));
    }
}
