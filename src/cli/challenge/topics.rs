//! Challenges as they stand in the topics of the configured routes, and answers that a key signs. Limits: for development,
//! and for approvers with keys of their own; it reads whole topics, and sees every challenge in them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use serde_json::Value;

use super::answer::{Approver, is_signed_by};
use super::shown::Shown;
use super::{Answering, ChallengeError, Judged, Wanted, confirmed, no, parsed, say, too_late};
use crate::authorize::ids::{Coordinates, Offset, Topic, UnixMillis};
use crate::authorize::record::Record;
use crate::authorize::route::Holding;
use crate::authorize::step_up::Challenge as Asked;
use crate::cli::topic::TopicClient;
use crate::cli::{Exit, Output, clock, files, issue};
use crate::config::Config;
use crate::control::TrustSource;
use crate::control::answers::AnswerTopics;
use crate::wire::challenge::{ChallengeCodec, ChallengeCodecError};

/// Between two looks at a topic.
const REST: Duration = Duration::from_millis(200);

/// The topics, as the commands work with them.
pub(super) struct Records<'d> {
    config: &'d Config,
    client: &'d ClientConfig,
    codec: ChallengeCodec,
    out: &'d mut Output,
}

impl<'d> Records<'d> {
    /// The topics of that configuration.
    ///
    /// # Errors
    /// The schema does not parse: a broken build.
    pub(super) fn new(
        config: &'d Config,
        client: &'d ClientConfig,
        out: &'d mut Output,
    ) -> Result<Self, ChallengeCodecError> {
        Ok(Self { config, client, codec: ChallengeCodec::new()?, out })
    }

    pub(super) fn list(&mut self, wanted: &Wanted<'_>) -> Result<Exit, ChallengeError> {
        let mut all = Vec::new();
        for topic in self.topics()? {
            let view = TopicClient::new(self.client, topic).read(|_| true)?;
            all.extend(view.values().map(|(record, value)| self.shown(record, value)));
        }
        let unreadable = all.iter().any(|shown| matches!(shown, Shown::Unreadable { .. }));
        all.retain(|shown| match shown {
            Shown::Challenge(asked, _) => wanted.is(asked),
            Shown::Unreadable { .. } => true,
        });
        all.sort_by_key(|shown| match shown {
            Shown::Challenge(asked, _) => asked.asked_at,
            Shown::Unreadable { .. } => i64::MAX,
        });
        for shown in &all {
            shown.write(self.out, false)?;
        }
        Ok(if unreadable { Exit::No } else { Exit::Done })
    }

    pub(super) fn show(&mut self, id: &str, until: Option<Instant>) -> Result<Exit, ChallengeError> {
        let Some((mut shown, at)) = self.find(id)? else { return self.unknown(id) };
        if let (Some(until), Shown::Challenge(asked, _)) = (until, &shown)
            && asked.status.is_open()
            && let Some(next) = self.follow(id, &mut at.clone(), until)?
        {
            shown = next;
        }
        shown.write(self.out, true)?;
        Ok(if matches!(shown, Shown::Challenge(..)) { Exit::Done } else { Exit::No })
    }

    pub(super) fn answer(
        &mut self,
        answering: &Answering,
        decision: &'static str,
    ) -> Result<Exit, ChallengeError> {
        let id = parsed(&answering.id)?;
        let (asked, at) = match self.find(&answering.id)? {
            None => return self.unknown(&answering.id),
            Some((Shown::Challenge(asked, _), at)) => (asked, at),
            Some((shown @ Shown::Unreadable { .. }, _)) => {
                shown.write(self.out, true)?;
                return Ok(Exit::No);
            }
        };
        let now = clock::now().ok_or(ChallengeError::Clock)?;
        if let Some(why) = too_late(&asked, now) {
            return no(self.out, &why, Value::Null);
        }
        let (jti, token) = self.sign(answering, &asked, decision, now)?;
        if !answering.yes && !confirmed(&asked, decision)? {
            return no(self.out, "not confirmed: nothing was sent", Value::Null);
        }
        let settings = &self.config.settings;
        let desks = settings.access.as_ref().and_then(|access| access.answers.clone());
        let places = AnswerTopics::of(settings.routes.iter().map(|of| &*of.route), desks);
        let nowhere = || ChallengeError::Nowhere(answering.id.clone());
        let (answers, partition) = places.place(&id).ok_or_else(nowhere)?;
        let written = TopicClient::new(self.client, answers).write(
            partition,
            answering.id.as_bytes(),
            Some(token.as_bytes()),
        )?;
        say(self.out, decision, &answering.id, &jti, &written.to_string())?;
        match answering.wait.until() {
            Some(until) => self.wait(&answering.id, &jti, at, &written, until),
            None => Ok(Exit::Done),
        }
    }

