//! Headers to claimed context: the whole stage `context` (contract, sections 2 and 8), in its order: sizes, names, what
//! is missing, the shape of each token. Limits: nothing here is believed yet. What comes out is well formed, and says
//! nothing about who wrote it.

use std::sync::Arc;

use super::claims::{Countersigned, GrantClaims, Identity, Malformed, ProofClaims, Transaction};
use super::decision::{Denial, Reason};
use super::digests::Hashes;
use super::ids::{Digest, TrustDomain, UnixMillis, WorkloadId};
use super::jose::{Jws, JwsError, TokenKind, token_hash};
use super::limits::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_TOKEN_BYTES};
use super::record::Record;
use super::route::Route;
use super::token_cache::{Entry, Kept, TokenCache};
use super::x509::Peer;

/// The name under which a client certificate stands among the hashes of what was presented (RFC 9440).
pub const CLIENT_CERTIFICATE: &str = "client-cert";

/// The context that a record claims: tokens of the right form.
#[derive(Debug)]
pub struct Claimed<'r> {
    pub(super) sender: ClaimedSender<'r>,
    /// Whom the connection has proven, whatever the tokens say; a record has none.
    pub(super) channel: Option<&'r Peer>,
    pub(super) transaction: Option<Presented<'r, Transaction>>,
    pub(super) countersignature: Option<Presented<'r, Countersigned>>,
    pub(super) grant: Option<PresentedGrant<'r>>,
    /// The digest of the record's key; `None` is null, or over HTTP.
    pub(super) key: Option<Digest>,
    /// The digest of the record's value; `None` is null, or over HTTP.
    pub(super) value: Option<Digest>,
}

/// A step-up grant of the right form, verified only where a step-up applies.
#[derive(Debug)]
pub(super) struct PresentedGrant<'r> {
    pub(super) claims: GrantClaims,
    pub(super) jws: Jws<'r>,
    pub(super) hash: Digest,
}

/// Who the record says has sent it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one lives at a time, on the stack, and almost all are signed")]
pub(super) enum ClaimedSender<'r> {
    /// With identity and proof.
    Signed {
        identity: Presented<'r, Identity>,
        proof: Jws<'r>,
        claims: ProofClaims,
        /// The hash of the WPT.
        proof_hash: Digest,
    },
    /// With neither, over a connection that proves somebody.
    Channel(&'r Peer),
    /// With neither, on a route that says whom to take it from (contract, section 2.4).
    Unproven(WorkloadId),
}

/// A token that many records may carry.
pub(super) struct Presented<'r, T> {
    pub(super) claims: Arc<T>,
    /// The hash of the token.
    pub(super) hash: Digest,
    /// The version of the trust that its signature was verified under before, if it was.
    pub(super) verified_under: Option<Digest>,
    kid: Option<Arc<str>>,
    token: &'r [u8],
    jws: Option<Jws<'r>>,
}

impl<'r, T> Presented<'r, T> {
    /// Its `kid`, if it has one.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What is remembered of it, once it is verified under that trust.
    pub(super) fn entry(&self, kept: Kept, trust: Digest) -> Entry {
        Entry { kept, kid: self.kid.clone(), trust }
    }

    /// The token taken apart: kept from the first reading, or read again where the cache had made that unnecessary.
    pub(super) fn jws(&self, kind: TokenKind) -> Result<Jws<'r>, Denial> {
        match &self.jws {
            Some(jws) => Ok(jws.clone()),
            None => parse(self.token, kind),
        }
    }
}

// By hand: the token is a live credential.
impl<T: std::fmt::Debug> std::fmt::Debug for Presented<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("claims", &self.claims)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// The values of the five, by kind, and whom the connection that they came over has proven.
#[derive(Default, Clone, Copy)]
pub struct Tokens<'r> {
    values: [Option<Token<'r>>; 5],
    channel: Option<&'r Peer>,
}

