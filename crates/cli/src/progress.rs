//! Progress on standard error: a bar where somebody looks, a line every ten seconds where nobody does.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line is written where nobody looks at a bar.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar of bytes.
pub(crate) fn bytes(quiet: bool, total: u64, what: &str) -> ProgressBar {
    styled(quiet, total, what, "{msg:20!} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// A bar of things.
pub(crate) fn bar(quiet: bool, total: u64, what: &str) -> ProgressBar {
    styled(quiet, total, what, "{msg:20!} {wide_bar} {pos}/{len} {eta}")
}

fn styled(quiet: bool, total: u64, what: &str, template: &str) -> ProgressBar {
    let target = if quiet || !crate::output::watched() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(10) };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(crate::output::visible(what));
    bar.enable_steady_tick(Duration::from_millis(250));
    if !quiet && !crate::output::watched() {
        told_in_lines(bar.clone());
    }
    bar
}

/// Says every ten seconds how far it is, until it is done.
fn told_in_lines(bar: ProgressBar) {
    std::thread::spawn(move || {
        loop {
            std::thread::park_timeout(LINE_EVERY);
            if bar.is_finished() {
                return;
            }
            crate::output::note(&format!("{}: {} of {}", bar.message(), bar.position(), bar.length().unwrap_or(0)));
        }
    });
}
