//! Images, the sandbox and the supervision of one job on one node.
//!
//! A job runs under a *shim*: the program itself, started again from a sealed memory file by [`supervisor`], with one
//! thread and no async runtime. The shim makes the [`sandbox`], reads back what really holds, and stays until the
//! job has ended. [`image`] turns OCI layouts into directory trees, [`scratch`] gives a job encrypted disk, and
//! [`probe`] says what this machine can do.
//!
//! **Invariant:** no program of a job starts before every layer that was asked for was read back from the kernel.
//! **Invariant:** a shim has one thread; libcontainer runs nowhere else. A foreign runtime is a child of the shim.
//! **Invariant:** a free lock on `shim.lock` means that nothing of the attempt runs; one that is held, that something may.
//! **Invariant:** nothing is signalled by its number alone: a descriptor, an own child, or a member that its group still lists.
//! **Invariant:** no hook of any specification is run, and no mount of the host is taken from a job's own wishes.

pub mod backend;
mod candidates;
mod cgroup;
mod clock;
mod executor;
pub mod gpu;
pub mod image;
pub mod leftovers;
pub mod limits;
mod log;
pub mod probe;
mod report;
pub mod sandbox;
pub mod scratch;
pub mod seccomp;
pub mod secret;
pub mod shim;
pub mod supervisor;
mod sys;
