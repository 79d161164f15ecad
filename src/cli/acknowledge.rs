//! Waiting until no gate decides without what a command has written: who is missing is told while it lasts, and how it
//! came out at the end. Limits: gates are known by what they announce on the `fleet` topic; where none is there, nothing is
//! waited for and nothing is acknowledged.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;
use rdkafka::config::ClientConfig;
use serde_json::{Value, json};

use super::issue::{self, GenerateError};
use super::output::plain;
use super::{Exit, Format, Output, clock};
use crate::authorize::ids::{Coordinates, Topic};
use crate::config::{Config, KafkaProperties};
use crate::control::fleet::{Fleet, FleetError, GateProgress, GateState, Progress};

/// How long is waited where nobody says it: longer than a gate that has died may be silent before it counts as done.
pub const TIMEOUT: &str = "30s";
/// How often whoever waits is told of a change.
const LOOK: Duration = Duration::from_millis(500);

/// Whether a command waits for the gates, and how long.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// Wait until every gate has taken it in, so that nothing is decided without it any more
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", value_parser = clock::span, default_value = TIMEOUT, requires = "wait")]
    timeout: Duration,
}

/// Why it is not known whether the gates have taken it in. What was written stands all the same.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum AcknowledgeError {
    /// The configuration names no fleet.
    #[error("the configuration names no topic on which gates say what they have taken in")]
    #[diagnostic(help("write `fleet = \"countersign.fleet\"` into `[control]`, for every gate"))]
    NoFleet,
    /// The fleet cannot be asked.
    #[error("what was written stands, and it is not known which gates have taken it in: {0}")]
    Fleet(FleetError),
    /// No random bytes for a client's name.
    #[error(transparent)]
    Random(#[from] GenerateError),
    /// The output could not be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Wait {
    /// The wait that is asked for; `None` where nobody waits. To be asked before anything is written.
    ///
    /// # Errors
    /// [`AcknowledgeError::NoFleet`].
    pub fn resolve(
        self,
        config: &Config,
        client: &ClientConfig,
    ) -> Result<Option<Waiting>, AcknowledgeError> {
        self.wait.then(|| Waiting::new(config, client, self.timeout)).transpose()
    }
}

/// A wait that can begin.
#[derive(Debug)]
pub struct Waiting {
    properties: KafkaProperties,
    fleet: Topic,
    timeout: Duration,
}

impl Waiting {
    /// A wait for the gates of that configuration.
    ///
    /// # Errors
    /// [`AcknowledgeError::NoFleet`].
    pub fn new(config: &Config, client: &ClientConfig, timeout: Duration) -> Result<Self, AcknowledgeError> {
        let fleet = config.settings.control.fleet.clone().ok_or(AcknowledgeError::NoFleet)?;
        let mut properties = KafkaProperties::default();
        for (name, value) in client.config_map() {
            properties.set(name, value);
        }
        Ok(Self { properties, fleet, timeout })
    }

    /// Waits until every gate has taken in the records at `facts`, which the brokers have, and writes how that came out:
    /// done where all have, [`Exit::Unacknowledged`] where time is over or no gate is there.
    ///
    /// # Errors
    /// [`AcknowledgeError`].
    pub fn run(&self, facts: &[Coordinates], out: &mut Output) -> Result<Exit, AcknowledgeError> {
        // Whoever reads along learns what was written before the wait begins.
        out.data().flush()?;
        let began = Instant::now();
        let mut fleet = Fleet::open(&self.properties, self.fleet.clone(), &issue::random_id()?)
            .map_err(AcknowledgeError::Fleet)?;
        let mut last = Progress::default();
        let mut verdict = Verdict::NoGate;
        // One after the other: what was taken in stays taken in.
        for fact in facts {
            (verdict, last) = self.wait_for(&mut fleet, fact, began, out)?;
            if verdict != Verdict::Acknowledged {
                break;
            }
        }
        Told { verdict, took: began.elapsed(), gates: &last.gates, fleet: &self.fleet }.write(out)?;
        Ok(if verdict == Verdict::Acknowledged { Exit::Done } else { Exit::Unacknowledged })
    }

