//! The log's ring: files of JSON lines, named after their first frame. Written by the shim, read by anybody.

use crate::limits::{LOG_FILE_BYTES, LOG_FILES, LOG_FRAME_BYTES};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use vocabulary::UnixTime;
use vocabulary::job::{LogFrame, LogStream};

fn files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if let Some(first) = entry.file_name().to_str().and_then(|name| name.strip_prefix("frames.")).and_then(|text| text.parse().ok()) {
            files.push((first, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// Reads frames above `after`. A half-written last line is left for the next call.
pub(crate) fn read(directory: &Path, after: u64, max: usize) -> io::Result<Vec<LogFrame>> {
    let files = files(directory)?;
    let from = files.partition_point(|(first, _)| *first <= after.saturating_add(1)).saturating_sub(1);
    let mut frames: Vec<LogFrame> = Vec::new();
    let mut last = after;
    for (_, path) in files.into_iter().skip(from) {
        let file = match File::open(&path) {
            Ok(file) => file,
            // The writer dropped it between the listing and now: the next frame tells how many are lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = u64::try_from(LOG_FRAME_BYTES * 2 + 1024).unwrap_or(u64::MAX);
            let read = reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            if sequence(&line) > after {
                let mut frame: LogFrame = serde_json::from_slice(&line).map_err(io::Error::other)?;
                frame.lost = frame.sequence.saturating_sub(last).saturating_sub(1);
                last = frame.sequence;
                frames.push(frame);
                if frames.len() >= max {
                    return Ok(frames);
                }
            }
        }
    }
    Ok(frames)
}

/// The number at the beginning of a line, so that lines which nobody asked for need not be read as a whole.
fn sequence(line: &[u8]) -> u64 {
    let digits = line.strip_prefix(b"{\"sequence\":").unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Writer {
    directory: PathBuf,
    file: Option<File>,
    bytes: u64,
    next: u64,
    partial: [Vec<u8>; 2],
    waiting: Vec<u8>,
}

impl Writer {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), file: None, bytes: 0, next: 1, partial: [Vec::new(), Vec::new()], waiting: Vec::new() })
    }

    /// Takes bytes as they came; whole lines, or 16 KiB, become frames.
    pub(crate) fn push(&mut self, stream: LogStream, bytes: &[u8], now: UnixTime) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let buffer = self.buffer(stream);
            let room = LOG_FRAME_BYTES.saturating_sub(buffer.len()).max(1).min(rest.len());
            let line = rest.iter().take(room).position(|byte| *byte == b'\n').map(|end| end + 1);
            let (part, later) = rest.split_at(line.unwrap_or(room));
            buffer.extend_from_slice(part);
            rest = later;
            if line.is_some() || buffer.len() >= LOG_FRAME_BYTES {
                self.frame(stream, now);
            }
        }
        self.write();
    }

    /// Makes a frame of what has no line end yet.
    pub(crate) fn flush(&mut self, stream: LogStream, now: UnixTime) {
        self.frame(stream, now);
        self.write();
    }

    fn frame(&mut self, stream: LogStream, now: UnixTime) {
        let data = std::mem::take(self.buffer(stream));
        if data.is_empty() {
            return;
        }
        let frame = LogFrame { sequence: self.next, time: now, stream, data: crate::sys::base64(&data), lost: 0 };
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        if self.file.is_none() || self.bytes.saturating_add(waiting) >= LOG_FILE_BYTES {
            self.write();
            // The job never waits for its log: what cannot be written is a hole, and the reader counts it.
            let _ = self.rotate();
        }
        if serde_json::to_writer(&mut self.waiting, &frame).is_ok() {
            self.waiting.push(b'\n');
        }
        self.next = self.next.saturating_add(1);
    }

    fn buffer(&mut self, stream: LogStream) -> &mut Vec<u8> {
        let [out, err] = &mut self.partial;
        match stream {
            LogStream::Stdout => out,
            LogStream::Stderr => err,
        }
    }

    /// Writes the frames of one reading at once: a chatty job must not keep its shim from hearing anybody else.
    fn write(&mut self) {
        let lines = std::mem::take(&mut self.waiting);
        let Some(file) = self.file.as_mut().filter(|_| !lines.is_empty()) else { return };
        if file.write_all(&lines).is_ok() {
            self.bytes = self.bytes.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        } else if file.set_len(self.bytes).is_err() {
            // A torn line that cannot be cut off ends its file.
            self.file = None;
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = self.directory.join(format!("frames.{:020}", self.next));
        self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        self.bytes = 0;
        let all = files(&self.directory)?;
        let surplus = all.len().saturating_sub(LOG_FILES);
        for (_, path) in all.into_iter().take(surplus) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_in_order_and_after_a_sequence() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path()).unwrap();
        let now = UnixTime::from_millis(1);
        writer.push(LogStream::Stdout, b"one\ntwo\nthr", now);
        writer.push(LogStream::Stderr, b"err\n", now);
        writer.flush(LogStream::Stdout, now);
        let all = read(directory.path(), 0, 100).unwrap();
        assert_eq!(all.iter().map(|frame| frame.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(all[3].data, crate::sys::base64(b"thr"));
        assert_eq!(read(directory.path(), 2, 1).unwrap().len(), 1);
        assert!(read(directory.path(), 4, 10).unwrap().is_empty());
    }

    #[test]
    fn a_full_ring_drops_the_oldest_and_counts_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path()).unwrap();
        for _ in 0..(LOG_FILES + 3) {
            writer.bytes = LOG_FILE_BYTES;
            writer.push(LogStream::Stdout, b"x\n", UnixTime::from_millis(1));
        }
        let all = read(directory.path(), 0, 1000).unwrap();
        assert_eq!(all.len(), LOG_FILES);
        assert_eq!(all[0].lost, 3);
        assert_eq!(all[1].lost, 0);
    }

    #[test]
    fn what_could_not_be_written_is_a_counted_hole_and_costs_nothing_older() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path()).unwrap();
        let now = UnixTime::from_millis(1);
        writer.push(LogStream::Stdout, b"one\ntwo\n", now);
        // A disk that takes nothing: every write to this device fails with ENOSPC.
        let whole = writer.file.replace(OpenOptions::new().write(true).open("/dev/full").unwrap());
        for _ in 0..100 {
            writer.push(LogStream::Stdout, b"lost\n", now);
            writer.file.get_or_insert_with(|| OpenOptions::new().write(true).open("/dev/full").unwrap());
        }
        writer.file = whole;
        writer.push(LogStream::Stdout, b"three\n", now);
        let all = read(directory.path(), 0, 1000).unwrap();
        assert_eq!(all.iter().map(|frame| (frame.sequence, frame.lost)).collect::<Vec<_>>(), [(1, 0), (2, 0), (103, 100)]);
        assert_eq!(read(directory.path(), 2, 1000).unwrap()[0].lost, 100);
        assert_eq!(files(directory.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path()).unwrap();
        writer.push(LogStream::Stdout, &vec![b'a'; LOG_FRAME_BYTES + 5], UnixTime::from_millis(1));
        writer.flush(LogStream::Stdout, UnixTime::from_millis(1));
        assert_eq!(read(directory.path(), 0, 10).unwrap().len(), 2);
    }
}
