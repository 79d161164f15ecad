//! Lanes that hold, on the log in memory, with a decider that does nothing else: each held record ends exactly once and as
//! its answers say, each answer is audited exactly once, whatever fails and whoever takes over.

mod holder;

use self::holder::{Holder, text};
use super::*;
use crate::authorize::ids::Offset;
use crate::stream::assignment::Stage;
use crate::stream::clock::Clock as _;
use crate::stream::lane::HoldTopics;

const SKEW: Duration = Duration::from_millis(300);

/// A world whose route holds, and what was sent into it.
struct Office {
    world: World,
    stale: Rc<Cell<bool>>,
    sent: usize,
    dice: Faults,
}

impl Office {
    fn new(seed: u64) -> Self {
        let world = World::new();
        for name in ["from.holds", "from.answers"] {
            world.cluster.create(&topic(name), 2);
        }
        world.cluster.create(&topic("challenges"), 2);
        Self { world, stale: Rc::default(), sent: 0, dice: Faults::seeded(seed, 0) }
    }

    fn lane(&self, member: usize, faults: Faults) -> Lane<MemoryLog, Holder, ManualClock> {
        let mut settings = self.world.settings(member);
        let source = settings.sources.get_mut(&topic("from")).unwrap();
        source.holding =
            Some(HoldTopics { holds: topic("from.holds"), answers: topic("from.answers"), skew: SKEW });
        settings.targets.push(topic("challenges"));
        settings.batch = 8;
        let log = MemoryLog::new(&self.world.cluster, &self.world.clock, member, faults);
        let holder = Holder { now: UnixMillis(0), stale: self.stale.clone() };
        let mut lane =
            Lane::new(log, holder, self.world.clock.clone(), settings, self.world.telemetry.clone());
        while let Err(error) = lane.join() {
            lane.recover(error).unwrap();
        }
        lane
    }

    /// Sends a record; two of three are held, for one or two approvals.
    fn send(&mut self) {
        let n = self.sent;
        let value = match self.dice.draw(3) {
            0 => format!("plain {n}"),
            needs => format!("hold {n} {needs}"),
        };
        self.world.cluster.produce(&part("from", (n % 2) as i32), value.as_bytes());
        self.sent += 1;
    }

    /// Somebody answers something, by a broker's clock that is behind as far as it may be, or ahead.
    fn answer(&mut self) {
        if self.sent == 0 {
            return;
        }
        let n = self.dice.draw(self.sent as u64);
        let yes = if self.dice.draw(4) == 0 { "no" } else { "yes" };
        let skew = if self.dice.draw(2) == 0 { -300 } else { 200 };
        let at = UnixMillis(self.world.clock.now().0 + skew);
        self.world.cluster.answer(&part("from.answers", (n % 2) as i32), &(n / 2).to_string(), yes, at);
    }

    /// So many rounds, with records, answers and compaction in between.
    fn work(
        &mut self,
        lane: &mut Lane<MemoryLog, Holder, ManualClock>,
        rounds: usize,
    ) -> Result<(), LaneError> {
        for _ in 0..rounds {
            match self.dice.draw(12) {
                0 | 1 if self.sent < 60 => self.send(),
                2..5 => self.answer(),
                5 => self.world.cluster.compact(&topic("from.holds")),
                _ => {}
            }
            lane.round()?;
        }
        Ok(())
    }

    /// Lets everything come to its end and holds it against what was answered.
    fn settle(&mut self, lane: &mut Lane<MemoryLog, Holder, ManualClock>) {
        lane.log.faults = Faults::none();
        let mut last = 0;
        for round in 0..6_000 {
            lane.round().unwrap();
            let busy = lane.owned.len() < 2
                || lane.owned.values().any(|owned| owned.stage != Stage::Ready || owned.state.held() > 0);
            if busy {
                last = round;
            }
            if round > last + 60 {
                break;
            }
        }
        for (of, owned) in &lane.owned {
            assert_eq!((&owned.stage, owned.state.held()), (&Stage::Ready, 0), "{of}");
        }
        for partition in 0..2 {
            self.expect_ended(partition);
        }
    }

    /// How many records of a partition are held, by what is committed.
    fn committed(&self, partition: i32) -> u64 {
        let mut held = BTreeMap::new();
        for record in self.world.cluster.read(&part("from.holds", partition)) {
            let key = record.key.unwrap();
            if key.ends_with(b"/state") {
                held.insert(key, record.value.is_some());
            }
        }
        held.into_values().filter(|held| *held).count() as u64
    }

