//! Images as strangers write them. These tests unpack as root, as the node does.
#![expect(clippy::wildcard_enum_match_arm, reason = "an error of any other kind fails the test")]

mod bombs;
mod edges;
mod forge;
mod fuzz;
mod layouts;
mod layers;
mod peers;
mod traps;
mod users;
