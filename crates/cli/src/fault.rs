//! Ends this process at a named point of an operation, as a power cut would: for the tests, and in no release build.
//!
//! A file says at which point: its name, the how manieth time it is reached, and a number of its own. The process that takes the
//! file away (it leaves its own number in the new name) dies, so that of all processes of a deployment one does, once; those that are started again live.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Signal, getpid, kill_process};
use vocabulary::fault::{Point, watch};

/// Names the file.
const FILE: &str = "SWARM_FAULT_FILE";

static ARMED: OnceLock<PathBuf> = OnceLock::new();
/// Of which file was counted, and how often.
static COUNT: Mutex<(u64, u64)> = Mutex::new((0, 0));

/// Watches the points, where the environment names a file.
pub(crate) fn arm() {
    if let Some(file) = std::env::var_os(FILE) {
        let _ = ARMED.set(file.into());
        watch(at);
    }
}

fn at(point: Point) {
    let Some(file) = ARMED.get() else { return };
    let Some((wanted, serial)) = std::fs::read_to_string(file).ok().and_then(|text| due(&text, point)) else { return };
    let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    if count.0 != serial {
        *count = (serial, 0);
    }
    count.1 = count.1.saturating_add(1);
    if count.1 >= wanted && std::fs::rename(file, file.with_extension(format!("died-{}", std::process::id()))).is_ok() {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// When the process dies at this point, and the file's number; `None` when the file names another point.
fn due(text: &str, point: Point) -> Option<(u64, u64)> {
    let mut words = text.split_whitespace();
    if words.next()? != point.name() {
        return None;
    }
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_one_point() {
        assert_eq!(due("commit.begun 3 17\n", Point::CommitBegun), Some((3, 17)));
        for text in ["", "commit.begun", "commit.begun 3", "commit.begun x 1", "commit.written 3 17"] {
            assert_eq!(due(text, Point::CommitBegun), None, "{text}");
        }
    }
}
