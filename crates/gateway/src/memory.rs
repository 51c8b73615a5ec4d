//! How much memory is in use, of how much there is: what the kernel ends processes by.

use std::path::{Path, PathBuf};

/// Where a limit comes from, and what counts against it.
#[derive(Debug)]
pub(crate) enum Memory {
    /// The process itself has a limit, in bytes; where nothing else is known that is the memory of the machine.
    Process(f64),
    /// Its control group has one: cgroup v2, in this folder.
    Group(PathBuf),
    /// The same, cgroup v1.
    OldGroup(PathBuf),
    /// Nothing is known.
    Unknown,
}

impl Memory {
    /// Looks for the limit; one that is given is that of the process itself.
    pub(crate) fn new(given: usize) -> Self {
        if given > 0 {
            return Self::Process(given as f64);
        }
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = Self::of_group(Path::new("/sys/fs/cgroup"), &groups);
        // What others use on the same machine is no reason to turn clients away.
        let machine =
            || field(Path::new("/proc/meminfo"), "MemTotal:").map(|kilobytes| Self::Process(kilobytes * 1024.0));
        group.or_else(machine).unwrap_or(Self::Unknown)
    }

    /// The closest group with a limit. Inside of a container the path may be that outside: then it is the root that counts.
    fn of_group(root: &Path, groups: &str) -> Option<Self> {
        let path_of = |wanted: &str| {
            groups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let (controllers, path) = (fields.next()?, fields.next()?);
                controllers.split(',').any(|each| each == wanted).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let limited = |base: PathBuf, path: String, file: &str| {
            let start = base.join(path);
            let folders = start.ancestors().take_while(|folder| folder.starts_with(&base)).map(Path::to_owned);
            folders
                .chain([base.clone()])
                .find(|folder| number(&folder.join(file)).is_some_and(|limit| limit < NO_LIMIT))
        };
        let new = path_of("").and_then(|path| limited(root.to_owned(), path, "memory.max"));
        let old = || path_of("memory").and_then(|path| limited(root.join("memory"), path, "memory.limit_in_bytes"));
        new.map(Self::Group).or_else(|| old().map(Self::OldGroup))
    }

    /// The limit, in bytes.
    pub(crate) fn limit(&self) -> Option<f64> {
        match self {
            Self::Process(limit) => Some(*limit),
            Self::Group(folder) => number(&folder.join("memory.max")),
            Self::OldGroup(folder) => number(&folder.join("memory.limit_in_bytes")),
            Self::Unknown => None,
        }
    }

    /// The share of the limit in use. What the kernel gives back without trouble does not count: the cache of files not
    /// looked at lately.
    pub(crate) fn in_use(&self) -> Option<f64> {
        let in_group = |folder: &Path, used: &str, cache: &str| {
            let cache = field(&folder.join("memory.stat"), cache).unwrap_or_default();
            Some(number(&folder.join(used))? - cache)
        };
        let used = match self {
            Self::Process(_) => resident()?,
            Self::Group(folder) => in_group(folder, "memory.current", "inactive_file ")?,
            Self::OldGroup(folder) => in_group(folder, "memory.usage_in_bytes", "total_inactive_file ")?,
            Self::Unknown => return None,
        };
        Some(used / self.limit()?)
    }
}

/// Larger limits are none.
const NO_LIMIT: f64 = 1e15;

/// The bytes of memory the process has.
fn resident() -> Option<f64> {
    field(Path::new("/proc/self/status"), "VmRSS:").map(|kilobytes| kilobytes * 1024.0)
}

/// The number a file consists of; `None` for `max`.
fn number(file: &Path) -> Option<f64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind a word at the beginning of a line.
fn field(file: &Path, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A folder of its own with these files.
    fn files(name: &str, files: &[(&str, &str)]) -> Folder {
        let root = std::env::temp_dir().join(format!("fanwire-memory-{}-{name}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Folder(root)
    }

    #[test]
    fn the_closest_limit_counts_without_the_cache() {
        let root = files(
            "v2",
            &[
                ("pod/memory.max", "1000\n"),
                ("pod/memory.current", "900\n"),
                ("pod/memory.stat", "anon 500\ninactive_file 150\n"),
                ("pod/box/memory.max", "max\n"),
            ],
        );
        let memory = Memory::of_group(&root.0, "0::/pod/box\n").unwrap();
        assert_eq!(memory.in_use(), Some(0.75));
        assert!(Memory::of_group(&root.0, "0::/elsewhere\n").is_none());
    }

    #[test]
    fn inside_of_a_container_the_root_is_its_group() {
        let root = files("inside", &[("memory.max", "1000"), ("memory.current", "100")]);
        let memory = Memory::of_group(&root.0, "0::/kubepods/pod1/box\n").unwrap();
        assert_eq!(memory.in_use(), Some(0.1));
    }

    #[test]
    fn older_kernels_have_the_same_in_another_place() {
        let root = files(
            "v1",
            &[
                ("memory/a/memory.limit_in_bytes", "2000"),
                ("memory/a/memory.usage_in_bytes", "1500"),
                ("memory/a/memory.stat", "inactive_file 7\ntotal_inactive_file 500\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ],
        );
        let groups = "9:name=systemd:/\n4:cpu,memory:/a\n0::/\n";
        assert_eq!(Memory::of_group(&root.0, groups).unwrap().in_use(), Some(0.5));
        assert!(Memory::of_group(&root.0, "4:memory:/b\n").is_none(), "so much is no limit");
    }

    #[test]
    fn a_limit_of_its_own_counts_what_the_process_has() {
        let own = Memory::new(1 << 40).in_use().unwrap();
        assert!(own > 0.0 && own < 0.1, "{own}");
        assert!(Memory::new(0).in_use().is_some());
    }
}
