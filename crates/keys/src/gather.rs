//! Gathering shares one by one until enough are there. Pure: time and randomness are passed in.
//!
//! **Invariant:** a share is judged by the seal file before it is kept, so that a bad one is named at once and never mixes
//! with good ones. **Invariant:** what was entered is wiped when it lapses, when it is used, and when this is dropped.

use vocabulary::UnixTime;

use crate::Random;
use crate::limits::GATHER_MS;
use crate::seal::{Opened, SealError, SealFile, ShareRefusal};
use crate::share::{Share, ShareError};

/// Why a share was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatherError {
    /// It is no share.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// It is no share of this seal.
    #[error(transparent)]
    Refused(#[from] ShareRefusal),
    /// It was entered already.
    #[error("share {0} was entered already: another one is needed")]
    Duplicate(u8),
    /// Others are gathering: the number says which attempt a share is meant for.
    #[error("shares are being entered under another number: swarm seal status shows it")]
    Nonce,
    /// The attempt that the number names is over.
    #[error("this attempt is over: what was entered has lapsed and is wiped; begin again with the first share")]
    Lapsed,
    /// Enough shares were there, and they did not open the seal.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Names the attempt; `None` before the first share.
    pub nonce: Option<[u8; 16]>,
    /// The places of the shares that are there.
    pub entered: Vec<u8>,
    /// How many open it.
    pub threshold: u8,
    /// When what is there lapses.
    pub until: Option<UnixTime>,
}

/// What a good share led to.
#[derive(Debug)]
pub enum Gathered {
    /// More are needed.
    More(Progress),
    /// The seal is open.
    Open(Opened),
}

struct Attempt {
    nonce: [u8; 16],
    shares: Vec<Share>,
    begun: UnixTime,
}

/// The shares of one seal as they come in.
pub struct Gathering {
    file: SealFile,
    attempt: Option<Attempt>,
}

impl std::fmt::Debug for Gathering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gathering").field("entered", &self.attempt.as_ref().map_or(0, |attempt| attempt.shares.len())).finish_non_exhaustive()
    }
}

impl Gathering {
    /// Nothing entered yet.
    #[must_use]
    pub const fn new(file: SealFile) -> Self {
        Self { file, attempt: None }
    }

    /// The seal.
    #[must_use]
    pub const fn file(&self) -> &SealFile {
        &self.file
    }

    /// Wipes what has lapsed; a clock that went back ends an attempt too, since nobody knows how old it is. Says whether it did.
    pub fn lapse(&mut self, now: UnixTime) -> bool {
        let over = self.attempt.as_ref().is_some_and(|attempt| now.since(attempt.begun).is_none_or(|age| age >= GATHER_MS));
        if over {
            self.attempt = None;
        }
        over
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let entered = self.attempt.iter().flat_map(|attempt| attempt.shares.iter().map(Share::place)).collect();
        Progress {
            nonce: self.attempt.as_ref().map(|attempt| attempt.nonce),
            entered,
            threshold: self.file.threshold().unwrap_or(0),
            until: self.attempt.as_ref().map(|attempt| attempt.begun.plus_millis(GATHER_MS)),
        }
    }

    /// Takes a typed share. `nonce` names the attempt that it is meant for; only the first share has none.
    pub fn add(&mut self, text: &str, nonce: Option<[u8; 16]>, now: UnixTime, random: &mut dyn Random) -> Result<Gathered, GatherError> {
        let lapsed = self.lapse(now);
        match (&self.attempt, nonce) {
            (None, Some(_)) => return Err(GatherError::Lapsed),
            (Some(attempt), given) if given != Some(attempt.nonce) => return Err(if lapsed { GatherError::Lapsed } else { GatherError::Nonce }),
            (None | Some(_), _) => {}
        }
        let share = Share::parse(text)?;
        self.file.check(&share)?;
        let attempt = self.attempt.get_or_insert_with(|| Attempt { nonce: random.array(), shares: Vec::new(), begun: now });
        if attempt.shares.iter().any(|known| known.place() == share.place()) {
            return Err(GatherError::Duplicate(share.place()));
        }
        attempt.shares.push(share);
        if attempt.shares.len() < usize::from(self.file.threshold().unwrap_or(u8::MAX)) {
            return Ok(Gathered::More(self.progress()));
        }
        // Used or useless: they are wiped either way.
        let shares = self.attempt.take().map(|attempt| attempt.shares).unwrap_or_default();
        Ok(Gathered::Open(self.file.open_with(&shares)?))
    }
}