    /// How many are shown as held there, by lane.
    fn shown(&self, partition: i32) -> Vec<(usize, u64)> {
        let lanes = self.world.telemetry.status().lanes.into_iter();
        let of = part("from", partition).pair();
        lanes.filter_map(|lane| Some((lane.lane, lane.partitions.get(&of)?.held?.records))).collect()
    }

    fn expect_ended(&self, partition: i32) {
        let read = |name| self.world.cluster.read(&part(name, partition));
        let audit: Vec<(String, String)> = read("audit")
            .iter()
            .map(|record| (String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap(), text(record)))
            .collect();
        let leaves: Vec<_> = read("audit").iter().map(|r| r.headers[0].value.clone().unwrap()).collect();
        let numbers: Vec<_> = (0..leaves.len()).map(|n| Bytes::from(n.to_string())).collect();
        assert_eq!(leaves, numbers, "the leaves of partition {partition}");
        let audited = |key: String| -> &str {
            let mut found = audit.iter().filter(|(known, _)| *known == key);
            let (_, value) = found.next().unwrap_or_else(|| panic!("`{key}` is not audited"));
            assert!(found.next().is_none(), "`{key}` is audited twice");
            value
        };
        let mut ended: BTreeMap<String, String> = BTreeMap::new();
        for record in ["to", "denied"].into_iter().flat_map(read) {
            let how = String::from_utf8(record.key.clone().unwrap().to_vec()).unwrap();
            assert!(ended.insert(text(&record), how).is_none(), "`{}` ended twice", text(&record));
        }
        let answers = read("from.answers");
        for answer in &answers {
            audited(format!("answer {}", answer.source.offset));
        }
        let records = read("from");
        assert_eq!(ended.len(), records.len());
        for record in &records {
            let (value, source) = (text(record), record.source.offset);
            let decided = audited(format!("record {source}"));
            let expected = if value.starts_with("hold") {
                self.expected(&value, UnixMillis(decided.parse().unwrap()), source, &answers)
            } else {
                "copied"
            };
            assert_eq!(ended[&value], expected, "{value} of partition {partition}");
        }
    }

    /// What becomes of a held record by its answers alone, in their order. An answer may come before the record is held:
    /// then it is one to nothing.
    fn expected(&self, value: &str, end: UnixMillis, source: Offset, answers: &[Record]) -> &'static str {
        let mut needs = i64::from(value.as_bytes()[value.len() - 1] - b'0');
        let key = source.to_string();
        let audit =
            self.world.cluster.read(&part("audit", answers.first().map_or(0, |a| a.source.partition.0)));
        for answer in answers.iter().filter(|answer| answer.key.as_deref() == Some(key.as_bytes())) {
            let place =
                |of: String| audit.iter().position(|r| r.key.as_deref() == Some(of.as_bytes())).unwrap();
            let came_early =
                place(format!("answer {}", answer.source.offset)) < place(format!("record {source}"));
            if came_early || answer.timestamp.unwrap() > end {
                continue;
            }
            if text(answer) == "no" {
                return "refused";
            }
            needs -= 1;
            if needs == 0 {
                return "released";
            }
        }
        "timed_out"
    }
}

#[test]
fn every_held_record_ends_once_and_as_answered_whatever_fails() {
    let mut ends = BTreeSet::new();
    for seed in 0..300 {
        let mut office = Office::new(seed);
        let mut lane = office.lane(1, Faults::seeded(seed, 40));
        office.world.cluster.assign(1, &office.world.sources());
        office.work(&mut lane, 400).unwrap();
        office.settle(&mut lane);
        let denied = (0..2).flat_map(|p| office.world.cluster.read(&part("denied", p)));
        let to = (0..2).flat_map(|p| office.world.cluster.read(&part("to", p)));
        ends.extend(denied.chain(to).map(|record| record.key.unwrap()));
    }
    let all = ["copied", "refused", "released", "timed_out"].map(Bytes::from);
    assert_eq!(ends, BTreeSet::from(all), "the plan has every end");
}

