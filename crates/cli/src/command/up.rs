//! `swarm up`: a control plane and a node of this machine, supervised as two children of the same program.

mod part;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use vocabulary::Sha256Digest;
use zeroize::Zeroizing;

use self::part::{Happening, Part};
use crate::app::App;
use crate::args::Up;
use crate::context::write_private;
use crate::error::{CliError, chain};
use crate::host::{self, Account, Process};
use crate::place::{Endpoints, Place, Running};
use crate::prompt;
use crate::supervise::Decision;

/// From the start of the server to its answer: argon2, keys and certificates, on a busy machine.
const SERVER_START: Duration = Duration::from_secs(120);
/// How long a node may take to its first plan before we go on without it.
const NODE_START: Duration = Duration::from_secs(30);
/// Jobs get their grace period and their outputs are sealed.
const NODE_STOP: Duration = Duration::from_secs(120);
/// Requests in flight end, the log is published.
const SERVER_STOP: Duration = Duration::from_secs(30);
/// How long parts of an `up` that was killed may take to notice.
const ORPHANS: Duration = Duration::from_secs(30);
/// How long the server takes the first ticket.
const TICKET_LIFE: Duration = Duration::from_secs(900);
/// Pause between two looks at something.
const PACE: Duration = Duration::from_millis(50);

pub(crate) async fn up(app: &App, args: Up) -> Result<(), CliError> {
    if !host::is_root() {
        return Err(CliError::new(4, "swarm up needs root: its node makes namespaces, control groups, mounts and encrypted scratch for jobs")
            .hint("sudo swarm up; without root, swarm server starts a control plane alone, and swarm doctor says what the machine offers"));
    }
    crate::command::server::profile(args.profile.as_deref())?;
    let place = Place::new(&args.data_dir, args.run_dir.as_deref())?;
    place.prepare()?;
    let Some(held) = place.hold()? else {
        let who = place.running().map_or_else(String::new, |running| format!(" (process {})", running.up.pid));
        return Err(CliError::new(5, format!("swarm is up already in {}{who}", place.data.display())).hint("swarm down stops it"));
    };
    wait_for_orphans(app, &place).await?;
    let account = server_account(app, &args, &place)?;
    let secret = passphrase(app, &args, &place)?;
    // What an earlier run wrote there says nothing about this one.
    let _ = std::fs::remove_file(place.data.join("endpoints.json"));
    let mut supervisor = Supervisor::new(app, &args, place, account, secret)?;
    let result = supervisor.run().await;
    supervisor.place.forget_running();
    drop(held);
    result
}

