//! The stories of held records: what the audit tells in order, held against what was answered, published and kept. Every
//! record that was asked about is held, takes answers, and ends once, as its answers say; every answer is audited once,
//! with the effect that it must have had there. Limits: approvals that do not run out; that outcomes and audit records
//! agree, and bytes, is the ledger's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use countersign::authorize::audit::AuditRecord;
use countersign::authorize::step_up::{Challenge, Hash16, Status};

use super::office::{ISSUER, Office, Said, hash, needed};
use crate::gate::audits;

/// A record of the source.
type Place = (i32, i64);

/// Everything that a site shows of its held records.
#[derive(Clone)]
pub struct History {
    /// Of the signed source alone, partition by partition in the order of their leaves.
    pub audits: Vec<AuditRecord>,
    /// Every answer in its topic, by partition and offset.
    pub answers: BTreeMap<Place, Written>,
    /// Every state of every challenge, in the order of its topic.
    pub told: Vec<Challenge>,
    /// What still stands in the holds topic: partition and key.
    pub kept: BTreeSet<(i32, String)>,
    /// What the people have signed, by the hash of the token.
    pub said: HashMap<String, Said>,
}

/// An answer in its topic.
#[derive(Clone, Debug)]
pub struct Written {
    /// When the broker took it.
    pub taken: i64,
    pub hash: String,
}

/// What the stories came to, by how they ended, and how often each effect was had.
#[derive(Debug, Default)]
pub struct Told {
    pub ends: BTreeMap<String, usize>,
    pub effects: BTreeMap<String, usize>,
    /// Records that went on with a grant that their sender brought.
    pub brought: usize,
}

impl History {
    /// What the office shows now, with everything decided.
    pub fn of(office: &Office) -> Self {
        let site = &office.site;
        let audits: Vec<AuditRecord> = audits(site)
            .into_iter()
            .map(|audit| audit.record)
            .filter(|audit| audit.topic == site.commands)
            .collect();
        let answers = site.broker.read_to_end(&office.answers_topic()).into_iter().map(|record| {
            let taken = record.timestamp.to_millis().expect("a stamp");
            let hash = hash(record.value.as_deref().unwrap_or_default());
            ((record.partition, record.offset), Written { taken, hash })
        });
        let answers: BTreeMap<Place, Written> = answers.collect();
        let mut kept = BTreeMap::new();
        for record in site.broker.read_to_end(&office.holds_topic()) {
            let key = String::from_utf8(record.key.expect("a key")).expect("text");
            // What a lane reads up to when it takes the partition over.
            if key == "barrier" {
                continue;
            }
            kept.insert((record.partition, key), record.value.is_some());
        }
        let hashes = answers.values().map(|answer| answer.hash.clone());
        let brought = audits.iter().filter_map(|audit| grant_of(audit).map(str::to_owned));
        let said = hashes.chain(brought).filter_map(|hash| Some((hash.clone(), office.said(&hash)?)));
        Self {
            said: said.collect(),
            answers,
            told: office.told(),
            kept: kept.into_iter().filter_map(|(key, stands)| stands.then_some(key)).collect(),
            audits,
        }
    }

    /// Panics with everything that is wrong.
    pub fn check(&self) -> Told {
        let (told, problems) = self.read();
        let shown: Vec<&str> = problems.iter().take(20).map(String::as_str).collect();
        assert!(problems.is_empty(), "{} problems:\n  {}", problems.len(), shown.join("\n  "));
        told
    }

    /// The stories, and what is wrong with them.
    pub fn read(&self) -> (Told, Vec<String>) {
        let mut reader = Reader::new(self);
        for audit in &self.audits {
            reader.see(audit);
        }
        reader.finish();
        (reader.told, reader.problems)
    }
}

/// The hash of the grant that a record brought, by its audit record.
fn grant_of(audit: &AuditRecord) -> Option<&str> {
    if audit.outcome == "answer" {
        return None;
    }
    let mut hashes = audit.token_hashes.iter();
    hashes.find(|token| token.header == "step-up-grant").map(|token| token.sha256.as_str())
}

/// A held record.
struct Held {
    /// `None` while it waits behind another.
    challenge: Option<String>,
    until: i64,
    needed: usize,
    status: Status,
    /// The hashes of the answers that were counted, and when the last of them was.
    counted: Vec<String>,
    counted_at: i64,
}

