//! The API: one table of routes, from which router and document are made.

mod activity;
pub(crate) mod call;
mod document;
pub(crate) mod json;
pub(crate) mod listener;
pub(crate) mod node;
mod node_routes;
mod places;
pub(crate) mod problem;
pub(crate) mod reach;
mod routes;
mod strict;
pub(crate) mod table;

pub(crate) use node_routes::node_table;
pub(crate) use routes::table;
