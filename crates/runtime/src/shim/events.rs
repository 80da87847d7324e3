//! The shim's one loop: output, calls, time, and the end.

use super::assemble::Created;
use super::control::Control;
use super::guard::Guard;
use super::{Answer, Call, Directory, Request};
use crate::executor::ExecFailure;
use crate::log::Writer;
use crate::supervisor::ShimState;
use crate::{clock, sys};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use vocabulary::UnixTime;
use vocabulary::job::{Exit, ExitReason, LogStream};

struct Watch<'a> {
    directory: &'a Directory,
    lock: BorrowedFd<'a>,
    created: Created,
    guard: Option<Guard>,
    control: Control,
    log: Writer,
    timer: OwnedFd,
    state: ShimState,
    started: Option<UnixTime>,
    time_limit: Option<u64>,
    lease_end: Option<u64>,
    grace_end: Option<u64>,
    reason: Option<ExitReason>,
    output_open: [bool; 2],
}

/// Watches until the attempt has ended and its record is written. `ready` is called once the shim can be spoken to.
pub(super) fn watch(directory: &Directory, created: Created, guard: Guard, lock: BorrowedFd<'_>, ready: impl FnOnce()) -> std::io::Result<()> {
    let mut watch = Watch {
        directory,
        lock,
        guard: Some(guard),
        control: Control::open(directory)?,
        log: Writer::open(&created.log.join("."))?,
        timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?,
        state: ShimState::Created,
        started: None,
        time_limit: None,
        lease_end: created.spec.deadline_boottime_ms,
        grace_end: None,
        reason: None,
        output_open: [true, true],
        created,
    };
    ready();
    watch.run()
}