#[test]
fn whoever_takes_over_goes_on_exactly_wherever_the_other_stopped() {
    for seed in 0..300 {
        let mut office = Office::new(seed);
        let mut heir = 1;
        let mut lane = office.lane(heir, Faults::seeded(seed, 20));
        office.world.cluster.assign(heir, &office.world.sources());
        for death in 0..4u32 {
            lane.log.dies_after = Some(u32::try_from(office.dice.draw(900)).unwrap());
            let ended = office.work(&mut lane, 400);
            lane.log.dies_after = None;
            heir += 1;
            let mut next = office.lane(heir, Faults::seeded(seed + u64::from(death), 20));
            office.world.cluster.kill(heir - 1, heir);
            if ended.is_ok() {
                // A zombie goes on as long as it can, beside its successor.
                for _ in 0..3 {
                    office.work(&mut next, 4).unwrap();
                    if let Err(error) = lane.decide_batch() {
                        let _ = lane.recover(error);
                    }
                }
            }
            lane = next;
        }
        office.settle(&mut lane);
    }
}

#[test]
fn a_partition_given_up_in_order_takes_its_holds_along() {
    for seed in 0..100 {
        let mut office = Office::new(seed);
        let mut first = office.lane(1, Faults::seeded(seed, 20));
        let mut second = office.lane(2, Faults::seeded(seed + 1, 20));
        office.world.cluster.assign(1, &office.world.sources());
        for turn in 0..6 {
            let (to, of) = if turn % 2 == 0 { (2, part("from", 1)) } else { (1, part("from", 1)) };
            for _ in 0..40 {
                office.work(&mut first, 1).unwrap();
                office.work(&mut second, 1).unwrap();
            }
            office.world.cluster.assign(to, &[of]);
        }
        for _ in 0..100 {
            office.work(&mut first, 1).unwrap();
            office.work(&mut second, 1).unwrap();
        }
        (first.log.faults, second.log.faults) = (Faults::none(), Faults::none());
        let whole = if first.owned.len() == 2 { (&mut first, 2, 1) } else { (&mut second, 1, 2) };
        office.world.cluster.kill(whole.1, whole.2);
        office.settle(whole.0);
    }
}

