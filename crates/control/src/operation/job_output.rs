//! What a job leaves for people: its log as a stream, its receipt.

use std::sync::Arc;
use std::time::Duration;

use audit::{Event, Outcome};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use policy::action::{AttemptLogs, JobLogs, JobReceipt};
use policy::{Action, Resource, SetFacts};
use receipt::limits::RECEIPT_MAX;
use store::Transaction;
use tokio::sync::watch;
use vocabulary::api::{LogAck, LogBatch};
use vocabulary::job::AttemptId;
use vocabulary::{ErrorCode, JobId};

use crate::api::call::Call;
use crate::api::node::{Liveness, NodeCall};
use crate::api::problem::Failure;
use crate::api::table::Raw;
use crate::caller::Member;
use crate::clock;
use crate::limits::{LOG_FOLLOW_POLL, LOG_TAIL_MS, STREAM_DECIDE_AGAIN};
use crate::operation::object::blob_failure;
use crate::planner::{JobRow, ReceiptRow};
use crate::receipts::receipt_path;
use crate::state::{Control, actor, commit_failure};

/// The media type of a receipt.
pub(crate) const RECEIPT: &str = "application/vnd.swarm.receipt+json";

/// Query parameters of a log.
pub(crate) const LOG_QUERY: &[(&str, &str)] = &[
    ("after", "only frames after this sequence"),
    ("attempt", "the attempt; the newest where it is absent"),
    ("follow", "`true`: go on until the attempt is over"),
];

/// Keeps a batch of an attempt's log. It is no entry: a log is data of the job, like its outputs.
pub(crate) async fn keep_log(call: NodeCall<AttemptLogs>, batch: LogBatch) -> Result<LogAck, Failure> {
    let placed = call.attempt(Liveness::Placed).await?;
    call.permit(placed.resource()).await?.spend();
    if batch.attempt != placed.id {
        return Err(Failure::invalid("`attempt` is not the attempt of the path"));
    }
    let (sequence, _) = call.control.keep_log(placed.tenant.tenant, placed.id, batch.frames, call.now).await?;
    Ok(LogAck { sequence })
}

/// Streams the frames of an attempt as JSON lines.
pub(crate) async fn logs(call: Call<JobLogs>, _: Raw) -> Result<Response, Failure> {
    let tenant = call.tenant()?;
    let id: JobId = call.id("id")?;
    let (_, row) = call.control.job(tenant.tenant, id).await?;
    call.permit(Resource::Job(row.facts(tenant, None)), &[]).await?.spend();
    let after = call.number("after")?.unwrap_or(0);
    let follow = match call.query("follow") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Failure::invalid("query parameter `follow` is `true` or `false`")),
    };
    let attempt = match call.number("attempt")? {
        None => None,
        Some(number) => {
            let known = row.attempts.iter().find(|attempt| u64::from(attempt.number) == number).ok_or_else(Failure::not_found)?;
            Some(known.number)
        }
    };
    let reader = Reader {
        control: Arc::clone(&call.control),
        news: call.control.logs.subscribe(),
        decided: tokio::time::Instant::now(),
        member: call.member()?.clone(),
        tenant,
        id,
        attempt: attempt.or_else(|| row.attempts.last().map(|attempt| attempt.number)),
        after,
        ending: !follow,
    };
    let headers = [(http::header::CONTENT_TYPE, "application/jsonl"), (http::header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(futures::stream::unfold(Some(reader), Reader::step))).into_response())
}

/// Somebody who reads a log.
struct Reader {
    control: Arc<Control>,
    news: watch::Receiver<u64>,
    /// When it was last decided that the member may read.
    decided: tokio::time::Instant,
    member: Member,
    tenant: SetFacts,
    id: JobId,
    attempt: Option<u32>,
    after: u64,
    /// Nothing more will come: what is there is read, and then the stream ends.
    ending: bool,
}

