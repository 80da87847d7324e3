//! Builds `launcher/main.rs`, the first program of a sandbox that a foreign runtime makes: one static file, since it runs
//! in the job's own root, where no library of ours is.
#![expect(clippy::panic, clippy::expect_used, reason = "a build script fails by panicking")]

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=launcher/main.rs");
    println!("cargo::rerun-if-changed=src/candidates.rs");
    let variable = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let mut output = variable("OUT_DIR");
    output.push("/launcher");
    // By relative path, so that no path of this machine gets into the program.
    let status = Command::new(variable("RUSTC"))
        .current_dir(variable("CARGO_MANIFEST_DIR"))
        .args(["--edition=2024", "--crate-name=launcher", "--crate-type=bin", "-Dwarnings", "-Copt-level=s", "-Cpanic=abort", "-Ccodegen-units=1", "-Cstrip=symbols"])
        .args(["-Ctarget-feature=+crt-static", "--target"])
        .arg(variable("TARGET"))
        .arg("-o")
        .arg(output)
        .arg("launcher/main.rs")
        .status()
        .expect("start rustc");
    assert!(status.success(), "the launcher does not build: {status}");
}
