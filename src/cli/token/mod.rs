//! `token`: mints the three tokens of a sender for development, and shows what a token says. Limits: what it mints is
//! as good as the keys it is given, so those belong on no production machine; `show` verifies nothing.

mod show;

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::clock;
use super::files::{self, FileError};
use super::issue::{self, GenerateError, TransactionClaims};
use crate::authorize::ids::{InvalidName, Realm, Topic, TrustDomain, WorkloadId};
use crate::authorize::jose::{SignError, TokenKind};
use crate::producer::{Asked, Context, ContextError, Outgoing, Signer, SignerError};

/// Mint tokens for development, show what a token says
#[derive(Debug, clap::Args)]
pub struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value in the life of the process, read once")]
enum Command {
    /// Mint a workload identity token (WIT)
    Wit {
        /// The issuer's private key
        #[arg(long, value_name = "FILE")]
        issuer: PathBuf,
        /// The workload: a SPIFFE ID or `wimse://` URI
        #[arg(long, value_name = "ID")]
        subject: String,
        /// The workload's own key, private or public
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// How long it is good for, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        life: u32,
    },
    /// Mint a transaction token (Txn-Token)
    Txn {
        /// The token service's private key
        #[arg(long, value_name = "FILE")]
        service: PathBuf,
        /// The trust domain of the workloads that will use it
        #[arg(long, value_name = "DOMAIN")]
        audience: String,
        /// On whose behalf
        #[arg(long)]
        subject: String,
        /// What it is good for, separated by spaces
        #[arg(long)]
        scope: String,
        /// The workload that asked for it: a SPIFFE ID or `wimse://` URI
        #[arg(long, value_name = "ID")]
        requester: String,
        /// The transaction's id [default: a new one]
        #[arg(long, value_name = "ID")]
        txn: Option<String>,
        /// Details of the transaction (`tctx`), a JSON object
        #[arg(long, value_name = "JSON", value_parser = object)]
        tctx: Option<Map<String, Value>>,
        /// Circumstances of the request (`rctx`), a JSON object
        #[arg(long, value_name = "JSON", value_parser = object)]
        rctx: Option<Map<String, Value>>,
        /// How long it is good for, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 900)]
        life: u32,
    },
    /// Mint a workload proof token (WPT) for one record; `produce` does this for each record it sends
    Proof(Box<ProofArgs>),
    /// Show what a token is and says, without its signature; verifies nothing
    Show {
        /// The token's file; `-` is standard input
        #[arg(default_value = "-")]
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct ProofArgs {
    /// The workload's private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The workload's WIT
    #[arg(long, value_name = "FILE")]
    wit: PathBuf,
    /// The Txn-Token that goes along
    #[arg(long, value_name = "FILE")]
    txn: Option<PathBuf>,
    /// The realm of the cluster
    #[arg(long)]
    realm: String,
    /// The topic of the record
    #[arg(long)]
    topic: String,
    /// The only partition that the proof is good for
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// The record's key, as text [default: null]
    #[arg(long, value_name = "TEXT")]
    record_key: Option<String>,
    /// The file of the record's value, byte for byte, at most 1 MiB of UTF-8 [default: null]
    #[arg(long, value_name = "FILE")]
    value: Option<PathBuf>,
    /// The name of the action
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// The resource
    #[arg(long, value_name = "TYPE/ID", value_parser = resource)]
    resource: Option<(String, String)>,
}

/// Why a `token` command failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum TokenError {
    /// A file could not be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// A name breaks the rules.
    #[error("the {0}")]
    Name(#[from] InvalidName),
    /// No random bytes for an id.
    #[error(transparent)]
    Random(#[from] GenerateError),
    /// The key cannot sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Key and WIT do not make a sender.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// A gate would refuse the record.
    #[error(transparent)]
    Refused(#[from] ContextError),
    /// The machine's clock shows no usable time.
    #[error("the clock of this machine shows no usable time")]
    Clock,
    /// What was to be shown is no token.
    #[error("this is no token: {0}")]
    #[diagnostic(help("a token is three parts of base64url, separated by dots"))]
    NoToken(&'static str),
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Token {
    /// Runs the command; `out` is where data goes.
    ///
    /// # Errors
    /// What could not be read, made or written.
    pub fn run(&self, json: bool, out: &mut dyn Write) -> Result<(), TokenError> {
        let now = clock::now().ok_or(TokenError::Clock)?;
        match &self.command {
            Command::Wit { issuer, subject, key, life } => {
                let (issuer, holder) = (files::private_key(issuer)?, files::public_key(key)?);
                writeln!(out, "{}", issue::wit(&issuer, &WorkloadId::parse(subject)?, &holder, now, *life)?)?;
            }
            Command::Txn { service, audience, subject, scope, requester, txn, tctx, rctx, life } => {
                let claims = TransactionClaims {
                    audience: TrustDomain::parse(audience)?,
                    transaction: txn.clone().map_or_else(issue::random_id, Ok)?,
                    subject: subject.clone(),
                    scope: scope.clone(),
                    requester: WorkloadId::parse(requester)?,
                    tctx: tctx.clone(),
                    rctx: rctx.clone(),
                };
                writeln!(out, "{}", issue::transaction(&files::private_key(service)?, &claims, now, *life)?)?;
            }
            Command::Proof(args) => writeln!(out, "{}", args.mint()?)?,
            Command::Show { file } => {
                let shown = show::Shown::of(&files::token(file)?)?;
                if json { writeln!(out, "{}", shown.json())? } else { shown.write(now, out)? }
            }
        }
        Ok(())
    }
}

impl ProofArgs {
    fn mint(&self) -> Result<String, TokenError> {
        let wit = files::token(&self.wit)?;
        let signer = Signer::new(files::private_key(&self.key)?, &wit, Realm::parse(&self.realm)?)?;
        let mut context = Context::new(signer);
        if let Some(txn) = &self.txn {
            context = context.transactions(files::token(txn)?.as_str().to_owned());
        }
        let topic = Topic::parse(&self.topic)?;
        let value = self.value.as_deref().map(files::text).transpose()?;
        let mut record = Outgoing::new(&topic);
        record.key = self.record_key.as_deref().map(str::as_bytes);
        record.value = value.as_ref().map(|text| text.as_bytes());
        record.partition = self.partition.map(crate::authorize::ids::Partition);
        let mut asked = Asked::of("", "", "");
        match &self.action {
            Some(name) => asked.action.iter_mut().for_each(|a| a.name.clone_from(name)),
            None => asked.action = None,
        }
        match &self.resource {
            Some((kind, id)) => asked.resource.iter_mut().for_each(|r| {
                r.kind.clone_from(kind);
                r.id.clone_from(id);
            }),
            None => asked.resource = None,
        }
        let headers = context.headers(&record, &asked)?;
        let name = TokenKind::WorkloadProof.header_name();
        let proof =
            headers.as_slice().iter().find(|h| h.name == name.as_bytes()).and_then(|h| h.value.clone());
        Ok(String::from_utf8_lossy(&proof.unwrap_or_default()).into_owned())
    }
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    crate::authorize::json::parse_object(text.as_bytes()).map_err(|e| format!("it {e}"))
}

fn resource(text: &str) -> Result<(String, String), String> {
    let (kind, id) = text.split_once('/').ok_or("must be `TYPE/ID`")?;
    Ok((kind.to_owned(), id.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::authorize::jose::{Algorithm, Jws, KeySet, KeyUse};
    use crate::cli::keys;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        token: Token,
    }

    fn run(arguments: &[&str]) -> String {
        let mut out = Vec::new();
        let program = Program::try_parse_from([&["token"], arguments].concat()).unwrap();
        program.token.run(true, &mut out).unwrap_or_else(|e| panic!("{e}"));
        String::from_utf8(out).unwrap().trim_end().to_owned()
    }

    fn verified(token: &str, kind: TokenKind, key: &Value) -> Map<String, Value> {
        let jws = Jws::parse(token.as_bytes(), kind).unwrap();
        let set = KeySet::from_jwks(&issue::jwks([key], None).to_string(), KeyUse::Any).unwrap();
        let algorithm = Algorithm::parse(jws.alg()).unwrap();
        let key = set.select(jws.kid(), algorithm).unwrap();
        assert!(key.verify(algorithm, jws.signing_input(), jws.signature()));
        crate::authorize::json::parse_object(jws.payload()).unwrap()
    }

    #[test]
    fn the_shell_mints_all_that_a_sender_needs() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let keys = ["issuer", "service", "agent"].map(|name| {
            let key = issue::generate(Algorithm::Es256, None).unwrap();
            keys::write_private(&folder.path().join(name), &key).unwrap();
            key.public_jwk()
        });
        let (issuer, service, agent) = (path("issuer"), path("service"), path("agent"));
        let id = "spiffe://example.org/agent/payer";
        let wit = run(&["wit", "--issuer", &issuer, "--subject", id, "--key", &agent]);
        let claims = verified(&wit, TokenKind::WorkloadIdentity, &keys[0]);
        assert_eq!((claims["sub"].as_str(), &claims["cnf"]["jwk"]), (Some(id), &keys[2]));

        let mut arguments =
            vec!["txn", "--service", &service, "--audience", "example.org", "--subject", "alice"];
        arguments.extend([
            "--scope",
            "pay refund",
            "--requester",
            id,
            "--tctx",
            r#"{"limit":5}"#,
            "--life",
            "60",
        ]);
        let txn = run(&arguments);
        let claims = verified(&txn, TokenKind::Transaction, &keys[1]);
        assert_eq!(claims["tctx"]["limit"], 5);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);
        assert!(claims["txn"].as_str().is_some_and(|id| id.len() == 22));

        std::fs::write(path("wit"), format!("{wit}\n")).unwrap();
        std::fs::write(path("txn"), &txn).unwrap();
        let (wit, txn) = (path("wit"), path("txn"));
        let mut arguments = vec!["proof", "--key", &agent, "--wit", &wit, "--txn", &txn, "--realm", "dev"];
        arguments.extend([
            "--topic",
            "t",
            "--record-key",
            "k",
            "--action",
            "pay",
            "--resource",
            "Invoice/a/b",
        ]);
        let proof = run(&arguments);
        let claims = verified(&proof, TokenKind::WorkloadProof, &keys[2]);
        assert_eq!(claims["aud"], "kafka://dev/t");
        assert_eq!(claims["resource"], serde_json::json!({"type": "Invoice", "id": "a/b"}));
        assert_eq!(claims["kafka"]["value"], Value::Null);

        std::fs::write(path("wpt"), &proof).unwrap();
        let shown: Value = serde_json::from_str(&run(&["show", &path("wpt")])).unwrap();
        assert_eq!((&shown["kind"], &shown["verified"]), (&"workload-proof-token".into(), &false.into()));
    }
}
