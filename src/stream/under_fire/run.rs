//! One seed: two gates of one group on one cluster, records and answers that come while they work, and everything that can
//! go wrong meanwhile; then calm, until all has ended. Limits: chance alone decides what happens; whether it was right is
//! the checker's word.

mod coming;
mod shown;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::people::{self, Answered, Sent, Token};
use super::world::{
    ANSWERS, Common, Failures, GateClock, GateDecider, HOLDS, PARTITIONS, SOURCE, cluster, knowing, part,
    route, settings, topic,
};
use crate::authorize::ids::Position;
use crate::authorize::route::Order;
use crate::authorize::step_up::Challenge;
use crate::config::BreakerSettings;
use crate::stream::clock::Clock as _;
use crate::stream::deciding::Snapshots;
use crate::stream::lane::Lane;
use crate::stream::memory::{Aim, Cluster, Faults, FaultyLog, MemoryLog, Plan, Trace};

/// A lane of a gate.
pub(super) type GateLane = Lane<FaultyLog, GateDecider, GateClock>;

/// How a run is set; a seed says most of it.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) seed: u64,
    pub(super) order: Order,
    pub(super) breaker: Option<BreakerSettings>,
    /// How many calls in a thousand fail, at the most; each lane draws its own share.
    pub(super) per_mille: u64,
    /// Before how many calls in a thousand the others go on.
    pub(super) between: u64,
    /// Whether the broker does not say which of the records it has refused.
    pub(super) silently: bool,
    pub(super) failures: Option<Failures>,
    /// Whether records come that bring grants.
    pub(super) grants: bool,
    /// Where every call is written down, if anywhere.
    pub(super) trace: Trace,
    /// Whether gates die, and are given up on.
    pub(super) deaths: bool,
    /// What fails once in each gate.
    pub(super) aim: Option<Aim>,
}

impl Settings {
    /// What that seed says.
    pub(super) fn of(seed: u64) -> Self {
        let breaker =
            BreakerSettings { run: Some(5), share: None, retry: Some(Duration::from_secs(30)), probe: 2 };
        let per_mille = [0, 10, 25, 60][usize::try_from(seed / 2 % 4).unwrap()];
        Self {
            seed,
            deaths: per_mille > 0,
            aim: None,
            order: if seed.is_multiple_of(2) { Order::Key } else { Order::None },
            breaker: (seed % 5 == 3).then_some(breaker),
            per_mille,
            between: [0, 15, 40][usize::try_from(seed % 3).unwrap()],
            silently: seed.is_multiple_of(7),
            failures: None,
            grants: true,
            trace: Trace::default(),
        }
    }
}

/// A place for a gate: one gate after another has it.
struct Slot {
    member: usize,
    lane: Option<GateLane>,
    snapshots: Snapshots,
    known: usize,
}

/// The cluster, its gates and the chance that moves them.
pub(super) struct Site {
    pub(super) cluster: Cluster,
    pub(super) clock: GateClock,
    common: Rc<Common>,
    settings: Settings,
    slots: Vec<RefCell<Slot>>,
    dice: RefCell<Faults>,
    members: Cell<usize>,
    /// How often what was aimed at was hit.
    pub(super) hit: Rc<Cell<usize>>,
    sent: RefCell<Vec<Vec<Sent>>>,
    answers: RefCell<Vec<Vec<Answered>>>,
    tokens: RefCell<Vec<Token>>,
    /// The challenges that were told, and where the next look at them begins.
    challenges: RefCell<(Vec<Challenge>, usize)>,
}

pub(super) const STEPS: usize = 120;

impl Site {
    pub(super) fn new(settings: Settings, common: Rc<Common>) -> Rc<Self> {
        people::pool();
        let slot = || {
            let snapshots = knowing(&common.snapshots[0]);
            RefCell::new(Slot { member: 0, lane: None, snapshots, known: 0 })
        };
        let partitions = usize::try_from(PARTITIONS).unwrap();
        Rc::new(Self {
            cluster: cluster(settings.silently),
            clock: GateClock::default(),
            slots: vec![slot(), slot()],
            dice: RefCell::new(Faults::seeded(settings.seed + 1, 0)),
            members: Cell::new(0),
            hit: Rc::default(),
            sent: RefCell::new(vec![Vec::new(); partitions]),
            answers: RefCell::new(vec![Vec::new(); partitions]),
            tokens: RefCell::default(),
            challenges: RefCell::default(),
            common,
            settings,
        })
    }

    fn draw(&self, below: u64) -> u64 {
        self.dice.borrow_mut().draw(below)
    }

    fn index(&self, below: usize) -> usize {
        usize::try_from(self.draw(below as u64)).unwrap()
    }

    /// Before a call of one gate the other may go on.
    fn go_on_between(&self) {
        if self.settings.between == 0 || self.draw(1000) >= self.settings.between {
            return;
        }
        for slot in &self.slots {
            if let Ok(mut slot) = slot.try_borrow_mut() {
                slot.round();
            }
        }
    }

