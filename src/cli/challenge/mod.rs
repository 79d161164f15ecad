//! `challenge`: what waits for a person, and answers to it. With `--url` it asks a gate's interface for approvers, by a
//! login; without, it reads the topics of the configured routes itself and signs with a key, as in development. Limits: it
//! shows and sends; whether an answer counts is judged by the lane or the desk that reads it, and stands in the audit record.

mod answer;
mod http;
mod login;
mod shown;
mod topics;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::acknowledge::TIMEOUT;
use super::cluster::{ClusterError, GateArgs};
use super::files::{self, FileError};
use super::issue::GenerateError;
use super::output::plain;
use super::topic::TopicError;
use super::{Exit, Format, Output, clock};
use crate::authorize::ids::UnixMillis;
use crate::authorize::jose::SignError;
use crate::authorize::step_up::{Challenge as Asked, ChallengeId, Status};
use crate::config::Problems;
use crate::wire::challenge::ChallengeCodecError;

use http::{Client, InterfaceError};
use login::Desk;
use topics::Records;

/// Show what waits for a person, and answer it: list, show, approve, refuse
///
/// With `--url` and `--bearer-file` it asks a gate, as the approver who has logged in. Without, it reads the topics of the
/// configured routes and signs answers with a key. Ends with 2 where a challenge is not there, or cannot be answered.
#[derive(Debug, Args)]
pub struct Challenge {
    #[command(flatten)]
    gate: GateArgs,
    #[command(flatten)]
    interface: Interface,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Interface {
    /// The interface for approvers of a gate, such as `https://approvals.example.com`; no broker is asked then
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// The approver's access token; `-` is standard input
    #[arg(long, global = true, value_name = "FILE")]
    bearer_file: Option<PathBuf>,
    /// Let the token go over plain HTTP to another machine
    #[arg(long, global = true)]
    insecure_http: bool,
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
        #[command(flatten)]
        wait: Wait,
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
    #[command(flatten)]
    signing: Signing,
    /// A word to whoever reads the history
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    wait: Wait,
}

/// By whom and how an answer is signed, without `--url`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Without `--url`")]
struct Signing {
    /// The private key that signs the answer: one of the issuer's
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// The issuer, as `[approvers."<issuer>"]` names it
    #[arg(long)]
    issuer: Option<String>,
    /// The approver
    #[arg(long)]
    subject: Option<String>,
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
}

impl Signing {
    /// Whether anything of it was said.
    fn is_given(&self) -> bool {
        let Self { signing_key, issuer, subject, acr, amr, auth_time, life } = self;
        let texts = [issuer, subject, acr].into_iter().any(Option::is_some);
        texts || signing_key.is_some() || !amr.is_empty() || auth_time.is_some() || life.is_some()
    }
}

#[derive(Debug, Clone, Copy, Args)]
struct Wait {
    /// Wait until an open challenge has changed; after an answer, until it was judged, and show what came of it
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", value_parser = clock::span, default_value = TIMEOUT, requires = "wait")]
    timeout: Duration,
}

impl Wait {
    /// Until when somebody waits.
    fn until(self) -> Option<Instant> {
        self.wait.then(|| Instant::now() + self.timeout)
    }
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
    /// A login without a gate, or a gate without a login.
    #[error("`--url` and `--bearer-file` belong together")]
    #[diagnostic(help("a gate takes answers of those alone who have logged in"))]
    Half,
    /// A key where a gate signs.
    #[error("an answer through a gate is signed by the gate, in the name of whoever has logged in")]
    #[diagnostic(help("leave `--signing-key`, `--issuer`, `--subject` and what they say of a login out"))]
    SignedTwice,
    /// Nobody signs.
    #[error("nobody signs the answer")]
    #[diagnostic(help(
        "give `--url` and `--bearer-file`; or, with a key of a configured issuer, `--signing-key`, `--issuer` and `--subject`"
    ))]
    NoSigner,
    /// The gate cannot be asked, or says no.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Interface(#[from] InterfaceError),
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
    #[error("the answer `{jti}` stands at {at}, and the challenge has not changed in time")]
    #[diagnostic(help(
        "does a gate run? an answer that does not count changes nothing: its audit record says why"
    ))]
    Silence {
        /// The answer's id.
        jti: String,
        /// Where it stands.
        at: String,
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
        match (&self.interface.url, &self.interface.bearer_file) {
            (Some(url), Some(file)) => {
                let token = files::token(file)?;
                let client = Client::new(url, &token, self.interface.insecure_http)?;
                self.by_login(Desk { client, out })
            }
            (None, None) => {
                let (config, client) = self.gate.resolve()?;
                self.by_key(Records::new(&config, &client, out)?)
            }
            _ => Err(ChallengeError::Half),
        }
    }

    fn by_login(&self, mut desk: Desk<'_>) -> Result<Exit, ChallengeError> {
        match &self.command {
            Command::List { status, route } => desk.list(&Wanted::new(status, route)),
            Command::Show { id, wait } => desk.show(&parsed(id)?, wait.until()),
            Command::Approve(answering) => desk.answer(answering, "approve"),
            Command::Refuse(answering) => desk.answer(answering, "refuse"),
        }
    }

    fn by_key(&self, mut records: Records<'_>) -> Result<Exit, ChallengeError> {
        match &self.command {
            Command::List { status, route } => records.list(&Wanted::new(status, route)),
            Command::Show { id, wait } => records.show(id, wait.until()),
            Command::Approve(answering) => records.answer(answering, "approve"),
            Command::Refuse(answering) => records.answer(answering, "refuse"),
        }
    }
}

