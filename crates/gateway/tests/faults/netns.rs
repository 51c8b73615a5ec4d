//! Network namespaces: a gateway behind a cable that the test can cut.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::geteuid;

/// A namespace with one cable to the machine's own, gone with its owner.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    subnet: (u8, u8),
}

impl Namespace {
    /// Makes a namespace; `None` without the rights to do so.
    pub(crate) fn create() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fanwire-{}-{number}", std::process::id());
        // Of the addresses set aside for tests between two networks (RFC 2544): 198.18.0.0/15.
        let space = Self { name, subnet: (fastrand::u8(..), fastrand::u8(..64) * 4) };
        let Self { name, .. } = &space;
        let (outside, inside) =
            (format!("fw{}a{number}", std::process::id()), format!("fw{}b{number}", std::process::id()));
        let (host, guest) = (format!("{}/30", space.host()), format!("{}/30", space.inside()));
        ip(&["netns", "add", name]);
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside, "netns", name]);
        ip(&["addr", "add", &host, "dev", &outside]);
        ip(&["link", "set", &outside, "up"]);
        ip(&["-n", name, "addr", "add", &guest, "dev", &inside]);
        ip(&["-n", name, "link", "set", &inside, "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        Some(space)
    }

    /// The machine's address at its end of the cable.
    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.subnet.0, self.subnet.1 + 1)
    }

    /// The namespace's address at the other end.
    pub(crate) fn inside(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.subnet.0, self.subnet.1 + 2)
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Treats packets that come in, and packets that go out, by these rules (of nftables), until they are lifted.
    pub(crate) fn rule(&self, coming: &str, going: &str) {
        self.nft(&format!(
            "table inet fault {{
                chain coming {{ type filter hook input priority 0; {coming}; }}
                chain going {{ type filter hook output priority 0; {going}; }}
            }}"
        ));
    }

    /// Lifts the rules.
    pub(crate) fn lift(&self) {
        self.nft("delete table inet fault");
    }

    fn nft(&self, rules: &str) {
        let done = self.command("nft".as_ref()).arg(rules).status();
        assert!(done.is_ok_and(|status| status.success()), "nft is installed and takes {rules}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with it.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).status();
    assert!(done.is_ok_and(|status| status.success()), "ip is installed and does: {args:?}");
}
