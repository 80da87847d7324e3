//! Reading tar, strictly: what two readers could understand differently is refused.
//!
//! The crate `tar` gives the layout of header blocks. The walk over them is our own, because memory must be bounded
//! *before* an extended header is read, and because records of such headers may hold line ends.

use std::collections::BTreeMap;
use std::io::{self, Read};

const BLOCK: u64 = 512;

/// What a source must offer beside its bytes.
pub(super) trait Source: Read {
    /// Goes over bytes that nobody wants.
    fn skip(&mut self, count: u64) -> io::Result<()>;
}

/// Why an archive cannot be read on.
#[derive(Debug)]
pub(super) enum TarError {
    /// The source.
    Io(io::Error),
    /// Headers of one entry are larger than the limit.
    Headers,
    /// An entry breaks a rule.
    Rule {
        /// Its name as far as it is known.
        path: Vec<u8>,
        /// The rule.
        rule: String,
    },
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    /// A character or block device.
    Device,
}

/// One entry; the bytes of a file are then read from the reader itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    /// Target of a link.
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds since 1970 and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Extended attributes, each name once.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the file's bytes begin in the archive.
    pub(super) offset: u64,
}

/// Walks over an archive.
#[derive(Debug)]
pub(super) struct TarReader<S> {
    source: S,
    header_limit: u64,
    position: u64,
    /// Bytes of the present file that nobody has read yet, and its padding.
    left: u64,
    padding: u64,
    ended: bool,
}

/// What extended headers say about the next entry.
#[derive(Debug, Default)]
struct Extended {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

/// Records of a PAX header that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    /// By name: a header may hold tens of thousands, and each is looked for among the others.
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn rule(path: &[u8], rule: impl Into<String>) -> TarError {
    TarError::Rule { path: path.to_vec(), rule: rule.into() }
}

impl<S: Source> TarReader<S> {
    /// `header_limit` bounds the bytes of all headers of one entry.
    pub(super) fn new(source: S, header_limit: u64) -> Self {
        Self { source, header_limit, position: 0, left: 0, padding: 0, ended: false }
    }

    /// The next entry; what was not read of the one before is skipped. The archive ends with its first block of
    /// zeros; whatever follows belongs to no entry.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let rest = self.left.saturating_add(self.padding);
        self.pass(rest)?;
        (self.left, self.padding) = (0, 0);
        let mut extended = Extended::default();
        let mut used = 0_u64;
        loop {
            let Some(block) = self.block()? else {
                self.ended = true;
                let pending = extended.long_name.is_some() || extended.long_link.is_some() || extended.pax.is_some();
                return if pending { Err(rule(b"", "an extended header without its entry")) } else { Ok(None) };
            };
            used = used.saturating_add(BLOCK);
            if used > self.header_limit {
                return Err(TarError::Headers);
            }
            let header = tar::Header::from_byte_slice(&block);
            let path = header.path_bytes();
            checksum(&block, header).map_err(|text| rule(&path, text))?;
            let old = header.as_old();
            let size = number(&old.size).map_err(|text| rule(&path, format!("size: {text}")))?;
            let [letter] = old.linkflag;
            if !matches!(letter, b'x' | b'g' | b'L' | b'K') {
                return self.entry(header, letter, size, extended).map(Some);
            }
            used = used.saturating_add(padded(size));
            if used > self.header_limit {
                return Err(TarError::Headers);
            }
            let body = self.body(size)?;
            extended.take(letter, &body).map_err(|text| rule(&path, text))?;
        }
    }

    /// Reads bytes of the present file; 0 at its end.
    pub(super) fn read_data(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let read = (&mut self.source).take(self.left).read(into)?;
        if read == 0 && !into.is_empty() {
            return Err(cut_off());
        }
        let read = count(read);
        self.left = self.left.saturating_sub(read);
        self.position = self.position.saturating_add(read);
        usize::try_from(read).map_err(io::Error::other)
    }

    /// The source, at wherever the archive has been read to.
    pub(super) fn into_source(self) -> S {
        self.source
    }

