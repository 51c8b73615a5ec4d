//! Where a gateway lives: on the machine as it is, or where something is the test's to decide.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::clock::Clock;
use crate::control_group::ControlGroup;
use crate::netns::Namespace;

/// A home, gone with its owner. The gateway goes first.
#[derive(Debug)]
pub(crate) enum Home {
    /// The machine as it is.
    Machine,
    /// Behind a cable that can be cut.
    Cable(Namespace),
    /// With so much memory and no more.
    Memory(ControlGroup),
    /// With a clock that can be set.
    Clock(Clock),
}

impl Home {
    /// The machine's address, as the gateway knows it.
    pub(crate) fn host(&self) -> Ipv4Addr {
        if let Self::Cable(namespace) = self { namespace.host() } else { Ipv4Addr::LOCALHOST }
    }

    /// The gateway's own address.
    pub(crate) fn inside(&self) -> Ipv4Addr {
        if let Self::Cable(namespace) = self { namespace.inside() } else { Ipv4Addr::LOCALHOST }
    }

    /// A command that runs a program there.
    pub(crate) fn command(&self, program: &Path) -> Command {
        match self {
            Self::Machine => Command::new(program),
            Self::Cable(namespace) => namespace.command(program),
            Self::Memory(group) => group.command(program),
            Self::Clock(clock) => clock.command(program),
        }
    }
}