/// A token as it is written, with its hash.
#[derive(Clone, Copy)]
struct Token<'r> {
    bytes: &'r [u8],
    hash: Digest,
}

// By hand: the tokens are live credentials.
impl std::fmt::Debug for Tokens<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let there = TokenKind::ALL.into_iter().filter(|kind| self.get(*kind).is_some());
        f.debug_list().entries(there).finish()
    }
}

impl<'r> Tokens<'r> {
    /// Adds a header of an HTTP request.
    ///
    /// # Errors
    /// `context_too_large` past 8 KiB, `context_malformed` for a second of its kind.
    pub fn add(&mut self, kind: TokenKind, value: &'r [u8]) -> Result<(), Denial> {
        let name = kind.header_name();
        if value.len() > MAX_TOKEN_BYTES {
            let detail = format!("the header `{name}` is larger than {MAX_TOKEN_BYTES} bytes");
            return Err(Denial::new(Reason::ContextTooLarge, detail));
        }
        match self.values.get_mut(kind as usize) {
            Some(place @ None) => {
                *place = Some(Token { bytes: value, hash: token_hash(value) });
                Ok(())
            }
            _ => {
                let detail = format!("the header `{name}` is there twice");
                Err(Denial::new(Reason::ContextMalformed, detail))
            }
        }
    }

    /// The same over a connection whose other side has proven that it holds the key of this certificate.
    #[must_use]
    pub fn over(self, channel: Option<&'r Peer>) -> Self {
        Self { channel, ..self }
    }

    /// Whether the connection stands for the proof: it proves somebody, and neither token that would is there. One alone of
    /// the two does not downgrade to it.
    fn proven_by_channel(&self) -> bool {
        let signed = [TokenKind::WorkloadIdentity, TokenKind::WorkloadProof];
        self.channel.is_some() && signed.into_iter().all(|kind| self.get(kind).is_none())
    }

    /// The hash of each that is there, in the order of the contract.
    pub fn hashes(&self) -> impl Iterator<Item = (TokenKind, Digest)> {
        TokenKind::ALL.into_iter().filter_map(|kind| self.get(kind).map(|token| (kind, token.hash)))
    }

    /// What the caller has presented, by the name of its header (the certificate's as RFC 9440 names it), each with its hash.
    pub fn presented(&self) -> impl Iterator<Item = (&'static str, Digest)> {
        let certificate = self.channel.map(|peer| (CLIENT_CERTIFICATE, peer.svid().thumbprint));
        self.hashes().map(|(kind, hash)| (kind.header_name(), hash)).chain(certificate)
    }

    fn get(&self, kind: TokenKind) -> Option<Token<'r>> {
        self.values.get(kind as usize).copied().flatten()
    }
}

impl<'r> Claimed<'r> {
    /// Reads the context of a record; `hashes` are its own. The cache spares the reading of tokens that were verified before.
    ///
    /// # Errors
    /// The first failure of the stage: `context_too_large`, `context_malformed` or `context_missing`.
    pub fn read(
        record: &'r Record,
        hashes: &Hashes,
        route: &Route,
        cache: &TokenCache,
    ) -> Result<Self, Denial> {
        check_sizes(record)?;
        let tokens = tokens(record, hashes)?;
        let unproven = unproven(record, route, &tokens)?;
        check_missing(route, &tokens, unproven.is_some(), "record")?;
        let claimed = Self::of(&tokens, unproven, cache, |payload, present| {
            ProofClaims::read(payload, route.proof_life_s, present)
        })?;
        Ok(Self { key: hashes.key, value: hashes.value, ..claimed })
    }

    /// Reads the tokens of an HTTP request that asks at `now` what a record of `route` could do. Whoever asks proves itself, by
    /// WIT and WPT or by the connection: `unproven` is for records.
    ///
    /// # Errors
    /// As [`Claimed::read`].
    pub fn read_request(
        tokens: &Tokens<'r>,
        route: &Route,
        now: UnixMillis,
        cache: &TokenCache,
    ) -> Result<Self, Denial> {
        check_missing(route, tokens, tokens.proven_by_channel(), "request")?;
        Self::of(tokens, None, cache, |payload, present| {
            ProofClaims::read_request(payload, route.proof_life_s, present, now)
        })
    }

