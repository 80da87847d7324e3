//! Paths below a tree that an image cannot leave.
