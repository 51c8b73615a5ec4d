//! Sockets, HTTP and WebSocket: how clients and requests reach a node.
//!
//! - [`Listener`], [`serve`], [`Site`]: where to listen, and what is there by path
//! - [`Workers`]: the threads of a node's workers
//! - [`Limits`]: what a peer may do
//! - [`Reader`]: how its bytes become messages, for benchmarks
//! - [`Proxies`]: the balancers in front of a listener
//! - [`Tls`]: the certificate of a listener, which may change
//!
//! The path of a client: accept loop (`server`) → PROXY header and TLS, if the listener has them (`arrival`, `proxies`, `tls`) → a task for the request on the worker's thread (`handshake`, `upgrade`) → a small
//! task for the open connection (`connection`). What it reads goes through the inspector (`inspector`: is this frame
//! allowed?) to the thread's one decoder (`decoder`), and what is incomplete waits in `reassembly`.
//! What the node writes goes past all of that, straight to the socket (`socket`).

mod arrival;
mod connection;
mod decoder;
mod handshake;
mod http_io;
mod http_server;
mod inspector;
mod limits;
mod metrics;
mod origin;
mod proxies;
mod reader;
mod reassembly;
mod server;
mod site;
mod socket;
mod tls;
mod upgrade;
mod utf8;
mod workers;

pub use limits::Limits;
pub use proxies::Proxies;
pub use reader::Reader;
pub use server::{Error, Listener, serve};
pub use site::{BoxError, Handler, RpcBody, RpcHandler, Site};
pub use tls::{ClientName, Tls, TlsError, TlsFiles, keep_fresh, refresh_and_tell};
pub use workers::Workers;
