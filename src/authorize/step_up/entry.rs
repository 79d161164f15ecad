//! What memory holds of one held record: where its payload stands, what it waits for, and the answers that were counted.
//! Limits: the record itself and what was asked stay in the holds topic.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use super::challenge::{Asker, ChallengeId, CountedAnswer, Status};
use super::holds::Holds;
use super::login::FreshLogin;
use crate::authorize::claims::Verdict;
use crate::authorize::engine::Decision;
use crate::authorize::ids::{DecisionId, Offset, UnixMillis};
use crate::authorize::jose::sha256;
use crate::authorize::record::Record;

/// 16 bytes of SHA-256: of a record's key, or of a grant's issuer and `jti`. Written as base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash16([u8; 16]);

impl Hash16 {
    fn of(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(sha256(parts).0).for_each(|(to, from)| *to = from);
        Self(bytes)
    }

    /// Of a record's key.
    pub fn of_key(key: &[u8]) -> Self {
        Self::of(&[key])
    }

    /// Of a grant: a `jti` is unique to its issuer alone.
    pub fn of_grant(issuer: &str, jti: &str) -> Self {
        // The length keeps issuer and jti from running into each other.
        let length = (issuer.len() as u64).to_be_bytes();
        Self::of(&[&length, issuer.as_bytes(), jti.as_bytes()])
    }

    /// Reads the 22 characters that stand for it.
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The least there is, for the start of a range.
    pub(super) const LEAST: Self = Self([0; 16]);
}

impl fmt::Display for Hash16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl Serialize for Hash16 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash16 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not 16 bytes in base64url"))
    }
}

/// A held record, as the index has it and as `p/offset/state` keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Where its payload stands in the holds topic; unknown until the commit that wrote it.
    #[serde(skip)]
    pub(super) payload: Option<Offset>,
    /// Its key, where later records of that key wait behind it.
    pub(super) key: Option<Hash16>,
    /// What it waits for.
    pub(super) wait: Wait,
}

/// What a held record waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Wait {
    /// For the records of its key before it.
    Others,
    /// For answers.
    Answers(Box<Pending>),
}

/// A challenge as the index has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// The last part of the challenge's id.
    pub(super) challenge: Uuid,
    /// `open`, `approved` or `refused`.
    pub(super) status: Status,
    /// When it was asked.
    pub(super) asked_at: UnixMillis,
    /// When the hold ends.
    pub(super) until: UnixMillis,
    /// How many must approve.
    pub(super) approvals: u32,
    /// Reminders sent.
    pub(super) reminders: u32,
    /// The answers that were counted.
    pub(super) answers: Vec<Taken>,
    /// The login that was refreshed for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<Box<FreshLogin>>,
}

/// An answer that was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// As it is published.
    pub(super) counted: CountedAnswer,
    /// The grant, which is used once.
    pub(super) grant: Hash16,
    /// `exp` of the grant: how long its mark must stay once it is spent.
    pub(super) expires: UnixMillis,
}

/// When reminders are sent: half way, and when a tenth of the time is left. A hold of less than a minute has none.
const REMINDERS: [(i64, i64); 2] = [(1, 2), (9, 10)];
const SHORTEST_REMINDED_MS: i64 = 60_000;

impl Pending {
    /// Whether the record is to be decided again: enough have answered, or the login was refreshed.
    pub(super) fn is_due(&self) -> bool {
        self.status != Status::Open || self.login.as_ref().is_some_and(|login| login.due)
    }

    /// The moment of the reminder after so many.
    fn reminder(&self, sent: u32) -> Option<UnixMillis> {
        let life = self.until.0.saturating_sub(self.asked_at.0);
        let (part, of) = *REMINDERS.get(usize::try_from(sent).ok()?)?;
        (life >= SHORTEST_REMINDED_MS).then(|| UnixMillis(self.asked_at.0 + life / of * part))
    }

    /// The moment of the next reminder.
    pub(super) fn next_reminder(&self) -> Option<UnixMillis> {
        self.reminder(self.reminders)
    }

    /// How many reminders there should have been by then.
    pub(super) fn reminders_by(&self, now: UnixMillis) -> u32 {
        let due = (self.reminders..).take_while(|sent| self.reminder(*sent).is_some_and(|at| at <= now));
        due.last().map_or(self.reminders, |sent| sent + 1)
    }

    /// The approvals that are good at that moment: their grants have not run out, and no other record has used them.
    pub(super) fn approved(
        &self,
        now: UnixMillis,
        skew_s: u32,
        holds: &Holds,
    ) -> impl Iterator<Item = &Taken> {
        let skew_ms = i64::from(skew_s) * 1000;
        self.answers.iter().filter(move |taken| {
            taken.counted.decision == Verdict::Approve.as_str()
                && now.0 <= taken.counted.grant_until.saturating_add(skew_ms)
                && !holds.is_spent(taken.grant)
        })
    }
}

impl Entry {
    /// What it waits for from others, if it was asked.
    pub(super) fn pending(&self) -> Option<&Pending> {
        match &self.wait {
            Wait::Others => None,
            Wait::Answers(pending) => Some(pending),
        }
    }

    /// How a record stands that is held already and is read once more: the decision, and the challenge that holds it.
    pub(in crate::authorize) fn known(&self, record: &Record) -> (Decision, Option<String>) {
        let (asker, partition) = (Asker::Lane(record.source.topic.clone()), record.source.partition);
        match self.pending() {
            None => (Decision::Wait, None),
            Some(pending) => {
                let id = ChallengeId { asker, partition, decision: DecisionId(pending.challenge) };
                (Decision::Hold, Some(id.to_string()))
            }
        }
    }

    /// Where its payload stands, once that is known.
    pub fn payload(&self) -> Option<Offset> {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(life_ms: i64) -> Pending {
        Pending {
            challenge: Uuid::from_u128(1),
            status: Status::Open,
            asked_at: UnixMillis(1000),
            until: UnixMillis(1000 + life_ms),
            approvals: 1,
            reminders: 0,
            answers: Vec::new(),
            login: None,
        }
    }

    #[test]
    fn reminders_come_half_way_and_before_the_end_and_missed_ones_count_as_one() {
        let mut pending = pending(600_000);
        assert_eq!(pending.next_reminder(), Some(UnixMillis(301_000)));
        assert_eq!(pending.reminders_by(UnixMillis(300_999)), 0);
        assert_eq!(pending.reminders_by(UnixMillis(301_000)), 1);
        assert_eq!(pending.reminders_by(UnixMillis(10_000_000)), 2);
        pending.reminders = 1;
        assert_eq!(pending.next_reminder(), Some(UnixMillis(541_000)));
        pending.reminders = 2;
        assert_eq!(pending.next_reminder(), None);
        assert_eq!(pending.reminders_by(UnixMillis(10_000_000)), 2);
        assert_eq!(super::tests::pending(59_999).next_reminder(), None);
    }

    #[test]
    fn issuer_and_jti_do_not_run_into_each_other() {
        assert_ne!(Hash16::of_grant("a", "bc"), Hash16::of_grant("ab", "c"));
        let hash = Hash16::of_key(b"k");
        assert_eq!(Hash16::parse(&hash.to_string()), Some(hash));
        assert_eq!(Hash16::parse("AAAA"), None);
    }
}
