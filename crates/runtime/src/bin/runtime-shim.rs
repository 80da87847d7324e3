//! The shim alone, for tests of this crate. The program `swarm` carries the same code.

fn main() -> std::process::ExitCode {
    runtime::shim::branch(std::env::args_os()).unwrap_or(std::process::ExitCode::from(2))
}
