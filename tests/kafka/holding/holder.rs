//! A decider that does nothing but hold: every record whose value begins with `hold`, for so many approvals as its last digit
//! says, until one refusal, or for a while. Limits: its answers are words; what is under test is the stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use countersign::authorize::ids::{Digest, Offset, Partition, Topic, UnixMillis};
use countersign::authorize::merkle::Range;
use countersign::authorize::record::{Header, Record};
use countersign::stream::decider::{
    DecideError, Decider, Due, Input, PartitionCounts, Remembered, ReplayBatch, Stored, Turn,
};
use countersign::wire::outgoing::{Effects, Kept, Outgoing};

/// How long a record is held.
const LIFE_MS: i64 = 4_000;

/// Where it writes.
#[derive(Clone)]
pub struct Topics {
    pub to: Topic,
    pub denied: Topic,
    pub audit: Topic,
    pub holds: Topic,
    pub challenges: Topic,
}

pub struct Holder {
    pub topics: Topics,
    pub now: UnixMillis,
}

#[derive(Clone)]
struct Hold {
    payload: Option<Offset>,
    end: UnixMillis,
    needs: i64,
    refused: bool,
}

impl Hold {
    fn write(&self) -> String {
        format!("{},{},{}", self.end.0, self.needs, i64::from(self.refused))
    }

    fn is_answered(&self) -> bool {
        self.refused || self.needs <= 0
    }
}

#[derive(Default)]
pub struct Waiting {
    holds: BTreeMap<Offset, Hold>,
    payloads: BTreeMap<Offset, Offset>,
    /// What each open batch changes, an entry or its end, and the tree as it leaves it; oldest first.
    open: VecDeque<(BTreeMap<Offset, Option<Hold>>, Range)>,
    tree: Range,
}

impl Waiting {
    fn get(&self, source: Offset) -> Option<&Hold> {
        match self.open.iter().rev().find_map(|(changes, _)| changes.get(&source)) {
            Some(changed) => changed.as_ref(),
            None => self.holds.get(&source),
        }
    }

    fn newest(&mut self) -> &mut (BTreeMap<Offset, Option<Hold>>, Range) {
        self.open.back_mut().expect("a batch is open")
    }
}

fn words(bytes: Option<&Bytes>) -> String {
    String::from_utf8(bytes.expect("it is there").to_vec()).expect("text")
}

fn source_of(key: &str) -> Offset {
    Offset(key.split('/').next().expect("a part").parse().expect("an offset"))
}

