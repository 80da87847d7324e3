//! A server of `PostgreSQL` of the test's own: Debian's, as its own user, in a folder that goes with the value.
#![expect(clippy::disallowed_methods, reason = "it waits for a program to start")]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian's package puts the programs.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// The server's user where the test runs as root, which the server refuses to be.
const USER: &str = "postgres";
/// The user that Swarm connects as: no superuser.
pub const ROLE: &str = "swarm";
/// Its password, where the link asks for one.
pub const PASSWORD: &str = "only for tests";

/// A running server.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    root: bool,
    durable: bool,
    more: Option<String>,
    server: Option<Child>,
}

/// How a server stops.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// Ends the sessions, writes everything down.
    Fast,
    /// At once, like a crash: it recovers from its log when it starts again.
    Immediate,
}

impl Cluster {
    /// Starts one with a database and a user, both called `swarm`.
    pub fn start() -> Self {
        Self::within(&std::env::temp_dir(), false)
    }

    /// The same, below this folder; `durable` as in service: what is committed is on the disk.
    pub fn within(place: &Path, durable: bool) -> Self {
        let folder = tempfile::tempdir_in(place).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut cluster = Self { folder, root, durable, more: None, server: None };
        cluster.copy_template();
        std::fs::create_dir(cluster.sockets()).unwrap();
        cluster.own(&cluster.sockets());
        cluster.again();
        cluster.psql("postgres", &format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"));
        cluster.create(ROLE);
        cluster
    }

    /// Makes a database that belongs to [`ROLE`].
    pub fn create(&self, database: &str) {
        self.psql("postgres", &format!("CREATE DATABASE {database} OWNER {ROLE}"));
    }

    /// The folder of the Unix socket.
    pub fn sockets(&self) -> PathBuf {
        self.folder.path().join("s")
    }
    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.sockets().join(".s.PGSQL.5432")
    }
    /// The URL of a database.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user={ROLE}", self.sockets().display())
    }

    /// Starts the server again on what is there.
    pub fn again(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        // Not durable against a loss of power, which no test plays; against everything else as durable as ever.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if self.root {
            command.args(["--reuid", USER, "--regid", USER, "--init-groups"]);
        }
        command.arg(format!("{PROGRAMS}/postgres")).arg("-D").arg(self.data()).arg("-k").arg(self.sockets());
        let (fsync, buffers) = if self.durable { ("fsync=on", "shared_buffers=128MB") } else { ("fsync=off", "shared_buffers=16MB") };
        command.args(["-c", "max_connections=60", "-c", fsync, "-c", buffers]);
        match &self.more {
            None => {
                command.args(["-c", "listen_addresses="]);
            }
            Some(settings) => {
                let file = self.folder.path().join("more.conf");
                std::fs::write(&file, format!("include '{}'\n{settings}", self.data().join("postgresql.conf").display())).unwrap();
                self.own(&file);
                command.arg("-c").arg(format!("config_file={}", file.display()));
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).current_dir("/");
        self.server = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !self.ready() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn ready(&self) -> bool {
        let mut command = Command::new(format!("{PROGRAMS}/psql"));
        command.args(["-X", "-q", "-U", USER, "-d", "postgres", "-c", "SELECT 1", "-p", &self.port().to_string(), "-h"]).arg(self.sockets());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// What the server said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Stops the server; what it holds stays.
    pub fn stop(&mut self, how: Stop) {
        let Some(mut server) = self.server.take() else { return };
        let signal = match how {
            Stop::Fast => "-INT",
            Stop::Immediate => "-QUIT",
        };
        Command::new("kill").args([signal, &server.id().to_string()]).status().unwrap();
        server.wait().unwrap();
    }

    /// From now on it listens on a free port of the loopback too, with a certificate for `localhost` and 127.0.0.1, and these
    /// settings. Gives the port and the authority's certificate.
    pub fn with_tls(&mut self, settings: &[&str]) -> (u16, PathBuf) {
        self.stop(Stop::Fast);
        let place = self.folder.path();
        let (authority, key, request, certificate) = (place.join("ca.pem"), place.join("ca.key"), place.join("server.csr"), place.join("server.pem"));
        let own_key = self.data().join("server.key");
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        if !authority.exists() {
            let mut openssl = Command::new("openssl");
            openssl.args(["req", "-x509", "-subj", "/CN=authority of the tests", "-days", "2"]).args(curve);
            run(openssl.arg("-keyout").arg(&key).arg("-out").arg(&authority));
            let mut openssl = Command::new("openssl");
            openssl.args(["req", "-subj", "/CN=server of the tests", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]).args(curve);
            run(openssl.arg("-keyout").arg(&own_key).arg("-out").arg(&request));
            let mut openssl = Command::new("openssl");
            openssl.args(["x509", "-req", "-copy_extensions", "copy", "-CAcreateserial", "-days", "2"]).arg("-in").arg(&request);
            run(openssl.arg("-CA").arg(&authority).arg("-CAkey").arg(&key).arg("-out").arg(&certificate));
            self.own(&own_key);
            self.own(&certificate);
        }
        // Free now; nobody else asks for this one in the moment until it is taken.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut more = format!("listen_addresses = '127.0.0.1'\nport = {port}\n");
        more.push_str(&format!("ssl_cert_file = '{}'\nssl_key_file = '{}'\n", certificate.display(), own_key.display()));
        for setting in settings {
            more.push_str(setting);
            more.push('\n');
        }
        self.more = Some(more);
        self.again();
        (port, authority)
    }

    /// From now on [`ROLE`] is let in with its password only.
    pub fn ask_for_passwords(&mut self) {
        self.stop(Stop::Fast);
        let rules = format!("local all {ROLE} scram-sha-256\nlocal all all trust\n");
        std::fs::write(self.data().join("pg_hba.conf"), rules).unwrap();
        self.again();
    }

    /// Runs statements as the superuser; gives what they answer, one row a line.
    pub fn psql(&self, database: &str, statements: &str) -> String {
        self.psql_at(self.port(), database, statements)
    }

    /// The port, which names the socket too.
    fn port(&self) -> u16 {
        let settings = self.more.as_deref().unwrap_or_default();
        let port = settings.lines().find_map(|line| line.strip_prefix("port = "));
        port.map_or(5432, |port| port.parse().unwrap())
    }

    /// The same, at another port than the usual one.
    pub fn psql_at(&self, port: u16, database: &str, statements: &str) -> String {
        let mut command = Command::new(format!("{PROGRAMS}/psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", USER, "-d", database, "-c", statements]);
        command.args(["-p", &port.to_string(), "-h"]);
        let output = command.arg(self.sockets()).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("d")
    }

    /// Gives a folder to the server's user.
    fn own(&self, folder: &Path) {
        if self.root {
            run(Command::new("chown").args(["-R", &format!("{USER}:")]).arg(folder));
        }
    }

    /// A fresh cluster takes a second to make and a tenth to copy: the first test makes the template for all.
    fn copy_template(&self) {
        let place = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let lock = std::fs::File::create(place.join("postgresql-15.lock")).unwrap();
        lock.lock().unwrap();
        let template = place.join("postgresql-15.template");
        if !template.exists() {
            let making = tempfile::tempdir().unwrap();
            self.own(making.path());
            let data = making.path().join("d");
            let mut command = Command::new("setpriv");
            if self.root {
                command.args(["--reuid", USER, "--regid", USER, "--init-groups"]);
            }
            command.arg(format!("{PROGRAMS}/initdb")).arg("-D").arg(&data).args(["-U", USER, "-E", "UTF8", "--locale=C", "--no-sync"]);
            command.args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
            run(command.current_dir("/"));
            let unfinished = place.join("postgresql-15.new");
            drop(std::fs::remove_dir_all(&unfinished));
            run(Command::new("cp").arg("-r").arg(&data).arg(&unfinished));
            std::fs::rename(unfinished, template.clone()).unwrap();
        }
        run(Command::new("cp").arg("-r").arg(&template).arg(self.data()));
        self.own(&self.data());
        std::fs::set_permissions(self.data(), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(Stop::Immediate);
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