/// Which challenges are listed.
struct Wanted<'w> {
    statuses: Vec<Status>,
    routes: &'w [String],
}

impl<'w> Wanted<'w> {
    fn new(statuses: &[Statuses], routes: &'w [String]) -> Self {
        let statuses = statuses.iter().flat_map(|some| some.0.iter().copied()).collect();
        Self { statuses, routes }
    }

    fn is(&self, asked: &Asked) -> bool {
        self.statuses.contains(&asked.status)
            && (self.routes.is_empty() || self.routes.contains(&asked.route))
    }

    /// The only status, if there is one.
    fn status(&self) -> Option<Status> {
        self.statuses.first().copied().filter(|first| self.statuses.iter().all(|other| other == first))
    }

    /// The only route, if there is one.
    fn route(&self) -> Option<&str> {
        self.routes
            .first()
            .filter(|first| self.routes.iter().all(|other| other == *first))
            .map(String::as_str)
    }
}

fn parsed(id: &str) -> Result<ChallengeId, ChallengeError> {
    ChallengeId::parse(id).ok_or_else(|| ChallengeError::Id(id.to_owned()))
}

/// How a challenge stands to an answer of whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// Nothing has come of it yet, or the record is decided next.
    NotYet,
    /// It was counted.
    Counted,
    /// The challenge has ended without it.
    Without,
}

impl Judged {
    fn of(asked: &Asked, jti: &str) -> Self {
        let counted = asked.answers.iter().any(|answer| answer.jti == jti);
        match asked.status {
            // Over HTTP it stays so until whoever was denied asks again.
            Status::Approved if !asked.topic.is_empty() => Self::NotYet,
            // Refused, and the record is denied next.
            Status::Refused if asked.decision_id.is_none() => Self::NotYet,
            _ if counted => Self::Counted,
            status if status.is_open() => Self::NotYet,
            _ => Self::Without,
        }
    }

    /// The exit code; `None` while there is more to wait for.
    fn exit(self) -> Option<Exit> {
        match self {
            Self::NotYet => None,
            Self::Counted => Some(Exit::Done),
            Self::Without => Some(Exit::No),
        }
    }
}

/// Says that an answer was written, and where.
fn say(out: &mut Output, decision: &str, id: &str, jti: &str, at: &str) -> io::Result<()> {
    match out.format() {
        Format::Json => {
            out.json_line(&json!({"challenge": id, "decision": decision, "answer": jti, "at": at}))
        }
        Format::Human => writeln!(out.data(), "{decision}  {}  answer {}  {at}", plain(id), plain(jti)),
    }
}

/// The answer is no: a sentence for a person, and more for a program.
fn no(out: &mut Output, why: &str, more: Value) -> Result<Exit, ChallengeError> {
    match out.format() {
        Format::Json => {
            let mut said = json!({ "refused": why });
            if let (Some(said), Value::Object(more)) = (said.as_object_mut(), more) {
                said.extend(more);
            }
            out.json_line(&said)?;
        }
        Format::Human => writeln!(out.data(), "{}", plain(why))?,
    }
    Ok(Exit::No)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::challenge::tests::full;

    #[test]
    fn an_answer_is_judged_once_it_was_counted_or_the_challenge_has_ended_without_it() {
        let judged = |status: Status, jti: &str| {
            let decision_id = (!status.is_open()).then(|| "d".to_owned());
            let asked = Asked { status, decision_id, ..full() };
            Judged::of(&asked, jti)
        };
        let counted = full().answers[0].jti.clone();
        assert_eq!(judged(Status::Open, &counted), Judged::Counted, "others have to answer too");
        assert_eq!(judged(Status::Open, "another"), Judged::NotYet);
        assert_eq!(judged(Status::Approved, &counted), Judged::NotYet, "the record is decided next");
        let refused = Asked { status: Status::Refused, decision_id: None, ..full() };
        assert_eq!(Judged::of(&refused, &counted), Judged::NotYet, "it is denied next");
        for status in [Status::Released, Status::Refused, Status::Denied, Status::Expired, Status::Replaced] {
            assert_eq!(judged(status, &counted), Judged::Counted);
            assert_eq!(judged(status, "another"), Judged::Without);
        }
    }
}
