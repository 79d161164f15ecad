//! A decider that does nothing but hold: for so many approvals as a record says, until one refusal, or for a while. Limits: its
//! answers are words.

use std::collections::VecDeque;

use super::super::*;
use crate::authorize::ids::Offset;
use crate::stream::decider::{Due, Stored, Turn};
use crate::wire::outgoing::Kept;

/// How long a record is held.
const LIFE_MS: i64 = 3_000;

/// Holds every record whose value begins with `hold`, until as many approvals as its last digit says, or one refusal.
pub(super) struct Holder {
    pub(super) now: UnixMillis,
    pub(super) stale: Rc<Cell<bool>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Hold {
    payload: Option<Offset>,
    end: UnixMillis,
    needs: i64,
    refused: bool,
    reminded: bool,
}

impl Hold {
    fn write(&self) -> String {
        let Self { end, needs, refused, reminded, .. } = self;
        format!("{},{needs},{},{}", end.0, i64::from(*refused), i64::from(*reminded))
    }

    fn read(text: &str, payload: Option<Offset>) -> Self {
        let numbers: Vec<i64> = text.split(',').map(|number| number.parse().unwrap()).collect();
        let end = UnixMillis(numbers[0]);
        Self { payload, end, needs: numbers[1], refused: numbers[2] == 1, reminded: numbers[3] == 1 }
    }