/// Parts of an `up` that was killed end by themselves once they notice; ours wait for that, as they need the same files.
async fn wait_for_orphans(app: &App, place: &Place) -> Result<(), CliError> {
    let Some(running) = place.running() else { return Ok(()) };
    let mut orphans = running.parts;
    orphans.retain(|(_, process)| process.lives());
    if orphans.is_empty() {
        return Ok(());
    }
    app.output.say("waiting for what the last swarm up left running");
    let end = Instant::now() + ORPHANS;
    while orphans.iter().any(|(_, process)| process.lives()) && Instant::now() < end {
        tokio::time::sleep(PACE).await;
    }
    for (name, process) in orphans.iter().filter(|(_, process)| process.lives()) {
        app.output.say(format!("ending the {name} (process {}), which does not end by itself", process.pid));
        process.signal(Signal::KILL)?;
    }
    while orphans.iter().any(|(_, process)| process.lives()) {
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// As whom the control plane runs, with its folder made over to that user.
fn server_account(app: &App, args: &Up, place: &Place) -> Result<Account, CliError> {
    let account = Account::find_or_make(&args.user, |text| app.output.say(text))?;
    let inside = std::fs::canonicalize(place.server())?.join("state.db");
    // The folder itself is about to be the user's own; what counts is the way to it.
    if let Some(folder) = account.blocked_at(&inside).filter(|folder| Some(folder.as_path()) != inside.parent()) {
        return Err(crate::command::server::blocked(&account, &folder));
    }
    account.own(&place.server())?;
    Ok(account)
}

/// The passphrase of the seal; a new deployment's is typed twice.
fn passphrase(app: &App, args: &Up, place: &Place) -> Result<Zeroizing<String>, CliError> {
    if let Some(path) = &args.passphrase_file {
        return prompt::secret_file(path);
    }
    if !args.share_file.is_empty() {
        let mut all = Zeroizing::new(String::with_capacity(prompt::SECRET_BYTES));
        for file in &args.share_file {
            let share = prompt::secret_file(file)?;
            if all.len().saturating_add(share.len()) >= prompt::SECRET_BYTES {
                return Err(CliError::usage("these are too many shares: give as many as open the seal"));
            }
            all.push_str(&share);
            all.push(',');
        }
        return Ok(all);
    }
    if place.server().join("state.db").exists() || args.state.database.is_some() && place.data.join("endpoints.json").exists() {
        if opens_with_shares(args, place) {
            app.output.say("the seal opens with shares: the server starts sealed and waits for swarm seal open");
            return Ok(Zeroizing::default());
        }
        return prompt::secret("Passphrase of the seal (nothing: start sealed): ", app.no_input);
    }
    loop {
        let first = prompt::secret("A passphrase for the seal of the new deployment (it protects every key; keep it): ", app.no_input)?;
        if !std::io::stdin().is_terminal() || *first == *prompt::secret("The same again: ", app.no_input)? {
            return Ok(first);
        }
        app.output.say("the two differ: try again");
    }
}

/// Whether every seal file that is there opens with shares. The server itself decides which one is in force.
fn opens_with_shares(args: &Up, place: &Place) -> bool {
    let objects = args.state.objects.clone().unwrap_or_else(|| place.server().join("objects"));
    let Ok(files) = std::fs::read_dir(objects.join("seal")) else { return false };
    let kind = |path: &Path| {
        let text = std::fs::read_to_string(path).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()?.get("kind")?.as_str().map(str::to_owned)
    };
    let kinds: Vec<String> = files.flatten().filter_map(|file| kind(&file.path())).collect();
    !kinds.is_empty() && kinds.iter().all(|kind| kind == "shares")
}

struct Supervisor<'a> {
    app: &'a App,
    place: Place,
    account: Account,
    server: Part,
    node: Part,
    own: Process,
    began: Instant,
    /// Whether everything ran once: from then on a death is no failed start.
    settled: bool,
    /// Whether the deployment was born by this run, and its first ticket with it.
    born: bool,
}

impl<'a> Supervisor<'a> {
    fn new(app: &'a App, args: &Up, place: Place, account: Account, secret: Zeroizing<String>) -> Result<Self, CliError> {
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| CliError::usage(format!("{}: the path is not UTF-8", path.display())))
        };
        let flag = |name: &str, value: String| [name.to_owned(), value];
        let before = earlier_ports(&place, account.uid);
        let mut server = vec!["server".to_owned(), "--supervised".to_owned()];
        server.extend(flag("--data-dir", text(&place.server())?));
        server.extend(flag("--listen", keep_port(args.addresses.listen, before.0).to_string()));
        server.extend(flag("--node-listen", keep_port(args.addresses.node_listen, before.1).to_string()));
        server.extend(flag("--admin", args.admin.to_string()));
        server.extend(flag("--user", account.name.clone()));
        server.extend(flag("--local-join", text(&place.join_token())?));
        server.extend(flag("--local-region", args.region.to_string()));
        server.extend(flag("--local-jurisdiction", args.jurisdiction.to_string()));
        server.extend(app.otlp.iter().flat_map(|endpoint| flag("--otlp-endpoint", endpoint.clone())));
        server.extend(args.addresses.metrics_listen.into_iter().flat_map(|address| flag("--metrics-listen", address.to_string())));
        server.extend(args.addresses.host.iter().flat_map(|host| flag("--host", host.clone())));
        let database = crate::command::server::database_url(&args.state)?;
        server.extend(database.iter().flat_map(|url| flag("--database", url.to_string())));
        let state = &args.state;
        for (name, path) in [("--database-password-file", &state.database_password_file), ("--objects", &state.objects), ("--shred-list", &state.shred_list)] {
            if let Some(path) = path {
                server.extend(flag(name, text(path)?));
            }
        }
        server.extend(args.profile.iter().flat_map(|profile| flag("--profile", profile.clone())));
        let mut node: Vec<String> = ["node", "run", "--supervised", "--stop-jobs"].map(str::to_owned).to_vec();
        node.extend(flag("--node-dir", text(&place.node())?));
        node.extend(flag("--cgroup-parent", args.cgroup_parent.clone().unwrap_or_else(|| place.cgroup_parent())));
        // The agent's own folder is another.
        let whole = |path: &Path| std::path::absolute(path).map_err(|error| CliError::usage(format!("{}: {error}", path.display()))).and_then(|path| text(&path));
        for folder in &args.gpus.cdi_dirs {
            node.extend(flag("--cdi-dir", whole(folder)?));
        }
        if let Some(program) = &args.gpus.gpu_scrub {
            node.extend(flag("--gpu-scrub", whole(program)?));
        }
        node.extend(flag("--id-base", args.ids.id_base.to_string()));
        node.extend(flag("--id-blocks", args.ids.id_blocks.to_string()));
        node.extend(app.otlp.iter().flat_map(|endpoint| flag("--otlp-endpoint", endpoint.clone())));
        Ok(Self {
            app,
            server: Part::new("server", server, Some(secret), place.log().join("server.log"), args.verbose),
            node: Part::new("node", node, None, place.log().join("node.log"), args.verbose),
            place,
            account,
            own: Process::own()?,
            began: Instant::now(),
            settled: false,
            born: false,
        })
    }

    async fn run(&mut self) -> Result<(), CliError> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let outcome = {
            let ended = async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            tokio::select! {
                () = ended => Ok(()),
                worked = self.work() => worked,
            }
        };
        host::notify("STOPPING=1");
        // A second signal means: at once.
        let impatient = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        tokio::pin!(impatient);
        if self.node.runs() {
            self.app.output.say("stopping: jobs are told to end and their outputs are sealed, then the node ends, then the control plane");
        }
        stop(self.app, &mut self.node, NODE_STOP, &mut impatient).await;
        stop(self.app, &mut self.server, SERVER_STOP, &mut impatient).await;
        if outcome.is_ok() {
            self.app.output.say("stopped; nothing of it runs any more. swarm up goes on where it ended");
        }
        outcome
    }

    /// Starts both parts, tells how to go on, and keeps them running. Ends only with a reason.
    async fn work(&mut self) -> Result<(), CliError> {
        self.record()?;
        let Some(endpoints) = self.start_server().await? else { return Err(CliError::new(1, "the control plane did not start")) };
        self.start_node(&endpoints).await?;
        self.publish(&endpoints)?;
        self.greet(&endpoints)?;
        self.settled = true;
        host::notify("READY=1");
        loop {
            let (happening, server) = tokio::select! {
                happening = self.server.next() => (happening, true),
                happening = self.node.next() => (happening, false),
            };
            match happening {
                Happening::Ended(status) => self.bury(status, server)?,
                Happening::Due if server => {
                    if let Some(endpoints) = self.start_server().await? {
                        self.publish(&endpoints)?;
                        self.app.output.say("the control plane answers again");
                    }
                }
                Happening::Due => {
                    self.node.start().await?;
                    self.record()?;
                    self.app.output.say("the node runs again");
                }
            }
        }
    }

    fn bury(&mut self, status: ExitStatus, server: bool) -> Result<(), CliError> {
        let now = self.began.elapsed();
        let part = if server { &mut self.server } else { &mut self.node };
        let reason = part.reason(status);
        match part.restarts.died(now) {
            Decision::RestartAfter(pause) => {
                self.app.output.say(format!("the {} {reason}\n  it is started again in {} ms", part.name, pause.as_millis()));
                part.due = Some(Instant::now() + pause);
                Ok(())
            }
            Decision::GiveUp => Err(CliError::new(1, format!("the {} died five times within a minute; the last time it {reason}", part.name))
                .hint(format!("its whole log: {}", self.place.log().join(format!("{}.log", part.name)).display()))),
        }
    }

    /// Starts the server and waits until it answers; `None` when it died again and will be started once more.
    async fn start_server(&mut self) -> Result<Option<Endpoints>, CliError> {
        // What an earlier run left would be taken for the word of this one.
        for file in [self.place.server().join("endpoints.json"), self.place.join_token()] {
            let _ = std::fs::remove_file(file);
        }
        self.server.start().await?;
        self.record()?;
        let end = Instant::now() + SERVER_START;
        loop {
            let died = tokio::time::timeout(PACE, self.server.ended()).await;
            if let Ok(status) = died {
                if self.settled {
                    // The loop of `work` starts it again when its pause is over.
                    self.bury(status, true)?;
                    return Ok(None);
                }
                return Err(self.failed_start(status));
            }
            if let Some(endpoints) = self.endpoints()? {
                self.take_ticket()?;
                // A port that was free is ours from here on: nodes and logins remember it.
                if let Some(api) = endpoints.api.strip_prefix("https://") {
                    self.server.set("--listen", api);
                }
                self.server.set("--node-listen", &endpoints.node);
                return Ok(Some(endpoints));
            }
            if Instant::now() >= end {
                return Err(CliError::new(8, format!("the server does not answer after {} s", SERVER_START.as_secs()))
                    .hint(format!("its log: {}", self.place.log().join("server.log").display())));
            }
        }
    }

    fn failed_start(&self, status: ExitStatus) -> CliError {
        let log = self.place.log().join("server.log");
        match self.server.last_error() {
            Some(error) => CliError::new(1, format!("the control plane did not start: {error}")).hint(format!("its log: {}", log.display())),
            None => CliError::new(1, format!("the control plane did not start: it {}", self.server.reason(status))),
        }
    }

    /// What the running server wrote, and no earlier one.
    fn endpoints(&self) -> Result<Option<Endpoints>, CliError> {
        let Some(process) = self.server.process() else { return Ok(None) };
        let Some(text) = host::read_of(&self.place.server().join("endpoints.json"), self.account.uid)? else { return Ok(None) };
        Ok(serde_json::from_str::<Endpoints>(&text).ok().filter(|endpoints| i64::from(endpoints.pid) == i64::from(process.pid)))
    }

    /// Moves the first ticket to where root alone reads it.
    fn take_ticket(&mut self) -> Result<(), CliError> {
        let ticket = self.place.server().join("first-ticket");
        if let Some(text) = host::read_of(&ticket, self.account.uid)? {
            write_private(&self.ticket_file(), text.as_bytes())?;
            std::fs::remove_file(&ticket)?;
            self.born = true;
        }
        Ok(())
    }

    /// Writes where the deployment is reached: whoever waits for this file finds everything there.
    fn publish(&self, endpoints: &Endpoints) -> Result<(), CliError> {
        Endpoints { pid: std::process::id(), ..endpoints.clone() }.write(&self.place.data)
    }

    fn ticket_file(&self) -> PathBuf {
        self.place.data.join("first-ticket")
    }

    /// Lets the local node join the first time, starts it, and waits for its first plan.
    async fn start_node(&mut self, endpoints: &Endpoints) -> Result<(), CliError> {
        let file = self.place.join_token();
        if let Some(token) = host::read_of(&file, self.account.uid)? {
            let ca_pin: Sha256Digest = endpoints.ca_pin.parse().map_err(|_| CliError::new(1, "the server's pin is none"))?;
            let token = Zeroizing::new(token.trim().to_owned());
            let options = node::JoinOptions { url: endpoints.api.clone(), ca_pin, token, dir: self.place.node() };
            let joined = node::join(options).await.map_err(|error| {
                CliError::new(1, format!("the local node could not join: {}", chain(&error)))
                    .hint(format!("if {} is of an earlier deployment, swarm down --erase removes both", self.place.node().display()))
            })?;
            std::fs::remove_file(&file)?;
            self.app.output.say(format!("node {} joined (audit index {})", joined.name, joined.audit_index));
        }
        self.node.start().await?;
        self.record()?;
        let plan = self.place.node().join("plan.json");
        let end = Instant::now() + NODE_START;
        while !plan.exists() {
            if let Ok(status) = tokio::time::timeout(PACE, self.node.ended()).await {
                return Err(CliError::new(1, format!("the node did not start: it {}", self.node.reason(status)))
                    .hint("swarm doctor says what this machine lacks"));
            }
            if Instant::now() >= end {
                self.app.output.say(format!("the node has no plan yet; its log: {}", self.place.log().join("node.log").display()));
                break;
            }
        }
        Ok(())
    }

    /// What a person needs next.
    fn greet(&self, endpoints: &Endpoints) -> Result<(), CliError> {
        let login = format!("swarm login {} --ca-pin {}", endpoints.api, endpoints.ca_pin);
        let what_for = if endpoints.profile == "development" {
            "for trying and developing: a passphrase seals the keys, and nothing proves the hardware"
        } else {
            "the strict profile: what is not built yet is refused"
        };
        let say = |text: String| self.app.output.say(text);
        say(format!("\nSwarm is up. Profile {} ({what_for}).\n", endpoints.profile));
        say(format!("  API        {}", endpoints.api));
        say(format!("  CA pin     {}", endpoints.ca_pin));
        say(format!("  nodes      {}", endpoints.node));
        say(format!("  state      {} (control plane as user `{}`, node as root)", self.place.data.display(), self.account.name));
        say(format!("  logs       {}", self.place.log().display()));
        match self.ticket()? {
            Some(shown) if !self.born => {
                say(format!("\nLog in, in another terminal:\n  {login}"));
                say(format!("with --enrol, if nobody has used the first ticket yet: {shown}"));
            }
            Some(shown) => {
                say(format!("  ticket     {shown}"));
                say(format!("\nNext, in another terminal: log in with the ticket, which works once and for 15 minutes.\n  {login} --enrol"));
                say("  swarm tenant create NAME --admin YOU      a tenant; then log in again with --as NAME".to_owned());
            }
            None => say(format!("\nLog in, in another terminal:\n  {login}")),
        }
        say("\nCtrl-C stops the jobs and both parts.".to_owned());
        Ok(())
    }

    /// The ticket itself for a terminal, once; else the file that it is in. One that has lapsed is removed.
    fn ticket(&self) -> Result<Option<String>, CliError> {
        let file = self.ticket_file();
        let Some(text) = host::read_of(&file, 0)? else { return Ok(None) };
        let lapsed = std::fs::metadata(&file)?.modified()?.elapsed().is_ok_and(|age| age > TICKET_LIFE);
        let terminal = std::io::stderr().is_terminal() && !self.app.output.quiet;
        if lapsed || terminal {
            std::fs::remove_file(&file)?;
        }
        Ok(if lapsed {
            None
        } else if terminal {
            Some(crate::output::visible(text.trim()))
        } else {
            Some(format!("in {} (mode 0600)", file.display()))
        })
    }

    /// Writes down what runs, for `swarm down` and for the next start.
    fn record(&self) -> Result<(), CliError> {
        let parts = [&self.server, &self.node].into_iter().filter_map(|part| Some((part.name.to_owned(), part.process()?))).collect();
        self.place.write_running(&Running { version: 1, up: self.own.clone(), parts })
    }
}

