//! The answers of a partition: what each comes to, by whoever gave it and when the broker took it. Limits: what becomes of the
//! record is decided in a turn of its own.

use super::{Asked, Books, Due, Stand, Wait, due};
use crate::authorize::audit::AuditRecord;
use crate::stream::under_fire::world::SKEW_MS;

impl Books<'_> {
    /// Nothing runs out of time before every answer that the broker took in time was decided.
    pub(super) fn no_answer_is_left_out(&self, asked: &Asked) -> Result<(), String> {
        let answers = self.seen.answers.get(self.partition).map_or(&[][..], Vec::as_slice);
        for (at, answer) in answers.iter().enumerate().skip(self.answers) {
            let of = answer.token.map(|token| &self.seen.tokens[token].challenge.id);
            if of == Some(&asked.challenge) && answer.taken.0 < asked.until {
                return Err(format!("{} is out of time before its answer {at} was decided", asked.challenge));
            }
        }
        Ok(())
    }

    /// An answer is taken in.
    pub(super) fn answer(&mut self, audit: &AuditRecord) -> Result<Due, String> {
        let at = self.answers;
        let offset = audit.answer.as_ref().and_then(|answer| answer.offset);
        if offset != i64::try_from(at).ok() {
            return Err(format!("answer {offset:?} is decided where {at} is next"));
        }
        let answers = self.seen.answers.get(self.partition);
        let answer = answers.and_then(|answers| answers.get(at)).ok_or("an answer that nobody gave")?;
        self.answers += 1;
        let effect = match answer.token {
            None => "malformed",
            Some(token) => self.weigh(token, answer.taken.0, audit.decided),
        };
        Ok(due("answer", Some(effect)))
    }

    fn weigh(&mut self, index: usize, taken: i64, now: i64) -> &'static str {
        let token = &self.seen.tokens[index];
        if now > token.expires + SKEW_MS {
            return "invalid";
        }
        let found = self.held.iter().find_map(|(offset, wait)| match wait {
            Wait::Asked(asked) if asked.challenge == token.challenge.id => Some((*offset, asked.clone())),
            _ => None,
        });
        let Some((offset, asked)) = found else { return "stray" };
        let good_until = token.expires.min(token.issued + asked.grant_s * 1000);
        if !token.fits {
            "invalid"
        } else if token.who == "alice" {
            "requester"
        } else if self.spent.contains(&index) {
            "spent"
        } else if token.who == "mallory" {
            "not_permitted"
        } else {
            self.count(offset, asked, (index, good_until), taken, now)
        }
    }

    fn count(
        &mut self,
        offset: usize,
        mut asked: Asked,
        (index, good_until): (usize, i64),
        taken: i64,
        now: i64,
    ) -> &'static str {
        let token = &self.seen.tokens[index];
        let of_same = |other: &usize| self.seen.tokens[*other].who == token.who;
        let before = asked.answers.iter().find(|(other, until)| {
            of_same(other) && (asked.stand == Stand::Refused || self.is_good(*other, *until, now))
        });
        if let Some((other, _)) = before {
            let same = self.seen.tokens[*other].approves == token.approves;
            return if same { "second" } else { "contradictory" };
        }
        match (asked.stand, token.approves) {
            (Stand::Approved, false) | (Stand::Refused, true) => return "contradictory",
            (Stand::Approved | Stand::Refused, _) => return "late",
            _ if taken >= asked.until => return "late",
            _ if now > good_until + SKEW_MS => return "invalid",
            _ => {}
        }
        asked.answers.retain(|(other, _)| !of_same(other));
        asked.answers.push((index, good_until));
        let stand = match token.approves {
            false => Stand::Refused,
            true if self.good(&asked, now) >= asked.needed => Stand::Approved,
            true => Stand::Open,
        };
        let status = ["open", "approved", "refused"][stand as usize];
        self.keep(offset, "state", "set");
        self.left.push(format!("told {} {status}", asked.challenge));
        asked.stand = stand;
        self.held.insert(offset, Wait::Asked(asked));
        "counted"
    }
}
