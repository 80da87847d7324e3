//! Following a job: why it waits, what it prints, what is missing of that, and how it ended.

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use indicatif::ProgressBar;
use vocabulary::JobId;
use vocabulary::api::Job;
use vocabulary::job::{JobState, LogFrame, LogStream};

use super::fetch;
use crate::app::App;
use crate::client::{Call, Client};
use crate::error::CliError;
use crate::output::{Format, LogText, visible};

/// Pause between two looks at a job that does not run yet or any more.
const PACE: Duration = Duration::from_millis(250);
/// How long a server may be away before a follower gives up: the job goes on for its run lease.
const PATIENCE: Duration = Duration::from_secs(900);
/// Bytes of one line of the log's stream: a frame has 16 KiB, base64 and its fields around it.
const LINE_MAX: usize = 256 << 10;
/// Misfits that are told; the rest are counted.
const MISFITS_SHOWN: usize = 10;

/// Follows a job until it has ended and its exit is known.
pub(super) async fn to_end(app: &App, client: &Client, id: JobId) -> Result<Job, CliError> {
    let mut teller = Teller::new(app);
    let mut log = Log::new(app, false);
    loop {
        let job = patient(app, || fetch(client, id)).await?;
        teller.tell(&job);
        log.attempt(job.attempt);
        let (ended, told) = (job.state.is_final() && job.exit.is_some(), job.state >= JobState::Running);
        if ended {
            // What was written at the very end may have come after the stream was closed.
            teller.clear();
            log.take(client, id, false).await?;
            log.finish()?;
            return Ok(job);
        }
        if told {
            teller.clear();
            log.take(client, id, true).await?;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Prints a job's log.
pub(super) async fn logs(app: &App, client: &Client, id: JobId, follow: bool, raw: bool) -> Result<(), CliError> {
    let mut log = Log::new(app, raw);
    if !follow {
        log.take(client, id, false).await?;
        return log.finish();
    }
    let mut teller = Teller::new(app);
    loop {
        let job = patient(app, || fetch(client, id)).await?;
        log.attempt(job.attempt);
        if job.state < JobState::Running {
            teller.tell(&job);
        } else {
            teller.clear();
            log.take(client, id, !job.state.is_final()).await?;
        }
        if job.state.is_final() {
            return log.finish();
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Asks again while the server does not answer at all; what it refuses is refused.
async fn patient<T, F: Future<Output = Result<T, CliError>>>(app: &App, ask: impl Fn() -> F) -> Result<T, CliError> {
    let mut waited = Duration::ZERO;
    loop {
        match ask().await {
            Err(error) if error.problem.is_none() && matches!(error.exit, 1 | 8) && waited < PATIENCE => {
                if waited.is_zero() {
                    app.output.say(format!("the server does not answer ({}); the job goes on, asking again", visible(&error.message)));
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                waited += Duration::from_secs(1);
            }
            other => return other,
        }
    }
}

/// Says each step once; numbers go to a bar, where somebody looks.
struct Teller<'a> {
    app: &'a App,
    said: String,
    bar: Option<ProgressBar>,
}

impl<'a> Teller<'a> {
    const fn new(app: &'a App) -> Self {
        Self { app, said: String::new(), bar: None }
    }

    fn tell(&mut self, job: &Job) {
        let now = step(job);
        if now != self.said {
            self.clear();
            self.app.output.say(&now);
            self.said = now;
        }
        match job.report.as_ref().and_then(|report| report.progress) {
            Some((done, total)) if total > 0 => {
                let bar = self.bar.get_or_insert_with(|| crate::progress::bytes(self.app.output.quiet, total, job.state.as_str()));
                bar.set_length(total);
                bar.set_position(done);
            }
            Some(_) | None => {}
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// The sentence that tells a person where the job stands.
fn step(job: &Job) -> String {
    let on = job.node_name.as_ref().map_or_else(String::new, |node| format!(" on {node}"));
    if job.state == JobState::Pending && job.node.is_none() {
        let mut text = String::from("waiting for a node");
        for misfit in job.misfits.iter().take(MISFITS_SHOWN) {
            text.push_str(&format!("\n  not on {}: {}", misfit.node, visible(&misfit.constraint)));
        }
        let more = job.misfits.len().saturating_sub(MISFITS_SHOWN);
        if more > 0 {
            text.push_str(&format!("\n  and {more} nodes more: swarm job show {}", job.id));
        }
        return text;
    }
    let again = if job.attempt > 1 { format!(" (attempt {})", job.attempt) } else { String::new() };
    let what = match job.state {
        JobState::Pending => "placed",
        JobState::Pulling => "pulling the image",
        JobState::Opening => "opening the inputs",
        JobState::Creating => "making the sandbox",
        JobState::Running => "running",
        JobState::Stopping => "stopping",
        JobState::Sealing => "sealing the outputs",
        JobState::Exited => "exited",
        JobState::Failed => "failed",
    };
    format!("{what}{on}{again}")
}

/// The log as far as it was printed.
struct Log<'a> {
    app: &'a App,
    raw: bool,
    attempt: u32,
    last: u64,
    out: LogText,
    err: LogText,
}

impl<'a> Log<'a> {
    fn new(app: &'a App, raw: bool) -> Self {
        Self { app, raw, attempt: 0, last: 0, out: LogText::default(), err: LogText::default() }
    }

    /// Each attempt counts its frames from 1.
    const fn attempt(&mut self, attempt: u32) {
        if attempt != self.attempt {
            self.attempt = attempt;
            self.last = 0;
        }
    }

    /// Prints what is there after the last frame; with `follow` until the stream ends or breaks.
    async fn take(&mut self, client: &Client, id: JobId, follow: bool) -> Result<(), CliError> {
        let end = if follow { "&follow=true" } else { "" };
        let path = format!("/v1/jobs/{id}/logs?after={}{end}", self.last);
        let app = self.app;
        let mut response = patient(app, || async { client.send_raw(&Call::get(path.clone()), None).await }).await?;
        let mut rest: Vec<u8> = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(piece)) => rest.extend_from_slice(&piece),
                Ok(None) => return Ok(()),
                // A follower looks at the job and comes back; who reads once must know that it is not all.
                Err(_) if follow => return Ok(()),
                Err(error) => return Err(CliError::new(1, format!("the log broke off after frame {}: {error}", self.last))),
            }
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let frame: LogFrame = serde_json::from_slice(&line).map_err(|error| unfit(&error.to_string()))?;
                self.print(&frame)?;
            }
            if rest.len() > LINE_MAX {
                return Err(unfit("a line without an end"));
            }
        }
    }

    fn print(&mut self, frame: &LogFrame) -> Result<(), CliError> {
        let missing = gap(self.last, frame);
        self.last = frame.sequence;
        match self.app.output.format {
            Format::Json | Format::Jsonl | Format::Yaml => return crate::output::json_line(frame),
            Format::Table => {}
        }
        if missing > 0 {
            self.app.output.say(format!("[{missing} frames of the log are lost here: the job wrote faster than they could be kept]"));
        }
        let data = base64::engine::general_purpose::STANDARD.decode(&frame.data).map_err(|_| unfit("bad base64"))?;
        let text = match frame.stream {
            LogStream::Stdout => &mut self.out,
            LogStream::Stderr => &mut self.err,
        };
        let shown = if self.raw { data } else { text.push(&data).into_bytes() };
        write(frame.stream, &shown)
    }

    fn finish(&mut self) -> Result<(), CliError> {
        write(LogStream::Stdout, self.out.finish().as_bytes())?;
        write(LogStream::Stderr, self.err.finish().as_bytes())
    }
}

/// Frames between the last one and this: what the node counted, or what the numbers tell.
const fn gap(last: u64, frame: &LogFrame) -> u64 {
    let by_number = frame.sequence.saturating_sub(last).saturating_sub(1);
    if frame.lost > by_number { frame.lost } else { by_number }
}

fn write(stream: LogStream, bytes: &[u8]) -> Result<(), CliError> {
    match stream {
        LogStream::Stdout => crate::output::bytes(bytes),
        LogStream::Stderr => Ok(std::io::stderr().lock().write_all(bytes)?),
    }
}

fn unfit(what: &str) -> CliError {
    CliError::new(1, format!("the log's answer does not fit: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vocabulary::UnixTime;
    use vocabulary::api::Misfit;
    use vocabulary::job::JobSpec;

    fn job(state: JobState) -> Job {
        let id = JobId::from_bytes([1; 16]);
        let spec: JobSpec = serde_json::from_value(serde_json::json!({
            "name": "train", "image": format!("sha256:{}", "0".repeat(64)), "purpose": "research", "sensitivity": "internal"
        }))
        .unwrap();
        Job {
            id,
            project: vocabulary::ProjectId::from_bytes([2; 16]),
            spec,
            owner: vocabulary::PrincipalId::from_bytes([3; 16]),
            state,
            attempt: 0,
            node: None,
            node_name: None,
            report: None,
            misfits: Vec::new(),
            held_back: None,
            exit: None,
            receipt_ready: false,
            created: UnixTime::from_millis(0),
            revision: 1,
            audit_index: None,
        }
    }

    #[test]
    fn waiting_says_why_node_by_node_and_harmlessly() {
        let mut pending = job(JobState::Pending);
        assert_eq!(step(&pending), "waiting for a node");
        for number in 0..12 {
            let constraint = "region is \u{1b}[31meu-west".to_owned();
            pending.misfits.push(Misfit { node: format!("n{number}").parse().unwrap(), constraint });
        }
        let text = step(&pending);
        assert!(text.starts_with("waiting for a node\n  not on n0: region is \\u{1b}[31meu-west\n"), "{text}");
        assert!(text.contains("and 2 nodes more: swarm job show") && !text.contains('\u{1b}'));
    }

    #[test]
    fn steps_name_node_and_attempt() {
        let mut running = job(JobState::Running);
        running.node = Some(vocabulary::NodeId::from_bytes([4; 16]));
        running.node_name = Some("gpu-1".parse().unwrap());
        running.attempt = 1;
        assert_eq!(step(&running), "running on gpu-1");
        running.attempt = 2;
        assert_eq!(step(&running), "running on gpu-1 (attempt 2)");
    }

    #[test]
    fn gaps_are_counted_from_the_node_or_from_the_numbers() {
        let frame = |sequence, lost| LogFrame { sequence, time: UnixTime::from_millis(0), stream: LogStream::Stdout, data: String::new(), lost };
        assert_eq!(gap(0, &frame(1, 0)), 0);
        assert_eq!(gap(4, &frame(8, 3)), 3);
        assert_eq!(gap(4, &frame(8, 0)), 3);
        assert_eq!(gap(7, &frame(8, 2)), 2);
    }
}
