//! The steps of an attempt, each a future that ends with one event. Blocking work goes to blocking threads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use receipt::statement::SecretGiven;
use runtime::image;
use runtime::scratch::Scratch;
use runtime::supervisor::{Handle, ShimState, StartError, Status, SupervisorError};
use tokio::sync::watch;
use vocabulary::api::{Done, StatementUpload};
use vocabulary::channel as paths;
use vocabulary::job::{Exit, ExitReason};
use vocabulary::plan::PlannedJob;

use super::Progress;
use super::driver::{View, Wish};
use super::machine::{Event, Failure};
use super::record::Record;
use crate::agent::Shared;
use crate::channel::{Backoff, chain, patiently, printable};
use crate::limits::{SCRUB_PAUSE, SCRUB_TRIES, WATCH_EVERY};
use crate::logs::Shipper;
use crate::sandbox::{self, Place};
use crate::{clock, secrets, statement, volumes};

/// What the steps of one attempt share. Nothing of it is written to the disk.
#[derive(Debug)]
pub(super) struct Hands {
    pub(super) shared: Arc<Shared>,
    pub(super) planned: PlannedJob,
    /// The attempt's directory.
    pub(super) dir: PathBuf,
    pub(super) progress: Arc<Progress>,
    pub(super) wish: watch::Receiver<Wish>,
    /// Older attempts of the same job that still live here.
    pub(super) older: Vec<watch::Receiver<View>>,
    /// The supervisor's handle, once there is one.
    pub(super) handle: Mutex<Option<Handle>>,
    /// The scratch, if this run of the agent made it.
    scratch: Mutex<Option<Scratch>>,
    /// The block of ids, if this run of the agent took it.
    id_base: Mutex<Option<u32>>,
}

fn failure(reason: ExitReason, detail: impl Into<String>) -> Failure {
    Failure { reason, detail: printable(&detail.into()) }
}

fn failed(reason: ExitReason, detail: impl Into<String>) -> Event {
    Event::Failed(failure(reason, detail))
}

/// Runs blocking work; a panic in it is an error like any other.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

impl Hands {
    pub(super) fn new(
        shared: Arc<Shared>,
        planned: PlannedJob,
        dir: PathBuf,
        progress: Arc<Progress>,
        wish: watch::Receiver<Wish>,
        older: Vec<watch::Receiver<View>>,
        handle: Option<Handle>,
    ) -> Self {
        Self { shared, planned, dir, progress, wish, older, handle: Mutex::new(handle), scratch: Mutex::default(), id_base: Mutex::default() }
    }

    pub(super) fn handle(&self) -> Option<Handle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The encrypted directory; by convention of `runtime`, so that it is known after a restart of the agent too.
    fn data(&self) -> PathBuf {
        self.dir.join("scratch").join("data")
    }

    fn lease_lives(&self) -> bool {
        // After a restart the deadline is not known before the next renewal: the control plane decides then.
        self.wish.borrow().deadline_boottime_ms.is_none_or(|deadline| clock::boottime_ms() < deadline)
    }

    pub(super) async fn pull(&self) -> Event {
        let found = self.shared.images.ensure(&self.shared.channel, self.planned.attempt, self.planned.spec.image, &self.progress);
        match found.await {
            Ok(_) => Event::Pulled,
            Err(error) => failed(ExitReason::Image, format!("image: {error}")),
        }
    }

    pub(super) async fn open(&self) -> Event {
        let Some(id_base) = self.shared.ids.take() else {
            return failed(ExitReason::Create, "every block of ids that this node may give away is in use");
        };
        // Given back with the leftovers, however this ends.
        *self.id_base.lock().unwrap_or_else(PoisonError::into_inner) = Some(id_base);
        match self.open_inputs(id_base).await {
            Ok((inputs, secrets)) => {
                for mut view in self.older.clone() {
                    // An end of the other's task is an end of the other.
                    let _ = view.wait_for(|view| !view.lives).await;
                }
                Event::Opened { inputs, secrets, id_base }
            }
            Err(failure) => Event::Failed(failure),
        }
    }

