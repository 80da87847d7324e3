//! Verification of RFC 6962 inclusion and consistency proofs (algorithms of RFC 9162, 2.1.3.2 and 2.1.4.2).

use crate::hash::{Hash, empty_root, node_hash};
use crate::limits::PROOF_MAX;

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index is not below the size.
    #[error("index {index} is not below the tree's size {size}")]
    IndexOutside {
        /// The index.
        index: u64,
        /// The size.
        size: u64,
    },
    /// The older tree is the larger one.
    #[error("the older tree has {old} leaves, more than the newer one with {new}")]
    Shrunk {
        /// Leaves of the older tree.
        old: u64,
        /// Leaves of the newer tree.
        new: u64,
    },
    /// There are fewer hashes than the tree's shape asks for.
    #[error("the proof has too few hashes")]
    TooShort,
    /// There are more hashes than the tree's shape asks for.
    #[error("the proof has too many hashes")]
    TooLong,
    /// The computed root is another one.
    #[error("the proof leads to another root")]
    WrongRoot,
    /// The computed root of the older tree is another one.
    #[error("the proof leads to another root of the older tree")]
    WrongOldRoot,
}

/// Checks that the leaf with hash `leaf` is number `index` of the tree of `size` leaves with root `root`.
pub fn verify_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), ProofError> {
    let computed = root_from_inclusion(leaf, index, size, proof)?;
    if computed == *root { Ok(()) } else { Err(ProofError::WrongRoot) }
}

/// The root that an inclusion proof leads to.
pub fn root_from_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash]) -> Result<Hash, ProofError> {
    if index >= size {
        return Err(ProofError::IndexOutside { index, size });
    }
    if proof.len() > PROOF_MAX {
        return Err(ProofError::TooLong);
    }
    let (mut node, mut last, mut running) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::TooLong);
        }
        if node & 1 == 1 || node == last {
            running = node_hash(sibling, &running);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            running = node_hash(&running, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok(running) } else { Err(ProofError::TooShort) }
}

/// Checks that the tree of `new` leaves extends the tree of `old` leaves: nothing was changed, removed or reordered.
///
/// From the empty tree everything extends; then, and for equal sizes, the proof must be empty.
pub fn verify_consistency(
    old: u64,
    old_root: &Hash,
    new: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Shrunk { old, new });
    }
    if proof.len() > PROOF_MAX {
        return Err(ProofError::TooLong);
    }
    if old == 0 && *old_root != empty_root() {
        return Err(ProofError::WrongOldRoot);
    }
    if old == new {
        return match (proof.is_empty(), old_root == new_root) {
            (false, _) => Err(ProofError::TooLong),
            (true, false) => Err(ProofError::WrongRoot),
            (true, true) => Ok(()),
        };
    }
    if old == 0 {
        return if proof.is_empty() { Ok(()) } else { Err(ProofError::TooLong) };
    }
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (first, rest) = if old.is_power_of_two() {
        (*old_root, proof)
    } else {
        let (first, rest) = proof.split_first().ok_or(ProofError::TooShort)?;
        (*first, rest)
    };
    let (mut running_old, mut running_new) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::TooLong);
        }
        if node & 1 == 1 || node == last {
            running_old = node_hash(sibling, &running_old);
            running_new = node_hash(sibling, &running_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            running_new = node_hash(&running_new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::TooShort);
    }
    if running_old != *old_root {
        return Err(ProofError::WrongOldRoot);
    }
    if running_new != *new_root {
        return Err(ProofError::WrongRoot);
    }
    Ok(())
}
