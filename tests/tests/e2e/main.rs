//! Everything from end to end, as a person types it. Needs root, like the node.

#[cfg(test)]
mod life;
