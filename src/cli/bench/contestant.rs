//! What is measured: copies and gates, each as processes of its own that are started the same way. Limits: which records
//! a contestant gets and what it may not lose is said here; how it is measured is `turn`'s.

use std::ffi::OsString;
use std::fs;

use clap::ValueEnum;
use serde::Serialize;

use super::child::Child;
use super::copy::{CopySettings, Guarantee};
use super::ground::Ground;
use super::records::Proof;
use super::site::{Rules, Site, Topics};
use super::{BenchError, Options};

/// The default of `batch.linger`.
const LINGER_MS: u64 = 5;

/// One of those who are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Contestant {
    /// A bare copy, at least once
    CopyAtLeastOnce,
    /// A bare copy in transactions
    Copy,
    /// The same, by two producers in turn
    CopyInTurn,
    /// A bare copy in transactions, with an audit record for each record
    CopyAudit,
    /// The same of records that carry full proof
    CopyProven,
    /// A gate whose only policy permits everything
    GateBare,
    /// A gate with policies, and senders that prove nothing
    GateUnproven,
    /// A gate with policies, and a proof on each record
    GateProven,
    /// The same, with a Txn-Token for each record
    GateTransactions,
}

impl Contestant {
    /// All of them, in the order in which they are measured.
    pub(super) const ALL: [Self; 9] = [
        Self::CopyAtLeastOnce,
        Self::Copy,
        Self::CopyInTurn,
        Self::CopyAudit,
        Self::CopyProven,
        Self::GateBare,
        Self::GateUnproven,
        Self::GateProven,
        Self::GateTransactions,
    ];

    /// Its row in the table.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::CopyAtLeastOnce => "copy, at least once",
            Self::Copy => "copy, exactly once",
            Self::CopyInTurn => "  two producers in turn",
            Self::CopyAudit => "  with an audit record",
            Self::CopyProven => "  of records with proof",
            Self::GateBare => "gate, one policy",
            Self::GateUnproven => "gate, unproven senders",
            Self::GateProven => "gate, full proofs",
            Self::GateTransactions => "  a Txn-Token a record",
        }
    }

    /// Its name in topics, files and JSON.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What its records carry.
    pub(super) fn proof(self) -> Proof {
        match self {
            Self::CopyProven | Self::GateProven => Proof::OneTransaction,
            Self::GateTransactions => Proof::OwnTransaction,
            _ => Proof::None,
        }
    }

    /// Whether each record leaves an audit record.
    pub(super) fn audits(self) -> bool {
        matches!(self.work(), Work::Gate(_) | Work::Copy { audit: true, .. })
    }

    fn work(self) -> Work {
        let copy = |guarantee, audit| Work::Copy { guarantee, audit };
        match self {
            Self::CopyAtLeastOnce => copy(Guarantee::AtLeastOnce, false),
            Self::Copy | Self::CopyProven => copy(Guarantee::ExactlyOnce, false),
            Self::CopyInTurn => copy(Guarantee::ExactlyOnceInTurn, false),
            Self::CopyAudit => copy(Guarantee::ExactlyOnce, true),
            Self::GateBare => Work::Gate(Rules::Nothing),
            Self::GateUnproven => Work::Gate(Rules::Unproven),
            Self::GateProven | Self::GateTransactions => Work::Gate(Rules::Proven),
        }
    }
}

/// What its processes do.
enum Work {
    Copy { guarantee: Guarantee, audit: bool },
    Gate(Rules),
}

/// A contestant in one turn: its topics, and how its processes are started.
pub(super) struct Entry {
    name: String,
    pub(super) topics: Topics,
    program: Vec<OsString>,
    site: std::path::PathBuf,
    started: usize,
}

impl Entry {
    /// Makes its topics and the file that says what its processes do.
    pub(super) fn new(
        contestant: Contestant,
        turn: &str,
        ground: &Ground,
        site: &Site,
        options: &Options,
    ) -> Result<Self, BenchError> {
        let topic = |kind: &str| ground.name(turn, kind);
        let topics = Topics {
            from: topic("commands"),
            to: topic("authorized"),
            denied: topic("denied"),
            audit: topic("audit"),
            replay: topic("replay"),
        };
        ground.make(&[
            (&topics.from, &[("message.timestamp.type", "LogAppendTime")]),
            (&topics.to, &[]),
            (&topics.denied, &[]),
            (&topics.audit, &[]),
        ])?;
        let mut program = vec![std::env::current_exe()?.into_os_string()];
        match contestant.work() {
            Work::Gate(rules) => {
                let path = site.write(
                    turn,
                    options.detour.as_deref().unwrap_or(ground.bootstrap()),
                    rules,
                    &topics,
                    options,
                )?;
                program.extend(["run", "--config"].map(OsString::from));
                program.push(path.into());
            }
            Work::Copy { guarantee, audit } => {
                let settings = CopySettings {
                    bootstrap: ground.bootstrap().to_owned(),
                    group: topics.from.clone(),
                    from: topics.from.clone(),
                    to: topics.to.clone(),
                    audit: audit.then(|| topics.audit.clone()),
                    batch: options.batch,
                    linger_ms: LINGER_MS,
                    lanes: options.lanes(),
                    guarantee,
                };
                let path = site.path().join(format!("{turn}.json"));
                fs::write(&path, serde_json::to_vec(&settings)?)?;
                program.extend(["bench", "copy"].map(OsString::from));
                program.push(path.into());
            }
        }
        Ok(Self { name: turn.to_owned(), topics, program, site: site.path().to_owned(), started: 0 })
    }

    /// Starts a process; with `instance` one that comes back to its own partitions.
    pub(super) fn start(&mut self, instance: Option<&str>) -> Result<Child, BenchError> {
        self.started += 1;
        let log = self.site.join(format!("{}-{}.log", self.name, self.started));
        let variables: Vec<(&str, &str)> =
            instance.map(|instance| ("COUNTERSIGN_GATE_INSTANCE", instance)).into_iter().collect();
        Ok(Child::start(&self.program, &variables, None, &log)?)
    }

    /// The group that its processes are members of.
    pub(super) fn group(&self) -> &str {
        &self.topics.from
    }

    /// Takes its topics away.
    pub(super) fn clear(&self, ground: &Ground) {
        let Topics { from, to, denied, audit, replay } = &self.topics;
        ground.delete(&[from, to, denied, audit, replay]);
    }
}
