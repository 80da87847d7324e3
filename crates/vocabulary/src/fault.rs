//! Named points of the operations that take several steps: where the tests end a process as a power cut would.
//!
//! This is the table of all points. A build for developers may have a watcher, which is told when a point is reached; a release
//! build has none, and [`reached`] does nothing. A point stands where something is already on a disk, or known to another
//! process, and something that belongs to it is not.

/// Writes the table once: a name cannot be missing from the list of all.
macro_rules! points {
    ($($(#[doc = $doc:literal])* $point:ident = $name:literal,)*) => {
        /// A point of an operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Point {
            $($(#[doc = $doc])* $point,)*
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// Its name: the operation, and how far it is.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

points! {
    /// A group of changes has begun; nothing of it is written.
    CommitBegun = "commit.begun",
    /// A group of changes is written, and not committed.
    CommitWritten = "commit.written",
    /// A group of changes is committed; nobody has heard of it.
    CommitDurable = "commit.durable",
    /// An object's bytes are on the disk, under another name.
    ObjectComplete = "object.complete",
    /// An object has its name; nobody has heard of it.
    ObjectPlaced = "object.placed",
    /// A deployment's first seal is written; its database is empty.
    SetupSealed = "setup.sealed",
    /// A deployment is in its database; this is not marked beside the seal.
    SetupBorn = "setup.born",
    /// A publisher of the log has the lease; nothing is written.
    LogTaken = "log.taken",
    /// Tiles of the log are written; no checkpoint covers them.
    LogTiles = "log.tiles",
    /// A checkpoint is stored; nobody has heard of it.
    LogPublished = "log.published",
    /// A changed seal file is written, and not in force.
    SealStaged = "seal.staged",
    /// A changed seal is in force; the old file is still there.
    SealChanged = "seal.changed",
    /// A batch of keys lies under the new key; others lie under the old one.
    KeyRewrapped = "key.rewrapped",
    /// A backup's files are copied; it has no list.
    BackupCopied = "backup.copied",
    /// A backup has its manifest, and not its name.
    BackupWritten = "backup.written",
    /// A backup is copied back, and does not have its name.
    RestoreCopied = "restore.copied",
    /// Something is destroyed in the database; the shred list does not have it.
    ShredCommitted = "shred.committed",
    /// A node has its keys; the control plane does not know it.
    JoinBegun = "join.begun",
    /// The control plane knows a node; the node has kept nothing of the answer.
    JoinEnrolled = "join.enrolled",
    /// A node's folder is whole, and does not have its name.
    JoinWritten = "join.written",
    /// A person's data is sealed and uploaded; no root covers it.
    PutSealed = "put.sealed",
    /// A person's root is committed; the lease is not given back.
    PutCommitted = "put.committed",
    /// The blobs of an image are uploaded; no image names them.
    ImageUploaded = "image.uploaded",
    /// A node has a new plan on its disk, and not in force.
    PlanKept = "plan.kept",
    /// An attempt is remembered; its image is not fetched.
    AttemptPulling = "attempt.pulling",
    /// An attempt's inputs are about to be opened.
    AttemptOpening = "attempt.opening",
    /// An attempt's sandbox is about to be made.
    AttemptCreating = "attempt.creating",
    /// An attempt's program is about to run.
    AttemptRunning = "attempt.running",
    /// An attempt's program was told to stop.
    AttemptStopping = "attempt.stopping",
    /// An attempt's outputs are about to be sealed.
    AttemptSealing = "attempt.sealing",
    /// An output is sealed, and not committed.
    OutputSealed = "output.sealed",
    /// An output is committed; the node has not noted it.
    OutputCommitted = "output.committed",
    /// The rest of an attempt's log is about to be shipped.
    AttemptShipping = "attempt.shipping",
    /// An attempt's scratch key is about to be destroyed.
    AttemptScrubbing = "attempt.scrubbing",
    /// An attempt's statement is about to be signed.
    AttemptSigning = "attempt.signing",
    /// An attempt's statement is signed, and not sent.
    AttemptSending = "attempt.sending",
    /// An attempt's end is not acknowledged.
    AttemptEnded = "attempt.ended",
    /// An attempt's leftovers are about to be removed.
    AttemptRemoving = "attempt.removing",
    /// Nothing is left of an attempt but its record.
    AttemptGone = "attempt.gone",
}

#[cfg(debug_assertions)]
static WATCHER: std::sync::OnceLock<fn(Point)> = std::sync::OnceLock::new();

/// Tells whoever watches that a point is reached. In a release build this does nothing.
#[inline]
pub fn reached(point: Point) {
    #[cfg(debug_assertions)]
    if let Some(watcher) = WATCHER.get() {
        watcher(point);
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}

/// Has a function told of every point from here on. The first one stays.
#[cfg(debug_assertions)]
pub fn watch(watcher: fn(Point)) {
    let _ = WATCHER.set(watcher);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        assert!(names.iter().all(|name| name.split('.').count() == 2), "{names:?}");
    }
}
