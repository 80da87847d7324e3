//! Every route of the node channel, with the action it needs. The paths are `vocabulary::channel`'s.

use vocabulary::channel;

use crate::api::node::NodeTable;
use crate::api::table::Words;
use crate::operation::{attempt, channel as node_channel, enrolment, job_output, node_log, secret, statement, witness};

/// The table.
pub(crate) fn node_table() -> NodeTable {
    let mut table = NodeTable::new();
    table.raw(Words("GET", channel::PLAN, "node_plan_follow", "Follows the node's plan"), node_channel::follow);
    table.json(Words("POST", channel::REPORT, "node_report", "Takes the node's report"), node_channel::report);
    table.json(Words("POST", channel::CERTIFICATE, "node_certificate_renew", "Renews the node's certificate"), enrolment::renew);
    table.json(Words("POST", channel::WITNESS, "node_witness", "Takes the node's answer as a witness and gives the next request"), witness::poll);
    table.json(Words("POST", channel::NODE_LOG, "node_log_anchor", "Keeps a checkpoint of the node's own log"), node_log::keep);
    table.get(Words("GET", channel::IMAGE, "attempt_image_show", "Says what the attempt's image consists of"), attempt::image);
    table.raw(Words("GET", channel::IMAGE_BLOB, "attempt_image_blob_get", "Gives a blob of the attempt's image"), attempt::image_blob);
    table.json(Words("POST", channel::LEASE, "attempt_lease_create", "Releases the keys of a volume to the attempt"), attempt::lease);
    table.json(Words("POST", channel::SECRET, "attempt_secret_create", "Releases a secret to the attempt"), secret::release);
    table.raw(Words("GET", channel::OBJECT, "attempt_object_get", "Gives a sealed object under a lease"), attempt::object_get);
    table.raw(Words("PUT", channel::OBJECT, "attempt_object_put", "Takes a sealed object under a write lease"), attempt::object_put);
    table.json(Words("POST", channel::COMMIT, "attempt_commit", "Compares and sets a root under a write lease"), attempt::commit_root);
    table.json(Words("POST", channel::LOGS, "attempt_logs_create", "Keeps a batch of the attempt's log"), job_output::keep_log);
    table.json(Words("POST", channel::STATEMENT, "attempt_statement_create", "Takes the node's signed statement of the attempt's end"), statement::take);
    table
}
