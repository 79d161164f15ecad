//! What producers link: given a workload's key, its identity token and a source of Txn-Tokens, this gives the headers that
//! a record must carry to pass a gate (contract, section 2).
//!
//! ```no_run
//! use countersign::authorize::ids::{Realm, Topic};
//! use countersign::authorize::jose::SigningKey;
//! use countersign::authorize::request::{Action, Resource};
//! use countersign::producer::{Asked, Context, Outgoing, Signer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = SigningKey::from_jwk(&std::fs::read_to_string("agent.jwk")?)?;
//! let wit = std::fs::read_to_string("agent.wit")?;
//! let context = Context::new(Signer::new(key, wit.trim(), Realm::parse("prod")?)?)
//!     .transactions(std::fs::read_to_string("user.txn")?.trim().to_owned());
//!
//! let topic = Topic::parse("payments.commands")?;
//! let record = Outgoing::new(&topic).key(b"inv-7").value(br#"{"amount":120}"#);
//! let asked = Asked {
//!     action: Some(Action { name: "pay".into(), properties: None }),
//!     resource: Some(Resource { kind: "Invoice".into(), id: "inv-7".into(), properties: None }),
//!     workflow: None,
//! };
//! let headers: rdkafka::message::OwnedHeaders = context.headers(&record, &asked)?.into();
//! # Ok(()) }
//! ```
//!
//! Two layers: [`Signer`] is pure (the moment and the proof's id are handed in), [`Context`] reads the clock, draws the
//! id and asks for the Txn-Token. Limits: it sends nothing; what a gate would refuse is refused here only where that is
//! cheap to see. A proof binds the exact bytes of key and value: sign last, after serialisation.

mod kafka;
mod outgoing;
mod signer;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use outgoing::{Asked, Headers, Outgoing};
pub use signer::{SignRefused, Signer, SignerError, Tokens};
pub use tokens::{TokenUnavailable, TransactionSource};

use crate::authorize::carried::Carried;
use crate::authorize::ids::UnixMillis;

/// Everything that one sender puts on its records: its [`Signer`], its Txn-Tokens, and the work that it continues.
/// Cloning is cheap, so a context for one piece of work is made from the sender's own by [`Context::carry`].
#[derive(Clone)]
pub struct Context {
    signer: Signer,
    transactions: Option<Arc<dyn TransactionSource>>,
    carried: Option<Carried>,
    step_up_grant: Option<Arc<str>>,
}

/// Why a record got no headers.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The source of Txn-Tokens had none to give.
    #[error("no txn-token: {0}")]
    Transaction(#[from] TokenUnavailable),
    /// The record was not signed, because a gate would refuse it.
    #[error(transparent)]
    Refused(#[from] SignRefused),
    /// The machine's clock stands before 1970, or past what a NumericDate holds.
    #[error("the clock of this machine shows no usable time")]
    Clock,
    /// The operating system gave no random bytes for the proof's id.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Context {
    /// A context without a Txn-Token, that begins new work.
    pub fn new(signer: Signer) -> Self {
        Self { signer, transactions: None, carried: None, step_up_grant: None }
    }

    /// Where Txn-Tokens come from: a fixed token (`String`), or a closure or service that is asked for each record.
    #[must_use]
    pub fn transactions(mut self, source: impl TransactionSource + 'static) -> Self {
        self.transactions = Some(Arc::new(source));
        self
    }

    /// A context for the next records of the work that `carried` belongs to (`worker::Received::carry_on`): its
    /// countersignature goes along and is bound by `oth`. Its Txn-Token goes along as well, unless the source of this
    /// context gives one (which must then be of the same transaction).
    #[must_use]
    pub fn carry(&self, carried: Carried) -> Self {
        Self { carried: Some(carried), ..self.clone() }
    }

    /// A grant that the sender already holds, in answer to a challenge (contract, section 7).
    #[must_use]
    pub fn step_up_grant(mut self, grant: &str) -> Self {
        self.step_up_grant = Some(grant.into());
        self
    }

    /// The same context with a renewed identity: a WIT is short-lived, and a new one comes with its own [`Signer`].
    #[must_use]
    pub fn signer(mut self, signer: Signer) -> Self {
        self.signer = signer;
        self
    }

    /// The headers of `record`: its own and the context's, signed at this moment.
    ///
    /// # Errors
    /// No Txn-Token could be had, or a gate would refuse the record.
    pub fn headers(&self, record: &Outgoing<'_>, asked: &Asked) -> Result<Headers, ContextError> {
        let now = clock().ok_or(ContextError::Clock)?;
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(ContextError::Random)?;
        self.headers_at(record, asked, now, &URL_SAFE_NO_PAD.encode(random))
    }

    /// As [`Context::headers`], at a given moment with a given id: for tests, and for whoever has a clock of its own.
    /// A `jti` that is used twice makes the second record `replayed`.
    ///
    /// # Errors
    /// As [`Context::headers`].
    pub fn headers_at(
        &self,
        record: &Outgoing<'_>,
        asked: &Asked,
        now: UnixMillis,
        jti: &str,
    ) -> Result<Headers, ContextError> {
        let transaction = match (&self.transactions, &self.carried) {
            (Some(source), _) => Some(source.token(record)?),
            (None, Some(carried)) => carried.transaction.clone(),
            (None, None) => None,
        };
        let tokens = Tokens {
            transaction: transaction.as_deref(),
            countersignature: self.carried.as_ref().map(|c| &*c.countersignature),
            step_up_grant: self.step_up_grant.as_deref(),
        };
        Ok(Headers::new(self.signer.sign(record, asked, &tokens, now, jti)?))
    }
}

// By hand: a context is made of live credentials.
impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("signer", &self.signer).finish_non_exhaustive()
    }
}

fn clock() -> Option<UnixMillis> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(UnixMillis)
}
