//! `swarm`: the control plane, the node agent and the command line in one program.

mod app;
mod args;
mod client;
mod command;
mod context;
mod error;
#[cfg(debug_assertions)]
mod fault;
mod host;
mod logs;
mod output;
mod place;
mod progress;
mod prompt;
mod registry;
mod settings;
mod supervise;
mod traces;
mod trust;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::app::App;
use crate::args::{Cli, Noun};
use crate::error::{CliError, LocalProblem};
use crate::output::{Format, note, visible};

fn main() -> ExitCode {
    // The shim of a job is this program started again. It must branch off before any thread, runtime or logger exists.
    if let Some(code) = runtime::shim::branch(std::env::args_os()) {
        return code;
    }
    #[cfg(debug_assertions)]
    fault::arm();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Programs that asked for JSON get it here, too; help and versions are no errors.
        Err(error) if error.use_stderr() && asks_for_json() => {
            report(&CliError::from(&error), Format::Json, false);
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    let (format, quiet) = (cli.global.output, cli.global.quiet);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, format, quiet);
            ExitCode::from(error.exit)
        }
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    let app = App::new(&cli.global);
    if let Noun::Server(server) = &cli.noun
        && server.verb.is_none()
    {
        logs::start()?;
        // Before any thread exists: a thread keeps the rights that it began with.
        command::server::drop_privileges(&app, server)?;
    }
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|error| CliError::new(1, format!("no runtime: {error}")))?;
    let result = runtime.block_on(traces::run(app, cli.noun));
    // A prompt that still waits for a line must not keep the program alive.
    runtime.shutdown_background();
    result
}

async fn dispatch(app: &App, noun: Noun) -> Result<(), CliError> {
    match noun {
        Noun::Up(up) => command::up::up(app, *up).await,
        Noun::Down(down) => command::down::down(app, down).await,
        Noun::Server(server) if server.verb.is_some() => command::backup::verb(app, server.verb).await,
        Noun::Server(server) => command::server::server(app, *server).await,
        Noun::Login(login) => command::login::login(app, login).await,
        Noun::Logout => command::login::logout(app).await,
        Noun::Whoami => command::access::whoami(app).await,
        Noun::Status => command::tenant::status(app).await,
        Noun::Doctor => command::doctor::doctor(app).await,
        Noun::Verify(verify) => command::verify::verify(app, &verify),
        Noun::Support(verb) => command::support::support(app, verb).await,
        Noun::Explain(explain) => command::explain::explain(app, explain.code.as_deref()),
        Noun::Quota(verb) => command::quota::quota(app, verb).await,
        Noun::Tenant(verb) => command::tenant::tenant(app, verb).await,
        Noun::Project(verb) => command::tenant::project(app, verb).await,
        Noun::User(verb) => command::access::user(app, verb).await,
        Noun::ServiceAccount(verb) => command::access::service_account(app, verb).await,
        Noun::Token(verb) => command::token::token(app, verb).await,
        Noun::Node(verb) => command::node::node(app, verb).await,
        Noun::Volume(verb) => command::volume::volume(app, verb).await,
        Noun::Secret(verb) => command::secret::secret(app, verb).await,
        Noun::Image(verb) => command::image::image(app, verb).await,
        Noun::Job(verb) => command::job::job(app, verb).await,
        Noun::Key(verb) => command::key::key(app, verb).await,
        Noun::Audit(verb) => command::audit::audit(app, verb).await,
        Noun::Policy(verb) => command::policy::policy(app, verb).await,
        Noun::Deployment(verb) => command::deployment::deployment(app, verb).await,
        Noun::Seal(verb) => command::seal::seal(app, verb).await,
        Noun::Witness(witness) => command::witness::witness(app, *witness).await,
        Noun::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "swarm", &mut script);
            output::bytes(&script)
        }
        Noun::Man { folder } => Ok(clap_mangen::generate_to(Cli::command(), folder)?),
        Noun::Openapi => output::line(&control::openapi()),
    }
}

/// Whether a line that clap does not understand asks for JSON: what is left of it when the errors are passed over.
fn asks_for_json() -> bool {
    let flags = std::env::args_os().skip(1).take_while(|argument| argument != "--").collect::<Vec<_>>();
    let json = |value: &std::ffi::OsStr| value == "json" || value == "jsonl";
    let mut named = None;
    for (place, flag) in flags.iter().enumerate() {
        let text = flag.to_string_lossy();
        let value = if flag == "-o" || flag == "--format" {
            flags.get(place.saturating_add(1)).cloned()
        } else {
            text.strip_prefix("--format=").or_else(|| text.strip_prefix("-o")).map(|value| value.trim_start_matches('=').into())
        };
        named = value.or(named);
    }
    named.or_else(|| std::env::var_os("SWARM_OUTPUT")).is_some_and(|value| json(&value))
}

/// Prints an error: message, audit index, rules, hint; with `-o json` the server's problem document, or one of our own.
fn report(error: &CliError, format: Format, quiet: bool) {
    if error.message.is_empty() {
        return;
    }
    if logs::are_json() {
        return logs::line("ERROR", &visible(&error.message), error.code().map(|code| code.as_str()), error.hint.as_deref());
    }
    if matches!(format, Format::Json | Format::Jsonl) {
        let text = match &error.problem {
            Some(problem) => output::one_json_line(problem),
            None => output::one_json_line(&LocalProblem::from(error)),
        };
        if let Ok(text) = text {
            return note(&text);
        }
    }
    let code = error.code().map_or_else(String::new, |code| format!(" [{code}]"));
    note(&format!("error{code}: {}", visible(&error.message)));
    if let Some(problem) = &error.problem {
        if let Some(index) = problem.audit_index {
            note(&format!("audit index: {index}"));
        }
        if !problem.rules.is_empty() {
            note(&format!("rules: {}", visible(&problem.rules.join(", "))));
        }
    }
    if let Some(hint) = error.hint.as_ref().filter(|_| !quiet) {
        note(&format!("hint: {}", visible(hint)));
    }
}
