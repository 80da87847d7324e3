//! The grammar of the command line: `swarm NOUN VERB`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use vocabulary::runtime::Runtime;
use vocabulary::{JobId, Jurisdiction, KeyId, Name, PrincipalId, Purpose, Region, Sensitivity, Sha256Digest, TenantId, TokenId};

use crate::output::Format;

/// Security for AI compute on machines that you do not own.
#[derive(Debug, Parser)]
#[command(name = "swarm", version, about, max_term_width = 110, after_help = "\
First steps:\n  swarm doctor                                what this machine offers, and what is missing\n  swarm up                                    start a control plane and a node on this machine\n  \
swarm login https://127.0.0.1:7443 --ca-pin sha256:… --enrol\n  \
swarm volume create patients --project p --region local --sensitivity internal --purpose research\n  \
swarm volume put patients ./data\n  swarm image import ./image.tar --name sklearn\n  \
swarm job run sklearn --project p --purpose research --input patients --code ./src -- python3 /code/train.py\n  \
swarm job receipt JOB > receipt.json && swarm verify receipt.json\n\n\
Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 denied, 5 conflict, 6 verification failed, 7 refused by a guardrail,\n\
8 timeout, 130 interrupted; `swarm job run` passes the job's own code through (125: Swarm itself failed).")]
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
    #[arg(short = 'o', long = "format", global = true, value_enum, default_value = "table", env = "SWARM_OUTPUT")]
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
    /// Collector of OpenTelemetry that gets traces, by OTLP over HTTP: http:// on this machine, https:// elsewhere (default: none)
    #[arg(long, global = true, env = "SWARM_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Start a control plane and a node on this machine, and keep them running
    Up(Box<Up>),
    /// Stop what `swarm up` started
    Down(Down),
    /// Run a control plane alone
    Server(Box<Server>),
    /// Log in; the first time, enrol with the one-time ticket
    Login(Login),
    /// Log out: the token is revoked everywhere
    Logout,
    /// Show who I am
    Whoami,
    /// Show the deployment's state
    Status,
    /// Say what this machine offers to jobs, and what each missing piece costs
    Doctor,
    /// Verify a receipt, or a release of this program: offline, without a login
    Verify(Verify),
    /// Make a file for whoever helps from afar, with nobody's data in it
    #[command(subcommand)]
    Support(SupportVerb),
    /// Explain an error code
    Explain(Explain),
    /// Tenants
    #[command(subcommand)]
    Tenant(TenantVerb),
    /// Projects of the tenant
    #[command(subcommand)]
    Project(ProjectVerb),
    /// Quotas: how much a tenant or project may have at once
    #[command(subcommand)]
    Quota(QuotaVerb),
    /// People of the tenant
    #[command(subcommand)]
    User(UserVerb),
    /// Programs of the tenant
    #[command(subcommand, name = "service-account")]
    ServiceAccount(ServiceAccountVerb),
    /// Tokens
    #[command(subcommand)]
    Token(TokenVerb),
    /// Nodes: the machines that run jobs
    #[command(subcommand)]
    Node(NodeVerb),
    /// Sealed data
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Secrets that jobs are given: tokens, passwords
    #[command(subcommand)]
    Secret(SecretVerb),
    /// Images that jobs run
    #[command(subcommand)]
    Image(ImageVerb),
    /// Jobs
    #[command(subcommand)]
    Job(JobVerb),
    /// Keys: their inventory and life, never the keys themselves
    #[command(subcommand)]
    Key(KeyVerb),
    /// What happened, and the proof of it
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Who may do what, and why
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// The deployment's public file, with which anybody verifies receipts
    #[command(subcommand)]
    Deployment(DeploymentVerb),
    /// The seal of the deployment's root key
    #[command(subcommand)]
    Seal(SealVerb),
    /// Run a witness: sign that logs only grow (C2SP tlog-witness over HTTP)
    Witness(Box<Witness>),
    /// Print shell completion
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: PathBuf,
    },
    /// Print the OpenAPI document of this version
    #[command(hide = true)]
    Openapi,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Everything lies below --data-dir: server/ (the control plane's, user `swarm`), node/ (root's), log/, and endpoints.json with\n\