/// How a held record ended.
struct End {
    challenge: String,
    until: i64,
    status: Status,
    decision: String,
    counted: Vec<String>,
}

struct Reader<'h> {
    history: &'h History,
    held: BTreeMap<Place, Held>,
    ends: BTreeMap<Place, Option<End>>,
    /// Where each challenge belongs.
    challenges: HashMap<String, Place>,
    /// By the hash of the token.
    spent: HashSet<String>,
    answered: BTreeSet<Place>,
    leaves: HashMap<i32, i64>,
    told: Told,
    problems: Vec<String>,
}

impl<'h> Reader<'h> {
    fn new(history: &'h History) -> Self {
        Self {
            history,
            held: BTreeMap::new(),
            ends: BTreeMap::new(),
            challenges: HashMap::new(),
            spent: HashSet::new(),
            answered: BTreeSet::new(),
            leaves: HashMap::new(),
            told: Told::default(),
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }

    fn see(&mut self, audit: &AuditRecord) {
        let before = self.leaves.insert(audit.partition, audit.leaf_index);
        if before.is_some_and(|before| before >= audit.leaf_index) {
            self.problem(format!("partition {}: leaf {} twice", audit.partition, audit.leaf_index));
        }
        let place = (audit.partition, audit.offset);
        if audit.outcome == "answer" {
            return self.answer(audit);
        }
        if self.ends.contains_key(&place) {
            return self.problem(format!("{place:?}: `{}` after its end", audit.outcome));
        }
        match audit.outcome.as_str() {
            "hold" => self.hold(place, audit),
            "wait" => self.wait(place),
            "forward" | "deny" => self.end(place, audit),
            other => self.problem(format!("{place:?}: outcome `{other}`")),
        }
    }

    fn wait(&mut self, place: Place) {
        let held = Held {
            challenge: None,
            until: i64::MAX,
            needed: 0,
            status: Status::Open,
            counted: Vec::new(),
            counted_at: 0,
        };
        if self.held.insert(place, held).is_some() {
            self.problem(format!("{place:?}: waits, and was held before"));
        }
    }

    fn hold(&mut self, place: Place, audit: &AuditRecord) {
        let resource = audit.resource.as_ref().map_or("", |resource| &resource.id);
        let (needed, Some(until)) = (needed(resource), audit.hold_until) else {
            return self.problem(format!("{place:?}: held without an end"));
        };
        let Some(challenge) = audit.challenge.clone().filter(|_| needed > 0) else {
            return self.problem(format!("{place:?}: held although nobody is asked about `{resource}`"));
        };
        // An approval that its sender brought counts towards it.
        let brought = grant_of(audit).filter(|_| !audit.approvers.is_empty()).map(str::to_owned);
        match self.held.get_mut(&place) {
            Some(held) if held.challenge.as_ref() == Some(&challenge) => {
                let was = (held.until, held.status);
                held.status = Status::Open;
                let counted = held.counted.clone();
                if was != (until, Status::Approved) || !counted.iter().any(|hash| self.spent.contains(hash)) {
                    self.problem(format!("{place:?}: held on for no reason"));
                }
            }
            Some(held) if held.challenge.is_some() => {
                self.problem(format!("{place:?}: asked about twice"));
            }
            _ => {
                let held = Held {
                    challenge: Some(challenge.clone()),
                    until,
                    needed,
                    status: Status::Open,
                    counted: brought.into_iter().collect(),
                    counted_at: audit.decided,
                };
                self.held.insert(place, held);
                if self.challenges.insert(challenge.clone(), place).is_some() {
                    self.problem(format!("{place:?}: `{challenge}` is another record's"));
                }
            }
        }
    }

    fn answer(&mut self, audit: &AuditRecord) {
        let Some((said, at)) =
            audit.answer.as_ref().and_then(|said| Some((said, (audit.partition, said.offset?))))
        else {
            return self.problem("an answer without its place");
        };
        if !self.answered.insert(at) {
            return self.problem(format!("the answer at {at:?} is audited twice"));
        }
        let Some(written) = self.history.answers.get(&at) else {
            return self.problem(format!("an answer at {at:?}, where none stands"));
        };
        *self.told.effects.entry(said.effect.clone()).or_default() += 1;
        let expected = self.effect(written, audit);
        if said.effect != expected {
            self.problem(format!("the answer at {at:?} is `{}`, and should be `{expected}`", said.effect));
        }
    }

    /// What an answer must come to there, and what it changes.
    fn effect(&mut self, written: &Written, audit: &AuditRecord) -> &'static str {
        let history = self.history;
        let Some(said) = history.said.get(&written.hash) else { return "malformed" };
        let place = self.challenges.get(&said.challenge).copied();
        let Some(held) = place.and_then(|place| self.held.get_mut(&place)) else {
            let end = place.and_then(|place| self.ends.get(&place)).and_then(Option::as_ref);
            if end.is_some_and(|end| end.status == Status::Expired && written.taken < end.until) {
                let problem =
                    format!("{place:?} ran out of time before an answer in time was read: {said:?}");
                self.problem(problem);
            }
            return "stray";
        };
        let place = place.expect("it is held");
        if (audit.partition, audit.offset) != place {
            let problem = format!("an answer to {place:?} is audited for offset {}", audit.offset);
            self.problem(problem);
            return "nothing";
        }
        if !said.fits {
            return "invalid";
        }
        if said.who == "alice" {
            return "requester";
        }
        if self.spent.contains(&written.hash) {
            return "spent";
        }
        if !["carol", "dave", "erin"].contains(&said.who.as_str()) {
            return "not_permitted";
        }
        let standing = |hash: &&String| {
            let before = &history.said[*hash];
            let good = before.approves && !self.spent.contains(*hash);
            before.who == said.who && (good || held.status == Status::Refused)
        };
        if let Some(before) = held.counted.iter().find(standing) {
            return if history.said[before].approves == said.approves { "second" } else { "contradictory" };
        }
        match (held.status, said.approves) {
            (Status::Approved, false) | (Status::Refused, true) => return "contradictory",
            (Status::Approved | Status::Refused, _) => return "late",
            _ if written.taken >= held.until => return "late",
            _ => {}
        }
        held.counted.push(written.hash.clone());
        held.counted_at = audit.decided;
        let approvers = approvers(history, &self.spent, &held.counted);
        held.status = match said.approves {
            false => Status::Refused,
            true if approvers.len() >= held.needed => Status::Approved,
            true => Status::Open,
        };
        "counted"
    }

