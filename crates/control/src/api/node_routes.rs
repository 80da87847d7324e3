//! Every route of the node channel, with the action it needs. The paths are `vocabulary::channel`'s.

use vocabulary::channel;

use crate::api::node::NodeTable;
use crate::api::table::Words;
use crate::operation::{channel as node_channel, enrolment};

/// The table.
pub(crate) fn node_table() -> NodeTable {
    let mut table = NodeTable::new();
    table.raw(Words("GET", channel::PLAN, "node_plan_follow", "Follows the node's plan"), node_channel::follow);
    table.json(Words("POST", channel::REPORT, "node_report", "Takes the node's report"), node_channel::report);
    table.json(Words("POST", channel::CERTIFICATE, "node_certificate_renew", "Renews the node's certificate"), enrolment::renew);
    table
}
