//! The words every layer of Fanwire shares, and the bytes they become.
//!
//! No tokio, no IO and no clock: everything here is a value or a function from values to bytes.
//!
//! - [`Channel`], [`Pattern`], [`Position`], [`Publication`], [`Broadcast`]: what travels
//! - [`Payload`]: application data, kept as the bytes and the kind it came in
//! - [`Message`] (bytes in) and [`frame`] (finished socket bytes out)
//! - [`cluster`]: what nodes tell each other
//! - [`Selection`], [`Grant`]: what the server does to connections
//! - [`Disconnect`], [`Refusal`], [`Unsubscribe`]: how a connection, a request, a subscription ends

mod channel;
pub mod cluster;
mod disconnect;
pub mod frame;
mod grant;
mod message;
pub mod pattern;
mod payload;
mod position;
mod publication;
mod refusal;

pub use channel::{Channel, InvalidChannel};
pub use disconnect::Disconnect;
pub use grant::{Grant, Overrides, Selection};
pub use message::Message;
pub use pattern::Pattern;
pub use payload::{NotJson, Payload, PayloadKind};
pub use position::{Epoch, Position};
pub use publication::{Broadcast, ClientInfo, Publication, Stamp};
pub use refusal::{Refusal, Unsubscribe};
