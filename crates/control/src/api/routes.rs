//! Every route of the API, with the action it needs or the reason why it needs none.

use axum::Json;
use axum::response::IntoResponse as _;
use vocabulary::api;

use crate::api::table::{Answered, Header, Table, Words};
use crate::destruction;
use crate::operation::lease::PAGE_QUERY;
use crate::operation::{audit_log, enrolment, erasure, image, image_policy, invitation, job, job_output, key, lease, login, node, object, people, policy_explain, quota, seal, secret, tenant, token, volume, witness};

const AUDIT_QUERY: &[(&str, &str)] = &[
    ("cursor", "where the last page ended"),
    ("limit", "entries, at most 1000"),
    ("after", "only entries with a greater index"),
    ("newest", "`true`: the newest entries"),
    ("action", "only this action"),
    ("actor", "only this principal"),
    ("resource", "only this resource, as kind/id"),
    ("outcome", "allowed, refused or failed"),
];

const REVISION: Header = Header { name: "If-Match", meaning: "the revision that is changed, as it was read", required: true };
const LEASE: Header = Header { name: "Swarm-Lease", meaning: "the lease under which objects are read or written", required: true };
const OCTETS: &str = "application/octet-stream";
const NOTE: &str = "text/plain; charset=utf-8";

/// The table.
pub(crate) fn table() -> Table {
    let mut table = Table::new();
    public(&mut table);
    table.component::<api::Image>();
    table.component::<api::Job>();
    table.component::<api::KeyInfo>();
    table.component::<api::LeaseInfo>();
    table.component::<api::Node>();
    table.component::<api::Principal>();
    table.component::<api::Project>();
    table.component::<vocabulary::secret::Secret>();
    table.component::<api::TokenInfo>();
    table.component::<api::Volume>();
    table.component::<vocabulary::quota::Quota>();
    table.get(Words("GET", "/v1/whoami", "whoami_show", "Shows who the credential is"), &[], people::whoami);
    table.get(Words("POST", "/v1/logout", "token_logout", "Revokes the credential's own token"), &[], people::logout);
    table.json(Words("POST", "/v1/step-ups/{id}", "step_up_confirm", "Confirms a pending request with a fresh code"), &[], people::confirm);
    table.get(Words("GET", "/v1/status", "status_show", "Shows the deployment's state"), &[], tenant::status);

    table.json(Words("POST", "/v1/tenants", "tenant_create", "Makes a tenant and its first administrator"), &[], tenant::create);
    table.get(Words("GET", "/v1/tenants", "tenant_list", "Lists tenants"), PAGE_QUERY, tenant::list);
    table.get(Words("POST", "/v1/tenants/{id}/suspend", "tenant_suspend", "Suspends a tenant"), &[], tenant::suspend);
    table.get(Words("POST", "/v1/tenants/{id}/resume", "tenant_resume", "Ends a suspension"), &[], tenant::resume);
    table.get(Words("GET", "/v1/platform-audit", "platform_audit_list", "Lists the platform's own audit entries"), AUDIT_QUERY, audit_log::list_platform);

    table.json(Words("POST", "/v1/seal/shares", "seal_init", "Draws new shares of the seal and tells them once"), &[], seal::init);
    table.json(Words("POST", "/v1/seal/confirm", "seal_confirm", "Puts new shares of the seal in force"), &[], seal::confirm);

    table.json(Words("POST", "/v1/join-tokens", "node_invite", "Makes a join token for one node"), &[], enrolment::invite);
    table.get(Words("GET", "/v1/nodes", "node_list", "Lists nodes"), PAGE_QUERY, node::list);
    table.get(Words("GET", "/v1/nodes/{id}", "node_show", "Shows a node"), &[], node::show);
    table.json(Words("POST", "/v1/nodes/{id}/drain", "node_drain", "Gives the node no new jobs, and sends its jobs away at a deadline"), &[], node::drain);
    table.get(Words("POST", "/v1/nodes/{id}/resume", "node_resume", "Gives the node jobs again"), &[], node::resume);
    table.json(Words("PUT", "/v1/nodes/{id}/tenant", "node_dedicate", "Sets the node apart for a tenant"), &[], node::dedicate);
    table.get(Words("POST", "/v1/nodes/{id}/revoke", "node_revoke", "Revokes the node for good"), &[], node::revoke);

    table.json(Words("POST", "/v1/projects", "project_create", "Makes a project"), &[], tenant::project_create);
    table.get(Words("GET", "/v1/projects", "project_list", "Lists projects"), PAGE_QUERY, tenant::project_list);
    table.get(Words("GET", "/v1/tenants/{id}/quota", "tenant_quota_show", "Shows a tenant's limits"), &[], quota::tenant_show);
    table.json(Words("PUT", "/v1/tenants/{id}/quota", "tenant_quota_set", "Sets a tenant's limits"), &[], quota::tenant_set);
    table.json(Words("PUT", "/v1/projects/{id}/quota", "project_quota_set", "Sets a project's limits"), &[], quota::project_set);
    table.get(Words("GET", "/v1/quotas", "quota_list", "Lists the limits of the tenant and of its projects"), &[], quota::list);
    table.json(Words("POST", "/v1/users", "user_create", "Invites a user"), &[], people::user_create);
    table.json(Words("POST", "/v1/service-accounts", "service_account_create", "Makes a service account"), &[], people::service_account_create);
    table.get(Words("GET", "/v1/principals", "principal_list", "Lists users and service accounts"), PAGE_QUERY, people::list);
    table.json(Words("PUT", "/v1/principals/{id}", "principal_update", "Changes roles and clearance"), &[], people::update);
    table.with(REVISION);
    table.get(Words("DELETE", "/v1/principals/{id}", "principal_delete", "Removes a principal and its tokens"), &[], people::delete);

    table.json(Words("POST", "/v1/people/erase", "person_erase", "Erases a person: name, factors, principals, and the key of the log's sealed values"), &[], erasure::erase);

    table.json(Words("POST", "/v1/tokens", "token_create", "Makes a token for oneself"), &[], token::create);
    table.get(Words("GET", "/v1/tokens", "token_list", "Lists one's own tokens, or those of another of the tenant"), token::LIST_QUERY, token::list);
    table.get(Words("DELETE", "/v1/tokens/{id}", "token_revoke", "Revokes a token of one's own"), &[], token::revoke);
    table.json(
        Words("POST", "/v1/service-accounts/{id}/tokens", "service_token_create", "Makes a token for a service account"),
        &[],
        token::create_service,
    );
    table.get(
        Words("DELETE", "/v1/principals/{id}/tokens/{token}", "other_token_revoke", "Revokes a token of another principal"),
        &[],
        token::revoke_other,
    );

    table.json(Words("POST", "/v1/volumes", "volume_create", "Makes a volume"), &[], volume::create);
    table.get(Words("GET", "/v1/volumes", "volume_list", "Lists volumes"), PAGE_QUERY, volume::list);
    table.get(Words("GET", "/v1/volumes/{id}", "volume_show", "Shows a volume"), &[], volume::show);
    table.get(Words("DELETE", "/v1/volumes/{id}", "volume_delete", "Destroys a volume's keys and forgets it"), &[], volume::delete);
    table.get(Words("POST", "/v1/volumes/{id}/rotate", "volume_rotate", "Gives the volume a new data key"), &[], volume::rotate);
    table.json(Words("POST", "/v1/volumes/{id}/read-leases", "volume_read", "Releases the keys for reading"), &[], lease::read);
    table.json(
        Words("POST", "/v1/volumes/{id}/write-leases", "volume_write", "Releases the keys for writing and opens a writer epoch"),
        &[],
        lease::write,
    );
    table.raw(Words("PUT", "/v1/volumes/{id}/objects/{*path}", "object_put", "Stores a sealed object under a write lease"), &[], Answered::Nothing, object::put);
    table.with(LEASE);
    table.raw(Words("GET", "/v1/volumes/{id}/objects/{*path}", "object_get", "Gives a sealed object under a lease"), &[], Answered::Bytes(OCTETS), object::get);
    table.with(LEASE);
    table.json(Words("POST", "/v1/volumes/{id}/commit", "volume_commit", "Compares and sets the root"), &[], object::commit_root);
    table.get(Words("GET", "/v1/leases", "lease_list", "Lists one's own key leases"), PAGE_QUERY, lease::list);
    table.get(Words("DELETE", "/v1/leases/{id}", "lease_end", "Gives a lease back"), &[], lease::end);

    let blob = Answered::Json(table.schema::<vocabulary::plan::BlobRef>());
    table.raw(Words("PUT", "/v1/image-blobs/{digest}", "image_blob_put", "Takes a blob of an image; its size and digest are checked"), &[], blob, image::put_blob);
    table.get(Words("GET", "/v1/image-blobs/{digest}", "image_blob_show", "Says whether the tenant has a blob"), &[], image::show_blob);
    table.json(Words("POST", "/v1/images", "image_create", "Names a manifest whose blobs were uploaded"), &[], image::create);
    table.get(Words("GET", "/v1/images", "image_list", "Lists images by name"), PAGE_QUERY, image::list);
    table.json(Words("POST", "/v1/images/{digest}/signatures", "image_signatures_add", "Keeps signatures of an image"), &[], image_policy::add);
    table.json(Words("PUT", "/v1/image-policy", "image_policy_set", "Says who must have signed the images of jobs"), &[], image_policy::set);
    table.get(Words("GET", "/v1/image-policy", "image_policy_show", "Shows who must have signed the images of jobs"), &[], image_policy::show);
    table.json(Words("POST", "/v1/secrets", "secret_create", "Makes a secret; the answer carries the key to seal its value with"), &[], secret::create);
    table.get(Words("GET", "/v1/secrets", "secret_list", "Lists secrets, never their values"), PAGE_QUERY, secret::list);
    table.json(Words("POST", "/v1/secrets/{id}/versions", "secret_renew", "Begins a new version; the answer carries its key"), &[], secret::renew);
    table.json(Words("PUT", "/v1/secrets/{id}/value", "secret_set", "Takes the sealed value of the version that waits for it"), &[], secret::set);
    table.json(Words("POST", "/v1/secrets/{id}/open", "secret_open", "Releases a secret to a person who pulls an image with it"), &[], secret::open);
    table.get(Words("DELETE", "/v1/secrets/{id}", "secret_delete", "Destroys a secret's keys and forgets it"), &[], secret::delete);
    table.json(Words("POST", "/v1/jobs", "job_submit", "Submits a job"), &[], job::create);
    table.get(Words("GET", "/v1/jobs", "job_list", "Lists jobs"), PAGE_QUERY, job::list);
    table.get(Words("GET", "/v1/jobs/{id}", "job_show", "Shows a job, and while it waits why"), &[], job::show);
    table.get(Words("POST", "/v1/jobs/{id}/stop", "job_stop", "Stops a job"), &[], job::stop);
    table.raw(Words("GET", "/v1/jobs/{id}/logs", "job_logs", "Streams the frames of an attempt's log as JSON lines"), job_output::LOG_QUERY, Answered::Bytes("application/jsonl"), job_output::logs);
    table.raw(Words("GET", "/v1/jobs/{id}/receipt", "job_receipt_get", "Gives the job's receipt, byte for byte"), &[], Answered::Bytes(job_output::RECEIPT), job_output::receipt);

    table.get(Words("GET", "/v1/keys", "key_list", "Lists keys, never the keys themselves"), PAGE_QUERY, key::list);
    table.json(Words("POST", "/v1/keys/{id}/destroy", "key_destroy", "Schedules the destruction of a key"), &[], destruction::schedule);
    table.get(
        Words("POST", "/v1/keys/{id}/cancel-destruction", "key_destroy_cancel", "Cancels a scheduled destruction"),
        &[],
        destruction::cancel,
    );
    table.get(Words("GET", "/v1/key-inventory", "key_inventory", "Says what keys there are, by purpose"), &[], key::inventory);
    table.get(Words("GET", "/v1/tenant-key/rewrap", "tenant_key_rewrap", "Says how far the rewrap under the tenant's key is"), &[], key::tenant_rewrap);
    table.get(Words("POST", "/v1/root-key/rotate", "root_key_rotate", "Makes a new root epoch"), &[], key::rotate_root);
    table.get(Words("GET", "/v1/root-key/rewrap", "root_key_rewrap", "Says how far the rewrap under the root key is"), &[], key::root_rewrap);
    table.get(Words("GET", "/v1/platform-key-inventory", "platform_key_inventory", "Says what keys the deployment itself has"), &[], key::platform_inventory);
    table.json(
        Words("POST", "/v1/backup-retention", "backup_retention_set", "Says how long backups are kept"),
        &[],
        destruction::set_retention,
    );
    table.get(Words("POST", "/v1/tenant-key/rotate", "tenant_key_rotate", "Rotates the tenant's key"), &[], key::rotate_tenant);

    table.get(Words("GET", "/v1/audit", "audit_list", "Lists the tenant's audit entries"), AUDIT_QUERY, audit_log::list);
    table.get(Words("GET", "/v1/audit/{index}/proof", "audit_proof", "Gives an entry with its inclusion proof"), &[], audit_log::proof);
    table.get(Words("POST", "/v1/audit/{index}/reveal", "audit_reveal", "Opens the personal values of an entry, which is recorded"), &[], erasure::reveal);
    table.get(Words("GET", "/v1/witnesses", "witness_show", "Shows the witnesses of the log and what they signed"), &[], witness::show);
    table.json(
        Words("PUT", "/v1/log/witness-policy", "witness_policy_set", "Says which witnesses must have signed the log (C2SP tlog-policy)"),
        &[],
        witness::set_policy,
    );
    table.json(Words("POST", "/v1/policy/explain", "policy_explain", "Explains a decision"), &[], policy_explain::explain);
    table
}

