//! Each limit, and a job that runs into it: it is stopped with the right reason, and its neighbour is not.

use crate::support::{Bench, LONG, ended, finish, frames, said, text, wait};
use runtime::sandbox::BindMount;
use runtime::supervisor::ShimState;
use std::time::Duration;
use vocabulary::job::{ExitReason, LogStream};

const MIB: u64 = 1 << 20;

pub(crate) fn a_memory_bomb_dies_of_its_own_limit() {
    let bench = Bench::new();
    let neighbour = bench.begin(&bench.shell("while :; do echo beat; read -t 0.1 x; done"));
    let mut spec = bench.spec(["/bin/escape-probe", "eat", "268435456"]);
    spec.limits.memory_bytes = 64 * MIB;
    let exit = bench.run(&spec).exit;
    assert_eq!(exit.reason, ExitReason::Oom, "{exit:?}");
    assert!(exit.oom_kills >= 1 && exit.signal == Some(9), "{exit:?}");
    assert!(exit.detail.contains("memory limit 64.0 MiB reached"), "{exit:?}");
    assert!(exit.peak_memory_bytes.is_some_and(|peak| peak > 48 * MIB && peak <= 64 * MIB), "{exit:?}");
    assert!(said(&neighbour, "beat") && neighbour.status().unwrap().exit.is_none());
    neighbour.kill(ExitReason::Cancelled).unwrap();
    ended(&neighbour);
    neighbour.cleanup().unwrap();
}

pub(crate) fn memory_of_shared_files_counts() {
    let bench = Bench::new();
    let fill = |place: &str| format!("dd if=/dev/zero of={place}/a bs=1M count=100; echo $?; ");
    let run = |script: String| {
        let mut spec = bench.shell(&script);
        spec.limits.memory_bytes = 64 * MIB;
        bench.run(&spec)
    };
    for place in ["/dev/shm", "/tmp"] {
        // Each is half of the memory limit in size: full before the limit is.
        let outcome = run(fill(place));
        assert!(outcome.stdout == "1\n" && outcome.stderr.contains("No space left"), "{outcome:?}");
    }
    let outcome = run(fill("/dev/shm") + &fill("/tmp"));
    assert!(outcome.exit.oom_kills >= 1, "both together are the whole limit: {outcome:?}");
}

pub(crate) fn a_fork_bomb_is_stopped_and_ends() {
    let bench = Bench::new();
    let mut spec = bench.shell("bomb() { bomb | bomb & }; bomb; sleep 60");
    spec.limits.pids = 32;
    spec.limits.time_ms = 1_500;
    spec.limits.grace_ms = 100;
    let outcome = bench.run(&spec);
    assert_eq!(outcome.exit.reason, ExitReason::Timeout, "{outcome:?}");
    let mut spec = bench.shell("for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 60 & done; echo all");
    spec.limits.pids = 8;
    let outcome = bench.run(&spec);
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
    assert_ne!(outcome.exit.code, Some(0));
}

pub(crate) fn cpu_is_limited() {
    let bench = Bench::new();
    let mut spec = bench.shell("while :; do :; done");
    spec.limits.cpu_millis = 100;
    spec.limits.time_ms = 3_000;
    spec.limits.grace_ms = 0;
    let handle = bench.supervisor.start(&spec).unwrap();
    // Making the sandbox is in the group's account, too: nearly nothing here, and more than all the rest on an emulated machine.
    let before = used_ms(&format!("{}/{}", bench.parent.name(), spec.attempt));
    handle.start().unwrap();
    let exit = ended(&handle);
    handle.cleanup().unwrap();
    let (used, lived) = (exit.cpu_ms.unwrap() - before, exit.ended.since(exit.started.unwrap()).unwrap());
    // A tenth of its life, and the period that it began in; without a limit it would be all of it.
    assert!(lived >= spec.limits.time_ms && used > 0 && used * 4 < lived, "{used} ms of {lived} after {before}: {exit:?}");
}