    async fn open_inputs(&self, id_base: u32) -> Result<(Vec<receipt::VolumeUse>, Vec<SecretGiven>), Failure> {
        let (dir, bytes) = (self.dir.clone(), self.planned.spec.limits.scratch_bytes);
        let image = self.shared.images.cached(self.planned.spec.image).ok_or_else(|| failure(ExitReason::Image, "the image is gone from the cache"))?;
        let spec = self.planned.spec.clone();
        let made = blocking(move || {
            let (uid, gid) = image::resolve_user(&image.root, &image.config.user).map_err(|error| chain(&error))?;
            runtime::secret::wipe(&dir).map_err(|error| chain(&error))?;
            // What an earlier run of the agent had begun is of no use: its key may be anywhere.
            Scratch::remove_leftovers(&dir).map_err(|error| chain(&error))?;
            let scratch = Scratch::create(&dir, bytes, &mut keys::SystemRandom).map_err(|error| chain(&error))?;
            let inside = |id: u32| id_base.saturating_add(id);
            let owned = (|| {
                for name in ["inputs", "outputs", "log"] {
                    scratch.subdirectory(name, 0, 0)?;
                }
                scratch.subdirectory("scratch", inside(uid), inside(gid))?;
                scratch.subdirectory("scratch/home", inside(uid), inside(gid))?;
                for input in &spec.inputs {
                    scratch.subdirectory(&format!("inputs/{}", input.name), 0, 0)?;
                }
                for output in &spec.outputs {
                    scratch.subdirectory(&format!("outputs/{}", output.name), inside(uid), inside(gid))?;
                }
                Ok(())
            })();
            match owned {
                Ok(()) => Ok((scratch, (inside(uid), inside(gid)))),
                Err(error) => {
                    let error: runtime::scratch::ScratchError = error;
                    let text = chain(&error);
                    let _ = scratch.destroy();
                    Err(text)
                }
            }
        });
        let (uid, gid) = match made.await {
            Ok(Ok((scratch, user))) => {
                *self.scratch.lock().unwrap_or_else(PoisonError::into_inner) = Some(scratch);
                user
            }
            Ok(Err(error)) | Err(error) => return Err(failure(ExitReason::Create, format!("scratch: {error}"))),
        };
        let mut used = Vec::new();
        for input in &self.planned.spec.inputs {
            let target = self.data().join("inputs").join(input.name.as_str());
            let mode = if sandbox::is_code(input) { 0o555 } else { 0o444 };
            let opened = volumes::open(&self.shared, &self.planned, (input.volume, &input.name), &target, mode, &self.progress);
            used.push(opened.await.map_err(|error| failure(ExitReason::Input, format!("input `{}`: {}", input.name, chain(&error))))?);
        }
        Ok((used, self.open_secrets(uid, gid).await?))
    }

    /// Secrets come last: the less time they lie here, the better.
    async fn open_secrets(&self, uid: u32, gid: u32) -> Result<Vec<SecretGiven>, Failure> {
        let (mut files, mut given) = (Vec::new(), Vec::new());
        for named in &self.planned.spec.secrets {
            let opened = secrets::open(&self.shared, &self.planned, named);
            let (file, one) = opened.await.map_err(|error| failure(ExitReason::Input, format!("secret `{}`: {}", named.name, chain(&error))))?;
            files.push(file);
            given.push(one);
        }
        if !files.is_empty() {
            let dir = self.dir.clone();
            let laid = blocking(move || runtime::secret::create(&dir, &files, uid, gid).map_err(|error| chain(&error)));
            laid.await.and_then(|laid| laid).map_err(|error| failure(ExitReason::Create, format!("secrets: {error}")))?;
        }
        Ok(given)
    }