    fn entry(&mut self, header: &tar::Header, letter: u8, size: u64, extended: Extended) -> Result<Entry, TarError> {
        let old = header.as_old();
        let pax = extended.pax.unwrap_or_default();
        if extended.long_name.is_some() && pax.path.is_some() || extended.long_link.is_some() && pax.link.is_some() {
            return Err(rule(&header.path_bytes(), "two extended headers give the same name"));
        }
        let path = extended.long_name.or(pax.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.long_link.or(pax.link).or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned)).unwrap_or_default();
        let bad = |text: String| rule(&path, text);
        let size = pax.size.unwrap_or(size);
        let slash = path.last() == Some(&b'/');
        let kind = match letter {
            // Before there was a letter for directories, a final slash said so.
            0 if slash => Kind::Directory,
            b'0' | b'7' | 0 if slash => return Err(bad("a regular file with a final `/`".to_owned())),
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(bad("sparse files are not taken; write the layer without them".to_owned())),
            other => return Err(bad(format!("type `{}` is unknown", char::from(other).escape_debug()))),
        };
        if kind != Kind::File && size != 0 {
            return Err(bad("only a regular file has a size".to_owned()));
        }
        let field = |bytes: &[u8], what: &str| number(bytes).map_err(|text| rule(&path, format!("{what}: {text}")));
        let mode = u32::try_from(field(&old.mode, "mode")? & 0o7777).unwrap_or_default();
        let uid = pax.uid.map_or_else(|| field(&old.uid, "owner"), Ok)?;
        let gid = pax.gid.map_or_else(|| field(&old.gid, "group"), Ok)?;
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(field(&old.mtime, "time")?).map_err(|_| bad("time: out of range".to_owned()))?, 0),
        };
        self.left = size;
        self.padding = padded(size).saturating_sub(size);
        Ok(Entry { kind, path, link, size, mode, uid, gid, mtime, xattrs: pax.xattrs.into_iter().collect(), offset: self.position })
    }

    /// The next header block; `None` at the end of the archive.
    fn block(&mut self) -> Result<Option<[u8; 512]>, TarError> {
        let mut block = [0; 512];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.source.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Io(cut_off())),
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Io(error)),
            }
        }
        self.position = self.position.saturating_add(BLOCK);
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }

    /// The whole body of an extended header, whose size has been compared with the limit.
    fn body(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut body = Vec::new();
        let read = (&mut self.source).take(size).read_to_end(&mut body).map_err(TarError::Io)?;
        if count(read) != size {
            return Err(TarError::Io(cut_off()));
        }
        self.position = self.position.saturating_add(size);
        self.pass(padded(size).saturating_sub(size))?;
        Ok(body)
    }

    fn pass(&mut self, count: u64) -> Result<(), TarError> {
        if count > 0 {
            self.source.skip(count).map_err(TarError::Io)?;
        }
        self.position = self.position.saturating_add(count);
        Ok(())
    }
}

impl Extended {
    fn take(&mut self, letter: u8, body: &[u8]) -> Result<(), String> {
        let twice = || "two extended headers of one kind for one entry".to_owned();
        match letter {
            b'L' if self.long_name.is_some() => Err(twice()),
            b'K' if self.long_link.is_some() => Err(twice()),
            b'x' if self.pax.is_some() => Err(twice()),
            b'L' => {
                self.long_name = Some(long(body)?);
                Ok(())
            }
            b'K' => {
                self.long_link = Some(long(body)?);
                Ok(())
            }
            b'x' => {
                self.pax = Some(records(body)?);
                Ok(())
            }
            // A global header would speak about all entries after it. Readers disagree about that, so it may only
            // hold what nobody acts upon.
            _ => {
                let global = records(body)?;
                let harmless = Pax { mtime: global.mtime, ..Pax::default() };
                if global == harmless { Ok(()) } else { Err("a global header that changes names, sizes, owners or attributes".to_owned()) }
            }
        }
    }
}

/// A GNU long name: text, then NUL bytes.
fn long(body: &[u8]) -> Result<Vec<u8>, String> {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    let (text, rest) = body.split_at_checked(end).unwrap_or((body, &[]));
    if rest.iter().any(|byte| *byte != 0) {
        return Err("a long name holds a NUL byte".to_owned());
    }
    if text.is_empty() {
        return Err("a long name is empty".to_owned());
    }
    Ok(text.to_vec())
}

