//! Encrypted scratch: readable for the job, gone for everybody once the key is.

use crate::support::{Bench, wait};
use runtime::leftovers;
use runtime::sandbox::BindMount;
use runtime::scratch::{Scratch, ScratchError};
use std::path::Path;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const CANARY: &[u8] = b"the canary of this test sings in plain text, and nowhere else";

fn contains(path: &Path, needle: &[u8]) -> bool {
    std::fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
}

pub(crate) fn after_the_key_names_and_contents_are_unreadable() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    let scratch = Scratch::create(&place, 16 * MIB, &mut keys::SystemRandom).unwrap();
    let inside = scratch.subdirectory("job", 100_000, 100_000).unwrap();
    std::fs::write(inside.join("a-name-that-tells-all"), CANARY.repeat(100)).unwrap();
    rustix::fs::sync();
    let image = place.join("scratch.img");
    assert!(!contains(&image, CANARY) && !contains(&image, b"a-name-that-tells-all"), "plain text in the image file");
    scratch.lock().unwrap();
    let names: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1);
    assert_ne!(names[0], "job", "names are scrambled");
    assert!(std::fs::read(inside.join("a-name-that-tells-all")).is_err());
    let scrambled = std::fs::read_dir(scratch.path().join(&names[0])).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read(&scrambled).unwrap_err().raw_os_error(), Some(libc::ENOKEY));
    // Locking twice is no error: the end of a job and a revocation may meet.
    scratch.lock().unwrap();
    // What lies on the disk is still cipher text, and goes with the image.
    assert!(!contains(&image, CANARY));
    scratch.destroy().unwrap();
    assert!(!image.exists() && !place.join("scratch").exists());
    assert!(wait(Duration::from_secs(10), || leftovers::find("none", directory.path()).unwrap().is_empty()));
}

pub(crate) fn leftovers_of_a_lost_agent_are_found_locked_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("store");
    Scratch::remove_leftovers(&place).unwrap();
    assert!(Scratch::find(&place).unwrap().is_none());
    let lost = Scratch::create(&place, 16 * MIB, &mut keys::SystemRandom).unwrap();
    std::fs::write(lost.path().join("a"), CANARY).unwrap();
    assert!(Scratch::create(&place, 16 * MIB, &mut keys::SystemRandom).is_err(), "never two in one place");
    assert_eq!(std::fs::read(lost.path().join("a")).unwrap(), CANARY, "and the first is untouched");
    drop(lost);
    let found = Scratch::find(&place).unwrap().expect("it is still mounted");
    assert_eq!(std::fs::read(found.path().join("a")).unwrap(), CANARY);
    found.lock().unwrap();
    assert!(std::fs::read(found.path().join("a")).is_err());
    drop(found);
    Scratch::remove_leftovers(&place).unwrap();
    assert!(wait(Duration::from_secs(10), || leftovers::find("none", directory.path()).unwrap().is_empty()));
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
}

pub(crate) fn a_job_works_in_its_scratch_and_another_jobs_shim_does_not_keep_it() {
    let bench = Bench::new();
    let place = bench.directory.path().join("store");
    let scratch = Scratch::create(&place, 16 * MIB, &mut keys::SystemRandom).unwrap();
    let mut spec = bench.shell("echo made > /scratch/a && cat /scratch/a && stat -c %u /scratch/a; echo x > /inputs/b; echo $?");
    let job = scratch.subdirectory("job", spec.id_base, spec.id_base).unwrap();
    let input = scratch.subdirectory("input", spec.id_base, spec.id_base).unwrap();
    spec.binds.push(BindMount { source: job.clone(), target: "/scratch".to_owned(), readonly: false, exec: false });
    spec.binds.push(BindMount { source: input, target: "/inputs".to_owned(), readonly: true, exec: false });
    spec.log_dir = Some(scratch.path().join("log"));
    // A job that begins while the scratch is mounted, and lives on when it shall go.
    let other = bench.begin(&bench.spec(["sleep", "600"]));
    let outcome = bench.run(&spec);
    assert_eq!(outcome.stdout, "made\n0\n1\n", "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only"));
    assert_eq!(std::fs::read_to_string(job.join("a")).unwrap(), "made\n");
    assert!(std::fs::read_dir(scratch.path().join("log")).unwrap().count() > 0, "the log lies on the encrypted scratch");
    scratch.destroy().unwrap();
    let device = || leftovers::find("none", &place).unwrap();
    assert!(wait(Duration::from_secs(10), || device().is_empty()), "{:?}", device());
    other.kill(vocabulary::job::ExitReason::Cancelled).unwrap();
    crate::support::ended(&other);
    other.cleanup().unwrap();
}

pub(crate) fn what_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(Scratch::create(&file, 16 * MIB, &mut keys::SystemRandom), Err(ScratchError::Io { .. })));
    // More than the disk has: refused at once, not in the middle of a job.
    let place = directory.path().join("store");
    let error = Scratch::create(&place, 1 << 50, &mut keys::SystemRandom).unwrap_err();
    assert!(matches!(&error, ScratchError::Io { what, .. } if what.contains("scratch image")), "{error:?}");
    assert!(std::fs::read_dir(&place).unwrap().next().is_none(), "nothing is left of it");
    runtime::scratch::probe(directory.path(), &mut keys::SystemRandom).unwrap();
    assert!(leftovers::find("none", directory.path()).unwrap().is_empty());
}
