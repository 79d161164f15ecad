//! `challenge`: the challenges of the configured routes, and answers to them by an approver who holds a key. Limits: it
//! shows, signs and sends; whether an answer counts is judged by the lane or the desk that reads it, and stands in the audit record.
//! Approvers with a login use the gate's HTTP interface.

mod answer;
mod shown;

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use rdkafka::config::ClientConfig;
use serde_json::json;

use super::cluster::{ClusterError, GateArgs};
use super::files::{self, FileError};
use super::issue::{self, GenerateError};
use super::output::plain;
use super::topic::{TopicClient, TopicError};
use super::{Exit, Format, Output, clock};
use crate::authorize::ids::{Coordinates, Offset, Topic, UnixMillis};
use crate::authorize::jose::SignError;
use crate::authorize::record::Record;
use crate::authorize::route::Holding;
use crate::authorize::step_up::{Challenge as Asked, ChallengeId, Status};
use crate::config::{Config, Problems};
use crate::control::TrustSource;
use crate::control::answers::AnswerTopics;
use crate::wire::challenge::{ChallengeCodec, ChallengeCodecError};

use answer::{Approver, is_signed_by};
use shown::Shown;

/// Show what waits for a person, and answer it: list, show, approve, refuse
///
/// Reads the `challenges` topics of the configured routes. Ends with 2 where a challenge is not there, or can no longer
/// be answered.
#[derive(Debug, Args)]
pub struct Challenge {
    #[command(flatten)]
    gate: GateArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List challenges, oldest first: open ones, unless a status is named
    List {
        /// Only those of this status; may be given many times; `all` is every one
        #[arg(long, value_parser = statuses, default_value = "open")]
        status: Vec<Statuses>,
        /// Only those of this route; may be given many times
        #[arg(long, value_name = "NAME")]
        route: Vec<String>,
    },
    /// Show everything that a person needs to judge
    Show {
        /// The challenge's id
        id: String,
    },
    /// Approve, once the challenge was shown and confirmed
    Approve(Box<Answering>),
    /// Refuse, once the challenge was shown and confirmed
    Refuse(Box<Answering>),
}

#[derive(Debug, Clone)]
struct Statuses(Vec<Status>);

#[derive(Debug, Args)]
struct Answering {
    /// The challenge's id
    id: String,
    /// The private key that signs the answer: one of the issuer's
    #[arg(long, value_name = "FILE")]
    signing_key: PathBuf,
    /// The issuer, as `[approvers."<issuer>"]` names it
    #[arg(long)]
    issuer: String,
    /// The approver
    #[arg(long)]
    subject: String,
    /// A word to whoever reads the history
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// How strong the approver's login was (RFC 9470)
    #[arg(long)]
    acr: Option<String>,
    /// How the approver logged in (RFC 8176); may be given many times
    #[arg(long)]
    amr: Vec<String>,
    /// When the approver logged in, in seconds since 1970
    #[arg(long, value_name = "SECONDS")]
    auth_time: Option<i64>,
    /// How long the answer is good, in seconds [default: the longest life of a grant that is asked for]
    #[arg(long, value_name = "SECONDS")]
    life: Option<u32>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Wait until the gate has taken the answer, and show what came of it
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u32,
}

