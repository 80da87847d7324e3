//! Every limit of the words themselves, with its reason.

/// Characters of a name: fits a column of a table and a DNS label.
pub const NAME_MAX: usize = 64;
/// Bytes of a label.
pub const LABEL_MAX: usize = 64;
/// Bytes of a request body that is JSON: no spec of ours comes near it.
pub const JSON_BODY_MAX: usize = 1 << 20;
/// Nesting of JSON: deeper than any of our types, shallower than any stack.
pub const JSON_DEPTH_MAX: usize = 32;
/// Rows of one page of a list.
pub const PAGE_MAX: usize = 1000;
/// Bytes of one sealed object (a segment): 64 MiB of data, footer and header (`volume` format).
pub const OBJECT_MAX: usize = (64 << 20) + (8 << 20);
/// Arguments of a job's command.
pub const COMMAND_ARGS_MAX: usize = 256;
/// Bytes of all arguments and environment of a job: an eighth of the kernel's own limit.
pub const COMMAND_BYTES_MAX: usize = 256 << 10;
/// Bytes of the name of an image in a registry: host, repository and digest are shorter together.
pub const IMAGE_SOURCE_MAX: usize = 640;
/// Bytes of a secret: every token, password or key file that services hand out is smaller.
pub const SECRET_MAX: usize = 16 << 10;
/// Inputs, outputs and secrets of a job, each.
pub const JOB_VOLUMES_MAX: usize = 32;