    fn wait_for(
        &self,
        fleet: &mut Fleet,
        fact: &Coordinates,
        began: Instant,
        out: &Output,
    ) -> Result<(Verdict, Progress), AcknowledgeError> {
        let mut told = None;
        loop {
            let left = self.timeout.saturating_sub(began.elapsed());
            let progress = match fleet.progress(fact, left.min(LOOK)) {
                // A broker that is away may come back in time.
                Err(error @ FleetError::Topic(_)) if !left.is_zero() => {
                    let (sentence, problem) = (format!("waiting: {error}"), error.to_string());
                    tell(&mut told, sentence, &json!({"waiting_for": [], "problem": problem}), out);
                    continue;
                }
                progress => progress.map_err(AcknowledgeError::Fleet)?,
            };
            let verdict = Verdict::of(&progress);
            if verdict != Verdict::TimedOut || left.is_zero() {
                return Ok((verdict, progress));
            }
            let missing = Missing::of(&progress);
            tell(&mut told, missing.sentence(), &missing.json(), out);
        }
    }
}

/// Says a sentence once, until another one was said.
fn tell(told: &mut Option<String>, sentence: String, value: &Value, out: &Output) {
    if told.as_ref() != Some(&sentence) {
        out.say(&sentence, value);
        *told = Some(sentence);
    }
}

/// How a wait stands, and came out if it ends now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// No gate decides without it any more.
    Acknowledged,
    /// Nobody is there who decides: none has announced itself, or all have fallen silent.
    NoGate,
    /// Somebody may decide without it.
    TimedOut,
}

impl Verdict {
    fn of(progress: &Progress) -> Self {
        let has_taken_in = |gate: &GateProgress| gate.state == GateState::TakenIn;
        match progress.is_acknowledged() {
            true if progress.gates.iter().any(has_taken_in) => Self::Acknowledged,
            true => Self::NoGate,
            false => Self::TimedOut,
        }
    }
}

/// Who is waited for.
struct Missing {
    is_known: bool,
    gates: Vec<GateProgress>,
    of: usize,
}

impl Missing {
    fn of(progress: &Progress) -> Self {
        let is_missing = |gate: &&GateProgress| !is_done(gate);
        let gates: Vec<GateProgress> = progress.gates.iter().filter(is_missing).cloned().collect();
        Self { is_known: progress.is_known, gates, of: progress.gates.len() }
    }

    fn sentence(&self) -> String {
        if !self.is_known {
            return "waiting: the fleet has not been read to its end yet".to_owned();
        }
        let gates: Vec<String> = self.gates.iter().map(line).collect();
        format!("waiting for {} of {} gates: {}", gates.len(), self.of, gates.join("; "))
    }

    fn json(&self) -> Value {
        let gates: Vec<Value> = self.gates.iter().map(object).collect();
        json!({"waiting_for": gates, "of": self.of, "fleet_is_read": self.is_known})
    }
}

fn is_done(gate: &GateProgress) -> bool {
    matches!(gate.state, GateState::TakenIn | GateState::Silent)
}

/// The end of a wait.
struct Told<'t> {
    verdict: Verdict,
    took: Duration,
    gates: &'t [GateProgress],
    fleet: &'t Topic,
}

impl Told<'_> {
    fn write(&self, out: &mut Output) -> io::Result<()> {
        match out.format() {
            Format::Json => out.json_line(&self.json()),
            Format::Human => writeln!(out.data(), "{}", self.text()),
        }
    }

    fn json(&self) -> Value {
        let wait = match self.verdict {
            Verdict::Acknowledged => "acknowledged",
            Verdict::NoGate => "no_gate",
            Verdict::TimedOut => "timed_out",
        };
        let gates: Vec<Value> = self.gates.iter().map(object).collect();
        json!({"wait": wait, "after_ms": self.took.as_millis(), "gates": gates})
    }

    fn text(&self) -> String {
        let silent = self.gates.iter().filter(|gate| gate.state == GateState::Silent).count();
        let took = self.took.as_millis();
        match self.verdict {
            Verdict::Acknowledged => {
                let fallen = if silent == 0 { String::new() } else { format!(", {silent} fallen silent") };
                format!("acknowledged  after {took} ms  {} gates{fallen}", self.gates.len() - silent)
            }
            Verdict::NoGate => {
                let fallen =
                    if silent == 0 { String::new() } else { format!(" any more ({silent} fell silent)") };
                format!(
                    "NO GATE  nobody announces itself on `{}`{fallen}: nothing was waited for; a gate that starts takes \
                     it in before it decides",
                    self.fleet
                )
            }
            Verdict::TimedOut => {
                let mut text = format!("NOT ACKNOWLEDGED  after {took} ms");
                if self.gates.is_empty() {
                    text.push_str("  the fleet was not read to its end");
                }
                for gate in self.gates.iter().filter(|gate| !is_done(gate)) {
                    text.push_str(&format!("\n  {}", line(gate)));
                }
                text
            }
        }
    }
}

