//! Writes OCI archives (a tar of a layout) with one layer: the same input gives the same bytes.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};

/// What the image says about its program.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageOptions {
    /// Program that is put before the command.
    pub(crate) entrypoint: Vec<String>,
    /// Default command.
    pub(crate) cmd: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    /// Empty means `/`.
    pub(crate) workdir: String,
    /// Empty means root.
    pub(crate) user: String,
    /// Whether the layer is compressed.
    pub(crate) gzip: bool,
}

/// Writes the image whose only layer is `rootfs_tar`, for linux/amd64. Gives the manifest's digest.
pub(crate) fn write_archive(rootfs_tar: &Path, options: &ImageOptions, out: &Path) -> io::Result<String> {
    archive(&mut BufReader::new(File::open(rootfs_tar)?), options, out)
}

/// Writes a small image from this machine's static busybox: its programs as links, two users, the usual directories.
pub(crate) fn busybox_archive(out: &Path) -> io::Result<String> {
    let program = Path::new("/bin/busybox");
    let bytes = std::fs::read(program)?;
    let list = Command::new(program).arg("--list").output()?;
    if !list.status.success() {
        return Err(io::Error::other("`busybox --list` failed"));
    }
    let mut tree = tar::Builder::new(Vec::new());
    for (name, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("outputs/", 0o755),
        ("proc/", 0o555),
        ("root/", 0o700),
        ("run/", 0o755),
        ("scratch/", 0o755),
        ("sys/", 0o555),
        ("tmp/", 0o1777),
        ("usr/", 0o755),
        ("var/", 0o755),
    ] {
        member(&mut tree, name, tar::EntryType::Directory, mode, None, &[])?;
    }
    let nobody = "nobody:x:65534:65534:nobody:/:/bin/false\n";
    member(&mut tree, "etc/passwd", tar::EntryType::Regular, 0o644, None, format!("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n{nobody}").as_bytes())?;
    member(&mut tree, "etc/group", tar::EntryType::Regular, 0o644, None, b"root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n")?;
    member(&mut tree, "bin/busybox", tar::EntryType::Regular, 0o755, None, &bytes)?;
    let mut applets: Vec<&str> = std::str::from_utf8(&list.stdout).map_err(io::Error::other)?.lines().filter(|name| *name != "busybox").collect();
    applets.sort_unstable();
    for applet in applets {
        member(&mut tree, &format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, Some("busybox"), &[])?;
    }
    let options = ImageOptions { cmd: vec!["/bin/sh".to_owned()], env: vec!["PATH=/bin".to_owned()], ..ImageOptions::default() };
    archive(&mut tree.into_inner()?.as_slice(), &options, out)
}

fn archive(tree: &mut dyn Read, options: &ImageOptions, out: &Path) -> io::Result<String> {
    let mut name = out.file_name().ok_or_else(|| io::Error::other("a path without a file name"))?.to_owned();
    name.push(".new");
    let unfinished = out.with_file_name(name);
    let written = File::create(&unfinished).and_then(|file| layout(tree, options, file)).and_then(|manifest| {
        std::fs::rename(&unfinished, out)?;
        Ok(manifest)
    });
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

fn layout(tree: &mut dyn Read, options: &ImageOptions, file: File) -> io::Result<String> {
    let mut out = tar::Builder::new(BufWriter::new(file));
    member(&mut out, "oci-layout", tar::EntryType::Regular, 0o644, None, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    member(&mut out, "blobs/", tar::EntryType::Directory, 0o755, None, &[])?;
    member(&mut out, "blobs/sha256/", tar::EntryType::Directory, 0o755, None, &[])?;
    let Layer { digest, size, diff_id } = layer(tree, options.gzip, out.get_mut())?;
    let config = config(options, &diff_id)?;
    let config_digest = blob(&mut out, config.as_bytes())?;
    let kind = if options.gzip { "tar+gzip" } else { "tar" };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{config_digest}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.{kind}","digest":"sha256:{digest}","size":{size}}}]}}"#,
        config.len()
    );
    let manifest_digest = blob(&mut out, manifest.as_bytes())?;
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{manifest_digest}","size":{},"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#,
        manifest.len()
    );
    member(&mut out, "index.json", tar::EntryType::Regular, 0o644, None, index.as_bytes())?;
    let file = out.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(format!("sha256:{manifest_digest}"))
}

/// Texts are put together by hand: the order of a JSON library's maps depends on how it was built.
fn config(options: &ImageOptions, diff_id: &str) -> io::Result<String> {
    let list = |texts: &Vec<String>| serde_json::to_string(texts);
    let text = |text: &String| serde_json::to_string(text);
    Ok(format!(
        r#"{{"created":"1970-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{{"User":{},"Env":{},"Entrypoint":{},"Cmd":{},"WorkingDir":{}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{diff_id}"]}}}}"#,
        text(&options.user)?,
        list(&options.env)?,
        list(&options.entrypoint)?,
        list(&options.cmd)?,
        text(&options.workdir)?,
    ))
}

struct Layer {
    digest: String,
    size: u64,
    diff_id: String,
}

/// Streams the layer into the archive. Its name and size are known only at its end, so its header is written last.
fn layer(tree: &mut dyn Read, gzip: bool, out: &mut BufWriter<File>) -> io::Result<Layer> {
    let place = out.stream_position()?;
    out.write_all(&[0; 512])?;
    let mut blob = Hashed { inner: &mut *out, hash: Sha256::new(), bytes: 0 };
    let diff_id = if gzip {
        // The header of a gzip made by this encoder holds no time and no name.
        let mut encoder = flate2::write::GzEncoder::new(&mut blob, flate2::Compression::default());
        let diff_id = pour(tree, &mut encoder)?;
        encoder.finish()?;
        diff_id
    } else {
        pour(tree, &mut blob)?
    };
    let (size, digest) = (blob.bytes, hex(blob.hash));
    let padding = size.next_multiple_of(512) - size;
    out.write_all(&vec![0; usize::try_from(padding).map_err(io::Error::other)?])?;
    let end = out.stream_position()?;
    out.seek(SeekFrom::Start(place))?;
    out.write_all(header(&format!("blobs/sha256/{digest}"), tar::EntryType::Regular, 0o644, size)?.as_bytes())?;
    out.seek(SeekFrom::Start(end))?;
    Ok(Layer { digest, size, diff_id })
}

/// Copies and gives the digest of what was copied.
fn pour(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<String> {
    let mut to = Hashed { inner: to, hash: Sha256::new(), bytes: 0 };
    io::copy(from, &mut to)?;
    Ok(hex(to.hash))
}

struct Hashed<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.bytes += u64::try_from(written).map_err(io::Error::other)?;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn blob(out: &mut tar::Builder<BufWriter<File>>, bytes: &[u8]) -> io::Result<String> {
    let digest = hex(Sha256::new_with_prefix(bytes));
    member(out, &format!("blobs/sha256/{digest}"), tar::EntryType::Regular, 0o644, None, bytes)?;
    Ok(digest)
}

fn header(name: &str, kind: tar::EntryType, mode: u32, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

fn member<W: Write>(out: &mut tar::Builder<W>, name: &str, kind: tar::EntryType, mode: u32, link: Option<&str>, bytes: &[u8]) -> io::Result<()> {
    let mut header = header(name, kind, mode, u64::try_from(bytes.len()).map_err(io::Error::other)?)?;
    if let Some(link) = link {
        header.set_link_name(link)?;
        header.set_cksum();
    }
    out.append(&header, bytes)
}
