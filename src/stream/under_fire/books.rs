//! The books of one partition, kept by what came in alone: taken decision by decision, in the order of the audit tree, they
//! say what each must have been and what it must have left behind. Limits: which input is decided when, and by which
//! snapshot, is the gate's choice, and is read from its audit record.

mod answers;

use std::collections::{BTreeMap, BTreeSet};

use super::people::{Behind, Sent, Token};
use super::seen::Seen;
use super::world::{AUDIT, MAX_WAITING, SKEW_MS, SOURCE};
use crate::authorize::audit::AuditRecord;
use crate::authorize::route::Order;
use crate::authorize::step_up::Hash16;

/// What a record waits for.
#[derive(Clone, Debug)]
enum Wait {
    /// For those of its key before it.
    Others,
    Asked(Asked),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Open,
    Approved,
    Refused,
}

#[derive(Clone, Debug)]
struct Asked {
    challenge: String,
    until: i64,
    needed: usize,
    grant_s: i64,
    stand: Stand,
    /// The tokens that were counted, and until when each is good.
    answers: Vec<(usize, i64)>,
}

/// What must have become of an input.
struct Due {
    outcome: &'static str,
    /// Of a denial the reason, of an answer its effect.
    why: Option<&'static str>,
}

fn due(outcome: &'static str, why: Option<&'static str>) -> Due {
    Due { outcome, why }
}

/// What is against somebody, by the snapshot that the decision names.
#[derive(Clone, Copy)]
struct Against {
    revoked: bool,
    ended: bool,
}

impl Against {
    fn of(audit: &AuditRecord) -> Result<Self, String> {
        let version = |name: &str| {
            let found = audit.control.iter().find(|control| control.name == name);
            found.map(|control| control.version == "0:1").ok_or_else(|| format!("no version of {name}"))
        };
        Ok(Self { revoked: version("revocations")?, ended: version("workflows")? })
    }
}

/// What is known of one partition.
pub(super) struct Books<'a> {
    seen: &'a Seen,
    partition: usize,
    /// The record and the answer that must be decided next.
    pub(super) next: usize,
    pub(super) answers: usize,
    proofs: BTreeMap<&'a str, usize>,
    held: BTreeMap<usize, Wait>,
    spent: BTreeSet<usize>,
    /// The records that went on with each grant.
    used: BTreeMap<usize, usize>,
    /// What the decision at hand must leave behind.
    left: Vec<String>,
    /// The proofs that the decision at hand adds.
    pub(super) proof: Option<usize>,
    /// The partition and the offset of each challenge.
    pub(super) challenges: BTreeMap<String, usize>,
}

