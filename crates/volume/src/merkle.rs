//! RFC 6962 hashing (section 2.1) with SHA-256.

use keys::derive::sha256;

/// The hash of a leaf.
#[must_use]
pub fn leaf(data: &[u8]) -> [u8; 32] {
    sha256(&[&[0], data])
}

/// The Merkle tree hash of leaves that are hashed already; of none, SHA-256 of nothing.
#[must_use]
pub fn root(hashes: &[[u8; 32]]) -> [u8; 32] {
    // One slot for each level: the tree grows like a binary counter, in memory logarithmic in the leaves.
    let mut levels: Vec<Option<[u8; 32]>> = Vec::new();
    for hash in hashes {
        let mut carry = *hash;
        let mut placed = false;
        for level in &mut levels {
            match level.take() {
                Some(left) => carry = sha256(&[&[1], &left, &carry]),
                None => {
                    *level = Some(carry);
                    placed = true;
                    break;
                }
            }
        }
        if !placed {
            levels.push(Some(carry));
        }
    }
    levels
        .into_iter()
        .flatten()
        .reduce(|right, left| sha256(&[&[1], &left, &right]))
        .unwrap_or_else(|| sha256(&[]))
}