    fn is_answered(&self) -> bool {
        self.refused || self.needs <= 0
    }
}

#[derive(Default)]
pub(super) struct Waiting {
    holds: BTreeMap<Offset, Hold>,
    payloads: BTreeMap<Offset, Offset>,
    /// All of it as each open batch leaves it, oldest first.
    open: VecDeque<(BTreeMap<Offset, Hold>, Range)>,
    tree: Range,
}

impl Waiting {
    fn holds(&self) -> &BTreeMap<Offset, Hold> {
        self.open.back().map_or(&self.holds, |(holds, _)| holds)
    }
    fn newest(&mut self) -> &mut (BTreeMap<Offset, Hold>, Range) {
        self.open.back_mut().expect("a batch is open")
    }
}

impl Remembered for Waiting {
    fn fresh(_window: Duration) -> Self {
        Self::default()
    }
    fn begin(&mut self) {
        assert!(self.open.len() < 2, "a third open batch");
        let newest = self.open.back().cloned();
        self.open.push_back(newest.unwrap_or_else(|| (self.holds.clone(), self.tree.clone())));
    }
    fn commit(&mut self) {
        (self.holds, self.tree) = self.open.pop_front().unwrap();
        assert!(
            self.holds.values().all(|hold| hold.payload.is_some()),
            "where a payload stands was not told"
        );
    }
    fn abort(&mut self) {
        self.open.clear();
    }
    fn replay_batch(&self) -> Option<ReplayBatch> {
        None
    }
    fn load(&mut self, _value: &[u8]) -> Result<UnixMillis, DecideError> {
        unreachable!("no proofs are remembered")
    }
    fn load_hold(&mut self, record: &Record) -> Result<(), DecideError> {
        let key = std::str::from_utf8(record.key.as_deref().unwrap()).unwrap();
        let (source, part) = key.split_once('/').unwrap();
        let source = Offset(source.parse().unwrap());
        match (part, record.value.as_deref()) {
            ("payload", Some(_)) => drop(self.payloads.insert(source, record.source.offset)),
            ("state", Some(value)) => {
                let payload = self.payloads.get(&source).copied();
                let hold = Hold::read(std::str::from_utf8(value).unwrap(), payload);
                self.holds.insert(source, hold);
            }
            _ => drop(self.holds.remove(&source)),
        }
        Ok(())
    }
    fn stored(&mut self, source: Offset, payload: Offset) {
        for hold in self.open.iter_mut().filter_map(|(holds, _)| holds.get_mut(&source)) {
            hold.payload = Some(payload);
        }
    }
    fn named(&self, answer: &Record) -> Option<Stored> {
        let source = Offset(std::str::from_utf8(answer.key.as_deref()?).unwrap().parse().unwrap());
        Some(Stored { source, payload: self.holds.get(&source)?.payload? })
    }
    fn due(&self, now: UnixMillis, answered: UnixMillis, limit: usize) -> Vec<Due> {
        let turn = |hold: &Hold| match hold {
            _ if hold.is_answered() => Some(Turn::Decide),
            _ if hold.end < answered => Some(Turn::TimedOut),
            _ if !hold.reminded && hold.end.0 - LIFE_MS / 3 <= now.0 => Some(Turn::Remind),
            _ => None,
        };
        let due = self.holds.iter().filter_map(|(source, hold)| {
            Some(Due { source: *source, payload: hold.payload?, turn: turn(hold)? })
        });
        due.take(limit).collect()
    }
    fn next_timer(&self) -> Option<UnixMillis> {
        self.holds.values().map(|hold| hold.end).min()
    }
    fn held(&self) -> usize {
        self.holds().len()
    }
    fn forget(&mut self, _before: UnixMillis) {}
    fn remembered(&self) -> usize {
        0
    }
    fn tree(&self) -> (u64, Vec<Digest>) {
        let tree = self.open.back().map_or(&self.tree, |(_, tree)| tree);
        (tree.size(), tree.peaks().to_vec())
    }
    fn restore_tree(&mut self, size: u64, peaks: Vec<Digest>) -> Result<(), DecideError> {
        self.tree = Range::restore(size, peaks).map_err(|error| DecideError(error.to_string()))?;
        Ok(())
    }
}

fn written(name: &str, partition: Partition, key: String, value: Option<String>) -> Outgoing {
    let (key, value) = (Some(Bytes::from(key)), value.map(Bytes::from));
    Outgoing { topic: topic(name), partition, timestamp: None, key, value, headers: Vec::new() }
}

/// Effects in the making.
struct Made {
    partition: Partition,
    effects: Effects,
}

impl Made {
    fn new(partition: Partition) -> Self {
        let effects = Effects { outcome: None, kept: Vec::new(), told: Vec::new(), audit: None };
        Self { partition, effects }
    }
    fn keep(&mut self, source: Offset, part: &str, value: Option<String>, is_payload: bool) {
        let record = written("from.holds", self.partition, format!("{source}/{part}"), value);
        self.effects.kept.push(Kept { record, payload_of: is_payload.then_some(source) });
    }
    fn tell(&mut self, source: Offset, what: &str) {
        let told = written("challenges", self.partition, source.to_string(), Some(what.into()));
        self.effects.told.push(told);
    }
    fn end(&mut self, to: &str, how: &str, source: Offset, value: &str) {
        self.effects.outcome = Some(written(to, self.partition, how.into(), Some(value.into())));
        self.keep(source, "payload", None, false);
        self.keep(source, "state", None, false);
        self.tell(source, how);
    }
    fn audit(mut self, state: &mut Waiting, key: String, value: &str) -> Effects {
        let (_, tree) = state.newest();
        let leaf = tree.append(key.as_bytes());
        let mut audit = written("audit", self.partition, key, Some(value.into()));
        audit.headers.push(Header::new("leaf", leaf.to_string()));
        self.effects.audit = Some(audit);
        self.effects
    }
}

pub(super) fn text(record: &Record) -> String {
    String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap()
}

impl Decider for Holder {
    type State = Waiting;
    fn is_current(&self) -> Result<(), String> {
        if self.stale.get() { Err("the view of `revocations` is too old".into()) } else { Ok(()) }
    }
    fn open_batch(&mut self, now: UnixMillis) {
        assert!(!self.stale.get(), "decided by a stale view");
        self.now = now;
    }
    fn decide(
        &mut self,
        input: Input<'_>,
        _counts: &dyn PartitionCounts,
        state: &mut Waiting,
    ) -> Result<Effects, DecideError> {
        match input {
            Input::Record(record, delivery) => {
                let (value, source) = (text(record), record.source.offset);
                let mut made = Made::new(record.source.partition);
                let key = format!("record {source}");
                match delivery {
                    Delivery::Open if value.starts_with("hold") => {
                        let end = UnixMillis(self.now.0 + LIFE_MS);
                        let needs = i64::from(value.as_bytes()[value.len() - 1] - b'0');
                        let hold = Hold { payload: None, end, needs, refused: false, reminded: false };
                        made.keep(source, "payload", Some(value), true);
                        made.keep(source, "state", Some(hold.write()), false);
                        made.tell(source, "open");
                        state.newest().0.insert(source, hold);
                        Ok(made.audit(state, key, &end.0.to_string()))
                    }
                    Delivery::Open => {
                        made.effects.outcome =
                            Some(written("to", made.partition, "copied".into(), Some(value)));
                        Ok(made.audit(state, key, "copied"))
                    }
                    Delivery::Undeliverable(_) | Delivery::Bare(_) => {
                        made.effects.outcome =
                            Some(written("denied", made.partition, "undeliverable".into(), Some(value)));
                        Ok(made.audit(state, key, "undeliverable"))
                    }
                }
            }
            Input::Answer(answer, payload) => {
                let source =
                    Offset(std::str::from_utf8(answer.key.as_deref().unwrap()).unwrap().parse().unwrap());
                let mut made = Made::new(answer.source.partition);
                let hold = state.newest().0.get_mut(&source);
                assert_eq!(hold.is_some(), payload.is_some(), "the payload of the held record that it names");
                let effect = match hold {
                    None => "stray",
                    Some(hold) if hold.is_answered() => "second",
                    Some(hold) if answer.timestamp.unwrap() > hold.end => "late",
                    Some(hold) => {
                        assert!(text(payload.unwrap()).starts_with("hold"));
                        if text(answer) == "yes" {
                            hold.needs -= 1
                        } else {
                            hold.refused = true
                        }
                        let state = hold.write();
                        made.keep(source, "state", Some(state), false);
                        "counted"
                    }
                };
                Ok(made.audit(state, format!("answer {}", answer.source.offset), effect))
            }
            Input::Held(payload, turn, delivery) => {
                assert_eq!(payload.source.topic, topic("from.holds"));
                let key = std::str::from_utf8(payload.key.as_deref().unwrap()).unwrap();
                let source = Offset(key.strip_suffix("/payload").unwrap().parse().unwrap());
                let mut made = Made::new(payload.source.partition);
                let value = text(payload);
                let holds = &mut state.newest().0;
                if turn == Turn::Remind {
                    let hold = holds.get_mut(&source).expect("it is held");
                    hold.reminded = true;
                    let state = hold.write();
                    made.keep(source, "state", Some(state), false);
                    made.tell(source, "reminded");
                    return Ok(made.effects);
                }
                let hold = holds.remove(&source).expect("it is held");
                let (to, how) = match (turn, delivery) {
                    (_, Delivery::Undeliverable(_) | Delivery::Bare(_)) => ("denied", "undeliverable"),
                    (Turn::TimedOut, _) => ("denied", "timed_out"),
                    _ if hold.refused => ("denied", "refused"),
                    _ => ("to", "released"),
                };
                made.end(to, how, source, &value);
                Ok(made.audit(state, format!("held {source}"), how))
            }
        }
    }
}