impl Remembered for Waiting {
    fn fresh(_window: Duration) -> Self {
        Self::default()
    }
    fn begin(&mut self) {
        let tree = self.open.back().map_or(&self.tree, |(_, tree)| tree).clone();
        self.open.push_back((BTreeMap::new(), tree));
    }
    fn commit(&mut self) {
        let (changes, tree) = self.open.pop_front().expect("a batch is open");
        for (source, changed) in changes {
            match changed {
                Some(hold) => drop(self.holds.insert(source, hold)),
                None => drop(self.holds.remove(&source)),
            }
        }
        self.tree = tree;
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
        let key = words(record.key.as_ref());
        let source = source_of(&key);
        match (key.ends_with("/payload"), &record.value) {
            (true, Some(_)) => drop(self.payloads.insert(source, record.source.offset)),
            (true, None) => drop(self.payloads.remove(&source)),
            (false, None) => drop(self.holds.remove(&source)),
            (false, Some(_)) => {
                let text = words(record.value.as_ref());
                let numbers: Vec<i64> =
                    text.split(',').map(|number| number.parse().expect("a number")).collect();
                let payload = self.payloads.get(&source).copied();
                let end = UnixMillis(numbers[0]);
                let hold = Hold { payload, end, needs: numbers[1], refused: numbers[2] == 1 };
                self.holds.insert(source, hold);
            }
        }
        Ok(())
    }
    fn stored(&mut self, source: Offset, payload: Offset) {
        // Nothing touches an entry again before this is told, so it stands in the oldest layer alone.
        let oldest = self.open.front_mut().and_then(|(changes, _)| changes.get_mut(&source));
        if let Some(Some(hold)) = oldest {
            hold.payload = Some(payload);
        }
    }
    fn named(&self, answer: &Record) -> Option<Stored> {
        let source = source_of(&words(answer.key.as_ref()));
        Some(Stored { source, payload: self.holds.get(&source)?.payload? })
    }
    fn due(&self, _now: UnixMillis, answered: UnixMillis, limit: usize) -> Vec<Due> {
        let turn = |hold: &Hold| match hold {
            _ if hold.is_answered() => Some(Turn::Decide),
            _ if hold.end < answered => Some(Turn::TimedOut),
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
        let touched: BTreeSet<Offset> =
            self.open.iter().flat_map(|(changes, _)| changes.keys().copied()).collect();
        let begun =
            touched.iter().filter(|at| self.get(**at).is_some() && !self.holds.contains_key(at)).count();
        let ended =
            touched.iter().filter(|at| self.get(**at).is_none() && self.holds.contains_key(at)).count();
        self.holds.len() + begun - ended
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

fn written(topic: &Topic, partition: Partition, key: String, value: Option<Bytes>) -> Outgoing {
    let key = Some(Bytes::from(key));
    Outgoing { topic: topic.clone(), partition, timestamp: None, key, value, headers: Vec::new() }
}

impl Holder {
    fn kept(&self, partition: Partition, source: Offset, part: &str, value: Option<Bytes>) -> Kept {
        let payload_of = (part == "payload" && value.is_some()).then_some(source);
        Kept { record: written(&self.topics.holds, partition, format!("{source}/{part}"), value), payload_of }
    }

    fn audited(
        &self,
        mut effects: Effects,
        partition: Partition,
        key: String,
        value: &str,
        state: &mut Waiting,
    ) -> Effects {
        let leaf = state.newest().1.append(key.as_bytes());
        let mut audit = written(&self.topics.audit, partition, key, Some(Bytes::from(value.to_owned())));
        audit.headers.push(Header::new("leaf", leaf.to_string()));
        effects.audit = Some(audit);
        effects
    }

    fn record(&self, record: &Record, state: &mut Waiting) -> Effects {
        let (value, source, partition) =
            (words(record.value.as_ref()), record.source.offset, record.source.partition);
        let mut effects = none();
        let key = format!("record {source}");
        if !value.starts_with("hold") {
            let copy = written(&self.topics.to, partition, "copied".into(), record.value.clone());
            effects.outcome = Some(copy);
            return self.audited(effects, partition, key, "copied", state);
        }
        let end = UnixMillis(self.now.0 + LIFE_MS);
        let needs = value.split(' ').nth(2).expect("how many").parse().expect("a number");
        let hold = Hold { payload: None, end, needs, refused: false };
        let stands = Some(Bytes::from(hold.write()));
        effects.kept = vec![
            self.kept(partition, source, "payload", record.value.clone()),
            self.kept(partition, source, "state", stands),
        ];
        effects.told =
            vec![written(&self.topics.challenges, partition, source.to_string(), Some("open".into()))];
        state.newest().0.insert(source, Some(hold));
        self.audited(effects, partition, key, &end.0.to_string(), state)
    }

    fn answer(&self, answer: &Record, payload: Option<&Record>, state: &mut Waiting) -> Effects {
        let (source, partition) = (source_of(&words(answer.key.as_ref())), answer.source.partition);
        let mut effects = none();
        let effect = match state.get(source).cloned() {
            None => "stray",
            Some(hold) if hold.is_answered() => "second",
            Some(hold) if answer.timestamp.expect("a stamp") > hold.end => "late",
            Some(mut hold) => {
                assert!(words(payload.expect("the payload").value.as_ref()).starts_with("hold"));
                if words(answer.value.as_ref()) == "yes" {
                    hold.needs -= 1
                } else {
                    hold.refused = true
                }
                effects.kept = vec![self.kept(partition, source, "state", Some(hold.write().into()))];
                state.newest().0.insert(source, Some(hold));
                "counted"
            }
        };
        self.audited(effects, partition, format!("answer {}", answer.source.offset), effect, state)
    }

    fn held(&self, payload: &Record, turn: Turn, state: &mut Waiting) -> Effects {
        let (source, partition) = (source_of(&words(payload.key.as_ref())), payload.source.partition);
        let hold = state.get(source).cloned().expect("it is held");
        let (topic, how) = match turn {
            Turn::TimedOut => (&self.topics.denied, "timed_out"),
            _ if hold.refused => (&self.topics.denied, "refused"),
            _ => (&self.topics.to, "released"),
        };
        let mut effects = none();
        effects.outcome = Some(written(topic, partition, how.into(), payload.value.clone()));
        effects.kept =
            vec![self.kept(partition, source, "payload", None), self.kept(partition, source, "state", None)];
        effects.told =
            vec![written(&self.topics.challenges, partition, source.to_string(), Some(how.into()))];
        state.newest().0.insert(source, None);
        self.audited(effects, partition, format!("held {source}"), how, state)
    }
}

fn none() -> Effects {
    Effects { outcome: None, kept: Vec::new(), told: Vec::new(), audit: None }
}

impl Decider for Holder {
    type State = Waiting;
    fn open_batch(&mut self, now: UnixMillis) {
        self.now = now;
    }
    fn decide(
        &mut self,
        input: Input<'_>,
        _counts: &dyn PartitionCounts,
        state: &mut Waiting,
    ) -> Result<Effects, DecideError> {
        Ok(match input {
            Input::Record(record, _) => self.record(record, state),
            Input::Answer(answer, payload) => self.answer(answer, payload, state),
            Input::Held(payload, turn, _) => self.held(payload, turn, state),
        })
    }
}
