//! Control groups of tests. Each bears the number of the process that made it in its name: it goes with what owns it, and where
//! that process was killed, the next test that makes one removes it, jobs included.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What the names of all of them begin with; the kind, the process and a count follow.
const PREFIX: &str = "swarm-test-";
/// Where control groups are.
const ROOT: &str = "/sys/fs/cgroup";
/// How often a group is tried that a dying process still holds, and how long between two tries: 10 s together.
const TRIES: u32 = 500;
const PAUSE: Duration = Duration::from_millis(20);

/// The control group of a test, to be given to an agent or a supervisor, which make it.
#[derive(Debug)]
pub struct Group(String);

impl Group {
    /// A name that no other group has. Removes the groups of processes that are gone.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        for name in orphans() {
            end(&name);
        }
        Self(format!("{PREFIX}{kind}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Below the mounts of control groups.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let gone = end(&self.0);
        assert!(gone || std::thread::panicking(), "control group {} does not go away", self.0);
    }
}

/// The groups of tests whose process is gone.
#[must_use]
pub fn orphans() -> Vec<String> {
    let names = hierarchies().into_iter().flat_map(|root| std::fs::read_dir(root).into_iter().flatten().flatten());
    let mut found: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| owner(name).is_some_and(gone)).collect();
    found.sort();
    found.dedup();
    found
}

/// Kills what is in a group, and removes it with those below it in every hierarchy; says whether it is gone.
pub fn end(name: &str) -> bool {
    let folders: Vec<PathBuf> = hierarchies().into_iter().map(|root| root.join(name)).collect();
    for _ in 0..TRIES {
        for folder in folders.iter().filter(|folder| folder.exists()) {
            // With those below it; hierarchies of the first version have no such file, and the same processes.
            let _ = std::fs::write(folder.join("cgroup.kill"), "1");
            remove(folder);
        }
        if !folders.iter().any(|folder| folder.exists()) {
            return true;
        }
        std::thread::park_timeout(PAUSE);
    }
    false
}

/// Where a group of one name may lie: in the one hierarchy, or in each.
fn hierarchies() -> Vec<PathBuf> {
    let below = std::fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(PathBuf::from(ROOT)).chain(below.filter(|path| path.is_dir())).collect()
}

/// The process in a test's name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').nth(1)?.parse().ok()
}

fn gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

fn remove(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Where a process of its own can be put: the one hierarchy, or the half of the second version.
    fn hierarchy() -> PathBuf {
        let unified = Path::new(ROOT).join("unified");
        if unified.exists() { unified } else { ROOT.into() }
    }

    #[test]
    fn what_a_killed_test_left_goes_with_the_next_one_and_nothing_else_does() {
        let mut dead = Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let left = format!("{PREFIX}killed-{}-0", dead.id());
        let (group, second) = (hierarchy().join(&left), Path::new(ROOT).join("memory").join(&left));
        std::fs::create_dir_all(group.join("job.1")).unwrap();
        if hierarchy() != Path::new(ROOT) {
            std::fs::create_dir_all(second.join("job.1")).unwrap();
        }
        let mut job = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        std::fs::write(group.join("job.1/cgroup.procs"), job.id().to_string()).unwrap();
        assert!(orphans().contains(&left));

        let own = Group::new("alive");
        assert!(!group.exists() && !second.exists() && !orphans().contains(&left));
        assert!(!job.wait().unwrap().success(), "the job was killed");

        // Another test, whose process lives, keeps its group; each has one of its own, which goes with it.
        let mine = hierarchy().join(own.name());
        std::fs::create_dir_all(mine.join("job.1")).unwrap();
        let other = Group::new("alive");
        assert_ne!(own.name(), other.name());
        assert!(mine.exists() && !orphans().iter().any(|name| name == own.name()));
        drop(own);
        assert!(!mine.exists());
    }

    #[test]
    fn names_of_others_are_not_ours() {
        let own = format!("{PREFIX}node-7-0");
        for (name, pid) in [(own.as_str(), Some(7)), ("swarm", None), ("swarm-1a2b3c4d", None), ("swarm-test-", None), ("swarm-test-node-x", None), ("docker", None)] {
            assert_eq!(owner(name), pid, "{name}");
        }
    }
}
