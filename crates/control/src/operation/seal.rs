//! The seal of a running server: what it is, and its change to shares.

use audit::{Event, Outcome};
use keys::SystemRandom;
use keys::seal::SealError;
use keys::share::Share;
use policy::action::{SealConfirm, SealInit};
use policy::{Action, Resource};
use store::Transaction;
use vocabulary::api::Done;
use vocabulary::custody::{self, SealShares, SealStatus};
use vocabulary::{ErrorCode, PrincipalId, SYSTEM_OWNER, Sha256Digest, UnixTime};

use crate::api::call::{Call, Public};
use crate::api::problem::Failure;
use crate::bootstrap::StartError;
use crate::limits::SHARES_WAIT_MS;
use crate::operation::{commit, done};
use crate::seal;
use crate::state::actor;

/// Shares that were given out and not confirmed: in memory alone, so that a restart forgets them.
#[derive(Debug)]
pub(crate) struct Drawn {
    opened: keys::seal::Opened,
    to: PrincipalId,
    received: Sha256Digest,
    until: UnixTime,
}

/// What a seal is, opened or not.
pub(crate) fn status(file: &keys::seal::SealFile, state: &str) -> SealStatus {
    SealStatus {
        state: state.to_owned(),
        kind: file.kind().as_str().to_owned(),
        generation: file.generation(),
        threshold: file.threshold(),
        shares: file.shares(),
        epoch: file.epochs().map(|(epoch, _)| epoch).max().unwrap_or(0),
        entered: Vec::new(),
        nonce: None,
        until: None,
    }
}

/// Says what the seal is.
pub(crate) async fn show(call: Call<Public>, (): ()) -> Result<SealStatus, Failure> {
    Ok(status(call.control.vault.opened().file(), "open"))
}

/// Nothing is entered where nothing is closed; what was sent is forgotten unread.
pub(crate) async fn open(_: Call<Public>, _: axum::Json<custody::SealOpen>) -> Result<SealStatus, Failure> {
    Err(Failure::new(ErrorCode::WrongState, "the seal is open"))
}

/// The digest by which whoever received all shares is known.
pub(crate) fn received<'a>(shares: impl Iterator<Item = &'a str>) -> Sha256Digest {
    let parts: Vec<&[u8]> = shares.flat_map(|share| [share.as_bytes(), b"\n"]).collect();
    Sha256Digest::from_bytes(keys::derive::sha256(&parts))
}

/// Draws new shares and tells them once. The seal stays as it is until they are confirmed.
pub(crate) async fn init(call: Call<SealInit>, request: custody::SealInit) -> Result<SealShares, Failure> {
    let named = format!("{} of {} shares", request.threshold, request.shares);
    let decision = call.permit(Resource::Platform, &[(&named, "seal")]).await?.spend();
    let member = call.member()?;
    let control = &call.control;
    let mut changing = control.vault.changing.lock().await;
    let made = control.vault.opened().under_shares(request.threshold, request.shares, &mut SystemRandom);
    let told = |error: SealError| {
        if matches!(error, SealError::Numbers { .. }) { Failure::invalid(error.to_string()) } else { Failure::internal(error) }
    };
    let (opened, given) = made.map_err(told)?;
    let generation = opened.file().generation();
    let event = Event::SealSharesDrawn { generation, threshold: request.threshold, shares: request.shares };
    let entry = control.entry(call.now, SYSTEM_OWNER, actor(member), call.source(), Outcome::Success, Some(SealInit::NAME), event)?;
    let (audit_index, _) = commit(&call, Transaction::new().entry(entry)).await?;
    let until = call.now.plus_millis(SHARES_WAIT_MS);
    let shares: Vec<String> = given.iter().map(Share::to_text).map(|text| text.to_string()).collect();
    let received = received(shares.iter().map(String::as_str));
    *changing = Some(Drawn { opened, to: member.principal, received, until });
    let notes = decision.waived.iter().map(|note| (*note).to_owned()).collect();
    Ok(SealShares { generation, threshold: request.threshold, shares, until, audit_index, notes })
}

/// Puts the drawn shares in force: from here on, what opened the seal before opens nothing.
pub(crate) async fn confirm(call: Call<SealConfirm>, request: custody::SealConfirm) -> Result<Done, Failure> {
    call.permit(Resource::Platform, &[]).await?.spend();
    let member = call.member()?;
    let control = &call.control;
    let mut changing = control.vault.changing.lock().await;
    let again = "draw them anew: swarm seal init";
    let Some(drawn) = changing.take() else {
        return Err(Failure::new(ErrorCode::WrongState, format!("no new shares wait for a confirmation; {again}")));
    };
    // They were drawn by a confirmed request; they are put in force by the same principal, and while it is still fresh.
    if drawn.to != member.principal || drawn.opened.file().generation() != request.generation || drawn.received != request.received {
        *changing = Some(drawn);
        return Err(Failure::new(ErrorCode::WrongState, "these are not the shares that wait for this confirmation"));
    }
    if call.now.since(drawn.until).is_some() {
        return Err(Failure::new(ErrorCode::WrongState, format!("the new shares have lapsed; {again}")));
    }
    let told = |error: StartError| {
        let full = matches!(error, StartError::Blobs(store::BlobError::Full));
        if full { Failure::new(ErrorCode::StorageFailed, error.to_string()) } else { Failure::internal(error) }
    };
    let alone = seal::alone(&control.store).await.map_err(told)?;
    let before = seal::current(&control.store, &control.blobs).await.map_err(told)?.ok_or_else(|| Failure::internal("no seal"))?;
    // An epoch that came or went since the draw is not in these shares' file.
    if before.file != *control.vault.opened().file() || !drawn.opened.file().epochs().eq(before.file.epochs()) {
        return Err(Failure::new(ErrorCode::Conflict, format!("the seal changed meanwhile; {again}")));
    }
    let put = seal::stage(&control.blobs, &drawn.opened, &before, call.now).await.map_err(told)?;
    let file = drawn.opened.file();
    let event = Event::SealChanged {
        generation: file.generation(),
        threshold: file.threshold().unwrap_or(0),
        shares: file.shares().unwrap_or(0),
    };
    let entry = control.entry(call.now, SYSTEM_OWNER, actor(member), call.source(), Outcome::Success, Some(SealConfirm::NAME), event)?;
    let (index, _) = commit(&call, Transaction::new().with(put).entry(entry)).await?;
    control.vault.replace(drawn.opened);
    if let Err(error) = control.sweep_seals(&alone).await {
        tracing::warn!(%error, "the old seal file was not removed; the next start does it");
    }
    Ok(done(index, &[]))
}

impl crate::state::Control {
    /// Removes every seal file but the one in force, by whoever holds the lock of the seal.
    pub(crate) async fn sweep_seals(&self, _: &store::Alone) -> Result<(), StartError> {
        vocabulary::fault::reached(vocabulary::fault::Point::SealChanged);
        match seal::current(&self.store, &self.blobs).await? {
            Some(current) => seal::sweep(&self.blobs, &current).await,
            None => Ok(()),
        }
    }
}
