//! The agent alone, for tests of this crate. The program `swarm` carries the same code.
//!
//! `node-agent DIR CGROUP_PARENT ID_BASE ID_BLOCKS`: runs until SIGTERM; jobs live on. `node-agent __shim …`: a shim.

use std::ffi::OsString;
use std::process::ExitCode;

use node::NodeOptions;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    if let Some(code) = runtime::shim::branch(std::env::args_os()) {
        return code;
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some(options) = options(&arguments) else { return ExitCode::from(2) };
    let Ok(engine) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    let stop = CancellationToken::new();
    let ended = engine.block_on(async {
        let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else { return Ok(()) };
        let running = node::run(options, stop.clone());
        let mut running = std::pin::pin!(running);
        tokio::select! {
            done = &mut running => return done,
            _ = term.recv() => stop.cancel(),
        }
        running.await
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "a test that fails shows why its agent did not run")]
            {
                eprintln!("node-agent: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &[OsString]) -> Option<NodeOptions> {
    let [dir, parent, base, blocks] = arguments else { return None };
    Some(NodeOptions {
        dir: dir.into(),
        shim_exe: "/proc/self/exe".into(),
        cgroup_parent: parent.to_str()?.to_owned(),
        runtimes: Vec::new(),
        gpus: node::GpuOptions::default(),
        id_base: base.to_str()?.parse().ok()?,
        id_blocks: blocks.to_str()?.parse().ok()?,
        drain_on_stop: false,
        tracer: telemetry::Tracer::off(),
    })
}
