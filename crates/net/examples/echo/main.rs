//! Sends every message back, on the gateway's own WebSocket layer: what RFC 6455 conformance is tested on.
//!
//! `echo [--listen ADDR]`

mod echo;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use echo::Echo;
use fanwire_net::{Limits, Listener, Site, Workers};
use fanwire_node::{ClientConfig, Config};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let addr: SocketAddr = match (args.next().as_deref(), args.next()) {
        (None, None) => "127.0.0.1:9001".parse()?,
        (Some("--listen"), Some(addr)) => addr.parse()?,
        _ => return Err("usage: echo [--listen ADDR]".into()),
    };

    let node = echo::node(Config { client: client_config(), ..Config::default() }, 1);
    let _workers = Workers::start(&node)?;
    let listener = Listener::bind(addr)?;
    announce(listener.local_addr());
    let site = Site::new().protocol("/", Arc::new(Echo)).limits(limits());
    fanwire_net::serve(listener, node, site, std::future::pending()).await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the script that starts this reads the address from there")]
fn announce(addr: SocketAddr) {
    println!("listening on ws://{addr}");
}

/// Room for the largest conformance case, and no limit that would end one.
fn limits() -> Limits {
    Limits {
        max_message_size: 64 * 1024 * 1024,
        max_fragments: usize::MAX,
        message_timeout: Duration::from_secs(600),
        control_rate: u32::MAX,
        control_burst: u32::MAX,
        ..Limits::default()
    }
}

fn client_config() -> ClientConfig {
    ClientConfig {
        origins: vec!["*".to_owned()],
        anonymous: true,
        queue_size: 256 * 1024 * 1024,
        ping_interval: Duration::from_secs(24 * 60 * 60),
        ..ClientConfig::default()
    }
}
