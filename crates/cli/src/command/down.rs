//! `swarm down`: ends what `swarm up` started, and with `--erase` removes everything that it made.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use runtime::leftovers::{Leftover, find};
use runtime::supervisor::{Found, FoundState, Supervisor, SupervisorError};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use tokio::time::Instant;
use vocabulary::job::ExitReason;

use crate::app::App;
use crate::args::Down;
use crate::error::{CliError, chain};
use crate::host::{self, Process};
use crate::place::{Place, Running};

/// `swarm up` gives its node two minutes, and its server half of one.
const UP_STOP: Duration = Duration::from_secs(160);
/// What a part without a supervisor gets.
const PART_STOP: Duration = Duration::from_secs(40);
/// Between SIGTERM and SIGKILL of a job that nobody supervises any more.
const JOB_GRACE: Duration = Duration::from_secs(10);
/// Until a killed process is gone.
const KILL: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_millis(50);

pub(crate) async fn down(app: &App, args: Down) -> Result<(), CliError> {
    let place = Place::new(&args.data_dir, args.run_dir.as_deref())?;
    if args.erase {
        check_erasable(&place)?;
        app.confirm_by_name("the deployment with all data and keys in", &place.data.display().to_string(), args.yes)?;
    }
    let stopped = stop(app, &place).await?;
    let cgroup_parent = args.cgroup_parent.unwrap_or_else(|| place.cgroup_parent());
    let jobs = stop_jobs(app, &place, &cgroup_parent, args.erase).await?;
    if args.erase {
        return erase(app, &place, &cgroup_parent).await;
    }
    if !stopped && jobs == 0 {
        app.output.say(format!("nothing runs of {}", place.data.display()));
    }
    Ok(())
}

/// Ends `swarm up`, or what a killed one left. Says whether there was anything.
async fn stop(app: &App, place: &Place) -> Result<bool, CliError> {
    let Some(Running { up, parts, .. }) = place.running() else { return Ok(false) };
    let mut any = false;
    if up.signal(Signal::TERM)? {
        any = true;
        app.output.say(format!("swarm up (process {}) is told to end: jobs first, then the node, then the control plane", up.pid));
        if !gone(&up, UP_STOP).await {
            return Err(CliError::new(8, format!("process {} has not ended after {} s", up.pid, UP_STOP.as_secs()))
                .hint(format!("look at {}; a second swarm down makes it hurry", place.log().display())));
        }
    }
    for (name, process) in parts.iter().rev() {
        if process.signal(Signal::TERM)? {
            any = true;
            app.output.say(format!("the {name} (process {}) is told to end", process.pid));
            if !gone(process, PART_STOP).await {
                process.signal(Signal::KILL)?;
                gone(process, KILL).await;
            }
        }
    }
    place.forget_running();
    if any {
        app.output.say("stopped");
    }
    Ok(any)
}

async fn gone(process: &Process, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while process.lives() {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(PACE).await;
    }
    true
}

/// Ends jobs that lived on under their shims without an agent. Says how many.
async fn stop_jobs(app: &App, place: &Place, cgroup_parent: &str, erase: bool) -> Result<usize, CliError> {
    let jobs = place.node().join("jobs");
    if !jobs.is_dir() {
        return Ok(0);
    }
    if shims(place, cgroup_parent)?.is_empty() {
        return Ok(0);
    }
    let alive = tokio::task::spawn_blocking(move || living(&jobs)).await.map_err(|error| CliError::new(1, error.to_string()))??;
    let how = if erase { "they are killed".to_owned() } else { format!("they get SIGTERM now, and SIGKILL after {} s", JOB_GRACE.as_secs()) };
    app.output.say(format!("jobs that lived on without their node: {}; {how}", alive.len()));
    for found in &alive {
        let told = if erase { found.handle.kill(ExitReason::Cancelled) } else { found.handle.stop(JOB_GRACE, ExitReason::Cancelled) };
        if let Err(error) = told
            && !matches!(error, SupervisorError::Ended)
        {
            app.output.say(format!("job {}: {}", found.attempt, chain(&error)));
        }
    }
    let end = Instant::now() + JOB_GRACE + KILL;
    while !shims(place, cgroup_parent)?.is_empty() && Instant::now() < end {
        tokio::time::sleep(PACE).await;
    }
    Ok(alive.len())
}

/// The supervisors of jobs that still live.
fn shims(place: &Place, cgroup_parent: &str) -> Result<Vec<u32>, CliError> {
    let all = find(cgroup_parent, &place.node())?;
    Ok(all.into_iter().filter_map(|leftover| if let Leftover::Shim { pid, .. } = leftover { Some(pid) } else { None }).collect())
}