impl<'a> Books<'a> {
    pub(super) fn new(seen: &'a Seen, partition: usize) -> Self {
        Self {
            seen,
            partition,
            next: 0,
            answers: 0,
            proofs: BTreeMap::new(),
            held: BTreeMap::new(),
            spent: BTreeSet::new(),
            used: BTreeMap::new(),
            left: Vec::new(),
            proof: None,
            challenges: BTreeMap::new(),
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes the next decision; gives what it must have left behind.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take(&mut self, audit: &AuditRecord) -> Result<Vec<String>, String> {
        (self.left, self.proof) = (Vec::new(), None);
        let expected = match usize::try_from(audit.offset) {
            _ if audit.outcome == "answer" => self.answer(audit)?,
            Ok(offset) if offset == self.next => self.first(offset, audit)?,
            Ok(offset) if self.held.contains_key(&offset) => self.again(offset, audit)?,
            _ => {
                let (next, offset) = (self.next, audit.offset);
                return Err(format!("{} is decided where {next} is next: out of turn, or again", offset));
            }
        };
        let why = audit.answer.as_ref().map(|answer| answer.effect.as_str()).or(audit.reason.as_deref());
        if (audit.outcome.as_str(), why) != (expected.outcome, expected.why) {
            let is = format!("{} {}", audit.outcome, why.unwrap_or_default());
            let must = format!("{} {}", expected.outcome, expected.why.unwrap_or_default());
            let of = format!("{SOURCE}/{}/{} (leaf {})", self.partition, audit.offset, audit.leaf_index);
            return Err(format!("{of} is `{is}`, and must be `{must}`"));
        }
        match audit.outcome.as_str() {
            "forward" => self.left.push(format!("forward {} {}", self.partition, audit.decision_id)),
            "deny" => {
                let reason = audit.reason.as_deref().unwrap_or_default();
                self.left.push(format!("deny {} {} {reason}", self.partition, audit.decision_id));
            }
            _ => {}
        }
        if audit.outcome == "forward" && audit.policies.is_empty() {
            return Err(format!("{} is forwarded and no policy permits it", audit.offset));
        }
        Ok(std::mem::take(&mut self.left))
    }

    fn sent(&self, offset: usize) -> Result<&'a Sent, String> {
        let sent = self.seen.sent.get(self.partition).and_then(|sent| sent.get(offset));
        sent.ok_or_else(|| format!("{AUDIT} has a decision about {offset}, which nobody sent"))
    }

    fn keep(&mut self, offset: usize, what: &str, is: &str) {
        self.left.push(format!("holds {p} {p}/{offset}/{what} {is}", p = self.partition));
    }

    /// The record is held from now on.
    fn hold(&mut self, offset: usize, wait: Wait) {
        self.keep(offset, "payload", "set");
        self.keep(offset, "state", "set");
        self.held.insert(offset, wait);
    }

    fn spend(&mut self, token: usize) {
        let jti = &self.seen.tokens[token].jti;
        let hash = Hash16::of_grant(super::people::PEOPLE, jti);
        self.left.push(format!("holds {} grant/{hash} set", self.partition));
        self.spent.insert(token);
    }

    /// The record has ended, and with it what was asked about it.
    fn end(&mut self, offset: usize, how: &'static str, why: Option<&'static str>) -> Result<Due, String> {
        if let Some(wait) = self.held.remove(&offset) {
            self.keep(offset, "payload", "gone");
            self.keep(offset, "state", "gone");
            if let Wait::Asked(asked) = wait {
                let status = match why {
                    None => "released",
                    Some("step_up_refused") => "refused",
                    Some("step_up_timed_out") => "expired",
                    Some(_) => "denied",
                };
                self.left.push(format!("told {} {status}", asked.challenge));
                for (token, _) in asked.answers {
                    if how == "forward" && !self.spent.contains(&token) {
                        self.use_up(token)?;
                    }
                    self.spend(token);
                }
            }
        }
        Ok(due(how, why))
    }

    fn use_up(&mut self, token: usize) -> Result<(), String> {
        let times = self.used.entry(token).or_default();
        *times += 1;
        if *times > 1 {
            return Err(format!("the grant `{}` is used twice", self.seen.tokens[token].jti));
        }
        Ok(())
    }

    /// A record is decided for the first time.
    fn first(&mut self, offset: usize, audit: &AuditRecord) -> Result<Due, String> {
        self.next += 1;
        let sent = self.sent(offset)?;
        if let Some(reason) = sent.ask.unproven() {
            return Ok(due("deny", Some(reason)));
        }
        if self.proofs.get(sent.jti.as_str()).is_some_and(|before| *before != offset) {
            return Ok(due("deny", Some("replayed")));
        }
        self.proofs.insert(&sent.jti, offset);
        self.proof = Some(offset);
        if let Some(reason) = sent.ask.unlinked() {
            return Ok(due("deny", Some(reason)));
        }
        self.judge(offset, sent, audit, true)
    }

    /// A held record is decided again.
    fn again(&mut self, offset: usize, audit: &AuditRecord) -> Result<Due, String> {
        let sent = self.sent(offset)?;
        match self.held.get(&offset).cloned() {
            Some(Wait::Asked(asked)) => self.answered(offset, sent, asked, audit),
            _ => {
                let first = self.queue(sent.key).next();
                if first != Some(offset) {
                    return Err(format!("{offset} goes on before {first:?}, which waits before it"));
                }
                self.judge(offset, sent, audit, false)
            }
        }
    }

    /// The held records of a key, in their order.
    fn queue(&self, key: &'static str) -> impl Iterator<Item = usize> {
        let of_key = move |offset: &&usize| self.sent(**offset).is_ok_and(|sent| sent.key == key);
        self.held.keys().filter(of_key).copied()
    }

    /// What the standing of those behind a record, its request and the policies come to.
    fn judge(
        &mut self,
        offset: usize,
        sent: &'a Sent,
        audit: &AuditRecord,
        comes: bool,
    ) -> Result<Due, String> {
        if let Some(reason) = Self::against(sent, audit)?.or(sent.ask.forbidden()) {
            return self.end(offset, "deny", Some(reason));
        }
        if comes && self.seen.order == Order::Key {
            let held = self.queue(sent.key).count();
            let waiting =
                self.queue(sent.key).filter(|other| matches!(self.held[other], Wait::Others)).count();
            if held > 0 && waiting >= MAX_WAITING {
                return Ok(due("deny", Some("step_up_required")));
            }
            if held > 0 && !self.is_refused(sent, audit) {
                self.hold(offset, Wait::Others);
                return Ok(due("wait", None));
            }
        }
        let Some((hold_s, grant_s, needed)) = sent.ask.step_up() else {
            let (how, why) = match sent.ask.is_deliverable() {
                true => ("forward", None),
                false => ("deny", Some("undeliverable")),
            };
            return self.end(offset, how, why);
        };
        let mut answers = Vec::new();
        if let Some(grant) = sent.grant {
            match self.brought(grant, sent, grant_s, audit.decided) {
                None => return self.end(offset, "deny", Some("step_up_invalid")),
                Some(good_until) => answers.push((grant, good_until)),
            }
        }
        if self.is_refused(sent, audit) {
            return self.end(offset, "deny", Some("undeliverable"));
        }
        if answers.len() >= needed {
            let ended = self.end(offset, "forward", None)?;
            for (token, _) in answers {
                self.use_up(token)?;
                self.spend(token);
            }
            return Ok(ended);
        }
        let challenge = format!("{SOURCE}:{}:{}", self.partition, audit.decision_id);
        let until = audit.decided + hold_s * 1000;
        if audit.hold_until != Some(until) || audit.challenge.as_ref() != Some(&challenge) {
            return Err(format!("{offset} is held until {:?}, and must be until {until}", audit.hold_until));
        }
        self.left.push(format!("told {challenge} open"));
        self.challenges.insert(challenge.clone(), offset);
        let asked = Asked { challenge, until, needed, grant_s, stand: Stand::Open, answers };
        self.hold(offset, Wait::Asked(asked));
        Ok(due("hold", None))
    }

    /// Whether it is denied since what would become of it was refused: at once where nothing can be held, and else where the
    /// lane has learned of it before.
    fn is_refused(&self, sent: &Sent, audit: &AuditRecord) -> bool {
        let is_denied = audit.reason.as_deref() == Some("undeliverable");
        self.seen.unholdable == Some(self.partition) || (!sent.ask.is_deliverable() && is_denied)
    }

    fn against(sent: &Sent, audit: &AuditRecord) -> Result<Option<&'static str>, String> {
        let against = Against::of(audit)?;
        Ok(match sent.behind {
            Behind::Revocable if against.revoked => Some("revoked"),
            Behind::Ending if against.ended => Some("workflow_ended"),
            _ => None,
        })
    }