#[test]
fn what_is_shown_as_held_is_what_is_committed_and_moves_with_its_partition() {
    let mut most = 0;
    for seed in 0..40 {
        let mut office = Office::new(seed);
        let mut lanes = [1, 2].map(|member| office.lane(member, Faults::seeded(seed + member as u64, 20)));
        office.world.cluster.assign(1, &office.world.sources());
        for turn in 0..400 {
            if turn % 100 == 50 {
                office.world.cluster.assign(2 - (turn / 100) % 2, &[part("from", 1)]);
            }
            for (index, lane) in lanes.iter_mut().enumerate() {
                office.work(lane, 1).unwrap();
                for partition in 0..2 {
                    let shown = office.shown(partition);
                    let mine = shown.iter().find(|(number, _)| *number == index + 1);
                    match lane.owned.get(&part("from", partition)) {
                        None => assert_eq!(mine, None, "it was given up"),
                        Some(owned) if owned.is_ready() => {
                            let held = office.committed(partition);
                            most = held.max(most);
                            assert_eq!(shown, [(index + 1, held)], "seed {seed}, turn {turn}");
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }
    assert!(most > 2, "nothing was held");
}

/// One held record on partition 0, and a lane that holds it.
fn one_held() -> (Office, Lane<MemoryLog, Holder, ManualClock>) {
    let mut office = Office::new(1);
    office.world.cluster.produce(&part("from", 0), b"hold 0 1");
    office.sent = 1;
    let mut lane = office.lane(1, Faults::none());
    office.world.cluster.assign(1, &office.world.sources());
    for _ in 0..20 {
        lane.round().unwrap();
    }
    assert_eq!(lane.owned[&part("from", 0)].state.held(), 1);
    (office, lane)
}

#[test]
fn a_stale_view_holds_the_lane_still_and_it_goes_on_by_itself() {
    let (mut office, mut lane) = one_held();
    office.stale.set(true);
    for _ in 0..20 {
        office.send();
        office.answer();
        lane.round().unwrap();
    }
    let (state, reason) = office.world.state(1);
    assert_eq!((state, reason.as_str()), (LaneState::Paused, "the view of `revocations` is too old"));
    assert_eq!(lane.owned[&part("from", 0)].position, Some(Position(1)), "nothing was decided");
    office.stale.set(false);
    office.settle(&mut lane);
    assert_eq!(office.world.state(1).0, LaneState::Running);
}

#[test]
fn a_lost_payload_stops_its_partition_alone_and_loudly() {
    let (office, mut lane) = one_held();
    let holds = part("from.holds", 0);
    let payload = office
        .world
        .cluster
        .read(&holds)
        .into_iter()
        .find(|record| record.value.as_deref() == Some(b"hold 0 1"));
    office.world.cluster.destroy(&holds, payload.unwrap().source.offset.0);
    let now = office.world.clock.now();
    office.world.cluster.answer(&part("from.answers", 0), "0", "yes", now);
    office.world.cluster.produce(&part("from", 1), b"plain");
    for _ in 0..2_000 {
        lane.round().unwrap();
    }
    let (state, reason) = office.world.state(1);
    assert_eq!(state, LaneState::Paused);
    assert!(reason.contains("the payload of a held record is gone"), "{reason}");
    assert_eq!(office.world.cluster.read(&part("to", 1)).len(), 1, "the other partition goes on");
    assert_eq!(
        office.world.cluster.read(&part("audit", 0)).len(),
        1,
        "the answer was not decided without it"
    );
    // A successor finds that fewer records are held than were left.
    let mut second = office.lane(2, Faults::none());
    office.world.cluster.kill(1, 2);
    office.world.cluster.destroy(&holds, payload_state(&office));
    for _ in 0..100 {
        second.round().unwrap();
    }
    let (_, reason) = office.world.state(2);
    assert!(reason.contains("1 records were held and 0 were read back"), "{reason}");
}

fn payload_state(office: &Office) -> i64 {
    let records = office.world.cluster.read(&part("from.holds", 0));
    records.iter().find(|record| record.key.as_deref() == Some(b"0/state")).unwrap().source.offset.0
}

#[test]
fn a_record_that_the_holds_will_not_take_is_denied() {
    let office = Office::new(1);
    office.world.cluster.refuse(&topic("from.holds"), b"hold 0 1", false);
    office.world.cluster.refuse(&topic("challenges"), b"open", false);
    office.world.cluster.produce(&part("from", 0), b"hold 0 1");
    office.world.cluster.produce(&part("from", 1), b"hold 1 1");
    let mut lane = office.lane(1, Faults::none());
    office.world.cluster.assign(1, &office.world.sources());
    for _ in 0..40 {
        lane.round().unwrap();
    }
    for partition in 0..2 {
        let denied = office.world.cluster.read(&part("denied", partition));
        assert_eq!(denied.len(), 1, "partition {partition}");
        assert_eq!(denied[0].key.as_deref(), Some(&b"undeliverable"[..]));
    }
}

#[test]
fn an_answer_that_cannot_be_written_down_stops_its_partition() {
    let (office, mut lane) = one_held();
    office.world.cluster.refuse(&topic("audit"), b"counted", false);
    let now = office.world.clock.now();
    office.world.cluster.answer(&part("from.answers", 0), "0", "yes", now);
    for _ in 0..60 {
        lane.round().unwrap();
    }
    let (_, reason) = office.world.state(1);
    assert!(reason.contains("the audit record of from.answers/0/0 is refused"), "{reason}");
}

#[test]
fn a_source_that_grew_waits_for_its_other_topics() {
    let office = Office::new(1);
    office.world.cluster.create(&topic("from"), 3);
    office.world.cluster.produce(&part("from", 2), b"plain");
    for name in ["to", "denied", "audit", "replay"] {
        office.world.cluster.create(&topic(name), 3);
    }
    let mut lane = office.lane(1, Faults::none());
    office.world.cluster.assign(1, &[part("from", 0), part("from", 2)]);
    for _ in 0..100 {
        lane.round().unwrap();
    }
    let (state, reason) = office.world.state(1);
    assert_eq!(state, LaneState::Paused);
    assert!(reason.starts_with("topic `from.holds` has no partition 2 for from/2"), "{reason}");
    assert!(lane.owned[&part("from", 0)].is_ready(), "the other partition goes on");
    office.world.cluster.create(&topic("from.holds"), 3);
    office.world.cluster.create(&topic("from.answers"), 3);
    for _ in 0..300 {
        lane.round().unwrap();
    }
    assert_eq!(office.world.cluster.read(&part("to", 2)).len(), 1);
    assert_eq!(office.world.state(1).0, LaneState::Running);
}

#[test]
fn a_route_that_no_longer_holds_does_not_leave_held_records_behind() {
    let (office, _lane) = one_held();
    let mut second = office.world.lane(2, Faults::none());
    office.world.cluster.kill(1, 2);
    rounds(&mut second, 20).unwrap();
    let (_, reason) = office.world.state(2);
    assert!(reason.contains("records of it are held and its route does not hold any more"), "{reason}");
}
