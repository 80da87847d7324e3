//! A node's enrolment: join token and join line, the request with both keys, and the decision over what is stored.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vocabulary::api::NodeEnrol;
use vocabulary::plan::{NodeFacts, NodePlace};
use vocabulary::{Name, ProviderId, Sha256Digest, UnixTime};

use crate::certificate::{CertificateRequest, RequestError, ServerName};
use crate::key::{KeyError, StatementKey, StatementPublic};
use crate::limits::CSR_MAX;
use crate::pepper::Peppers;
use crate::token::{Token, TokenError, TokenKind, TokenRecord};

/// The context of a record key's proof of possession.
pub const RECORD_KEY_CONTEXT: &[u8] = b"swarm/record-key/v1";

/// An enrolment is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrolRefusal {
    /// The token cannot be read.
    #[error("`token`: {0}")]
    Token(#[from] TokenError),
    /// The token is unknown, of another kind, or its secret is wrong.
    #[error("the join token is unknown")]
    UnknownToken,
    /// The token was used.
    #[error("the join token is spent")]
    Spent,
    /// The token was revoked.
    #[error("the join token is revoked")]
    Revoked,
    /// The token's time is over, or the clock went back behind its beginning.
    #[error("the join token has expired")]
    Expired,
    /// A field is not strict base64 of an acceptable length.
    #[error("`{0}` is not strict base64 of an acceptable length")]
    Base64(&'static str),
    /// The certificate request is not acceptable.
    #[error("`csr`: {0}")]
    Request(#[from] RequestError),
    /// The record key is not acceptable, or did not sign the certificate request.
    #[error("`record_key`: {0}")]
    RecordKey(#[from] KeyError),
}

/// The line that a person types on the machine; the token is asked for, or read from standard input.
#[must_use]
pub fn join_line(host: &ServerName, port: u16, pin: &Sha256Digest) -> String {
    let host = match host {
        ServerName::Dns(name) => name.as_ref().to_owned(),
        ServerName::Ip(std::net::IpAddr::V4(address)) => address.to_string(),
        ServerName::Ip(std::net::IpAddr::V6(address)) => format!("[{address}]"),
    };
    format!("swarm node join https://{host}:{port} --ca-pin {pin}")
}

/// Signs the certificate request with the record key, so that both keys come from one machine.
#[must_use]
pub fn prove_record_key(record: &StatementKey, csr: &[u8]) -> [u8; 64] {
    record.sign(RECORD_KEY_CONTEXT, digest(&SHA256, csr).as_ref())
}

/// An enrolment request whose signatures were checked.
#[derive(Debug)]
pub struct EnrolRequest {
    /// The join token.
    pub token: Token,
    /// The request for the node's TLS key.
    pub request: CertificateRequest,
    /// The node's record key.
    pub record_key: StatementPublic,
    /// What the node says it is and has.
    pub facts: NodeFacts,
}

impl EnrolRequest {
    /// Reads a request: token's shape, certificate request's signature, record key's proof. Needs nothing that is stored.
    pub fn check(wire: &NodeEnrol) -> Result<Self, EnrolRefusal> {
        let token = Token::parse(&wire.token)?;
        let csr = base64("csr", &wire.csr, CSR_MAX)?;
        let request = CertificateRequest::check(&csr)?;
        let record_key = StatementPublic::from_base64(&wire.record_key)?;
        let proof = base64("record_proof", &wire.record_proof, 64)?;
        record_key.verify(RECORD_KEY_CONTEXT, digest(&SHA256, &csr).as_ref(), &proof)?;
        Ok(Self { token, request, record_key, facts: wire.facts.clone() })
    }
}

/// A join token as it is stored.
#[derive(Debug, Clone)]
pub struct JoinGrant {
    /// The token's record.
    pub record: TokenRecord,
    /// The name of the node to be.
    pub name: Name,
    /// Where it stands and what it is for.
    pub place: NodePlace,
    /// Who owns it.
    pub provider: Option<ProviderId>,
    /// When the token was made.
    pub created: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
    /// When it was used.
    pub spent: Option<UnixTime>,
    /// When it was revoked.
    pub revoked: Option<UnixTime>,
}

impl JoinGrant {
    /// Whether this token lets a node in now. The store spends it in the same transaction, on condition that it is unspent.
    pub fn admit(&self, token: &Token, peppers: &Peppers, now: UnixTime) -> Result<(), EnrolRefusal> {
        // The secret is judged first: whoever lacks it learns nothing about the token's state.
        if token.kind() != TokenKind::Join || !token.fits(&self.record, peppers) {
            return Err(EnrolRefusal::UnknownToken);
        }
        if self.revoked.is_some() {
            return Err(EnrolRefusal::Revoked);
        }
        if self.spent.is_some() {
            return Err(EnrolRefusal::Spent);
        }
        if now < self.created || now >= self.expires {
            return Err(EnrolRefusal::Expired);
        }
        Ok(())
    }
}

fn base64(field: &'static str, text: &str, max: usize) -> Result<Vec<u8>, EnrolRefusal> {
    // Four characters for three bytes, padded: what is longer is not decoded.
    if text.len() > max.div_ceil(3).saturating_mul(4) {
        return Err(EnrolRefusal::Base64(field));
    }
    STANDARD.decode(text).map_err(|_| EnrolRefusal::Base64(field))
}