the addresses and the pin. SIGKILL leaves jobs running under their shims; the next swarm up finds them again.")]
pub(crate) struct Up {
    /// Where all state lies
    #[arg(long, default_value = crate::place::DATA_DIR, env = "SWARM_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where the record of what runs lies (default: /run/swarm; with another --data-dir, its folder `run`)
    #[arg(long, env = "SWARM_RUN_DIR", value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    #[command(flatten)]
    pub(crate) state: State,
    /// `development` or `production`; chosen when the deployment is made and never changed
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Name of the first administrator
    #[arg(long, default_value = "admin")]
    pub(crate) admin: Name,
    /// File with the passphrase of the seal, mode 0600 (default: asked for on the terminal)
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// File with a share of the seal, mode 0600; repeat for several
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    pub(crate) share_file: Vec<PathBuf>,
    /// As whom the control plane runs; made as a system user when absent; `root` stays root
    #[arg(long, default_value = "swarm")]
    pub(crate) user: String,
    /// Region of the local node
    #[arg(long, default_value = "local")]
    pub(crate) region: Region,
    /// Jurisdiction of the local node
    #[arg(long, default_value = "LOCAL")]
    pub(crate) jurisdiction: Jurisdiction,
    /// Control group below which jobs run (default: `swarm`, or one that follows from --data-dir)
    #[arg(long, value_name = "NAME")]
    pub(crate) cgroup_parent: Option<String>,
    #[command(flatten)]
    pub(crate) gpus: Gpus,
    #[command(flatten)]
    pub(crate) ids: Ids,
    /// Show what both parts say, not only when one dies
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Where all state lies
    #[arg(long, default_value = crate::place::DATA_DIR, env = "SWARM_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Where the record of what runs lies (default: /run/swarm; with another --data-dir, its folder `run`)
    #[arg(long, env = "SWARM_RUN_DIR", value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Control group below which its jobs ran, if another was chosen for swarm up
    #[arg(long, value_name = "NAME")]
    pub(crate) cgroup_parent: Option<String>,
    /// Erase all of it: data, keys, log, mounts, control groups
    #[arg(long)]
    pub(crate) erase: bool,
    /// Do not ask for the folder's name before erasing
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Where a control plane listens.
#[derive(Debug, Args)]
pub(crate) struct Addresses {
    /// Address of the API; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:7443", env = "SWARM_LISTEN")]
    pub(crate) listen: std::net::SocketAddr,
    /// Address of the nodes' channel; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:7444", env = "SWARM_NODE_LISTEN")]
    pub(crate) node_listen: std::net::SocketAddr,
    /// Where metrics are read by Prometheus, in clear and without a credential: an address of this machine, such as
    /// 127.0.0.1:7445; port 0 picks a free one (default: nowhere)
    #[arg(long, env = "SWARM_METRICS_LISTEN", value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<std::net::SocketAddr>,
    /// Names and addresses for the server's certificate, beside the listen addresses
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
}

/// Where a control plane keeps its state.
#[derive(Debug, Clone, Args)]
pub(crate) struct State {
    /// PostgreSQL that several control planes share: `postgres:///DATABASE?host=/FOLDER&user=USER` by a Unix socket,
    /// `postgres://USER@HOST/DATABASE?sslrootcert=FILE` by TLS (default: a file in --data-dir)
    #[arg(long, value_name = "URL", env = "SWARM_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// File with the database's password, mode 0600, which the server's user may read; without it none is sent
    #[arg(long, value_name = "FILE", requires = "database")]
    pub(crate) database_password_file: Option<PathBuf>,
    /// Folder of the objects (sealed data, images, the log's tiles), which all control planes of the deployment must see
    /// (default: in --data-dir)
    #[arg(long, value_name = "DIR", requires = "database")]
    pub(crate) objects: Option<PathBuf>,
    /// File that says what was destroyed, for a restore; best on another disk than the data (default: in --data-dir)
    #[arg(long, value_name = "FILE", env = "SWARM_SHRED_LIST", conflicts_with = "database")]
    pub(crate) shred_list: Option<PathBuf>,
}

/// Host ids that jobs are mapped to.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Ids {
    /// First host id of jobs: each gets 65,536 of its own (default: a range that no distribution gives away)
    #[arg(long, default_value_t = 0x7000_0000, value_name = "ID")]
    pub(crate) id_base: u32,
    /// How many jobs may run at once
    #[arg(long, default_value_t = 64, value_name = "COUNT")]
    pub(crate) id_blocks: u32,
}

