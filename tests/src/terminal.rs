//! A real terminal (a pseudo-terminal of `script`), for what must be typed as a page says it.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

/// What the shell prints when it is ready: nothing else prints this.
const READY: &str = "[ready for the next line]";

/// A shell in a terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    input: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Opens a terminal with a shell in `folder`, which is its home, and with `path` searched first.
    pub fn open(folder: &Path, path: &Path) -> anyhow::Result<Self> {
        let search = format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default());
        // The line editor would draw what is typed again and again.
        let start = folder.join(".terminal");
        std::fs::write(&start, format!("PS1='{READY}' PS2=''; set +o emacs +o history; stty -echo cols 400\n"))?;
        let shell = format!("bash --noprofile --rcfile '{}' -i", start.display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &shell, "/dev/null"]);
        command.current_dir(folder).env("HOME", folder).env("PATH", search).env("TERM", "dumb").env("SHELL", "/bin/sh");
        command.env_remove("XDG_CONFIG_HOME").env_remove("PROMPT_COMMAND");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("script")?;
        let input = child.stdin.take().context("standard input")?;
        let mut output = child.stdout.take().context("standard output")?;
        let shown = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut piece) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(piece.get(..count).unwrap_or(&[]));
            }
        });
        let mut terminal = Self { child, input, shown };
        terminal.until_ready(0, Duration::from_secs(30), &mut |_| Ok(None))?;
        Ok(terminal)
    }

    /// Everything that was shown, without the terminal's own control sequences and carriage returns.
    #[must_use]
    pub fn shown(&self) -> String {
        let bytes = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut plain = String::new();
        let mut rest: VecDeque<char> = String::from_utf8_lossy(&bytes).chars().collect();
        while let Some(c) = rest.pop_front() {
            match c {
                '\r' => {}
                // A control sequence ends with a letter.
                '\u{1b}' => while rest.pop_front().is_some_and(|c| !c.is_ascii_alphabetic()) {},
                c => plain.push(c),
            }
        }
        plain
    }

    /// Types a line and does not wait.
    pub fn send(&mut self, line: &str) -> anyhow::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes())?;
        Ok(self.input.flush()?)
    }

    /// Types Ctrl-C, and waits until the shell is ready.
    pub fn interrupt(&mut self, limit: Duration) -> anyhow::Result<()> {
        let before = self.shown().len();
        self.input.write_all(&[3])?;
        self.input.flush()?;
        self.until_ready(before, limit, &mut |_| Ok(None)).map(drop)
    }

    /// Types a line, answers what it asks, and waits until the shell is ready; gives what was shown.
    pub fn run(&mut self, line: &str, limit: Duration, answer: &mut dyn FnMut(&str) -> anyhow::Result<Option<String>>) -> anyhow::Result<String> {
        let before = self.shown().len();
        self.send(line)?;
        self.until_ready(before, limit, answer)
    }

    /// Types a line of a program that stays, answers what it asks, and waits until it shows a text.
    pub fn run_until(
        &mut self,
        line: &str,
        text: &str,
        limit: Duration,
        answer: &mut dyn FnMut(&str) -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<String> {
        let before = self.shown().len();
        self.send(line)?;
        self.until(before, limit, &|shown| shown.contains(text) || shown.ends_with(READY), answer)
    }

    fn until_ready(&mut self, from: usize, limit: Duration, answer: &mut dyn FnMut(&str) -> anyhow::Result<Option<String>>) -> anyhow::Result<String> {
        let shown = self.until(from, limit, &|shown| shown.ends_with(READY), answer)?;
        Ok(shown.trim_end_matches(READY).to_owned())
    }

    /// Looks at what is shown after `from` until it is enough; `answer` sees the part after the last answer.
    fn until(
        &mut self,
        from: usize,
        limit: Duration,
        enough: &dyn Fn(&str) -> bool,
        answer: &mut dyn FnMut(&str) -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<String> {
        let mut answered = from;
        crate::wait_for("the terminal", limit, || {
            let all = self.shown();
            let shown = all.get(from..).unwrap_or("").to_owned();
            if enough(&shown) {
                return Ok(Some(shown));
            }
            if let Some(text) = answer(all.get(answered..).unwrap_or(""))? {
                answered = all.len();
                self.send(&text)?;
            }
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the terminal ended: {status}\n{shown}");
            }
            Ok(None)
        })
        .with_context(|| self.shown().get(from..).unwrap_or("").to_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What still runs in it gets Ctrl-C, so that deployments end too. What is typed before the shell is back would be lost.
        if !self.shown().ends_with(READY) {
            let _ = self.interrupt(Duration::from_secs(180));
        }
        let _ = self.send("exit");
        if crate::wait_for("the terminal's end", Duration::from_secs(60), || Ok(self.child.try_wait()?)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
