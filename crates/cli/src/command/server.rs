//! `swarm server`: a control plane in the foreground, or as a part of `swarm up`.

use std::io::IsTerminal as _;

use control::{LocalNode, Needs, PostgresUrl, Prepared, Server, ServerConfig, Unseal, UrlError};
use tokio_util::sync::CancellationToken;
use vocabulary::{Labels, Profile};
use vocabulary::plan::NodePlace;
use zeroize::Zeroizing;

use crate::app::App;
use crate::args;
use crate::context::write_private;
use crate::error::{CliError, chain};
use crate::host::{self, Account};
use crate::place::Endpoints;
use crate::prompt;
use crate::settings::{self, ServerSettings};

/// Goes on as another user, if that is asked for. Only before any thread exists: a thread keeps the rights that it began with.
pub(crate) fn drop_privileges(app: &App, args: &args::Server) -> Result<(), CliError> {
    let Some(name) = &args.user else {
        if host::is_root() && !args.supervised {
            app.output.say("running as root, which a control plane needs for nothing: --user swarm goes on as that user");
        }
        return Ok(());
    };
    if !host::is_root() {
        let own = Account::find(name)?.is_some_and(|account| account.uid == rustix::process::geteuid().as_raw());
        return if own { Ok(()) } else { Err(CliError::usage("--user: only root may go on as another user")) };
    }
    let account = Account::find_or_make(name, |text| app.output.say(text))?;
    std::fs::create_dir_all(&args.data_dir).map_err(|error| CliError::new(1, format!("{}: {error}", args.data_dir.display())))?;
    if let Some(folder) = account.blocked_at(&std::fs::canonicalize(&args.data_dir)?.join("state.db")) {
        return Err(blocked(&account, &folder));
    }
    account.own(&args.data_dir)?;
    account.become_it()
}

/// Why a user cannot work there, and the three ways out.
pub(crate) fn blocked(account: &Account, folder: &std::path::Path) -> CliError {
    CliError::usage(format!("the user `{}`, as whom the control plane runs, may not pass through {}", account.name, folder.display())).hint(format!(
        "chmod o+x {}, or choose another --data-dir, or stay root with --user root",
        folder.display()
    ))
}

pub(crate) async fn server(app: &App, args: args::Server) -> Result<(), CliError> {
    let stop = CancellationToken::new();
    let given = if args.supervised { Some(prompt::secret_of_parent()?) } else { None };
    if args.supervised {
        end_with_parent(stop.clone());
    }
    // What cannot be read is refused before any state is touched.
    let at_hand = in_files(&args)?;
    std::fs::create_dir_all(&args.data_dir).map_err(|error| CliError::new(1, format!("{}: {error}", args.data_dir.display())))?;
    let local_node = args.local_join.clone().map(|join_file| LocalNode {
        join_file,
        name: args.local_node.clone(),
        place: NodePlace { region: args.local_region.clone(), jurisdiction: args.local_jurisdiction.clone(), labels: Labels::new() },
    });
    let config = ServerConfig {
        data_dir: args.data_dir.clone(),
        listen: args.addresses.listen,
        hosts: args.addresses.host.clone(),
        node_listen: args.addresses.node_listen,
        metrics_listen: args.addresses.metrics_listen,
        tracer: app.tracer.clone(),
        local_node,
        profile: profile(args.profile.as_deref())?,
        admin: args.admin.clone(),
        passphrase: Zeroizing::default(),
        database: database(&args.state)?,
        objects: args.state.objects.clone(),
        shred_list: args.state.shred_list.clone(),
    };
    let failed = |error: control::StartError| CliError::new(1, chain(&error));
    let prepared = Prepared::open(config).await.map_err(failed)?;
    settings::leave(&args.data_dir, &ServerSettings::of(&args, app.otlp.is_some()))?;
    let unseal = match at_hand {
        Some(unseal) => Some(unseal),
        None => unseal(app, &args, prepared.needs(), given)?,
    };
    let started = match unseal {
        Some(unseal) => Some(prepared.start(unseal).await.map_err(failed)?),
        None => wait_sealed(app, &args, prepared, &stop).await?,
    };
    let Some(mut server) = started else { return Ok(()) };
    let ticket = server.take_ticket();
    let login = format!("swarm login https://{} --ca-pin {} --enrol", server.address(), server.pin());
    app.output.say(format!("API            https://{}", server.address()));
    app.output.say(format!("nodes          {}", server.node_address()));
    if let Some(address) = server.metrics_address() {
        app.output.say(format!("metrics        http://{address}/metrics (this machine only)"));
    }
    app.output.say(format!("CA pin         {}", server.pin()));
    app.output.say(format!("profile        {} (never changes)", server.profile().as_str()));
    if let Some(ticket) = ticket {
        // Once, and to a terminal only: what goes to a file of logs is no secret any more.
        if std::io::stderr().is_terminal() && !app.output.quiet && !crate::logs::are_json() {
            app.output.say(format!("first ticket   {}", ticket.as_str()));
        } else {
            let path = args.data_dir.join("first-ticket");
            write_private(&path, format!("{}\n", ticket.as_str()).as_bytes())?;
            app.output.say(format!("first ticket   in {} (mode 0600; works once, for 15 minutes)", path.display()));
        }
        app.output.say(format!("first login    {login}"));
    }
    // Last, since it says to others that everything else is there.
    let endpoints = Endpoints {
        version: 1,
        api: format!("https://{}", server.address()),
        node: server.node_address().to_string(),
        metrics: server.metrics_address().map(|address| format!("http://{address}/metrics")),
        ca_pin: server.pin().to_string(),
        pid: std::process::id(),
        profile: server.profile().as_str().to_owned(),
    };
    endpoints.write(&args.data_dir)?;
    host::notify("READY=1");
    app.output.say("ready; Ctrl-C stops");
    tokio::select! {
        ended = asked_to_end() => ended?,
        () = stop.cancelled() => {}
    }
    host::notify("STOPPING=1");
    app.output.say("stopping: requests in flight end, the log is published");
    server.stop().await;
    Ok(())
}

