//! A storm: faults of every kind by chance, one after the other and some at once, over a mixed load, a route that holds and is
//! answered, control topics that are followed, and signals that are told. About a dozen, or as many as `COUNTERSIGN_TEST_FAULTS` says;
//! `COUNTERSIGN_TEST_SEED` repeats the chances. What came out is held against what went in after each round. Limits: at most one of three brokers is out at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use countersign::authorize::standing::Status;

use super::gates::expect_replaced;
use super::{faults, pause};
use crate::gate::{
    Dice, Followed, GateProcess, Load, Site, alone, signal_key, signal_keys, tell_signals, wait_for,
};
use crate::step_up::{HOLDING, History, Office, Stop, Traffic};
use crate::support::kafka::{Cluster, Led, cluster};

/// The short form: every kind once, and the rest by chance.
const FAULTS: usize = 12;
/// So many faults, then everything is read and checked: a failure shows early, and nothing grows without bound.
const ROUND: usize = 40;
/// Records every 50 ms, beside those that are held.
const EACH: usize = 3;
/// Two gates that come back to their partitions.
const NAMES: [&str; 2] = ["one", "two"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// A gate is killed and started again.
    KillGate,
    /// A gate is asked to end, and started again.
    EndGate,
    /// A gate stands still, for a while or until others have its work.
    StopGate,
    /// A gate comes and goes, or comes and dies.
    Visit,
    /// A gate of the same name is started.
    Namesake,
    /// The broker in charge of something is killed and started again.
    KillBroker,
    /// The broker in charge of something stands still.
    StopBroker,
    /// The disk of the broker in charge of something is full.
    FullDisk,
    /// The brokers let gates write little.
    Quota,
}

/// By how many of a hundred.
const CHANCES: &[(Fault, u64)] = &[
    (Fault::KillGate, 44),
    (Fault::EndGate, 8),
    (Fault::StopGate, 6),
    (Fault::Visit, 8),
    (Fault::Namesake, 6),
    (Fault::KillBroker, 14),
    (Fault::StopBroker, 8),
    (Fault::FullDisk, 3),
    (Fault::Quota, 3),
];

fn by_chance(dice: &mut Dice) -> Fault {
    let mut left = dice.below(CHANCES.iter().map(|(_, chance)| chance).sum());
    for (fault, chance) in CHANCES {
        match left.checked_sub(*chance) {
            Some(less) => left = less,
            None => return *fault,
        }
    }
    Fault::KillGate
}

/// What will happen: every kind once, in any order, then by chance.
fn plan(dice: &mut Dice, count: usize) -> Vec<Fault> {
    let mut kinds: Vec<Fault> = CHANCES.iter().map(|(fault, _)| *fault).collect();
    let mut planned = Vec::new();
    while planned.len() < count {
        if kinds.is_empty() {
            planned.push(by_chance(dice));
        } else {
            let at = usize::try_from(dice.below(kinds.len() as u64)).expect("a place");
            planned.push(kinds.remove(at));
        }
    }
    planned
}

/// One round.
struct Storm<'a> {
    site: &'a Site,
    followed: &'a Followed<'a>,
    signals: &'a str,
    cluster: &'a mut Cluster,
    dice: Dice,
    gates: Vec<GateProcess>,
    killed: u32,
    /// Kills that left a transaction open.
    within: u32,
}

impl Storm<'_> {
    fn which(&mut self) -> usize {
        usize::try_from(self.dice.below(2)).expect("one of two")
    }

    fn replace(&mut self, which: usize, by: GateProcess) -> GateProcess {
        std::mem::replace(&mut self.gates[which], by)
    }

    /// With all brokers there it can be seen whether a transaction was left open.
    fn kill_gate(&mut self, is_whole: bool) {
        let which = self.which();
        let gate = self.gates.remove(which);
        gate.kill();
        self.killed += 1;
        self.within += u32::from(is_whole && !self.site.broker.is_settled(&self.site.audit));
        self.gates.insert(which, self.site.start(Some(NAMES[which])));
    }

    /// The broker that is in charge of something.
    fn in_charge(&mut self) -> i32 {
        let partition = i32::try_from(self.dice.below(4)).expect("a partition");
        let writer = format!("{}.{}-0-a", self.site.group, NAMES[self.which()]);
        let own = |what: &str| format!("{}.{what}", self.site.commands);
        let (holds, answers) = (own("holds"), own("answers"));
        let entities = self.followed.entities.as_deref().unwrap_or_default();
        let of = match self.dice.below(12) {
            0 => Led::Partition(&self.site.commands, partition),
            1 => Led::Partition(&self.site.to, partition),
            2 => Led::Partition(&self.site.audit, partition),
            3 => Led::Partition(&holds, partition),
            4 => Led::Partition(&answers, partition),
            5 => Led::Partition(&self.followed.revocations, 0),
            6 => Led::Partition(&self.followed.fleet, 0),
            7 => Led::Partition(&self.followed.workflows, partition % 2),
            8 => Led::Partition(entities, 0),
            9 => Led::Partition(self.signals, 0),
            10 => Led::Group(&self.site.group),
            _ => Led::Transactions(&writer),
        };
        self.cluster.leader(of)
    }

    /// With one broker out, and sometimes a gate lost too.
    fn meanwhile(&mut self, least_ms: u64, more_ms: u64) {
        pause(&mut self.dice, least_ms, more_ms);
        if self.dice.below(3) == 0 {
            self.kill_gate(false);
        }
    }

    fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::KillGate => {
                // One of four dies while it still starts and restores; the others in the middle of their work.
                if self.dice.below(4) != 0 {
                    let which = self.which();
                    self.gates[which].wait_ready();
                }
                pause(&mut self.dice, 50, 700);
                self.kill_gate(true);
            }
            Fault::EndGate => {
                let which = self.which();
                self.gates[which].wait_ready();
                let gate = self.gates.remove(which);
                gate.terminate();
                self.gates.insert(which, self.site.start(Some(NAMES[which])));
            }
            Fault::StopGate => {
                let which = self.which();
                self.gates[which].wait_ready();
                self.gates[which].pause();
                pause(&mut self.dice, 1_000, 12_000);
                self.gates[which].resume();
            }
            Fault::Visit => {
                let mut visitor = self.site.start_ready(None);
                pause(&mut self.dice, 200, 1_000);
                if self.dice.below(2) == 0 {
                    visitor.kill();
                    self.killed += 1;
                } else {
                    visitor.wait_ready();
                    visitor.terminate();
                }
            }
            Fault::Namesake => {
                let which = self.which();
                self.gates[which].wait_ready();
                let newer = self.site.start(Some(NAMES[which]));
                let older = self.replace(which, newer);
                expect_replaced(self.site, older);
            }
            Fault::KillBroker => {
                let id = self.in_charge();
                self.cluster.node(id).kill();
                self.meanwhile(0, 8_000);
                self.cluster.node(id).restart();
                self.cluster.wait_whole();
            }
            Fault::StopBroker => {
                let id = self.in_charge();
                self.cluster.node(id).pause();
                self.meanwhile(1_000, 8_000);
                self.cluster.node(id).resume();
                self.cluster.wait_whole();
            }
            Fault::FullDisk => {
                let id = self.in_charge();
                self.cluster.node(id).limit_files(48 * 1024);
                self.cluster.node(id).wait_ended();
                self.meanwhile(0, 2_000);
                self.cluster.node(id).restart();
                self.cluster.wait_whole();
            }
            Fault::Quota => {
                self.cluster.limit_writes(Some(20_000.0));
                self.meanwhile(2_000, 6_000);
                self.cluster.limit_writes(None);
            }
        }
    }
}

