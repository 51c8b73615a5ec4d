//! Ports for servers that cannot choose one themselves.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those which outgoing connections are given (the upper half on Linux, less elsewhere): so nothing takes the port
/// before the server has it, nor while a test has it stopped.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// Where this process goes on. Others begin elsewhere.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..COUNT)));

/// A port nobody listens on and which no other call in this process returns soon.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    let mut candidates = (0..COUNT).map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT);
    candidates.find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()).expect("a free port")
}
