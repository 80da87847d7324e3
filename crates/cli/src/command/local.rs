//! `swarm server`: a control plane in the foreground.

use std::io::IsTerminal as _;

use control::{Server, ServerConfig};
use vocabulary::Profile;
use zeroize::Zeroizing;

use crate::app::App;
use crate::args;
use crate::context::write_private;
use crate::error::{CliError, chain};
use crate::prompt;

pub(crate) async fn server(app: &App, args: args::Server) -> Result<(), CliError> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("SWARM_LOG").unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    let profile = match args.profile.as_deref() {
        None => None,
        Some("development") => Some(Profile::Development),
        Some("production") => Some(Profile::Production),
        Some(_) => return Err(CliError::usage("--profile is `development` or `production`")),
    };
    let passphrase = match &args.passphrase_file {
        Some(path) => prompt::secret_file(path)?,
        None => ask_passphrase(app)?,
    };
    std::fs::create_dir_all(&args.data_dir)?;
    let config = ServerConfig {
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        node_listen: std::net::SocketAddr::new(args.listen.ip(), if args.listen.port() == 0 { 0 } else { args.listen.port().saturating_add(1) }),
        local_node: None,
        hosts: args.host,
        profile,
        admin: args.admin,
        passphrase,
    };
    let mut server = Server::start(config).await.map_err(|error| CliError::new(1, chain(&error)))?;
    let endpoints = serde_json::json!({"version": 1, "api": format!("https://{}", server.address()), "ca_pin": server.pin().to_string()});
    write_private(&args.data_dir.join("endpoints.json"), format!("{endpoints}\n").as_bytes())?;
    app.output.say(format!("API            https://{}", server.address()));
    app.output.say(format!("CA pin         {}", server.pin()));
    app.output.say(format!("profile        {} (never changes)", server.profile().as_str()));
    if let Some(ticket) = server.take_ticket() {
        // Once, and to a terminal only: what goes to a file of logs is no secret any more.
        if std::io::stderr().is_terminal() {
            app.output.say(format!("first ticket   {}", ticket.as_str()));
        } else {
            let path = args.data_dir.join("first-ticket");
            write_private(&path, format!("{}\n", ticket.as_str()).as_bytes())?;
            app.output.say(format!("first ticket   in {} (mode 0600; works once, for 15 minutes)", path.display()));
        }
        app.output.say(format!("first login    swarm login https://{} --ca-pin {} --enrol", server.address(), server.pin()));
    }
    app.output.say("ready; Ctrl-C stops");
    wait_for_end().await?;
    app.output.say("stopping: requests in flight end, the log is published");
    server.stop().await;
    Ok(())
}

fn ask_passphrase(app: &App) -> Result<Zeroizing<String>, CliError> {
    prompt::secret("Passphrase of the seal (a new deployment takes it as its own): ", app.no_input)
}

async fn wait_for_end() -> Result<(), CliError> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
