//! The grammar of the command line: `swarm NOUN VERB`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use vocabulary::{Jurisdiction, KeyId, Name, PrincipalId, Purpose, Region, Sensitivity, TenantId, TokenId};

use crate::output::Format;

/// Security for AI compute on machines that you do not own.
#[derive(Debug, Parser)]
#[command(name = "swarm", version, about, max_term_width = 110, after_help = "\
First steps:\n  swarm server --data-dir ./state                start a control plane; it prints its pin and a one-time ticket\n  \
swarm login https://127.0.0.1:7443 --ca-pin sha256:… --enrol\n  \
swarm volume create patients --project p --region eu-central --sensitivity internal --purpose research\n  \
swarm volume put patients ./data\n  swarm volume get patients ./copy\n  swarm audit verify")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How to print data
    #[arg(short, long, global = true, value_enum, default_value = "table", env = "SWARM_OUTPUT")]
    pub(crate) output: Format,
    /// Which login to use, when there are several
    #[arg(long, global = true, default_value = "default", env = "SWARM_CONTEXT")]
    pub(crate) context: String,
    /// Where logins are kept (default: the user's configuration folder)
    #[arg(long, global = true, env = "SWARM_CONFIG_DIR", value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,
    /// Say nothing but data and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Never ask: fail where an answer is needed
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Run a control plane alone
    Server(Server),
    /// Log in; the first time, enrol with the one-time ticket
    Login(Login),
    /// Log out: the token is revoked everywhere
    Logout,
    /// Show who I am
    Whoami,
    /// Show the deployment's state
    Status,
    /// Explain an error code
    Explain(Explain),
    /// Tenants
    #[command(subcommand)]
    Tenant(TenantVerb),
    /// Projects of the tenant
    #[command(subcommand)]
    Project(ProjectVerb),
    /// People of the tenant
    #[command(subcommand)]
    User(UserVerb),
    /// Programs of the tenant
    #[command(subcommand, name = "service-account")]
    ServiceAccount(ServiceAccountVerb),
    /// Tokens
    #[command(subcommand)]
    Token(TokenVerb),
    /// Sealed data
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Keys: their inventory and life, never the keys themselves
    #[command(subcommand)]
    Key(KeyVerb),
    /// What happened, and the proof of it
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Who may do what, and why
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Print shell completion
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Not built yet
    #[command(hide = true, name = "up")]
    Up(NotBuilt),
    /// Not built yet
    #[command(hide = true, name = "job")]
    Job(NotBuilt),
    /// Not built yet
    #[command(hide = true, name = "image")]
    Image(NotBuilt),
    /// Not built yet
    #[command(hide = true, name = "node")]
    Node(NotBuilt),
    /// Print the OpenAPI document of this version
    #[command(hide = true)]
    Openapi,
}

