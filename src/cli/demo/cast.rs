//! Who acts in the story: the workloads with their keys and identity tokens, the token service, the people's login, the
//! administrator, and those who should not be there. Limits: a development trust domain; its keys live as long as the story.

use std::fs;
use std::path::Path;

use serde_json::{Map, json};

use super::DemoError;
use crate::authorize::ids::{Realm, TrustDomain, UnixMillis, WorkloadId};
use crate::authorize::jose::{Algorithm, SigningKey, TokenKind};
use crate::authorize::standing::REVOCATION_TYP;
use crate::authorize::step_up::Challenge;
use crate::cli::files::FileError;
use crate::cli::issue::{self, TransactionClaims};
use crate::cli::{clock, keys};
use crate::producer::{Context, Signer};
use crate::worker::access::Caller;

const DOMAIN: &str = "example.org";
/// Who signs the answers of people.
pub(super) const LOGIN: &str = "https://login.example.org";
const LIFE_S: u32 = 3600;

/// A workload with its key and identity token.
pub(super) struct Actor {
    pub(super) key: SigningKey,
    pub(super) wit: String,
    id: WorkloadId,
}

/// Everybody.
pub(super) struct Cast {
    pub(super) realm: Realm,
    /// Signs identity tokens, until its key is taken out of the bundle.
    issuer: SigningKey,
    /// Signs them afterwards.
    next_issuer: SigningKey,
    token_service: SigningKey,
    /// Signs what people answer.
    login: SigningKey,
    /// Signs revocations.
    administrator: SigningKey,
    pub(super) gates: [(&'static str, SigningKey); 2],
    /// Pays invoices.
    pub(super) invoice: Actor,
    /// Reads mail and summarises.
    pub(super) mail: Actor,
    /// Does what was authorized, and books it.
    pub(super) payments: Actor,
    /// Of a trust domain that nobody configured.
    pub(super) stranger: Actor,
    transactions: u32,
}

impl Cast {
    pub(super) fn new() -> Result<Self, DemoError> {
        let key = |kid: &str| issue::generate(Algorithm::EdDsa, Some(kid));
        let (issuer, next_issuer) = (key("issuer-1")?, key("issuer-2")?);
        let foreign = key("issuer-1")?;
        let now = clock::now().ok_or(DemoError::Clock)?;
        let actor = |issuer: &SigningKey, name: &str| Actor::new(issuer, name, now);
        Ok(Self {
            realm: Realm::parse("demo")?,
            invoice: actor(&issuer, "spiffe://example.org/agent/invoice")?,
            mail: actor(&issuer, "spiffe://example.org/agent/mail")?,
            payments: actor(&issuer, "spiffe://example.org/service/payments")?,
            stranger: actor(&foreign, "spiffe://example.net/agent/invoice")?,
            issuer,
            next_issuer,
            token_service: key("token-service-1")?,
            login: key("login-1")?,
            administrator: key("administrator-1")?,
            gates: [("invoices", key("gate-invoices-1")?), ("ledger", key("gate-ledger-1")?)],
            transactions: 0,
        })
    }

    /// Writes the gates' keys and the key sets that they trust.
    pub(super) fn write(&self, folder: &Path) -> Result<(), DemoError> {
        for name in ["keys", "trust"] {
            fs::create_dir_all(folder.join(name))?;
        }
        for (name, key) in &self.gates {
            keys::write_private(&folder.join(format!("keys/gate-{name}.jwk")), key)?;
        }
        self.write_bundle(folder, true)?;
        let gates: Vec<_> = self.gates.iter().map(|(_, key)| key.public_jwk()).collect();
        write(folder, "trust/gates.jwks", &issue::jwks(&gates, None).to_string())?;
        for (name, key) in [
            ("token-service", &self.token_service),
            ("approvers", &self.login),
            ("administrators", &self.administrator),
        ] {
            let keys = issue::jwks([&key.public_jwk()], None).to_string();
            write(folder, &format!("trust/{name}.jwks"), &keys)?;
        }
        Ok(())
    }

    /// Takes the key that signed everybody's identity token out of the bundle.
    pub(super) fn delete_issuer(&self, folder: &Path) -> Result<(), DemoError> {
        self.write_bundle(folder, false)
    }

    fn write_bundle(&self, folder: &Path, both: bool) -> Result<(), DemoError> {
        let mut keys = vec![self.next_issuer.public_jwk()];
        if both {
            keys.push(self.issuer.public_jwk());
        }
        // Written beside and moved, so that no gate reads half of it.
        let bundle = issue::jwks(&keys, Some("wit-svid")).to_string();
        write(folder, "trust/.example.org.json", &bundle)?;
        fs::rename(folder.join("trust/.example.org.json"), folder.join("trust/example.org.json"))?;
        Ok(())
    }

    /// Gives everybody of the trust domain a new identity token, of the issuer's next key.
    pub(super) fn renew(&mut self) -> Result<(), DemoError> {
        let now = clock::now().ok_or(DemoError::Clock)?;
        for actor in [&mut self.invoice, &mut self.mail, &mut self.payments] {
            actor.wit = issue::wit(&self.next_issuer, &actor.id, &actor.key.public_jwk(), now, LIFE_S)?;
        }
        Ok(())
    }

    /// Gives the mail agent a new key, and an identity token for it.
    pub(super) fn replace_mail(&mut self) -> Result<(), DemoError> {
        let now = clock::now().ok_or(DemoError::Clock)?;
        self.mail = Actor::new(&self.next_issuer, self.mail.id.as_str(), now)?;
        Ok(())
    }

    /// A new transaction of a person.
    pub(super) fn transaction(&mut self, subject: &str, scope: &str) -> Result<String, DemoError> {
        self.transaction_in(DOMAIN, subject, scope)
    }

    /// The same for senders of another trust domain.
    pub(super) fn transaction_in(
        &mut self,
        domain: &str,
        subject: &str,
        scope: &str,
    ) -> Result<String, DemoError> {
        self.transactions += 1;
        let claims = self.claims(domain, subject, scope)?;
        let now = clock::now().ok_or(DemoError::Clock)?;
        Ok(issue::transaction(&self.token_service, &claims, now, LIFE_S)?)
    }

    /// A transaction token that names the token service's key and is signed with another.
    pub(super) fn forged_transaction(&self, subject: &str, scope: &str) -> Result<String, DemoError> {
        let forger = issue::generate(Algorithm::EdDsa, self.token_service.kid())?;
        let now = clock::now().ok_or(DemoError::Clock)?;
        Ok(issue::transaction(&forger, &self.claims(DOMAIN, subject, scope)?, now, LIFE_S)?)
    }

    /// What somebody answers to a challenge (contract, section 7), and the answer's id.
    pub(super) fn answer(
        &self,
        asked: &Challenge,
        who: &str,
        decision: &str,
    ) -> Result<(String, String), DemoError> {
        let (jti, now) = (issue::random_id()?, clock::now().ok_or(DemoError::Clock)?.whole_seconds());
        let claims = json!({
            "iss": LOGIN, "sub": who, "aud": asked.realm, "iat": now, "exp": now + i64::from(LIFE_S), "jti": jti,
            "challenge": asked.id, "digest": asked.digest, "decision": decision,
        });
        let token = self.login.sign(TokenKind::StepUpGrant, &claims)?;
        Ok((jti, token))
    }

    /// An administrator's revocation under an id of its own: of what was issued before `not_before`, or of everything.
    pub(super) fn revocation(
        &self,
        id: &str,
        (kind, of): (&str, &str),
        not_before: Option<i64>,
        reason: &str,
    ) -> Result<String, DemoError> {
        let now = clock::now().ok_or(DemoError::Clock)?;
        // A `not_before` that is null would be one that is mistyped, so it is left out.
        let mut claims = Map::new();
        claims.insert("jti".to_owned(), id.into());
        claims.insert("iat".to_owned(), now.as_seconds().into());
        claims.insert("revoke".to_owned(), json!({"kind": kind, "id": of}));
        claims.insert("reason".to_owned(), reason.into());
        claims.extend(not_before.map(|moment| ("not_before".to_owned(), moment.into())));
        Ok(self.administrator.sign_typ(REVOCATION_TYP, &claims)?)
    }

    fn claims(&self, domain: &str, subject: &str, scope: &str) -> Result<TransactionClaims, DemoError> {
        Ok(TransactionClaims {
            audience: TrustDomain::parse(domain)?,
            transaction: format!("txn-{}", self.transactions),
            subject: subject.to_owned(),
            scope: scope.to_owned(),
            requester: WorkloadId::parse("spiffe://example.org/web/portal")?,
            tctx: None,
            rctx: None,
        })
    }

    /// Leaves what the shell needs to go on with the story: the invoice agent's key and tokens, and the keys by which people
    /// answer and an administrator revokes.
    pub(super) fn leave_files(&mut self, folder: &Path) -> Result<(), DemoError> {
        let transaction = self.transaction("alice", "invoices.pay")?;
        keys::write_private(&folder.join("keys/agent.jwk"), &self.invoice.key)?;
        keys::write_private(&folder.join("keys/login.jwk"), &self.login)?;
        keys::write_private(&folder.join("keys/administrator.jwk"), &self.administrator)?;
        write(folder, "agent.wit", &self.invoice.wit)?;
        write(folder, "alice.txn", &transaction)
    }
}

impl Actor {
    fn new(issuer: &SigningKey, id: &str, now: UnixMillis) -> Result<Self, DemoError> {
        let key = issue::generate(Algorithm::EdDsa, None)?;
        let id = WorkloadId::parse(id)?;
        let wit = issue::wit(issuer, &id, &key.public_jwk(), now, LIFE_S)?;
        Ok(Self { key, wit, id })
    }

    /// What this workload signs records with.
    pub(super) fn context(&self, realm: &Realm, transaction: Option<&str>) -> Result<Context, DemoError> {
        let context = Context::new(Signer::new(self.copy()?, &self.wit, realm.clone())?);
        Ok(match transaction {
            Some(token) => context.transactions(token.to_owned()),
            None => context,
        })
    }

    /// This workload as it asks a gate over HTTP.
    pub(super) fn caller(&self) -> Result<Caller, DemoError> {
        Ok(Caller::new(self.copy()?, &self.wit)?)
    }

    fn copy(&self) -> Result<SigningKey, DemoError> {
        Ok(SigningKey::from_jwk(&self.key.private_jwk()).map_err(issue::GenerateError::Key)?)
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), DemoError> {
    let path = folder.join(name);
    Ok(fs::write(&path, text).map_err(|cause| FileError::write(&path, cause))?)
}
