//! Sockets, HTTP and WebSocket: how clients and requests reach a node.
//!
//! - [`Listener`], [`serve`], [`Site`]: where to listen, and what is there by path
//! - [`Workers`]: the threads of a node's workers
//! - [`Limits`]: what a peer may do
//!
//! The path of a client: accept loop (`server`) → a task for the request on the worker's thread (`handshake`, `upgrade`) → a small
//! task for the open connection (`connection`). What it reads goes through the inspector (`inspector`: is this frame
//! allowed?) to the thread's one decoder (`decoder`), and what is incomplete waits in `reassembly`.
//! What the node writes goes past all of that, straight to the socket (`socket`).

mod connection;
mod decoder;
mod handshake;
mod http_server;
mod inspector;
mod limits;
mod metrics;
mod origin;
mod reassembly;
mod server;
mod site;
mod socket;
mod upgrade;
mod utf8;
mod workers;

pub use limits::Limits;
pub use server::{Error, Listener, serve};
pub use site::{BoxError, Handler, RpcBody, RpcHandler, Site};
pub use workers::Workers;