    fn of(
        tokens: &Tokens<'r>,
        unproven: Option<WorkloadId>,
        cache: &TokenCache,
        read: impl FnOnce(&[u8], &[TokenKind]) -> Result<ProofClaims, Malformed>,
    ) -> Result<Self, Denial> {
        let kind = TokenKind::WorkloadIdentity;
        let identity = match (&unproven, tokens.get(kind)) {
            (None, Some(token)) => Some(presented(
                kind,
                token,
                cache,
                |kept| match kept {
                    Kept::Identity(identity) => Some(identity),
                    _ => None,
                },
                |payload, _| Identity::read(payload),
            )?),
            _ => None,
        };
        let proof = match tokens.get(TokenKind::WorkloadProof) {
            Some(token) => Some(read_proof(token, tokens, cache, read)?),
            None => None,
        };
        let sender = match (unproven, identity, proof) {
            (Some(sender), _, _) => ClaimedSender::Unproven(sender),
            (None, None, None) if let Some(peer) = tokens.channel => ClaimedSender::Channel(peer),
            (None, Some(identity), Some((proof, claims, proof_hash))) => {
                ClaimedSender::Signed { identity, proof, claims, proof_hash }
            }
            // Found missing above.
            _ => return Err(missing("record", "the identity and the proof of its sender")),
        };
        let domain = match &sender {
            ClaimedSender::Signed { identity, .. } => identity.claims.subject.trust_domain().clone(),
            ClaimedSender::Channel(peer) => peer.id().trust_domain().clone(),
            ClaimedSender::Unproven(sender) => sender.trust_domain().clone(),
        };
        let transaction = match tokens.get(TokenKind::Transaction) {
            Some(token) => Some(read_transaction(token, domain, cache)?),
            None => None,
        };
        let countersignature = match tokens.get(TokenKind::Countersignature) {
            Some(token) => Some(read_countersignature(token, transaction.is_some(), cache)?),
            None => None,
        };
        let grant = match tokens.get(TokenKind::StepUpGrant) {
            Some(token) => {
                let kind = TokenKind::StepUpGrant;
                let jws = parse(token.bytes, kind)?;
                let claims = GrantClaims::read(jws.payload()).map_err(|e| malformed(kind, &e))?;
                Some(PresentedGrant { claims, jws, hash: token.hash })
            }
            None => None,
        };
        let channel = tokens.channel;
        Ok(Self { sender, channel, transaction, countersignature, grant, key: None, value: None })
    }

    /// Whether the record carries a token of that kind.
    pub fn carries(&self, kind: TokenKind) -> bool {
        self.hash(kind).is_some()
    }

    /// The hash of the token of that kind, if the record carries one.
    pub fn hash(&self, kind: TokenKind) -> Option<Digest> {
        match (kind, &self.sender) {
            (TokenKind::WorkloadIdentity, ClaimedSender::Signed { identity, .. }) => Some(identity.hash),
            (TokenKind::WorkloadProof, ClaimedSender::Signed { proof_hash, .. }) => Some(*proof_hash),
            (
                TokenKind::WorkloadIdentity | TokenKind::WorkloadProof,
                ClaimedSender::Channel(_) | ClaimedSender::Unproven(_),
            ) => None,
            (TokenKind::Transaction, _) => self.transaction.as_ref().map(|token| token.hash),
            (TokenKind::Countersignature, _) => self.countersignature.as_ref().map(|token| token.hash),
            (TokenKind::StepUpGrant, _) => self.grant.as_ref().map(|grant| grant.hash),
        }
    }
}

