//! Running a file of the contract's vectors: every case against the engine, and the differences. Limits: the frame and
//! the cases are those of `tests/vectors/README.md`; a member that is not of them is an error, so that no rule of a case
//! is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::desk::Desk;
use super::record::WrittenRecord;
use super::{DecideError, Exit};
use crate::authorize::engine::Snapshot;
use crate::authorize::ids::{Realm, Topic, TrustDomain, UnixMillis, WorkloadId};
use crate::authorize::jose::{Algorithm, KeySet, KeyUse};
use crate::authorize::policy::{Bundle, Entities, Offer, SourceFile};
use crate::authorize::route::{Gate, Party, Route, TokenExpiry};
use crate::authorize::standing::Standing;
use crate::authorize::trust::{Domain, Trust};
use crate::cli::issue;
use crate::config::Problem;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vectors {
    #[serde(rename = "about")]
    _about: Option<String>,
    now: i64,
    realm: String,
    skew_s: u32,
    max_proof_life_s: u32,
    max_queue_time_s: u32,
    trust: BTreeMap<String, WrittenDomain>,
    route: Map<String, Value>,
    schema: String,
    policies: String,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDomain {
    bundle: Value,
    txn_keys: Value,
    gate_keys: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    record: WrittenRecord,
    expect: Expected,
    #[serde(default)]
    route: Map<String, Value>,
    #[serde(rename = "note")]
    _note: Option<String>,
}

/// How a case ends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    pub(super) outcome: String,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRoute {
    topic: String,
    require: BTreeSet<String>,
    token_expiry: String,
    principal: String,
}

/// What came out.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    pub(super) cases: usize,
    pub(super) agree: usize,
    pub(super) differences: Vec<Difference>,
}

/// One case that ended otherwise than it should.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    pub(super) name: String,
    pub(super) expected: Expected,
    pub(super) found: Expected,
    pub(super) detail: Option<String>,
}

impl Compared {
    pub(super) fn exit(&self) -> Exit {
        if self.differences.is_empty() { Exit::Done } else { Exit::No }
    }
}

impl Vectors {
    pub(super) fn parse(text: &str) -> Result<Self, DecideError> {
        serde_json::from_str(text).map_err(|error| DecideError::Vectors(error.to_string()))
    }

    /// Decides every case, each with a memory of its own.
    pub(super) fn run(self) -> Result<Compared, DecideError> {
        let wrong = |what: &str| DecideError::Vectors(what.to_owned());
        let named = |error: crate::authorize::ids::InvalidName| DecideError::Vectors(error.to_string());
        let realm = Realm::parse(&self.realm).map_err(named)?;
        let first = self.trust.keys().next().ok_or_else(|| wrong("`trust` names no domain"))?;
        let id = WorkloadId::parse(&format!("spiffe://{first}/gate/decide")).map_err(named)?;
        let now = UnixMillis(self.now.checked_mul(1000).ok_or_else(|| wrong("`now` is out of range"))?);
        let snapshot = Arc::new(self.snapshot()?);
        let frame = (self.skew_s, self.max_proof_life_s, self.max_queue_time_s);
        let mut compared = Compared { cases: self.cases.len(), agree: 0, differences: Vec::new() };
        for case in self.cases {
            let mut members = self.route.clone();
            members.extend(case.route);
            let route = route(members, frame)?;
            let record = case
                .record
                .into_record()
                .map_err(|error| DecideError::Vectors(format!("the record of `{}` {error}", case.name)))?;
            let gate =
                Gate { id: id.clone(), realm: realm.clone(), key: issue::generate(Algorithm::EdDsa, None)? };
            let partitions = record.source.partition.0.saturating_add(1);
            let decided = Desk::new(gate, Arc::clone(&snapshot))?.decide(&route, &record, now, partitions)?;
            let found = Expected {
                outcome: decided.audit.outcome.to_string(),
                reason: decided.denial.as_ref().map(|denial| denial.reason.as_str().to_owned()),
            };
            if found == case.expect {
                compared.agree += 1;
            } else {
                let detail = decided.denial.map(|denial| denial.detail);
                compared.differences.push(Difference {
                    name: case.name,
                    expected: case.expect,
                    found,
                    detail,
                });
            }
        }
        Ok(compared)
    }

    fn snapshot(&self) -> Result<Snapshot, DecideError> {
        let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), text: text.to_owned() };
        let problems = |errors: crate::authorize::policy::LoadErrors| {
            let mut all = crate::config::Problems::default();
            for problem in errors.problems() {
                all.push(Problem::from_diagnostic(problem));
            }
            DecideError::Problems(all)
        };
        let offer = Offer { transaction: true, ..Offer::default() };
        let policies = vec![file("policies", &self.policies)];
        let bundle = Bundle::load(policies, file("schema", &self.schema), &offer).map_err(problems)?;
        let entities = Entities::load(Vec::new(), &bundle).map_err(problems)?;
        let mut domains = BTreeMap::new();
        for (name, written) in &self.trust {
            let keys = |set: &Value, key_use| {
                KeySet::from_jwks(&set.to_string(), key_use)
                    .map_err(|error| DecideError::Vectors(format!("the keys of `{name}`: {error}")))
            };
            let domain = Domain {
                algorithms: Algorithm::DEFAULT.to_vec(),
                bundle: keys(&written.bundle, KeyUse::WitIssuer)?,
                token_service: keys(&written.txn_keys, KeyUse::Any)?,
                gates: keys(&written.gate_keys, KeyUse::Any)?,
            };
            let name = TrustDomain::parse(name).map_err(|error| DecideError::Vectors(error.to_string()))?;
            domains.insert(name, domain);
        }
        Ok(Snapshot {
            trust: Arc::new(Trust::new(domains)),
            policy: Arc::new(bundle),
            entities: Arc::new(entities),
            standing: Standing::default(),
        })
    }
}

fn route(
    members: Map<String, Value>,
    (skew_s, proof_life_s, max_queue_time_s): (u32, u32, u32),
) -> Result<Route, DecideError> {
    let wrong = |what: String| DecideError::Vectors(what);
    let written: WrittenRoute =
        serde_json::from_value(Value::Object(members)).map_err(|error| wrong(format!("a route: {error}")))?;
    let topic = |name: &str| Topic::parse(name).map_err(|error| wrong(error.to_string()));
    if let Some(unknown) = written
        .require
        .iter()
        .find(|name| !["workload", "transaction", "countersignature"].contains(&name.as_str()))
    {
        return Err(wrong(format!("a route requires `{unknown}`, which is not known")));
    }
    Ok(Route {
        require_transaction: written.require.contains("transaction"),
        require_countersignature: written.require.contains("countersignature"),
        token_expiry: match written.token_expiry.as_str() {
            "accepted" => TokenExpiry::Accepted,
            "now" => TokenExpiry::Now,
            other => return Err(wrong(format!("a route has the `token_expiry` `{other}`"))),
        },
        skew_s,
        proof_life_s,
        max_queue_time_s,
        principal: match written.principal.as_str() {
            "sender" => Party::Sender,
            "subject" => Party::Subject,
            other => return Err(wrong(format!("a route has the `principal` `{other}`"))),
        },
        ..Route::new(
            "vectors",
            vec![topic(&written.topic)?],
            topic("vectors.authorized")?,
            topic("vectors.denied")?,
            topic("vectors.audit")?,
        )
    })
}
