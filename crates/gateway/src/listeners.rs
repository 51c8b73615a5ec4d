//! The listeners and what each carries. Those given the same address are one.

use std::net::SocketAddr;

use fanwire_net::{Error, Listener, Site};
use fanwire_node::Phase;

use crate::config::{Config, Listen};

/// The public, control and ops listeners; each is an index into the sockets really opened.
pub(crate) struct Listeners {
    open: Vec<(Listener, Site)>,
    public: usize,
    control: usize,
    ops: usize,
}

impl Listeners {
    /// Opens a socket for each different address.
    ///
    /// # Errors
    ///
    /// The first address that cannot be listened on.
    pub(crate) fn bind(listen: &Listen) -> Result<Self, Error> {
        let wanted = [listen.public, listen.control, listen.ops];
        let mut open = Vec::new();
        let mut index = [0; 3];
        for (position, addr) in wanted.into_iter().enumerate() {
            let twin = wanted[..position].iter().position(|earlier| Config::share(*earlier, addr));
            index[position] = match twin {
                Some(twin) => index[twin],
                None => {
                    open.push((Listener::bind(addr)?, Site::new()));
                    open.len() - 1
                }
            };
        }
        let [public, control, ops] = index;
        Ok(Self { open, public, control, ops })
    }

    /// Adds to what the public listener carries.
    pub(crate) fn public(&mut self, add: impl FnOnce(Site) -> Site) {
        self.add(self.public, add);
    }

    /// Adds to what the control listener carries.
    pub(crate) fn control(&mut self, add: impl FnOnce(Site) -> Site) {
        self.add(self.control, add);
    }

    /// Adds to what the ops listener carries.
    pub(crate) fn ops(&mut self, add: impl FnOnce(Site) -> Site) {
        self.add(self.ops, add);
    }

    /// Where the control plane is.
    pub(crate) fn control_addr(&self) -> SocketAddr {
        self.addr(self.control)
    }

    /// Each socket and what it carries, with the phase of the node's way down in which it closes: the one that carries clients
    /// and nothing else when no more of them are taken, all others at the end.
    pub(crate) fn into_sites(self) -> Vec<(Listener, Site, Phase)> {
        let Self { open, public, control, ops } = self;
        let until =
            |index| if index == public && ![control, ops].contains(&index) { Phase::Moving } else { Phase::Ending };
        open.into_iter().enumerate().map(|(index, (listener, site))| (listener, site, until(index))).collect()
    }

    /// What `fanwire serve` prints when it is ready.
    pub(crate) fn summary(&self) -> String {
        let (public, control, ops) = (self.addr(self.public), self.addr(self.control), self.addr(self.ops));
        format!(
            "fanwire {} is ready\n  public      http://{public}\n  control     http://{control}\n  ops         http://{ops}\n",
            env!("CARGO_PKG_VERSION")
        )
    }

    /// What `fanwire dev` prints when it is ready.
    pub(crate) fn welcome(&self) -> String {
        let (public, control, ops) = (self.addr(self.public), self.addr(self.control), self.addr(self.ops));
        format!(
            "\
fanwire {version}, for development: embedded broker, everything is allowed to everyone who reaches it

  demo page   http://{public}/
  native      ws://{public}/connection/websocket   (any Centrifugo client library)
  plain       ws://{public}/plain?channel=chat:lobby   (any WebSocket client)
  control     http://{control}
  ops         http://{ops}/metrics

Open the demo page, then publish to it:

  curl -X POST http://{control}/api/publish -H 'Content-Type: application/json' \\
       -d '{{\"channel\":\"chat:lobby\",\"data\":{{\"text\":\"hello from curl\"}}}}'

Ctrl-C ends it.
",
            version = env!("CARGO_PKG_VERSION")
        )
    }

    fn add(&mut self, index: usize, add: impl FnOnce(Site) -> Site) {
        let site = &mut self.open[index].1;
        *site = add(std::mem::take(site));
    }

    fn addr(&self, index: usize) -> SocketAddr {
        self.open[index].0.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_addresses_are_one_socket_and_free_ports_are_not() {
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(&Listen { public: free, control: free, ops: free }).unwrap();
        let held = listeners.control_addr();
        assert!(Listeners::bind(&Listen { public: held, control: free, ops: free }).is_err(), "the port is taken");
        let closed: Vec<_> = listeners.into_sites().iter().map(|(.., closed)| *closed).collect();
        assert_eq!(closed, [Phase::Moving, Phase::Ending, Phase::Ending]);
        let shared = Listeners::bind(&Listen { public: held, control: held, ops: held }).unwrap();
        let closed: Vec<_> = shared.into_sites().iter().map(|(.., closed)| *closed).collect();
        assert_eq!(closed, [Phase::Ending], "backends publish until the end");
    }
}