/// PAX records: `LENGTH KEY=VALUE\n`, where the length counts the whole record and the value may hold any byte.
fn records(mut body: &[u8]) -> Result<Pax, String> {
    let bad = || "malformed extended header".to_owned();
    let mut pax = Pax::default();
    while !body.is_empty() {
        let space = body.iter().take(21).position(|byte| *byte == b' ').ok_or_else(bad)?;
        let (digits, _) = body.split_at_checked(space).ok_or_else(bad)?;
        let length = usize::try_from(decimal(digits).ok_or_else(bad)?).map_err(|_| bad())?;
        let (record, rest) = body.split_at_checked(length).ok_or_else(bad)?;
        body = rest;
        let text = record.get(space.saturating_add(1)..).and_then(|text| text.strip_suffix(b"\n")).ok_or_else(bad)?;
        let equals = text.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let (key, value) = text.split_at_checked(equals).ok_or_else(bad)?;
        let value = value.strip_prefix(b"=").ok_or_else(bad)?;
        if key.is_empty() || key.contains(&0) {
            return Err(bad());
        }
        record_of(&mut pax, key, value)?;
    }
    Ok(pax)
}

fn record_of(pax: &mut Pax, key: &[u8], value: &[u8]) -> Result<(), String> {
    let named = || super::shown(key);
    let twice = || Err(format!("extended header: `{}` stands twice", named()));
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        return if pax.xattrs.insert(name.to_vec(), value.to_vec()).is_some() { twice() } else { Ok(()) };
    }
    if key.starts_with(b"GNU.sparse.") {
        return Err("sparse files are not taken; write the layer without them".to_owned());
    }
    // An empty value means that the ordinary header holds.
    if value.is_empty() {
        return Ok(());
    }
    let bytes = |slot: &mut Option<Vec<u8>>| if slot.replace(value.to_vec()).is_some() { twice() } else { Ok(()) };
    let whole = |slot: &mut Option<u64>| {
        let parsed = decimal(value).ok_or_else(|| format!("extended header: `{}` is no number", named()))?;
        if slot.replace(parsed).is_some() { twice() } else { Ok(()) }
    };
    match key {
        b"path" => bytes(&mut pax.path),
        b"linkpath" => bytes(&mut pax.link),
        b"size" => whole(&mut pax.size),
        b"uid" => whole(&mut pax.uid),
        b"gid" => whole(&mut pax.gid),
        b"mtime" => {
            let time = time(value).ok_or_else(|| "extended header: `mtime` is no time".to_owned())?;
            if pax.mtime.replace(time).is_some() { twice() } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// Digits only: no sign, no space, no overflow.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte.wrapping_sub(b'0')))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// `[-]SECONDS[.FRACTION]`.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = text.split_at_checked(dot)?;
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let fraction = fraction.strip_prefix(b".").unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0_u32, |sum, digit| sum.wrapping_mul(10).wrapping_add(u32::from(digit.wrapping_sub(b'0'))));
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((seconds.checked_neg()?, 0)),
        (true, _) => Some((seconds.checked_neg()?.checked_sub(1)?, 1_000_000_000_u32.checked_sub(nanos)?)),
    }
}

/// A number of a header: octal digits with spaces or NUL bytes around, or GNU's binary form.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        if *first != 0x80 {
            return Err("negative or too large");
        }
        return rest.iter().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte))).ok_or("too large");
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let (_, text) = field.split_at_checked(start).unwrap_or((field, &[]));
    let end = text.iter().position(blank).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end).unwrap_or((text, &[]));
    if !rest.iter().all(blank) {
        return Err("no octal number");
    }
    digits
        .iter()
        .try_fold(0_u64, |sum, byte| {
            let digit = matches!(byte, b'0'..=b'7').then(|| u64::from(byte.wrapping_sub(b'0')))?;
            sum.checked_mul(8)?.checked_add(digit)
        })
        .ok_or("no octal number")
}

fn checksum(block: &[u8; 512], header: &tar::Header) -> Result<(), String> {
    // The eight bytes of the sum itself, 148 to 155, count as spaces.
    let sum: u64 = (0_usize..).zip(block).map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte })).sum();
    let said = number(&header.as_old().cksum).map_err(|text| format!("checksum: {text}"))?;
    if sum == said { Ok(()) } else { Err("the header's checksum is wrong".to_owned()) }
}

fn padded(size: u64) -> u64 {
    size.div_ceil(BLOCK).saturating_mul(BLOCK)
}

fn count(read: usize) -> u64 {
    u64::try_from(read).unwrap_or(u64::MAX)
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")
}
