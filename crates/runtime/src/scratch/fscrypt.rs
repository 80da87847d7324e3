//! The kernel's file system encryption, version 2: a few requests and a loop device.

#![expect(unsafe_code, reason = "the ioctls of fscrypt, one structure each")]

use super::{Scratch, ScratchError, io};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use zeroize::Zeroize;

/// Smallest image that ext4 takes with a journal.
const MIN_BYTES: u64 = 8 << 20;
const KEY_BYTES: usize = 64;
const AES_256_XTS: u8 = 1;
const AES_256_CTS: u8 = 4;
/// Names padded to 32 bytes, so that their lengths tell little.
const PAD_32: u8 = 3;

#[repr(C)]
struct Specifier {
    kind: u32,
    reserved: u32,
    value: [u8; 32],
}

#[repr(C)]
struct AddKey {
    spec: Specifier,
    raw_size: u32,
    key_id: u32,
    flags: u32,
    reserved: [u32; 7],
    raw: [u8; KEY_BYTES],
}

#[repr(C)]
struct RemoveKey {
    spec: Specifier,
    status: u32,
    reserved: [u32; 5],
}

#[repr(C)]
struct GetPolicy {
    size: u64,
    policy: PolicyV2,
}

#[repr(C)]
struct PolicyV2 {
    version: u8,
    contents: u8,
    names: u8,
    flags: u8,
    log2_unit: u8,
    reserved: [u8; 3],
    identifier: [u8; 16],
}

const fn request(direction: libc::c_ulong, number: libc::c_ulong, size: libc::c_ulong) -> libc::c_ulong {
    (direction << 30) | (size << 16) | (0x66 << 8) | number
}
// The sizes are those of the kernel's header: the key itself is a flexible tail and not counted.
const ADD_KEY: libc::c_ulong = request(3, 23, 80);
const REMOVE_KEY: libc::c_ulong = request(3, 24, 64);
const GET_POLICY: libc::c_ulong = request(3, 22, 9);
const SET_POLICY: libc::c_ulong = request(2, 19, 12);
/// The key is known by an identifier that the kernel derives from it.
const BY_IDENTIFIER: u32 = 2;