fn living(jobs: &Path) -> Result<Vec<Found>, CliError> {
    let failed = |error: SupervisorError| CliError::new(1, chain(&error));
    let mut found = Supervisor::new(jobs, &host::program()).map_err(failed)?.scan().map_err(failed)?;
    found.retain(|found| matches!(found.state, FoundState::Alive));
    Ok(found)
}

/// Refuses to erase what is no deployment: nobody's home is removed for a slip of the finger.
fn check_erasable(place: &Place) -> Result<(), CliError> {
    if !host::is_root() {
        return Err(CliError::new(4, "only root can erase a deployment: its files, mounts and control groups are root's").hint("sudo swarm down --erase"));
    }
    let signs = [place.server().join("state.db"), place.node().join("node.json"), place.data.join("endpoints.json"), place.log().join("server.log")];
    if signs.iter().any(|sign| sign.exists()) {
        return Ok(());
    }
    Err(CliError::new(3, format!("there is no deployment in {}", place.data.display())).hint("name its folder with --data-dir"))
}

/// Removes processes, control groups, mounts and loop devices of the jobs, then the files.
async fn erase(app: &App, place: &Place, cgroup_parent: &str) -> Result<(), CliError> {
    let Some(held) = place.hold()? else {
        return Err(CliError::new(5, format!("swarm is up again in {}", place.data.display())).hint("swarm down --erase once more"));
    };
    let end = Instant::now() + KILL;
    loop {
        let mut left = find(cgroup_parent, &place.data)?;
        if left.is_empty() {
            break;
        }
        if Instant::now() >= end {
            let names: Vec<String> = left.iter().map(|leftover| format!("{leftover:?}")).collect();
            return Err(CliError::new(1, format!("these do not go away: {}", names.join(", "))).hint("nothing was erased; end what uses them and try again"));
        }
        // Deeper paths sort behind their parents.
        left.reverse();
        for leftover in &left {
            remove(leftover);
        }
        tokio::time::sleep(PACE).await;
    }
    for folder in control_groups(cgroup_parent) {
        // Gone already, or used by somebody else meanwhile.
        let _ = std::fs::remove_dir(folder);
    }
    for folder in [place.server(), place.node(), place.log()].into_iter().chain(unfinished_joins(place)) {
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(CliError::new(1, format!("{}: {error}", folder.display())));
        }
    }
    for file in [place.data.join("endpoints.json"), place.data.join("first-ticket"), place.run.join("up.json"), place.run.join("up.lock")] {
        let _ = std::fs::remove_file(file);
    }
    drop(held);
    let _ = std::fs::remove_dir(&place.run);
    match std::fs::remove_dir(&place.data) {
        Ok(()) => app.output.say(format!("erased: {} is gone, and with it every key; what was sealed under them cannot be opened any more; a system user that was made stays", place.data.display())),
        Err(error) => app.output.say(format!("erased; {} stays, as something else lies in it ({error})", place.data.display())),
    }
    Ok(())
}

/// One try; what it does not remove is found again.
fn remove(leftover: &Leftover) {
    match leftover {
        Leftover::Shim { pid, .. } => {
            if let Some(process) = i32::try_from(*pid).ok().and_then(Process::of) {
                let _ = process.signal(Signal::KILL);
            }
        }
        Leftover::Cgroup(path) => {
            let _ = std::fs::write(path.join("cgroup.kill"), "1");
            let _ = remove_group(path);
        }
        Leftover::Mount(path) => {
            let _ = unmount(path, UnmountFlags::DETACH);
        }
        Leftover::LoopDevice { device, .. } => {
            let _ = std::process::Command::new("losetup").arg("--detach").arg(format!("/dev/{device}")).env("PATH", host::search_path()).output();
        }
    }
}

/// Removes a control group with those below it.
fn remove_group(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}

/// Where the deployment's own group may lie: in the unified hierarchy, or once for each controller.
fn control_groups(cgroup_parent: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let name = cgroup_parent.trim_matches('/');
    if name.is_empty() || Path::new(name).components().any(|part| !matches!(part, Component::Normal(_))) {
        return Vec::new();
    }
    let mut found = vec![root.join(name)];
    found.extend(std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path().join(name)));
    found.retain(|path| path.is_dir());
    found
}

/// Folders of a node that ended while it joined.
fn unfinished_joins(place: &Place) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(&place.data).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".node.joining-")).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_below_the_root_are_meant() {
        assert!(control_groups("").is_empty() && control_groups("/").is_empty() && control_groups("../x").is_empty() && control_groups("a/../..").is_empty());
    }

    #[test]
    fn a_folder_that_is_no_deployment_is_not_erased() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.tex"), b"years of work").unwrap();
        let place = Place::new(folder.path(), None).unwrap();
        let exit = check_erasable(&place).unwrap_err().exit;
        assert_eq!(exit, if host::is_root() { 3 } else { 4 });
    }
}
