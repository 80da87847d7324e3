//! The control socket: lines of JSON in, lines of JSON out, never waiting for a slow reader.

use super::Directory;
use crate::limits::{CONTROL_CONNECTIONS, CONTROL_LINE_BYTES};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

/// One caller and what it has said so far.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) stream: UnixStream,
    buffer: Vec<u8>,
}

/// The socket and its callers.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) listener: UnixListener,
    pub(super) callers: Vec<Caller>,
}

impl Control {
    pub(super) fn open(directory: &Directory) -> std::io::Result<Self> {
        let listener = UnixListener::bind(directory.join("ctl.sock"))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, callers: Vec::new() })
    }

    pub(super) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            // Only the host's root reaches the directory; a caller too many is told nothing and dropped.
            if self.callers.len() < CONTROL_CONNECTIONS && stream.set_nonblocking(true).is_ok() {
                self.callers.push(Caller { stream, buffer: Vec::new() });
            }
        }
    }

    /// Reads what a caller says; `None` means it is gone or broke the rules.
    pub(super) fn lines(caller: &mut Caller) -> Option<Vec<Vec<u8>>> {
        let mut chunk = [0; 4096];
        loop {
            match caller.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => caller.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
            if caller.buffer.len() > CONTROL_LINE_BYTES {
                return None;
            }
        }
        let mut lines = Vec::new();
        while let Some(end) = caller.buffer.iter().position(|byte| *byte == b'\n') {
            let rest = caller.buffer.split_off(end + 1);
            lines.push(std::mem::replace(&mut caller.buffer, rest));
        }
        Some(lines)
    }

    pub(super) fn answer(caller: &mut Caller, answer: &super::Answer) -> bool {
        let Ok(mut line) = serde_json::to_vec(answer) else { return false };
        line.push(b'\n');
        caller.stream.write_all(&line).is_ok()
    }
}
