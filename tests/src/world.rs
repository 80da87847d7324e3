//! A deployment with an administrator, a tenant, a project and the small image: where most tests begin.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::deployment::{Deployment, Options};
use crate::groups::Group;
use crate::person::Person;
use crate::typed::{Shell, Typed};

/// The tenant's name.
pub const TENANT: &str = "clinic";
/// The project's name.
pub const PROJECT: &str = "study";

/// A deployment that is ready for jobs.
#[derive(Debug)]
pub struct World {
    /// The deployment.
    pub deployment: Deployment,
    /// Where the platform is operated.
    pub operator: Shell,
    /// Where the tenant's data is.
    pub tenant: Shell,
    /// Both are this person.
    pub admin: Person,
    folder: tempfile::TempDir,
    /// After all else: it takes along what is left of jobs.
    _group: Group,
}

impl World {
    /// Starts a deployment, enrols its administrator, makes tenant and project.
    pub fn new() -> anyhow::Result<Self> {
        Self::started(Options::default())
    }

    /// The same, with `swarm up` started in this way.
    pub fn started(options: Options) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("swarm-test-").tempdir()?;
        let group = Group::new("up");
        let options = Options { group: Some(group.name().to_owned()), ..options };
        let deployment = Deployment::up(&crate::program()?, folder.path(), options)?;
        let (operator, tenant) = (deployment.shell("operator"), deployment.shell("tenant"));
        let mut admin = Person::new("admin", "a long password of the tests");
        admin.enrol(&operator, deployment.url(), deployment.ca_pin(), &deployment.ticket()?, Some("operator"))?;
        operator.typed(&["tenant", "create", TENANT, "--admin", "admin"])?.ok()?;
        admin.login(&tenant, Some((deployment.url(), deployment.ca_pin())), TENANT)?;
        tenant.typed(&["project", "create", PROJECT])?.ok()?;
        Ok(Self { deployment, operator, tenant, admin, folder, _group: group })
    }

    /// The same, with the small image imported as `busybox`.
    pub fn with_image() -> anyhow::Result<Self> {
        Self::new()?.imported()
    }

    /// This one, with the small image imported as `busybox`.
    pub fn imported(self) -> anyhow::Result<Self> {
        let world = self;
        let archive = world.folder().join("busybox.tar");
        crate::busybox_image(&archive)?;
        world.tenant.typed(&["image", "import", text(&archive)?, "--name", "busybox"])?.ok()?;
        Ok(world)
    }

    /// A folder that goes with the test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file with this text.
    pub fn file(&self, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path)
    }

    /// Makes a volume of the project.
    pub fn volume(&self, name: &str) -> anyhow::Result<String> {
        let place = ["--project", PROJECT, "--region", "local", "--sensitivity", "internal", "--purpose", "research"];
        let made = self.tenant.json(&[&["volume", "create", name], &place[..]].concat())?;
        id(&made)
    }

    /// Runs a shell script as a job and follows it.
    pub fn job(&self, flags: &[&str], script: &str) -> anyhow::Result<Typed> {
        let head = ["job", "run", "busybox", "--project", PROJECT, "--purpose", "research"];
        self.tenant.typed(&[&head[..], flags, &["--", "sh", "-c", script]].concat())
    }

    /// Submits a shell script as a job and does not follow it; gives its id.
    pub fn submit(&self, flags: &[&str], script: &str) -> anyhow::Result<String> {
        let head = ["job", "run", "busybox", "--project", PROJECT, "--purpose", "research", "--detach"];
        id(&self.tenant.json(&[&head[..], flags, &["--", "sh", "-c", script]].concat())?)
    }

    /// A job as the API shows it.
    pub fn show(&self, job: &str) -> anyhow::Result<Value> {
        self.tenant.json(&["job", "show", job])
    }

    /// The newest job's id: ids are ordered by time.
    pub fn newest_job(&self) -> anyhow::Result<String> {
        let jobs = self.tenant.json(&["job", "list"])?;
        let items = jobs.get("items").and_then(Value::as_array).context("a list of jobs")?;
        items.iter().filter_map(|job| job.get("id")?.as_str()).max().map(str::to_owned).context("there is no job")
    }

    /// Waits until a job's state is one of these; gives the job.
    pub fn wait_for_state(&self, job: &str, states: &[&str], limit: std::time::Duration) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        crate::wait_for(&format!("job {job} to be {}", states.join(" or ")), limit, || {
            last = self.show(job)?;
            let state = last.get("state").and_then(Value::as_str).unwrap_or_default();
            Ok(states.contains(&state).then(|| last.clone()))
        })
        .with_context(|| format!("{last}\n{}", self.deployment.log()))
    }

    /// Ends and erases everything, and fails if anything is left.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.deployment.erase(&self.operator)?;
        let group = self.deployment.cgroup_parent()?;
        let place = self.folder.path().to_owned();
        self.folder.close()?;
        let left = crate::snapshot(&[&place], &group).all();
        anyhow::ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}

/// The `id` of a document.
pub fn id(document: &Value) -> anyhow::Result<String> {
    document.get("id").and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no id in {document}"))
}

/// A path as text.
pub fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