pub(crate) fn profile(text: Option<&str>) -> Result<Option<Profile>, CliError> {
    match text {
        None => Ok(None),
        Some("development") => Ok(Some(Profile::Development)),
        Some("production") => Ok(Some(Profile::Production)),
        Some(_) => Err(CliError::usage("--profile is `development` or `production`")),
    }
}

/// The database's URL. What was typed is not repeated: it may hold a password that does not belong there.
pub(crate) fn database_url(state: &args::State) -> Result<Option<PostgresUrl>, CliError> {
    let Some(text) = &state.database else { return Ok(None) };
    text.parse().map(Some).map_err(|error: UrlError| CliError::usage(format!("--database: {error}")))
}

/// The same with its password, if there is one.
fn database(state: &args::State) -> Result<Option<PostgresUrl>, CliError> {
    let Some(url) = database_url(state)? else { return Ok(None) };
    Ok(Some(match &state.database_password_file {
        Some(file) => url.with_password(prompt::secret_file(file)?),
        None => url,
    }))
}

/// What opens the seal, as far as files hold it.
fn in_files(args: &args::Server) -> Result<Option<Unseal>, CliError> {
    if args.sealed {
        return Ok(None);
    }
    if !args.share_file.is_empty() {
        let shares: Result<Vec<_>, CliError> = args.share_file.iter().map(|file| prompt::secret_file(file)).collect();
        return Ok(Some(Unseal::Shares(shares?)));
    }
    args.passphrase_file.as_ref().map(|path| prompt::secret_file(path).map(Unseal::Passphrase)).transpose()
}

/// What the person or the supervisor gives to open the seal; `None` starts the server sealed.
fn unseal(app: &App, args: &args::Server, needs: Needs, given: Option<Zeroizing<String>>) -> Result<Option<Unseal>, CliError> {
    if args.sealed {
        return Ok(None);
    }
    if let Some(shares) = given.as_deref().filter(|given| given.starts_with(keys::share::PREFIX)) {
        let shares = shares.split(',').filter(|share| !share.is_empty()).map(|share| Zeroizing::new(share.to_owned()));
        return Ok(Some(Unseal::Shares(shares.collect())));
    }
    match (given, needs) {
        // A new deployment cannot wait sealed: the empty passphrase is refused by name.
        (Some(given), needs) if !given.is_empty() || needs == Needs::NewPassphrase => Ok(Some(Unseal::Passphrase(given))),
        (Some(_), Needs::Passphrase | Needs::Shares { .. } | Needs::NewPassphrase) => Ok(None),
        (None, Needs::NewPassphrase | Needs::Passphrase) => {
            prompt::secret("Passphrase of the seal (a new deployment takes it as its own): ", app.no_input).map(|text| Some(Unseal::Passphrase(text)))
        }
        // Custodians are seldom all at this terminal: those who are not come by the API.
        (None, Needs::Shares { .. }) => Ok(None),
    }
}

/// Listens with the seal closed until it is opened, or until we are told to end.
async fn wait_sealed(app: &App, args: &args::Server, prepared: Prepared, stop: &CancellationToken) -> Result<Option<Server>, CliError> {
    let failed = |error: control::StartError| CliError::new(1, chain(&error));
    let needs = prepared.needs();
    let sealed = prepared.start_sealed().await.map_err(failed)?;
    let how = match needs {
        Needs::Shares { threshold } => format!("{threshold} shares open it"),
        Needs::NewPassphrase | Needs::Passphrase => "its passphrase opens it".to_owned(),
    };
    app.output.say(format!("API            https://{} (sealed: it answers 503)", sealed.address()));
    app.output.say(format!("CA pin         {}", sealed.pin()));
    let endpoints = Endpoints {
        version: 1,
        api: format!("https://{}", sealed.address()),
        node: args.addresses.node_listen.to_string(),
        metrics: None,
        ca_pin: sealed.pin().to_string(),
        pid: std::process::id(),
        profile: sealed.profile().as_str().to_owned(),
    };
    endpoints.write(&args.data_dir)?;
    host::notify("READY=1");
    app.output.say(format!("sealed; {how}: swarm seal open https://{} --ca-pin {}", sealed.address(), sealed.pin()));
    let ended = tokio::select! {
        () = sealed.opened() => None,
        ended = asked_to_end() => Some(ended),
        () = stop.cancelled() => Some(Ok(())),
    };
    match ended {
        None => sealed.go_on().await.map(Some).map_err(failed),
        Some(ended) => {
            sealed.stop().await;
            ended.map(|()| None)
        }
    }
}

/// Cancels once standard input ends, which a supervisor holds open for as long as it lives, however it dies.
pub(crate) fn end_with_parent(stop: CancellationToken) {
    std::thread::spawn(move || {
        let mut waste = [0; 64];
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut waste) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        stop.cancel();
    });
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn asked_to_end() -> Result<(), CliError> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
