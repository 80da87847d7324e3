//! The GPUs of this node: who has which, and that each is cleaned before somebody else has it. Kept on disk.
//!
//! **Invariant:** a GPU is given to an attempt only after it was cleaned, and that one attempt alone has it until it was
//! cleaned again. One that cannot be cleaned is given to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use runtime::gpu::{GivenGpu, Gpu, Scrubber, inventory};
use runtime::sandbox::BindMount;
use serde::{Deserialize, Serialize};
use vocabulary::job::AttemptId;

use crate::channel::chain;
use crate::files;
use crate::limits::RECORD_BYTES_MAX;

/// Where a node's GPUs are described, and what cleans them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuOptions {
    /// Directories with specifications of the Container Device Interface.
    pub cdi: Vec<PathBuf>,
    /// The program that cleans a GPU between two jobs; without one none is offered.
    pub scrub: Option<PathBuf>,
}

/// As long as the control plane lets the value of a feature be.
const COMPLAINT_BYTES: usize = 512;

/// Where one GPU stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Nobody has it, and nothing of anybody is in its memory.
    Clean(String),
    /// An attempt has it, or had it and it is not cleaned yet.
    Given(AttemptId),
    /// It could not be cleaned: nobody is given it before the agent starts again and succeeds.
    Out(String),
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Gpus {
    file: PathBuf,
    all: Vec<Gpu>,
    /// Why none is offered although some may be there.
    none: Option<String>,
    scrubber: Option<Scrubber>,
    states: Mutex<BTreeMap<String, State>>,
}

impl Gpus {
    /// Looks for GPUs and cleans those that no living attempt has; blocks. What stands against offering any is logged.
    pub(crate) fn open(dir: &Path, options: &GpuOptions, living: &BTreeSet<AttemptId>) -> Result<Self, String> {
        let mut none = None;
        let all = inventory(&options.cdi).unwrap_or_else(|error| {
            tracing::error!(error = chain(&error), "no GPU is offered");
            none = Some(chain(&error));
            Vec::new()
        });
        let scrubber = options.scrub.as_deref().map(|path| Scrubber::probe(path).map_err(|error| format!("the program that cleans GPUs, `{}`: {error}", path.display()))).transpose()?;
        if scrubber.is_none() && !all.is_empty() {
            tracing::error!(gpus = all.len(), "no GPU is offered: name a program that cleans them between two jobs");
            none = Some(format!("{} there, and no program that cleans them was named", all.len()));
        }
        let file = dir.join("gpus.json");
        let known: BTreeMap<String, State> = match files::read_if_there(&file, RECORD_BYTES_MAX) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|error| format!("gpus.json: {error}"))?,
            Ok(None) => BTreeMap::new(),
            Err(error) => return Err(format!("gpus.json: {error}")),
        };
        let all = if scrubber.is_some() { all } else { Vec::new() };
        let gpus = Self { file, all, none, scrubber, states: Mutex::new(known.clone()) };
        for gpu in &gpus.all {
            if !matches!(known.get(&gpu.id), Some(State::Given(attempt)) if living.contains(attempt)) {
                gpus.clean(&gpu.id);
            }
        }
        gpus.keep(&gpus.locked())?;
        Ok(gpus)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, states: &BTreeMap<String, State>) -> Result<(), String> {
        if self.all.is_empty() && states.is_empty() {
            return Ok(());
        }
        files::write_json(&self.file, states).map_err(|error| format!("write gpus.json: {error}"))
    }

    fn clean(&self, id: &str) -> Option<String> {
        let cleaned = self.scrubber.as_ref().map_or_else(|| Err("nothing cleans it".to_owned()), |scrubber| scrubber.clean(id));
        let (state, why) = match cleaned {
            Ok(how) => (State::Clean(how), None),
            Err(why) => {
                tracing::error!(gpu = id, why, "a GPU could not be cleaned: it is out of service");
                (State::Out(why.clone()), Some(format!("{id} could not be cleaned and is out of service: {why}")))
            }
        };
        self.locked().insert(id.to_owned(), state);
        why
    }

    /// How many are in service.
    pub(crate) fn count(&self) -> u32 {
        let states = self.locked();
        u32::try_from(self.all.iter().filter(|gpu| !matches!(states.get(&gpu.id), None | Some(State::Out(_)))).count()).unwrap_or(u32::MAX)
    }

    /// Why fewer are in service than there are, for those who look at the node.
    pub(crate) fn complaint(&self) -> Option<String> {
        let states = self.locked();
        let out = self.all.iter().filter_map(|gpu| match states.get(&gpu.id) {
            Some(State::Out(why)) => Some(format!("{} is out of service: {why}", gpu.id)),
            Some(State::Clean(_) | State::Given(_)) | None => None,
        });
        let told: Vec<String> = self.none.iter().map(|why| format!("none is offered: {why}")).chain(out).collect();
        let plain = told.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        // As much as a node may say of one thing.
        let end = plain.floor_char_boundary(COMPLAINT_BYTES);
        Some(plain.get(..end).unwrap_or_default().to_owned()).filter(|told| !told.is_empty())
    }

    /// Gives an attempt as many as it asks for, with the files of their driver. On the disk before it comes back.
    pub(crate) fn take(&self, attempt: AttemptId, wanted: u32) -> Result<(Vec<GivenGpu>, Vec<BindMount>), String> {
        let mut states = self.locked();
        let (mut given, mut mounts) = (Vec::new(), BTreeMap::new());
        let mut after = states.clone();
        for gpu in &self.all {
            if given.len() >= usize::try_from(wanted).unwrap_or(usize::MAX) {
                break;
            }
            let Some(State::Clean(how)) = states.get(&gpu.id) else { continue };
            after.insert(gpu.id.clone(), State::Given(attempt));
            given.push(GivenGpu { id: gpu.id.clone(), nodes: gpu.nodes.clone(), scrubbed: how.clone() });
            for mount in &gpu.mounts {
                mounts.entry(mount.target.clone()).or_insert_with(|| mount.clone());
            }
        }
        if given.len() < usize::try_from(wanted).unwrap_or(usize::MAX) {
            return Err(format!("gpus: the job asks for {wanted}, {} are free and clean", given.len()));
        }
        if wanted > 0 {
            self.keep(&after)?;
            *states = after;
        }
        Ok((given, mounts.into_values().collect()))
    }

    /// Cleans what an attempt had; blocks. Its processes are gone.
    ///
    /// # Errors
    /// Which GPUs are out of service now.
    pub(crate) fn release(&self, attempt: AttemptId) -> Result<(), String> {
        let had: Vec<String> = self.locked().iter().filter(|(_, state)| **state == State::Given(attempt)).map(|(id, _)| id.clone()).collect();
        if had.is_empty() {
            return Ok(());
        }
        let out: Vec<String> = had.iter().filter_map(|id| self.clean(id)).collect();
        self.keep(&self.locked())?;
        if out.is_empty() { Ok(()) } else { Err(out.join("; ")) }
    }
}
