//! One seed: two gates of one group on one cluster, records and answers that come while they work, and everything that can
//! go wrong meanwhile; then calm, until all has ended. Limits: chance alone decides what happens; whether it was right is
//! the checker's word.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::people::{self, Answered, Ask, KEYS, Sent, Token};
use super::seen::Seen;
use super::world::{
    ANSWERS, CHALLENGES, Common, Failures, GateClock, GateDecider, HOLDS, PARTITIONS, SOURCE, cluster,
    knowing, part, route, settings, topic,
};
use crate::authorize::ids::{Position, UnixMillis};
use crate::authorize::record::{Record, TimestampType};
use crate::authorize::route::Order;
use crate::authorize::step_up::Challenge;
use crate::config::BreakerSettings;
use crate::stream::clock::Clock as _;
use crate::stream::deciding::Snapshots;
use crate::stream::lane::Lane;
use crate::stream::memory::{Cluster, Faults, FaultyLog, MemoryLog, Plan, Trace};

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
    pub(super) traced: bool,
}

impl Settings {
    /// What that seed says.
    pub(super) fn of(seed: u64) -> Self {
        let breaker =
            BreakerSettings { run: Some(5), share: None, retry: Some(Duration::from_secs(30)), probe: 2 };
        Self {
            seed,
            order: if seed % 2 == 0 { Order::Key } else { Order::None },
            breaker: (seed % 5 == 3).then_some(breaker),
            per_mille: [0, 10, 25, 60][usize::try_from(seed / 2 % 4).unwrap()],
            between: [0, 15, 40][usize::try_from(seed % 3).unwrap()],
            silently: seed % 7 == 0,
            failures: None,
            grants: true,
            traced: false,
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
    trace: Trace,
    sent: RefCell<Vec<Vec<Sent>>>,
    answers: RefCell<Vec<Vec<Answered>>>,
    tokens: RefCell<Vec<Token>>,
    /// The challenges that were told, and where the next look at them begins.
    challenges: RefCell<(Vec<Challenge>, usize)>,
}

pub(super) const STEPS: usize = 170;
const MOST_RECORDS: usize = 16;
const MOST_ANSWERS: usize = 16;

impl Site {
    pub(super) fn new(settings: Settings, common: Rc<Common>) -> Rc<Self> {
        people::pool();
        let slot = || {
            let snapshots = knowing(&common.snapshots[0]);
            RefCell::new(Slot { member: 0, lane: None, snapshots, known: 0 })
        };
        let trace = settings.traced.then(String::new);
        let partitions = usize::try_from(PARTITIONS).unwrap();
        Rc::new(Self {
            cluster: cluster(settings.silently),
            clock: GateClock::default(),
            slots: vec![slot(), slot()],
            dice: RefCell::new(Faults::seeded(settings.seed + 1, 0)),
            members: Cell::new(0),
            trace: Rc::new(RefCell::new(trace)),
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
        let plan = Plan { dice, per_mille, dies_after: None };
        let weak: Weak<Self> = Rc::downgrade(self);
        let between = Rc::new(move || {
            if let Some(site) = weak.upgrade() {
                site.go_on_between();
            }
        });
        let log = MemoryLog::new(&self.cluster, &self.clock.0, member, Faults::none());
        let log = FaultyLog::new(log, member, plan, between, self.trace.clone());
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

    /// Appends a record to a partition of the source.
    pub(super) fn send(&self, partition: usize, sent: Sent) {
        self.cluster.put(&part(SOURCE, i32::try_from(partition).unwrap()), &sent.record);
        self.sent.borrow_mut()[partition].push(sent);
    }

    fn send_any(&self) {
        let partition = self.index(self.sent.borrow().len());
        let count: usize = self.sent.borrow().iter().map(Vec::len).sum();
        if count >= MOST_RECORDS {
            return;
        }
        let sent = people::pick(|below| self.draw(below)).clone();
        self.send(partition, sent);
    }

    /// Sends a record that brings an approval which somebody gave, for what that was asked about or for something else.
    fn send_with_grant(&self) {
        let tokens = self.tokens.borrow().len();
        if tokens == 0 {
            return;
        }
        let index = self.index(tokens);
        let token = self.tokens.borrow()[index].clone();
        let key = KEYS[self.index(2)];
        let ask = if token.challenge.resource.id == "large" { Ask::Large } else { Ask::Huge };
        let count = self.sent.borrow().iter().flatten().filter(|sent| sent.grant.is_some()).count();
        if count >= 2 {
            return;
        }
        let partition = if self.draw(4) == 0 {
            self.index(self.sent.borrow().len())
        } else {
            usize::try_from(token.challenge.partition).unwrap()
        };
        self.send(partition, people::with_grant(ask, key, format!("granted-{count}"), (index, &token.text)));
    }

    /// The challenges that were told since, as whoever answers sees them.
    fn look_at_challenges(&self) {
        let (known, from) = &mut *self.challenges.borrow_mut();
        let (records, next) = self.cluster.read_on(&part(CHALLENGES, 0), *from);
        *from = next;
        let codec = &self.common.codecs.challenge;
        for challenge in records.iter().map(|record| codec.decode(record.value.as_deref().unwrap()).unwrap())
        {
            if known.iter().all(|other| other.id != challenge.id) {
                known.push(challenge);
            }
        }
    }

    /// Somebody answers: something that was asked, mostly, and mostly yes.
    fn answer(&self) {
        self.look_at_challenges();
        let count: usize = self.answers.borrow().iter().map(Vec::len).sum();
        if count >= MOST_ANSWERS {
            return;
        }
        let known = self.challenges.borrow().0.len();
        let tokens = self.tokens.borrow().len();
        let (partition, index) = match self.draw(12) {
            0 => (self.index(self.answers.borrow().len()), None),
            1 if tokens > 0 => {
                // Once more, and here or elsewhere.
                let index = self.index(tokens);
                let of = usize::try_from(self.tokens.borrow()[index].challenge.partition).unwrap();
                let elsewhere = self.draw(5) == 0;
                (if elsewhere { (of + 1) % self.answers.borrow().len() } else { of }, Some(index))
            }
            _ if known > 0 => {
                let challenge = self.challenges.borrow().0[known - 1 - self.index(known.min(4))].clone();
                let who = ["carol", "dave", "erin", "carol", "dave", "alice", "mallory"][self.index(7)];
                let said = (who, self.draw(5) > 0, self.draw(12) > 0);
                let token = people::say(said, &challenge, format!("g-{tokens}"), self.clock.now());
                self.tokens.borrow_mut().push(token);
                (usize::try_from(challenge.partition).unwrap(), Some(tokens))
            }
            _ => return,
        };
        // The broker's clock is behind the gate's as far as it may be, or ahead.
        let skew = [-30_000, -7_000, 0, 4_000][self.index(4)];
        let taken = UnixMillis(self.clock.now().0 + skew);
        let text =
            index.map_or_else(|| "nothing".to_owned(), |index| self.tokens.borrow()[index].text.clone());
        self.put_answer(partition, Answered { token: index, taken }, text);
    }

    /// Appends an answer.
    fn put_answer(&self, partition: usize, answered: Answered, text: String) {
        let of = part(ANSWERS, i32::try_from(partition).unwrap());
        let record = Record {
            source: people::pool()[0].record.source.clone(),
            timestamp: Some(answered.taken),
            timestamp_type: TimestampType::LogAppendTime,
            key: None,
            value: Some(text.into()),
            headers: Vec::new(),
        };
        self.cluster.put(&of, &record);
        self.answers.borrow_mut()[partition].push(answered);
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
            24 if self.settings.per_mille > 0 => {
                let (from, to) = (self.slots[slot].borrow().member, self.slots[1 - slot].borrow().member);
                self.cluster.expel(from, to);
            }
            25 if self.settings.per_mille > 0 => self.slots[slot].borrow_mut().lane = None,
            26..29 if self.settings.per_mille > 0 => {
                let after = self.draw(60);
                if let Some(lane) = &self.slots[slot].borrow().lane {
                    lane.log.plan.borrow_mut().dies_after = Some(after);
                }
            }
            29 => self.cluster.compact(&topic(HOLDS)),
            _ => {}
        }
        if self.draw(6) == 0 {
            self.heal();
        }
        self.slots[slot].borrow_mut().round();
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
                for _ in 0..4 {
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

    /// What can be seen of it from outside.
    pub(super) fn seen(&self, complete: bool) -> Seen {
        Seen {
            order: self.settings.order,
            sent: self.sent.borrow().clone(),
            answers: self.answers.borrow().clone(),
            tokens: self.tokens.borrow().clone(),
            commits: self.cluster.commits(),
            complete,
            unholdable: None,
        }
    }

    /// Every call and every byte that a reader sees.
    pub(super) fn transcript(&self) -> String {
        use std::fmt::Write as _;
        let mut text = self.trace.borrow().clone().unwrap_or_default();
        for of in self.cluster.partitions() {
            for record in self.cluster.read(&of) {
                writeln!(text, "{of} {record:?}").unwrap();
            }
            writeln!(text, "{of} {:?}", self.cluster.position(&of)).unwrap();
        }
        text
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