/// What became of a round.
#[derive(Debug, Default)]
struct Told {
    records: usize,
    killed: u32,
    within: u32,
    kinds: BTreeMap<Fault, usize>,
}

fn round(cluster: &mut Cluster, mut dice: Dice, faults: &[Fault], told: &mut Told) {
    let office = Office::on(cluster.broker, HOLDING);
    let site = &office.site;
    let followed = Followed::new(site, "10s", true);
    let signals = tell_signals(site);
    // The gates make the topics of held records, and the fleet's.
    site.start_ready(Some(NAMES[0])).terminate();
    let mut fleet = followed.fleet();
    let stop = AtomicBool::new(false);
    let load = Load::start(site, dice.another(), EACH);
    let traffic = Traffic::new(&office, dice.another());
    let mut facts = Vec::new();
    let (ledger, gates) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic.run(&stop, || load.halt()));
        let asked = Stop(&stop);
        let gates = NAMES.iter().map(|name| site.start(Some(name))).collect();
        let (followed, signals) = (&followed, signals.as_str());
        let mut storm = Storm { site, followed, signals, cluster, dice, gates, killed: 0, within: 0 };
        for (number, fault) in faults.iter().enumerate() {
            let began = Instant::now();
            // Of nobody here: every gate has to take it in, and work has to be told, whatever happens.
            facts.push(followed.revoke("transaction", &format!("nobody-{number}")));
            facts.push(followed.workflow(&format!("nothing-{number}"), Status::Cancelled));
            storm.strike(*fault);
            *told.kinds.entry(*fault).or_default() += 1;
            println!("storm: {fault:?} {:?}", began.elapsed());
        }
        for gate in &mut storm.gates {
            gate.wait_ready();
        }
        // The last workflow and the last revocation. That each was taken in, the signals show.
        for at in facts.iter().rev().take(2) {
            followed.wait_acknowledged(&mut fleet, at);
        }
        let is_told = |told: BTreeSet<Vec<u8>>| facts.iter().all(|fact| told.contains(&signal_key(fact)));
        wait_for("every fact to be told", || {
            is_told(signal_keys(site, signals).into_iter().collect()).then_some(())
        });
        told.killed += storm.killed;
        told.within += storm.within;
        drop(asked);
        (traffic.join().expect("the traffic did not fail"), storm.gates)
    });
    for gate in gates {
        gate.terminate();
    }
    ledger.settle(site);
    History::of(&office).check();
    told.records += ledger.len();
    office.forget();
    followed.forget();
    site.broker.delete_topic(&signals);
}

#[test]
fn whatever_breaks_by_chance_every_record_has_its_one_outcome() {
    let _alone = alone();
    let Some(mut cluster) = cluster("whatever breaks by chance, every record has its one outcome") else {
        return;
    };
    let (mut dice, began) = (Dice::new("faults::storm"), Instant::now());
    let count = faults().unwrap_or(FAULTS);
    let planned = plan(&mut dice, count);
    let mut told = Told::default();
    for some in planned.chunks(ROUND) {
        round(&mut cluster, dice.another(), some, &mut told);
        let so_far: usize = told.kinds.values().sum();
        println!("storm: {so_far} faults of {count} after {:?}: {told:?}", began.elapsed());
    }
    assert_eq!(told.kinds.values().sum::<usize>(), count);
    assert!(told.records > 0 && told.killed > 0);
}
