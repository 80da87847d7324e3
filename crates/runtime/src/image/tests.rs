//! Images as strangers write them. These tests unpack as root, as the node does.

mod bombs;
mod forge;
mod fuzz;
mod layouts;
mod layers;
mod traps;
mod users;