impl Reader {
    /// The next lines. A stream that broke off ends as an error, so that nobody takes it for a whole log.
    async fn step(reader: Option<Self>) -> Option<(Result<Bytes, std::io::Error>, Option<Self>)> {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(lines)) => Some((Ok(lines), Some(reader))),
            Ok(None) => None,
            Err(failure) => Some((Err(std::io::Error::other(failure.problem.detail.clone())), None)),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if self.decided.elapsed() >= STREAM_DECIDE_AGAIN {
                self.decide_again().await?;
                self.decided = tokio::time::Instant::now();
            }
            self.news.mark_unchanged();
            if let Some(lines) = self.lines().await? {
                return Ok(Some(lines));
            }
            if self.ending || self.control.stop.is_cancelled() {
                return Ok(None);
            }
            let (_, row) = self.control.job(self.tenant.tenant, self.id).await?;
            self.attempt = self.attempt.or_else(|| row.attempts.last().map(|attempt| attempt.number));
            // What was written before the end is read once more after the end was seen.
            self.ending = is_over(&row, self.attempt);
            if self.ending {
                continue;
            }
            tokio::select! {
                () = self.control.stop.cancelled() => {}
                _ = self.news.changed() => {}
                () = tokio::time::sleep(LOG_FOLLOW_POLL) => {}
            }
        }
    }

    /// The frames of the next part as lines; `None` when nothing newer is kept.
    async fn lines(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(attempt) = self.attempt else { return Ok(None) };
        let frames = self.control.read_log(self.tenant.tenant, AttemptId { job: self.id, attempt }, self.after).await?;
        let Some(last) = frames.last() else { return Ok(None) };
        let mut lines = Vec::new();
        for frame in &frames {
            serde_json::to_writer(&mut lines, frame).map_err(Failure::internal)?;
            lines.push(b'\n');
        }
        self.after = last.sequence;
        Ok(Some(lines.into()))
    }

    /// Whether the token still lives and its member may still read.
    async fn decide_again(&self) -> Result<(), Failure> {
        let over = || Failure::new(ErrorCode::Unauthenticated, "the log may no longer be read: log in again");
        let now = clock::now();
        let token = self.control.store.token(self.member.token).await.map_err(Failure::internal)?.ok_or_else(over)?;
        if !token.is_live(now) || !self.control.makers_live(&token, now).await? {
            return Err(over());
        }
        let member = self.control.member(self.member.owner(), self.member.principal).await?.ok_or_else(over)?;
        let tenant = member.tenant.ok_or_else(over)?;
        let (_, row) = self.control.job(tenant.tenant, self.id).await?;
        if self.control.may_see::<JobLogs>(&member, Resource::Job(row.facts(tenant, None))) { Ok(()) } else { Err(over()) }
    }
}

/// Whether nothing more is written to an attempt's log: it is final and its node said its last word, or had time to.
fn is_over(row: &JobRow, attempt: Option<u32>) -> bool {
    let Some(attempt) = attempt.and_then(|number| row.attempts.iter().find(|attempt| attempt.number == number)) else {
        return row.exit.is_some();
    };
    let quiet = clock::now().since(attempt.report.since).is_some_and(|age| age >= LOG_TAIL_MS);
    attempt.report.state.is_final() && (attempt.statement.is_some() || quiet)
}

/// Gives the exact bytes of a job's receipt, and records that it left.
pub(crate) async fn receipt(call: Call<JobReceipt>, _: Raw) -> Result<Response, Failure> {
    let tenant = call.tenant()?;
    let (_, row) = call.control.job(tenant.tenant, call.id("id")?).await?;
    call.permit(Resource::Job(row.facts(tenant, None)), &[]).await?.spend();
    let wait = |detail: &str| Failure::new(ErrorCode::WrongState, detail);
    let digest = match (&row.receipt, &row.exit) {
        (Some(ReceiptRow::Ready(digest)), _) => *digest,
        (Some(ReceiptRow::None(why)), _) => return Err(wait(&format!("the job has no receipt: {why}"))),
        (None, None) => return Err(wait("the job is not over: its receipt is made when it has ended")),
        (None, Some(_)) => return Err(wait("the receipt is not ready yet: its entries wait for the next checkpoint; ask again in a second")),
    };
    let path = receipt_path(tenant.tenant, &digest).map_err(Failure::internal)?;
    let bytes = call.control.blobs.get(&path, RECEIPT_MAX).await.map_err(blob_failure)?;
    let event = Event::Exported { what: format!("receipt of job {}", row.id), first: None, last: None, digest };
    let member = call.member()?;
    let entry = call.control.entry(call.now, tenant.tenant, actor(member), call.source(), Outcome::Success, Some(JobReceipt::NAME), event)?;
    call.control.store.commit(Transaction::new().entry(entry), call.now).await.map_err(commit_failure)?;
    let headers = [(http::header::CONTENT_TYPE, RECEIPT), (http::header::CACHE_CONTROL, "no-store")];
    Ok((headers, bytes).into_response())
}

/// Streams decide again at least this often (`access.md` 4.1: at most 60 s).
const _: () = assert!(STREAM_DECIDE_AGAIN.as_secs() <= 60 && LOG_FOLLOW_POLL.as_nanos() <= Duration::from_secs(5).as_nanos());