    fn end(&mut self, place: Place, audit: &AuditRecord) {
        let reason = audit.reason.as_deref().unwrap_or("forward");
        let held = self.held.remove(&place);
        let Some((held, challenge)) =
            held.and_then(|held| held.challenge.clone().map(|challenge| (held, challenge)))
        else {
            self.ends.insert(place, None);
            return self.unheld(place, audit);
        };
        *self.told.ends.entry(reason.to_owned()).or_default() += 1;
        let good = approvers(self.history, &self.spent, &held.counted);
        let refused = held.counted.iter().any(|hash| !self.history.said[hash].approves);
        let status = match reason {
            "forward" => {
                if held.status != Status::Approved || good.len() < held.needed {
                    self.problem(format!("{place:?} is released, and {} have approved", good.len()));
                }
                if audit.approvers != good.iter().cloned().collect::<Vec<_>>() {
                    self.problem(format!("{place:?} is released for {:?}, not {good:?}", audit.approvers));
                }
                if audit.discharged.is_empty() {
                    self.problem(format!("{place:?} is released, and no step-up is discharged"));
                }
                Status::Released
            }
            "step_up_refused" => {
                if !refused {
                    self.problem(format!("{place:?} is denied, and nobody has refused"));
                }
                Status::Refused
            }
            "step_up_timed_out" => {
                if held.status != Status::Open || audit.decided <= held.until {
                    self.problem(format!("{place:?} runs out of time as `{}`", held.status));
                }
                Status::Expired
            }
            _ => Status::Denied,
        };
        if audit.decided < held.counted_at {
            self.problem(format!("{place:?} ends by a decision from before its answers"));
        }
        if audit.challenge.as_ref() != Some(&challenge) {
            self.problem(format!("{place:?} ends with the challenge {:?}", audit.challenge));
        }
        let Held { until, counted, .. } = held;
        self.spent.extend(counted.iter().cloned());
        let decision = audit.decision_id.clone();
        self.ends.insert(place, Some(End { challenge, until, status, decision, counted }));
    }

