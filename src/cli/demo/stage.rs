//! Tells one situation after the other: does something, waits for what comes of it, and holds it against what is told.
//! Limits: one thing at a time, so that each row of the table stands for itself.

use std::io::Write;

use super::DemoError;
use super::cast::Cast;
use super::observer::{Audited, Deeds, Observer, Outcome};
use super::post::Envelope;
use super::row::{Ending, Row, Told};
use super::table;
use super::world::World;
use crate::authorize::ids::Coordinates;
use crate::authorize::step_up::Challenge;
use crate::worker::Received;

/// A record that waits for a person.
pub(super) struct Held {
    at: Coordinates,
    challenge: Box<Challenge>,
}

/// Where the story is told.
pub(super) struct Stage<'s> {
    pub(super) world: &'s World,
    pub(super) observer: &'s Observer,
    out: Option<&'s mut dyn Write>,
    colored: bool,
    rows: u64,
    deeds: Deeds,
    surprises: Vec<String>,
}

impl<'s> Stage<'s> {
    pub(super) fn new(
        world: &'s World,
        observer: &'s Observer,
        out: Option<&'s mut dyn Write>,
        colored: bool,
    ) -> Result<Self, DemoError> {
        let (deeds, surprises) = (Deeds::default(), Vec::new());
        let mut stage = Self { world, observer, out, colored, rows: 0, deeds, surprises };
        if let Some(out) = stage.out.as_deref_mut() {
            table::head(out)?;
        }
        Ok(stage)
    }

    /// What was done, and what did not end as told.
    pub(super) fn into_parts(self) -> (Deeds, Vec<String>) {
        (self.deeds, self.surprises)
    }

    /// Begins a chapter.
    pub(super) fn chapter(&mut self, title: &str) -> Result<(), DemoError> {
        self.world.go_on()?;
        match self.out.as_deref_mut() {
            Some(out) => Ok(table::chapter(out, title, self.colored)?),
            None => Ok(()),
        }
    }

    /// Tells one situation. What was received by the next worker, if it was forwarded; and where the record stood.
    pub(super) fn tell(
        &mut self,
        title: &'static str,
        told: Told,
        envelope: &Envelope,
    ) -> Result<(Option<Received>, Coordinates), DemoError> {
        let at = self.send(envelope)?;
        let (outcome, audited) = self.observer.ended(&at)?;
        Ok((self.tell_end(title, told, outcome, audited)?, at))
    }

    /// Tells that a record is held, and what is asked about it.
    pub(super) fn tell_held(&mut self, title: &'static str, envelope: &Envelope) -> Result<Held, DemoError> {
        let at = self.send(envelope)?;
        let (challenge, audited) = self.observer.held(&at)?;
        let notes = challenge.step_ups.iter().map(|ask| format!("asked: {}", ask.message)).collect();
        let policies = audited.step_ups;
        self.row(Row { policies, notes, ..Row::of(title, Ending::Held, Ending::Held) })?;
        Ok(Held { at, challenge })
    }

    /// Sends a record that must be held, as part of a situation that is told later.
    pub(super) fn hold(&mut self, envelope: &Envelope) -> Result<Held, DemoError> {
        let at = self.send(envelope)?;
        let (challenge, _) = self.observer.held(&at)?;
        Ok(Held { at, challenge })
    }

    /// Somebody answers; the answer's id.
    pub(super) fn answer(
        &mut self,
        cast: &Cast,
        held: &Held,
        who: &str,
        decision: &str,
    ) -> Result<String, DemoError> {
        self.answer_in("commands.answers", cast, &held.challenge, who, decision)
    }

    /// Somebody answers what is asked about a question over HTTP, and the gate takes it in.
    pub(super) fn answer_wanted(
        &mut self,
        cast: &Cast,
        challenge: &Challenge,
        who: &str,
        decision: &str,
    ) -> Result<(), DemoError> {
        let jti = self.answer_in("access.answers", cast, challenge, who, decision)?;
        let effect = self.observer.heard(&jti)?;
        if effect != "counted" {
            self.surprises.push(format!("the answer of {who} was `{effect}`"));
        }
        Ok(())
    }

    fn answer_in(
        &mut self,
        kind: &str,
        cast: &Cast,
        challenge: &Challenge,
        who: &str,
        decision: &str,
    ) -> Result<String, DemoError> {
        let (jti, token) = cast.answer(challenge, who, decision)?;
        let answer = Envelope {
            topic: self.world.topic("invoices", kind)?,
            partition: Some(challenge.partition),
            key: challenge.id.clone().into(),
            value: token.into(),
            headers: Vec::new(),
        };
        self.world.post().send(&answer)?;
        self.deeds.answers += 1;
        Ok(jti)
    }

    /// Tells what became of an answer that must change nothing.
    pub(super) fn tell_ignored(
        &mut self,
        title: &'static str,
        effect: &'static str,
        held: &Held,
        jti: &str,
    ) -> Result<(), DemoError> {
        let found = Ending::Ignored(self.observer.answered(&held.at, jti)?);
        self.row(Row::of(title, Ending::Ignored(effect), found))
    }

    /// Tells how a held record has ended.
    pub(super) fn tell_released(
        &mut self,
        title: &'static str,
        told: Told,
        held: &Held,
    ) -> Result<(), DemoError> {
        let (outcome, audited) = self.observer.ended(&held.at)?;
        self.tell_end(title, told, outcome, audited).map(drop)
    }

    fn tell_end(
        &mut self,
        title: &'static str,
        told: Told,
        outcome: Outcome,
        audited: Audited,
    ) -> Result<Option<Received>, DemoError> {
        let Audited { reason, detail, policies, approvers, .. } = audited;
        let (found, received) = match outcome {
            Outcome::Forwarded(received) => (Ending::Forwarded, Some(*received)),
            Outcome::Denied => (Ending::Denied(reason.unwrap_or_default()), None),
        };
        let approved = approvers.iter().map(|approver| format!("answered by {approver}"));
        let notes = detail.into_iter().chain(approved).collect();
        self.row(Row { policies, notes, ..Row::of(title, told, found) })?;
        Ok(received)
    }

    /// Sends a record that must be forwarded, as part of a situation that is told later.
    pub(super) fn forward(&mut self, envelope: &Envelope) -> Result<Option<Received>, DemoError> {
        let at = self.send(envelope)?;
        match self.observer.ended(&at)? {
            (Outcome::Forwarded(received), _) => Ok(Some(*received)),
            (Outcome::Denied, audited) => {
                let reason = audited.reason.unwrap_or_default();
                self.surprises
                    .push(format!("the record at {at}, before situation {}: {reason}", self.rows + 1));
                Ok(None)
            }
        }
    }

    fn send(&mut self, envelope: &Envelope) -> Result<Coordinates, DemoError> {
        self.world.go_on()?;
        let at = self.world.post().send(envelope)?;
        self.deeds.sent += 1;
        Ok(at)
    }

    /// Workers have asked so many questions in all.
    pub(super) fn questions(&mut self, all: u64) {
        self.deeds.questions = all;
    }

    /// Tells a situation that was found out.
    pub(super) fn row(&mut self, row: Row) -> Result<(), DemoError> {
        self.rows += 1;
        let row = Row { number: self.rows, ..row };
        if !row.is_as_told() {
            self.surprises.push(format!("situation {}: {}", row.number, row.title));
        }
        match self.out.as_deref_mut() {
            Some(out) => Ok(table::row(out, &row, self.colored)?),
            None => Ok(()),
        }
    }
}
