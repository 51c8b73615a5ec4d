//! Control groups: a gateway that has so much memory and no more. Over the limit the kernel kills it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

/// A group with a limit of memory, gone with its owner.
#[derive(Debug)]
pub(crate) struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes a group whose processes may have so many bytes; `None` where that is not permitted.
    pub(crate) fn with_memory(bytes: u64) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fanwire-{}-{number}", std::process::id());
        // cgroup v1, then v2.
        [("memory", "memory.limit_in_bytes"), ("", "memory.max")].into_iter().find_map(|(controller, limit)| {
            let group = Self(Path::new("/sys/fs/cgroup").join(controller).join(&name));
            fs::create_dir(&group.0).ok()?;
            // The kernel makes the file: where it is missing the controller is not to be had.
            let limited = fs::OpenOptions::new().write(true).open(group.0.join(limit));
            limited.and_then(|mut file| io::Write::write_all(&mut file, bytes.to_string().as_bytes())).ok()?;
            Some(group)
        })
    }

    /// A command that runs inside.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ >\"$1\" && shift && exec \"$@\"", "sh"])
            .arg(self.0.join("cgroup.procs"))
            .arg(program);
        command
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