fn call<T>(directory: &File, request: libc::c_ulong, argument: &mut T) -> std::io::Result<()> {
    // SAFETY: every request of this file is given the structure of the kernel's header, alive through the call.
    if unsafe { libc::ioctl(directory.as_raw_fd(), request, std::ptr::from_mut(argument)) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

fn program(name: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), ScratchError> {
    // Services often run without the directories of system programs in their PATH.
    let place = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin"].map(|directory| Path::new(directory).join(name));
    let place = place.into_iter().find(|place| place.exists()).ok_or_else(|| ScratchError::Unavailable(format!("the program `{name}` is not installed")))?;
    let output = Command::new(place).args(arguments).output().map_err(|error| ScratchError::Unavailable(format!("`{name}`: {error}")))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(ScratchError::Unavailable(format!("`{name}`: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }
}

pub(super) fn create(directory: &Path, bytes: u64, random: &mut dyn keys::Random) -> Result<Scratch, ScratchError> {
    std::fs::create_dir_all(directory).map_err(io(format!("create `{}`", directory.display())))?;
    let (image, mount) = (directory.join("scratch.img"), directory.join("scratch"));
    // A scratch that is there already is not ours to remove: this fails before anything is changed.
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&image).map_err(io(format!("create `{}`", image.display())))?;
    let made = build(&file, &image, &mount, bytes.max(MIN_BYTES), random);
    if made.is_err() {
        let _ = destroy(&mount, &image, None);
    }
    made
}

/// Takes the blocks, so that a full host disk is an error here and never inside a job.
fn allocate(file: &File, bytes: u64) -> std::io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // File systems without reservation: the size alone.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}

fn build(file: &File, image: &Path, mount: &Path, bytes: u64, random: &mut dyn keys::Random) -> Result<Scratch, ScratchError> {
    allocate(file, bytes).map_err(io(format!("reserve {bytes} bytes for the scratch image")))?;
    std::fs::create_dir_all(mount).map_err(io(format!("create `{}`", mount.display())))?;
    let options = ["-q", "-F", "-m", "0", "-O", "encrypt,^has_journal", "-E", "lazy_itable_init=1,nodiscard"].map(std::ffi::OsStr::new);
    program("mkfs.ext4", &[&options[..], &[image.as_os_str()]].concat())?;
    let flags = ["-o", "loop,nosuid,nodev"].map(std::ffi::OsStr::new);
    program("mount", &[&flags[..], &[image.as_os_str(), mount.as_os_str()]].concat())?;
    let root = File::open(mount).map_err(io("open the scratch mount"))?;
    let mut add = AddKey {
        spec: Specifier { kind: BY_IDENTIFIER, reserved: 0, value: [0; 32] },
        raw_size: u32::try_from(KEY_BYTES).unwrap_or(0),
        key_id: 0,
        flags: 0,
        reserved: [0; 7],
        raw: [0; KEY_BYTES],
    };
    random.fill(&mut add.raw);
    let added = call(&root, ADD_KEY, &mut add);
    add.raw.zeroize();
    added.map_err(|error| ScratchError::Unavailable(format!("fscrypt key: {error}")))?;
    let mut identifier = [0; 16];
    identifier.copy_from_slice(add.spec.value.get(..16).unwrap_or(&[0; 16]));
    let data = mount.join("data");
    std::fs::create_dir(&data).map_err(io("create the encrypted directory"))?;
    let directory = File::open(&data).map_err(io("open the encrypted directory"))?;
    let mut policy = PolicyV2 { version: 2, contents: AES_256_XTS, names: AES_256_CTS, flags: PAD_32, log2_unit: 0, reserved: [0; 3], identifier };
    call(&directory, SET_POLICY, &mut policy).map_err(|error| ScratchError::Unavailable(format!("fscrypt policy: {error}")))?;
    Ok(Scratch { image: image.to_owned(), mount: mount.to_owned(), identifier })
}

/// The scratch that is mounted at `mount`, known by the policy of its encrypted directory.
pub(super) fn find(image: &Path, mount: &Path) -> Result<Option<Scratch>, ScratchError> {
    if !is_mounted(mount) {
        return Ok(None);
    }
    let directory = File::open(mount.join("data")).map_err(io("open the encrypted directory"))?;
    let policy = PolicyV2 { version: 0, contents: 0, names: 0, flags: 0, log2_unit: 0, reserved: [0; 3], identifier: [0; 16] };
    let mut get = GetPolicy { size: u64::try_from(size_of::<PolicyV2>()).unwrap_or(0), policy };
    call(&directory, GET_POLICY, &mut get).map_err(io("read the policy of the encrypted directory"))?;
    Ok(Some(Scratch { image: image.to_owned(), mount: mount.to_owned(), identifier: get.policy.identifier }))
}

/// Whether something else than the directory's own file system is seen there.
fn is_mounted(mount: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let above = mount.parent().and_then(device);
    device(mount).is_some_and(|own| Some(own) != above)
}

fn remove_key(mount: &Path, identifier: [u8; 16]) -> std::io::Result<()> {
    let root = File::open(mount)?;
    let mut value = [0; 32];
    for (place, byte) in value.iter_mut().zip(identifier) {
        *place = byte;
    }
    let mut remove = RemoveKey { spec: Specifier { kind: BY_IDENTIFIER, reserved: 0, value }, status: 0, reserved: [0; 5] };
    match call(&root, REMOVE_KEY, &mut remove) {
        Err(error) if error.raw_os_error() == Some(libc::ENOKEY) => Ok(()),
        other => other,
    }
}

pub(super) fn lock(scratch: &Scratch) -> Result<(), ScratchError> {
    remove_key(&scratch.mount, scratch.identifier).map_err(io("remove the scratch key"))
}

/// How long the kernel may take to let go of what nobody uses any more.
const PATIENCE: Duration = Duration::from_secs(5);

fn wait(mut done: impl FnMut() -> bool) -> bool {
    let step = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    while !done() {
        if waited >= PATIENCE {
            return false;
        }
        crate::cgroup::pause(step);
        waited += step;
    }
    true
}

fn unmount(mount: &Path) -> std::io::Result<()> {
    use rustix::mount::{UnmountFlags, unmount};
    let mut result = Ok(());
    let gone = wait(|| {
        result = unmount(mount, UnmountFlags::NOFOLLOW);
        !matches!(result, Err(rustix::io::Errno::BUSY))
    });
    if !gone {
        // Somebody has a file open there. The key is removed; the rest goes with that file.
        let _ = unmount(mount, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
    }
    match result {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn destroy(mount: &Path, image: &Path, identifier: Option<[u8; 16]>) -> Result<(), ScratchError> {
    let mut first = None;
    let mut keep = |result: std::io::Result<()>, what: &str| {
        if let Err(source) = result
            && source.kind() != std::io::ErrorKind::NotFound
        {
            first.get_or_insert(ScratchError::Io { what: what.to_owned(), source });
        }
    };
    if is_mounted(mount) {
        let known = identifier.or_else(|| find(image, mount).ok().flatten().map(|scratch| scratch.identifier));
        if let Some(identifier) = known {
            keep(remove_key(mount, identifier), "remove the scratch key");
        }
        keep(unmount(mount), "unmount scratch");
    }
    let place = std::fs::canonicalize(image);
    keep(std::fs::remove_file(image), "delete the scratch image");
    keep(std::fs::remove_dir(mount), "delete the scratch mount point");
    if let Ok(place) = place {
        // A device lets go of its file a moment after the last mount; one that does not would keep the cipher text.
        let attached = || crate::leftovers::loop_devices().is_ok_and(|all| all.iter().any(|(_, file)| *file == place));
        if !wait(|| !attached()) {
            keep(Err(std::io::ErrorKind::ResourceBusy.into()), "detach the loop device of scratch");
        }
    }
    first.map_or(Ok(()), Err)
}

/// Makes, locks and removes a small scratch in a directory of its own below `directory`.
///
/// # Errors
/// What is missing on this machine.
pub fn probe(directory: &Path, random: &mut dyn keys::Random) -> Result<(), ScratchError> {
    let place = directory.join(".scratch-probe");
    let _ = Scratch::remove_leftovers(&place);
    let scratch = Scratch::create(&place, MIN_BYTES, random)?;
    let result = std::fs::write(scratch.path().join("probe"), b"probe").map_err(io("write to encrypted scratch"));
    let locked = scratch.lock();
    let destroyed = scratch.destroy();
    let _ = std::fs::remove_dir(&place);
    result.and(locked).and(destroyed)
}