/// Ends a part: SIGTERM, and SIGKILL when the time is over or somebody is impatient.
async fn stop(app: &App, part: &mut Part, limit: Duration, impatient: &mut (impl Future<Output = ()> + Unpin)) {
    if !part.runs() {
        return;
    }
    part.signal(Signal::TERM);
    let why = tokio::select! {
        _ = part.ended() => return,
        () = tokio::time::sleep(limit) => "it does not end",
        () = impatient => "you asked again",
    };
    app.output.say(format!("the {} is killed: {why}", part.name));
    part.signal(Signal::KILL);
    let _ = tokio::time::timeout(SERVER_STOP, part.ended()).await;
}

/// The ports of the last start: a node and every login remember them.
fn earlier_ports(place: &Place, uid: u32) -> (Option<u16>, Option<u16>) {
    let text = host::read_of(&place.server().join("endpoints.json"), uid).ok().flatten();
    let Some(endpoints) = text.and_then(|text| serde_json::from_str::<Endpoints>(&text).ok()) else { return (None, None) };
    let port = |address: &str| address.parse::<SocketAddr>().ok().map(|address| address.port());
    (endpoints.api.strip_prefix("https://").and_then(port), port(&endpoints.node))
}

/// Port 0 means any port the first time, and the same one from then on.
fn keep_port(asked: SocketAddr, earlier: Option<u16>) -> SocketAddr {
    match earlier {
        Some(port) if asked.port() == 0 => SocketAddr::new(asked.ip(), port),
        Some(_) | None => asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_chosen_once() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let fixed: SocketAddr = "127.0.0.1:7443".parse().unwrap();
        assert_eq!(keep_port(any, None), any);
        assert_eq!(keep_port(any, Some(4711)).port(), 4711);
        assert_eq!(keep_port(fixed, Some(4711)), fixed);
    }

    #[test]
    fn earlier_ports_come_from_the_servers_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path(), Some(folder.path())).unwrap();
        std::fs::create_dir(place.server()).unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(earlier_ports(&place, own), (None, None));
        let endpoints = Endpoints {
            version: 1,
            api: "https://127.0.0.1:1234".to_owned(),
            node: "127.0.0.1:1235".to_owned(),
            metrics: None,
            ca_pin: String::new(),
            pid: 1,
            profile: "development".to_owned(),
        };
        endpoints.write(&place.server()).unwrap();
        assert_eq!(earlier_ports(&place, own), (Some(1234), Some(1235)));
        assert_eq!(earlier_ports(&place, own.wrapping_add(1)), (None, None));
    }
}