    pub(super) async fn create(&self, id_base: Option<u32>) -> Event {
        let deadline = self.wish.borrow().deadline_boottime_ms;
        let (Some(id_base), Some(deadline)) = (id_base, deadline) else {
            return failed(ExitReason::Create, "no run lease is held");
        };
        let Some(image) = self.shared.images.cached(self.planned.spec.image) else {
            return failed(ExitReason::Image, "the image is gone from the cache");
        };
        let (shared, planned, scratch) = (Arc::clone(&self.shared), self.planned.clone(), self.data());
        let secrets = runtime::secret::source(&self.dir);
        let made = blocking(move || {
            let user = image::resolve_user(&image.root, &image.config.user).map_err(|error| failure(ExitReason::Image, chain(&error)))?;
            let parent = &shared.cgroup_parent;
            let backend = sandbox::backend(&planned.spec, &shared.backends).ok_or_else(|| failure(ExitReason::Create, "runtime: this node does not offer it any more"))?;
            let (gpus, mounts) = shared.gpus.take(planned.attempt, planned.spec.gpus).map_err(|detail| failure(ExitReason::Create, detail))?;
            let place = Place { gpus: (&gpus, &mounts), image_root: &image.root, scratch: &scratch, secrets: &secrets, user, backend, id_base, cgroup_parent: parent, deadline_boottime_ms: deadline };
            let spec = sandbox::attempt_spec(&planned, &image.config, &place).map_err(|detail| failure(ExitReason::Create, detail))?;
            let handle = match shared.supervisor.start(&spec) {
                Ok(handle) => handle,
                // Somebody began it before. Whatever it is, it is taken as found without a report, and killed.
                Err(StartError::Exists(_)) => {
                    let found = shared.supervisor.scan().unwrap_or_default().into_iter().find(|found| found.attempt == spec.attempt);
                    let found = found.ok_or_else(|| failure(ExitReason::SupervisorLost, "the attempt was started before and cannot be found"))?;
                    return Ok((found.handle, None, spec.argv));
                }
                Err(error) => return Err(failure(ExitReason::Create, chain(&error))),
            };
            let isolation = handle.status().ok().and_then(|status| status.isolation);
            Ok((handle, isolation, spec.argv))
        });
        match made.await {
            Ok(Ok((handle, isolation, argv))) => {
                *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
                Event::Created { isolation, argv }
            }
            Ok(Err(failure)) => Event::Failed(failure),
            Err(error) => failed(ExitReason::Create, error),
        }
    }

    /// Starts the program if it waits and may, and looks until everything has ended. Never gives up while something lives.
    pub(super) async fn run(&self, may_start: impl Fn() -> bool) -> Event {
        let Some(handle) = self.handle() else { return Event::Ended(lost()) };
        let shipper = self.shipper(&handle);
        let mut refused = None;
        let watching = async {
            let mut backoff = Backoff::default();
            loop {
                let status = with(&handle, Handle::status).await;
                match status {
                    Ok(Status { exit: Some(exit), .. }) => return exit,
                    Ok(Status { state: ShimState::Created, .. }) if may_start() => match with(&handle, Handle::start).await {
                        Ok(()) => self.shared.report_soon(),
                        Err(SupervisorError::Ended) => {}
                        Err(error) => {
                            refused = Some(chain(&error));
                            let _ = with(&handle, |handle| handle.kill(ExitReason::Create)).await;
                        }
                    },
                    Ok(_) => backoff = Backoff::default(),
                    Err(error) => {
                        tracing::warn!(attempt = %self.planned.attempt, error = chain(&error), "the supervisor does not answer");
                        backoff.wait().await;
                    }
                }
                tokio::time::sleep(WATCH_EVERY).await;
            }
        };
        let mut exit: Exit = tokio::select! {
            exit = watching => exit,
            // Shipping ends early only when the log is refused: the program runs on.
            exit = async { shipper.follow(&self.shared.channel).await; std::future::pending().await } => exit,
        };
        if let Some(refused) = refused {
            exit.detail = format!("{}; it was not started: {refused}", exit.detail);
        }
        Event::Ended(exit)
    }

    fn shipper(&self, handle: &Handle) -> Shipper {
        Shipper::resume(handle.clone(), self.dir.join("log.json"))
    }

    pub(super) async fn seal(&self) -> Event {
        let mut used = Vec::new();
        for output in &self.planned.spec.outputs {
            let source = self.data().join("outputs").join(output.name.as_str());
            let sealed = volumes::seal(&self.shared, &self.planned, output, &source, &self.dir, &self.progress);
            match sealed.await {
                Ok(volume) => used.push(volume),
                Err(error) => {
                    // Paths are told as the job knows them.
                    let text = chain(&error).replace(&self.data().join("outputs").display().to_string(), "/outputs");
                    return failed(ExitReason::Output, format!("output `{}`: {text}", output.name));
                }
            }
        }
        Event::Sealed(used)
    }

    pub(super) async fn ship(&self) -> Event {
        let Some(handle) = self.handle() else { return Event::Shipped { lost: 0 } };
        let shipper = self.shipper(&handle);
        Event::Shipped { lost: shipper.finish(&self.shared.channel, || self.lease_lives()).await }
    }