/// GPUs that the node offers.
#[derive(Debug, Args)]
pub(crate) struct Gpus {
    /// Directory with specifications of this node's GPUs (Container Device Interface, JSON)
    #[arg(long = "cdi-dir", value_name = "DIR", default_values = ["/etc/cdi", "/run/cdi"])]
    pub(crate) cdi_dirs: Vec<PathBuf>,
    /// Program that cleans a GPU between two jobs, given its name; without one no GPU is offered
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) gpu_scrub: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Server {
    #[command(subcommand)]
    pub(crate) verb: Option<ServerVerb>,
    /// Where all state lies
    #[arg(long, default_value = "/var/lib/swarm/server", env = "SWARM_SERVER_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) addresses: Addresses,
    #[command(flatten)]
    pub(crate) state: State,
    /// `development` or `production`; chosen when the deployment is made and never changed
    #[arg(long)]
    pub(crate) profile: Option<String>,
    /// Name of the first administrator
    #[arg(long, default_value = "admin")]
    pub(crate) admin: Name,
    /// File with the passphrase of the seal, mode 0600 (default: asked for on the terminal)
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// File with a share of the seal, mode 0600; repeat for several
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    pub(crate) share_file: Vec<PathBuf>,
    /// Start with the seal closed, and wait for `swarm seal open`
    #[arg(long, conflicts_with_all = ["passphrase_file", "share_file"])]
    pub(crate) sealed: bool,
    /// Go on as this user when started as root; made as a system user when absent
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// On a deployment without any node: leave a join token for the local one in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) local_join: Option<PathBuf>,
    /// Name of that node
    #[arg(long, default_value = "local", requires = "local_join")]
    pub(crate) local_node: Name,
    /// Its region
    #[arg(long, default_value = "local", requires = "local_join")]
    pub(crate) local_region: Region,
    /// Its jurisdiction
    #[arg(long, default_value = "LOCAL", requires = "local_join")]
    pub(crate) local_jurisdiction: Jurisdiction,
    /// A part of `swarm up`: the passphrase comes on standard input (an empty line: start sealed), whose end ends the server
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

/// Help from afar.
#[derive(Debug, Subcommand)]
pub(crate) enum SupportVerb {
    /// Make a support bundle: versions, sizes, counts, verdicts, metrics, and the program's own words out of logs
    #[command(after_help = "\
Chosen is what goes in: numbers, dates, and words of this program. No names, addresses, paths, ids, rows, keys or data; the\n\
manifest in it says what was left out, and why. It is a tar archive under zstd, mode 0600, below 8 MiB before compression.\n\
The deployment is only read, whether it runs or not. Run it as root, or as the user of the part that it is about.")]
    Bundle {
        /// The new file, by custom …tar.zst
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Where the state of the control plane lies
        #[arg(long, default_value = "/var/lib/swarm/server", env = "SWARM_SERVER_DIR", value_name = "DIR")]
        server_dir: PathBuf,
        /// Where the node's state lies
        #[arg(long, default_value = "/var/lib/swarm/node", env = "SWARM_NODE_DIR", value_name = "DIR")]
        node_dir: PathBuf,
        /// A log of a part, of which the end is looked at; repeat for several (default: those that `swarm up` keeps)
        #[arg(long, value_name = "FILE")]
        log: Vec<PathBuf>,
    },
}

/// What is done with the state of a control plane.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerVerb {
    /// Back up the state of a control plane on SQLite, while it runs or not
    #[command(after_help = "\
The folder holds all that the control plane keeps: database, sealed data, images, log. Everything is sealed as it was; the\n\
passphrase is not in it and must be kept elsewhere. Of nodes nothing is in it. Keep the digest that is printed apart.")]
    Backup {
        /// Where all state of the control plane lies
        #[arg(long, default_value = "/var/lib/swarm/server", env = "SWARM_SERVER_DIR", value_name = "DIR")]
        data_dir: PathBuf,
        /// The new folder of the backup
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Restore a backup into a new folder
    #[command(after_help = "\
Every byte is compared first; a damaged backup restores nothing. What was done after the backup is lost. What was destroyed after\n\
it is destroyed again by the shred list, which is kept beside the database and never in a backup; without one it is back, and\n\
that is said. Where witnesses signed a longer log, a restored control plane publishes nothing.")]
    Restore {
        /// The backup
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// The new folder, which `swarm server --data-dir` then takes
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// The digest that was printed when the backup was made: another backup, or a changed one, is refused
        #[arg(long, value_name = "SHA256")]
        digest: Option<Sha256Digest>,
        /// A checkpoint of the log that anybody kept: a backup that knows less of the log is refused
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// The deployment's shred list: what it says was destroyed is destroyed again (default: that of the server in
        /// SWARM_SERVER_DIR, if it is there and of this deployment)
        #[arg(long, value_name = "FILE", env = "SWARM_SHRED_LIST")]
        shred_list: Option<PathBuf>,
        /// Look for no shred list: what was destroyed after the backup is back
        #[arg(long, conflicts_with = "shred_list")]
        no_shred_list: bool,
        /// The folder of the server that was, in which its shred list is looked for
        #[arg(long, default_value = "/var/lib/swarm/server", env = "SWARM_SERVER_DIR", value_name = "DIR")]
        old_data_dir: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
It answers POST /add-checkpoint and GET /HASH/checkpoint in plain HTTP: what it takes and gives is signed and public. Put it\n\
behind a proxy with TLS to reach it from elsewhere. Its key is printed at each start; that is what policy files name.\n\
The record of sizes shows when the folder was restored from an old copy: keep it on another disk, and out of the backups.")]
pub(crate) struct Witness {
    /// Name of a new witness: by custom an address without `https://`, such as witness.example/w1
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Its folder: key and memory
    #[arg(long, default_value = "/var/lib/swarm/witness", env = "SWARM_WITNESS_DIR", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The record of sizes (default: beside the folder, with `.sizes` behind its name)
    #[arg(long, value_name = "FILE")]
    pub(crate) sizes: Option<PathBuf>,
    /// A log to sign for: its verifier key; ORIGIN=VKEY where the origin is not the key's name; repeat for several
    #[arg(long = "log", required = true, value_name = "VKEY")]
    pub(crate) logs: Vec<String>,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:7446", env = "SWARM_WITNESS_LISTEN")]
    pub(crate) listen: std::net::SocketAddr,
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
    /// Redeem a one-time ticket first: it sets up password and authenticator, or has you prove those that you have
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
pub(crate) struct Verify {
    /// The receipt (`-` reads standard input), or a release's `SHA256SUMS`
    pub(crate) file: PathBuf,
    /// FILE is a release's list of digests: its signature FILE.sig must be this key's (PEM), and the files beside it those of the list
    #[arg(long, value_name = "FILE", conflicts_with_all = ["deployment", "ca_pin", "witness_policy"])]
    pub(crate) release_key: Option<PathBuf>,
    /// The deployment's public file (default: the one that the current login pinned)
    #[arg(long, value_name = "FILE")]
    pub(crate) deployment: Option<PathBuf>,
    /// The pin of the deployment's root, as its first run printed it (default: the current login's)
    #[arg(long, value_name = "sha256:…")]
    pub(crate) ca_pin: Option<Sha256Digest>,
    /// Which witnesses must have signed: your own policy file (C2SP tlog-policy); without it they are not checked
    #[arg(long, value_name = "FILE")]
    pub(crate) witness_policy: Option<PathBuf>,
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
    /// Invite a person: prints a one-time ticket; again, a new one as long as nobody has come in
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
    /// Erase a person for good: name, factors, every principal, and what the log sealed of it (operators)
    Erase {
        /// The person's name
        name: Name,
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
    /// List your tokens
    List {
        /// Those of another principal of your tenant, if you administer it
        #[arg(long)]
        principal: Option<PrincipalId>,
    },
    /// Revoke a token everywhere, and what was made with it
    Revoke {
        /// The token's id
        id: TokenId,
        /// Whose it is, if it is not yours
        #[arg(long)]
        principal: Option<PrincipalId>,
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

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SecretFor {
    /// Jobs are given it, and no person
    Job,
    /// People open it to pull images
    Pull,
}

impl From<SecretFor> for vocabulary::secret::SecretUse {
    fn from(word: SecretFor) -> Self {
        match word {
            SecretFor::Job => Self::Job,
            SecretFor::Pull => Self::Pull,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretVerb {
    /// Make a secret; its value is asked for, or read from standard input or a private file, and sealed on this machine
    Create {
        /// Its name
        name: Name,
        /// Its project: name or id
        #[arg(long)]
        project: String,
        /// What it is for; repeat for both
        #[arg(long = "for", value_enum, default_value = "job")]
        uses: Vec<SecretFor>,
        /// Read the value from this file, mode 0600, byte for byte
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// Give a secret a new value: a new version, and the key of the old one is destroyed
    Set {
        /// The secret: name or id
        secret: String,
        /// Read the value from this file, mode 0600, byte for byte
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// List secrets, never their values
    List,
    /// Destroy a secret's keys and forget it; a running job keeps what it was given
    Delete {
        /// The secret: name or id
        secret: String,
        /// Do not ask for the name
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// Import an OCI layout (folder) or OCI archive (tar): only blobs that are missing are sent
    Import {
        /// The layout or archive
        path: PathBuf,
        /// The tenant's name for it
        #[arg(long)]
        name: Name,
    },
    /// Pull an image from an OCI registry to this machine, check it, and import it; tags become digests once, here
    Pull(Box<ImagePull>),
    /// Bring a signature of an image that was made elsewhere: cosign's payload and the signature over it
    Attach {
        /// The image: its name, or sha256:…
        image: String,
        /// The payload, as `cosign generate` writes it
        #[arg(long, value_name = "FILE")]
        payload: PathBuf,
        /// The signature over it, base64
        #[arg(long, value_name = "FILE")]
        signature: PathBuf,
    },
    /// Who must have signed an image before a job may run it
    #[command(subcommand)]
    Policy(ImagePolicyVerb),
    /// List images
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImagePolicyVerb {
    /// Set the policy; without a signer nobody must have signed
    Set {
        /// Somebody whose signature counts: a name and a file with a public key (PEM, ECDSA P-256 or Ed25519)
        #[arg(long = "signer", value_name = "NAME=FILE", value_parser = parse_pair)]
        signers: Vec<(String, String)>,
        /// A repository for which a signer may sign; one that ends with / covers what lies below (default: any)
        #[arg(long = "repository", value_name = "NAME=REPOSITORY", value_parser = parse_pair)]
        repositories: Vec<(String, String)>,
        /// How many different signers must have signed
        #[arg(long, default_value_t = 1)]
        required: u32,
    },
    /// Show the policy in force
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct ImagePull {
    /// The image: HOST[:PORT]/NAME[:TAG] or HOST[:PORT]/NAME@sha256:…
    #[arg(value_parser = parse_reference)]
    pub(crate) reference: crate::registry::Reference,
    /// The tenant's name for it (default: the last part of NAME)
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Credentials: a secret that was made --for pull, with the value USER:PASSWORD
    #[arg(long, conflicts_with = "username")]
    pub(crate) secret: Option<String>,
    /// Credentials: the user; the password is asked for, or read from standard input
    #[arg(long)]
    pub(crate) username: Option<String>,
    /// Another host to whose token service the credentials may go; repeat for several
    #[arg(long = "auth-host", value_name = "HOST")]
    pub(crate) auth_hosts: Vec<String>,
    /// Certificates to trust instead of the system's, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Speak http, to a registry on this machine only
    #[arg(long, conflicts_with = "ca_file")]
    pub(crate) plain_http: bool,
    /// Where downloads lie until they are whole and imported (default: the user's cache folder)
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobVerb {
    /// Run a job and follow it
    Run(Box<JobRun>),
    /// List jobs
    List,
    /// Show a job: state, reason, node, isolation, limits
    Show {
        /// The job
        id: JobId,
    },
    /// Show its log
    Logs {
        /// The job
        id: JobId,
        /// Go on until it ends
        #[arg(short, long)]
        follow: bool,
        /// Print the bytes as they are: the job may then drive your terminal
        #[arg(long)]
        raw: bool,
    },
    /// Stop it
    Stop {
        /// The job
        id: JobId,
    },
    /// Write its receipt to standard output
    Receipt {
        /// The job
        id: JobId,
        /// Wait for it at most this many seconds
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        wait: u64,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  swarm job run sklearn --project p --purpose research --input patients --output model=models \\\n      \
--code ./src -- python3 /code/train.py\n  swarm job run busybox --project p --purpose research -- sh -c 'echo hello'\n\n\
The exit code is the job's own. 125: Swarm itself failed; 126: the command cannot be executed; 127: it is not in the image;\n\
128+n: it was ended by signal n; 130: you interrupted, and the job goes on.")]
pub(crate) struct JobRun {
    /// The image: its name, or sha256:…
    pub(crate) image: String,
    /// The project: name or id
    #[arg(long)]
    pub(crate) project: String,
    /// A name for people
    #[arg(long, default_value = "job")]
    pub(crate) name: Name,
    /// A volume to read: VOLUME or NAME=VOLUME, opened at /inputs/NAME
    #[arg(long = "input", value_name = "[NAME=]VOLUME")]
    pub(crate) inputs: Vec<String>,
    /// A volume to write: VOLUME or NAME=VOLUME, sealed from /outputs/NAME
    #[arg(long = "output", value_name = "[NAME=]VOLUME")]
    pub(crate) outputs: Vec<String>,
    /// A local folder, sealed into a volume of its own and bound read-only at /code
    #[arg(long, value_name = "DIR")]
    pub(crate) code: Option<PathBuf>,
    /// A secret: SECRET or NAME=SECRET, a file /run/secrets/NAME in memory that only the job's user reads
    #[arg(long = "secret", value_name = "[NAME=]SECRET")]
    pub(crate) secrets: Vec<String>,
    /// Variables beside the image's own
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) env: Vec<(String, String)>,
    /// What the data is used for
    #[arg(long)]
    pub(crate) purpose: Purpose,
    /// public, internal, confidential, regulated (default: the highest of its volumes)
    #[arg(long)]
    pub(crate) sensitivity: Option<Sensitivity>,
    /// Run in this region only
    #[arg(long)]
    pub(crate) region: Option<Region>,
    /// Run in these jurisdictions only
    #[arg(long = "jurisdiction")]
    pub(crate) jurisdictions: Vec<Jurisdiction>,
    /// The node must have this label
    #[arg(long = "node-label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) node_labels: Vec<(String, String)>,
    /// Memory, such as 512MiB
    #[arg(long, value_parser = parse_size)]
    pub(crate) memory: Option<u64>,
    /// Cores, such as 1.5
    #[arg(long, value_parser = parse_cores)]
    pub(crate) cpus: Option<u64>,
    /// Processes and threads
    #[arg(long)]
    pub(crate) pids: Option<u64>,
    /// Encrypted scratch, such as 2GiB: inputs, outputs and /scratch together
    #[arg(long, value_parser = parse_size)]
    pub(crate) scratch: Option<u64>,
    /// Longest run
    #[arg(long, value_name = "SECONDS")]
    pub(crate) time_limit: Option<u64>,
    /// How long an attempt lives without the control plane, 30 to 86400
    #[arg(long, value_name = "SECONDS")]
    pub(crate) run_lease: Option<u64>,
    /// How often it may start again on another node when its node is lost or drained, 0 to 10
    #[arg(long, value_name = "N", default_value_t = vocabulary::job::RESTARTS_DEFAULT)]
    pub(crate) restarts: u32,
    /// own-node: a node that is set apart for the tenant, with nobody else's job beside it
    #[arg(long, value_name = "shared|own-node", default_value = "shared", value_parser = parse_placement)]
    pub(crate) placement: vocabulary::job::Placement,
    /// Widen the sandbox: may_compile lets files in /tmp and /scratch be executed; the others open more of the kernel and need the tenant's administrator, or a policy of the tenant
    #[arg(long = "grant", value_name = "debug|uring|cma|may_compile")]
    pub(crate) grants: Vec<String>,
    /// What makes the sandbox; only nodes that offer it are taken (default: youki)
    #[arg(long, value_name = "youki|runc|crun|runsc|kata")]
    pub(crate) runtime: Option<Runtime>,
    /// GPUs
    #[arg(long, default_value_t = 0)]
    pub(crate) gpus: u32,
    /// Ask for a network (refused until the mesh exists)
    #[arg(long)]
    pub(crate) network: bool,
    /// Submit and return
    #[arg(long)]
    pub(crate) detach: bool,
    /// Stop the job when interrupted
    #[arg(long)]
    pub(crate) rm_on_interrupt: bool,
    /// The command (default: the image's own)
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuotaVerb {
    /// Show limits and what is in use: of the own tenant and its projects, or for operators of a tenant
    Show {
        /// The tenant: name or id (for operators)
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Change limits: operators those of a tenant, administrators of a tenant those of its projects
    Set(QuotaSet),
}

/// A limit: a number, or `none`.
pub(crate) type Limit = Option<u64>;

#[derive(Debug, Args)]
#[command(after_help = "What is not named stays as it is; `none` takes a limit away.")]
pub(crate) struct QuotaSet {
    /// The tenant: name or id
    #[arg(long, required_unless_present = "project", conflicts_with = "project")]
    pub(crate) tenant: Option<String>,
    /// The project of the own tenant: name or id
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// Jobs on nodes at once; what is beyond waits
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    pub(crate) running_jobs: Option<Limit>,
    /// Jobs that wait at once
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    pub(crate) queued_jobs: Option<Limit>,
    /// CPU of all jobs that are not over, in cores
    #[arg(long, value_name = "CORES|none", value_parser = parse_cores_limit)]
    pub(crate) cpus: Option<Limit>,
    /// Memory of all jobs that are not over, such as 64GiB
    #[arg(long, value_name = "SIZE|none", value_parser = parse_size_limit)]
    pub(crate) memory: Option<Limit>,
    /// Images (of a tenant)
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    pub(crate) images: Option<Limit>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Make a single-use token with which one machine may join
    Invite {
        /// The node's name
        name: Name,
        /// Its region
        #[arg(long)]
        region: Region,
        /// Its jurisdiction
        #[arg(long)]
        jurisdiction: Jurisdiction,
        /// Labels
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
        labels: Vec<(String, String)>,
        /// Life of the token, 60 to 3600
        #[arg(long, default_value_t = 900, value_name = "SECONDS")]
        lifetime: u64,
    },
    /// Join this machine to a deployment (the token is asked for, or read from standard input) and run its agent
    Join(NodeJoin),
    /// Run the agent of a machine that has joined
    Run(NodeRun),
    /// List nodes
    List,
    /// Show a node
    Show {
        /// The node: name or id
        node: String,
    },
    /// Give a node no new jobs; with a deadline, send away what is still on it then
    Drain {
        /// The node: name or id
        node: String,
        /// In how many seconds its jobs are told to end, 0 to 604800; where their spec allows a restart, they start on
        /// another node (default: they end by themselves)
        #[arg(long, value_name = "SECONDS")]
        deadline: Option<u64>,
        /// Stay until nothing is on it, and say how much is left
        #[arg(long)]
        wait: bool,
    },
    /// End a drain: the node takes jobs again
    #[command(alias = "resume", alias = "uncordon")]
    Undrain {
        /// The node: name or id
        node: String,
    },
    /// Set a node apart for a tenant: it takes nobody else's jobs, and the tenant may demand it with --placement own-node
    Dedicate {
        /// The node: name or id
        node: String,
        /// The tenant: name or id
        #[arg(long, required_unless_present = "shared", conflicts_with = "shared")]
        tenant: Option<String>,
        /// Everybody's again
        #[arg(long)]
        shared: bool,
    },
    /// Revoke a node's certificates for good and close its connections
    Revoke {
        /// The node: name or id
        node: String,
        /// Do not ask for the name
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NodeJoin {
    /// The API's address
    pub(crate) url: String,
    /// The pin of the deployment's root
    #[arg(long, value_name = "sha256:…")]
    pub(crate) ca_pin: Sha256Digest,
    /// File with the join token, mode 0600 (default: asked for, or read from standard input)
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: NodeRun,
    /// Join only: do not start the agent
    #[arg(long)]
    pub(crate) enrol_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NodeRun {
    /// Where the node's state lies
    #[arg(long, default_value = "/var/lib/swarm/node", env = "SWARM_NODE_DIR", value_name = "DIR")]
    pub(crate) node_dir: PathBuf,
    /// Control group below which jobs run
    #[arg(long, default_value = "swarm", value_name = "NAME")]
    pub(crate) cgroup_parent: String,
    /// A foreign runtime that this node offers, and its program (default: those that packages have installed)
    #[arg(long = "runtime", value_name = "runc|crun|runsc|kata=PATH", value_parser = parse_runtime)]
    pub(crate) runtimes: Vec<(Runtime, PathBuf)>,
    #[command(flatten)]
    pub(crate) gpus: Gpus,
    #[command(flatten)]
    pub(crate) ids: Ids,
    /// Stop the jobs when the agent is stopped (otherwise they go on, and the next start finds them again)
    #[arg(long)]
    pub(crate) stop_jobs: bool,
    /// A part of `swarm up`: the end of standard input ends the agent, and jobs go on
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// List keys
    List,
    /// Rotate the tenant's key: wraps its data keys anew
    RotateTenant,
    /// Make a new root epoch; what lies under the old ones is wrapped anew in the background
    RotateRoot,
    /// Say how far the rewrap after a rotation is
    Rewrap {
        /// Under the root key, for operators (default: under the tenant's key)
        #[arg(long)]
        root: bool,
        /// Wait until nothing is left under old versions
        #[arg(short, long)]
        follow: bool,
    },
    /// Say what keys there are: purpose, algorithm, states, next rotation
    Inventory {
        /// The deployment's own keys, for operators (default: the tenant's)
        #[arg(long)]
        platform: bool,
    },
    /// Schedule the destruction of a key: nothing opens it from now on, and what it sealed is gone when the days are over
    Destroy {
        /// The key
        id: KeyId,
        /// Days in which it can still be cancelled, 7 to 30
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        wait: u32,
        /// Do not ask for the id
        #[arg(long)]
        yes: bool,
    },
    /// Cancel a scheduled destruction
    Cancel {
        /// The key
        id: KeyId,
    },
    /// Say how many days backups are kept: the second date of every shredding is counted by it
    BackupRetention {
        /// Days
        days: u32,
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
    Verify {
        /// Which witnesses must have signed: your own policy file (C2SP tlog-policy); without it they are not checked
        #[arg(long, value_name = "FILE")]
        witness_policy: Option<PathBuf>,
    },
    /// Open the personal values of an entry, which is recorded
    Reveal {
        /// The entry's index
        index: u64,
    },
    /// Show the witnesses of the log, what they signed last, and nodes that offer themselves
    Witnesses,
    /// Show the witness policy in force, or set another (C2SP tlog-policy)
    WitnessPolicy {
        /// The new policy file: exactly this log; behind each witness's key `node:ID` or its http(s) address
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
    },
    /// Verify the log that a node kept of what it did (a copy of the folder `log` of its directory), as an operator
    NodeLog {
        /// The folder: tiles and checkpoint
        dir: PathBuf,
    },
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

#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentVerb {
    /// Write the deployment's public file to standard output, byte for byte as its root signed it
    Show {
        /// Fetch it anew first: it must be of the pinned root, and is remembered
        #[arg(long)]
        refresh: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SealVerb {
    /// Say whether the seal is open, what opens it, and how many shares are entered
    Status,
    /// Open a sealed server: shares one by one, or the passphrase; asked for, read from files, or line by line from standard input
    Open {
        /// The API's address (default: the current login's)
        #[arg(requires = "ca_pin")]
        url: Option<String>,
        /// The pin of the deployment's root, for a custodian without a login
        #[arg(long, value_name = "sha256:…", requires = "url")]
        ca_pin: Option<String>,
        /// File with a share (or the passphrase), mode 0600; repeat for several
        #[arg(long, value_name = "FILE")]
        share_file: Vec<PathBuf>,
    },
    /// Seal the root key anew under shares: what opened the seal before opens it no more
    Init {
        /// How many shares, one per custodian
        #[arg(long)]
        shares: u8,
        /// How many of them open the seal
        #[arg(long)]
        threshold: u8,
        /// Write one file of mode 0600 per share into this new folder (default: show each at the terminal, once)
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

/// Reads `512MiB`, `2GiB`, `1000`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or("");
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return Err(format!("`{unit}` is no unit: use KiB, MiB, GiB or TiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{digits}` is no whole number"))?;
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

/// Reads `2` or `1.5` cores as thousandths.
fn parse_cores(text: &str) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.chars().all(|c| c.is_ascii_digit()) {
        return Err("cores have at most three decimals".to_owned());
    }
    let whole: u64 = whole.parse().map_err(|_| format!("`{text}` is no number of cores"))?;
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| format!("`{text}` is no number of cores"))?;
    whole.checked_mul(1000).and_then(|millis| millis.checked_add(part)).ok_or_else(|| "too many cores".to_owned())
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        Ok(None)
    } else {
        text.parse()
            .map(Some)
            .map_err(|_| "it is a whole number or none".to_owned())
    }
}
fn parse_cores_limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        Ok(None)
    } else {
        parse_cores(text).map(Some)
    }
}
fn parse_size_limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        Ok(None)
    } else {
        parse_size(text).map(Some)
    }
}

/// Reads a class of placement.
fn parse_placement(text: &str) -> Result<vocabulary::job::Placement, String> {
    match text {
        "shared" => Ok(vocabulary::job::Placement::Shared),
        "own-node" | "own_node" => Ok(vocabulary::job::Placement::OwnNode),
        _ => Err("it is shared or own-node".to_owned()),
    }
}

/// Splits `KEY=VALUE`.
fn parse_reference(text: &str) -> Result<crate::registry::Reference, String> {
    text.parse().map_err(|error: crate::registry::ReferenceError| error.to_string())
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("it is not KEY=VALUE".to_owned()),
    }
}

/// Splits `RUNTIME=PATH`.
fn parse_runtime(text: &str) -> Result<(Runtime, PathBuf), String> {
    let (runtime, path) = text.split_once('=').ok_or("it is not RUNTIME=PATH")?;
    let runtime: Runtime = runtime.parse().map_err(|error: vocabulary::runtime::UnknownRuntime| error.to_string())?;
    if runtime == Runtime::Youki {
        return Err("youki is a part of Swarm and always offered".to_owned());
    }
    if !path.starts_with('/') {
        return Err(format!("the path of {runtime} is absolute"));
    }
    Ok((runtime, path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_named_with_their_programs() {
        assert_eq!(parse_runtime("runc=/usr/sbin/runc"), Ok((Runtime::Runc, "/usr/sbin/runc".into())));
        for (text, rule) in [("runc", "RUNTIME=PATH"), ("docker=/bin/x", "no runtime"), ("youki=/bin/x", "part of Swarm"), ("crun=bin/crun", "absolute")] {
            let told = parse_runtime(text).unwrap_err();
            assert!(told.contains(rule), "{text}: {told}");
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_cores_and_pairs() {
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("7"), Ok(7));
        assert!(parse_size("1MB").is_err() && parse_size("99999999TiB").is_err() && parse_size("").is_err());
        assert_eq!(parse_cores("1.5"), Ok(1500));
        assert_eq!(parse_cores("2"), Ok(2000));
        assert!(parse_cores("1.2345").is_err() && parse_cores("-1").is_err() && parse_cores("x").is_err());
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_pair("a").is_err() && parse_pair("=b").is_err());
    }
}