#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Where all state lies
    #[arg(long, default_value = "/var/lib/swarm", env = "SWARM_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// Address of the API
    #[arg(long, default_value = "127.0.0.1:7443", env = "SWARM_LISTEN")]
    pub(crate) listen: std::net::SocketAddr,
    /// Names and addresses for the server's certificate, beside the listen addresses
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// `development` or `production`; chosen when the deployment is made and never changed
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Name of the first administrator
    #[arg(long, default_value = "admin")]
    pub(crate) admin: Name,
    /// File with the passphrase of the seal, mode 0600 (default: asked for on the terminal)
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The API's address; remembered after the first time
    pub(crate) url: Option<String>,
    /// The pin of the deployment's root, as the server printed it; needed the first time
    #[arg(long, value_name = "sha256:…")]
    pub(crate) ca_pin: Option<String>,
    /// Which principal: `operator`, or the tenant's name
    #[arg(long = "as", value_name = "operator|TENANT")]
    pub(crate) login_as: Option<String>,
    /// The name (asked for when absent)
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Enrol with a one-time ticket: password and authenticator are set up first
    #[arg(long)]
    pub(crate) enrol: bool,
    /// Read ticket or code and password from standard input, one a line, instead of the terminal
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Use this token (read from standard input) instead of a person's login
    #[arg(long)]
    pub(crate) token_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The code, such as `release_refused`; without one, all are listed
    pub(crate) code: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantVerb {
    /// Make a tenant and its first administrator
    Create {
        /// Its name
        name: Name,
        /// The administrator: a person that exists, or a new name
        #[arg(long)]
        admin: Name,
    },
    /// List tenants
    List,
    /// Suspend a tenant: nobody of it may do anything
    Suspend {
        /// The tenant
        id: TenantId,
    },
    /// End a suspension
    Resume {
        /// The tenant
        id: TenantId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectVerb {
    /// Make a project
    Create {
        /// Its name
        name: Name,
    },
    /// List projects
    List,
}

/// Roles and clearance.
#[derive(Debug, Args)]
pub(crate) struct Rights {
    /// `admin`, `engineer`, `viewer`, `auditor`; `engineer@PROJECT-ID` for one project
    #[arg(long = "role", required = true)]
    pub(crate) roles: Vec<String>,
    /// The most sensitive data: public, internal, confidential, regulated
    #[arg(long, default_value = "internal")]
    pub(crate) clearance: Sensitivity,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserVerb {
    /// Invite a person: prints a one-time ticket
    Create {
        /// The person's name
        name: Name,
        #[command(flatten)]
        rights: Rights,
    },
    /// List users and service accounts
    List,
    /// Change roles and clearance
    Update {
        /// The principal
        id: PrincipalId,
        #[command(flatten)]
        rights: Rights,
    },
    /// Detach a user from this tenant; the person keeps its factors
    Delete {
        /// The principal
        id: PrincipalId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceAccountVerb {
    /// Make a service account
    Create {
        /// Its name
        name: Name,
        #[command(flatten)]
        rights: Rights,
    },
    /// List users and service accounts
    List,
    /// Delete a service account and its tokens
    Delete {
        /// The principal
        id: PrincipalId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token, printed once
    Create {
        /// What it is for
        note: Name,
        /// For this service account instead of yourself
        #[arg(long)]
        service_account: Option<PrincipalId>,
        /// Life in seconds
        #[arg(long, default_value_t = 86_400)]
        lifetime: u64,
    },
    /// List tokens
    List,
    /// Revoke a token everywhere
    Revoke {
        /// The token's id
        id: TokenId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeVerb {
    /// Make a volume
    Create {
        /// Its name
        name: Name,
        /// Its project: name or id
        #[arg(long)]
        project: String,
        /// Where the sealed bytes lie
        #[arg(long)]
        region: Region,
        /// Where it may be opened; repeat for several, leave out for anywhere
        #[arg(long = "jurisdiction")]
        jurisdictions: Vec<Jurisdiction>,
        /// public, internal, confidential, regulated
        #[arg(long)]
        sensitivity: Sensitivity,
        /// What it may be used for
        #[arg(long)]
        purpose: Purpose,
        /// The least trust of a node that may open it (default: by sensitivity)
        #[arg(long)]
        min_trust: Option<u8>,
    },
    /// Seal files or folders on this machine and store them
    Put {
        /// The volume: name or id
        volume: String,
        /// Files and folders
        #[arg(required = true)]
        sources: Vec<PathBuf>,
    },
    /// Fetch, verify and open on this machine
    Get {
        /// The volume: name or id
        volume: String,
        /// Where to; must not hold files of the same names
        #[arg(default_value = ".")]
        target: PathBuf,
        /// Only this file
        #[arg(long)]
        file: Option<String>,
        /// Replace files that are there
        #[arg(long)]
        overwrite: bool,
    },
    /// List volumes
    List,
    /// Show a volume and the files in it
    Show {
        /// The volume: name or id
        volume: String,
        /// Open it and list its files
        #[arg(long)]
        files: bool,
    },
    /// Check every sealed byte against the signed root
    Verify {
        /// The volume: name or id
        volume: String,
    },
    /// New data key for what is written from now on
    Rotate {
        /// The volume: name or id
        volume: String,
    },
    /// Destroy a volume's keys and forget it
    Delete {
        /// The volume: name or id
        volume: String,
        /// Do not ask for the name
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// List keys
    List,
    /// Rotate the tenant's key: wraps its data keys anew
    RotateTenant,
    /// Destroy a key: what it sealed is gone
    Destroy {
        /// The key
        id: KeyId,
        /// Do not ask for the id
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// Show the newest entries
    Tail {
        /// Go on
        #[arg(short, long)]
        follow: bool,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u64,
    },
    /// Search entries
    Search {
        /// The action, such as volumeDelete
        #[arg(long)]
        action: Option<String>,
        /// Who
        #[arg(long)]
        actor: Option<String>,
        /// What, such as volume/0190…
        #[arg(long)]
        resource: Option<String>,
        /// allowed, refused, failed
        #[arg(long)]
        outcome: Option<String>,
    },
    /// Verify the whole log and this tenant's entries in it
    Verify,
    /// Write entries with salts and proofs as JSON lines, for tools that are not ours
    Export {
        /// The folder: tiles, checkpoint, entries
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Explain a recorded decision, or what would be decided
    Explain {
        /// A decision that was recorded
        audit_index: Option<u64>,
        /// The principal
        #[arg(long = "as", requires = "action")]
        principal: Option<PrincipalId>,
        /// The action
        #[arg(long, requires = "on")]
        action: Option<String>,
        /// The resource, such as volume/0190…
        #[arg(long)]
        on: Option<String>,
    },
}

/// A noun of a later version: it refuses by name.
#[derive(Debug, Args)]
pub(crate) struct NotBuilt {
    /// Whatever was typed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