    /// A record that was not held, or only waited behind another.
    fn unheld(&mut self, place: Place, audit: &AuditRecord) {
        if audit
            .reason
            .as_deref()
            .is_some_and(|reason| ["step_up_refused", "step_up_timed_out"].contains(&reason))
        {
            self.problem(format!("{place:?} is denied as {:?}, and was never held", audit.reason));
        }
        let resource = audit.resource.as_ref().map_or("", |resource| &resource.id);
        if audit.outcome != "forward" || needed(resource) == 0 {
            return;
        }
        self.told.brought += 1;
        let grant = grant_of(audit).map(str::to_owned);
        let said = grant.as_ref().and_then(|hash| self.history.said.get(hash));
        let (Some(grant), Some(said)) = (grant, said) else {
            return self.problem(format!("{place:?} goes on, and nobody has approved"));
        };
        let here = format!("{}:{}:", audit.topic, audit.partition);
        let approver = format!("User::\"{}\"", said.who);
        let holds = said.approves && said.fits && said.challenge.starts_with(&here) && needed(resource) == 1;
        if !holds || audit.approvers != [approver] || audit.challenge.as_ref() != Some(&said.challenge) {
            self.problem(format!("{place:?} goes on with a grant that does not hold: {said:?}"));
        }
        if !self.spent.insert(grant) {
            self.problem(format!("{place:?} goes on with a grant that was used before"));
        }
    }

    fn finish(&mut self) {
        let history = self.history;
        for place in std::mem::take(&mut self.held).into_keys() {
            self.problem(format!("{place:?} was held and never ended"));
        }
        for at in history.answers.keys().filter(|at| !self.answered.contains(at)).copied().collect::<Vec<_>>()
        {
            self.problem(format!("the answer at {at:?} is not audited"));
        }
        let mut last: HashMap<&str, &Challenge> = HashMap::new();
        for told in &history.told {
            let before = last.insert(&told.id, told);
            let ended = |status: &Status| !matches!(status, Status::Open | Status::Approved);
            // A refusal that was counted is told before the record is denied for it.
            if before.is_some_and(|before| ended(&before.status) && before.decision_id.is_some()) {
                self.problem(format!("`{}` is `{}` after its end", told.id, told.status));
            }
        }
        for (place, end) in &self.ends {
            let Some(end) = end else { continue };
            let Some(told) = last.remove(end.challenge.as_str()) else {
                self.problems.push(format!("{place:?}: its challenge was never published"));
                continue;
            };
            let counted: Vec<&str> = end.counted.iter().map(|hash| history.said[hash].jti.as_str()).collect();
            let published: Vec<&str> = told.answers.iter().map(|answer| answer.jti.as_str()).collect();
            if (told.status, told.decision_id.as_ref()) != (end.status, Some(&end.decision)) {
                self.problems
                    .push(format!("{place:?}: published as `{}`, ended as `{}`", told.status, end.status));
            }
            if published != counted {
                self.problems.push(format!("{place:?}: published with {published:?}, counted {counted:?}"));
            }
        }
        for id in last.into_keys() {
            self.problems.push(format!("`{id}` is no held record's challenge"));
        }
        let partition = |said: &Said| said.challenge.rsplit(':').nth(1).and_then(|text| text.parse().ok());
        let marks: BTreeSet<(i32, String)> = self
            .spent
            .iter()
            .filter_map(|hash| {
                let said = history.said.get(hash)?;
                Some((partition(said)?, format!("grant/{}", Hash16::of_grant(ISSUER, &said.jti))))
            })
            .collect();
        for left in history.kept.symmetric_difference(&marks) {
            self.problems.push(format!("in the holds topic, left or lacking: {left:?}"));
        }
    }
}

/// Who has approved by these answers, as entities, sorted; what another record has used does not count.
fn approvers(history: &History, spent: &HashSet<String>, counted: &[String]) -> BTreeSet<String> {
    let good = counted.iter().filter(|hash| !spent.contains(*hash)).map(|hash| &history.said[hash]);
    good.filter(|said| said.approves).map(|said| format!("User::\"{}\"", said.who)).collect()
}