impl Watch<'_> {
    fn run(&mut self) -> std::io::Result<()> {
        loop {
            self.arm()?;
            let ready = self.wait()?;
            let [output, errors, time, end, listener, unguarded, first] = ready.fixed;
            if first {
                self.created.program.first_ended(self.created.pid);
            }
            if unguarded && let Some(guard) = self.guard.take() {
                guard.dismiss();
                self.guard = Some(Guard::post(&self.created.cgroup, self.lock)?);
            }
            if listener {
                self.control.accept();
            }
            self.serve(&ready.callers);
            if time {
                self.clock()?;
            }
            // Output comes last and a little at a time: a job that floods its log is still heard and killed at once.
            if output {
                self.read_output(LogStream::Stdout);
            }
            if errors {
                self.read_output(LogStream::Stderr);
            }
            if end {
                return self.finish();
            }
        }
    }

    fn arm(&self) -> std::io::Result<()> {
        let next = [self.time_limit, self.lease_end, self.grace_end].into_iter().flatten().min();
        // Zero would switch the timer off: a deadline that is over is set to the first moment instead.
        let millis = next.map_or(0, |next| next.max(1));
        let value = Timespec {
            tv_sec: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
        };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    fn wait(&self) -> std::io::Result<Ready> {
        let open = |open: bool| if open { PollFlags::IN } else { PollFlags::empty() };
        let [out, err] = self.output_open;
        // What has ended would report that for ever: it is looked at through the timer's place then.
        let stdout = if out { self.created.stdout.as_fd() } else { self.timer.as_fd() };
        let stderr = if err { self.created.stderr.as_fd() } else { self.timer.as_fd() };
        let (guard, guard_flags) = self.guard.as_ref().map_or((self.timer.as_fd(), PollFlags::empty()), |guard| (guard.pidfd.as_fd(), PollFlags::IN));
        let first = self.created.program.watches_first();
        let first_fd = if first { self.created.pidfd.as_fd() } else { self.timer.as_fd() };
        let mut fds = vec![
            PollFd::from_borrowed_fd(stdout, open(out)),
            PollFd::from_borrowed_fd(stderr, open(err)),
            PollFd::from_borrowed_fd(self.timer.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.created.program.end().unwrap_or(self.created.pidfd.as_fd()), PollFlags::IN),
            PollFd::from_borrowed_fd(self.control.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(guard, guard_flags),
            PollFd::from_borrowed_fd(first_fd, open(first)),
        ];
        fds.extend(self.control.callers.iter().map(|caller| PollFd::from_borrowed_fd(caller.stream.as_fd(), PollFlags::IN)));
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut seen = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || seen.next().unwrap_or(false);
        let fixed = [next() && out, next() && err, next(), next(), next(), next(), next() && first];
        Ok(Ready { fixed, callers: seen.collect() })
    }

    fn read_output(&mut self, stream: LogStream) {
        let mut chunk = [0; 16_384];
        let (pipe, place) = match stream {
            LogStream::Stdout => (&mut self.created.stdout, 0),
            LogStream::Stderr => (&mut self.created.stderr, 1),
        };
        match pipe.read(&mut chunk) {
            Ok(0) => {
                if let Some(open) = self.output_open.get_mut(place) {
                    *open = false;
                }
                self.log.flush(stream, clock::wall());
            }
            Ok(read) => self.log.push(stream, chunk.get(..read).unwrap_or_default(), clock::wall()),
            Err(_) => {}
        }
    }

    fn serve(&mut self, ready: &[bool]) {
        let mut callers = std::mem::take(&mut self.control.callers);
        let mut index = 0;
        callers.retain_mut(|caller| {
            let speaks = ready.get(index).copied().unwrap_or(false);
            index += 1;
            if !speaks {
                return true;
            }
            let Some(lines) = Control::lines(caller) else { return false };
            lines.iter().all(|line| {
                let answer = match serde_json::from_slice::<Call>(line) {
                    Ok(call) => self.act(&call.request),
                    Err(error) => Answer::Refused { detail: error.to_string() },
                };
                Control::answer(caller, &answer)
            })
        });
        self.control.callers.append(&mut callers);
    }

    fn act(&mut self, request: &Request) -> Answer {
        match request {
            Request::Status => Answer::State { state: self.state },
            Request::Start => self.start(),
            Request::Stop { grace_ms, reason } => {
                self.stop(*grace_ms, *reason);
                Answer::Done
            }
            Request::Kill { reason } => {
                self.reason.get_or_insert(*reason);
                self.kill();
                Answer::Done
            }
            Request::Renew { deadline_boottime_ms } => {
                if self.lease_end.is_none_or(|end| *deadline_boottime_ms >= end) {
                    self.lease_end = Some(*deadline_boottime_ms);
                    Answer::Done
                } else {
                    Answer::Refused { detail: "a lease is never shortened by a renewal".to_owned() }
                }
            }
        }
    }

    fn start(&mut self) -> Answer {
        match self.state {
            ShimState::Created => {}
            ShimState::Running => return Answer::Refused { detail: "it was started before".to_owned() },
            ShimState::Stopping | ShimState::Ended => return Answer::Refused { detail: "it is being stopped".to_owned() },
        }
        match self.created.program.start() {
            Ok(()) => {
                self.state = ShimState::Running;
                self.started = Some(clock::wall());
                self.time_limit = Some(clock::boottime_ms().saturating_add(self.created.spec.limits.time_ms));
                Answer::Done
            }
            Err(detail) => Answer::Refused { detail },
        }
    }

    fn stop(&mut self, grace_ms: u64, reason: ExitReason) {
        self.reason.get_or_insert(reason);
        if self.state == ShimState::Created {
            self.kill();
            return;
        }
        let end = clock::boottime_ms().saturating_add(grace_ms);
        if self.grace_end.is_none() {
            self.created.program.terminate(self.created.pidfd.as_fd());
        }
        self.grace_end = Some(self.grace_end.map_or(end, |old| old.min(end)));
        self.state = ShimState::Stopping;
    }

    /// Freezes, so that nothing can act in between, and kills all.
    fn kill(&mut self) {
        self.state = ShimState::Stopping;
        let _ = self.created.cgroup.freeze();
        // The first process takes the whole pid namespace with it, whatever the groups say.
        let _ = pidfd_send_signal(&self.created.pidfd, Signal::KILL);
        let _ = std::fs::write(self.created.cgroup.handle().join("cgroup.kill"), "1");
    }

    fn clock(&mut self) -> std::io::Result<()> {
        let mut ticks = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut ticks);
        let now = clock::boottime_ms();
        let over = |end: Option<u64>| end.is_some_and(|end| end <= now);
        if over(self.grace_end) {
            self.grace_end = None;
            self.kill();
        }
        if over(self.lease_end) {
            self.lease_end = None;
            self.reason.get_or_insert(ExitReason::LeaseEnded);
            self.kill();
        }
        if over(self.time_limit) {
            self.time_limit = None;
            self.stop(self.created.spec.limits.grace_ms, ExitReason::Timeout);
        }
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<()> {
        let (code, signal) = self.created.program.status(self.created.pid)?;
        // Whatever else is in the pid namespace dies with its first process; the pipes end then.
        let killed = self.created.cgroup.kill(Duration::from_secs(10));
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            self.drain(stream);
        }
        let oom_kills = self.created.cgroup.oom_kills();
        let peak_memory_bytes = self.created.cgroup.peak_memory();
        let cpu_ms = self.created.cgroup.cpu_ms();
        let mut bytes = Vec::new();
        let _ = (&self.created.failure).take(4096).read_to_end(&mut bytes);
        let failure: Option<ExecFailure> = serde_json::from_slice(&bytes).ok();
        let (reason, mut detail) = self.judge(code, signal, oom_kills, peak_memory_bytes, failure.as_ref());
        self.created.program.forget();
        if let Err(error) = killed.and_then(|()| self.created.cgroup.remove()) {
            detail = format!("{detail}; left behind: {error}");
        }
        let exit = Exit { reason, code, signal, detail, oom_kills, peak_memory_bytes, cpu_ms, started: self.started, ended: clock::wall() };
        let bytes = serde_json::to_vec(&exit).map_err(std::io::Error::other)?;
        let _ = std::fs::remove_file(self.directory.join("ctl.sock"));
        sys::write_durably(&self.directory.join("exit.json"), &bytes)?;
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
        Ok(())
    }

    fn drain(&mut self, stream: LogStream) {
        let [out, err] = self.output_open;
        let mut open = if stream == LogStream::Stdout { out } else { err };
        // Every writer is dead, so what is left is finite. A writer that the kernel cannot end does not hold the record up.
        while open && self.readable(stream) {
            self.read_output(stream);
            let [out, err] = self.output_open;
            open = if stream == LogStream::Stdout { out } else { err };
        }
        self.log.flush(stream, clock::wall());
    }

    fn readable(&self, stream: LogStream) -> bool {
        let pipe = match stream {
            LogStream::Stdout => self.created.stdout.as_fd(),
            LogStream::Stderr => self.created.stderr.as_fd(),
        };
        let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(pipe, PollFlags::IN)], Some(&patience)).is_ok_and(|ready| ready > 0)
    }

    fn judge(&self, code: Option<i32>, signal: Option<i32>, oom_kills: u64, peak: Option<u64>, failure: Option<&ExecFailure>) -> (ExitReason, String) {
        let program = self.created.spec.argv.first().map_or("", String::as_str);
        if let Some(failure) = failure {
            let error = std::io::Error::from_raw_os_error(failure.errno);
            return (ExitReason::Failed, format!("`{program}` was not executed: {error}"));
        }
        let ended = match (code, signal) {
            (Some(code), _) => format!("`{program}` exited with code {code}"),
            (None, Some(signal)) => format!("`{program}` was ended by signal {signal}"),
            (None, None) => format!("`{program}` ended"),
        };
        if let Some(reason) = self.reason {
            return (reason, ended);
        }
        if oom_kills > 0 && code != Some(0) {
            let mib = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes & 0xF_FFFF) * 10) >> 20);
            let limit = mib(self.created.spec.limits.memory_bytes);
            return (ExitReason::Oom, format!("memory limit {limit} reached (peak {}); {ended}", mib(peak.unwrap_or(0))));
        }
        if code == Some(0) { (ExitReason::Completed, ended) } else { (ExitReason::Failed, ended) }
    }
}

struct Ready {
    /// Standard output, standard error, timer, end of the job, new caller, end of the guard, end of the first process.
    fixed: [bool; 7],
    callers: Vec<bool>,
}
