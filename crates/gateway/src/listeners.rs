//! The listeners and what each carries. Those given the same address are one.

use std::net::SocketAddr;
use std::sync::Arc;

use fanwire_net::{Error, Listener, Proxies, Site, Tls, TlsError};
use fanwire_node::Phase;

use crate::config::{self, Config, Listen};

/// The TLS of the public and the control listener, where there is any.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    pub(crate) public: Option<Arc<Tls>>,
    pub(crate) control: Option<Arc<Tls>>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// The first that is no good.
    pub(crate) fn load(config: &config::Tls) -> Result<Self, TlsError> {
        let load = |listener, files: &Option<_>| {
            files.clone().map(|files| Tls::load(listener, files).map(Arc::new)).transpose()
        };
        Ok(Self { public: load("public", &config.public)?, control: load("control", &config.control)? })
    }

    /// Each of them.
    pub(crate) fn all(&self) -> Vec<Arc<Tls>> {
        [&self.public, &self.control].into_iter().flatten().cloned().collect()
    }
}

/// The public, control and ops listeners; each is an index into the sockets really opened.
pub(crate) struct Listeners {
    open: Vec<(Listener, Site)>,
    /// Whether a socket expects TLS.
    secure: Vec<bool>,
    public: usize,
    control: usize,
    ops: usize,
}

impl Listeners {
    /// Opens a socket for each different address. The balancers are those in front of the public and the control listener.
    ///
    /// # Errors
    ///
    /// The first address that cannot be listened on.
    pub(crate) fn bind(listen: &Listen, certificates: Certificates, proxies: [Proxies; 2]) -> Result<Self, Error> {
        let wanted = [listen.public, listen.control, listen.ops];
        let (mut open, mut secure) = (Vec::new(), Vec::new());
        let mut index = [0; 3];
        let certificates = [certificates.public, certificates.control, None];
        let [public, control] = proxies;
        let proxies = [public, control, Proxies::default()];
        for (position, ((addr, tls), proxies)) in wanted.into_iter().zip(certificates).zip(proxies).enumerate() {
            let twin = wanted[..position].iter().position(|earlier| Config::share(*earlier, addr));
            index[position] = match twin {
                Some(twin) => index[twin],
                None => {
                    let listener = Listener::bind(addr)?.behind(proxies);
                    secure.push(tls.is_some());
                    open.push((tls.into_iter().fold(listener, Listener::tls), Site::new()));
                    open.len() - 1
                }
            };
        }
        let [public, control, ops] = index;
        Ok(Self { open, secure, public, control, ops })
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

    /// Whether what is for the people who run the node has an address of its own.
    pub(crate) fn ops_stands_alone(&self) -> bool {
        self.ops != self.public && self.ops != self.control
    }

    /// Where the control plane is.
    pub(crate) fn control_addr(&self) -> SocketAddr {
        self.addr(self.control)
    }

    /// Each socket and what it carries, with the phase of the node's way down in which it closes: the one that carries clients
    /// and nothing else when no more of them are taken, all others at the end.
    pub(crate) fn into_sites(self) -> Vec<(Listener, Site, Phase)> {
        let Self { open, public, control, ops, .. } = self;
        let until =
            |index| if index == public && ![control, ops].contains(&index) { Phase::Moving } else { Phase::Ending };
        open.into_iter().enumerate().map(|(index, (listener, site))| (listener, site, until(index))).collect()
    }

    /// What `fanwire serve` prints when it is ready.
    pub(crate) fn summary(&self) -> String {
        let [public, control, ops] = [self.public, self.control, self.ops].map(|index| self.url(index));
        format!(
            "fanwire {} is ready\n  public      {public}\n  control     {control}\n  ops         {ops}\n",
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
  ops         http://{ops}/   (dashboard; /metrics, /health/ready)

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

    fn url(&self, index: usize) -> String {
        let scheme = if self.secure[index] { "https" } else { "http" };
        format!("{scheme}://{}", self.addr(index))
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
        let none = Certificates::default;
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listeners =
            Listeners::bind(&Listen { public: free, control: free, ops: free }, none(), Default::default()).unwrap();
        let held = listeners.control_addr();
        assert!(
            Listeners::bind(&Listen { public: held, control: free, ops: free }, none(), Default::default()).is_err(),
            "the port is taken"
        );
        let closed: Vec<_> = listeners.into_sites().iter().map(|(.., closed)| *closed).collect();
        assert_eq!(closed, [Phase::Moving, Phase::Ending, Phase::Ending]);
        let shared =
            Listeners::bind(&Listen { public: held, control: held, ops: held }, none(), Default::default()).unwrap();
        let closed: Vec<_> = shared.into_sites().iter().map(|(.., closed)| *closed).collect();
        assert_eq!(closed, [Phase::Ending], "backends publish until the end");
    }
}
