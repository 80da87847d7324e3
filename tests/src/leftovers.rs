//! What a deployment could leave behind on a machine: processes, mounts, loop devices, control groups, files.

use std::collections::BTreeSet;
use std::path::Path;

/// Everything on this machine that names a folder or a control group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// What is here and was not there before.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

/// Looks for whatever names one of the folders, and for control groups below `cgroup_parent`.
#[must_use]
pub fn snapshot(folders: &[&Path], cgroup_parent: &str) -> Snapshot {
    let mut found = BTreeSet::new();
    let names: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let named = |text: &str| names.iter().any(|name| text.contains(name.as_str()));
    processes(&mut found, &named);
    for line in read("/proc/self/mountinfo").lines().filter(|line| named(line)) {
        found.insert(format!("mount {}", line.split(' ').nth(4).unwrap_or(line)));
    }
    for entry in entries("/sys/block").filter(|name| name.starts_with("loop")) {
        let file = read(&format!("/sys/block/{entry}/loop/backing_file"));
        if named(&file) {
            found.insert(format!("loop device {entry} of {}", file.trim()));
        }
    }
    control_groups(Path::new("/sys/fs/cgroup"), cgroup_parent, 4, &mut found);
    for folder in folders.iter().filter(|folder| folder.exists()) {
        found.insert(format!("folder {}", folder.display()));
    }
    Snapshot(found)
}

fn processes(found: &mut BTreeSet<String>, named: &dyn Fn(&str) -> bool) {
    let own = std::process::id().to_string();
    for pid in entries("/proc").filter(|name| name.chars().all(|c| c.is_ascii_digit()) && *name != own) {
        let line = read(&format!("/proc/{pid}/cmdline")).replace('\0', " ");
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).map(|path| path.display().to_string()).unwrap_or_default();
        // Our own tools may name the folders on their command lines; the program is `swarm` or lives below the folder.
        if named(&program) || (named(&line) && program.trim_end_matches(" (deleted)").ends_with("/swarm")) {
            found.insert(format!("process {pid}: {}", line.trim()));
        }
    }
}

fn control_groups(folder: &Path, parent: &str, depth: u8, found: &mut BTreeSet<String>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if entry.file_name().to_str() == Some(parent) {
            found.insert(format!("control group {}", path.display()));
            for child in std::fs::read_dir(&path).into_iter().flatten().flatten().filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
                found.insert(format!("control group {}", child.path().display()));
            }
        } else {
            control_groups(&path, parent, depth, found);
        }
    }
}

fn entries(folder: &str) -> impl Iterator<Item = String> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
}

/// The text of a file; empty when it is not there (any more).
fn read(path: &str) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_its_processes_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let before = snapshot(&[folder.path()], "no-such-group");
        assert_eq!(before.all(), [format!("folder {}", folder.path().display())]);
        let program = folder.path().join("swarm");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let news = crate::wait_for("the process", std::time::Duration::from_secs(10), || {
            let news = snapshot(&[folder.path()], "no-such-group").since(&before);
            Ok((!news.is_empty()).then_some(news))
        })
        .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(news.len() == 1 && news[0].starts_with(&format!("process {}", child.id())), "{news:?}");
        assert_eq!(snapshot(&[folder.path()], "no-such-group"), before);
    }
}