    /// Starts a gate where none is, with what the one before has left.
    fn start(self: &Rc<Self>, slot: &mut Slot, first: bool) {
        self.members.set(self.members.get() + 1);
        let (before, member) = (slot.member, self.members.get());
        slot.member = member;
        if !first {
            self.cluster.bury(before, member);
        }
        let per_mille = if self.settings.per_mille == 0 { 0 } else { self.draw(self.settings.per_mille + 1) };
        let mut dice = Faults::seeded(self.settings.seed.wrapping_mul(1_000_003) + member as u64, 0);
        dice.draw(2);
        let skipped = self.draw(4);
        // Some calls are made once a run, and some where a later one tells more.
        let skipped = if skipped < 2 { 0 } else { skipped * 5 };
        let aim = self.settings.aim.map(|aim| aim.after(skipped));
        let plan = Plan { dice, per_mille, dies_after: None, dies_at: None, aim, hit: self.hit.clone() };
        let weak: Weak<Self> = Rc::downgrade(self);
        let between = Rc::new(move || {
            if let Some(site) = weak.upgrade() {
                site.go_on_between();
            }
        });
        let log = MemoryLog::new(&self.cluster, &self.clock.0, member, Faults::none());
        let log = FaultyLog::new(log, member, plan, between, self.settings.trace.clone());
        let route = Arc::new(route(self.settings.order));
        let failures = self.settings.failures.clone();
        let decider = GateDecider::new(&self.common, route, slot.snapshots.clone(), member, failures);
        let settings = settings(member, self.settings.breaker);
        let mut lane = Lane::new(log, decider, self.clock.clone(), settings, self.common.telemetry.clone());
        while let Err(error) = lane.join() {
            if lane.recover(error).is_err() {
                return;
            }
        }
        slot.lane = Some(lane);
    }

    /// Starts both gates and gives each some partitions.
    pub(super) fn open(self: &Rc<Self>) {
        for slot in &self.slots {
            let mut slot = slot.borrow_mut();
            self.start(&mut slot, true);
        }
        for partition in 0..PARTITIONS {
            let member = self.slots[self.index(2)].borrow().member;
            self.cluster.assign(member, &[part(SOURCE, partition)]);
        }
    }

    /// Starts gates where one has ended.
    fn heal(self: &Rc<Self>) {
        for slot in &self.slots {
            let mut slot = slot.borrow_mut();
            if slot.lane.is_none() {
                self.start(&mut slot, false);
            }
        }
    }

    /// The next thing that happens, and a round of one gate.
    pub(super) fn step(self: &Rc<Self>) {
        let slot = self.index(self.slots.len());
        match self.draw(60) {
            0..10 => self.send_any(),
            10..18 => self.answer(),
            18 if self.settings.grants => self.send_with_grant(),
            19 => {
                let mut slot = self.slots[slot].borrow_mut();
                slot.known = (slot.known + 1).min(2);
                slot.snapshots.store(self.common.snapshots[slot.known].clone());
            }
            20 | 21 => self.clock.sleep(Duration::from_millis(self.draw(200_000))),
            22 | 23 => {
                let (of, to) = (self.index(3), self.slots[slot].borrow().member);
                self.cluster.hand_over(&part(SOURCE, i32::try_from(of).unwrap()), to);
            }
            24 if self.settings.deaths => {
                let (from, to) = (self.slots[slot].borrow().member, self.slots[1 - slot].borrow().member);
                self.cluster.expel(from, to);
            }
            25 if self.settings.deaths => self.slots[slot].borrow_mut().lane = None,
            // With everything sent, and the end not asked for: whoever takes over has to end it.
            31..35 if self.settings.aim.is_some() => {
                if let Some(lane) = &self.slots[slot].borrow().lane {
                    lane.log.plan.borrow_mut().dies_at = Some("commit");
                }
            }
            26..29 if self.settings.deaths => {
                let after = self.draw(60);
                if let Some(lane) = &self.slots[slot].borrow().lane {
                    lane.log.plan.borrow_mut().dies_after = Some(after);
                }
            }
            29 => self.cluster.compact(&topic(HOLDS)),
            30 => self.wait_for_an_end(),
            _ => {}
        }
        if self.draw(6) == 0 {
            self.heal();
        }
        self.slots[slot].borrow_mut().round();
        if self.settings.aim.is_some() {
            self.heal();
        }
    }

    /// Nothing fails any more, and everything comes to its end in these partitions.
    ///
    /// # Errors
    /// What does not end.
    pub(super) fn settle(self: &Rc<Self>, partitions: &[i32]) -> Result<(), String> {
        self.heal();
        for turn in 0..400 {
            for slot in &self.slots {
                let mut slot = slot.borrow_mut();
                if let Some(lane) = &slot.lane {
                    lane.log.calm();
                }
                for _ in 0..3 {
                    slot.round();
                }
            }
            self.heal();
            if self.has_ended(partitions) {
                return Ok(());
            }
            self.clock.sleep(Duration::from_secs(if turn < 4 { 3 } else { 40 }));
        }
        Err("it does not come to its end, although nothing fails any more".to_owned())
    }

    /// Whether every record and every answer was decided, nothing is held, and no transaction is open.
    fn has_ended(&self, partitions: &[i32]) -> bool {
        let is_read = |name: &str, partition: i32| {
            let of = part(name, partition);
            let position = self.cluster.position(&of).map_or(Position(0), |(position, _)| position);
            position.0 == self.cluster.length(&of)
        };
        partitions.iter().all(|partition| is_read(SOURCE, *partition) && is_read(ANSWERS, *partition))
            && !self.cluster.is_unsettled()
            && partitions.iter().all(|partition| {
                let mut held = BTreeMap::new();
                for record in self.cluster.read(&part(HOLDS, *partition)) {
                    let key = record.key.unwrap_or_default();
                    if key.ends_with(b"/state") {
                        held.insert(key, record.value.is_some());
                    }
                }
                held.values().all(|held| !held)
            })
    }
}

impl Slot {
    /// A round of its gate; one that cannot go on has ended.
    fn round(&mut self) {
        if self.lane.as_mut().is_some_and(|lane| lane.round().is_err()) {
            self.lane = None;
        }
    }
}

/// Runs a seed to its end.
pub(super) fn run(settings: Settings, common: Rc<Common>) -> (Rc<Site>, Result<(), String>) {
    let site = Site::new(settings, common);
    site.open();
    for _ in 0..STEPS {
        site.step();
    }
    let settled = site.settle(&[0, 1, 2]);
    (site, settled)
}