/// The processor time of a group, by either version of control groups.
fn used_ms(group: &str) -> u64 {
    let read = |path: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{path}"));
    if let Ok(nanos) = read(&format!("cpuacct/{group}/cpuacct.usage")) {
        return nanos.trim().parse::<u64>().unwrap() / 1_000_000;
    }
    let text = read(&format!("{group}/cpu.stat")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap().parse::<u64>().unwrap() / 1000
}

pub(crate) fn open_files_and_arguments_end_somewhere() {
    let bench = Bench::new();
    let outcome = bench.run(&bench.spec(["/bin/escape-probe", "exhaust"]));
    assert!(outcome.stdout.contains(&format!("open {}", libc::EMFILE)), "{outcome:?}");
    let outcome = bench.run(&bench.spec(["/bin/echo".to_owned(), "x".repeat(200_000)]));
    assert_eq!(outcome.exit.code, Some(126), "{:?}", outcome.exit);
    assert!(outcome.exit.detail.contains("Argument list too long"), "{:?}", outcome.exit);
}

pub(crate) fn a_full_disk_is_the_jobs_alone() {
    let bench = Bench::new();
    let place = bench.directory.path().join("store");
    let scratch = runtime::scratch::Scratch::create(&place, 32 * MIB, &mut keys::SystemRandom).unwrap();
    let mut spec = bench.shell(
        "dd if=/dev/zero of=/scratch/a bs=1M count=100; echo $?; rm /scratch/a
        n=0; while [ $n -lt 100000 ]; do : > /scratch/$n || exit 1; n=$((n+1)); done",
    );
    let job = scratch.subdirectory("job", spec.id_base, spec.id_base).unwrap();
    spec.binds.push(BindMount { source: job, target: "/scratch".to_owned(), readonly: false, exec: false });
    // The log lies on the same full disk: the job does not wait for it, and what could be kept is read.
    let outcome = bench.run(&spec);
    assert!(outcome.stdout == "1\n" && outcome.stderr.contains("can't create"), "{outcome:?}");
    assert!(outcome.stderr.matches("No space left").count() >= 2, "{outcome:?}");
    std::fs::write(bench.directory.path().join("neighbour"), vec![1; 1 << 20]).unwrap();
    scratch.destroy().unwrap();
    std::fs::remove_dir(&place).unwrap();
}

pub(crate) fn the_time_limit_asks_first_and_then_kills() {
    let bench = Bench::new();
    let mut spec = bench.shell("trap 'echo asked; exit 3' TERM; echo up; while :; do read -t 1 x; done");
    spec.limits.time_ms = 1_000;
    let outcome = bench.run(&spec);
    assert_eq!((outcome.exit.reason, outcome.exit.code), (ExitReason::Timeout, Some(3)), "{outcome:?}");
    assert!(outcome.stdout.contains("asked"));
    let mut spec = bench.spec(["/bin/escape-probe", "stubborn"]);
    (spec.limits.time_ms, spec.limits.grace_ms) = (300, 300);
    let outcome = bench.run(&spec);
    assert_eq!((outcome.exit.reason, outcome.exit.signal), (ExitReason::Timeout, Some(9)), "{outcome:?}");
}

pub(crate) fn the_lease_ends_a_job_without_an_agent_and_renewal_moves_it() {
    let bench = Bench::new();
    let now = || u64::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec).unwrap() * 1000;
    let mut spec = bench.spec(["sleep", "600"]);
    spec.deadline_boottime_ms = Some(now() + 8_000);
    let handle = bench.begin(&spec);
    let end = now() + 600_000;
    handle.renew(end).unwrap();
    assert!(handle.renew(end - 1).is_err(), "a renewal never shortens");
    let mut short = bench.spec(["sleep", "600"]);
    short.deadline_boottime_ms = Some(now() + 9_000);
    let directory = {
        let lonely = bench.begin(&short);
        lonely.directory().to_owned()
    };
    // Nobody speaks to this shim any more: its record appears by itself.
    assert!(wait(LONG, || directory.join("exit.json").exists()));
    let found = bench.restarted().scan().unwrap().into_iter().find(|found| found.attempt == short.attempt).unwrap();
    let outcome = finish(&found.handle);
    assert_eq!(outcome.exit.reason, ExitReason::LeaseEnded, "{outcome:?}");
    found.handle.cleanup().unwrap();
    assert!(handle.status().unwrap().exit.is_none(), "the renewed one lives");
    handle.kill(ExitReason::KeyRevoked).unwrap();
    assert_eq!(ended(&handle).reason, ExitReason::KeyRevoked);
    handle.cleanup().unwrap();
}

pub(crate) fn a_log_flood_never_stops_the_job_and_loss_is_counted() {
    let bench = Bench::new();
    // 110 MB without a line end, which are 147 MB of frames, into a ring of 128 MiB.
    let mut spec = bench.shell("head -c 110000000 /dev/zero | tr '\\0' 'x' ; echo; echo last >&2");
    // Minutes of work for an emulated machine: it takes as long as it goes on.
    spec.limits.time_ms = 24 * 3_600_000;
    let handle = bench.begin(&spec);
    let mut newest = 0;
    while !wait(LONG, || handle.status().unwrap().state == ShimState::Ended) {
        let now = frames(&handle).last().unwrap().sequence;
        assert!(now > newest, "it stands still after frame {newest}");
        newest = now;
    }
    let exit = ended(&handle);
    assert_eq!(exit.reason, ExitReason::Completed, "{exit:?}");
    let frames = frames(&handle);
    assert!(frames[0].lost > 0, "the oldest are gone, and that is said");
    assert!(frames.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1 && pair[1].lost == 0));
    assert_eq!(text(&frames, LogStream::Stderr), "last\n");
    assert!(frames.iter().all(|frame| frame.data.len() <= runtime::limits::LOG_FRAME_BYTES.div_ceil(3) * 4), "no frame is longer than its limit");
    let bytes: u64 = std::fs::read_dir(handle.directory().join("log")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= (runtime::limits::LOG_FILES as u64 + 1) * (runtime::limits::LOG_FILE_BYTES + 64 * 1024), "{bytes}");
    // Reading goes on where it stopped.
    let some = handle.logs(frames[0].sequence, 3).unwrap();
    assert_eq!(some.len(), 3);
    assert_eq!(some[0].sequence, frames[0].sequence + 1);
    handle.cleanup().unwrap();
}

pub(crate) fn logs_are_there_while_the_job_runs() {
    let bench = Bench::new();
    let handle = bench.begin(&bench.shell("echo one; printf two; echo err >&2; sleep 600"));
    assert!(said(&handle, "one"));
    handle.stop(Duration::ZERO, ExitReason::Cancelled).unwrap();
    let outcome = finish(&handle);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("one\ntwo", "err\n"));
    handle.cleanup().unwrap();
}