/// Why a `challenge` command failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ChallengeError {
    /// The cluster is not known.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cluster(#[from] ClusterError),
    /// No route holds.
    #[error("no route of the configuration holds records")]
    #[diagnostic(help("a route with `challenges = \"<topic>\"` does"))]
    NoRoute,
    /// The text is no challenge's id.
    #[error("`{0}` is no id of a challenge")]
    #[diagnostic(help(
        "an id is `<topic>:<partition>:<uuid>`, over HTTP `http:<desk>:<partition>:<uuid>`; `countersign challenge list` shows them"
    ))]
    Id(String),
    /// Nobody of this configuration would read an answer.
    #[error("nothing of the configuration reads answers to the challenge `{0}`")]
    #[diagnostic(help("what is asked over HTTP is answered where `[access] answers` names a topic"))]
    Nowhere(String),
    /// The keys of the configuration have mistakes.
    #[error("the trust of the configuration cannot be used")]
    Trust(Problems),
    /// The configuration does not have that issuer.
    #[error("the configuration has no approvers of the issuer `{0}`")]
    #[diagnostic(help("write `[approvers.\"<issuer>\"]` with `keys` and `type`"))]
    Issuer(String),
    /// No gate would take an answer signed so.
    #[error("the key is none of the issuer `{0}`, so that no gate would count the answer")]
    #[diagnostic(help("`keys` of `[approvers.\"<issuer>\"]` holds the public halves of those that are"))]
    Key(String),
    /// A file could not be used.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// Nobody is there to be asked.
    #[error("nobody is there to confirm the answer")]
    #[diagnostic(help("look at it with `countersign challenge show`, and give `--yes`"))]
    Unconfirmed,
    /// The topic could not be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Topic(#[from] TopicError),
    /// The schema does not parse: a broken build.
    #[error(transparent)]
    Codec(#[from] ChallengeCodecError),
    /// The key cannot sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No random bytes for an id.
    #[error(transparent)]
    Random(#[from] GenerateError),
    /// The answer was written, and nothing has come of it in time.
    #[error("the answer `{jti}` stands at {at}, and the challenge has not changed within {seconds} s")]
    #[diagnostic(help(
        "does a gate run? an answer that does not count changes nothing: its audit record says why"
    ))]
    Silence {
        /// The answer's id.
        jti: String,
        /// Where it stands.
        at: Coordinates,
        /// How long was waited.
        seconds: u32,
    },
    /// The machine's clock shows no usable time.
    #[error("the clock of this machine shows no usable time")]
    Clock,
    /// The output could not be written, or the confirmation not be read.
    #[error("cannot read or write: {0}")]
    Io(#[from] io::Error),
}

impl Challenge {
    /// Runs the command: 2 where a challenge is not there, or can no longer be answered.
    ///
    /// # Errors
    /// What could not be read or written.
    pub fn run(&self, out: &mut Output) -> Result<Exit, ChallengeError> {
        let (config, client) = self.gate.resolve()?;
        let mut desk = Desk { config: &config, client: &client, codec: ChallengeCodec::new()?, out };
        match &self.command {
            Command::List { status, route } => {
                let is_status = |asked: &Asked| status.iter().any(|some| some.0.contains(&asked.status));
                desk.list(|asked| is_status(asked) && (route.is_empty() || route.contains(&asked.route)))
            }
            Command::Show { id } => desk.show(id),
            Command::Approve(answering) => desk.answer(answering, "approve"),
            Command::Refuse(answering) => desk.answer(answering, "refuse"),
        }
    }
}

/// What the commands work with.
struct Desk<'d> {
    config: &'d Config,
    client: &'d ClientConfig,
    codec: ChallengeCodec,
    out: &'d mut Output,
}