    /// Signs, and makes sure that a gate will find the signature good.
    fn sign(
        &self,
        answering: &Answering,
        asked: &Asked,
        decision: &'static str,
        now: UnixMillis,
    ) -> Result<(String, String), ChallengeError> {
        let trust = TrustSource::read(&self.config.settings.trust).load().map_err(ChallengeError::Trust)?;
        let signing = &answering.signing;
        let (Some(file), Some(issuer), Some(subject)) =
            (&signing.signing_key, &signing.issuer, &signing.subject)
        else {
            return Err(ChallengeError::NoSigner);
        };
        let approvers = trust.others().approvers.get(issuer);
        let approvers = approvers.ok_or_else(|| ChallengeError::Issuer(issuer.clone()))?;
        let key = files::private_key(file)?;
        let approver = Approver {
            issuer: issuer.clone(),
            subject: subject.clone(),
            acr: signing.acr.clone(),
            amr: signing.amr.clone(),
            auth_time: signing.auth_time,
            comment: answering.comment.clone(),
            life_s: signing.life,
        };
        let jti = issue::random_id()?;
        let token = approver.sign(asked, decision, &jti, &key, now)?;
        if !is_signed_by(&approvers.issuer, &token, &key) {
            return Err(ChallengeError::Key(issuer.clone()));
        }
        Ok((jti, token))
    }

    /// Follows the challenge until the answer was counted, and to its end if that comes in time.
    fn wait(
        &mut self,
        id: &str,
        jti: &str,
        mut at: Coordinates,
        written: &Coordinates,
        until: Instant,
    ) -> Result<Exit, ChallengeError> {
        while let Some(shown) = self.follow(id, &mut at, until)? {
            if let Shown::Challenge(asked, _) = &shown
                && let Some(exit) = Judged::of(asked, jti).exit()
            {
                shown.write(self.out, true)?;
                return Ok(exit);
            }
        }
        Err(ChallengeError::Silence { jti: jti.to_owned(), at: written.to_string() })
    }

    /// How the challenge stands once it has changed since `at`, which is moved on; `None` where it has not by then.
    fn follow(
        &self,
        id: &str,
        at: &mut Coordinates,
        until: Instant,
    ) -> Result<Option<Shown>, ChallengeError> {
        let topic = at.topic.clone();
        let topic = TopicClient::new(self.client, &topic);
        loop {
            let mut last = None;
            for record in topic.read_between(at.partition, Some(at.offset), Offset(i64::MAX))? {
                at.offset = record.source.offset;
                if record.key.as_deref() == Some(id.as_bytes())
                    && let Some(value) = record.value.as_deref()
                    && let shown @ Shown::Challenge(..) = self.shown(&record, value)
                {
                    last = Some(shown);
                }
            }
            if last.is_some() || Instant::now() >= until {
                return Ok(last);
            }
            std::thread::sleep(REST);
        }
    }

    /// The challenge of that id, wherever it is published.
    fn find(&self, id: &str) -> Result<Option<(Shown, Coordinates)>, ChallengeError> {
        for topic in self.topics()? {
            let view = TopicClient::new(self.client, topic).read(|key| key == id.as_bytes())?;
            if let Some((record, value)) = view.values().next() {
                return Ok(Some((self.shown(record, value), record.source.clone())));
            }
        }
        Ok(None)
    }

    fn shown(&self, record: &Record, value: &[u8]) -> Shown {
        let id = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let at = record.source.clone();
        match self.codec.decode(value) {
            Ok(asked) if asked.id == id => Shown::Challenge(Box::new(asked), Some(at)),
            Ok(asked) => Shown::Unreadable { problem: format!("it is the challenge `{}`", asked.id), id, at },
            Err(problem) => Shown::Unreadable { id, at, problem: problem.to_string() },
        }
    }

    fn holding(&self) -> impl Iterator<Item = &Holding> {
        self.config.settings.routes.iter().filter_map(|settings| settings.route.holding.as_ref())
    }

    fn topics(&self) -> Result<Vec<&Topic>, ChallengeError> {
        let topics: BTreeMap<&str, &Topic> =
            self.holding().map(|holding| (holding.challenges.as_str(), &holding.challenges)).collect();
        if topics.is_empty() { Err(ChallengeError::NoRoute) } else { Ok(topics.into_values().collect()) }
    }

    fn unknown(&mut self, id: &str) -> Result<Exit, ChallengeError> {
        no(self.out, &format!("there is no challenge `{id}`"), Value::Null)
    }
}