/// The bounds that hold before anything is parsed (contract, section 2).
fn check_sizes(record: &Record) -> Result<(), Denial> {
    let too_large = |detail: String| Err(Denial::new(Reason::ContextTooLarge, detail));
    if record.headers.len() > MAX_HEADERS {
        return too_large(format!("the record has more than {MAX_HEADERS} headers"));
    }
    let mut total = 0_usize;
    for header in &record.headers {
        let size = header.value.as_ref().map_or(0, |value| value.len());
        if let Some(kind) = TokenKind::of_header(&header.name)
            && size > MAX_TOKEN_BYTES
        {
            let name = kind.header_name();
            return too_large(format!("the header `{name}` is larger than {MAX_TOKEN_BYTES} bytes"));
        }
        total = total.saturating_add(header.name.len()).saturating_add(size);
    }
    if total > MAX_HEADER_BYTES {
        return too_large(format!("the headers together are larger than {MAX_HEADER_BYTES} bytes"));
    }
    Ok(())
}

/// Finds the five, and refuses their names in another case, twice, or with a null value.
fn tokens<'r>(record: &'r Record, hashes: &Hashes) -> Result<Tokens<'r>, Denial> {
    let mut tokens = Tokens::default();
    for header in &record.headers {
        let Some(kind) = TokenKind::of_header(&header.name) else { continue };
        let name = kind.header_name();
        let refuse = |problem: &str| {
            Err(Denial::new(Reason::ContextMalformed, format!("the header `{name}` {problem}")))
        };
        if header.name != name.as_bytes() {
            return refuse("is written in another case");
        }
        let Some(value) = &header.value else { return refuse("is null") };
        match tokens.values.get_mut(kind as usize) {
            Some(place @ None) => {
                // Hashed with the rest of the record, but for one that a caller left out.
                let hash = hashes.token(kind).unwrap_or_else(|| token_hash(value));
                *place = Some(Token { bytes: value, hash });
            }
            _ => return refuse("is there twice"),
        }
    }
    Ok(tokens)
}

/// Whom a record with neither WIT nor WPT is taken to be from, if the route says so (contract, section 2.4). It may not
/// carry what such a sender cannot have, nor what a denial leaves behind.
fn unproven(record: &Record, route: &Route, tokens: &Tokens<'_>) -> Result<Option<WorkloadId>, Denial> {
    let signed = [TokenKind::WorkloadIdentity, TokenKind::WorkloadProof];
    let (None, Some(sender)) = (signed.into_iter().find_map(|kind| tokens.get(kind)), &route.unproven) else {
        return Ok(None);
    };
    for kind in [TokenKind::Countersignature, TokenKind::StepUpGrant] {
        if tokens.get(kind).is_some() {
            let name = kind.header_name();
            let detail = format!("the header `{name}` needs a sender that proves itself");
            return Err(Denial::new(Reason::ContextMalformed, detail));
        }
    }
    // In any case, as the gate removes them: put back by hand, a denial must not come in as that identity.
    let left_behind = |name: &[u8]| {
        let starts = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|n| n.eq_ignore_ascii_case(prefix));
        let suffix = b"-redacted";
        let ends = name.len().checked_sub(suffix.len()).and_then(|from| name.get(from..));
        starts(b"denied-") || starts(b"original-") || ends.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    if record.headers.iter().any(|header| left_behind(&header.name)) {
        let detail = "the record carries the headers of a denial and no proof of its sender";
        return Err(Denial::new(Reason::ContextMalformed, detail));
    }
    Ok(Some(sender.clone()))
}

/// `without` is whether neither WIT nor WPT is needed.
fn check_missing(route: &Route, tokens: &Tokens<'_>, without: bool, of: &str) -> Result<(), Denial> {
    let needed = [
        (TokenKind::WorkloadIdentity, !without),
        (TokenKind::WorkloadProof, !without),
        (TokenKind::Transaction, route.require_transaction),
        (TokenKind::Countersignature, route.require_countersignature),
    ];
    match needed.into_iter().find(|(kind, needed)| *needed && tokens.get(*kind).is_none()) {
        Some((kind, _)) => Err(missing(of, &format!("the header `{}`", kind.header_name()))),
        None => Ok(()),
    }
}

