//! The operations behind the routes. Each takes its permit by value and writes state and entry in one transaction.

pub(crate) mod attempt;
pub(crate) mod audit_log;
pub(crate) mod channel;
pub(crate) mod enrolment;
pub(crate) mod erasure;
pub(crate) mod image;
pub(crate) mod image_policy;
pub(crate) mod invitation;
pub(crate) mod job;
pub(crate) mod job_output;
pub(crate) mod key;
pub(crate) mod lease;
pub(crate) mod login;
pub(crate) mod node;
pub(crate) mod node_log;
pub(crate) mod object;
pub(crate) mod people;
pub(crate) mod policy_explain;
pub(crate) mod quota;
pub(crate) mod release;
pub(crate) mod seal;
pub(crate) mod secret;
pub(crate) mod statement;
pub(crate) mod tenant;
pub(crate) mod token;
pub(crate) mod volume;
pub(crate) mod witness;

use store::{Committed, Page, Paged, Transaction};
use vocabulary::api;
use vocabulary::limits::PAGE_MAX;

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::limits::PAGE_DEFAULT;
use crate::state::commit_failure;

/// Commits, and gives the first audit index.
pub(crate) async fn commit<A>(call: &Call<A>, transaction: Transaction) -> Result<(u64, Committed), Failure> {
    let committed = call.control.store.commit(transaction, call.now).await.map_err(commit_failure)?;
    let index = committed.audit_indexes.first().copied().ok_or_else(|| Failure::internal("a change without an entry"))?;
    Ok((index, committed))
}

/// Commits a create: a repeated request gets the first answer again.
pub(crate) async fn commit_create<A, R>(call: &Call<A>, transaction: Transaction, answer: R) -> Result<(u64, R), Failure>
where
    R: serde::Serialize + serde::de::DeserializeOwned,
{
    let transaction = call.repeatable(transaction, &answer)?;
    let (index, committed) = commit(call, transaction).await?;
    match committed.replayed {
        Some(first) => Ok((index, serde_json::from_slice(&first).map_err(Failure::internal)?)),
        None => Ok((index, answer)),
    }
}

/// How many rows a list gives at most.
pub(crate) fn limit<A>(call: &Call<A>) -> Result<u32, Failure> {
    let Some(limit) = call.number("limit")? else { return Ok(PAGE_DEFAULT) };
    let fits = usize::try_from(limit).is_ok_and(|limit| (1..=PAGE_MAX).contains(&limit));
    u32::try_from(limit).ok().filter(|_| fits).ok_or_else(|| Failure::invalid(format!("query parameter `limit` is a number from 1 to {PAGE_MAX}")))
}

/// The page that a list asks for.
pub(crate) fn page<A>(call: &Call<A>) -> Result<Page, Failure> {
    let limit = limit(call)?;
    match call.query("cursor") {
        None => Ok(Page::first(limit)),
        Some(text) => {
            let mut after = [0; 16];
            hex::decode_to_slice(text, &mut after).map_err(|_| Failure::invalid("query parameter `cursor` is none of ours"))?;
            Ok(Page::after(after, limit))
        }
    }
}

/// A page as the API gives it.
pub(crate) fn paged<T, R>(found: Paged<T>, id: impl Fn(&T) -> [u8; 16], row: impl Fn(T) -> Option<R>) -> api::Page<R> {
    let cursor = if found.truncated { found.items.last().map(|item| hex::encode(id(item))) } else { None };
    api::Page { items: found.items.into_iter().filter_map(row).collect(), truncated: cursor.is_some(), cursor }
}

/// The last part of every answer of a mutation that says nothing else.
pub(crate) fn done(audit_index: u64, waived: &[&'static str]) -> api::Done {
    api::Done { audit_index, notes: waived.iter().map(|note| (*note).to_owned()).collect() }
}
