//! Every route of the node channel, with the action it needs. The paths are `vocabulary::channel`'s.

use vocabulary::channel;

use crate::api::node::NodeTable;
use crate::api::table::Words;
use crate::operation::enrolment;

/// The table.
pub(crate) fn node_table() -> NodeTable {
    let mut table = NodeTable::new();
    table.json(Words("POST", channel::CERTIFICATE, "node_certificate_renew", "Renews the node's certificate"), enrolment::renew);
    table
}