    pub(super) async fn scrub(&self) -> Event {
        // Its processes are gone. What had to be cleaned is told once; a GPU that was not is out of service.
        let (shared, attempt) = (Arc::clone(&self.shared), self.planned.attempt);
        let gpus = blocking(move || shared.gpus.release(attempt)).await.and_then(|released| released).err();
        let mut left = None;
        for _ in 0..SCRUB_TRIES {
            let scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner).take();
            let dir = self.dir.clone();
            let done = blocking(move || {
                let wiped = runtime::secret::wipe(&dir).map_err(|error| chain(&error));
                let destroyed = scratch.map_or(Ok(()), Scratch::destroy);
                wiped.and(destroyed.and_then(|()| Scratch::remove_leftovers(&dir)).map_err(|error| chain(&error)))
            });
            match done.await {
                Ok(Ok(())) => {
                    self.shared.report_soon();
                    return Event::Scrubbed { left: gpus };
                }
                Ok(Err(error)) | Err(error) => left = Some(error),
            }
            tokio::time::sleep(SCRUB_PAUSE).await;
        }
        tracing::error!(attempt = %self.planned.attempt, left, "scratch was not removed");
        Event::Scrubbed { left: left.into_iter().chain(gpus).reduce(|all, one| format!("{all}; {one}")) }
    }

    pub(super) fn sign(&self, record: &Record) -> Event {
        // A statement that was made stands: there is one.
        if let Some(statement) = record.statement.clone() {
            return Event::Signed(statement);
        }
        match statement::sign(record, &self.shared.node.file, &self.shared.node.record_key, clock::wall()) {
            Ok(statement) => Event::Signed(statement),
            Err(error) => {
                tracing::error!(attempt = %self.planned.attempt, %error, "no statement");
                failed(ExitReason::Create, error.to_string())
            }
        }
    }

    pub(super) async fn send(&self, statement: Option<String>) -> Event {
        let Some(statement) = statement else { return Event::Sent };
        let attempt = self.planned.attempt;
        let upload = StatementUpload { attempt, statement };
        let url = paths::attempt(paths::STATEMENT, attempt);
        let sent: Result<Done, _> = patiently(|| self.shared.channel.post(&url, &upload)).await;
        if let Err(error) = sent {
            tracing::error!(%attempt, %error, "the statement is refused");
        }
        Event::Sent
    }

    /// Removes all but the record. Tries until it is done: a leak is never forgotten.
    pub(super) async fn remove(&self, id_base: Option<u32>) -> Event {
        let mut backoff = Backoff::default();
        loop {
            let (handle, dir) = (self.handle(), self.dir.clone());
            let done = blocking(move || {
                handle.map_or(Ok(()), |handle| handle.cleanup()).map_err(|error| chain(&error))?;
                runtime::secret::wipe(&dir).map_err(|error| chain(&error))?;
                Scratch::remove_leftovers(&dir).map_err(|error| chain(&error))?;
                remove_all_but_record(&dir).map_err(|error| chain(&error))
            });
            match done.await {
                Ok(Ok(())) => break,
                Ok(Err(error)) | Err(error) => tracing::error!(attempt = %self.planned.attempt, error, "leftovers stay"),
            }
            backoff.wait().await;
        }
        let taken = self.id_base.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(id_base) = id_base.or(taken) {
            self.shared.ids.give_back(id_base);
        }
        Event::Removed
    }
}

/// The end of an attempt of which nothing is there.
fn lost() -> Exit {
    Exit {
        reason: ExitReason::SupervisorLost,
        code: None,
        signal: None,
        detail: "nothing of the attempt was found".to_owned(),
        oom_kills: 0,
        peak_memory_bytes: None,
        cpu_ms: None,
        started: None,
        ended: clock::wall(),
    }
}

fn remove_all_but_record(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() == super::driver::RECORD_FILE {
            continue;
        }
        if entry.file_type()?.is_dir() { std::fs::remove_dir_all(entry.path())? } else { std::fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// Calls the supervisor from a blocking thread.
pub(crate) async fn with<T: Send + 'static>(
    handle: &Handle,
    call: impl FnOnce(&Handle) -> Result<T, SupervisorError> + Send + 'static,
) -> Result<T, SupervisorError> {
    let handle = handle.clone();
    blocking(move || call(&handle)).await.map_err(SupervisorError::Protocol)?
}

/// Tells the shim to stop or to kill; repeated while the shim does not answer, since the job must not run on.
pub(crate) async fn halt(handle: Handle, grace: Option<Duration>, reason: ExitReason) {
    let mut backoff = Backoff::default();
    loop {
        let told = match grace {
            Some(grace) => with(&handle, move |handle| handle.stop(grace, reason)).await,
            None => with(&handle, move |handle| handle.kill(reason)).await,
        };
        match told {
            Ok(()) | Err(SupervisorError::Ended) => return,
            Err(error) => tracing::warn!(attempt = %handle.attempt(), error = chain(&error), "stopping again"),
        }
        backoff.wait().await;
    }
}