    /// Until when the grant that a record brings is good, if it holds.
    fn brought(&self, grant: usize, sent: &Sent, grant_s: i64, now: i64) -> Option<i64> {
        let token = &self.seen.tokens[grant];
        let good_until = token.expires.min(token.issued + grant_s * 1000);
        let holds = now <= token.expires + SKEW_MS
            && usize::try_from(token.challenge.partition) == Ok(self.partition)
            && token.approves
            && token.fits
            && self.is_same(token, sent)
            && !["alice", "mallory"].contains(&token.who)
            && !self.spent.contains(&grant)
            && now <= good_until + SKEW_MS;
        holds.then_some(good_until)
    }

    /// Whether a token is made out for what that record asks.
    fn is_same(&self, token: &Token, sent: &Sent) -> bool {
        let asked = usize::try_from(token.challenge.offset).ok().and_then(|offset| self.sent(offset).ok());
        asked.is_some_and(|other| (other.ask, other.behind, other.key) == (sent.ask, sent.behind, sent.key))
    }

    /// A record whose challenge was answered, or is out of time.
    fn answered(
        &mut self,
        offset: usize,
        sent: &'a Sent,
        mut asked: Asked,
        audit: &AuditRecord,
    ) -> Result<Due, String> {
        let now = audit.decided;
        let good = self.good(&asked, now);
        if asked.stand == Stand::Open {
            if now <= asked.until {
                return Err(format!("{offset} comes again at {now} and may wait until {}", asked.until));
            }
            self.no_answer_is_left_out(&asked)?;
        }
        if let Some(reason) = Self::against(sent, audit)? {
            return self.end(offset, "deny", Some(reason));
        }
        match asked.stand {
            Stand::Refused => self.end(offset, "deny", Some("step_up_refused")),
            Stand::Open => self.end(offset, "deny", Some("step_up_timed_out")),
            Stand::Approved if good >= asked.needed => self.end(offset, "forward", None),
            // Approvals have run out since, or were used: it waits on.
            Stand::Approved => {
                asked.stand = Stand::Open;
                self.keep(offset, "state", "set");
                self.left.push(format!("told {} open", asked.challenge));
                self.held.insert(offset, Wait::Asked(asked));
                Ok(due("hold", None))
            }
        }
    }

    fn is_good(&self, token: usize, until: i64, now: i64) -> bool {
        self.seen.tokens[token].approves && now <= until + SKEW_MS && !self.spent.contains(&token)
    }

    fn good(&self, asked: &Asked, now: i64) -> usize {
        asked.answers.iter().filter(|(token, until)| self.is_good(*token, *until, now)).count()
    }
}
