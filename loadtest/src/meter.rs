//! CPU time, memory and TCP segments, as the kernel counts them.

use std::fs;

use rustix::param::page_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use crate::error::{Context as _, Error};

/// Binds the calling thread, and whatever it starts from here on, to one core.
pub(crate) fn pin(core: usize) -> Result<(), Error> {
    let mut cores = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(Error::Setup(format!("there is no core {core}")));
    }
    cores.set(core);
    sched_setaffinity(None, &cores).context(format!("pin to core {core}"))
}

/// Raises the soft limit of open descriptors, which children inherit, so that `sockets` fit.
pub(crate) fn allow_descriptors(sockets: u32) -> Result<(), Error> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // What a process needs besides: pipes, listeners, logs, the publisher.
    let wanted = u64::from(sockets) + 64;
    if maximum.is_some_and(|maximum| maximum < wanted) {
        return Err(Error::Setup(format!(
            "{sockets} connections need {wanted} descriptors in a process, and {} are the hard limit",
            maximum.unwrap_or_default()
        )));
    }
    if current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: maximum, maximum };
        setrlimit(Resource::Nofile, raised).context("raise the limit of descriptors")?;
    }
    Ok(())
}

/// Nanoseconds of CPU time, user and system, that all threads of a process have used.
///
/// The kernel's own sum for each thread: no clock ticks, unlike `/proc/PID/stat`. Threads that have
/// ended are missing, so it is meant for differences over a span in which none ends.
pub(crate) fn cpu_nanoseconds(pid: u32) -> Result<u64, Error> {
    let threads = format!("/proc/{pid}/task");
    let mut sum = 0;
    for thread in fs::read_dir(&threads).context(&threads)? {
        let path = thread.context(&threads)?.path().join("schedstat");
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        sum += text
            .split(' ')
            .next()
            .and_then(|time| time.parse::<u64>().ok())
            .ok_or_else(|| Error::Setup(format!("{}: {text:?}", path.display())))?;
    }
    Ok(sum)
}

/// The same of several processes together; `None` if there are none.
pub(crate) fn cpu_of_all(pids: &[u32]) -> Result<Option<u64>, Error> {
    if pids.is_empty() {
        return Ok(None);
    }
    pids.iter().map(|pid| cpu_nanoseconds(*pid)).sum::<Result<u64, Error>>().map(Some)
}

/// Resident bytes of several processes together, shared pages counted in each; `None` if one cannot be read, or there are
/// none. Cheap, unlike [`memory`].
pub(crate) fn resident_of_all(pids: &[u32]) -> Option<u64> {
    let resident = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        text.split(' ').nth(1)?.parse::<u64>().ok()
    };
    let pages = pids.iter().map(resident).sum::<Option<u64>>()?;
    (!pids.is_empty()).then(|| pages * page_size() as u64)
}

/// A process's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// Resident, shared pages included.
    pub(crate) rss: u64,
    /// Resident, shared pages divided by their users.
    pub(crate) pss: u64,
    /// Pages written by this process alone.
    pub(crate) private_dirty: u64,
}

/// The memory of several processes together.
pub(crate) fn memory_of_all(pids: &[u32]) -> Result<Memory, Error> {
    let mut sum = Memory::default();
    for pid in pids {
        let Memory { rss, pss, private_dirty } = memory(*pid)?;
        sum.rss += rss;
        sum.pss += pss;
        sum.private_dirty += private_dirty;
    }
    Ok(sum)
}

/// Reads a process's memory.
fn memory(pid: u32) -> Result<Memory, Error> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).context(&path)?;
    parse_memory(&text).ok_or_else(|| Error::Setup(format!("{path}: fields missing")))
}

fn parse_memory(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        Some(kib * 1024)
    };
    Some(Memory { rss: field("Rss:")?, pss: field("Pss:")?, private_dirty: field("Private_Dirty:")? })
}

/// TCP segments with data that this network namespace has sent for the first time.
///
/// With `TCP_NODELAY` and writes below 64 KiB over loopback, a write is a segment: the way to see
/// from outside how many writes a server made, however late its client read. `None` where the kernel
/// does not tell.
pub(crate) fn data_segments() -> Option<u64> {
    parse_data_segments(&fs::read_to_string("/proc/net/netstat").ok()?)
}

fn parse_data_segments(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find_map(|(name, value)| (name == "TCPOrigDataSent").then(|| value.parse().ok())?)
}

/// The machine that a figure belongs to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
}

impl Machine {
    /// This machine.
    pub(crate) fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let names = || cpus.lines().filter(|line| line.starts_with("model name"));
        Self {
            cpu: names()
                .find_map(|line| line.split_once(": "))
                .map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            cores: names().count(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} x {}, Linux {}", self.cores, self.cpu, self.kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_fields() {
        let text = "00400000-7fff rollup\nRss:   1234 kB\nPss:    1000 kB\nPss_Dirty: 1 kB\n\
                    Private_Clean: 9 kB\nPrivate_Dirty:   800 kB\n";
        assert_eq!(parse_memory(text), Some(Memory { rss: 1234 * 1024, pss: 1000 * 1024, private_dirty: 800 * 1024 }));
        assert_eq!(parse_memory("Rss: 1 kB\n"), None);
    }

    #[test]
    fn segments_by_name() {
        let text = "TcpExt: A TCPOrigDataSent B\nTcpExt: 1 22 3\nIpExt: C\nIpExt: 4\n";
        assert_eq!(parse_data_segments(text), Some(22));
        assert_eq!(parse_data_segments("TcpExt: A\nTcpExt: 1\n"), None);
    }

    #[test]
    fn this_process_has_memory_and_cpu_time() {
        let pid = std::process::id();
        assert!(memory(pid).unwrap().rss > 0);
        cpu_nanoseconds(pid).unwrap();
        assert!(resident_of_all(&[pid, pid]).unwrap() > 0);
        assert_eq!((resident_of_all(&[]), cpu_of_all(&[]).unwrap()), (None, None));
        assert!(cpu_nanoseconds(u32::MAX / 4).is_err());
    }
}