impl Desk<'_> {
    fn list(&mut self, wanted: impl Fn(&Asked) -> bool) -> Result<Exit, ChallengeError> {
        let mut all = Vec::new();
        for topic in self.topics()? {
            let view = TopicClient::new(self.client, topic).read(|_| true)?;
            all.extend(view.values().map(|(record, value)| self.shown(record, value)));
        }
        let unreadable = all.iter().any(|shown| matches!(shown, Shown::Unreadable { .. }));
        all.retain(|shown| match shown {
            Shown::Challenge(asked, _) => wanted(asked),
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

    fn show(&mut self, id: &str) -> Result<Exit, ChallengeError> {
        let Some((shown, _)) = self.find(id)? else { return self.no(&unknown(id)) };
        shown.write(self.out, true)?;
        Ok(if matches!(shown, Shown::Challenge(..)) { Exit::Done } else { Exit::No })
    }

    fn answer(&mut self, answering: &Answering, decision: &'static str) -> Result<Exit, ChallengeError> {
        let id = ChallengeId::parse(&answering.id).ok_or_else(|| ChallengeError::Id(answering.id.clone()))?;
        let (asked, at) = match self.find(&answering.id)? {
            None => return self.no(&unknown(&answering.id)),
            Some((Shown::Challenge(asked, at), _)) => (asked, at),
            Some((shown @ Shown::Unreadable { .. }, _)) => {
                shown.write(self.out, true)?;
                return Ok(Exit::No);
            }
        };
        let now = clock::now().ok_or(ChallengeError::Clock)?;
        if let Some(why) = too_late(&asked, now) {
            return self.no(&why);
        }
        let (jti, token) = self.sign(answering, &asked, decision, now)?;
        if !answering.yes && !confirmed(&asked, decision)? {
            return self.no("not confirmed: nothing was sent");
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
        self.say(decision, &answering.id, &jti, &written)?;
        if answering.wait { self.wait(answering, &jti, &at, written) } else { Ok(Exit::Done) }
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
        let approvers = trust.others().approvers.get(&answering.issuer);
        let approvers = approvers.ok_or_else(|| ChallengeError::Issuer(answering.issuer.clone()))?;
        let key = files::private_key(&answering.signing_key)?;
        let approver = Approver {
            issuer: answering.issuer.clone(),
            subject: answering.subject.clone(),
            acr: answering.acr.clone(),
            amr: answering.amr.clone(),
            auth_time: answering.auth_time,
            comment: answering.comment.clone(),
            life_s: answering.life,
        };
        let jti = issue::random_id()?;
        let token = approver.sign(asked, decision, &jti, &key, now)?;
        if !is_signed_by(&approvers.issuer, &token, &key) {
            return Err(ChallengeError::Key(answering.issuer.clone()));
        }
        Ok((jti, token))
    }

    /// Follows the challenge until the answer was counted, and to its end if that comes in time.
    fn wait(
        &mut self,
        answering: &Answering,
        jti: &str,
        at: &Coordinates,
        written: Coordinates,
    ) -> Result<Exit, ChallengeError> {
        let until = Instant::now() + Duration::from_secs(answering.timeout.into());
        let topic = TopicClient::new(self.client, &at.topic);
        let (mut after, mut last) = (at.offset, None);
        while Instant::now() < until {
            for record in topic.read_between(at.partition, Some(after), Offset(i64::MAX))? {
                after = record.source.offset;
                if record.key.as_deref() == Some(answering.id.as_bytes())
                    && let Some(value) = record.value.as_deref()
                    && let Shown::Challenge(asked, at) = self.shown(&record, value)
                {
                    last = Some((asked, at));
                }
            }
            if let Some((asked, at)) = &last {
                let counted = asked.answers.iter().any(|answer| answer.jti == jti);
                // Over HTTP it stays approved until whoever wanted it asks again.
                let goes_on = asked.status == Status::Approved && !asked.topic.is_empty();
                let waits = goes_on || (asked.status.is_open() && !counted);
                if !waits {
                    Shown::Challenge(asked.clone(), at.clone()).write(self.out, true)?;
                    return Ok(if counted { Exit::Done } else { Exit::No });
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(ChallengeError::Silence { jti: jti.to_owned(), at: written, seconds: answering.timeout })
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
            Ok(asked) if asked.id == id => Shown::Challenge(Box::new(asked), at),
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

    fn say(&mut self, decision: &str, id: &str, jti: &str, at: &Coordinates) -> io::Result<()> {
        match self.out.format() {
            Format::Json => {
                let said =
                    json!({"challenge": id, "decision": decision, "answer": jti, "at": at.to_string()});
                self.out.json_line(&said)
            }
            Format::Human => writeln!(self.out.data(), "{decision}  {}  answer {jti}  {at}", plain(id)),
        }
    }

    fn no(&mut self, why: &str) -> Result<Exit, ChallengeError> {
        match self.out.format() {
            Format::Json => self.out.json_line(&json!({ "refused": why }))?,
            Format::Human => writeln!(self.out.data(), "{}", plain(why))?,
        }
        Ok(Exit::No)
    }
}

fn unknown(id: &str) -> String {
    format!("there is no challenge `{id}`")
}

/// Why an answer could change nothing any more.
fn too_late(asked: &Asked, now: UnixMillis) -> Option<String> {
    if !asked.status.is_open() {
        return Some(format!("the challenge is no longer open: {}", asked.status));
    }
    (now.0 > asked.hold_until).then(|| "the hold has ended: the answer would be late".to_owned())
}

/// Shows the challenge and asks, where a person is there to be asked.
fn confirmed(asked: &Asked, decision: &str) -> Result<bool, ChallengeError> {
    let mut talk = io::stderr();
    talk.write_all(shown::text(asked).as_bytes())?;
    if !io::stdin().is_terminal() {
        return Err(ChallengeError::Unconfirmed);
    }
    write!(talk, "{decision} this? [y/N] ")?;
    talk.flush()?;
    let mut said = String::new();
    io::stdin().lock().read_line(&mut said)?;
    Ok(matches!(said.trim(), "y" | "Y" | "yes"))
}

fn statuses(text: &str) -> Result<Statuses, String> {
    if text == "all" {
        return Ok(Statuses(Status::ALL.to_vec()));
    }
    let status = Status::try_from(text.to_owned());
    status.map(|status| Statuses(vec![status])).map_err(|_| {
        let all = Status::ALL.map(Status::as_str);
        format!("must be `all` or one of {}", all.join(", "))
    })
}