fn public(table: &mut Table) {
    table.public(
        Words("GET", "/v1/health", "health_show", "Says whether the server works"),
        "load balancers and people ask before they have a credential",
        |call, (): ()| async move {
            let _ = call;
            Ok(api::Health { state: "ready".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
        },
    );
    table.public(
        Words("GET", "/v1/seal", "seal_show", "Says what the seal is and how far its opening is"),
        "custodians hold a share and no credential",
        seal::show,
    );
    table.public(
        Words("POST", "/v1/seal/open", "seal_open", "Enters a share or the passphrase"),
        "the share is the credential",
        seal::open,
    );
    table.public_raw(
        Words("GET", "/v1/deployment", "deployment_show", "Gives the deployment's public file"),
        "it is what strangers verify receipts with",
        "application/json",
        |call| async move {
            let headers = [(http::header::CONTENT_TYPE, "application/json")];
            Ok((headers, call.control.certifying().file.clone()).into_response())
        },
    );
    table.public_raw(
        Words("GET", "/v1/openapi.json", "openapi_show", "Gives this document"),
        "the API is no secret",
        "application/json",
        |call| async move {
            let headers = [(http::header::CONTENT_TYPE, "application/json")];
            Ok((headers, call.control.openapi.clone()).into_response())
        },
    );
    table.public(
        Words("POST", "/v1/login", "token_login", "Logs a person in"),
        "it is how a credential is got",
        |call, Json(request)| login::login(call, request),
    );
    table.public(
        Words("POST", "/v1/enrolments", "enrolment_begin", "Says what a ticket is for, and shows the authenticator's secret to whoever has none"),
        "the one-time ticket is the credential",
        |call, Json(request)| invitation::begin(call, request),
    );
    table.public(
        Words("POST", "/v1/enrolments/complete", "enrolment_complete", "Sets or proves password and authenticator, spends the ticket"),
        "the one-time ticket is the credential",
        |call, Json(request)| invitation::complete(call, request),
    );
    table.public(
        Words("POST", "/v1/nodes/enrol", "node_enrol", "Enrols a node, spends its join token"),
        "the single-use join token is the credential",
        enrolment::enrol,
    );
    table.public_raw(
        Words("GET", "/v1/log/checkpoint", "log_checkpoint", "Gives the newest signed checkpoint (C2SP tlog-tiles)"),
        "a log that only its owner can read proves nothing; leaves are salted digests",
        NOTE,
        audit_log::checkpoint,
    );
    table.public_raw(
        Words("GET", "/v1/log/cosigned-checkpoint", "log_cosigned_checkpoint", "Gives the newest checkpoint that the witnesses' quorum signed"),
        "a log that only its owner can read proves nothing; leaves are salted digests",
        NOTE,
        witness::checkpoint,
    );
    table.public_raw(
        Words("GET", "/v1/log/witness-policy", "log_witness_policy", "Gives the witness policy in force (C2SP tlog-policy)"),
        "whoever verifies must know whom the log asks for; nothing in it is secret",
        NOTE,
        witness::policy,
    );
    table.public_raw(
        Words("GET", "/v1/log/tile/{*path}", "log_tile", "Gives a tile or entry bundle (C2SP tlog-tiles)"),
        "a log that only its owner can read proves nothing; leaves are salted digests",
        OCTETS,
        audit_log::tile,
    );
}
