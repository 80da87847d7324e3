//! Images, the sandbox and the supervision of one job on one node.
//!
//! A job runs under a *shim*: the program itself, started again from a sealed memory file by [`supervisor`], with one
//! thread and no async runtime. The shim makes the [`sandbox`], reads back what really holds, and stays until the
//! job has ended. [`image`] turns OCI layouts into directory trees, [`scratch`] gives a job encrypted disk, and
//! [`probe`] says what this machine can do.

mod cgroup;
mod clock;
mod executor;
pub mod image;
pub mod leftovers;
pub mod limits;
mod log;
pub mod probe;
mod report;
pub mod sandbox;
pub mod scratch;
pub mod seccomp;
pub mod shim;
pub mod supervisor;
mod sys;
