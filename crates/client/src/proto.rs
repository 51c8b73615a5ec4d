//! The messages of `proto/fanwire/client/v1/client.proto`, and of publishing those of `proto/fanwire/control/v1/control.proto`.

include!(concat!(env!("OUT_DIR"), "/fanwire.client.v1.rs"));

pub(crate) mod control {
    include!(concat!(env!("OUT_DIR"), "/fanwire.control.v1.rs"));
}