fn missing(of: &str, what: &str) -> Denial {
    Denial::new(Reason::ContextMissing, format!("the {of} lacks {what}"))
}

fn malformed(kind: TokenKind, problem: &Malformed) -> Denial {
    Denial::new(Reason::ContextMalformed, format!("the `{}` {problem}", kind.header_name()))
}

fn parse(token: &[u8], kind: TokenKind) -> Result<Jws<'_>, Denial> {
    well_formed(Jws::parse(token, kind), kind)
}

fn well_formed<'t>(read: Result<Jws<'t>, JwsError>, kind: TokenKind) -> Result<Jws<'t>, Denial> {
    read.map_err(|e| malformed(kind, &Malformed(e.to_string())))
}

/// A token from the cache, or read.
fn presented<'r, T>(
    kind: TokenKind,
    token: Token<'r>,
    cache: &TokenCache,
    found: impl FnOnce(Kept) -> Option<Arc<T>>,
    read: impl FnOnce(&[u8], Digest) -> Result<T, Malformed>,
) -> Result<Presented<'r, T>, Denial> {
    let Token { bytes: token, hash } = token;
    if let Some(Entry { kept, kid, trust }) = cache.get(&hash)
        && let Some(claims) = found(kept)
    {
        return Ok(Presented { claims, hash, verified_under: Some(trust), kid, token, jws: None });
    }
    let jws = parse(token, kind)?;
    let claims = Arc::new(read(jws.payload(), hash).map_err(|e| malformed(kind, &e))?);
    let kid = jws.kid().map(Arc::from);
    Ok(Presented { claims, hash, verified_under: None, kid, token, jws: Some(jws) })
}

fn read_proof<'r>(
    token: Token<'r>,
    tokens: &Tokens<'_>,
    cache: &TokenCache,
    read: impl FnOnce(&[u8], &[TokenKind]) -> Result<ProofClaims, Malformed>,
) -> Result<(Jws<'r>, ProofClaims, Digest), Denial> {
    let kind = TokenKind::WorkloadProof;
    let jws = well_formed(Jws::parse_known(token.bytes, kind, cache.heads()), kind)?;
    let present = [TokenKind::Countersignature, TokenKind::StepUpGrant];
    let present: Vec<_> = present.into_iter().filter(|kind| tokens.get(*kind).is_some()).collect();
    let claims = read(jws.payload(), &present).map_err(|e| malformed(kind, &e))?;
    Ok((jws, claims, token.hash))
}

/// A Txn-Token speaks inside the sender's domain: one that was verified in another domain is read anew.
fn read_transaction<'r>(
    token: Token<'r>,
    domain: TrustDomain,
    cache: &TokenCache,
) -> Result<Presented<'r, Transaction>, Denial> {
    presented(
        TokenKind::Transaction,
        token,
        cache,
        |kept| match kept {
            Kept::Transaction(transaction) => Some(transaction).filter(|t| t.domain == domain),
            _ => None,
        },
        |payload, hash| Transaction::read(payload, domain.clone(), hash),
    )
}

fn read_countersignature<'r>(
    token: Token<'r>,
    with_transaction: bool,
    cache: &TokenCache,
) -> Result<Presented<'r, Countersigned>, Denial> {
    let kind = TokenKind::Countersignature;
    let read = presented(
        kind,
        token,
        cache,
        |kept| match kept {
            Kept::Countersignature(countersigned) => Some(countersigned),
            _ => None,
        },
        |payload, _| Countersigned::read(payload, with_transaction),
    )?;
    // A cached one may have been read beside no Txn-Token.
    read.claims.fits(with_transaction).map_err(|e| malformed(kind, &e))?;
    Ok(read)
}

#[cfg(test)]
mod tests;