/// A gate, for a person.
fn line(gate: &GateProgress) -> String {
    let state = match gate.state {
        GateState::TakenIn => "has taken it in",
        GateState::Behind => "is behind",
        GateState::Silent => "has fallen silent",
        GateState::Refused => "has refused it",
        GateState::NotFollowing => "does not follow the topic",
    };
    format!("{} ({}) {state}", plain(&gate.gate), plain(&gate.instance))
}

/// A gate, for a program.
fn object(gate: &GateProgress) -> Value {
    let state = match gate.state {
        GateState::TakenIn => "taken_in",
        GateState::Behind => "behind",
        GateState::Silent => "silent",
        GateState::Refused => "refused",
        GateState::NotFollowing => "not_following",
    };
    json!({"gate": gate.gate, "instance": gate.instance, "state": state})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(is_known: bool, states: &[GateState]) -> Progress {
        let gate = |(n, state): (usize, &GateState)| GateProgress {
            gate: "spiffe://d/gate".to_owned(),
            instance: format!("gate-{n}"),
            state: *state,
        };
        Progress { is_known, gates: states.iter().enumerate().map(gate).collect() }
    }

    #[test]
    fn a_fact_is_acknowledged_by_a_gate_that_is_there_and_never_by_nobody() {
        use GateState::{Behind, NotFollowing, Refused, Silent, TakenIn};
        let of = |states: &[GateState]| Verdict::of(&progress(true, states));
        assert_eq!(of(&[TakenIn, Silent]), Verdict::Acknowledged);
        assert_eq!(of(&[]), Verdict::NoGate);
        assert_eq!(of(&[Silent, Silent]), Verdict::NoGate, "whoever fell silent has acknowledged nothing");
        for missing in [Behind, Refused, NotFollowing] {
            assert_eq!(of(&[TakenIn, missing]), Verdict::TimedOut);
        }
        assert_eq!(Verdict::of(&progress(false, &[TakenIn])), Verdict::TimedOut, "others may be unseen");
    }

    #[test]
    fn whoever_waits_is_told_which_gates_are_missing_and_why() {
        let waiting =
            Missing::of(&progress(true, &[GateState::TakenIn, GateState::Refused, GateState::Behind]));
        assert_eq!(
            waiting.sentence(),
            "waiting for 2 of 3 gates: spiffe://d/gate (gate-1) has refused it; spiffe://d/gate (gate-2) is behind"
        );
        assert_eq!(
            (&waiting.json()["waiting_for"][1]["state"], &waiting.json()["of"]),
            (&json!("behind"), &json!(3))
        );
        let fleet = Topic::parse("c.fleet").unwrap();
        let told = |verdict, gates: &Progress| {
            let took = Duration::from_millis(1234);
            let told = Told { verdict, took, gates: &gates.gates, fleet: &fleet };
            (told.text(), told.json()["wait"].as_str().unwrap().to_owned())
        };
        let (text, json) = told(Verdict::NoGate, &progress(true, &[]));
        assert!(text.contains("NO GATE  nobody announces itself on `c.fleet`"), "{text}");
        assert_eq!(json, "no_gate");
        let (text, json) = told(Verdict::TimedOut, &progress(true, &[GateState::TakenIn, GateState::Behind]));
        assert_eq!(text, "NOT ACKNOWLEDGED  after 1234 ms\n  spiffe://d/gate (gate-1) is behind");
        assert_eq!(json, "timed_out");
        let (text, json) =
            told(Verdict::Acknowledged, &progress(true, &[GateState::TakenIn, GateState::Silent]));
        assert_eq!(text, "acknowledged  after 1234 ms  1 gates, 1 fallen silent");
        assert_eq!(json, "acknowledged");
    }
}
